"""Checkpoints through Orbax: a flat state and its hash for each step, and recovery when one is damaged.

Orbax's v1 names still change, so nothing else in genbench imports it.
"""

import bisect
import dataclasses
import errno
import glob
import pathlib
import shutil
import warnings
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import jax

from genbench import reading
from genbench.errors import UserError
from genbench.training import processes
from genbench.training import state as states

METADATA = '_CHECKPOINT_METADATA'  # the file in which Orbax describes one step
STEP_METADATA = {
    'commit_timestamp_nsecs?': (int, None), 'init_timestamp_nsecs?': (int, None), 'metrics?': (dict, None),
    'performance_metrics?': (dict, None), 'custom_metadata?': (dict, None),
}  # fmt: skip


def check_path(folder: pathlib.Path) -> None:
    """Raise a UserError for a path that Orbax would take for a glob pattern and could not find again."""
    path = str(folder.absolute())
    if glob.escape(path) != path or '\\' in path:
        raise UserError(f'{path} contains * ? [ or \\, which the checkpoint reader cannot handle; choose another name.')


def begun(folder: pathlib.Path) -> bool:
    """Whether there are any checkpoints, readable or not."""
    return folder.is_dir() and any(entry.name.isdecimal() for entry in folder.iterdir())


@dataclasses.dataclass(frozen=True)
class Retention:
    """Which checkpoints to keep: the newest `last`, those at multiples of `every`, and the `best` by a logged scalar.

    Attributes:
      metric: name of the scalar. A checkpoint saved without it is never among the best.
      mode: 'min' or 'max'.
      begins: the steps at which stages begin. The best are chosen within each stage, because losses on images of
        different shapes cannot be compared.
    """

    last: int
    every: int = 0
    best: int = 0
    metric: str = ''
    mode: str = 'min'
    begins: tuple[int, ...] = (0,)

    def reasons(self, scores: Mapping[int, float | None]) -> dict[int, list[str]]:
        """{step: the reasons to keep it, in words}, given {step: value of the scalar}. A step to delete has none."""
        steps = sorted(scores)
        scored = [(score, step) for step, score in sorted(scores.items()) if score is not None]
        ranked: dict[int, list[int]] = {}
        for _, step in sorted(scored, reverse=self.mode == 'max'):
            ranked.setdefault(bisect.bisect_left(self.begins, step), []).append(step)
        kept = {
            f'newest {self.last}': steps[-self.last :],
            f'every {self.every}': [step for step in steps if self.every and step % self.every == 0],
            f'best {self.best} by {self.metric}': [step for alike in ranked.values() for step in alike[: self.best]],
        }
        return {step: [reason for reason, chosen in kept.items() if step in chosen] for step in steps}

    def should_preserve(self, checkpoints: Sequence[Any], *, context: Any) -> list[bool]:
        """Orbax calls this after each save."""
        reasons = self.reasons({entry.step: _score(entry.metrics, self.metric) for entry in checkpoints})
        return [bool(reasons[entry.step]) for entry in checkpoints]


def _score(metrics: Mapping[str, Any] | None, name: str) -> float | None:
    return (metrics or {}).get(name)


class Checkpoints:
    """The checkpoints of a run. Checkpoint k holds the state after k updates.

    Args:
      retention: which ones to keep when another is saved. None opens the folder for reading only.
    """

    def __init__(self, folder: pathlib.Path, retention: Retention | None = None):
        self._folder = folder
        self._retention = retention
        self._checkpointer: Any = None

    def _open(self) -> Any:
        if self._checkpointer is None:
            from orbax.checkpoint import v1 as ocp

            folder, policy = self._folder.absolute(), self._retention
            options: dict[str, Any] = {'preservation_policy': policy, 'cleanup_tmp_directories': True} if policy else {}
            for path in sorted(self._folder.rglob('*')) if self._folder.is_dir() else ():
                reading.check_kind(path)
            try:
                self._checkpointer = ocp.training.Checkpointer(folder, **options)
            except Exception as error:
                for step, reason in self._unreadable():
                    raise UserError(f'Checkpoint {step} is damaged: {reason} Move the folder {folder / str(step)} '
                                    'away to use another checkpoint.') from error  # fmt: skip
                raise
        return self._checkpointer

    def _unreadable(self) -> Iterator[tuple[int, str]]:
        """Steps whose own metadata cannot be read, and why. One such step would make Orbax fail to open the folder."""
        for folder in sorted(self._folder.iterdir()) if self._folder.is_dir() else ():
            if folder.name.isdecimal() and (folder / METADATA).exists():
                try:
                    reading.read_json(folder / METADATA, STEP_METADATA, 'Orbax needs it.')
                except UserError as error:
                    yield int(folder.name), str(error)

    def steps(self) -> list[int]:
        """Committed steps, ascending."""
        if self._checkpointer is None and not self._folder.is_dir():
            return []
        return sorted(checkpoint.step for checkpoint in self._open().checkpoints)

    @property
    def metric(self) -> str:
        """The scalar that ranks checkpoints; '' if none is kept for being best."""
        return self._retention.metric if self._retention and self._retention.best else ''

    def scores(self, metric: str) -> dict[int, float | None]:
        """{step: value of this scalar when the checkpoint was saved}, ascending."""
        if not self.steps():
            return {}
        return {entry.step: _score(entry.metrics, metric) for entry in self._open().checkpoints}

    def sha256(self, step: int) -> str:
        """The hash recorded when the state of this step was saved; '' if there is none."""
        if step not in self.steps():
            return ''
        try:
            return (self._open().metadata(step).custom_metadata or {}).get('state_sha256', '')
        except Exception:  # damaged
            return ''

    def save(self, step: int, state: Any, score: float | None = None) -> str:
        """Start writing the state in the background and return its hash.

        Args:
          score: value of the scalar that `Retention.metric` names.
        """
        named = states.flatten(state)
        if jax.process_count() == 1:
            named = jax.device_get(named)
        digest = states.sha256(named)
        self._check_space(sum(value.nbytes for value in named.values()))
        metrics = {self.metric: score} if self.metric and score is not None else None
        try:
            self._open().save_async(step, named, force=True, metrics=metrics, custom_metadata={'state_sha256': digest})
        except Exception as error:
            raise self._explained(error) from error
        return digest

    def wait(self) -> None:
        """Wait until everything is on disk."""
        if self._checkpointer is not None:
            try:
                self._checkpointer.wait()
            except Exception as error:
                raise self._explained(error) from error

    def close(self) -> None:
        if self._checkpointer is not None:
            checkpointer, self._checkpointer = self._checkpointer, None
            checkpointer.close()

    def _check_space(self, needed: int) -> None:
        """Check for free space first: a write that fails half way prints tracebacks from background threads."""
        self._folder.mkdir(parents=True, exist_ok=True)
        if shutil.disk_usage(self._folder).free < 1.2 * needed + 2**18:
            raise self._explained(OSError(errno.ENOSPC, 'No space left on device'))

    def _explained(self, error: Exception) -> Exception:
        text = str(error)
        if 'No space left' in text or 'RESOURCE_EXHAUSTED' in text or isinstance(error, PermissionError):
            reason = 'the folder cannot be written' if isinstance(error, PermissionError) else 'the disk is full'
            kept = ', '.join(map(str, self.steps())) or 'none'
            return UserError(f'No checkpoint could be saved in {self._folder}: {reason}. Earlier checkpoints: {kept}.')
        return error

    def restore(self, like: Any, step: int) -> Any:
        """The state saved at a step, with the structure and placement of `like` (shapes, types, shardings).

        Raises:
          UserError: the checkpoint and the config describe different parameters. The message says which.
          DamagedError: it cannot be read.
        """
        wanted = states.flatten(like)
        try:
            metadata = self._open().metadata(step)
            saved = {name: tuple(leaf.shape) for name, leaf in metadata.metadata.items()}
        except Exception as error:
            raise DamagedError(str(error)) from error
        _check_shapes(saved, {name: tuple(leaf.shape) for name, leaf in wanted.items()}, self._folder / str(step))
        abstract = {
            name: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=leaf.sharding) for name, leaf in wanted.items()
        }
        problem: Exception | None = None
        try:
            named = self._open().load(step, abstract)
        except Exception as error:
            problem = error
        if not processes.all_agree(problem is None):
            raise DamagedError(str(problem or 'another process cannot read it')) from problem
        digest = states.sha256(named)
        if digest != (metadata.custom_metadata or {}).get('state_sha256'):
            raise DamagedError('its contents do not match their hash')
        return states.unflatten(named, like)

    def restore_latest(self, like_for_step: Any) -> tuple[int, Any] | None:
        """(step, state) of the newest readable checkpoint. Damaged ones are set aside, not deleted.

        Args:
          like_for_step: step → structure of the state at that step.
        """
        unreadable = list(self._unreadable())
        processes.all_agree(True)  # every process looks before one of them moves a folder
        for step, reason in unreadable:
            self._set_aside(step, reason)
        for step in reversed(self.steps()):
            try:
                return step, self.restore(like_for_step(step), step)
            except DamagedError as error:
                self._set_aside(step, str(error).strip().splitlines()[0][:120])
        return None

    def _set_aside(self, step: int, reason: str) -> None:
        """Move a damaged checkpoint out of the way and report it. Raise a UserError when none is left."""
        self.close()
        parent = self._folder.parent / 'damaged'
        aside = parent / f'{step}-{len(list(parent.iterdir())) if parent.is_dir() else 0}'

        def move() -> None:
            parent.mkdir(exist_ok=True)
            shutil.move(self._folder / str(step), aside)

        processes.first_does(move)
        warnings.warn(f'Checkpoint {step} is damaged and was moved to {aside} ({reason}).', stacklevel=3)
        if not begun(self._folder):
            raise UserError(
                f'No checkpoint of {self._folder.parent} can be read; they were moved to {aside.parent}. '
                'Repeat the command to train from the start.'
            )


class DamagedError(Exception):
    """A checkpoint exists but cannot be read."""


def _check_shapes(saved: Mapping[str, tuple], wanted: Mapping[str, tuple], where: pathlib.Path) -> None:
    missing = [name for name in wanted if name not in saved]
    extra = [name for name in saved if name not in wanted]
    differing = [name for name in wanted if name in saved and saved[name] != wanted[name]]
    if differing:
        name = differing[0]
        problem = f'{name} has shape {saved[name]} there, but {wanted[name]} in this config'
    elif missing or extra:
        problem = f'it lacks {missing[0]}' if missing else f'it has {extra[0]}, which this config does not'
    else:
        return
    count = len(missing) + len(extra) + len(differing)
    raise UserError(f'The checkpoint {where} does not fit this config: {problem} ({count} differences in total).')

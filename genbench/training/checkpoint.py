"""Checkpoints through Orbax: a flat state for each step, its hash, and the way back when one is damaged.

Orbax's v1 names still move; nothing else in genbench imports it.
"""

import errno
import pathlib
import shutil
import warnings
from collections.abc import Mapping
from typing import Any

import jax

from genbench.errors import UserError
from genbench.training import state as states


class Checkpoints:
    """The checkpoints of a run. A checkpoint called k holds the state after k updates."""

    def __init__(self, folder: pathlib.Path, keep: int | None = None):
        self._folder = folder
        self._keep = keep
        self._checkpointer: Any = None

    def _open(self) -> Any:
        if self._checkpointer is None:
            from orbax.checkpoint import v1 as ocp

            policies = ocp.training.preservation_policies
            policy: Any = policies.LatestN(self._keep) if self._keep else policies.PreserveAll()
            folder: Any = self._folder.absolute()
            self._checkpointer = ocp.training.Checkpointer(folder, preservation_policy=policy)
        return self._checkpointer

    def steps(self) -> list[int]:
        """Committed steps, ascending."""
        if self._checkpointer is None and not self._folder.is_dir():
            return []
        return sorted(checkpoint.step for checkpoint in self._open().checkpoints)

    def save(self, step: int, state: Any) -> str:
        """Start writing the state in the background and return its hash."""
        named = jax.device_get(states.flatten(state))
        digest = states.sha256(named)
        self._check_space(sum(value.nbytes for value in named.values()))
        try:
            self._open().save_async(step, named, force=True, custom_metadata={'state_sha256': digest})
        except Exception as error:
            raise self._explained(error) from error
        return digest

    def wait(self) -> None:
        """Until everything is on disk."""
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
        """A write that fails half way leaves tracebacks of background threads on the screen; ask first."""
        self._folder.mkdir(parents=True, exist_ok=True)
        if shutil.disk_usage(self._folder).free < 1.2 * needed + 2**18:
            raise self._explained(OSError(errno.ENOSPC, 'No space left on device'))

    def _explained(self, error: Exception) -> Exception:
        text = str(error)
        if 'No space left' in text or 'RESOURCE_EXHAUSTED' in text or isinstance(error, PermissionError):
            reason = 'the folder cannot be written' if isinstance(error, PermissionError) else 'the disk is full'
            kept = ', '.join(map(str, self.steps())) or 'none'
            return UserError(f'A checkpoint could not be saved in {self._folder}: {reason}. Kept so far: {kept}.')
        return error

    def restore(self, like: Any, step: int) -> Any:
        """The state saved at a step, with the structure and placement of `like` (shapes, types, shardings).

        Raises:
          UserError: the checkpoint holds other parameters than the config describes, said in words.
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
        try:
            named = self._open().load(step, abstract)
            digest = states.sha256(jax.device_get(named))
        except Exception as error:
            raise DamagedError(str(error)) from error
        if digest != (metadata.custom_metadata or {}).get('state_sha256'):
            raise DamagedError('its contents do not have the hash they were saved with')
        return states.unflatten(named, like)

    def restore_latest(self, like_for_step: Any) -> tuple[int, Any] | None:
        """(step, state) of the newest checkpoint that can be read; damaged ones are set aside, not deleted.

        Args:
          like_for_step: step → structure of the state at that step.
        """
        for step in reversed(self.steps()):
            try:
                return step, self.restore(like_for_step(step), step)
            except DamagedError as error:
                aside = self._set_aside(step)
                reason = str(error).strip().splitlines()[0][:120]
                warnings.warn(f'Checkpoint {step} is damaged and was moved to {aside} ({reason}).', stacklevel=2)
                if not self.steps():
                    raise UserError(
                        f'No checkpoint of {self._folder.parent} can be read; they are in {aside.parent}. The same '
                        'command, given again, trains from the start.'
                    ) from error
        return None

    def _set_aside(self, step: int) -> pathlib.Path:
        self.close()
        parent = self._folder.parent / 'damaged'
        parent.mkdir(exist_ok=True)
        number = len(list(parent.iterdir()))
        return pathlib.Path(shutil.move(self._folder / str(step), parent / f'{step}-{number}'))


class DamagedError(Exception):
    """A checkpoint that is there and cannot be read."""


def _check_shapes(saved: Mapping[str, tuple], wanted: Mapping[str, tuple], where: pathlib.Path) -> None:
    missing = [name for name in wanted if name not in saved]
    extra = [name for name in saved if name not in wanted]
    differing = [name for name in wanted if name in saved and saved[name] != wanted[name]]
    if differing:
        name = differing[0]
        problem = f'{name} has shape {saved[name]} there and {wanted[name]} in this config'
    elif missing or extra:
        problem = f'it lacks {missing[0]}' if missing else f'it holds {extra[0]}, which this config does not have'
    else:
        return
    count = len(missing) + len(extra) + len(differing)
    raise UserError(f'The checkpoint {where} does not fit: {problem} ({count} differences in all).')

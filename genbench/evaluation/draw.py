"""Draw samples of a run as a picture or as an array."""

import pathlib
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from genbench import config as configs
from genbench.data import conditions, opening, sources
from genbench.data.conditions import Given
from genbench.data.spec import DataSpec
from genbench.errors import UserError
from genbench.families.base import Family, Sampler
from genbench.training import lending, processes, runs, samplers, sampling
from genbench.training.state import State


def draw_to_file(
    workdir: str,
    out: str,
    *,
    count: int,
    sampler: str,
    seed: int,
    given: Sequence[str],
    overrides: Sequence[str] = (),
    step: int | None = None,
) -> None:
    """Draw `count` images into a .png grid, or an .npz with 'images', 'levels' and the conditions ('given_KIND').

    Joined processes draw an equal part each.

    Args:
      step: of the checkpoint; None: the newest.
      given: conditions 'KIND=VALUE' that all images share.
    """
    path = pathlib.Path(out)
    if path.suffix not in ('.png', '.npz'):
        raise UserError(f'--out is {out}; it should end in .png or .npz.')
    images, spec, known = Source(workdir, tuple(overrides), step).draw(count, sampler, seed, given)
    processes.first_does(lambda: _write(path, images, spec, known))


def _write(path: pathlib.Path, images: np.ndarray, spec: DataSpec, known: Given) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.suffix == '.png':
            sampling.save_grid(path, images, spec)
        else:
            told = {f'given_{name}': np.asarray(values) for name, values in (known or {}).items()}
            arrays: dict[str, Any] = {'images': images, 'levels': spec.levels, **told}
            np.savez(path, **arrays)
    except OSError as error:
        raise UserError(f'{path} cannot be written: {error.strerror}.') from None


def check_said(given: Sequence[str], sampler: Sampler) -> None:
    """Raise a UserError if both a condition and the sampler set the weight of guidance."""
    if sampler.guidance and any(text.startswith(f'{conditions.WEIGHT}=') for text in given):
        raise UserError(f'--given {conditions.WEIGHT} and the guidance of the sampler are the same; use only one.')


class Drawn(NamedTuple):
    """Integer images (count, …), the data they model, and the conditions they were given."""

    images: np.ndarray
    spec: DataSpec
    given: Given


class Source:
    """A checkpoint to draw from. Calls share what has been restored and compiled.

    Args:
      overrides: 'key=value' changes to the run's config.
      step: of the checkpoint; None: the newest.
    """

    def __init__(self, workdir: str, overrides: Sequence[str] = (), step: int | None = None):
        run = runs.open_run(workdir)
        self._run = runs.open_run(workdir, config=configs.resolve(configs.plain(run.config), overrides))
        self._step, self._state = self._run.restore(step)
        self._ready: dict[str, tuple[sampling.Drawer, State]] = {}  # one for each borrowed guide

    def draw(self, count: int, sampler: str, seed: int, given: Sequence[str]) -> Drawn:
        """Draw images, starting with the first; arguments as in `draw_to_file`."""
        if count < 1:
            raise UserError(f'--count is {count}; it should be at least 1.')
        family = self.family
        chosen = samplers.parse(sampler, family) if sampler else samplers.default(family)
        run, (chosen,) = lending.guided(self._run, [chosen])
        known = _given(run, family, given, count, seed)
        check_said(given, chosen)
        start, stop = processes.part(0, count)
        own = conditions.cut(known, start, stop)
        drawn = self._images(run, chosen, stop - start, seed, own, start) if start < stop else None
        return Drawn(processes.gathered(drawn), family.spec, known)

    @property
    def family(self) -> Family:
        return self._run.after(self._step)

    def stated(self, texts: Sequence[str], count: int, seed: int, flag: str = '--given') -> dict[str, Any]:
        """The conditions 'KIND=VALUE' of the flag for `count` images. Those that nobody states are null.

        Raises:
          UserError: one is not stated, and the model was trained without its null value.
        """
        family = self.family
        found = dict(_given(self._run, family, texts, count, seed, flag) or {}) if texts else {}
        for name, form in family.forms.items():
            if name not in found and not self._run.config.family.get('condition_dropout'):
                raise UserError(f'This model always needs the condition {name}; add {flag} {name}=….')
            found.setdefault(name, np.asarray(form.null(count)))
        return found

    def told(self, chosen: Sampler, count: int, seed: int, given: Given) -> np.ndarray:
        """Integer images (count, …) with these conditions and originals as arrays, in this process alone."""
        run, (chosen,) = lending.guided(self._run, [chosen])
        return self._images(run, chosen, count, seed, given, 0)

    def shown(self, texts: Sequence[str], count: int, seed: int) -> Given:
        """The conditions 'KIND=VALUE' for `count` images; without any, those that `draw` uses."""
        return _given(self._run, self.family, texts, count, seed)

    def inverted(self, chosen: Sampler, images: np.ndarray, given: Given) -> np.ndarray:
        """The noise (count, …) from which this sampler would make integer images (count, …)."""
        run, (chosen,) = lending.guided(self._run, [chosen])
        drawer, state = self._drawer(run, chosen)
        return drawer.invert(state, chosen, images, given)

    @property
    def identity(self) -> dict[str, Any]:
        """What tells a checkpoint from others: the hashes of its config and state, and the average of its weights."""
        options = self._run.config
        return {
            'config_hash': configs.config_hash(options), 'step': self._step,
            'state_sha256': self._run.sha256(self._step), 'average': options.evaluation.average,
        }  # fmt: skip

    def _images(self, run: runs.Run, chosen: Sampler, count: int, seed: int, given: Given, first: int) -> np.ndarray:
        drawer, state = self._drawer(run, chosen)
        return drawer.draw(state, chosen, count, seed, given, first=first)

    def _drawer(self, run: runs.Run, chosen: Sampler) -> tuple[sampling.Drawer, State]:
        guide, options = getattr(chosen.options, 'guide', ''), self._run.config.evaluation
        if guide not in self._ready:
            blueprint, state = run.networks(self._step, self._state, options.average)
            self._ready[guide] = sampling.Drawer(blueprint, options.batch_size), sampling.replicate(state)
        return self._ready[guide]


def _given(run: runs.Run, family: Family, texts: Sequence[str], count: int, seed: int, flag: str = '--given') -> Given:
    """The conditions of all images, as users write them; without any, those that sample pictures use."""
    noised = family.path is not None and family.from_noise
    readable = {**family.conditions, **(conditions.kept(family.spec) if noised else {})}
    if not texts:
        return sampling.shown(family, count, lambda numbers: _train(run, family).rows(numbers), seed)
    found: dict[str, Any] = {}
    for text in texts:
        name, equals, value = text.partition('=')
        if not equals or name in found:
            raise UserError(f'{flag} {text} should be KIND=VALUE, with each kind once; for example {flag} label=3.')
        if name not in readable:
            if family.conditions:
                raise UserError(f'{flag} {text}: this run takes {", ".join(family.conditions)}.')
            raise UserError(f'{flag} {text}: this run was trained without conditions; train with '
                            'family.conditional=True or family.conditions.')  # fmt: skip
        one = readable[name]
        rows = {field: np.repeat(values, count, axis=0) for field, values in one.read(value).items()}
        found[name] = np.asarray(one.make(rows, sampling.image_keys(family, 'conditions', seed, 0, count)))
    return found


def _train(run: runs.Run, family: Family) -> sources.Arrays:
    builder = opening.open_data(run.config.data)
    return sources.load(builder, 'train', family.fields).resized(family.spec.shape)

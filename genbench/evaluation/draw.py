"""Samples of a run as a picture or as an array."""

import pathlib
from collections.abc import Sequence

import numpy as np

from genbench import config as configs
from genbench.errors import UserError
from genbench.training import runs, samplers, sampling


def draw_to_file(
    workdir: str, out: str, *, count: int, sampler: str, seed: int, label: int | None, overrides: Sequence[str] = ()
) -> None:
    """Draw `count` images from the newest checkpoint into a .png grid, or a .npz of 'images', 'labels', 'levels'."""
    path = pathlib.Path(out)
    if path.suffix not in ('.png', '.npz'):
        raise UserError(f'--out is {out}; it should end in .png or .npz.')
    if count < 1:
        raise UserError(f'--count is {count}; it should be at least 1.')
    run = runs.open_run(workdir)
    run = runs.open_run(workdir, config=configs.resolve(configs.plain(run.config), overrides))
    options, family = run.config.evaluation, run.family
    step, state = run.restore()
    blueprint, state = run.networks(step, state, options.average)
    chosen = samplers.parse(sampler, family) if sampler else samplers.default(family)
    labels = _labels(family, label, count)
    drawer = sampling.Drawer(blueprint, options.batch_size)
    images = drawer.draw(sampling.replicate(state), chosen, count, seed, labels)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.suffix == '.png':
            sampling.save_grid(path, images, family.spec)
        else:
            known = np.zeros(0, np.int32) if labels is None else labels
            np.savez(path, images=images, labels=known, levels=family.spec.levels)
    except OSError as error:
        raise UserError(f'{out} cannot be written: {error.strerror}.') from None


def _labels(family, label: int | None, count: int) -> np.ndarray | None:
    if label is None:
        return np.arange(count) % family.classes if family.conditional else None
    if not family.conditional:
        raise UserError('--label needs a run with family.conditional=True.')
    if not 0 <= label < family.classes:
        raise UserError(f'--label is {label}; {family.spec.name} has labels 0 to {family.classes - 1}.')
    return np.full(count, label)

"""What sampling is told of the images besides conditions: an original, its known pixels, or an observation of it."""

from collections.abc import Mapping

from genbench import rng
from genbench.data import degradations
from genbench.errors import UserError
from genbench.families.base import Array, Sampler
from genbench.families.spaces import Latents, Pixels, Space
from genbench.interpolants import inverse
from genbench.interpolants.inverse import Observation
from genbench.interpolants.options import ORIGINAL
from genbench.interpolants.solvers import Kept

KNOWN = '--given known=IMAGE, white where the original is kept'


def kept(held: Mapping[str, Array], sampler: Sampler, space: Space, kind: str) -> Kept | None:
    """The original image and its known pixels, in [−1, 1]. A UserError says if one of them or an option has no use."""
    said = sampler.options.changed
    if 'original' not in held and 'observed' not in held and (held or {*ORIGINAL} & {*said}):
        what = 'known' if held else next(name for name in ORIGINAL if name in said)
        raise UserError(f'Sampling with {what} needs an image to start from: --given original=IMAGE.')
    if 'original' not in held and {'strength', 'start'} & {*said}:
        raise UserError('The options strength and start need --given original=IMAGE.')
    if 'start' in said and kind != 'denoiser':
        raise UserError('start=inverted follows the slope of the trajectory through an image, but this network jumps '
                        'along it; use strength=SHARE alone.')  # fmt: skip
    if not {'known', 'observed'} & {*held} and 'resample' in said and 'problem' not in said:
        raise UserError(f'The option resample needs {KNOWN}, or problem=NAME in the sampler.')
    if ('known' in held or 'problem' in said) and isinstance(space, Latents):
        raise UserError('A model of latents cannot keep known pixels or solve inverse problems, because each latent '
                        'covers many pixels; vary the image as a whole with genbench edit --task=vary, or with --given '
                        'original=IMAGE and strength=SHARE in the sampler.')  # fmt: skip
    if 'original' in held and not {'known', 'observed'} & {*held} and not {'strength', 'start', 'problem'} & {*said}:
        raise UserError(f'--given original has no effect alone; add strength=SHARE to the sampler, or {KNOWN}.')
    if 'original' not in held:
        return None
    return Kept(held['original'], None if 'problem' in said else held.get('known'))


def observed(held: Mapping[str, Array], sampler: Sampler, space: Space, keys: Array, kind: str) -> Observation | None:
    """What the sampler's `problem` shows of the images, in units of the data space; None without a problem.

    Without an observation of its own, it is that of the original, with noise added.

    Raises:
      UserError: the images or the network do not admit the problem, or its mask is missing.
    """
    options = sampler.options
    if not getattr(options, 'problem', ''):
        return None
    assert isinstance(space, Pixels), 'latents were refused'
    known = degradation(options.problem, space.spec.shape, held)
    inverse.check(options, known, kind)
    if 'observed' in held:
        y = held['observed']
    else:
        y = known(held['original'])
        y += options.noise * rng.normal(keys, 'observed', y.shape[1:])
    return Observation(
        known.at(space.scale), space.scale * known.shown(y), space.scale * options.noise, options.posterior,
        options.weight, options.spread,
    )  # fmt: skip


def degradation(problem: str, shape: tuple[int, ...], held: Mapping[str, Array]) -> degradations.Degradation:
    """The degradation of a sampler's option `problem` for images of this shape (height, width, channels)."""
    if problem != degradations.GIVEN:
        return degradations.make(problem, shape)
    if 'known' not in held:
        raise UserError(f'problem={problem} needs {KNOWN}.')
    return degradations.Mask(held['known'])

"""Translate images from one model, class or caption to another: to noise along one ODE, and back along the other.

X. Su, J. Song, C. Meng, S. Ermon, Dual Diffusion Implicit Bridges for Image-to-Image Translation, 2023 (DDIB, algorithm
1). With one model and two conditions it exchanges labels or captions. A flow has an exact inverse and does the same.
"""

import dataclasses
from collections.abc import Sequence

import jax.numpy as jnp
import numpy as np

from genbench.data.spec import DataSpec
from genbench.errors import UserError
from genbench.evaluation import inversion
from genbench.evaluation.draw import Source
from genbench.families.base import Family, Sampler

TASK = 'translate'


def encoder(run: str, source: Source) -> Source:
    """The run that turns inputs into noise: `run`, or the one that turns noise into results.

    Raises:
      UserError: images or noise of the two have different shapes.
    """
    other = Source(run) if run else source
    mine, its = source.family, other.family
    if its.spec.shape != mine.spec.shape:
        raise UserError(f'--source models {its.spec}, but this run {mine.spec}; both need images of one size.')
    if _noise_shape(its) != _noise_shape(mine):
        raise UserError(f'The noise of --source has the shape {_noise_shape(its)}, but that of this run the shape '
                        f'{_noise_shape(mine)}; use runs whose noise has one shape.')  # fmt: skip
    return other


def _noise_shape(family: Family) -> tuple[int, ...]:
    return family.latent_shape or family.space.shape


def chosen(family: Family, text: str) -> Sampler:
    """The sampler of this text, or the usual one of a family whose samples have an inverse.

    Raises:
      UserError: the family or the sampler has none. The message says why.
    """
    sampler, why = inversion.chosen(family, text)
    if why:
        raise UserError(f'This {family.name} run cannot {TASK}, which needs the noise that an image comes from: {why}.')
    for option in ('strength', 'start', 'problem'):
        if option in sampler.options.changed:
            raise UserError(f'{TASK} starts at the noise of the input; leave {option} out of the sampler.')
    return sampler


def inverted(
    other: Source, sampler: Sampler, levels: np.ndarray, texts: Sequence[str], seed: int
) -> tuple[np.ndarray, int]:
    """The noise (n, …) of integer images (n, …) under these conditions, and the network evaluations of each.

    Guidance is left out, since it has no inverse.
    """
    plain = dataclasses.replace(sampler, guidance=0.0)
    evaluations = int(plain.num_steps) if other.family.path is not None else 1
    return other.inverted(plain, levels, other.stated(texts, len(levels), seed, '--source-given')), evaluations


def converted(levels: np.ndarray, spec: DataSpec, target: DataSpec) -> np.ndarray:
    """Integer images of one data set as those of another with the same shape."""
    return np.asarray(target.quantise(spec.dequantise(jnp.asarray(levels))))

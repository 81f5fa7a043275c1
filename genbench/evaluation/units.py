"""Active units: how many latents of a model the encoder uses (Burda et al. 2016, IWAE, appendix C).

A unit is active if the mean of its posterior varies between images with a variance above 0.01. In a hierarchy this mean
depends on the draws of the layers above. The covariance of the means of two independent draws estimates the variance
of their expectation without bias.
"""

import functools
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np

from genbench import rng
from genbench.data import pipeline
from genbench.data.sources import Arrays
from genbench.errors import UserError
from genbench.families import evidence
from genbench.families.base import Family
from genbench.training import processes, sampling
from genbench.training.state import Blueprint, State

if TYPE_CHECKING:
    from genbench.evaluation.harness import Weights

PROTOCOL = {'unit': 'a latent in units of its prior', 'active': f'variance of the mean above {evidence.ACTIVE}',
            'collapsed': f'divergence below {evidence.COLLAPSED} nats', 'draws': 2}  # fmt: skip


def score(weights: 'Weights') -> None:
    """Add a row with the number of active units of these parameters."""
    one, options, split = weights.evaluation, weights.options, weights.evaluation.real.split
    protocol = {**PROTOCOL, 'average': weights.average, 'split': options.split, 'seed': options.seed,
                'noise': sampling.NOISE, **one.told("each image's own row"), **one.real.resized}  # fmt: skip
    if processes.agreed(one.has('active_units', protocol)):
        return
    variance, error, divergence = measure(weights.blueprint, weights.state, split, options.seed, options.batch_size)
    value, sure = (int(evidence.active(least).sum()) for least in (variance, variance - 2 * error))
    details = {'units': len(variance), 'sure': sure, 'collapsed': int((divergence < evidence.COLLAPSED).sum()),
               'kl_nats': float(divergence.sum())}  # fmt: skip
    processes.first_does(functools.partial(
        one.add, 'active_units', value, protocol=protocol, kind='score', n=len(split), seed=options.seed,
        details=details,
    ))  # fmt: skip


def measure(
    blueprint: Blueprint, state: State, split: Arrays, seed: int, batch_size: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """For each unit the variance over images of its posterior mean, the error of that, and its mean divergence in nats.

    All are (units,). The error is that of the mean product of two draws, as if the means were centred at zero.

    Raises:
      UserError: the family has no encoder into latents that are standard normal under the prior, or there is one image.
    """
    family, sums, count = blueprint.family, None, len(split)
    if count < 2:
        raise UserError('active_units needs a variance over images; score two or more with evaluation.split.')
    run, size = program(blueprint), sampling.whole_batches(min(batch_size, count))
    for rows, mask, indices in pipeline.padded_batches(split, size):
        first = int(indices[0])
        keys = sampling.image_keys(family, 'likelihood', seed, first, size)
        given = sampling.given(family, rows, 'conditions', seed, first)
        parts = jax.device_get(run(state, *sampling.split_over_devices((rows['image'], given, keys, mask))))
        parts = [np.asarray(part, np.float64) for part in parts]
        sums = parts if sums is None else [a + b for a, b in zip(sums, parts, strict=True)]
    assert sums is not None
    one, other, both, squares, divergence = sums
    error = np.sqrt(np.maximum(squares / count - np.square(both / count), 0) / count)
    return (both - one * other / count) / (count - 1), error, divergence / count


@functools.lru_cache(maxsize=4)
def program(blueprint: Blueprint) -> Any:
    """A function (state, images, conditions, keys, mask) → sums over a batch of what `measure` needs."""

    def run(state: State, images: Any, given: Any, keys: Any, mask: Any) -> tuple[jax.Array, ...]:
        networks = blueprint.bind_state(state)
        drawn = lambda name: blueprint.family.units(networks, images, given, keys, rng.named(keys, name))  # noqa: E731
        first, second = drawn('one'), drawn('other')
        if first is None or second is None:
            raise _lacking(blueprint.family)
        (one, divergence), (other, _) = first, second
        parts = (one, other, one * other, jnp.square(one * other), divergence)
        return tuple(jnp.where(mask[:, None], part, 0).sum(0) for part in parts)

    return jax.jit(run)


def check(family: Family, *_: Any) -> None:
    """Raise a UserError if no model of this family has an encoder into normal latents."""
    if type(family).units is Family.units:
        raise _lacking(family)


def _lacking(family: Family) -> UserError:
    return UserError('active_units needs an encoder into normal latents with a standard normal prior, which this '
                     f'{family.name} model does not have.')  # fmt: skip

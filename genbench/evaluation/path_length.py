"""Path length: how much images change along a small step between two latents (Karras et al. 2019, section 4.1).

With LPIPS as the distance it is the perceptual path length. Squared distances in features give a number of another
name, which compares only with itself.
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np

from genbench import rng
from genbench.data import conditions
from genbench.data.conditions import Given
from genbench.data.spec import DataSpec
from genbench.errors import UserError
from genbench.evaluation.features import FeatureNetwork, vgg
from genbench.families.base import Family, Sampler
from genbench.training import processes, sampling
from genbench.training.state import Blueprint, State

if TYPE_CHECKING:
    from genbench.evaluation.harness import Weights

TRIMMED = 1, 99  # percentiles between which lengths are averaged, as in the authors' code
PROTOCOL = {
    'between': 'a great circle between latents, norms in between', 'place': 'uniform',
    'trimmed': 'below percentile 1 and above 99', 'images': 'neither rounded nor clipped',
}  # fmt: skip

Array = jax.Array


@dataclasses.dataclass(frozen=True)
class Distance:
    """What a path is measured in.

    Attributes:
      metric: name of the result.
      params: arrays that `apply` is given.
      apply: (params, x, y) → (n,) of images (n, height, width, channels) whose real values are in levels of the data.
      protocol: what a number depends on.
    """

    metric: str
    params: Any
    apply: Callable[[Any, Array, Array], Array]
    protocol: dict[str, Any]


def score(weights: 'Weights') -> None:
    """Add a row for each sampler of these parameters."""
    one, options = weights.evaluation, weights.options.path_length
    distance = chosen(options, lambda: one.real.network, one.spec)
    asked = {'pairs': options.pairs, 'epsilon': options.epsilon, **PROTOCOL, **distance.protocol}
    for cell in (cell for cell in one.cells if cell.average == weights.chosen):
        drawn = one.sampling_protocol(cell, weights.average)
        protocol = {**asked, **{key: value for key, value in drawn.items() if key not in ('num_samples', 'sets')}}
        if processes.agreed(one.has(distance.metric, protocol)):
            continue
        first, stop = processes.part(0, options.pairs)
        own = measure(
            weights.blueprint, weights.state, cell.sampler, distance, one.given(0, options.pairs, cell.seed),
            span=(first, stop), epsilon=options.epsilon, seed=cell.seed, batch_size=weights.options.batch_size,
        )  # fmt: skip
        value, error = trimmed(processes.gathered(own))
        row = {'std_err': error, 'kind': 'distance', 'n': options.pairs, 'split': 'train', 'nfe': drawn['nfe'],
               'sampler': cell.sampler.name, 'seed': cell.seed}  # fmt: skip
        processes.first_does(functools.partial(one.add, distance.metric, value, protocol=protocol, **row))


def chosen(options: Any, network: Callable[[], FeatureNetwork], spec: DataSpec) -> Distance:
    """The distance of `evaluation.path_length`."""
    if options.distance == 'lpips':
        return perceptual(vgg.open_distance(options.vgg, linear=options.linear), spec)
    return in_features(network(), spec)


def perceptual(lpips: vgg.Perceptual, spec: DataSpec) -> Distance:
    """LPIPS.

    Raises:
      UserError: the images are too small for it.
    """
    if min(spec.shape[:2]) < vgg.SMALLEST:
        raise UserError(f'LPIPS needs images of at least {vgg.SMALLEST} pixels a side; those of {spec} are smaller. '
                        'Set evaluation.path_length.distance to features.')  # fmt: skip

    def apply(params: Any, x: Array, y: Array) -> Array:
        return lpips.apply(params, *(2 / (spec.levels - 1) * images - 1 for images in (x, y)))

    return Distance('perceptual_path_length', lpips.params, apply, lpips.protocol)


def in_features(network: FeatureNetwork, spec: DataSpec) -> Distance:
    """The squared distance in features.

    Raises:
      UserError: the network rounds its images, and would not see a small step.
    """
    if network.rounds:
        raise UserError(f'{network.name} rounds images to integers, which hides a small step. Use other features or '
                        'the convention clean, or set evaluation.path_length.distance to lpips.')  # fmt: skip
    scale = (network.levels - 1) / (spec.levels - 1)

    def apply(params: Any, x: Array, y: Array) -> Array:
        one, other = (network.traced(params, scale * images) for images in (x, y))
        return jnp.square(one - other).sum(-1)

    protocol = {'distance': 'squared, in features', **network.protocol}
    return Distance('path_length', network.params, apply, protocol)


def check(family: Family, *_: Any) -> None:
    """Raise a UserError if the family has no latents, or if its networks round small steps away."""
    if family.latent_shape is None:
        raise UserError(f'{family.name} does not make images from latents; remove path_length from '
                        'evaluation.metrics.')  # fmt: skip
    if (dtype := family.config.network.get('dtype', 'float32')) != 'float32':
        raise UserError(f'The networks compute in {dtype}, which rounds away a small step; remove path_length from '
                        'evaluation.metrics.')  # fmt: skip


def measure(
    blueprint: Blueprint, state: State, sampler: Sampler, distance: Distance, given: Given, *,
    span: tuple[int, int], epsilon: float, seed: int, batch_size: int,
) -> np.ndarray:  # fmt: skip
    """Lengths (n,) of a span of pairs: the distance of the images of two points that are ε apart on the way, over ε².

    Args:
      given: what the model is told of every pair from the first of all on.

    Raises:
      UserError: the images of the family are whole numbers whatever its networks put out.
    """
    family = blueprint.family
    smooth = type(family)(family.config, family.spec.continuous, family.borrowed)

    @jax.jit
    def lengths(state: Any, params: Any, keys: Array, given: Given) -> Array:
        networks = blueprint.bind_state(state)
        first, second = (smooth.latents(rng.named(keys, end), sampler) for end in ('first', 'second'))
        place = rng.uniform(keys, 'place')
        points = [on_circle(first, second, place + step) for step in (0, epsilon)]
        images = [smooth.generate(networks, z, keys, given, sampler) for z in points]
        if not jnp.issubdtype(images[0].dtype, jnp.floating):
            raise UserError(f'The decoder of {family.name} outputs discrete levels, which hide a small step; remove '
                            'path_length from evaluation.metrics.')  # fmt: skip
        return distance.apply(params, *images) / epsilon**2

    found, size = [np.zeros(0, np.float32)], sampling.whole_batches(min(batch_size, max(1, span[1] - span[0])))
    for start in range(*span, size):
        keys = sampling.image_keys(family, 'path_length', seed, start, size)
        batch = sampling.split_over_devices((keys, conditions.cut(given, start, start + size)))
        with jax.default_matmul_precision('highest'):  # for the same reason
            found.append(np.asarray(lengths(state, distance.params, *batch)))
    if not np.isfinite(whole := np.concatenate(found)[: span[1] - span[0]]).all():
        raise UserError(f'The path lengths of {family.name} are not finite: its images contain NaN or infinity.')
    return whole


def trimmed(lengths: np.ndarray) -> tuple[float, float]:
    """Mean of the lengths that are no outliers, and its standard error."""
    low, high = np.percentile(lengths, TRIMMED[0], method='lower'), np.percentile(lengths, TRIMMED[1], method='higher')
    kept = lengths[(lengths >= low) & (lengths <= high)].astype(np.float64)
    return float(kept.mean()), float(kept.std(ddof=1) / np.sqrt(len(kept)))


def on_circle(one: Array, other: Array, place: Array) -> Array:
    """Points (n, …) at shares `place` (n,) of the great circles between latents, of norms in between."""
    axes = tuple(range(1, one.ndim))
    lengths = [jnp.sqrt(jnp.square(z).sum(axes, keepdims=True)) for z in (one, other)]
    cosine = (one * other).sum(axes, keepdims=True) / (lengths[0] * lengths[1])
    angle = jnp.arccos(jnp.clip(cosine, -1 + 1e-6, 1 - 1e-6))
    place = place.reshape(angle.shape)
    return (jnp.sin((1 - place) * angle) * one + jnp.sin(place * angle) * other) / jnp.sin(angle)

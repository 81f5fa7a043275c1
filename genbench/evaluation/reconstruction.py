"""How well a first stage keeps images: reconstructions of the whole split beside the images themselves.

PSNR and SSIM compare each image with its own reconstruction. The Fréchet distance compares the set of images with the
set of their reconstructions, as the reconstruction FID of P. Esser, R. Rombach, B. Ommer, Taming Transformers for
High-Resolution Image Synthesis, 2021. It is called that only in the features of the published Inception. For discrete
latents, `codes_used` counts the codes that the split uses.
"""

import functools
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import numpy as np

from genbench import evaluation
from genbench.data import pipeline
from genbench.data.sources import Arrays
from genbench.errors import UserError
from genbench.evaluation import reference, similarity
from genbench.evaluation.features import FeatureNetwork
from genbench.families.base import Family
from genbench.families.spaces import FirstStage
from genbench.training import processes, sampling
from genbench.training.state import Blueprint, State

if TYPE_CHECKING:
    from genbench.evaluation.harness import Weights

METRICS = ('reconstruction_fd', 'reconstruction_psnr', 'reconstruction_ssim', 'codes_used')
AT_ONCE = 16  # images whose windows are compared together
MOST_DECIBELS = 99.0  # of an image that is reconstructed exactly

Row = tuple[float, float | None, dict[str, float] | None]  # a value, its standard error over images, and details


class Kept(NamedTuple):
    """What a first stage makes of images: integer images (n, …), and how often the split uses each code."""

    images: np.ndarray
    uses: np.ndarray


def score(weights: 'Weights') -> None:
    """Add the rows that the evaluation asks for, for these parameters."""
    one, options, split = weights.evaluation, weights.options, weights.evaluation.real.split
    stage = check(one.family)
    if 'codes_used' in options.metrics and not stage.num_codes:
        raise UserError(f'codes_used counts codes, but this {one.family.name} model has latents that are no codes; '
                        'leave it out.')  # fmt: skip
    drawn = {'z': 'drawn from the posterior of the image', 'average': weights.average, 'split': options.split,
             'seed': options.seed, 'noise': sampling.NOISE, **one.real.resized}  # fmt: skip
    wanted = {name: (name, drawn) for name in METRICS if name in options.metrics}
    if 'reconstruction_fd' in wanted:
        network = one.real.network
        wanted['reconstruction_fd'] = called(network), {**drawn, 'features': network.name, **network.protocol}
    wanted = {name: row for name, row in wanted.items() if not one.has(*row)}
    if not processes.agreed(wanted):
        return
    kept = reconstruct(weights.blueprint, weights.state, split, options.seed, options.batch_size)
    for name, (title, protocol) in wanted.items():
        value, error, details = MEASURES[name](weights, split.images, kept)
        processes.first_does(functools.partial(
            one.add, title, value, std_err=error, details=details, protocol=protocol, kind='reconstruction',
            n=len(split), seed=options.seed,
        ))  # fmt: skip


def called(network: FeatureNetwork) -> str:
    """The name of the Fréchet distance in results. A FID requires the published 2015 Inception."""
    return 'reconstruction_fid' if network.published else 'reconstruction_fd'


def check(family: Family) -> FirstStage:
    """The family as a first stage.

    Raises:
      UserError: it has no encoder and decoder that take images alone.
    """
    if not isinstance(family, FirstStage) or family.conditional:
        why = 'takes conditions' if isinstance(family, FirstStage) else 'has no encoder and decoder'
        raise UserError(f'This {family.name} model {why}, so there are no reconstructions; leave {", ".join(METRICS)} '
                        'out.')  # fmt: skip
    return family


def reconstruct(blueprint: Blueprint, state: State, split: Arrays, seed: int, batch_size: int) -> Kept:
    """Every image of the split, encoded with a key of its own and decoded."""
    family, images = blueprint.family, []
    uses = np.zeros(check(family).num_codes, int)
    run, size = program(blueprint), sampling.whole_batches(min(batch_size, len(split)))
    for rows, mask, indices in pipeline.padded_batches(split, size):
        keys = sampling.image_keys(family, 'reconstruction', seed, int(indices[0]), size)
        shown, index = jax.device_get(run(state, *sampling.split_over_devices((rows['image'], keys))))
        images.append(np.asarray(shown, rows['image'].dtype)[np.asarray(mask)])
        if uses.size:
            uses += np.bincount(np.asarray(index)[np.asarray(mask)].reshape(-1), minlength=uses.size)
    return Kept(np.concatenate(images), uses)


@functools.lru_cache(maxsize=4)
def program(blueprint: Blueprint) -> Any:
    """A function (state, images, keys) → reconstructions and the indices of their codes, or zeros."""
    stage = check(blueprint.family)

    def run(state: State, images: jax.Array, keys: jax.Array) -> tuple[jax.Array, jax.Array]:
        networks = blueprint.bind_state(state)
        index = stage.codes(networks, images) if stage.num_codes else images[:, 0, 0, 0]
        return stage.decode(networks, stage.encode(networks, images, keys)), index

    return jax.jit(run)


def _mean(values: np.ndarray) -> Row:
    return float(values.mean()), float(values.std(ddof=1) / len(values) ** 0.5), None


def _by_image(
    measure: Callable[[np.ndarray, np.ndarray], np.ndarray], weights: 'Weights', images: np.ndarray, kept: Kept
) -> np.ndarray:
    """A measure of each image and its reconstruction. A few at a time: windows take many times an image's memory."""
    pair, spec = (images, kept.images), weights.evaluation.spec
    starts = range(0, len(images), AT_ONCE)
    return np.concatenate([
        measure(*(sampling.to_uint8(part[start : start + AT_ONCE], spec) for part in pair)) for start in starts
    ])  # fmt: skip


def _psnr(weights: 'Weights', images: np.ndarray, kept: Kept) -> Row:
    return _mean(np.minimum(_by_image(similarity.psnr, weights, images, kept), MOST_DECIBELS))


def _ssim(weights: 'Weights', images: np.ndarray, kept: Kept) -> Row:
    return _mean(_by_image(similarity.ssim, weights, images, kept))


def _distance(weights: 'Weights', images: np.ndarray, kept: Kept) -> Row:
    one, network = weights.evaluation, weights.evaluation.real.network
    read = (reference.network_images(part, one.spec, network) for part in (images, kept.images))
    features = [network.extract(part, ('features',))['features'] for part in read]
    return float(evaluation.frechet_distance(*(m for part in features for m in evaluation.moments(part)))), None, None


def _used(weights: 'Weights', images: np.ndarray, kept: Kept) -> Row:
    shares = kept.uses[kept.uses > 0] / kept.uses.sum()
    perplexity = float(np.exp(-(shares * np.log(shares)).sum()))
    return float(len(shares)), None, {'codes': float(kept.uses.size), 'perplexity': perplexity}


MEASURES = dict(zip(METRICS, (_distance, _psnr, _ssim, _used), strict=True))

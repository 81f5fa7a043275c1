"""How well a model on a path solves inverse problems whose answer is known: held-out images, degraded.

A model without conditions solves them by the solvers in `interpolants.inverse`. A model with the condition
degraded:PROBLEM was trained for one problem (C. Saharia et al., Palette, 2022, and SR3, 2021) and is measured on it.

Each problem and each sampler (docs/editing.md) has a row for each metric: PSNR and SSIM against the true image, the
root mean square of y − A x over what A shows, the share of results that the classifier gives the true image's label,
the Fréchet distance of the results to the held-out images that were not degraded, and the diversity of several results
for one observation.
"""

import functools
from typing import TYPE_CHECKING, Any

import jax.numpy as jnp
import numpy as np
from PIL import Image

from genbench import evaluation, rng
from genbench.data import conditions
from genbench.data.spec import DataSpec
from genbench.errors import UserError
from genbench.evaluation import reference, similarity
from genbench.families import originals
from genbench.families.base import Family, Sampler
from genbench.interpolants import inverse
from genbench.interpolants.options import ORIGINAL
from genbench.training import processes, samplers, sampling

if TYPE_CHECKING:
    from genbench.evaluation.harness import Weights

DEGRADED = 'degraded'  # the condition of models that were trained for a problem
METRICS = (
    'restored_psnr', 'restored_ssim', 'restored_misfit', 'restored_class', 'restored_fd', 'restored_diversity',
)  # fmt: skip


def score(weights: 'Weights') -> None:
    """Add the rows of every problem and sampler of `evaluation.restoration`."""
    one, options = weights.evaluation, weights.options.restoration
    images, labels = _held_out(weights)
    for problem, sampler in ways(one.family, options):
        protocol = {
            **sampler.protocol, 'problem': problem,
            'posterior': 'trained' if trained(one.family) else sampler.options.posterior,
            'nfe': one.family.evaluations(sampler), 'average': weights.average,
            'borrowed': one.borrowed, 'seed': weights.options.seed, 'noise': sampling.NOISE, 'images': len(images),
            'draws': options.draws, 'split': weights.options.split, **one.real.resized,
        }  # fmt: skip
        wanted = [name for name in METRICS if name in weights.options.metrics]
        if processes.agreed([name for name in wanted if not one.has(name, protocol)]):
            found = measure(weights, problem, sampler, images, labels, wanted)
            row = {'kind': 'restoration', 'n': len(images) * options.draws, 'sampler': sampler.name,
                   'nfe': protocol['nfe'], 'seed': weights.options.seed}  # fmt: skip
            for name, (value, error, details) in found.items():
                add = functools.partial(one.add, name, value, std_err=error, details=details, protocol=protocol, **row)
                processes.first_does(add)


def check(family: Family, options: Any, *_: Any) -> None:
    """Raise a UserError if the model cannot be measured so. `options` is `evaluation` of the config."""
    if family.path is None or (family.conditional and not trained(family)):
        why = 'has conditions' if family.path is not None else 'has no path from noise to images'
        raise UserError(f'This {family.name} run {why}, and restoration measures models on a path without conditions '
                        'or with degraded:PROBLEM alone; leave the metrics restored_… out.')  # fmt: skip
    ways(family, options.restoration)


def trained(family: Family) -> str:
    """The problem that a model was trained for, by its only condition; '' if there is none."""
    names = conditions.named(family.config.family)
    kind, _, problem = names[0].partition(':') if len(names) == 1 else ('', '', '')
    return problem if kind == DEGRADED else ''


def ways(family: Family, options: Any) -> list[tuple[str, Sampler]]:
    """Each problem with each sampler that solves it.

    Raises:
      UserError: the family has no such sampler, or the sampler of a trained model has a problem of its own.
    """
    if not (problem := trained(family)):
        found = (chosen(family, problem, text) for problem in options.problems for text in options.samplers)
        return [(one.options.problem, one) for one in found]
    samplers_of = [samplers.parse(text, family) for text in options.trained_samplers]
    for text, one in zip(options.trained_samplers, samplers_of, strict=True):
        if {*ORIGINAL} & {*one.options.changed}:
            raise UserError(f'evaluation.restoration.trained_samplers has {text}, but this model is shown what '
                            f'{problem} leaves of an image; leave {" and ".join(ORIGINAL)} out.')  # fmt: skip
    return [(problem, one) for one in samplers_of]


def chosen(family: Family, problem: str, text: str) -> Sampler:
    """The sampler `text` for one problem."""
    written = samplers.read(text)
    sampler = samplers.build(written._replace(options={'problem': problem, **written.options}), family)
    degradation = originals.degradation(sampler.options.problem, family.spec.shape, {})
    inverse.check(sampler.options, degradation, getattr(family, 'kind', 'denoiser'))
    return sampler


def _held_out(weights: 'Weights') -> tuple[np.ndarray, np.ndarray]:
    split, count = weights.evaluation.real.split, weights.options.restoration.num_images
    if len(split) < count + 2:
        raise UserError(f'evaluation.restoration.num_images is {count}, but the split has {len(split)} images, and two '
                        'more have to remain for restored_fd.')  # fmt: skip
    return split.images[:count], split.labels[:count]


def measure(
    weights: 'Weights', problem: str, sampler: Sampler, images: np.ndarray, labels: np.ndarray, wanted: list[str]
) -> dict[str, tuple[float, float | None, dict[str, float] | None]]:
    """Each wanted metric, its standard error over images, and what to compare it with."""
    one, options = weights.evaluation, weights.options
    draws, spec, count = options.restoration.draws, one.spec, len(images)
    degradation = originals.degradation(problem, spec.shape, {})
    clean = degradation(spec.dequantise(jnp.asarray(images)))
    keys = rng.of_images(rng.root(options.seed, 'degraded'), 0, count)
    noise = sampler.options.noise * rng.normal(keys, 'observed', clean.shape[1:])
    y = np.asarray(degradation.shown(clean + noise))
    shown = np.repeat(y, draws, axis=0)
    told = {'observed': shown}
    if not sampler.options.problem:
        told = {DEGRADED: np.asarray(degradation.picture(jnp.asarray(shown), spec.shape))}
    results = weights.drawer.draw(weights.state, sampler, count * draws, options.seed, told)
    true, drawn = (sampling.to_uint8(part, spec) for part in (np.repeat(images, draws, axis=0), results))
    apart = degradation.distance(jnp.asarray(shown), spec.dequantise(jnp.asarray(results)))
    found: dict[str, np.ndarray] = {
        'restored_psnr': np.minimum(similarity.psnr(true, drawn), 99.0),
        'restored_misfit': np.asarray(apart),
    }
    if 'restored_ssim' in wanted:
        found['restored_ssim'] = similarity.ssim(true, drawn)
    if 'restored_diversity' in wanted and draws > 1:
        several = np.asarray(spec.dequantise(jnp.asarray(results)), float).reshape(count, draws, -1)
        found['restored_diversity'] = np.repeat(several.std(1, ddof=1).mean(1), draws)
    single: dict[str, float] = {}
    beside: dict[str, dict[str, float]] = {}
    if y.shape[1:3] != spec.shape[:2]:
        beside['restored_psnr'] = {'bicubic': _bicubic(y, images, spec)}
    if {'restored_class', 'restored_fd'} & {*wanted}:
        features = _features(weights, results)
        if 'restored_class' in wanted:
            found['restored_class'] = (features['logits'].argmax(1) == np.repeat(labels, draws)).astype(float)
            right = _features(weights, images)['logits'].argmax(1) == labels
            beside['restored_class'] = {'true_images': float(right.mean())}
        rest = _features(weights, one.real.split.images[count:])
        single['restored_fd'] = _distance(rest['features'], features['features'])
    by_image = {name: values.reshape(count, draws).mean(1) for name, values in found.items()}
    numbers: dict[str, tuple[float, float | None]] = {name: (value, None) for name, value in single.items()}
    numbers |= {name: (float(v.mean()), float(v.std(ddof=1) / count**0.5)) for name, v in by_image.items()}
    return {name: (*numbers[name], beside.get(name)) for name in wanted if name in numbers}


def _features(weights: 'Weights', images: np.ndarray) -> dict[str, np.ndarray]:
    real = weights.evaluation.real
    read = reference.network_images(images, weights.evaluation.spec, real.network)
    outputs = ('features', 'logits') if 'restored_class' in weights.options.metrics else ('features',)
    return real.network.extract(read, outputs)


def _distance(one: np.ndarray, other: np.ndarray) -> float:
    return float(evaluation.frechet_distance(*evaluation.moments(one), *evaluation.moments(other)))


def _bicubic(y: np.ndarray, images: np.ndarray, spec: DataSpec) -> float:
    """The PSNR of enlarging small observations with Pillow's bicubic filter."""
    height, width = spec.shape[:2]
    large = [np.stack([np.asarray(Image.fromarray(one[..., channel]).resize((width, height), Image.Resampling.BICUBIC))
                       for channel in range(one.shape[-1])], -1) for one in y.astype(np.float32)]  # fmt: skip
    levels = np.asarray(spec.quantise(jnp.clip(jnp.asarray(np.stack(large)), -1, 1)))
    return float(similarity.psnr(sampling.to_uint8(images, spec), sampling.to_uint8(levels, spec)).mean())

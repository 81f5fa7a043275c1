"""Parzen windows: the log-density of real images under samples that are blurred by a normal.

I. Goodfellow et al., Generative Adversarial Nets, 2014, section 5; Y. Wu et al., On the Quantitative Analysis of
Decoder-Based Generative Models, 2017, section 2. In many dimensions the number says more about the number of samples
than about the model (L. Theis et al., A Note on the Evaluation of Generative Models, 2016, section 3.1).
"""

import functools
from typing import TYPE_CHECKING

import numpy as np
from scipy import special

from genbench.data.spec import DataSpec
from genbench.evaluation.arrays import checked_sets
from genbench.evaluation.neighbours import centred, tiles
from genbench.training import processes

if TYPE_CHECKING:
    from genbench.evaluation.harness import Weights

METRICS = ('parzen_nats',)
SCALES = np.arange(5, 51) / 100  # candidates for the deviation of the normal, for values in [0, 1]
CHOSEN_ON = 1000  # the last train images choose it
BLOCK = 1000  # images whose distances to all samples are in memory
BIN_SEED = 0  # of the place of each value in its bin


def log_density(x: np.ndarray, samples: np.ndarray, scales: np.ndarray) -> np.ndarray:
    """log 1/m Σ_j N(x; s_j, σ² I) in nats for x (n, d), samples s (m, d) and each σ of `scales` (k,), as (k, n).

    Raises:
      UserError: there are no rows, sets differ in width, or values are not finite.
    """
    x, samples = checked_sets(1, x=x, samples=samples)
    scales = np.asarray(scales, np.float64)
    found = np.empty((len(scales), len(x)))
    for start in range(0, len(x), BLOCK):
        rows = slice(start, min(start + BLOCK, len(x)))
        squared = np.empty((rows.stop - start, len(samples)))
        for above, beside, values in tiles(*centred(x[rows], samples)):
            squared[above, beside] = values
        for index, scale in enumerate(scales):
            found[index, rows] = special.logsumexp(-squared / (2 * scale**2), axis=1)
    return found - np.log(len(samples)) - x.shape[1] / 2 * np.log(2 * np.pi * scales[:, None] ** 2)


def best_scale(x: np.ndarray, samples: np.ndarray, scales: np.ndarray = SCALES) -> float:
    """The scale under which x has the largest mean log-density."""
    return float(scales[log_density(x, samples, scales).mean(1).argmax()])


def spread(images: np.ndarray, spec: DataSpec) -> np.ndarray:
    """Integer images → vectors in [0, 1] (n, d), each value anywhere in its bin."""
    noise = np.random.default_rng(BIN_SEED).uniform(size=(len(images), spec.num_dims))
    return ((images.reshape(len(images), -1) + noise) / spec.levels).astype(np.float32)


def score(weights: 'Weights') -> None:
    """Add a row for each sampler of these parameters: the mean over the images of the split.

    Samples are in the middle of their bins.
    """
    one, options = weights.evaluation, weights.options
    for cell in (cell for cell in one.cells if cell.average == weights.chosen):
        drawn = {
            **one.sampling_protocol(cell, weights.average), 'split': options.split, 'values': 'in [0, 1]',
            'scale': f'best of {SCALES[0]:g} to {SCALES[-1]:g} on the last {CHOSEN_ON:,} train images',
        }  # fmt: skip
        if processes.agreed(one.has('parzen_nats', drawn)):
            continue
        images = weights.store(cell).images(0, options.sets * options.num_samples)
        sets = np.split((images.reshape(len(images), -1) + np.float32(0.5)) / one.spec.levels, options.sets)
        chosen_on, x = (spread(some, one.spec) for some in (one.real.train.images[-CHOSEN_ON:], one.real.split.images))
        scales = [best_scale(chosen_on, samples) for samples in sets]
        each = [log_density(x, samples, np.array([scale]))[0] for samples, scale in zip(sets, scales, strict=True)]
        values = [float(found.mean()) for found in each]
        row = {
            'std_err': float(each[0].std(ddof=1) / np.sqrt(len(x))) if len(sets) == 1 else None, 'kind': 'estimate',
            'sd': float(np.std(values, ddof=1)) if len(sets) > 1 else None, 'values': values, 'n': len(x),
            'details': {'scale': scales}, 'sampler': cell.sampler.name, 'nfe': drawn['nfe'], 'seed': cell.seed,
        }  # fmt: skip
        value = float(np.mean(values))
        processes.first_does(functools.partial(one.add, 'parzen_nats', value, protocol=drawn, **row))

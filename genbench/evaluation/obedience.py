"""How well samples show the pictures that they were drawn for, such as edges, keypoints or low resolutions.

The rule that made a picture from an image of the train split makes one from the sample too. The distance of the two is
the root mean square of their difference over all pixels. Its mean over samples is the metric `condition_distance`, with
a row for each condition that is a picture. Pixels that a condition hides agree by construction, and count as well.
"""

import functools
from typing import TYPE_CHECKING, Any

import numpy as np

from genbench.errors import UserError
from genbench.evaluation.samples import SHARD, drawn_rows
from genbench.families.base import Family
from genbench.training import processes, sampling

if TYPE_CHECKING:
    from genbench.evaluation.harness import Weights

METRICS = ('condition_distance',)


def pictures(family: Family) -> tuple[str, ...]:
    """The names of the conditions that are pictures."""
    return tuple(name for name, form in family.forms.items() if form.type == 'image')


def check(family: Family) -> None:
    """Raise a UserError if the model is given no pictures."""
    if not pictures(family):
        raise UserError('condition_distance compares samples with the pictures that they were drawn for, and this '
                        'model is given none; remove it from evaluation.metrics.')  # fmt: skip


def score(weights: 'Weights') -> None:
    """Add a row for each sampler of these parameters and each picture."""
    one, options = weights.evaluation, weights.options
    total = options.sets * options.num_samples
    for cell in (cell for cell in one.cells if cell.average == weights.chosen):
        drawn = one.sampling_protocol(cell, weights.average)
        protocols = {name: {**drawn, 'condition': name} for name in pictures(one.family)}
        if processes.agreed(all(one.has(METRICS[0], protocol) for protocol in protocols.values())):
            continue
        first, stop = processes.part(0, total)
        images = weights.store(cell).images(first, stop)
        row = {'kind': 'score', 'n': total, 'split': 'train', 'nfe': drawn['nfe'], 'sampler': cell.sampler.name,
               'seed': cell.seed}  # fmt: skip
        for name, found in distances(one.family, one.real.train, images, cell.seed, first).items():
            own, others = processes.gathered(found).T
            error, details = float(own.std(ddof=1) / len(own) ** 0.5), {'others': float(others.mean())}
            add = functools.partial(one.add, METRICS[0], float(own.mean()), std_err=error, details=details,
                                    protocol=protocols[name], **row)  # fmt: skip
            processes.first_does(add)


def distances(family: Family, train: Any, images: np.ndarray, seed: int, first: int) -> dict[str, np.ndarray]:
    """Of each condition that is a picture, the distances (n, 2) of samples `first`, … of a seed (n, …).

    The second number is the distance from the picture of another sample, the next one of the same shard.
    """
    found: dict[str, list[np.ndarray]] = {name: [] for name in pictures(family)}
    stop = first + len(images)
    for shard in range(first // SHARD, -(-stop // SHARD)):
        start, rows = shard * SHARD, drawn_rows(family, train, seed, shard, SHARD)
        low, high = max(first, start), min(stop, start + SHARD)
        shown = {**rows, 'image': np.array(rows['image'])}
        shown['image'][low - start : high - start] = images[low - first : high - first]
        asked, seen = (sampling.given(family, one, 'conditions', seed, start) for one in (rows, shown))
        assert asked is not None and seen is not None
        for name, several in found.items():
            pairs = (asked[name], np.roll(asked[name], -1, axis=0))
            apart = [np.sqrt(np.square(seen[name] - other).mean((1, 2, 3))) for other in pairs]
            several.append(np.stack(apart, 1)[low - start : high - start])
    return {name: np.concatenate(several) for name, several in found.items()}

"""How many modes of a data set samples find, and the share of samples that are near one.

A. Srivastava et al., VEEGAN, 2017, section 4.1; Z. Lin et al., PacGAN, 2018, section 4.1, with their code's choice of
the nearest mode and the Euclidean distance.
"""

import functools
from typing import TYPE_CHECKING

import numpy as np

from genbench.data import plane
from genbench.data.spec import DataSpec
from genbench.errors import UserError
from genbench.training import processes

if TYPE_CHECKING:
    from genbench.evaluation.harness import Weights

METRICS = ('modes', 'high_quality')
REACH = 3.0  # deviations within which a sample is near a mode


def found(points: np.ndarray, centres: np.ndarray, deviation: float) -> np.ndarray:
    """The number of points (n, d) that are near each mode (modes, d): within `REACH` deviations of it.

    A point that is near several modes counts for the nearest.
    """
    distances = np.linalg.norm(points[:, None] - centres, axis=-1) / deviation
    nearest = distances.argmin(1)[distances.min(1) < REACH]
    return np.bincount(nearest, minlength=len(centres))


def summary(counts: np.ndarray, total: int) -> dict[str, float]:
    """`modes`, with at least one of `total` points near them; `high_quality`, the share of points near one; and `kl`.

    The last is KL(p ‖ uniform) in nats. p are the shares of the modes among the points that are near one. Without such
    points it is NaN.
    """
    shares = counts / max(counts.sum(), 1)
    present = shares[shares > 0]
    kl = float((present * np.log(present * len(counts))).sum()) if len(present) else float('nan')
    return {'modes': float(len(present)), 'high_quality': float(counts.sum() / total), 'kl': kl}


def known(spec: DataSpec) -> tuple[np.ndarray, float]:
    """The centres of the modes of a data set, (modes, d), and their standard deviation.

    Raises:
      UserError: they are not known.
    """
    if spec.name not in plane.MODES:
        raise UserError(f'{" and ".join(METRICS)} need the modes of the data, which are known for '
                        f'{" and ".join(plane.MODES)}, not for {spec.name}; leave them out of '
                        'evaluation.metrics.')  # fmt: skip
    return plane.MODES[spec.name]


def score(weights: 'Weights') -> None:
    """Add the rows that the evaluation asks for, for each sampler of these parameters."""
    one, options = weights.evaluation, weights.options
    centres, deviation = known(one.spec)
    for cell in (cell for cell in one.cells if cell.average == weights.chosen):
        drawn = {**one.sampling_protocol(cell, weights.average), 'reach': f'{REACH:g} deviations'}
        wanted = [name for name in METRICS if name in options.metrics and not one.has(name, drawn)]
        if not processes.agreed(wanted):
            continue
        images = weights.store(cell).images(0, options.sets * options.num_samples)
        sets = np.split(plane.points_of(images), options.sets)
        each = [summary(found(points, centres, deviation), len(points)) for points in sets]
        columns = {'sampler': cell.sampler.name, 'nfe': drawn['nfe'], 'seed': cell.seed, 'kind': 'diversity',
                   'n': options.num_samples}  # fmt: skip
        for name in wanted:
            values = [entry[name] for entry in each]
            sd = float(np.std(values, ddof=1)) if len(sets) > 1 else None
            details = {'of': float(len(centres)), 'kl': [entry['kl'] for entry in each]}
            row = {'sd': sd, 'std_err': None if sd is None else sd / len(sets) ** 0.5, 'values': values,
                   'details': details, **columns}  # fmt: skip
            processes.first_does(functools.partial(one.add, name, float(np.mean(values)), protocol=drawn, **row))

"""What an evaluation measures beside samples in features and likelihoods."""

from collections.abc import Callable, Sequence

from genbench.data.spec import DataSpec
from genbench.evaluation import (
    ais,
    clip_score,
    equivariance,
    flows,
    modes,
    obedience,
    parzen,
    path_length,
    reconstruction,
    restoration,
    units,
)

# A title, the metrics that are measured, and what adds their rows for `harness.Weights`.
PARTS: tuple[tuple[str, tuple[str, ...], Callable[..., None]], ...] = (
    ('ais', ('ais',), ais.score),
    ('active units', ('active_units',), units.score),
    ('path length', ('path_length',), path_length.score),
    ('CLIP score', clip_score.METRICS, clip_score.score),
    ('equivariance', equivariance.METRICS, equivariance.score),
    ('flow', flows.METRICS, flows.score),
    ('modes', modes.METRICS, modes.score),
    ('obedience', obedience.METRICS, obedience.score),
    ('Parzen windows', parzen.METRICS, parzen.score),
    ('reconstruction', reconstruction.METRICS, reconstruction.score),
    ('restoration', restoration.METRICS, restoration.score),
)


def asked(metrics: Sequence[str]) -> list[tuple[str, Callable[..., None]]]:
    """The title and the work of each part that measures one of these metrics."""
    return [(title, work) for title, names, work in PARTS if not {*names}.isdisjoint(metrics)]


def check(metrics: Sequence[str], spec: DataSpec) -> None:
    """Raise a UserError for metrics that need more than the data set has."""
    if not {*modes.METRICS}.isdisjoint(metrics):
        modes.known(spec)

"""What an evaluation measures beside samples in features and likelihoods."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

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
from genbench.families.base import Family, Sampler


class Part(NamedTuple):
    """Some metrics, and what measures them.

    Attributes:
      score: adds their rows for `harness.Weights`.
      check: (family, `evaluation` of the config, samplers) → a UserError if it is clear before anything is computed
        that the model lacks what the metrics need. Some checks ask only its family, and none counts images.
    """

    title: str
    metrics: tuple[str, ...]
    score: Callable[..., None]
    check: Callable[[Family, Any, Sequence[Sampler]], Any]


def _anything(*_: Any) -> None:
    pass


def _captioned(family: Family, options: Any, *_: Any) -> None:
    clip_score.fields(family, options)


def _has_modes(family: Family, *_: Any) -> None:
    modes.known(family.spec)


def _shown_pictures(family: Family, *_: Any) -> None:
    obedience.check(family)


def _reconstructs(family: Family, *_: Any) -> None:
    reconstruction.check(family)


PARTS = (
    Part('ais', ('ais',), ais.score, ais.check),
    Part('active units', ('active_units',), units.score, units.check),
    Part('path length', ('path_length',), path_length.score, path_length.check),
    Part('CLIP score', clip_score.METRICS, clip_score.score, _captioned),
    Part('equivariance', equivariance.METRICS, equivariance.score, equivariance.check),
    Part('flow', flows.METRICS, flows.score, flows.check_all),
    Part('modes', modes.METRICS, modes.score, _has_modes),
    Part('obedience', obedience.METRICS, obedience.score, _shown_pictures),
    Part('Parzen windows', parzen.METRICS, parzen.score, _anything),
    Part('reconstruction', reconstruction.METRICS, reconstruction.score, _reconstructs),
    Part('restoration', restoration.METRICS, restoration.score, restoration.check),
)


def asked(metrics: Sequence[str]) -> list[Part]:
    """The parts that measure one of these metrics."""
    return [part for part in PARTS if not {*part.metrics}.isdisjoint(metrics)]


def check(family: Family, options: Any, samplers: Sequence[Sampler]) -> None:
    """Raise a UserError for a metric of `evaluation.metrics` that this model cannot be measured with."""
    for part in asked(options.metrics):
        part.check(family, options, samplers)

"""Bounds to compare samples with: real images that are scored exactly as samples are."""

import functools
import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from genbench.config import Config
from genbench.data import opening, sources
from genbench.evaluation import features, scoring
from genbench.evaluation.reference import RealSets, num_beside, sample_metrics
from genbench.evaluation.results import COPIES, HELD_OUT, Results
from genbench.evaluation.scoring import Extracted


def score_bounds(resolved: Sequence[Config], path: pathlib.Path) -> None:
    """Score real images under each protocol that the configs measure with.

    Held-out images outside the reference show what fresh images of the data score. Copies of train images show what
    memorising them would score. Both use as many images and sets as the samples. If the held-out split is too small for
    that, the row has no value, is of the kind 'none' and says in `details` how many images there are, because a score
    at another n could not be compared with anything.
    """
    results, seen = Results(path), set()
    for config in resolved:
        options = config.evaluation
        key = (
            config.data.name, options.split, options.features.to_json(), options.classifier.to_json(),
            tuple(options.metrics), options.num_samples, options.sets,
        )  # fmt: skip
        if key in seen:
            continue
        seen.add(key)
        real = RealSets(config, quiet=False)
        if real.names:
            _score_fresh(results, real, options)
            _score_copies(results, real, options)


def _score_fresh(results: Results, real: RealSets, options: Any) -> None:
    count = options.num_samples
    # All metrics use the same images if the half that is not the reference is large enough.
    beside = {name: real.uses_held_out(name) or count <= real.num_fresh(True) for name in real.names}
    for half in sorted(set(beside.values())):
        names, limit = [name for name in real.names if beside[name] == half], real.num_fresh(half)
        protocols = _protocols(real, options, names, {'bound': HELD_OUT, **real.fresh_description(count, half)})
        missing = _missing(results, real, protocols)
        if count > limit:
            for name in missing:
                results.add(
                    family=HELD_OUT, dataset=real.spec.name, split=real.reference_split(name),
                    metric=scoring.called(name, real.network), value=None, kind='none', n=0,
                    details={'images_at_most': limit}, protocol=protocols[name],
                )  # fmt: skip
            continue
        sets = 1 if count == len(real.split) else options.sets  # the whole split makes only one set
        draw = functools.partial(real.fresh, count=count, beside_half=half)
        _score(results, real, HELD_OUT, missing, protocols, draw, sets)


def _score_copies(results: Results, real: RealSets, options: Any) -> None:
    protocols = _protocols(real, options, real.names, {'bound': COPIES, **real.copies_description(options.num_samples)})
    draw = functools.partial(real.copies, count=options.num_samples)
    _score(results, real, COPIES, _missing(results, real, protocols), protocols, draw, options.sets)


def _protocols(
    real: RealSets, options: Any, names: Sequence[str], images: Mapping[str, Any]
) -> dict[str, dict[str, Any]]:
    shared = {'images': images, 'num_samples': options.num_samples, 'sets': options.sets}
    return {name: {**shared, **real.protocol(name)} for name in names}


def _missing(results: Results, real: RealSets, protocols: Mapping[str, Mapping[str, Any]]) -> list[str]:
    return [
        name for name, one in protocols.items() if not results.has(scoring.called(name, real.network), one, None, None)
    ]


def _score(
    results: Results, real: RealSets, bound: str, names: Sequence[str], protocols: Mapping[str, Mapping[str, Any]],
    draw: Callable[[int], Extracted], sets: int,
) -> None:  # fmt: skip
    if names:
        for name, row in scoring.score(real.scenes(names, [draw(index) for index in range(sets)])).items():
            split = real.reference_split(name)
            results.add(family=bound, dataset=real.spec.name, split=split, protocol=protocols[name], **row)


def lacking(config: Config, *, beside_reference: bool = False) -> list[str]:
    """Return warnings about metrics that will have no row of held-out real images; [] if there are enough images.

    Args:
      beside_reference: only for metrics that use a half of the held-out images, where a small reference also harms the
        number itself.

    Raises:
      UserError: the data set cannot be opened, or a metric does not exist.
    """
    options = config.evaluation
    suits = features.reference_split(options.features.name)
    names = scoring.resolve(sample_metrics(options.metrics), suits)
    if not names:
        return []
    size, found = sources.count(opening.open_data(config.data), options.split), []
    for half in (True,) if beside_reference else (True, False):
        concerned = [name for name in names if scoring.uses_held_out(name, suits) == half]
        limit = num_beside(size) if half else size
        if concerned and options.num_samples > limit:
            left = f'the reference leaves {limit:,} of the {size:,} images of {options.split!r}'
            found.append(
                f'{", ".join(concerned)} on {config.data.name} will have no row of {HELD_OUT}: '
                f'{left if half else f"{options.split!r} has {size:,} images"}, but each set has '
                f'{options.num_samples:,}. Set evaluation.num_samples={limit} to get one.'
            )
    return found

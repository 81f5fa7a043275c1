"""The numbers on the page. Each is the mean over the seeds of a variant, under one sampler and one protocol."""

import collections
import dataclasses
import functools
from collections.abc import Mapping, Sequence
from typing import Any

from genbench.evaluation import statistics
from genbench.evaluation.protocol import Protocol, told_options
from genbench.evaluation.results import BOUNDS
from genbench.report.collect import Row, StudyRecord, TrialRecord


@dataclasses.dataclass(frozen=True)
class Metric:
    """A kind of number on the page: its heading, its name in result rows, its format, and which direction is better."""

    title: str
    name: str
    form: str
    lower_is_better: bool | None = None
    of_sampler: bool = True

    @property
    def group(self) -> str:
        """Metrics of one group are shown for one way of drawing: those of restorations, or of samples."""
        return 'restored' if self.name.startswith('restored_') else 'samples'


METRICS = (
    Metric('FID', 'fid', '{:.2f}', True),
    Metric('FD', 'fd', '{:.2f}', True),
    Metric('FID to held-out', 'fid_held_out', '{:.2f}', True),
    Metric('FD to held-out', 'fd_held_out', '{:.2f}', True),
    Metric('FD to train', 'fd_train', '{:.2f}', True),
    Metric('FID∞', 'fid_infinity', '{:.2f}', True),
    Metric('FD∞', 'fd_infinity', '{:.2f}', True),
    Metric('sFID', 'sfid', '{:.2f}', True),
    Metric('sFD', 'sfd', '{:.2f}', True),
    Metric('KID', 'kid', '{:.4f}', True),
    Metric('KD', 'kd', '{:.3f}', True),
    Metric('KID to held-out', 'kid_held_out', '{:.4f}', True),
    Metric('KD to held-out', 'kd_held_out', '{:.3f}', True),
    Metric('KD to train', 'kd_train', '{:.3f}', True),
    Metric('sliced Wasserstein', 'sliced_wasserstein', '{:.4f}', True),
    Metric('sliced Wasserstein to train', 'sliced_wasserstein_train', '{:.4f}', True),
    Metric('MIND', 'mind', '{:.2f}', True),
    Metric('MIND to held-out', 'mind_held_out', '{:.2f}', True),
    Metric('Monge', 'monge', '{:.2f}', True),
    Metric('Monge to train', 'monge_train', '{:.2f}', True),
    Metric('FLD', 'fld', '{:.2f}', True),
    Metric('PPL', 'perceptual_path_length', '{:.1f}', True),
    Metric('path length', 'path_length', '{:.2f}', True),
    Metric('EQ-T', 'eq_t', '{:.1f}', False),
    Metric('EQ-T frac', 'eq_t_frac', '{:.1f}', False),
    Metric('EQ-R', 'eq_r', '{:.1f}', False),
    Metric('CLIP score', 'clip_score', '{:.2f}', False),
    Metric('distance from the condition', 'condition_distance', '{:.3f}', True),
    Metric('W₂', 'w2', '{:.3f}', True),
    Metric('path energy', 'path_energy', '{:.3f}', True),
    Metric('modes', 'modes', '{:.1f}', False),
    Metric('near a mode', 'high_quality', '{:.3f}', False),
    Metric('Parzen nats', 'parzen_nats', '{:.1f}', False),
    Metric('restored PSNR', 'restored_psnr', '{:.2f}', False),
    Metric('restored SSIM', 'restored_ssim', '{:.3f}', False),
    Metric('restored misfit', 'restored_misfit', '{:.3f}', True),
    Metric('restored class', 'restored_class', '{:.2f}', False),
    Metric('restored FD', 'restored_fd', '{:.2f}', True),
    Metric('restored diversity', 'restored_diversity', '{:.3f}'),
    Metric('reconstruction FID', 'reconstruction_fid', '{:.2f}', True, of_sampler=False),
    Metric('reconstruction FD', 'reconstruction_fd', '{:.2f}', True, of_sampler=False),
    Metric('reconstruction PSNR', 'reconstruction_psnr', '{:.2f}', False, of_sampler=False),
    Metric('reconstruction SSIM', 'reconstruction_ssim', '{:.3f}', False, of_sampler=False),
    Metric('codes used', 'codes_used', '{:.0f}', of_sampler=False),
    Metric('Vendi', 'vendi', '{:.2f}', False),
    Metric('precision', 'precision', '{:.2f}', False),
    Metric('recall', 'recall', '{:.2f}', False),
    Metric('density', 'density', '{:.2f}', False),
    Metric('coverage', 'coverage', '{:.2f}', False),
    Metric('IS', 'inception_score', '{:.2f}', False),
    Metric('two-sample', 'two_sample_accuracy', '{:.2f}', True),
    Metric('authenticity', 'authenticity', '{:.2f}'),
    Metric('copied', 'copied', '{:.2f}'),
    Metric('train-test gap', 'train_test_gap', '{:.1f}'),
    Metric('bits/dim', 'bits_per_dim', '{:.3f}', of_sampler=False),
    Metric('NFE', 'evaluations_per_image', '{:.0f}'),
    Metric('images/s', 'sampling_images_per_second', '{:,.0f}'),
    Metric('params', 'parameters', '{:,.0f}', of_sampler=False),
    Metric('train FLOPs', 'training_flops', '{:.1e}', of_sampler=False),
    Metric('train s', 'training_seconds', '{:.0f}', of_sampler=False),
)
BY_NAME = {metric.name: metric for metric in METRICS}
LIKELIHOOD = 'bits_per_dim'
SPENT = ('training_flops', 'training_seconds')
TIMED = ('training_seconds', 'sampling_images_per_second')  # wall times


@dataclasses.dataclass(frozen=True)
class Way:
    """How images were drawn: what two cells must share to have the same sampler.

    Attributes:
      one_of_several: whether the variant was sampled with several averages, so that the label must name this one.
    """

    sampler: str | None
    nfe: int | None
    guidance: float | None = None
    average: str | None = None
    options: str = ''
    steps: int | None = dataclasses.field(default=None, compare=False)
    one_of_several: bool = dataclasses.field(default=False, compare=False)

    def fits(self, other: 'Way') -> bool:
        """Whether two rows may describe the same images. Not every row says which average drew them."""
        mine, others = ((way.sampler, way.nfe, way.guidance, way.options) for way in (self, other))
        return mine == others and (self.average == other.average or None in (self.average, other.average))

    @property
    def label(self) -> str:
        guided = f' · guidance {self.guidance:g}' if self.guidance else ''
        options = f' · {self.options}' if self.options else ''
        average = f' · {self.average}' if self.one_of_several and self.average else ''
        return f'{self.sampler} · {self.nfe}{guided}{options}{average}' if self.sampler else ''


@dataclasses.dataclass(frozen=True)
class Cell:
    """One metric of a variant: one row for each seed, all with the same protocol."""

    variant: str
    metric: Metric
    way: Way
    rows: tuple[Row, ...]

    @functools.cached_property
    def estimate(self) -> statistics.Estimate:
        """The mean over seeds and its error, with what varied."""
        return statistics.over_seeds([statistics.replicate(row) for row in self.rows])

    @property
    def value(self) -> float:
        return self.estimate.mean

    @property
    def seeds(self) -> int:
        return len(self.rows)

    @property
    def interval(self) -> tuple[float, float] | None:
        """95% interval of the mean over what `estimate` says has varied; None if nothing is known to have varied."""
        return self.estimate.interval()

    @property
    def protocol(self) -> Mapping[str, Any]:
        return self.rows[0]['protocol']

    @property
    def measurement(self) -> Protocol:
        return _measurement(self.rows[0])

    @property
    def comparable(self) -> str:
        """Equal for numbers measured in the same way on as many images. Real images have no sampling noise."""
        return comparable(self.measurement)

    @property
    def by_seed(self) -> dict[int | None, statistics.Replicate]:
        """Numbers with their noise, by training seed."""
        return {row['train_seed']: statistics.replicate(row) for row in self.rows}


@functools.lru_cache(maxsize=256)
def of(study: StudyRecord, name: str) -> tuple[Cell, ...]:
    """Return the cells of a metric, by variant, sampler and protocol, in the order of the study.

    If a variant was scored again in another way, such as against another reference, only the later numbers count.
    """
    seeds = {trial.name: trial.seed for trial in study.trials}
    groups: dict[tuple, dict[str, Row]] = {}
    for row in _with_lenders(study, name, _latest(study, name)):
        variant = study.variant_of.get(row['trial'], row['trial'])
        key = (variant, _way(row, BY_NAME[name]), _kind(row), _measurement(row).hash)
        groups.setdefault(key, {})[row['trial']] = {**row, 'train_seed': seeds.get(row['trial'])}
    averages = {(variant, way.average) for variant, way, *_ in groups}
    several = {variant for variant, _ in averages if len([one for one, _ in averages if one == variant]) > 1}
    return tuple(
        Cell(variant, BY_NAME[name], dataclasses.replace(way, one_of_several=variant in several), tuple(rows.values()))
        for (variant, way, *_), rows in groups.items()
    )


def _with_lenders(study: StudyRecord, name: str, rows: list[Row]) -> list[Row]:
    """The cost of training, including the runs it needed before, such as the teacher of a distilled model.

    `lent` names their variants and costs; None is a teacher that does not report its cost.
    """
    if name not in SPENT:
        return rows
    own = {row['trial']: row['value'] for row in rows}
    trials = {trial.name: trial for trial in study.trials}

    def total(trial: TrialRecord) -> float | None:
        parts = [own.get(trial.name), *map(total, study.lenders(trial))]
        return None if None in parts else sum(part for part in parts if part is not None)

    found = []
    for row in rows:
        lent = {lender.variant: total(lender) for lender in study.lenders(trials[row['trial']])}
        more = sum(value for value in lent.values() if value is not None)
        found.append({**row, 'value': row['value'] + more, 'lent': lent} if lent else row)
    return found


def degenerate(precision: Cell | None, recall: Cell | None) -> bool:
    """Whether samples look real but cover almost none of the data, such as the blurred mean that one solver step gives.

    Precision without recall is not quality.
    """
    if precision is None or recall is None:
        return False
    return precision.value >= 0.2 and recall.value < 0.1 * precision.value


def comparable(protocol: Mapping[str, Any]) -> str:
    """The hash of a protocol without what was measured and without the noise."""
    measured = Protocol(protocol).measurement
    return Protocol({key: value for key, value in measured.items() if key not in ('seed', 'noise')}).hash


def _latest(study: StudyRecord, name: str) -> list[Row]:
    """The rows of each variant measured like the last rows of most of its trials; all rows of real images.

    In a tie between trials that have and have not been scored again, the first trial decides, as it is rescored first.
    """
    rows = study.select(name)
    last: dict[tuple, dict[str, str]] = {}
    for row in rows:
        last.setdefault(_scored(study, row), {})[row['trial']] = _settings(row)
    chosen = {key: collections.Counter(by_trial.values()).most_common(1)[0][0] for key, by_trial in last.items()}
    return [row for row in rows if row['trial'] in BOUNDS or _settings(row) == chosen[_scored(study, row)]]


def _scored(study: StudyRecord, row: Row) -> tuple:
    return study.variant_of.get(row['trial'], row['trial']), _kind(row)


def _settings(row: Row) -> str:
    """How a row was measured. A study may use several evaluation seeds, and all of them count."""
    return Protocol({key: value for key, value in _measurement(row).items() if key != 'seed'}).hash


def best(cells: Sequence[Cell]) -> Cell | None:
    """The cell of one metric with the best mean among those with the most seeds. If neither direction is better, that
    is the lowest mean.

    The choice is between samplers or likelihood methods, never between evaluation seeds: the first seed counts.
    """
    seeds = max((cell.seeds for cell in cells), default=0)
    most = [cell for cell in cells if cell.seeds == seeds]
    alike = [cell for cell in most if not cell.metric.of_sampler or cell.measurement == most[0].measurement]
    first = max if cells and cells[0].metric.lower_is_better is False else min
    return first(alike, key=lambda cell: cell.value, default=None)


def _way(row: Row, metric: Metric) -> Way:
    if not metric.of_sampler:
        return Way(None, None)
    protocol = row['protocol']
    guidance = protocol.get('guidance') or None
    options = told_options(protocol)
    return Way(row['sampler'], row['nfe'], guidance, protocol.get('average'), options, protocol.get('steps'))


def _kind(row: Row) -> tuple:
    """A key that separates likelihoods of different kinds or methods."""
    return (row['kind'], row['protocol'].get('method')) if row['metric'] == LIKELIHOOD else ()


def _measurement(row: Row) -> Protocol:
    """Costs are comparable wherever they were measured; all other numbers are separated by protocol."""
    return Protocol({}) if row['kind'] == 'cost' else Protocol(row['protocol']).measurement

"""The metrics of image sets: what each needs, what it is called, and how sets of samples give a mean and a spread."""

import dataclasses
import functools
import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from genbench import evaluation
from genbench.errors import UserError, did_you_mean
from genbench.evaluation import mixtures
from genbench.evaluation.features import FeatureNetwork
from genbench.evaluation.parameters import REFERENCES, Settings
from genbench.evaluation.protocol import Protocol
from genbench.training import processes

Moments = tuple[np.ndarray, np.ndarray]


@dataclasses.dataclass
class Extracted:
    """A set of images in feature space.

    Attributes:
      description: how a protocol describes the images.
      outputs: (n, d) arrays of the feature network by output; empty if only moments were kept.
      moments: (mean, covariance) by output.
      count: number of images.
    """

    description: dict[str, Any]
    outputs: dict[str, np.ndarray]
    moments: dict[str, Moments]
    count: int

    def part(self, chosen: np.ndarray) -> 'Extracted':
        """Return the images with these indices, with moments computed anew."""
        outputs = {name: values[chosen] for name, values in self.outputs.items()}
        return Extracted(self.description, outputs, all_moments(outputs), len(chosen))


def all_moments(outputs: Mapping[str, np.ndarray]) -> dict[str, Moments]:
    """The mean and covariance of every output that has a Fréchet distance."""
    return {name: evaluation.moments(outputs[name]) for name in ('features', 'spatial') if name in outputs}


def extract(
    network: FeatureNetwork, batches: Iterable[np.ndarray], outputs: Sequence[str], *, keep: bool = True,
    own: tuple[int, int] | None = None,
) -> tuple[dict[str, np.ndarray], dict[str, Moments], int, str]:  # fmt: skip
    """Return (outputs, moments, number of images, SHA-256 of the images) for batches of integer images, in one pass.

    If `keep` is False, only the moments stay in memory, so a set may have any size.

    Args:
      own: start and stop of the images whose features this process computes, if several processes share the images.
        Every process then gets the features or moments of all.
    """
    digest, count = hashlib.sha256(), 0
    rows: dict[str, list[np.ndarray]] = {name: [] for name in outputs}
    sums: dict[str, Any] = {}
    for images in batches:
        hash_images(digest, images, first=count == 0)
        mine = images if own is None else images[max(0, own[0] - count) : max(0, own[1] - count)]
        count += len(images)
        for name, values in network.extract(mine, outputs).items() if len(mine) else ():
            if keep:
                rows[name].append(values)
            else:
                sums.setdefault(name, evaluation.Moments(values.shape[1])).add(values)
    if not count:
        raise UserError('There are no images to compute features for.')
    kept = {name: _joined(parts, own is not None) for name, parts in rows.items()} if keep else {}
    moments = all_moments(kept) if keep else {name: _pooled(sums.get(name)) for name in outputs}
    return kept, moments, count, digest.hexdigest()[:16]


def _joined(parts: Sequence[np.ndarray], of_all: bool) -> np.ndarray:
    own = np.concatenate(parts) if parts else None
    return processes.gathered(own) if of_all or own is None else own


def _pooled(own: evaluation.Moments | None) -> Moments:
    """The moments of what all processes have summed; None in one that had no images."""
    parts = [None] * 3 if own is None else [np.asarray(value)[None] for value in own.parts()]
    return evaluation.pooled(*(processes.gathered(part) for part in parts))


def hash_images(digest: Any, images: np.ndarray, *, first: bool) -> None:
    """Add integer images to a hash that depends on their shape and values but not on their type or batches."""
    if first:
        digest.update(str(images.shape[1:]).encode())
    digest.update(np.ascontiguousarray(images.astype(np.uint8 if images.max(initial=0) < 256 else np.int32)).tobytes())


@dataclasses.dataclass(frozen=True)
class Scene:
    """The inputs of a metric: the reference, further held-out real images, and one set of samples.

    `control` gives the distances from the held-out images to the reference, which many sets share.
    """

    network: FeatureNetwork
    reference: Extracted
    held_out: Extracted | None
    fake: Extracted
    control: Callable[[], evaluation.Control] | None = None
    settings: Settings = Settings()

    @functools.cached_property
    def manifold(self) -> dict[str, float]:
        """Precision, recall, density and coverage from one pass over the distances."""
        return evaluation.manifold_scores(
            self.reference.outputs['features'], self.fake.outputs['features'], self.settings.neighbours,
            self.settings.density_neighbours,
        )  # fmt: skip

    @functools.cached_property
    def memorisation(self) -> Any:
        held_out = self.require_held_out('memorisation')
        known = self.control() if self.control else None
        return evaluation.memorisation(
            self.reference.outputs['features'], held_out.outputs['features'], self.fake.outputs['features'], known
        )

    def require_held_out(self, metric: str) -> Extracted:
        if self.held_out is None:
            raise UserError(f'{metric} also needs held-out real images; give them with --held-out.')
        return self.held_out


Value = tuple[float, dict[str, Any]]  # the number, and more details about one set


@dataclasses.dataclass(frozen=True)
class Metric:
    """One metric of samples.

    Attributes:
      compute: scene → (value, details).
      kind: 'distance' (lower is better) or 'score'.
      protocol: the metric's own settings.
      output: the network output it is computed from.
      published: its name with the published Inception, if the field has one.
      needs: what it needs of the reference: 'moments', 'features' or 'nothing'.
      needs_held_out: whether it needs real images in addition to the reference.
      against: the split of its reference, 'train' or 'held_out'; '' for the one that suits the features.
    """

    compute: Callable[[Scene], Value]
    kind: str
    protocol: Mapping[str, Any]
    output: str = 'features'
    published: str = ''
    needs: str = 'features'
    needs_held_out: bool = False
    against: str = ''


def _frechet(scene: Scene, output: str = 'features') -> Value:
    return evaluation.frechet_distance(*scene.reference.moments[output], *scene.fake.moments[output]), {}


def _frechet_infinity(scene: Scene) -> Value:
    value, error = evaluation.fd_infinity(scene.reference.moments['features'], scene.fake.outputs['features'])
    return value, {'intercept_std_err': error}


def _kernel(scene: Scene) -> Value:
    value, spread = evaluation.kernel_distance(
        scene.reference.outputs['features'], scene.fake.outputs['features'], subsets=scene.settings.kernel_subsets,
        subset_size=scene.settings.kernel_subset_size,
    )  # fmt: skip
    return value, {'subset_sd': spread}


def _inception_score(scene: Scene) -> Value:
    value, spread = evaluation.inception_score(scene.fake.outputs['logits'], scene.settings.splits)
    return value, {'split_sd': spread}


def _classes(scene: Scene) -> Value:
    real, logits = scene.reference.outputs, 'logits'
    value, details = evaluation.class_distance(real[logits], scene.fake.outputs[logits])
    right = (real[logits].argmax(1) == real['labels']).mean() if 'labels' in real else None
    return value, {**details, 'accuracy': None if right is None else float(right)}


def _sliced(scene: Scene, distance: Any = evaluation.sliced_wasserstein) -> Value:
    both = scene.reference.outputs['features'], scene.fake.outputs['features']
    value, error = distance(*both, slices=scene.settings.slices)
    return value, {'slices_std_err': error}


def _likelihood(scene: Scene) -> Value:
    train, test = scene.reference.outputs['features'], scene.require_held_out('fld').outputs['features']
    return evaluation.feature_likelihood_divergence(train, test, scene.fake.outputs['features'])


def _vendi(scene: Scene) -> Value:
    return evaluation.vendi_score(scene.fake.outputs['features']), {}


def _two_sample(scene: Scene) -> Value:
    real = scene.require_held_out('two_sample_accuracy').outputs['features']
    test = evaluation.two_sample_test(real, scene.fake.outputs['features'])
    return test.accuracy, {'low': test.low, 'high': test.high, 'n_scored': test.n}


def _manifold(name: str) -> Callable[[Scene], Value]:
    return lambda scene: (scene.manifold[name], {})


def _coverage(scene: Scene) -> Value:
    value = scene.manifold['coverage']
    counts = len(scene.reference.outputs['features']), scene.fake.count
    ceiling = evaluation.expected_coverage(*counts, scene.settings.density_neighbours)
    return value, {'ceiling': ceiling, 'of_ceiling': value / ceiling}


def _memorised(name: str) -> Callable[[Scene], Value]:
    def compute(scene: Scene) -> Value:
        control = {'held_out_authenticity': scene.memorisation.held_out_authenticity}
        return float(getattr(scene.memorisation, name)), control if name == 'authenticity' else {}

    return compute


_SUBSETS = {'kernel': '(x·y / d + 1)³', 'estimator': 'unbiased', 'subsets': 100, 'subset_size': 1000, 'subset_seed': 0}
_SLICES = {'power': 'W₂², mean over directions', 'slices': 1000, 'slice_seed': 0}
_monge = functools.partial(_sliced, distance=evaluation.monge_distance)
_PRECISION = {'neighbours': 3, 'inside': '<='}
_DENSITY = {'neighbours': 5, 'inside': '<'}
_EXTRAPOLATION = {'extrapolation': 'linear in 1/n', 'points': 15, 'least': 'max(n/10, min(2d, n/2))', 'subset_seed': 0}
_DETECTOR = {'detector': 'logistic regression on features and squares', 'C': 0.1, 'fitted_on': 'half', 'split_seed': 0}
_MEMORY = {'neighbours': 1, 'copies': 'ratio of at most the lowest 1% of held-out images'}
METRICS: dict[str, Metric] = {
    'fd': Metric(_frechet, 'distance', {}, published='fid', needs='moments'),
    'sfd': Metric(
        functools.partial(_frechet, output='spatial'), 'distance', {}, 'spatial', published='sfid', needs='moments'
    ),
    'fd_infinity': Metric(_frechet_infinity, 'distance', _EXTRAPOLATION, published='fid_infinity', needs='moments'),
    'kd': Metric(_kernel, 'distance', _SUBSETS, published='kid'),
    'sliced_wasserstein': Metric(_sliced, 'distance', _SLICES),
    'monge': Metric(_monge, 'distance', {**_SLICES, 'factor': '3 d'}, published='mind'),
    'class_distance': Metric(_classes, 'distance', {}, 'logits'),
    'fld': Metric(_likelihood, 'distance', mixtures.PROTOCOL, needs_held_out=True, against='train'),
    'vendi': Metric(_vendi, 'score', {'similarity': 'cosine of features'}, needs='nothing'),
    'precision': Metric(_manifold('precision'), 'score', _PRECISION),
    'recall': Metric(_manifold('recall'), 'score', _PRECISION),
    'density': Metric(_manifold('density'), 'score', _DENSITY),
    'coverage': Metric(_coverage, 'score', _DENSITY),
    'inception_score': Metric(
        _inception_score, 'score', {'splits': 10, 'shuffle_seed': 0}, 'logits', published='inception_score',
        needs='nothing',
    ),
    'two_sample_accuracy': Metric(_two_sample, 'distance', _DETECTOR, needs='nothing', needs_held_out=True),
    'authenticity': Metric(_memorised('authenticity'), 'score', _MEMORY, needs_held_out=True, against='train'),
    'copied': Metric(_memorised('copied'), 'score', _MEMORY, needs_held_out=True, against='train'),
    'train_test_gap': Metric(_memorised('train_test_gap'), 'score', _MEMORY, needs_held_out=True, against='train'),
}  # fmt: skip
METRICS |= {
    f'{name}_{split}': dataclasses.replace(
        metric, against=split, published=f'{metric.published}_{split}' if metric.published else ''
    )
    for name, metric in METRICS.items()
    if metric.needs != 'nothing' and not metric.against
    for split in REFERENCES
}
ALIASES = {
    'pr': ('precision', 'recall'),
    'dc': ('density', 'coverage'),
    'is': ('inception_score',),
    'swd': ('sliced_wasserstein',),
    'c2st': ('two_sample_accuracy',),
    'memorisation': ('authenticity', 'copied', 'train_test_gap'),
}
PUBLISHED = {metric.published: name for name, metric in METRICS.items() if metric.published}


def against(name: str, suits: str) -> str:
    """Return the split of a metric's reference, or '' if it has none; `suits` is the split for names without one."""
    metric = METRICS[name]
    return '' if metric.needs == 'nothing' else metric.against or suits


def uses_held_out(name: str, suits: str) -> bool:
    """Whether a metric uses held-out images, as its reference or in addition to it."""
    return METRICS[name].needs_held_out or against(name, suits) == 'held_out'


def resolve(names: Sequence[str], suits: str = '') -> list[str]:
    """Map names as users write them (fid, kid, pr, dc, is, …) to keys of METRICS, in order, each once.

    Args:
      suits: the reference for names that do not name one; a name that names this reference is the same metric.

    Raises:
      UserError: a name is unknown.
    """
    found: list[str] = []
    for name in names:
        if name in ALIASES:
            found += ALIASES[name]
        elif name in METRICS or name in PUBLISHED:
            found.append(PUBLISHED.get(name, name))
        else:
            raise UserError(f'There is no metric {name!r}. {did_you_mean(name, [*METRICS, *PUBLISHED, *ALIASES])}')
    return list(dict.fromkeys(name.removesuffix(f'_{suits}') if suits else name for name in found))


def check_names(names: Sequence[str], network: FeatureNetwork) -> None:
    """Refuse published names (fid, kid, …) and outputs that this network cannot provide."""
    for name in names:
        if name in PUBLISHED and name not in METRICS and not network.published:
            raise UserError(
                f'{name} is the name for the 2015 Inception with its published weights; with '
                f'{network.name} use {PUBLISHED[name]}.'
            )
    for name in resolve(names):
        if METRICS[name].output not in network.outputs:
            raise UserError(f'{name} needs the output {METRICS[name].output!r}, which {network.name} '
                            f'({network.protocol.get("convention", "")}) does not have.')  # fmt: skip
        if name == 'inception_score' and not network.published:
            raise UserError(f'{name} needs the class probabilities of the published Inception, not of {network.name}.')


def called(name: str, network: FeatureNetwork) -> str:
    """Return a metric's name in results. fid and the like require the published 2015 Inception."""
    return METRICS[name].published or name if network.published else name


def needed_outputs(names: Sequence[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(METRICS[name].output for name in names))


def only_moments(names: Sequence[str]) -> bool:
    """Whether the moments of a set suffice for these metrics, both as reference and as samples."""
    return all(name in ('fd', 'sfd') for name in names)


def score(scenes: Mapping[str, Sequence[Scene]]) -> dict[str, dict[str, Any]]:
    """Map {metric: one scene per set} to {metric: its part of a result row}.

    A row's value is the mean over the sets. With at least two sets it also has a standard deviation and error.
    """
    rows = {}
    for name, sets in scenes.items():
        network = sets[0].network
        found = [METRICS[name].compute(scene) for scene in sets]
        values = [value for value, _ in found]
        sd = float(np.std(values, ddof=1)) if len(values) > 1 else None
        details = {key: [part[key] for _, part in found] for key in found[0][1]}
        rows[name] = {
            'metric': called(name, network), 'value': float(np.mean(values)), 'sd': sd,
            'std_err': None if sd is None else sd / len(values) ** 0.5, 'values': values,
            'kind': METRICS[name].kind, 'n': sets[0].fake.count or None, 'features': network.name,
            'details': details or None,
        }  # fmt: skip
    return rows


def protocol(
    name: str, network: FeatureNetwork, reference: Mapping[str, Any], held_out: Mapping[str, Any] | None,
    settings: Settings | None = None,
) -> dict[str, Any]:  # fmt: skip
    """The measuring part of a metric's protocol, from the descriptions of the real images."""
    metric = METRICS[name]
    chosen = settings.of(name) if settings else {}
    parts: dict[str, Any] = {'features': dict(network.protocol), **metric.protocol, **chosen}
    if metric.needs != 'nothing':
        parts['reference'] = reference
    if held_out is not None and metric.needs_held_out:
        parts['held_out'] = held_out
    return dict(Protocol(parts))

"""Score one checkpoint of a run: sample distances for each sampler, likelihoods, and what it all cost."""

import dataclasses
import functools
import os
import pathlib
import platform
import time
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np

from genbench import config as configs
from genbench.config import Config
from genbench.data import pipeline, sources
from genbench.errors import UserError, did_you_mean, explained_disk_errors
from genbench.evaluation import distances, features
from genbench.evaluation.results import Results
from genbench.families.base import Likelihood, Sampler
from genbench.training import runs, sampling
from genbench.training.metrics import Progress, read_rows

SAMPLE_METRICS = ('fd', 'kd', 'precision', 'recall')
METRICS = (*SAMPLE_METRICS, 'likelihood', 'speed')
METRIC_PROTOCOL: dict[str, dict[str, Any]] = {
    'fd': {},
    'kd': {'kernel': '(x·y / d + 1)³', 'estimator': 'unbiased', 'subsets': 100, 'subset_size': 1000, 'subset_seed': 0},
    'precision': {'neighbours': 3},
    'recall': {'neighbours': 3},
}
SHOWN = 100  # images in a saved grid
FILM_IMAGES, FILM_FRAMES = 8, 9


@explained_disk_errors()
def evaluate(
    workdir: str | pathlib.Path, overrides: Sequence[str] = (), *, step: int | None = None, quiet: bool = False
) -> list[dict[str, Any]]:
    """Score a run and return the new rows of its results.jsonl; what is there under the same protocol is kept.

    Args:
      overrides: 'evaluation.key=value' changes to the run's config.
      step: a checkpoint; by default the newest.
    """
    run = runs.open_run(workdir)
    for override in overrides:
        if not override.startswith(('evaluation.', 'data.data_dir')):
            raise UserError(f'{override!r} would change the run; evaluate takes keys of evaluation, and data.data_dir.')
    config = configs.resolve(configs.plain(run.config), overrides)
    run = runs.open_run(workdir, config=config)
    step, state = run.restore(step)
    return Evaluation(run, config, step, state, quiet).run_all()


@dataclasses.dataclass
class Reference:
    """Train images of a data set in feature space, and what a protocol says of them."""

    network: features.FeatureNetwork
    features: np.ndarray
    description: dict[str, Any]

    @functools.cached_property
    def moments(self) -> tuple[np.ndarray, np.ndarray]:
        return distances.moments(self.features)


def make_reference(spec: Any, train: sources.Arrays, options: Config, quiet: bool) -> Reference:
    """The whole train split, without augmentation, in the features of genbench's classifier."""
    network = features.classifier(spec, train, options.classifier, quiet=quiet)
    description = {
        'dataset': spec.name,
        'split': 'train',
        'n': len(train),
        'augmentation': 'none',
        'features': network.name,
        'weights': network.weights,
        'input': f'integers in [0, {spec.levels})',
    }
    return Reference(network, network(train.images), description)


def sample_scores(reference: Reference, images: np.ndarray, metrics: Sequence[str]) -> dict[str, tuple]:
    """{metric: (value, standard error or None)} of integer images against the reference."""
    seen = reference.network(images)
    scores: dict[str, tuple[float, float | None]] = {}
    if 'fd' in metrics:
        scores['fd'] = (distances.frechet_distance(*reference.moments, *distances.moments(seen)), None)
    if 'kd' in metrics:  # its subsets overlap: their spread is no standard error
        scores['kd'] = (distances.kernel_distance(reference.features, seen)[0], None)
    if 'precision' in metrics or 'recall' in metrics:
        precision, recall = distances.precision_recall(reference.features, seen)
        scores |= {'precision': (precision, None), 'recall': (recall, None)}
    return {name: score for name, score in scores.items() if name in metrics}


class Evaluation:
    """One checkpoint under one evaluation config."""

    def __init__(self, run: runs.Run, config: Config, step: int, state: Any, quiet: bool):
        self.run, self.options, self.step, self.quiet = run, config.evaluation, step, quiet
        unknown = [name for name in self.options.metrics if name not in METRICS]
        if unknown:
            raise UserError(f'No metric is called {unknown[0]!r} (evaluation.metrics). '
                            f'{did_you_mean(unknown[0], METRICS)}')  # fmt: skip
        self.family, self.spec = run.family, run.family.spec
        self.samplers = self._samplers()
        builder = sources.open_builder(config.data.name, config.data.data_dir)
        self.train = sources.load(builder, 'train')
        self.split = sources.load(builder, self.options.split)
        self.blueprint, state = run.networks(step, state, self.options.average)
        self.state = sampling.replicate({key: state[key] for key in ('params', 'aux')})
        self.drawer = sampling.Drawer(self.blueprint, self.options.batch_size)
        self.results = Results(run.folder.results)
        self.config_hash = configs.config_hash(run.config)
        self.average = self.options.average if self.blueprint.averages else 'current'
        self.borrowed = {name: entry['state_sha256'][:12] for name, entry in run.manifest['borrowed'].items()}
        self.added: list[dict[str, Any]] = []

    def _samplers(self) -> list[Sampler]:
        if not self.options.samplers:
            return [sampling.default_sampler(self.family)]
        return [sampling.parse_sampler(text, self.family) for text in self.options.samplers]

    def run_all(self) -> list[dict[str, Any]]:
        if set(self.options.metrics) & set(SAMPLE_METRICS):
            for sampler in self.samplers:
                self._score_samples(sampler)
            self._save_film()
        if 'likelihood' in self.options.metrics:
            for likelihood in self.family.likelihoods:
                self._score_likelihood(likelihood)
            if not self.family.likelihoods:
                self._add('bits_per_dim', None, protocol={'likelihood': 'none'}, kind='none', n=0)
        if 'speed' in self.options.metrics:
            self._costs()
        return self.added

    @functools.cached_property
    def reference(self) -> Reference:
        return make_reference(self.spec, self.train, self.options, self.quiet)

    def _add(self, metric: str, value: float | None, *, protocol: Mapping[str, Any], **row: Any) -> None:
        if self.results.has(metric, protocol, self.step, self.config_hash):
            return
        row = self.results.add(
            family=self.family.name, dataset=self.spec.name, metric=metric, value=value, protocol=protocol,
            checkpoint_step=self.step, config_hash=self.config_hash, split=row.pop('split', self.options.split), **row,
        )  # fmt: skip
        self.added.append(row)

    def _labels(self, count: int) -> np.ndarray | None:
        """Labels drawn from the train split's own, for a conditional family."""
        if not self.family.conditional:
            return None
        return np.random.Generator(np.random.Philox(self.options.seed)).choice(self.train.labels, count)

    def _sampling_protocol(self, sampler: Sampler) -> dict[str, Any]:
        return {
            'sampler': sampler.name,
            'steps': int(sampler.num_steps),
            'nfe': self.family.evaluations(sampler),
            'guidance': sampler.guidance,
            'average': self.average,
            'borrowed': self.borrowed,
            'num_samples': self.options.num_samples,
            'seed': self.options.seed,
            'labels': 'train frequencies' if self.family.conditional else 'none',
        }

    def _score_samples(self, sampler: Sampler) -> None:
        metrics = [name for name in SAMPLE_METRICS if name in self.options.metrics]
        drawn = self._sampling_protocol(sampler)
        speed = 'speed' in self.options.metrics
        columns = {'sampler': sampler.name, 'nfe': drawn['nfe'], 'seed': self.options.seed, 'split': 'train'}
        compared = {
            name: {**drawn, 'reference': self.reference.description, **METRIC_PROTOCOL[name]} for name in metrics
        }
        timed = {**drawn, 'batch_size': self.options.batch_size, 'machine': machine()}
        wanted = [*compared.items(), *([('sampling_images_per_second', timed)] if speed else [])]
        if all(self.results.has(name, protocol, self.step, self.config_hash) for name, protocol in wanted):
            return
        images, seconds = self._draw(sampler)
        if speed:
            self._add('sampling_images_per_second', len(images) / seconds, protocol=timed, n=len(images), kind='cost',
                      **columns)  # fmt: skip
        for name, (value, error) in sample_scores(self.reference, images, metrics).items():
            self._add(name, value, std_err=error, kind='distance' if name in ('fd', 'kd') else 'score', n=len(images),
                      features=self.reference.network.name, protocol=compared[name], **columns)  # fmt: skip
        sampling.save_grid(self.run.folder.samples / f'{slug(sampler)}.png', images[:SHOWN], self.spec)

    def _draw(self, sampler: Sampler) -> tuple[np.ndarray, float]:
        """Integer images and the seconds they took, compilation left out."""
        count = self.options.num_samples
        labels = self._labels(count)
        batch = min(self.options.batch_size, count)
        self.drawer.draw(self.state, dataclasses.replace(sampler, num_steps=1), batch, 0, labels)
        progress = Progress(f'sample {slug(sampler)}', 0, count, 'image', quiet=self.quiet)
        began = time.monotonic()
        images, _ = self.drawer.draw(self.state, sampler, count, self.options.seed, labels, progress.update)
        seconds = time.monotonic() - began
        progress.close()
        return images, seconds

    def _save_film(self) -> None:
        """States on the way from noise to images, for families that have a way."""
        sampler = max(self.samplers, key=lambda sampler: int(sampler.num_steps))
        path = self.run.folder.samples / 'film.png'
        if path.is_file() or int(sampler.num_steps) == 1:
            return
        film = dataclasses.replace(sampler, frames=min(FILM_FRAMES, int(sampler.num_steps) + 1))
        _, frames = self.drawer.draw(self.state, film, FILM_IMAGES, self.options.seed, self._labels(FILM_IMAGES))
        if frames is None:
            return
        images = np.asarray(self.spec.quantise(np.swapaxes(frames, 0, 1).reshape(-1, *self.spec.shape)))
        sampling.save_grid(path, images, self.spec, columns=frames.shape[0])

    def _score_likelihood(self, likelihood: Likelihood) -> None:
        protocol = {**likelihood.protocol, 'method': likelihood.method, 'average': self.average,
                    'borrowed': self.borrowed, 'split': self.options.split, 'seed': self.options.seed,
                    'levels': self.spec.levels, 'labels': 'true' if self.family.conditional else 'none'}  # fmt: skip
        if self.results.has('bits_per_dim', protocol, self.step, self.config_hash):
            return
        nats = self._log_probs(likelihood)
        bits = np.asarray([self.spec.bits_per_dim(value) for value in nats])
        error = bits.std(ddof=1) / np.sqrt(len(bits))
        self._add('bits_per_dim', float(bits.mean()), std_err=float(error), kind=likelihood.kind, n=len(bits),
                  seed=self.options.seed, protocol=protocol)  # fmt: skip

    def _log_probs(self, likelihood: Likelihood) -> np.ndarray:
        """Nats for every image of the split (n,); the last batch is padded and masked."""

        @jax.jit
        def program(params, aux, images, labels, keys):
            return likelihood.log_prob(self.blueprint.bind(params, aux), images, labels, keys)

        batches = -(-len(self.split) // self.options.batch_size)
        size = sampling.whole_batches(-(-len(self.split) // batches))  # batches of equal size waste no padding
        progress = Progress(f'score {likelihood.method}', 0, len(self.split), 'image', quiet=self.quiet)
        found = []
        for images, labels, mask, indices in pipeline.padded_batches(self.split, size):
            keys = sampling.sample_keys(self.options.seed, int(indices[0]), size)
            batch = sampling.split_over_devices((images, labels if self.family.conditional else None, keys))
            values = np.asarray(program(self.state['params'], self.state['aux'], *batch), np.float64)
            found.append(values[mask])
            progress.update(min(int(indices[-1]) + 1, len(self.split)))
        progress.close()
        return np.concatenate(found)

    def _costs(self) -> None:
        for sampler in self.samplers:
            nfe = self.family.evaluations(sampler)
            self._add('evaluations_per_image', nfe, protocol=self._sampling_protocol(sampler), sampler=sampler.name,
                      nfe=nfe, kind='cost')  # fmt: skip
        trained = {name for update in self.family.updates for name in update.networks}
        logged = [row for row in read_rows(self.run.folder.metrics) if row['step'] == self.step]
        costs = {
            'parameters': sum(count for name, count in self.run.manifest['parameters'].items() if name in trained),
            'training_flops': logged[-1]['train/flops'] if logged else None,
            'training_seconds': logged[-1]['wall_time'] if logged else None,
        }
        protocol = {'devices': self.run.manifest['devices'], 'without': 'borrowed runs'}
        for metric, value in costs.items():
            if value:
                self._add(metric, value, protocol=protocol, kind='cost', split='train')


def machine() -> dict[str, Any]:
    """Where a speed was measured."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, 'sched_getaffinity') else os.cpu_count()
    devices = sorted({f'{device.platform}:{device.device_kind}' for device in jax.devices()})
    return {'host': platform.node(), 'cores': cores, 'devices': devices, 'count': jax.device_count()}


def slug(sampler: Sampler) -> str:
    """File-name form of a sampler: heun_25, or heun_25_g2.0 with guidance."""
    return f'{sampler.name}_{int(sampler.num_steps)}' + (f'_g{sampler.guidance}' if sampler.guidance else '')


def score_real(resolved: Sequence[Config], path: pathlib.Path) -> None:
    """Score the evaluation split as if it were samples, for each data set and feature network among the configs.

    A floor to read other rows against: no model can be expected below it, bar differences of set size.
    """
    results, seen = Results(path), set()
    for config in resolved:
        options = config.evaluation
        key = (config.data.name, options.split, options.classifier.to_json())
        metrics = [name for name in SAMPLE_METRICS if name in options.metrics]
        if key in seen or not metrics:
            continue
        seen.add(key)
        builder = sources.open_builder(config.data.name, config.data.data_dir)
        spec, train = sources.spec_of(builder), sources.load(builder, 'train')
        real = sources.load(builder, options.split).images
        reference = make_reference(spec, train, options, quiet=False)
        shared = {'images': f'{spec.name}:{options.split}', 'reference': reference.description}
        protocols = {name: {**shared, **METRIC_PROTOCOL[name]} for name in metrics}
        if all(results.has(name, protocol, None, None) for name, protocol in protocols.items()):
            continue
        for name, (value, error) in sample_scores(reference, real, metrics).items():
            results.add(family='real', dataset=spec.name, split=options.split, metric=name, value=value, std_err=error,
                        kind='distance' if name in ('fd', 'kd') else 'score', n=len(real),
                        features=reference.network.name, protocol=protocols[name])  # fmt: skip

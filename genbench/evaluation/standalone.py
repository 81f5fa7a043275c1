"""`genbench metrics`: compare sets of images, features or moments that need not come from genbench."""

import dataclasses
import functools
import hashlib
import json
import os
import pathlib
import tempfile
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

import genbench
from genbench import config as configs
from genbench.data import sources
from genbench.errors import UserError, explained_disk_errors
from genbench.evaluation import features, inputs, saved_moments, scoring
from genbench.evaluation.features import FeatureNetwork, own
from genbench.evaluation.images import BATCH, ImageSet
from genbench.evaluation.inputs import Given, Options, Source
from genbench.evaluation.parameters import REFERENCES, base
from genbench.evaluation.protocol import Protocol
from genbench.evaluation.results import complete
from genbench.evaluation.saved_moments import Saved
from genbench.evaluation.scoring import Extracted
from genbench.training import processes
from genbench.training.files import read_npz, write_atomically, write_npz
from genbench.training.metrics import Progress

FORMAT = 1  # version of the JSON format
PUBLISHED, OTHERS = ('fid', 'kid', 'pr', 'dc', 'is'), ('fd', 'kd', 'pr', 'dc')  # the default metrics
DEFAULT = Options()


@explained_disk_errors()
def compare(
    samples: str | Sequence[str], reference: str, metrics: Sequence[str] | None = None, options: Options = DEFAULT,
    *, held_out: str = '', out: str = '',
) -> list[dict[str, Any]]:  # fmt: skip
    """Compute metrics of `samples` (A) against `reference` (B) and return their rows.

    A and B are folders of images, .npy or .npz arrays of images or of features (n, d), tfds:NAME:SPLIT,
    folder:DIR:SPLIT, run folders, or saved moments. Several samples are compared with one reference, which is read
    once. Each row says under 'samples' which it scores. Joined processes compute features of an equal part of the
    images each. The first process compares, and has the rows.

    Raises:
      UserError: an input is wrong; the message says how, in one line.
    """
    addresses = [samples] if isinstance(samples, str) else list(samples)
    metrics = _default_metrics([*addresses, reference], options) if metrics is None else metrics
    names = scoring.resolve(metrics)
    if not names:
        raise UserError('There are no metrics to compute; choose some with --metrics.')
    if named := next((name for name in names if name.endswith(tuple(f'_{split}' for split in REFERENCES))), ''):
        raise UserError(f'{named} implies a reference, but here the second argument is the reference; use '
                        f'{base(named)}.')  # fmt: skip
    if out:
        check_writable(out)
    if not held_out and (wanting := [name for name in names if scoring.METRICS[name].needs_held_out]):
        raise UserError(f'{wanting[0]} also needs held-out real images; give them with --held-out.')
    outputs = scoring.needed_outputs(names)
    # Report a wrong address before fetching weights, fitting a classifier or reading a set.
    every = [*addresses, reference, *([held_out] if held_out else [])]
    opened = {address: inputs.open_source(address, options, _run, outputs) for address in every}
    for address in addresses:
        _check_samples(address, opened[address], names, options)
    _check_reference(reference, opened[reference], names)
    if held_out and not isinstance(opened[held_out], Given):
        inputs.images_of(held_out, opened[held_out])
    network = _network(opened, metrics, options)
    for source in opened.values():
        _check_shape(source, network)
    real = _reference(reference, opened[reference], network, names, options)
    held = _extract(held_out, opened[held_out], network, outputs, options) if held_out else None
    rows: list[dict[str, Any]] = []
    for address in addresses:
        one_pass = options.sets == 1 and scoring.only_moments(names)
        fake = _extract(address, opened[address], network, outputs, options, keep=not one_pass)
        said = '' if len(addresses) == 1 else address
        processes.first_does(functools.partial(_add_rows, rows, said, network, names, real, fake, held, options))
    if out and processes.is_first():
        told = {'samples': addresses[0] if len(addresses) == 1 else addresses, 'reference': reference}
        record = {'format': FORMAT, 'genbench': genbench.__version__, **told, 'rows': rows}
        write_atomically(pathlib.Path(out), json.dumps(record, indent=2) + '\n')
    return rows


def _add_rows(rows: list[dict[str, Any]], samples: str, *measured: Any) -> None:
    rows += [{**row, 'samples': samples} if samples else row for row in _rows(*measured)]


def _rows(
    network: FeatureNetwork, names: Sequence[str], real: Extracted, fake: Extracted, held: Extracted | None,
    options: Options,
) -> list[dict[str, Any]]:  # fmt: skip
    _check_alike(real, fake, scoring.needed_outputs(names))
    sets = _split(fake, options)
    drawn = {'images': fake.description, 'num_samples': sets[0].count or None, 'sets': options.sets,
             'seed': options.seed}  # fmt: skip
    scenes = [scoring.Scene(network, real, held, part, settings=options.settings) for part in sets]
    rows = []
    for name, row in scoring.score(dict.fromkeys(names, scenes)).items():
        beside = held.description if held else None
        protocol = {**drawn, **scoring.protocol(name, network, real.description, beside, options.settings)}
        rows.append(complete({**row, 'protocol': protocol, 'seed': options.seed}))
    return rows


def _default_metrics(addresses: Sequence[str], options: Options) -> tuple[str, ...]:
    """The metrics computed by default: only the published Inception gives numbers called FID."""
    if any(saved_moments.is_moments(address) for address in addresses):
        return ('fd',)
    if any(inputs.holds_features(address) for address in addresses):
        return OTHERS
    return PUBLISHED if options.features in ('', 'inception') and not options.weights else OTHERS


def _check_samples(address: str, source: Source, names: Sequence[str], options: Options) -> None:
    if isinstance(source, Saved) and source.images is None:
        if not scoring.only_moments(names):
            wanting = next(name for name in names if not scoring.only_moments([name]))
            raise UserError(f'{wanting} needs images or features, but {address} has only moments.')
        if options.sets > 1:
            raise UserError(f'{address} has moments, which cannot be split into {options.sets} sets.')
    else:
        _set_size(source.count if not isinstance(source, Saved) else source.images.count, options)


def _check_reference(address: str, source: Source, names: Sequence[str]) -> None:
    wanting = [name for name in names if scoring.METRICS[name].needs == 'features']
    if wanting and isinstance(source, Saved) and source.images is None:
        raise UserError(f'{wanting[0]} needs the reference images, but {address} has only moments.')


def _network(opened: dict[str, Source], metrics: Sequence[str], options: Options) -> FeatureNetwork:
    """The network that the flags name, or what is known of the one that features and moments come from."""
    known = inputs.without_images(opened)
    needs_images = any(isinstance(source, Saved) and source.images is not None for source in opened.values())
    one_pass = options.sets == 1 and scoring.only_moments(scoring.resolve(metrics))
    if known and (one_pass or not needs_images):
        network = inputs.network_of(list(opened.values()), options.features)
    else:
        network = open_network(options)
    scoring.check_names(metrics, network)
    return network


def _check_shape(source: Source, network: FeatureNetwork) -> None:
    if not isinstance(source, ImageSet):
        return
    if source.shape is not None:
        network.check_shape(source.shape)
    elif network.alone is None:
        raise UserError(f'The images have several sizes ({source.sizes}), and {network.name} does not resize; give '
                        'them one size.')  # fmt: skip


def _reference(
    address: str, source: Source, network: FeatureNetwork, names: Sequence[str], options: Options
) -> Extracted:
    """The reference. If a file holds both, distances of moments use its moments and other metrics its images."""
    outputs, keep = scoring.needed_outputs(names), not scoring.only_moments(names)
    if not isinstance(source, Saved):
        return _extract(address, source, network, outputs, options, keep=keep)
    whole = source.of(network)
    if not keep or source.images is None:
        return whole
    beside = _extract(address, source.images, network, outputs, options)
    said = {**whole.description, 'images': beside.description}
    return Extracted(said, beside.outputs, {**beside.moments, **whole.moments}, beside.count)


@explained_disk_errors()
def save_moments(source: str, out: str, options: Options) -> dict[str, Any]:
    """Write mu, sigma and the protocol of a set of images into an .npz file, and return the protocol."""
    if pathlib.Path(out).suffix != '.npz':
        raise UserError(f'--out is {out}; it should end in .npz.')
    check_writable(out)
    read_from = inputs.open_source(source, options, _run)
    if isinstance(read_from, Given):
        network, outputs = inputs.network_of([read_from], options.features), ['features']
    else:
        read_from = inputs.images_of(source, read_from)
        network = open_network(options)
        outputs = [name for name in ('features', 'spatial') if name in network.outputs]
    _check_shape(read_from, network)
    found = _extract(source, read_from, network, outputs, options, keep=False)
    processes.first_does(lambda: saved_moments.write(out, found, network))
    return saved_moments.protocol(found, network)


def check_writable(out: str) -> None:
    """Refuse an unwritable output path before spending hours on its contents."""
    path = pathlib.Path(out)
    if os.path.isdir(path):
        raise UserError(f'{out} is a folder; choose a file.')
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=path.parent, prefix=f'.{path.name}.'):
            pass
    except OSError as error:
        raise UserError(f'{out} cannot be written: {error.strerror}.') from None


def open_network(options: Options) -> FeatureNetwork:
    """The feature network that the flags name, such as 'classifier:DATASET' or the user's FILE.py:FUNCTION."""
    if '.py:' in options.features:
        return own.open_network(options.features, batch_size=options.batch_size)
    name, _, dataset = (options.features or 'inception').partition(':')
    extra: dict[str, Any] = {}
    if name == 'classifier':
        if not dataset:
            raise UserError('--features=classifier needs the data set of the classifier: classifier:NAME.')
        builder = sources.open_builder(dataset, options.data_dir)
        extra = {
            'spec': sources.spec_of(builder), 'train': sources.load(builder, 'train'),
            'classifier_options': configs.defaults_of('evaluation.classifier'),
        }  # fmt: skip
    return features.get(
        name, convention=options.convention, weights=options.weights, weights_sha256=options.weights_sha256,
        batch_size=options.batch_size, quiet=options.quiet, **extra,
    )  # fmt: skip


def _run(path: pathlib.Path, options: Options) -> ImageSet:
    """Samples of a trained run, drawn as in `genbench evaluate` and kept in the run's folder."""
    from genbench.evaluation.harness import draw_run

    return draw_run(
        path, sampler=options.sampler, count=options.num_samples, seed=options.seed, average=options.average,
        step=options.step, data_dir=options.data_dir, quiet=options.quiet,
    )  # fmt: skip


def _extract(
    address: str, source: Source, network: FeatureNetwork, outputs: Sequence[str], options: Options,
    *, keep: bool = True,
) -> Extracted:  # fmt: skip
    """A source in the features of a network. Features of images are cached under the hash of the images."""
    if isinstance(source, Given):
        held = {'features': source.rows}
        return Extracted(source.description, held, scoring.all_moments(held), source.count)
    if isinstance(source, Saved) and (source.images is None or not keep):
        return source.of(network)
    found = inputs.images_of(address, source)
    store = _Store(network, found.count, [*outputs, 'kept' if keep else 'moments'], options)
    known = store.read(found) if processes.is_first() else None
    if processes.agreed(known is not None):
        return known or Extracted({}, {}, {}, 0)  # only the first process needs them
    progress = Progress(f'features of {address}', 0, found.count, 'image', quiet=options.quiet)

    def batches() -> Iterator[np.ndarray]:
        done = 0
        for part in _resized(found, network) if found.shape is None else found.batches():
            yield _in_levels(part, network)
            done += len(part)
            progress.update(done)

    own = processes.part(0, found.count)
    kept, moments, count, digest = scoring.extract(network, batches(), outputs, keep=keep, own=own)
    progress.close()
    digest = digest if found.shape is not None else _digest(found)
    extracted = Extracted({**found.description, 'n': count, 'images_sha256': digest}, kept, moments, count)
    processes.first_does(lambda: store.write(extracted, digest))
    return extracted


def _resized(found: ImageSet, network: FeatureNetwork) -> Iterator[np.ndarray]:
    """Resize images of several sizes, one by one, to the size that the network reads."""
    assert network.alone is not None
    waiting: list[np.ndarray] = []
    for part in found.batches():
        waiting += [network.alone(image) for image in part]
        while len(waiting) >= BATCH:
            yield np.stack(waiting[:BATCH])
            waiting = waiting[BATCH:]
    if waiting:
        yield np.stack(waiting)


def _digest(found: ImageSet) -> str:
    """The hash of images in a protocol; for several sizes it includes the shape of each image."""
    digest, first = hashlib.sha256(), True
    for part in found.batches():
        for images in part[:, None] if found.shape is None else [part]:
            scoring.hash_images(digest, images, first=first or found.shape is None)
            first = False
    return digest.hexdigest()[:16]


@dataclasses.dataclass(frozen=True)
class _Store:
    """Where the features of an image set are cached: by network, outputs, number and hash of the images."""

    network: FeatureNetwork
    count: int
    outputs: Sequence[str]
    options: Options

    @property
    def _folder(self) -> pathlib.Path:
        named = Protocol({**self.network.protocol, 'outputs': list(self.outputs)}).hash
        return sources.cache_dir() / 'features' / f'{self.network.name.replace("/", "-")}-{named}-{self.count}'

    @property
    def _used(self) -> bool:
        return self.options.cache and self.network.name != 'pixels' and 'file_sha256' not in self.network.protocol

    def read(self, found: ImageSet) -> Extracted | None:
        """The cached features of these images. Images are hashed only if something is cached for a set like this."""
        if not self._used or not self._folder.is_dir() or not any(self._folder.iterdir()):
            return None
        digest = _digest(found)
        stored = read_npz(self._folder / f'{digest}.npz')
        if stored is None:
            return None
        held = {name: stored[name] for name in self.outputs if name in stored}
        moments = scoring.all_moments(held) or {
            name: (stored[f'{name}_mu'], stored[f'{name}_sigma']) for name in self.outputs if f'{name}_mu' in stored
        }
        count = int(stored['n'])
        return Extracted({**found.description, 'n': count, 'images_sha256': digest}, held, moments, count)

    def write(self, extracted: Extracted, digest: str) -> None:
        if not self._used:
            return
        named = {f'{name}_{key}': value for name, pair in extracted.moments.items()
                 for key, value in zip(('mu', 'sigma'), pair, strict=True)}  # fmt: skip
        write_npz(self._folder / f'{digest}.npz', {'n': extracted.count, **(extracted.outputs or named)})


def _in_levels(part: np.ndarray, network: FeatureNetwork) -> np.ndarray:
    return part if network.levels == 256 else np.round(part * ((network.levels - 1) / 255)).astype(np.uint8)


def _check_alike(real: Extracted, fake: Extracted, outputs: Sequence[str]) -> None:
    for output in outputs:
        sizes = [_dimension(part, output) for part in (real, fake)]
        if None not in sizes and sizes[0] != sizes[1]:
            raise UserError(f'The features of A have {sizes[1]} dimensions and those of B {sizes[0]}. They must come '
                            'from the same network (and for pixels from images of one size).')  # fmt: skip


def _dimension(part: Extracted, output: str) -> int | None:
    if output in part.outputs:
        return part.outputs[output].shape[1]
    return len(part.moments[output][0]) if output in part.moments else None


def _set_size(count: int, options: Options) -> int:
    size = count // options.sets
    if options.sets > 1 and size < 2:
        raise UserError(f'{count} images are too few for {options.sets} sets.')
    return size


def _split(fake: Extracted, options: Options) -> list[Extracted]:
    """Split into disjoint sets of equal size, shuffled by the seed."""
    if options.sets == 1:
        return [fake]
    size = _set_size(fake.count, options)
    order = np.random.Generator(np.random.Philox(options.seed)).permutation(fake.count)
    return [fake.part(order[index * size : (index + 1) * size]) for index in range(options.sets)]

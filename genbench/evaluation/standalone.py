"""`genbench metrics`: compare two sets of images that need not come from genbench."""

import dataclasses
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
from genbench.evaluation import features, images, saved_moments, scoring
from genbench.evaluation.features import FeatureNetwork
from genbench.evaluation.images import ImageSet
from genbench.evaluation.results import complete
from genbench.evaluation.saved_moments import Saved, is_moments
from genbench.evaluation.scoring import Extracted
from genbench.training.files import write_atomically
from genbench.training.metrics import Progress

FORMAT = 1  # of the JSON


@dataclasses.dataclass(frozen=True)
class Options:
    """What the flags of `genbench metrics` say; an empty string or zero is the default."""

    features: str = 'inception'
    convention: str = ''
    weights: str = ''
    weights_sha256: str = ''
    batch_size: int = 64
    data_dir: str = ''
    skip_unreadable: bool = False
    sets: int = 1  # disjoint parts of A that are scored one by one
    seed: int = 0
    sampler: str = ''  # of a run
    num_samples: int = 0  # of a run
    average: str = ''  # of a run
    step: int | None = None  # of a run
    quiet: bool = False


@explained_disk_errors()
def compare(
    samples: str, reference: str, metrics: Sequence[str], options: Options, *, held_out: str = '', out: str = ''
) -> list[dict[str, Any]]:
    """Rows of the metrics of `samples` (A) against `reference` (B).

    A and B are folders of images, .npy or .npz arrays, tfds:NAME:SPLIT, run folders, or (B) saved moments.

    Raises:
      UserError: whatever is wrong with an input, in one line.
    """
    names = scoring.resolve(metrics)
    if not names:
        raise UserError('There are no metrics to compute; name some with --metrics.')
    if named := next((name for name in names if name.endswith(tuple(f'_{split}' for split in scoring.REFERENCES))), ''):
        raise UserError(f'{named} names its reference, which here is the second argument; ask for '
                        f'{scoring.base(named)}.')  # fmt: skip
    if out:
        check_writable(out)
    if not held_out and (wanting := [name for name in names if scoring.METRICS[name].needs_held_out]):
        raise UserError(f'{wanting[0]} needs held-out real images beside the reference; name them with --held-out.')
    # A mistake in an address is said before weights are fetched, a classifier is fitted or a set is read.
    drawn_from, real_from = open_images(samples, options), _open_reference(reference, names, options)
    held_from = open_images(held_out, options) if held_out else None
    _set_size(drawn_from.count, options)
    network = open_network(options)
    scoring.check_names(metrics, network)
    for source in (drawn_from, real_from, held_from):
        if isinstance(source, ImageSet):
            network.check_shape(source.shape)
    outputs = scoring.needed_outputs(names)
    if isinstance(real_from, Saved):
        real = real_from.of(network)
    else:
        real = _extract(reference, real_from, network, outputs, options, keep=not scoring.only_moments(names))
    held = _extract(held_out, held_from, network, outputs, options) if held_from else None
    one_pass = options.sets == 1 and scoring.only_moments(names)
    fake = _extract(samples, drawn_from, network, outputs, options, keep=not one_pass)
    _check_alike(real, fake, outputs)
    sets = _split(fake, options)
    drawn = {'images': fake.description, 'num_samples': sets[0].count, 'sets': options.sets, 'seed': options.seed}
    scenes = [scoring.Scene(network, real, held, part) for part in sets]
    rows = []
    for name, row in scoring.score(dict.fromkeys(names, scenes)).items():
        protocol = {**drawn, **scoring.protocol(name, network, real.description, held.description if held else None)}
        rows.append(complete({**row, 'protocol': protocol, 'seed': options.seed}))
    if out:
        record = {'format': FORMAT, 'genbench': genbench.__version__, 'samples': samples, 'reference': reference}
        write_atomically(pathlib.Path(out), json.dumps({**record, 'rows': rows}, indent=2) + '\n')
    return rows


@explained_disk_errors()
def save_moments(source: str, out: str, options: Options) -> dict[str, Any]:
    """Write mu, sigma and their protocol of a set of images into an .npz file, and return the protocol."""
    if pathlib.Path(out).suffix != '.npz':
        raise UserError(f'--out is {out}; moments are saved in an .npz file.')
    check_writable(out)
    read_from = open_images(source, options)
    network = open_network(options)
    outputs = [name for name in ('features', 'spatial') if name in network.outputs]
    found = _extract(source, read_from, network, outputs, options, keep=False)
    return saved_moments.write(out, found, network)


def check_writable(out: str) -> None:
    """Refuse a place that cannot be written before hours are spent on what belongs there."""
    path = pathlib.Path(out)
    if os.path.isdir(path):
        raise UserError(f'{out} is a folder; name a file.')
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=path.parent, prefix=f'.{path.name}.'):
            pass
    except OSError as error:
        raise UserError(f'{out} cannot be written: {error.strerror}.') from None


def open_network(options: Options) -> FeatureNetwork:
    """The feature network that the flags name; 'classifier:DATASET' is the one of a data set."""
    name, _, dataset = options.features.partition(':')
    extra: dict[str, Any] = {}
    if name == 'classifier':
        if not dataset:
            raise UserError('--features=classifier needs a data set whose classifier is meant: classifier:NAME.')
        builder = sources.open_builder(dataset, options.data_dir)
        extra = {
            'spec': sources.spec_of(builder), 'train': sources.load(builder, 'train'),
            'classifier_options': configs.defaults_of('evaluation.classifier'),
        }  # fmt: skip
    return features.get(
        name, convention=options.convention, weights=options.weights, weights_sha256=options.weights_sha256,
        batch_size=options.batch_size, quiet=options.quiet, **extra,
    )  # fmt: skip


def open_images(address: str, options: Options) -> ImageSet:
    """The images that an address on the command line names."""
    path = pathlib.Path(address)
    if address.startswith('tfds:'):
        return images.data_set(address, options.data_dir)
    if os.path.isfile(path / 'manifest.json'):  # not Path.is_file, which raises for a name that is too long
        return _run(path, options)
    if address and os.path.isdir(path):
        return images.folder(path, skip_unreadable=options.skip_unreadable)
    if not address or not os.path.exists(path):
        raise UserError(f'There is no {address!r}; give a folder of images, a .npy or .npz '
                        'array, tfds:NAME:SPLIT, the folder of a run, or saved moments.')  # fmt: skip
    if not os.path.isfile(path) or path.suffix not in ('.npy', '.npz'):
        raise UserError(f'{address} is neither a folder nor a .npy or .npz file.')
    if is_moments(address):
        raise UserError(f'{address} holds moments; images are needed here.')
    return images.array(path)


def _run(path: pathlib.Path, options: Options) -> ImageSet:
    """Samples of a trained run, drawn as `genbench evaluate` draws them and kept in its folder."""
    from genbench.evaluation.harness import draw_run

    return draw_run(
        path, sampler=options.sampler, count=options.num_samples, seed=options.seed, average=options.average,
        step=options.step, data_dir=options.data_dir, quiet=options.quiet,
    )  # fmt: skip


def _open_reference(address: str, names: Sequence[str], options: Options) -> ImageSet | Saved:
    if not is_moments(address):
        return open_images(address, options)
    if wanting := [name for name in names if scoring.METRICS[name].needs == 'features']:
        raise UserError(f'{wanting[0]} needs the reference images, and {address} holds only their moments.')
    return saved_moments.read(address, scoring.needed_outputs(names))


def _extract(
    address: str, source: ImageSet, network: FeatureNetwork, outputs: Sequence[str], options: Options,
    *, keep: bool = True,
) -> Extracted:  # fmt: skip
    progress = Progress(f'features of {address}', 0, source.count, 'image', quiet=options.quiet)

    def batches() -> Iterator[np.ndarray]:
        done = 0
        for part in source.batches():
            yield _in_levels(part, network)
            done += len(part)
            progress.update(done)

    kept, moments, count, digest = scoring.extract(network, batches(), outputs, keep=keep)
    progress.close()
    return Extracted({**source.description, 'n': count, 'images_sha256': digest}, kept, moments, count)


def _in_levels(part: np.ndarray, network: FeatureNetwork) -> np.ndarray:
    return part if network.levels == 256 else np.round(part * ((network.levels - 1) / 255)).astype(np.uint8)


def _check_alike(real: Extracted, fake: Extracted, outputs: Sequence[str]) -> None:
    for output in outputs:
        sizes = [_dimension(part, output) for part in (real, fake)]
        if None not in sizes and sizes[0] != sizes[1]:
            raise UserError(f'The features of A have {sizes[1]} dimensions and those of B {sizes[0]}; they must come '
                            'from the same network (and for pixels from images of one size).')  # fmt: skip


def _dimension(part: Extracted, output: str) -> int | None:
    if output in part.outputs:
        return part.outputs[output].shape[1]
    return len(part.moments[output][0]) if output in part.moments else None


def _set_size(count: int, options: Options) -> int:
    size = count // options.sets
    if options.sets > 1 and size < 2:
        raise UserError(f'{count} images do not make {options.sets} sets.')
    return size


def _split(fake: Extracted, options: Options) -> list[Extracted]:
    """Disjoint sets of equal size, shuffled by the seed."""
    if options.sets == 1:
        return [fake]
    size = _set_size(fake.count, options)
    order = np.random.Generator(np.random.Philox(options.seed)).permutation(fake.count)
    return [fake.part(order[index * size : (index + 1) * size]) for index in range(options.sets)]

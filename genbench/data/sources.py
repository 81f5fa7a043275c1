"""TFDS image data sets by name, read from prepared array_record folders without TensorFlow."""

import contextlib
import dataclasses
import io
import logging
import os
import pathlib
import warnings
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from genbench import remote
from genbench.data import captions
from genbench.data.spec import TEXT, DataSpec, resize
from genbench.errors import Unprepared, UserError, did_you_mean, explained_disk_errors

POINTS = (
    *('two_moons', 'ring', 'grid', 'checkerboard', 'pinwheel', 'swiss_roll'),
    *('otcfm_normals', 'otcfm_moons', 'otcfm_s_curve', 'otcfm_far_moons', 'otcfm_far_normals'),
)
DESCRIBED = ('described_digits', 'described_fashion_mnist')
EMBEDDED = ('digits', *DESCRIBED, *POINTS)  # builders that ship with genbench and need no preparation


@dataclasses.dataclass(frozen=True)
class Arrays:
    """One split in memory: images (n, height, width, channels) uint8 and labels (n,) int32, zero without labels.

    Attributes:
      fields: further fields of the rows, (n, …) by name.
    """

    images: np.ndarray
    labels: np.ndarray
    fields: Mapping[str, np.ndarray] = dataclasses.field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.images)

    def columns(self) -> dict[str, np.ndarray]:
        """Every field by name, including 'image' and 'label'."""
        return {'image': self.images, 'label': self.labels, **self.fields}

    def part(self, numbers: Any) -> 'Arrays':
        """Only these rows."""
        columns = self.rows(numbers)
        return Arrays(columns.pop('image'), columns.pop('label'), columns)

    def resized(self, shape: tuple[int, ...]) -> 'Arrays':
        """The same rows with images of another shape (`genbench.data.spec.resize`)."""
        return self if self.images.shape[1:] == shape else dataclasses.replace(self, images=resize(self.images, shape))

    def rows(self, numbers: Any) -> dict[str, np.ndarray]:
        """These rows, as 'image' (n, …), 'label' (n,) and the further fields."""
        return {name: values[numbers] for name, values in self.columns().items()}


def cache_dir() -> pathlib.Path:
    """The user's cache folder for genbench."""
    return pathlib.Path(os.environ.get('XDG_CACHE_HOME') or pathlib.Path.home() / '.cache') / 'genbench'


def default_data_dir(name: str) -> str:
    """The folder in which `name` is looked up if `data.data_dir` is empty."""
    if name in EMBEDDED:
        return str(cache_dir() / 'tfds')
    return os.environ.get('TFDS_DATA_DIR') or str(pathlib.Path.home() / 'tensorflow_datasets')


def _tfds():
    logging.getLogger('absl').setLevel(logging.CRITICAL)
    import tensorflow_datasets as tfds

    from genbench.data import described, digits, plane  # noqa: F401 (registers the embedded builders)

    tfds.disable_progress_bar()
    return tfds


def names() -> list[str]:
    """The names of all data sets that TFDS knows without the network, including the embedded ones."""
    return sorted(_tfds().list_builders(with_community_datasets=False))


def prepared(data_dir: str = '') -> list[str]:
    """'name  folder' for each data set found on this machine."""
    if data_dir and not os.path.isdir(data_dir):
        raise UserError(f'{data_dir} (--data_dir) is not a folder.')
    found = []
    folders = [data_dir] if data_dir else sorted({default_data_dir(name) for name in (*EMBEDDED, '')})
    for folder in map(pathlib.Path, folders):
        versions = folder.glob('*/*/dataset_info.json')
        found += [f'{version.parent.parent.name:16} {version.parent}' for version in sorted(versions)]
    embedded = [f'{name:16} ships with genbench' for name in EMBEDDED if not any(f.startswith(name) for f in found)]
    return embedded + found


def _builder(name: str, data_dir: str):
    tfds = _tfds()
    folder = remote.data_dir(data_dir or default_data_dir(name), name.partition('/')[0].partition(':')[0])
    if data_dir and not os.path.isdir(folder) and name not in EMBEDDED:
        raise UserError(
            f'The data folder {folder} (data.data_dir) does not exist. '
            f'Make it with: genbench data prepare {name} --data_dir={data_dir}'
        )
    own = folder / name.partition('/')[0].partition(':')[0]
    for depth in ('*', '*/*') if os.path.isdir(own) else ():  # the folder of a version, or of a config's version
        _check_files(name, own.glob(f'{depth}/dataset_info.json'))
    from google.protobuf import json_format

    damaged = (json_format.ParseError, OSError, RuntimeError)
    try:
        return tfds.builder(name, data_dir=folder, file_format='array_record', try_gcs=False)
    except tfds.core.DatasetNotFoundError:
        raise UserError(f'There is no data set {name!r} (data.name). {did_you_mean(name, names())}') from None
    except damaged as error:
        raise UserError(f'{name} cannot be opened: dataset_info.json in {folder} is damaged ({_reason(error)}). '
                        'Delete it and prepare it again, or use another folder.') from None  # fmt: skip
    except (ValueError, AssertionError) as error:
        if 'File format' in str(error):
            raise UserError(
                f'{name} has another file format in {folder}; genbench reads array_record. Prepare it in '
                f'another folder: genbench data prepare {name} --data_dir=DIR'
            ) from None
        raise UserError(
            f'The data set {name!r} (data.name) cannot be opened in {folder}: {_reason(error)} '
            f'{did_you_mean(name, names())}'
        ) from None


def _reason(error: BaseException) -> str:
    """The first line of an error's message, without TFDS's prefix."""
    lines = str(error).strip().splitlines()
    return lines[0].rpartition('": ')[2][:200] if lines else type(error).__name__


@explained_disk_errors()
def prepare(name: str, data_dir: str = '') -> str:
    """Write the array_record files of a data set and return their folder.

    Embedded sets need nothing else. Official builders download their data and need TensorFlow (the extra `prepare`).
    """
    if data_dir:
        pathlib.Path(data_dir).expanduser().mkdir(parents=True, exist_ok=True)
    builder = _builder(name, data_dir)
    if builder.is_prepared():
        return str(builder.data_path)
    if name not in EMBEDDED:
        try:
            import tensorflow  # noqa: F401
        except ImportError:
            raise UserError(f"Preparing {name} needs TensorFlow; install it with pip install -e '.[prepare]'") from None
    try:
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            builder.download_and_prepare()
    except Exception as error:
        if not _builder(name, data_dir).is_prepared():  # unless another process was faster
            if isinstance(error, OSError):
                raise UserError(f'{name} cannot be prepared in {builder.data_path}: {error}.') from error
            raise
    return str(builder.data_path)


def open_builder(name: str, data_dir: str = '') -> Any:
    """The TFDS builder of a prepared data set.

    Raises:
      UserError: the name is unknown, the folder is missing, or the set is not prepared there.
    """
    builder = _builder(name, data_dir)
    if not builder.is_prepared() and name in EMBEDDED:
        prepare(name, data_dir)
        builder = _builder(name, data_dir)
    if not builder.is_prepared():
        flag = f' --data_dir={data_dir}' if data_dir else ''
        raise Unprepared(
            f'{name} is not prepared as array_record in {data_dir or default_data_dir(name)}. '
            f'Run: genbench data prepare {name}{flag}   or set data.data_dir to a folder that has it.'
        )
    _check_files(name, pathlib.Path(builder.data_path).iterdir())
    return builder


def open_folder(name: str, folder: pathlib.Path) -> Any:
    """The builder of a data set that genbench has prepared in a folder.

    Raises:
      UserError: the folder is damaged.
    """
    from google.protobuf import json_format

    _check_files(name, folder.iterdir())
    try:
        return _tfds().builder_from_directory(folder)
    except (json_format.ParseError, OSError, RuntimeError, ValueError, KeyError) as error:
        raise UserError(f'{name} cannot be opened: {folder} is damaged ({_reason(error)}). Delete that folder '
                        'and prepare it again.') from None  # fmt: skip


def _check_files(name: str, files: Iterable[pathlib.Path]) -> None:
    """Reject anything but regular files, since readers would wait forever on a pipe."""
    for file in files:
        if not os.path.isfile(file):
            raise UserError(f'{file} should be a file of the data set {name}, but is not. Prepare the data set again.')


def spec_of(builder: Any, size: tuple[int, int] | None = None) -> DataSpec:
    """The specification of a builder's images. They have 8 bits unless its metadata has `levels`.

    Args:
      size: height and width of the images once they are prepared; None: they keep those of the builder.
    """
    features = builder.info.features
    if 'image' not in features:
        raise UserError(f'{builder.name} has no feature "image"; genbench reads image data sets only.')
    shape = features['image'].shape
    if size and len(shape) == 3:
        shape = (*size, shape[2])
    if len(shape) != 3 or None in shape:
        raise UserError(f'The images of {builder.name} have no fixed shape ({shape}); choose one with data.size.')
    levels, content = _metadata(builder)
    classes = getattr(dict(features).get('label'), 'num_classes', None) or 0
    further = [(name, kind(feature)) for name, feature in sorted(features.items()) if name not in ('image', 'label')]
    fields = tuple((name, one) for name, one in further if one)
    return DataSpec(name=builder.name, shape=tuple(shape), levels=levels, classes=classes, fields=fields,
                    content=content)  # fmt: skip


def kind(feature: Any) -> str:
    """TEXT, or the type of numbers with a fixed shape; '' for any other feature."""
    if type(feature).__name__ == 'Text':
        return TEXT
    fixed = isinstance(getattr(feature, 'shape', None), tuple) and None not in feature.shape
    return np.dtype(feature.np_dtype).name if fixed and np.dtype(feature.np_dtype).kind in 'biuf' else ''


def _metadata(builder: Any) -> tuple[int, str]:
    """The number of pixel values, 256 if the metadata does not say; and the identity of the images, or ''."""
    try:
        known = builder.info.metadata or {}
        levels, content = known.get('levels', 256), known.get('content', '')
    except (ValueError, TypeError, RecursionError, OSError):
        levels, content = None, ''
    if type(levels) is not int or not 2 <= levels <= 2**16 or not isinstance(content, str):
        raise UserError(f'The metadata.json of {builder.name} in {builder.data_path} is damaged; prepare it again.')
    return levels, content


def spec_by_name(name: str, data_dir: str = '', size: tuple[int, int] | None = None) -> DataSpec:
    """The specification of a data set that need not be prepared, with the `size` that preparing it gives."""
    return spec_of(_builder(name, data_dir if pathlib.Path(data_dir).expanduser().is_dir() else ''), size)


def count(builder: Any, split: str) -> int:
    """The number of images in a split or a slice of one, without reading them."""
    try:
        found = builder.info.splits[split].num_examples
    except (ValueError, KeyError) as error:
        raise _no_split(builder, split, error) from None
    if found < 1:
        raise UserError(f'{builder.name} has no images in {split!r}.')
    return found


def _no_split(builder: Any, split: str, error: BaseException) -> UserError:
    known = ', '.join(builder.info.splits)
    reason = str(error).strip().splitlines()[0]
    return UserError(f'{builder.name} has no split {split!r} (it has {known}): {reason}')


def load(builder: Any, split: str, fields: Sequence[str] = ()) -> Arrays:
    """Decode a split into memory. TFDS slices such as 'train[:1000]' are allowed.

    Args:
      fields: further fields to read, from `DataSpec.fields`; FIELD:WAY reads a text as `captions.reading` says.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter('ignore')
            source = builder.as_data_source(split)
            records = source.__getitems__(range(len(source)))
    except (ValueError, KeyError) as error:
        raise _no_split(builder, split, error) from None
    except (RuntimeError, OSError) as error:
        reason = str(error).strip().splitlines()[0]
        raise UserError(f'The files of {builder.name} in {builder.data_path} cannot be read: {reason}') from None
    if not records:
        raise UserError(f'{builder.name} has no images in {split!r}.')
    columns = stack(records, fields)
    return Arrays(columns.pop('image'), columns.pop('label'), columns)


def noise(spec: DataSpec, count: int, fields: Sequence[str] = ()) -> Arrays:
    """Random rows with the shapes of a data set, for use where only shapes matter."""
    draw = np.random.default_rng(0)
    images = draw.integers(0, spec.levels, (count, *spec.shape)).astype(np.uint8)
    labels = draw.integers(0, max(spec.classes, 1), count).astype(np.int32)
    texts = [(name, *name.partition(':')[::2]) for name in fields]
    return Arrays(images, labels, {name: captions.reading(way).numbers([''] * count)
                                   for name, field, way in texts if spec.field(field) == TEXT})  # fmt: skip


def stack(records: Sequence[Mapping[str, Any]], fields: Sequence[str] = ()) -> dict[str, np.ndarray]:
    """Stack rows into one array per field. Texts become numbers, of their words or as FIELD:WAY says."""
    columns = {
        'image': np.stack([record['image'] for record in records]),
        'label': np.asarray([record.get('label', 0) for record in records], np.int32),
    }
    for name in fields:
        field, _, way = name.partition(':')
        values = [record[field] for record in records]
        text = isinstance(values[0], str | bytes)
        columns[name] = captions.reading(way).numbers(values) if text else np.asarray(values)
    return columns

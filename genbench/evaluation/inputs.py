"""Resolve the addresses of `genbench metrics`: sets of images, precomputed features, and moments."""

import dataclasses
import hashlib
import os
import pathlib
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from genbench.data.recipe import Recipe
from genbench.errors import UserError
from genbench.evaluation import array_files, images, saved_moments
from genbench.evaluation.arrays import checked
from genbench.evaluation.features import FeatureNetwork, inception
from genbench.evaluation.features.network import known_by_name
from genbench.evaluation.images import ImageSet
from genbench.evaluation.saved_moments import Saved, is_moments
from genbench.evaluation.scoring import Settings

KNOWN = ('a folder of images, a .npy or .npz array of images or features, tfds:NAME:SPLIT, folder:DIR:SPLIT, '
         'a run folder, or saved moments')  # fmt: skip
IMAGES = ('images', 'arr_0')  # names under which a file of moments may also hold images, as in ADM's references


@dataclasses.dataclass(frozen=True)
class Options:
    """The flags of `genbench metrics`; an empty string or zero means the default."""

    features: str = ''
    convention: str = ''
    weights: str = ''
    weights_sha256: str = ''
    batch_size: int = 64
    data_dir: str = ''
    skip_unreadable: bool = False
    sets: int = 1  # number of disjoint parts of A to score separately
    seed: int = 0
    sampler: str = ''  # for a run
    num_samples: int = 0  # for a run
    average: str = ''  # for a run
    step: int | None = None  # for a run
    quiet: bool = False
    cache: bool = True  # keep the features of images, by the hash of the images
    settings: Settings = Settings()  # parameters of the metrics
    recipe: Recipe = Recipe()  # preparation of folder:DIR:SPLIT


@dataclasses.dataclass(frozen=True)
class Given:
    """Features (n, d) that were computed elsewhere."""

    address: str
    rows: np.ndarray

    @property
    def count(self) -> int:
        return len(self.rows)

    @property
    def description(self) -> dict[str, Any]:
        digest = hashlib.sha256(f'{self.rows.dtype} {self.rows.shape}'.encode() + self.rows.tobytes()).hexdigest()
        return {'from': 'features', 'features_sha256': digest[:16], 'n': len(self.rows)}


Source = ImageSet | Saved | Given
DrawRun = Callable[[pathlib.Path, Options], ImageSet]


def open_source(address: str, options: Options, draw_run: DrawRun, outputs: Sequence[str] = ('features',)) -> Source:
    """Return what an address names. Only headers and moments are read.

    Args:
      draw_run: opens the samples of a run.
      outputs: outputs of a feature network whose moments a file of moments must hold.

    Raises:
      UserError: the address names nothing, or nothing of a known kind.
    """
    path = pathlib.Path(address)
    if address.partition(':')[0] in ('tfds', 'folder', 'hf') and not os.path.exists(path):
        return images.data_set(address, options.data_dir, options.recipe)
    if os.path.isfile(path / 'manifest.json'):  # not Path.is_file, which raises if a name is too long
        return draw_run(path, options)
    if address and os.path.isdir(path):
        return images.folder(path, skip_unreadable=options.skip_unreadable)
    if not address or not os.path.exists(path):
        raise UserError(f'There is no {address!r}. Use {KNOWN}.')
    if not os.path.isfile(path) or path.suffix not in ('.npy', '.npz'):
        raise UserError(f'{address} is neither a folder nor a .npy or .npz file.')
    if is_moments(address):
        return _moments(address, outputs)
    rows = _features(path)
    return images.array(path) if rows is None else Given(address, checked(rows, address))


def _moments(address: str, outputs: Sequence[str]) -> Saved:
    """Moments with the images stored next to them. The moments need not be of these images."""
    found, held = saved_moments.read(address, outputs), array_files.names(pathlib.Path(address))
    beside = images.array(pathlib.Path(address)) if set(IMAGES) & set(held) else None
    return dataclasses.replace(found, images=beside)


def _features(path: pathlib.Path) -> np.ndarray | None:
    """The features (n, d) in a file; None if it holds something else."""
    if not array_files.is_npz(path):
        values = array_files.read_npy(path)
        return np.asarray(values) if values.ndim == 2 and values.dtype.kind in 'fiu' else None
    held = array_files.names(path)
    name = 'features' if 'features' in held else held[0] if len(held) == 1 else None
    if name is None or len(array_files.shapes(path, [name])[name]) != 2:
        return None
    return array_files.read_npz(path, [name])[name]


def holds_features(address: str) -> bool:
    """Whether a file holds features, judging by its header."""
    path = pathlib.Path(address)
    return path.suffix in ('.npy', '.npz') and os.path.isfile(path) and _features(path) is not None


def images_of(address: str, source: Source) -> ImageSet:
    """Return the images of a source; raise a UserError if it has none."""
    if isinstance(source, Saved) and source.images is not None:
        return source.images
    if isinstance(source, ImageSet):
        return source
    raise UserError(f'{address} contains {"moments" if isinstance(source, Saved) else "features"}, but images are '
                    'needed here.')  # fmt: skip


def without_images(sources: dict[str, Source]) -> bool:
    """Whether no source holds images, so that no network is needed.

    Raises:
      UserError: some sources hold features, and others hold images that have no features yet.
    """
    given = [address for address, source in sources.items() if isinstance(source, Given)]
    shown = [address for address, source in sources.items() if isinstance(source, ImageSet)]
    if given and shown:
        raise UserError(f'{given[0]} has features, but {shown[0]} has images; use features for both, or images.')
    return not shown


def network_of(sources: Sequence[Source], label: str) -> FeatureNetwork:
    """The network that features and moments come from, as far as they say; `label` is the user's name for it."""
    known = [source.network for source in sources if isinstance(source, Saved) and source.network]
    outputs = ('features',) if any(isinstance(source, Given) for source in sources) else ('features', 'spatial')
    if not known:
        return known_by_name(label or 'given', {}, outputs)
    protocol = {key: value for key, value in known[0].items() if key != 'features'}
    published = known[0].get('features') == 'inception' and protocol.get('weights') == inception.PUBLISHED.sha256
    return known_by_name(str(known[0].get('features', 'given')), protocol, outputs, published)

"""Real images in feature space, computed once for each data set and feature network."""

import dataclasses
import functools
import hashlib
import json
import pathlib
from collections.abc import Iterator, Sequence

import numpy as np

from genbench.data.sources import Arrays, cache_dir
from genbench.data.spec import DataSpec
from genbench.evaluation import scoring
from genbench.evaluation.features import FeatureNetwork
from genbench.evaluation.scoring import Extracted
from genbench.training.files import read_npz, write_npz
from genbench.training.metrics import Progress
from genbench.training.sampling import to_uint8

BATCH = 1024


def network_images(images: np.ndarray, spec: DataSpec, network: FeatureNetwork) -> np.ndarray:
    """Integer images of a data set in the levels that a feature network reads."""
    return images if network.levels == spec.levels else to_uint8(images, spec)


@dataclasses.dataclass(frozen=True)
class RealImages:
    """One split, whole and without augmentation, in the features of a network; kept in the user's cache."""

    network: FeatureNetwork
    spec: DataSpec
    split: str
    arrays: Arrays
    quiet: bool = False

    @functools.cached_property
    def description(self) -> dict:
        """What a protocol says of the images."""
        digest = hashlib.sha256()
        scoring.hash_images(digest, self.arrays.images, first=True)
        return {
            'dataset': self.spec.name, 'split': self.split, 'n': len(self.arrays), 'augmentation': 'none',
            'images_sha256': digest.hexdigest()[:16],
        }  # fmt: skip

    def extracted(self, outputs: Sequence[str]) -> Extracted:
        kept = read_npz(self._path(outputs))
        if kept is None:
            progress = Progress(
                f'features of {self.spec.name} {self.split}', 0, len(self.arrays), 'image', quiet=self.quiet
            )
            kept, _, _, _ = scoring.extract(self.network, self._batches(progress), outputs)
            progress.close()
            write_npz(self._path(outputs), kept)
        return Extracted(self.description, kept, scoring.all_moments(kept), len(self.arrays))

    def _batches(self, progress: Progress) -> Iterator[np.ndarray]:
        for start in range(0, len(self.arrays), BATCH):
            yield network_images(self.arrays.images[start : start + BATCH], self.spec, self.network)
            progress.update(min(start + BATCH, len(self.arrays)))

    def _path(self, outputs: Sequence[str]) -> pathlib.Path:
        key = json.dumps([self.description, dict(self.network.protocol), sorted(outputs)], sort_keys=True)
        name = f'{self.network.name}-{self.spec.name}-{hashlib.sha256(key.encode()).hexdigest()[:12]}.npz'
        return cache_dir() / 'references' / name

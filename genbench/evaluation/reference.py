"""Real images in feature space, computed once for each data set and feature network."""

import dataclasses
import functools
import hashlib
import json
import pathlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from genbench import evaluation
from genbench.config import Config
from genbench.data import opening, sources
from genbench.data.sources import Arrays, cache_dir
from genbench.data.spec import DataSpec
from genbench.errors import UserError, did_you_mean
from genbench.evaluation import features, scoring
from genbench.evaluation.features import FeatureNetwork
from genbench.evaluation.scoring import Extracted, Scene
from genbench.training import processes
from genbench.training.files import read_npz, write_npz
from genbench.training.metrics import Progress
from genbench.training.sampling import to_uint8

BATCH = 1024
HALF_SEED, COPY_SEED = 0, 1  # seeds for the halves of the held-out split, and for the copies
# Metrics besides those of samples.
OTHER_METRICS = (
    'likelihood', 'ais', 'active_units', 'path_length', 'w2', 'path_energy', 'modes', 'high_quality', 'parzen_nats',
    'speed', 'exploration', 'eq_t', 'eq_t_frac', 'eq_r', 'restored_psnr', 'restored_ssim', 'restored_misfit',
    'restored_class', 'restored_fd', 'restored_diversity', 'reconstruction_fd', 'reconstruction_psnr',
    'reconstruction_ssim', 'codes_used', 'clip_score', 'condition_distance',
)  # fmt: skip


def network_images(images: np.ndarray, spec: DataSpec, network: FeatureNetwork) -> np.ndarray:
    """Convert integer images of a data set to the levels that a feature network reads."""
    return images if network.levels == spec.levels else to_uint8(images, spec)


@dataclasses.dataclass(frozen=True)
class RealImages:
    """Return one whole split, without augmentation, in the features of a network. The user's cache keeps it."""

    network: FeatureNetwork
    spec: DataSpec
    split: str
    arrays: Arrays
    quiet: bool = False
    resized: Mapping[str, str] = dataclasses.field(default_factory=dict)  # what the protocol says about smaller images

    @functools.cached_property
    def description(self) -> dict:
        """How a protocol describes the images."""
        digest = hashlib.sha256()
        scoring.hash_images(digest, self.arrays.images, first=True)
        return {
            'dataset': self.spec.name, 'split': self.split, 'n': len(self.arrays), 'augmentation': 'none',
            'images_sha256': digest.hexdigest()[:16], **self.resized,
        }  # fmt: skip

    def extracted(self, outputs: Sequence[str]) -> Extracted:
        kept = read_npz(self._path(outputs))
        if not processes.all_agree(kept is not None):  # each process may have its own cache
            progress = Progress(
                f'features of {self.spec.name} {self.split}', 0, len(self.arrays), 'image', quiet=self.quiet
            )
            own = processes.part(0, len(self.arrays))
            kept, _, _, _ = scoring.extract(self.network, self._batches(progress), outputs, own=own)
            progress.close()
            processes.first_does(functools.partial(write_npz, self._path(outputs), kept))
        assert kept is not None
        kept = {**kept, **({'labels': self.arrays.labels} if self.spec.classes else {})}
        return Extracted(self.description, kept, scoring.all_moments(kept), len(self.arrays))

    def _batches(self, progress: Progress) -> Iterator[np.ndarray]:
        for start in range(0, len(self.arrays), BATCH):
            yield network_images(self.arrays.images[start : start + BATCH], self.spec, self.network)
            progress.update(min(start + BATCH, len(self.arrays)))

    def _path(self, outputs: Sequence[str]) -> pathlib.Path:
        key = json.dumps([self.description, dict(self.network.protocol), sorted(outputs)], sort_keys=True)
        name = f'{self.network.name}-{self.spec.name}-{hashlib.sha256(key.encode()).hexdigest()[:12]}.npz'
        return cache_dir() / 'references' / name


def num_beside(size: int) -> int:
    """How many of `size` held-out images remain when one half is the reference."""
    return size - size // 2


def sample_metrics(names: Sequence[str]) -> list[str]:
    """The metrics in `evaluation.metrics` that are measured on samples; a UserError for an unknown name."""
    chosen = [name for name in names if name not in OTHER_METRICS]
    known = (*scoring.METRICS, *scoring.PUBLISHED, *scoring.ALIASES)
    for name in chosen:
        if name not in known:
            raise UserError(f'There is no metric {name!r} (evaluation.metrics). '
                            f'{did_you_mean(name, (*known, *OTHER_METRICS))}')  # fmt: skip
    return chosen


def feature_network(config: Config, spec: Any, train: Arrays, quiet: bool) -> FeatureNetwork:
    """Return the network that `evaluation.features` names, after checking that it can give the requested metrics."""
    options = config.evaluation.features
    network = features.get(
        options.name, convention=options.convention, weights=options.weights, weights_sha256=options.weights_sha256,
        spec=spec, train=train, classifier_options=config.evaluation.classifier, quiet=quiet,
    )  # fmt: skip
    scoring.check_names(sample_metrics(config.evaluation.metrics), network)
    return network


class RealSets:
    """The real images that samples are scored against, and those that are scored like samples.

    A metric's reference is the whole train split or held-out images. The held-out split (`evaluation.split`) is halved
    at random for each set of samples, from a fixed seed. One half is the reference. The other half supplies the fresh
    images, which are scored exactly as samples are. Models and bounds are therefore compared with the same references,
    and no image is on both sides.

    Args:
      fields: the fields to read in addition to image and label.
      like: the specification of the samples. Their images may be smaller than those of the data, and all real images
        are reduced to that size.
    """

    def __init__(self, config: Config, quiet: bool, fields: Sequence[str] = (), like: DataSpec | None = None):
        self._config, self._quiet = config, quiet
        builder = opening.open_data(config.data)
        whole = sources.spec_of(builder)
        self.spec = whole if like is None else whole.of_size(like.shape[:2])
        self.resized = self.spec.resized_from(whole)
        self.train, self.split = (
            sources.load(builder, split, fields).resized(self.spec.shape)
            for split in ('train', config.evaluation.split)
        )
        self._suits = features.reference_split(config.evaluation.features.name)
        self.names = scoring.resolve(sample_metrics(config.evaluation.metrics), self._suits)
        if any(self.uses_held_out(name) for name in self.names) and len(self.split) < 4:
            raise UserError(f'The split {config.evaluation.split!r} of {self.spec.name} has {len(self.split)} images; '
                            'a reference of held-out images needs at least 4.')  # fmt: skip

    @functools.cached_property
    def network(self) -> FeatureNetwork:
        return feature_network(self._config, self.spec, self.train, self._quiet)

    @functools.cached_property
    def outputs(self) -> tuple[str, ...]:
        return scoring.needed_outputs(self.names)

    @functools.cached_property
    def reference(self) -> Extracted:
        """The whole train split."""
        return self._train_images.extracted(self.outputs)

    @functools.cached_property
    def held_out(self) -> Extracted:
        """The whole evaluation split."""
        return self._held_out_images.extracted(self.outputs)

    @functools.cached_property
    def _train_images(self) -> RealImages:
        return RealImages(self.network, self.spec, 'train', self.train, self._quiet, self.resized)

    @functools.cached_property
    def _held_out_images(self) -> RealImages:
        split = self._config.evaluation.split
        return RealImages(self.network, self.spec, split, self.split, self._quiet, self.resized)

    def half(self, index: int) -> Extracted:
        """The held-out images that serve as the reference of set `index`."""
        if index not in self._halves:
            self._halves[index] = self.held_out.part(self._order(index)[: len(self.split) // 2])
        return dataclasses.replace(self._halves[index], description=self._half_description)

    @functools.cached_property
    def _halves(self) -> dict[int, Extracted]:
        return {}

    @property
    def _half_description(self) -> dict[str, Any]:
        return {**self._held_out_images.description, 'n': len(self.split) // 2, 'of': len(self.split),
                'drawn': 'a half for each set', 'half_seed': HALF_SEED}  # fmt: skip

    def _order(self, index: int) -> np.ndarray:
        return np.random.Generator(np.random.Philox(key=[HALF_SEED, index])).permutation(len(self.split))

    def num_fresh(self, beside_half: bool) -> int:
        """The largest possible set of fresh held-out images: the whole split, or what remains besides a half."""
        return num_beside(len(self.split)) if beside_half else len(self.split)

    def fresh(self, index: int, count: int, beside_half: bool = True) -> Extracted:
        """Draw `count` held-out images, at most `num_fresh`. Without `beside_half` some may be in `half(index)`."""
        order = np.roll(self._order(index), -(len(self.split) // 2))  # the images of the half come last
        return self.held_out.part(order[: self.num_fresh(beside_half)][:count])

    def fresh_description(self, count: int, beside_half: bool) -> dict[str, Any]:
        """How a protocol describes `fresh`."""
        whole = 'the whole split' if count == len(self.split) else 'without replacement for each set'
        drawn = 'without replacement, for each set from the half beside the reference' if beside_half else whole
        return {**self._held_out_images.description, 'n': count, 'of': len(self.split), 'drawn': drawn,
                'half_seed': HALF_SEED}  # fmt: skip

    def copies_description(self, count: int) -> dict[str, Any]:
        """How a protocol describes `copies`."""
        return {**self._train_images.description, 'n': count, 'of': len(self.train),
                'drawn': 'with replacement, for each set', 'copy_seed': COPY_SEED}  # fmt: skip

    def copies(self, index: int, count: int) -> Extracted:
        """`count` train images drawn with replacement."""
        draw = np.random.Generator(np.random.Philox(key=[COPY_SEED, index]))
        return self.reference.part(draw.choice(len(self.train), count))

    def scenes(self, names: Sequence[str], sets: Sequence[Extracted]) -> dict[str, list[Scene]]:
        """What each metric compares for each set of samples."""
        made: dict[tuple[str, bool], list[Scene]] = {}
        keys = {name: (scoring.against(name, self._suits), self.uses_held_out(name)) for name in names}
        for key in keys.values():
            if key not in made:
                made[key] = [self._scene(*key, index, fake) for index, fake in enumerate(sets)]
        return {name: made[key] for name, key in keys.items()}

    def _scene(self, against: str, uses_held_out: bool, index: int, fake: Extracted) -> Scene:
        held_out = self.half(index) if uses_held_out else None
        reference = self.reference if against == 'train' else held_out
        chosen = self._order(index)[: len(self.split) // 2]
        # A metric of samples alone has no reference.
        return Scene(self.network, reference or fake, held_out, fake, lambda: self._control.part(chosen))

    @functools.cached_property
    def _control(self) -> evaluation.Control:
        """Compare the whole evaluation split with the train split."""
        return evaluation.control(self.reference.outputs['features'], self.held_out.outputs['features'])

    def uses_held_out(self, name: str) -> bool:
        """Whether a metric uses a half of the held-out images, as its reference or in addition to it."""
        return scoring.uses_held_out(name, self._suits)

    def reference_split(self, name: str) -> str:
        """The split that a metric's reference comes from; 'train' also for a metric of samples alone."""
        return self._config.evaluation.split if scoring.against(name, self._suits) == 'held_out' else 'train'

    def protocol(self, name: str) -> dict[str, Any]:
        """The measuring part of a metric's protocol. This computes no features."""
        against_train = scoring.against(name, self._suits) == 'train'
        reference = self._train_images.description if against_train else self._half_description
        return scoring.protocol(name, self.network, reference, self._half_description)

    def extract(self, images: np.ndarray) -> Extracted:
        """Integer images of this data set in feature space."""
        batches = [network_images(images, self.spec, self.network)]
        kept, moments, count, digest = scoring.extract(self.network, batches, self.outputs)
        return Extracted({'images_sha256': digest}, kept, moments, count)

    def extract_sets(self, own: np.ndarray, sets: int) -> list[Extracted]:
        """Disjoint sets of equal size, of the images of all processes in their order; each process has its own."""
        read = network_images(own, self.spec, self.network)
        found = self.network.extract(read, self.outputs) if len(read) else {}
        kept = {name: processes.gathered(found.get(name)) for name in self.outputs}
        count = len(kept[self.outputs[0]])
        whole = Extracted({}, kept, {}, count)
        return [whole.part(chosen) for chosen in np.split(np.arange(count), sets)]

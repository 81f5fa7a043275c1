"""Data sets with captions of several attributes (`data.attributes`), so that it can be measured how samples obey.

`described_digits` has the images of `digits`. `described_fashion_mnist` has those of the prepared `fashion_mnist`.
"""

from collections.abc import Iterator
from typing import Any

import numpy as np
import tensorflow_datasets as tfds

from genbench.data.attributes import DIGITS, FASHION, Template
from genbench.errors import UserError


def _info(builder: Any, shape: tuple[int, int, int], levels: int) -> tfds.core.DatasetInfo:
    image = tfds.features.Tensor(shape=shape, dtype=np.uint8, encoding=tfds.features.Encoding.ZLIB)
    label = tfds.features.ClassLabel(num_classes=10)
    return tfds.core.DatasetInfo(
        builder=builder,
        description=builder.__doc__,
        features=tfds.features.FeaturesDict({'image': image, 'label': label, 'caption': tfds.features.Text()}),
        supervised_keys=('image', 'label'),
        disable_shuffling=True,
        metadata=tfds.core.MetadataDict(levels=levels),
    )


def _rows(template: Template, images: np.ndarray, labels: np.ndarray, train: np.ndarray) -> Iterator[Any]:
    above = template.above(images, template.medians(train))
    for index, label in enumerate(labels):
        told = template.say(int(label), {name: values[index] for name, values in above.items()})
        yield index, {'image': images[index], 'label': int(label), 'caption': told}


class DescribedDigits(tfds.core.GeneratorBasedBuilder):
    """The images of `digits`, each with a caption of its digit, ink, slant and place."""

    VERSION = tfds.core.Version('1.0.0')

    def _info(self) -> tfds.core.DatasetInfo:
        return _info(self, (8, 8, 1), 17)

    def _split_generators(self, dl_manager):
        from sklearn import datasets

        from genbench.data.digits import NUM_TRAIN

        flat, labels = datasets.load_digits(return_X_y=True)
        images = flat.reshape(-1, 8, 8, 1).astype(np.uint8)
        train = images[:NUM_TRAIN]
        parts = {'train': slice(NUM_TRAIN), 'test': slice(NUM_TRAIN, None)}
        return {name: _rows(DIGITS, images[part], labels[part], train) for name, part in parts.items()}

    def _generate_examples(self):
        raise NotImplementedError('the splits make their own rows')


class DescribedFashionMnist(tfds.core.GeneratorBasedBuilder):
    """The images of `fashion_mnist`, each with a caption of what it shows, its brightness and its size."""

    VERSION = tfds.core.Version('1.0.0')

    def _info(self) -> tfds.core.DatasetInfo:
        return _info(self, (28, 28, 1), 256)

    def _split_generators(self, dl_manager):
        parts = {name: self._plain(name) for name in ('train', 'test')}
        train = parts['train'][0]
        return {name: _rows(FASHION, images, labels, train) for name, (images, labels) in parts.items()}

    def _plain(self, split: str) -> tuple[np.ndarray, np.ndarray]:
        """Images and labels of a split of the set without captions, in the same folder or in the usual one."""
        from genbench.data import sources

        for folder in (str(self.data_path.parent.parent), ''):
            try:
                found = sources.load(sources.open_builder('fashion_mnist', folder), split)
            except UserError:
                continue
            return found.images, found.labels
        raise UserError('described_fashion_mnist is made from fashion_mnist. Run: genbench data prepare fashion_mnist')

    def _generate_examples(self):
        raise NotImplementedError('the splits make their own rows')

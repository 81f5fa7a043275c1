"""`digits`: the 1,797 handwritten 8×8 digits that come with scikit-learn, as a TFDS builder that needs no TensorFlow.

The first 1,437 are train and the last 360 test; the two parts have different writers. Pixels are counts from 0 to 16.
Captions say of each image which digit it is and how much ink it has: 'a bold seven', 'a thin three'.
Source: E. Alpaydin and C. Kaynak, Optical Recognition of Handwritten Digits, UCI 1998, test part.
"""

import numpy as np
import tensorflow_datasets as tfds

NUM_TRAIN = 1437
NAMES = ('zero', 'one', 'two', 'three', 'four', 'five', 'six', 'seven', 'eight', 'nine')


class Digits(tfds.core.GeneratorBasedBuilder):
    """8×8 grey images with 17 levels, ten labels and twenty captions."""

    VERSION = tfds.core.Version('1.1.0')
    RELEASE_NOTES = {
        '1.0.0': 'scikit-learn digits, first 1,437 train, last 360 test.',
        '1.1.0': 'The same images and labels in the same order, and captions.',
    }

    def _info(self) -> tfds.core.DatasetInfo:
        return tfds.core.DatasetInfo(
            builder=self,
            description=__doc__,
            features=tfds.features.FeaturesDict(
                {
                    'image': tfds.features.Tensor(
                        shape=(8, 8, 1), dtype=np.uint8, encoding=tfds.features.Encoding.ZLIB
                    ),
                    'label': tfds.features.ClassLabel(num_classes=10),
                    'caption': tfds.features.Text(),
                }
            ),
            supervised_keys=('image', 'label'),
            disable_shuffling=True,
            metadata=tfds.core.MetadataDict(levels=17),
            homepage='https://archive.ics.uci.edu/dataset/80',
        )

    def _split_generators(self, dl_manager):
        return {'train': self._generate_examples(0, NUM_TRAIN), 'test': self._generate_examples(NUM_TRAIN, None)}

    def _generate_examples(self, start, stop):
        from sklearn import datasets

        images, labels = datasets.load_digits(return_X_y=True)
        ink = images.sum(1)
        bold = ink > np.median(ink[:NUM_TRAIN])
        for index in range(start, stop or len(images)):
            image, label = images[index].reshape(8, 8, 1).astype(np.uint8), int(labels[index])
            caption = f'a {"bold" if bold[index] else "thin"} {NAMES[label]}'
            yield index, {'image': image, 'label': label, 'caption': caption}

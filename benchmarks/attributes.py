"""How well models obey each part of captions with several attributes, against the weight of guidance.

    python benchmarks/attributes.py runs/described
    python benchmarks/attributes.py runs/fashion_captions --count=4

The tables are part of docs/text.md. Captions are those that at least `--often` train images have. For each, the same
number of images is drawn. Which class an image shows is what a support vector machine says, which is fitted to at most
10,000 train images; every attribute is measured on the image by the rule that made the captions (`data.attributes`).
The row `real test images` puts the test images and their own captions in place of samples, so that its errors are those
of the classifier. The sampler is the first one of each run's config. Each caption has noise of its own, from the seeds
`--seed`, `--seed` + 1, ….
"""

import argparse
import collections
import pathlib
from collections.abc import Sequence

import numpy as np
from sklearn.svm import SVC

from genbench.data import opening, sources
from genbench.data.attributes import DIGITS, FASHION
from genbench.evaluation import statistics
from genbench.evaluation.draw import Source

WEIGHTS = (0.0, 1.0, 3.0)
TEMPLATES = {'described_digits': DIGITS, 'described_fashion_mnist': FASHION}
FITTED = 10_000


class Judge:
    """Says which class images show, and which attributes they have.

    Args:
      data: the section `data` of a run's config.
    """

    def __init__(self, data):
        self.template = TEMPLATES[data.name]
        builder = opening.open_data(data)
        train, self.test = sources.load(builder, 'train'), sources.load(builder, 'test')
        self._most, self._medians = train.images.max(), self.template.medians(train.images)
        self._svc = SVC(C=10).fit(self._flat(train.images[:FITTED]), train.labels[:FITTED])
        above = self.attributes(train.images)
        self.often = collections.Counter(zip(train.labels.tolist(), map(tuple, above.tolist()), strict=True))

    def _flat(self, images: np.ndarray) -> np.ndarray:
        return images.reshape(len(images), -1) / self._most

    def attributes(self, images: np.ndarray) -> np.ndarray:
        """Which attributes are above the medians of the train split, (n, attributes)."""
        return np.stack([*self.template.above(images, self._medians).values()], axis=1)

    def obeyed(self, images: np.ndarray, label, above) -> np.ndarray:
        """Whether the class and each attribute (n, 1 + attributes) of these images are the given ones."""
        right = self._svc.predict(self._flat(images)) == label
        return np.concatenate([right[:, None], self.attributes(images) == above], axis=1)

    def said(self, label: int, above: Sequence[bool]) -> str:
        return self.template.say(label, dict(zip(self.template.attributes, above, strict=True)))


def row(name: str, weight: str, obeyed: np.ndarray) -> str:
    """The shares of images that obey in each part and in all, with an exact 95% interval for independent images."""
    hits, count = int(obeyed.all(1).sum()), len(obeyed)
    low, high = statistics.binomial(hits, count)
    parts = ' | '.join(f'{share:.1%}' for share in obeyed.mean(0))
    return f'| {name} | {weight} | {parts} | {hits / count:.1%} [{100 * low:.1f}, {100 * high:.1f}] |'


def main(words: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('runs', nargs='+', help='folders of runs whose data set is a described one')
    parser.add_argument('--count', type=int, default=8, help='images for each caption')
    parser.add_argument('--often', type=float, default=0.01, help='the least share of train images with a caption')
    parser.add_argument('--weights', type=float, nargs='+', default=WEIGHTS)
    parser.add_argument('--seed', type=int, default=0)
    options = parser.parse_args(words)
    for run in options.runs:
        source, name = Source(run), pathlib.Path(run).name
        judge = Judge(source.family.config.data)
        print(f'| model | guidance | class | {" | ".join(judge.template.attributes)} | all |')
        print('|---' * (4 + len(judge.template.attributes)) + '|')
        test = judge.test
        print(row('real test images', '', judge.obeyed(test.images, test.labels, judge.attributes(test.images))))
        least = options.often * sum(judge.often.values())
        asked = sorted(one for one, times in judge.often.items() if times >= least)
        for weight in options.weights:
            found = []
            for number, (label, above) in enumerate(asked):
                sampler = f'{source.family.config.evaluation.samplers[0]}:guidance={weight}'
                said = [f'caption={judge.said(label, above)}']
                drawn = source.draw(options.count, sampler, options.seed + number, said)
                found.append(judge.obeyed(drawn.images, label, above))
            print(row(name, f'{weight:g}', np.concatenate(found)), flush=True)
        print(f'{len(asked)} captions.')


if __name__ == '__main__':
    main()

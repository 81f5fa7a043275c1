"""How well models of digits obey captions, against the weight of guidance.

    python benchmarks/captions.py runs/captions runs/captions_transformer runs/mmdit

The table is part of docs/text.md. For each of the twenty captions of digits the same number of images is drawn. Which
digit an image shows is what scikit-learn's SVC (gamma 0.001, C 10) says, which is fitted to the train split; it is bold
if it has more ink than the median train image, which is the rule that made the captions. The row `real` puts the test
split's own images and captions in place of samples, so that its errors are those of the SVC. The sampler is the first
one of each run's config. Each caption has noise of its own, from the seeds `--seed`, `--seed` + 1, ….
"""

import argparse
import itertools
import pathlib
from collections.abc import Sequence

import numpy as np
from sklearn.datasets import load_digits
from sklearn.svm import SVC

from genbench.data.digits import NAMES, NUM_TRAIN
from genbench.evaluation import statistics
from genbench.evaluation.draw import Source

WEIGHTS = (0.0, 0.5, 1.0, 1.5, 3.0, 6.0)


class Judge:
    """Says which digit an image of 17 levels shows, and whether it is bold."""

    def __init__(self) -> None:
        pictures, self.labels = load_digits(return_X_y=True)
        self.pictures = pictures
        self._svc = SVC(gamma=0.001, C=10).fit(pictures[:NUM_TRAIN], self.labels[:NUM_TRAIN])
        self._ink = np.median(pictures[:NUM_TRAIN].sum(1))

    def obeyed(self, images: np.ndarray, digit: np.ndarray | int, bold: np.ndarray | bool) -> np.ndarray:
        """Whether the digit and the ink (n, 2) of these images (n, …) are the given ones."""
        flat = images.reshape(len(images), -1).astype(float)
        return np.stack([self._svc.predict(flat) == digit, self.bold(flat) == bold], axis=1)

    def bold(self, flat: np.ndarray) -> np.ndarray:
        return flat.sum(1) > self._ink


def row(name: str, weight: str, obeyed: np.ndarray, worst: str = '') -> str:
    """The shares of images with the right digit, the right ink and both.

    The last has an exact 95% interval for independent images (Clopper & Pearson 1934). It is wide enough for captions
    that are obeyed to different degrees.
    """
    digit, ink = obeyed.mean(0)
    hits, count = int(obeyed.all(1).sum()), len(obeyed)
    low, high = statistics.binomial(hits, count)
    shares = f'{digit:.1%} | {ink:.1%} | {hits / count:.1%} [{100 * low:.1f}, {100 * high:.1f}]'
    return f'| {name} | {weight} | {shares} | {worst} |'


def main(words: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('runs', nargs='+', help='folders of runs whose model takes captions of digits')
    parser.add_argument('--count', type=int, default=32, help='images for each caption')
    parser.add_argument('--weights', type=float, nargs='+', default=WEIGHTS)
    parser.add_argument('--digits', type=int, nargs='+', default=range(10))
    parser.add_argument('--seed', type=int, default=0)
    parser.add_argument('--negative', action='store_true',
                        help='guide away from the caption with the other ink; each one compiles anew')  # fmt: skip
    options = parser.parse_args(words)
    judge = Judge()
    real = slice(NUM_TRAIN, None)
    flat = judge.pictures[real]
    print('| model | guidance | digit | ink | both | worst caption |\n|---|---|---|---|---|---|')
    print(row('real test images', '', judge.obeyed(flat, judge.labels[real], judge.bold(flat))))
    for run in options.runs:
        source, name = Source(run), pathlib.Path(run).name
        for weight in options.weights:
            found = {}
            for number, (digit, bold) in enumerate(itertools.product(options.digits, (False, True))):
                said, other = (f'a {ink} {NAMES[digit]}' for ink in (('thin', 'bold')[bold], ('bold', 'thin')[bold]))
                away = f',negative=caption={other}' if options.negative and weight else ''
                sampler = f'{source.family.config.evaluation.samplers[0]}:guidance={weight}{away}'
                drawn = source.draw(options.count, sampler, options.seed + number, [f'caption={said}'])
                found[said] = judge.obeyed(drawn.images, digit, bold)
            share, worst = min((one.all(1).mean(), said) for said, one in found.items())
            told = f'{worst}: {share:.0%}' if share < 1 else ''
            print(row(name, f'{weight:g}', np.concatenate([*found.values()]), told), flush=True)


if __name__ == '__main__':
    main()

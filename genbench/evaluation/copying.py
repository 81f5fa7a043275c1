"""Detect copies of train images among samples: nearest neighbours in feature space, with held-out images as control."""

import dataclasses

import numpy as np

from genbench.evaluation import neighbours
from genbench.evaluation.arrays import checked_sets

FALSE_ALARMS = 0.01  # share of held-out images that the threshold counts as copies


@dataclasses.dataclass(frozen=True, eq=False)
class Memorisation:
    """What the nearest train images show about n samples.

    Attributes:
      nearest: index of each sample's nearest train image (n,).
      distance: the distance to it (n,), 0 for a copy.
      ratio: that distance divided by the distance from this train image to its own nearest train image (n,).
      flagged: samples whose ratio is so small that only 1% of the held-out images have one as small (n,).
      copied: the share of flagged samples; about 0.01 for fresh draws from the data's distribution.
      authenticity: share of samples with a ratio above 1 (Alaa et al. 2022, section 3.3).
      held_out_authenticity: the same for the held-out images, as fresh draws would give.
      train_test_gap: compares how far samples and held-out images lie from the train images, as the standard score of
        the Mann-Whitney statistic (Meehan et al. 2020, section 3, in one cell). About N(0, 1) for fresh draws, far
        below 0 for copies, far above 0 for samples that miss the data.
    """

    nearest: np.ndarray
    distance: np.ndarray
    ratio: np.ndarray
    flagged: np.ndarray
    copied: float
    authenticity: float
    held_out_authenticity: float
    train_test_gap: float


@dataclasses.dataclass(frozen=True, eq=False)
class Control:
    """What the nearest train images show about m held-out images; `distance` and `ratio` (m,) as for samples."""

    distance: np.ndarray
    ratio: np.ndarray

    def part(self, chosen: np.ndarray) -> 'Control':
        """The held-out images of these indices."""
        return Control(self.distance[chosen], self.ratio[chosen])


def control(train: np.ndarray, test: np.ndarray) -> Control:
    """Compare held-out images (m, d) with train images (N, d), in features. One pass serves every set of samples."""
    points, tests = neighbours.centred(*checked_sets(train=train, test=test))
    return Control(*_to_train(points, tests)[1:])


def memorisation(train: np.ndarray, test: np.ndarray, fake: np.ndarray, known: Control | None = None) -> Memorisation:
    """Compare samples with the images a model was trained on, with held-out images as a control.

    Args:
      train: features (N, d) of the train images.
      test: features (m, d) of real images that the model has not seen.
      fake: features (n, d) of samples.
      known: `control(train, test)`, if it has already been computed.

    Raises:
      UserError: fewer than two images in a set, sets of different width, or values that are not finite.
    """
    train, test, fake = checked_sets(train=train, test=test, fake=fake)
    held_out = control(train, test) if known is None else known
    found, distance, ratio = _to_train(*neighbours.centred(train, fake))
    flagged = ratio <= np.quantile(held_out.ratio, FALSE_ALARMS, method='lower')
    return Memorisation(
        found, distance, ratio, flagged, float(flagged.mean()), float((ratio > 1).mean()),
        float((held_out.ratio > 1).mean()), _standard_score(distance, held_out.distance),
    )  # fmt: skip


def _to_train(points: neighbours.Centred, images: neighbours.Centred) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(index of the nearest train image, distance to it, ratio) of each image."""
    found, distance = neighbours.nearest(images, points)
    needed, place = np.unique(found, return_inverse=True)
    spacing = neighbours.nearest(points.at(needed), points, own=needed)[1]
    return found, distance, _ratio(distance, spacing[place])


def _ratio(distance: np.ndarray, spacing: np.ndarray) -> np.ndarray:
    """A copy has ratio 0, even if the train image occurs twice."""
    with np.errstate(divide='ignore', invalid='ignore'):
        return np.where(distance == 0, 0.0, distance / spacing)


def _standard_score(x: np.ndarray, y: np.ndarray) -> float:
    """Standardise the count of values of x above values of y (ties count half): subtract its mean, divide by its sd."""
    from scipy.stats import rankdata

    n, m = len(x), len(y)
    above = rankdata(np.concatenate([x, y]))[:n].sum() - n * (n + 1) / 2
    return float((above - n * m / 2) / np.sqrt(n * m * (n + m + 1) / 12))

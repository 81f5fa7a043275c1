"""Classifier scores of samples: which classes a classifier sees in them, and whether it tells them from real ones."""

import dataclasses

import numpy as np
from scipy import special

from genbench.evaluation import statistics
from genbench.evaluation.arrays import checked, checked_sets


def inception_score(logits: np.ndarray, splits: int = 10, seed: int | None = 0) -> tuple[float, float]:
    """Return exp E KL(p(class | image) ‖ p(class)) of logits (n, classes): mean and standard deviation over splits.

    Salimans et al. 2016, section 4. It is called Inception Score only with the logits of the 2015 Inception.

    Args:
      splits: number of parts, each of nearly n / splits rows and with its own p(class).
      seed: of the shuffle before the split; None keeps the order.

    Raises:
      UserError: there are fewer rows than splits, or values are not finite.
    """
    logits = checked(logits, 'logits', splits)
    n = len(logits)
    order = np.arange(n) if seed is None else np.random.Generator(np.random.Philox(seed)).permutation(n)
    scores = []
    for part in range(splits):
        chosen = logits[order[part * n // splits : (part + 1) * n // splits]]
        given = special.softmax(chosen.astype(np.float64), axis=1)
        scores.append(np.exp(special.rel_entr(given, given.mean(0)).sum(1).mean()))
    return float(np.mean(scores)), float(np.std(scores))


def class_distance(real: np.ndarray, fake: np.ndarray) -> tuple[float, dict[str, list[float]]]:
    """Total variation ½ Σ |p − q| between the shares of classes that a classifier sees in two sets, and both shares.

    0 if the shares agree, 1 if the sets have no class in common. Sets of n images of one distribution with equal
    shares of C classes are about √((C − 1) / (π n)) apart.

    Args:
      real, fake: logits (n, classes) and (m, classes). The class of an image is that of its largest logit.

    Raises:
      UserError: an empty set, sets of different width, or values that are not finite.
    """
    real, fake = checked_sets(1, real=real, fake=fake)
    p, q = (np.bincount(logits.argmax(1), minlength=logits.shape[1]) / len(logits) for logits in (real, fake))
    return float(np.abs(p - q).sum() / 2), {'real_classes': p.tolist(), 'classes': q.tolist()}


@dataclasses.dataclass(frozen=True)
class TwoSample:
    """Accuracy of a detector on n images it was not fitted to, with its 95% interval; 0.5 is chance."""

    accuracy: float
    low: float
    high: float
    n: int


def two_sample_test(real: np.ndarray, fake: np.ndarray, seed: int = 0) -> TwoSample:
    """Test how well a small detector tells samples from held-out real images (Lopez-Paz & Oquab 2017, section 3).

    The seed draws equally many images of each kind, as many as the smaller set has. One half of them fits an
    L2-regularised logistic regression on the standardised features and their squares, which is the best detector
    between two axis-aligned Gaussians. The other half is classified. As these images are independent of the fit, the
    interval is binomial (Clopper & Pearson 1934).

    Args:
      real: features (n, d) of images that the samples' model was not trained on.
      fake: features (m, d) of samples.

    Raises:
      UserError: fewer than four images in a set, sets of different width, or values that are not finite.
    """
    from sklearn.linear_model import LogisticRegression

    real, fake = checked_sets(4, real=real, fake=fake)
    draw, size = np.random.Generator(np.random.Philox(seed)), min(len(real), len(fake))
    chosen = [points[draw.permutation(len(points))[:size]] for points in (real, fake)]
    half = size // 2
    fitted = np.concatenate([points[:half] for points in chosen])
    scored = np.concatenate([points[half:] for points in chosen])
    mean, scale = fitted.mean(0, dtype=np.float64), fitted.std(0, dtype=np.float64)
    scale[scale == 0] = 1

    def inputs(points: np.ndarray) -> np.ndarray:
        standard = (points - mean) / scale
        return np.hstack([standard, np.square(standard)])

    detector = LogisticRegression(C=0.1, max_iter=1000).fit(inputs(fitted), np.repeat([0, 1], half))
    n = len(scored)
    right = int((detector.predict(inputs(scored)) == np.repeat([0, 1], size - half)).sum())
    return TwoSample(right / n, *statistics.binomial(right, n), n)

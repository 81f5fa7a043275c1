"""Distances between two feature distributions: Fréchet, Fréchet extrapolated to n = ∞, and kernel.

They are called FID and KID only with the features of the 2015 Inception network.
"""

from typing import NamedTuple

import numpy as np
from scipy.linalg import lapack

from genbench.errors import UserError
from genbench.evaluation.arrays import LARGEST, check_range, checked, checked_sets

BLOCK = 1024  # rows to process at a time for moments
ROUNDING = 1e-5  # relative to the largest entry, for a covariance stored in float32


class Moments:
    """Accumulates the mean and covariance of features that arrive in batches, in float64.

    Rows are centred on the first row, and scatter matrices about their own means are merged (Chan, Golub & LeVeque
    1979), so an offset loses no digits. Blocks have a fixed size: the same rows in the same order give the same bits,
    however they were batched.
    """

    def __init__(self, d: int):
        self.count = 0
        self._origin = np.zeros(d)
        self._mean, self._scatter = np.zeros(d), np.zeros((d, d))
        self._block, self._waiting = np.empty((BLOCK, d)), 0

    def add(self, batch: np.ndarray) -> None:
        """Add a batch (m, d), m ≥ 1.

        Raises:
          UserError: the number of features changed, or values are not finite.
        """
        batch = checked(batch, 'features', 1)
        if batch.shape[1] != len(self._mean):
            raise UserError(f'These moments have {len(self._mean)} features, but the batch has {batch.shape[1]}.')
        if not self.count:
            self._origin = batch[0].astype(np.float64)
        while len(batch):
            taken, batch = np.split(batch, [BLOCK - self._waiting])
            self._block[self._waiting : self._waiting + len(taken)] = taken - self._origin
            self._waiting += len(taken)
            self.count += len(taken)
            if self._waiting == BLOCK:
                self._mean, self._scatter = self._merged()
                self._waiting = 0

    def result(self) -> tuple[np.ndarray, np.ndarray]:
        """Return the mean (d,) and covariance (d, d), with ddof = 1, of all rows so far. More rows may be added later.

        Raises:
          UserError: fewer than two rows.
        """
        return pooled(*(np.asarray(part)[None] for part in self.parts()))

    def parts(self) -> tuple[int, np.ndarray, np.ndarray]:
        """Number, mean (d,) and scatter matrix (d, d) of the rows so far, for `pooled`."""
        mean, scatter = self._merged()
        return self.count, self._origin + mean, scatter

    def _merged(self) -> tuple[np.ndarray, np.ndarray]:
        """Return the mean, from the origin, and the scatter matrix, including the waiting rows."""
        rows, before = self._block[: self._waiting], self.count - self._waiting
        if not len(rows):
            return self._mean, self._scatter
        mean = rows.mean(0)
        shift = mean - self._mean
        between = np.sqrt(before * len(rows) / self.count) * shift
        spread = np.vstack([rows - mean, between])
        return self._mean + shift * (len(rows) / self.count), self._scatter + spread.T @ spread


def pooled(counts: np.ndarray, means: np.ndarray, scatters: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean (d,) and covariance (d, d) of all rows, of which there are k disjoint parts.

    Args:
      counts: (k,) rows of each part.
      means: (k, d).
      scatters: (k, d, d), Σ (x − mean)(x − mean)ᵀ over the rows of each part.

    Raises:
      UserError: fewer than two rows.
    """
    if (total := int(counts.sum())) < 2:
        raise UserError(f'A covariance needs at least 2 rows of features; there are {total}.')
    shifts = means - means[0]  # so that an offset does not cost precision
    mean = counts @ shifts / total
    between = (shifts - mean).T * counts @ (shifts - mean)
    return means[0] + mean, (scatters.sum(0) + between) / (total - 1)


def moments(features: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the mean (d,) and covariance (d, d), with ddof = 1, of features (n, d), n ≥ 2, in float64."""
    features = checked(features, 'features')
    total = Moments(features.shape[1])
    total.add(features)
    return total.result()


class _Factored(NamedTuple):
    """Moments and the Cholesky factor of Σ[order][:, order]; columns past the rank hold only rounding."""

    mu: np.ndarray
    sigma: np.ndarray
    lower: np.ndarray
    order: np.ndarray
    rank: int


def frechet_distance(mu1: np.ndarray, sigma1: np.ndarray, mu2: np.ndarray, sigma2: np.ndarray) -> float:
    """‖μ₁ − μ₂‖² + Tr Σ₁ + Tr Σ₂ − 2 Tr (Σ₁Σ₂)^½ (Heusel et al. 2017, equation 6), without an epsilon.

    With Σ₁ = LLᵀ, the non-zero eigenvalues of Σ₁Σ₂ are those of the symmetric matrix LᵀΣ₂L; there are as many as the
    smaller rank. This needs no general matrix root, and covariances of fewer rows than features are not a special case.

    Raises:
      UserError: means are not (d,), covariances are not (d, d), or `check_moments` refuses them.
    """
    return _frechet(_factored(mu1, sigma1), _factored(mu2, sigma2))


def fd_infinity(
    reference_moments: tuple[np.ndarray, np.ndarray],
    features: np.ndarray,
    *,
    points: int = 15,
    least: int | None = None,
    seed: int = 0,
) -> tuple[float, float]:
    """Return the Fréchet distance extrapolated to infinitely many samples, and the standard error of the intercept.

    Chong & Forsyth 2020, section 3: the bias of the distance of N samples is linear in 1/N, so a line through the
    distances of `points` random subsets is read at 1/N = 0. The subsets overlap, so the error says how well the line
    fits, not how much the value varies between sample sets. The bias of the reference remains.

    Args:
      reference_moments: (mean, covariance) of the reference.
      features: (n, d) of the samples.
      points: how many subsets, of sizes evenly spaced from `least` to n.
      least: the smallest subset; by default n / 10 as in the paper, or 2 d if n allows, because the bias is not yet
        linear while N is below d.

    Raises:
      UserError: fewer than three sizes to fit a line through.
    """
    features = checked(features, 'features')
    n, d = features.shape
    least = least or max(2, n // 10, min(2 * d, n // 2))
    sizes = np.unique(np.linspace(min(max(least, 2), n), n, points).astype(int))
    if len(sizes) < 3:
        raise UserError(f'The extrapolation needs at least 3 sizes between {least} and {n} images; '
                        f'there are {len(sizes)}. Use more images, or a smaller least.')  # fmt: skip
    reference = _factored(*reference_moments)
    draw = np.random.Generator(np.random.Philox(seed))
    values = [_frechet(reference, _factored(*_moments_of(features, draw.permutation(n)[:size]))) for size in sizes]
    (_, intercept), covariance = np.polyfit(1 / sizes, values, 1, cov=True)
    return float(intercept), float(np.sqrt(covariance[1, 1]))


def _moments_of(features: np.ndarray, chosen: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    total = Moments(features.shape[1])
    for start in range(0, len(chosen), BLOCK):
        total.add(features[chosen[start : start + BLOCK]])
    return total.result()


def _frechet(first: _Factored, second: _Factored) -> float:
    if len(first.mu) != len(second.mu):
        raise UserError(f'The moments have different numbers of features: {len(first.mu)} and {len(second.mu)}. '
                        'Use the same network for both.')  # fmt: skip
    shift, traces = first.mu - second.mu, np.trace(first.sigma) + np.trace(second.sigma)
    by, other = (first, second) if first.rank < second.rank else (second, first)
    permuted = np.asfortranarray(other.sigma[np.ix_(by.order, by.order)])
    product, _ = lapack.dsygst(permuted, by.lower, itype=2, lower=1, overwrite_a=1)  # the lower half of LᵀΣL
    squared = np.linalg.eigvalsh(product[: by.rank, : by.rank])
    return float(shift @ shift + traces - 2 * np.sqrt(np.maximum(squared, 0)).sum())


def _factored(mu: np.ndarray, sigma: np.ndarray) -> _Factored:
    mu, sigma = np.asarray(mu, np.float64), np.asarray(sigma, np.float64)
    if mu.ndim != 1 or sigma.shape != (len(mu), len(mu)):
        raise UserError(f'Moments are a mean (d,) and a covariance (d, d); these have the shapes {mu.shape} and '
                        f'{sigma.shape}.')  # fmt: skip
    check_moments(mu, sigma)
    lower, pivots, rank, _ = lapack.dpstrf(sigma, lower=1)
    return _Factored(mu, sigma, lower, pivots - 1, rank)


def check_moments(mu: np.ndarray, sigma: np.ndarray) -> None:
    """Refuse a mean (d,) and covariance (d, d) that no set of features can have. No eigenvalues are computed.

    Raises:
      UserError: values that are not finite or beyond ±1e45 (its square in the covariance), a covariance that is not
        symmetric, or one that is larger than its variances allow.
    """
    check_range('The mean of the moments', mu, LARGEST)
    check_range('The covariance of the moments', sigma, LARGEST**2)
    variances = np.diag(sigma)
    slack = ROUNDING * np.abs(sigma).max()
    if np.abs(sigma - sigma.T).max() > slack:
        raise UserError('The covariance of the moments is not symmetric.')
    if variances.min() < -slack:
        raise UserError(f'The covariance of the moments has a negative variance, {variances.min():.3g}.')
    deviations = np.sqrt(np.maximum(variances, 0))
    if (np.abs(sigma) - np.outer(deviations, deviations)).max() > slack:
        raise UserError('The covariance of the moments implies correlations beyond ±1.')


def kernel_distance(
    x: np.ndarray, y: np.ndarray, *, subsets: int = 100, subset_size: int = 1000, seed: int = 0
) -> tuple[float, float]:
    """Return the mean and standard deviation of `squared_mmd` over random subsets (Bińkowski et al. 2018, section 4).

    If the smaller set has fewer than `subset_size` rows, subsets are as large as it. Subsets overlap, so their spread
    is not a standard error.
    """
    x, y = checked_sets(x=x, y=y)
    size = min(subset_size, len(x), len(y))
    if size == len(x) == len(y):
        return _mmd(x, y), 0.0  # every subset is the whole set
    draw = np.random.Generator(np.random.Philox(seed))
    values = [
        _mmd(x[draw.choice(len(x), size, replace=False)], y[draw.choice(len(y), size, replace=False)])
        for _ in range(subsets)
    ]
    return float(np.mean(values)), float(np.std(values))


def squared_mmd(x: np.ndarray, y: np.ndarray) -> float:
    """The unbiased squared MMD of (n, d) and (m, d) with kernel (x·y / d + 1)³ (Bińkowski et al. 2018, eq. 4)."""
    return _mmd(*checked_sets(x=x, y=y))


def _mmd(x: np.ndarray, y: np.ndarray) -> float:
    n, m = len(x), len(y)
    both = np.concatenate([x, y], dtype=np.float64)
    base = both @ both.T
    base /= both.shape[1]
    base += 1
    kernel = base * base  # ten times as fast as numpy's power
    kernel *= base
    np.fill_diagonal(kernel, 0)
    within = kernel[:n, :n].sum() / (n * (n - 1)) + kernel[n:, n:].sum() / (m * (m - 1))
    return float(within - 2 * kernel[:n, n:].mean())

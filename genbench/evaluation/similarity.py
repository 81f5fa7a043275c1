"""How close images are to others, pixel by pixel and window by window."""

import numpy as np

from genbench.errors import UserError

WINDOW = 7  # side of the windows of `ssim`


def psnr(x: np.ndarray, y: np.ndarray, peak: float = 255.0) -> np.ndarray:
    """10 log₁₀ peak² / mean (x − y)², in decibels, for each image (n, height, width, channels); infinite for equals.

    Args:
      peak: the distance between the darkest and the brightest value.
    """
    squared = np.square(np.asarray(x, float) - y).mean((1, 2, 3))
    with np.errstate(divide='ignore'):
        return 10 * np.log10(peak**2 / squared)


def ssim(x: np.ndarray, y: np.ndarray, peak: float = 255.0) -> np.ndarray:
    """Structural similarity of each image (n, height, width, channels), at most 1 (Z. Wang et al. 2004, equation 13).

    Windows are squares of seven pixels with even weights, as by default in scikit-image; the paper's are Gaussian.
    Windows lie inside the image, covariances are those of samples, and channels are averaged.

    Raises:
      UserError: the images are smaller than a window.
    """
    if min(x.shape[1:3]) < WINDOW:
        raise UserError(f'SSIM needs images of at least {WINDOW} pixels a side; these have {x.shape[1]}×{x.shape[2]}.')
    view = np.lib.stride_tricks.sliding_window_view
    one, other = (view(np.asarray(values, float), (WINDOW, WINDOW), (1, 2)) for values in (x, y))
    first, second, count = one.mean((-2, -1)), other.mean((-2, -1)), WINDOW**2
    spare = count / (count - 1)
    variances = spare * ((one**2).mean((-2, -1)) - first**2 + (other**2).mean((-2, -1)) - second**2)
    covariance = spare * ((one * other).mean((-2, -1)) - first * second)
    c1, c2 = (0.01 * peak) ** 2, (0.03 * peak) ** 2
    found = (2 * first * second + c1) * (2 * covariance + c2) / ((first**2 + second**2 + c1) * (variances + c2))
    return found.mean((1, 2, 3))

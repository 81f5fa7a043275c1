"""Resizing as two matrix products, one for rows and one for columns, by the rules that published metrics use.

A rule is a function (inputs, outputs) → matrix (outputs, inputs): output pixel i is row i times the input pixels.
"""

import jax
import jax.numpy as jnp
import numpy as np

Array = jax.Array

PRECISION_BITS = 22  # of Pillow's fixed-point weights for 8-bit images


def tf1_bilinear(inputs: int, outputs: int) -> np.ndarray:
    """TensorFlow 1's rule: output i reads at i · inputs / outputs, without half-pixel centres."""
    return _linear(np.arange(outputs, dtype=np.float32) * (np.float32(inputs) / np.float32(outputs)), inputs)


def half_pixel_bilinear(inputs: int, outputs: int) -> np.ndarray:
    """PyTorch's rule with align_corners=False: output i reads at (i + ½) · inputs / outputs − ½, without antialias."""
    return _linear(np.maximum(_half_pixel(outputs, np.float32(inputs) / np.float32(outputs)), 0), inputs)


def _half_pixel(outputs: int, scale: np.float32) -> np.ndarray:
    """(i + ½) · scale − ½ as PyTorch has it: in float32, product and difference rounded once (a fused multiply-add).

    In float64 positions would be up to 1e-4 of a pixel elsewhere, and the pixels up to 0.01 of 255.
    """
    return ((np.arange(outputs) + 0.5) * float(scale) - 0.5).astype(np.float32)


def _linear(positions: np.ndarray, inputs: int) -> np.ndarray:
    """Interpolation between the two pixels beside each position; past the border stands the border's pixel."""
    low = positions.astype(np.int64)
    fraction = positions.astype(np.float64) - low
    matrix = np.zeros((len(positions), inputs))
    rows = np.arange(len(positions))
    np.add.at(matrix, (rows, low), 1 - fraction)
    np.add.at(matrix, (rows, np.minimum(low + 1, inputs - 1)), fraction)
    return matrix


def pillow_bicubic(inputs: int, outputs: int) -> np.ndarray:
    """Pillow's rule: a cubic with a = −½ that widens when it shrinks an image, cut and normalised at the border."""
    scale = inputs / outputs
    centres = (np.arange(outputs)[:, None] + 0.5) * scale
    weights = _cubic((np.arange(inputs) + 0.5 - centres) / max(scale, 1.0), -0.5)
    return weights / weights.sum(1, keepdims=True)


def torch_bicubic(inputs: int, outputs: int, scale: float) -> np.ndarray:
    """PyTorch's rule for a given scale factor: a cubic with a = −¾ that reads the border's pixel past the border."""
    centres = _half_pixel(outputs, np.float32(1 / scale)).astype(np.float64)
    matrix, rows = np.zeros((outputs, inputs)), np.arange(outputs)
    for shift in (-1, 0, 1, 2):
        read = np.floor(centres).astype(np.int64) + shift
        np.add.at(matrix, (rows, np.clip(read, 0, inputs - 1)), _cubic(centres - read, -0.75))
    return matrix


def _cubic(x: np.ndarray, a: float) -> np.ndarray:
    """The convolution kernel of Keys 1981, equation 4 for a = −½."""
    x = np.abs(x)
    near, far = ((a + 2) * x - (a + 3)) * x * x + 1, (((x - 5) * x + 8) * x - 4) * a
    return np.where(x < 1, near, np.where(x < 2, far, 0.0))


def resample(images: Array, rows: np.ndarray, columns: np.ndarray) -> Array:
    """Images (batch, height, width, channels) float32 → (batch, len(rows), len(columns), channels)."""
    if rows.shape[0] != rows.shape[1]:
        images = jnp.einsum('yh,nhwc->nywc', rows.astype(np.float32), images)
    if columns.shape[0] != columns.shape[1]:
        images = jnp.einsum('xw,nywc->nyxc', columns.astype(np.float32), images)
    return images


def resample_8bit(images: Array, rows: np.ndarray, columns: np.ndarray) -> Array:
    """As Pillow resizes 8-bit images, bit for bit: columns first, each pass in fixed point and rounded to 0 … 255."""
    for equation, matrix in (('xw,nhwc->nhxc', columns), ('yh,nhxc->nyxc', rows)):
        fixed = np.trunc(matrix * 2**PRECISION_BITS + np.copysign(0.5, matrix)).astype(np.int32)
        sums = jnp.einsum(equation, fixed, images.astype(jnp.int32)) + 2 ** (PRECISION_BITS - 1)
        images = jnp.clip(sums >> PRECISION_BITS, 0, 255)
    return images

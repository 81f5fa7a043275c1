"""Layers with equalised learning rates, and modulated convolutions.

T. Karras et al., Progressive Growing of GANs, 2018, sections 3 and 4.1 (minibatch standard deviation, equalised
rates); T. Karras et al., Analyzing and Improving the Image Quality of StyleGAN, 2020, section 2.2 and appendix B.

Parameters start with variance 1, and layers scale them as they are used. A rate below 1 starts parameters larger by its
inverse and scales their use by it, so that a step of the optimizer changes what a layer computes less.
"""

import math
from collections.abc import Callable, Mapping

import jax
import jax.numpy as jnp
from flax import nnx

from genbench.data.conditions import Form, Given
from genbench.networks import layers, resampled

Array = jax.Array
TAPS, SLOPE = (1, 3, 3, 1), 0.2


def leaky(x: Array) -> Array:
    """A leaky ReLU that keeps the mean square of normal numbers nearly as it is."""
    return math.sqrt(2) * nnx.leaky_relu(x, SLOPE)


def normalised(x: Array) -> Array:
    """Vectors (batch, size) divided by the root of their mean square."""
    return x * jax.lax.rsqrt(jnp.square(x).mean(-1, keepdims=True) + 1e-8)


class Linear(nnx.Module):
    """x (…, inputs) → (…, outputs). The bias starts at `bias`."""

    def __init__(self, inputs: int, outputs: int, *, rate: float = 1.0, bias: float = 0.0, rngs: nnx.Rngs):
        self.rate, self.gain = rate, rate / math.sqrt(inputs)
        self.kernel = nnx.Param(jax.random.normal(rngs.params(), (inputs, outputs)) / rate)
        self.bias = nnx.Param(jnp.full(outputs, bias))

    def __call__(self, x: Array) -> Array:
        kernel, bias = self.kernel[...] * self.gain, self.bias[...] * self.rate
        return x @ kernel.astype(x.dtype) + bias.astype(x.dtype)


def convolved(x: Array, kernel: Array, resample: str = '', pad: int | None = None) -> Array:
    """x (batch, height, width, inputs) * kernel (size, size, inputs, outputs) of size 3, or 1 without resampling.

    Args:
      resample: 'up' doubles height and width: zeros are put between the pixels before the convolution, and [1, 3, 3, 1]
        filters its result. 'down' halves them: [1, 3, 3, 1] filters x, and the convolution has a stride of 2.
      pad: zeros around x, without resampling; None: as many as keep its size.
    """

    def conv(x: Array, stride: int, pad: int, dilation: int = 1) -> Array:
        return layers.convolve(x, kernel, (stride,) * 2, ((pad, pad),) * 2, lhs_dilation=(dilation,) * 2)

    if resample == 'up':
        return filtered(conv(x, 1, 2, 2), 1, 2.0)
    if resample == 'down':
        return conv(filtered(x, 2), 2, 0)
    return conv(x, 1, len(kernel) // 2 if pad is None else pad)


def filtered(x: Array, pad: int, gain: float = 1.0) -> Array:
    """x (batch, height, width, channels), with `pad` zeros around, filtered by [1, 3, 3, 1] along each axis."""
    x = jnp.pad(x, ((0, 0), (pad, pad), (pad, pad), (0, 0)))
    weights = [gain * tap / sum(TAPS) for tap in TAPS]
    for axis in (1, 2):
        size = x.shape[axis] - len(TAPS) + 1
        parts = (jax.lax.slice_in_dim(x, start, start + size, axis=axis) for start in range(len(TAPS)))
        x = sum((weight * part for weight, part in zip(weights, parts, strict=True)), jnp.zeros((), x.dtype))
    return x


class Conv(nnx.Module):
    """A convolution of images, which may double or halve them. `activation` follows the bias."""

    def __init__(
        self, inputs: int, outputs: int, *, kernel: int = 3, resample: str = '', bias: bool = True,
        activation: Callable[[Array], Array] = leaky, rngs: nnx.Rngs,
    ):  # fmt: skip
        self.resample, self.activation, self.gain = resample, activation, 1 / math.sqrt(inputs * kernel**2)
        self.kernel = nnx.Param(jax.random.normal(rngs.params(), (kernel, kernel, inputs, outputs)))
        self.bias = nnx.Param(jnp.zeros(outputs)) if bias else None

    def __call__(self, x: Array) -> Array:
        kernel = self.kernel[...] * self.gain
        if len(kernel) == 1 and self.resample == 'down':
            y = convolved(resampled.halved(x, TAPS), kernel)
        else:
            y = convolved(x, kernel, self.resample)
        return self.activation(y if self.bias is None else y + self.bias[...].astype(x.dtype))


def modulated(
    x: Array, kernel: Array, styles: Array, *, resample: str = '', demodulate: bool = True, pad: int | None = None
) -> Array:
    """Convolve each image with a kernel of its own: `kernel` with its inputs scaled by the image's style.

    With `demodulate`, each output of an image's kernel is divided by its norm (Karras et al. 2020, equations 1 and 3).
    Scaling inputs and outputs gives the same result with one ordinary convolution for the whole batch.

    Args:
      x: (batch, height, width, inputs).
      kernel: (size, size, inputs, outputs).
      styles: (batch, inputs).
      pad: as in `convolved`.
    """
    y = convolved(x * styles[:, None, None].astype(x.dtype), kernel, resample, pad)
    if not demodulate:
        return y
    norms = jnp.square(styles) @ jnp.square(kernel).sum((0, 1))
    return y * jax.lax.rsqrt(norms + 1e-8)[:, None, None].astype(x.dtype)


class Modulated(nnx.Module):
    """A modulated convolution whose styles are linear in w (batch, features), with noise, bias and activation.

    Args:
      noisy: add noise of one channel, times a learned factor that starts at zero.
    """

    def __init__(
        self, inputs: int, outputs: int, features: int, *, kernel: int = 3, resample: str = '', noisy: bool = True,
        rngs: nnx.Rngs,
    ):  # fmt: skip
        self.resample = resample
        self.styles = Linear(features, inputs, bias=1.0, rngs=rngs)
        self.kernel = nnx.Param(jax.random.normal(rngs.params(), (kernel, kernel, inputs, outputs)))
        self.bias = nnx.Param(jnp.zeros(outputs))
        self.strength = nnx.Param(jnp.zeros(())) if noisy else None

    def __call__(self, x: Array, w: Array, noise: Array | None = None) -> Array:
        """`noise` (batch, height, width, 1) has the size of the result."""
        y = modulated(x, self.kernel[...], self.styles(w), resample=self.resample)
        if self.strength is not None and noise is not None:
            y = y + (noise * self.strength[...]).astype(x.dtype)
        return leaky(y + self.bias[...].astype(x.dtype))


class ToImage(nnx.Module):
    """A modulated convolution of single pixels, without demodulation, to the channels of images."""

    def __init__(self, inputs: int, channels: int, features: int, *, rngs: nnx.Rngs):
        self.gain = 1 / math.sqrt(inputs)
        self.styles = Linear(features, inputs, bias=1.0, rngs=rngs)
        self.kernel = nnx.Param(jax.random.normal(rngs.params(), (1, 1, inputs, channels)))
        self.bias = nnx.Param(jnp.zeros(channels))

    def __call__(self, x: Array, w: Array) -> Array:
        y = modulated(x, self.kernel[...], self.styles(w) * self.gain, demodulate=False)
        return (y + self.bias[...].astype(x.dtype)).astype(jnp.float32)


def with_deviation(x: Array, group: int) -> Array:
    """x (batch, height, width, channels) with one more channel: the standard deviation over a group of images.

    It is averaged over pixels and channels (Karras et al. 2018, section 3). Consecutive images form a group; if groups
    do not divide the batch, they are as large as the greatest common divisor of the two.
    """
    size = math.gcd(group, len(x))
    groups = x.astype(jnp.float32).reshape(-1, size, *x.shape[1:])
    deviation = jnp.sqrt(jnp.square(groups - groups.mean(1, keepdims=True)).mean(1) + 1e-8).mean((1, 2, 3))
    channel = jnp.broadcast_to(jnp.repeat(deviation, size)[:, None, None, None], (*x.shape[:3], 1))
    return jnp.concatenate([x, channel.astype(x.dtype)], axis=-1)


class Labels(nnx.Module):
    """The classes of images as normalised vectors (batch, size), from a linear layer of their one-hot codes."""

    def __init__(self, forms: Mapping[str, Form], size: int, *, rngs: nnx.Rngs):
        self.gain = sum(form.size for form in forms.values()) ** -0.5
        self.classes = layers.Classes(forms, size, embedding_init=nnx.initializers.normal(1.0), rngs=rngs)
        self.bias = nnx.Param(jnp.zeros(size))

    def __call__(self, given: Given) -> Array:
        return normalised(self.classes(given) * self.gain + self.bias[...])

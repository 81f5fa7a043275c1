"""Generator and discriminator of DCGAN.

A. Radford, L. Metz, S. Chintala, Unsupervised Representation Learning with Deep Convolutional Generative Adversarial
Networks, 2016, section 3 and figure 1.

All layers but the generator's last and the discriminator's first are batch-normalised. The discriminator normalises
real and fake images apart and always by their own statistics.
"""

from collections.abc import Mapping

import jax
import jax.numpy as jnp
from flax import nnx

from genbench.data.conditions import Form, Given
from genbench.errors import UserError
from genbench.networks import layers
from genbench.networks.batch_norm import BatchNorm
from genbench.ranges import COUNT, each

Array = jax.Array
DEFAULTS = {
    'channels': 16,
    'multipliers': (1, 2),  # channels at each resolution in units of `channels`, from half of the images' height on
    'latent': 64,  # number of dimensions of the generator's input
    'dtype': 'float32',  # type of the computation, or 'bfloat16'; parameters and outputs are always float32
}
GENERATOR, DISCRIMINATOR = ('latent',), ()  # keys that only one of the two takes
RANGES = {'channels': COUNT, 'multipliers': each(COUNT, fewest=1), 'latent': COUNT}
WINDOW, DEVIATION, SLOPE = 5, 0.02, 0.2

_kernel = nnx.initializers.normal(DEVIATION)


def _norm(channels: int, rngs: nnx.Rngs) -> BatchNorm:
    return BatchNorm(channels, deviation=DEVIATION, rngs=rngs)


def _bottom(size: int, multipliers: tuple[int, ...], forms: Mapping[str, Form]) -> int:
    """The height of the smallest pictures. Refuses sizes that the resolutions do not divide, and conditions."""
    if forms:
        raise UserError(f'network.name=dcgan takes no conditions, and the family gives it {next(iter(forms))!r}; use '
                        'resnet or sngan.')  # fmt: skip
    if size % 2 ** len(multipliers):
        raise UserError(f'network.name=dcgan with {len(multipliers)} resolutions (network.multipliers) needs images '
                        f'whose height is divisible by {2 ** len(multipliers)}, but it is {size}.')  # fmt: skip
    return size >> len(multipliers)


class Doubling(nnx.Module):
    """A transposed convolution that doubles the picture."""

    def __init__(self, inputs: int, outputs: int, *, bias: bool, rngs: nnx.Rngs):
        self.kernel = nnx.Param(DEVIATION * jax.random.normal(rngs.params(), (WINDOW, WINDOW, inputs, outputs)))
        self.bias = nnx.Param(jnp.zeros(outputs)) if bias else None

    def __call__(self, x: Array) -> Array:
        y = layers.convolve(x, self.kernel[...], padding=((WINDOW // 2 + 1, WINDOW // 2),) * 2, lhs_dilation=(2, 2))
        return y if self.bias is None else y + self.bias[...].astype(x.dtype)


class Generator(nnx.Module):
    """Latents (batch, latent) → images in [−1, 1] (batch, size, size, image_channels)."""

    def __init__(
        self, size: int, image_channels: int, forms: Mapping[str, Form], *,
        channels: int, multipliers: tuple[int, ...], latent: int, dtype: str = 'float32', rngs: nnx.Rngs,
    ):  # fmt: skip
        self.dtype, self.bottom = layers.compute_dtype(dtype), _bottom(size, multipliers, forms)
        widths = [channels * multiplier for multiplier in reversed(multipliers)]  # from the lowest resolution
        self.input = layers.Linear(latent, self.bottom**2 * widths[0], use_bias=False, kernel_init=_kernel, rngs=rngs)
        self.norms = nnx.List([_norm(width, rngs) for width in widths])
        self.convs = nnx.List(
            [Doubling(*pair, bias=False, rngs=rngs) for pair in zip(widths, widths[1:], strict=False)]
        )
        self.output = Doubling(widths[-1], image_channels, bias=True, rngs=rngs)

    def __call__(self, z: Array, given: Given = None, training: bool = False) -> Array:
        """In training, the normalisation takes the statistics of the batch and keeps a running mean of them."""
        h = self.input(z.astype(self.dtype)).reshape(len(z), self.bottom, self.bottom, -1)
        for norm, conv in zip(self.norms, [*self.convs, self.output], strict=True):
            h = conv(nnx.relu(norm(h, training)))
        return jnp.tanh(h.astype(jnp.float32))


class Discriminator(nnx.Module):
    """Images in [−1, 1] (batch, size, size, image_channels) → logits (batch,)."""

    def __init__(
        self, size: int, image_channels: int, forms: Mapping[str, Form], *,
        channels: int, multipliers: tuple[int, ...], dtype: str = 'float32', rngs: nnx.Rngs,
    ):  # fmt: skip
        self.dtype, bottom = layers.compute_dtype(dtype), _bottom(size, multipliers, forms)
        widths = [image_channels, *(channels * multiplier for multiplier in multipliers)]
        self.convs = nnx.List([
            layers.Conv(before, after, kernel=WINDOW, stride=2, use_bias=index == 0, kernel_init=_kernel, rngs=rngs)
            for index, (before, after) in enumerate(zip(widths, widths[1:], strict=False))
        ])  # fmt: skip
        self.norms = nnx.List([_norm(width, rngs) for width in widths[2:]])
        self.output = layers.Linear(bottom**2 * widths[-1], 1, kernel_init=_kernel, rngs=rngs)

    def __call__(self, x: Array, given: Given = None) -> Array:
        h = self.convs[0](x.astype(self.dtype))
        for conv, norm in zip(list(self.convs)[1:], self.norms, strict=True):
            h = norm(conv(nnx.leaky_relu(h, SLOPE)), True)
        return self.output(nnx.leaky_relu(h, SLOPE).reshape(len(h), -1)).astype(jnp.float32)[:, 0]

"""Generator and discriminator of StyleGAN2 (T. Karras et al., Analyzing and Improving the Image Quality of StyleGAN,
2020), as T. Karras et al., Training Generative Adversarial Networks with Limited Data, 2020, use them (StyleGAN2-ADA).

A mapping network turns z into w. The generator's convolutions are modulated by w, and images are sums over resolutions
(figure 7b, 'skip'). The discriminator is residual, or plain for CIFAR-10 (`residual=False`).

Differs from the code: activations are not clamped, and `dtype=bfloat16` is for all convolutions but the
discriminator's last, where the code has float16 at the highest four resolutions.
"""

import math
from collections.abc import Mapping

import jax
import jax.numpy as jnp
from flax import nnx

from genbench import rng
from genbench.data.conditions import Form, Given
from genbench.networks import equalised, layers, resampled
from genbench.ranges import COUNT, POSITIVE, each

Array = jax.Array
DEFAULTS = {
    'channels': 32,
    'multipliers': (1, 2),  # channels at each resolution, in units of `channels`
    'latent': 64,  # number of dimensions of z
    'features': 64,  # number of dimensions of w
    'mapping': 2,  # layers of the mapping network
    'mapping_rate': 0.01,  # factor of its learning rate
    'compared': 4,  # images whose standard deviation the discriminator sees
    'residual': True,  # whether the discriminator has residual blocks
    'dtype': 'float32',  # type of the computation, or 'bfloat16'; parameters and outputs are always float32
}
GENERATOR, DISCRIMINATOR = ('latent', 'features', 'mapping'), ('compared', 'residual')  # what only one of the two takes
RANGES = {
    'channels': COUNT,
    'multipliers': each(COUNT, fewest=1),
    'latent': COUNT,
    'features': COUNT,
    'mapping': COUNT,
    'mapping_rate': POSITIVE,
    'compared': COUNT,
}
LABEL_LAYERS = 8  # of the discriminator


class Centre(nnx.Variable):
    """The running mean of w, (features,). It is not trained."""


class MappingNetwork(nnx.Module):
    """z (batch, latent), if `latent` is not 0, and classes → w (batch, features)."""

    def __init__(
        self, latent: int, features: int, forms: Mapping[str, Form], *, depth: int, rate: float, rngs: nnx.Rngs
    ):
        self.labels = equalised.Labels(forms, features, rngs=rngs) if forms else None
        sizes = [latent + (features if forms else 0)] + [features] * depth
        self.layers = nnx.List([
            equalised.Linear(*pair, rate=rate, rngs=rngs) for pair in zip(sizes[:-1], sizes[1:], strict=True)
        ])  # fmt: skip

    def __call__(self, z: Array | None, given: Given = None) -> Array:
        parts = [] if z is None else [equalised.normalised(z)]
        h = jnp.concatenate(parts if self.labels is None else [*parts, self.labels(given)], axis=-1)
        for layer in self.layers:
            h = equalised.leaky(layer(h))
        return h


class Generator(nnx.Module):
    """Latents (batch, latent) → images (batch, size, size, image_channels), which are not bounded.

    Attributes:
      mapping: z and classes → w.
      styles: the number of places where w enters. The last is that of the largest image; each other image shares the w
        of the convolution that follows it.
      centre: the running mean of w.
    """

    def __init__(
        self, size: int, image_channels: int, forms: Mapping[str, Form], *,
        channels: int, multipliers: tuple[int, ...], latent: int, features: int, mapping: int, mapping_rate: float,
        dtype: str = 'float32', rngs: nnx.Rngs,
    ):  # fmt: skip
        self.dtype = layers.compute_dtype(dtype)
        widths = [channels * multiplier for multiplier in reversed(multipliers)]  # from the lowest resolution
        bottom, self.styles = size >> (len(widths) - 1), 2 * len(widths)
        self.mapping = MappingNetwork(latent, features, forms, depth=mapping, rate=mapping_rate, rngs=rngs)
        self.centre = Centre(jnp.zeros(features))
        self.start = nnx.Param(jax.random.normal(rngs.params(), (bottom, bottom, widths[0])))
        self.sizes = [bottom << depth for depth in range(len(widths))]
        self.up = nnx.List([
            equalised.Modulated(*pair, features, resample='up', rngs=rngs)
            for pair in zip(widths[:-1], widths[1:], strict=True)
        ])  # fmt: skip
        self.convs = nnx.List([equalised.Modulated(width, width, features, rngs=rngs) for width in widths])
        self.images = nnx.List([equalised.ToImage(width, image_channels, features, rngs=rngs) for width in widths])

    def __call__(self, z: Array, given: Given = None, keys: Array | None = None) -> Array:
        return self.synthesise(jnp.repeat(self.mapping(z, given)[:, None], self.styles, axis=1), keys)

    def synthesise(self, w: Array, keys: Array | None = None) -> Array:
        """Images from w (batch, styles, features). Noise comes from one key per image; there is none without keys."""

        def noise(place: int, size: int) -> Array | None:
            return None if keys is None else rng.normal(keys, f'noise {place}', (size, size, 1))

        h = jnp.broadcast_to(self.start[...].astype(self.dtype), (len(w), *self.start.shape))
        image, place = jnp.zeros(()), 0
        for depth, size in enumerate(self.sizes):
            if depth:
                h = self.up[depth - 1](h, w[:, place], noise(place, size))
                image, place = resampled.doubled(image, equalised.TAPS), place + 1
            h = self.convs[depth](h, w[:, place], noise(place, size))
            place += 1
            image = image + self.images[depth](h, w[:, place])
        return image


class Block(nnx.Module):
    """Two convolutions, the second of which halves the image, and a shortcut if `residual`."""

    def __init__(self, inputs: int, outputs: int, *, residual: bool, rngs: nnx.Rngs):
        self.conv_in = equalised.Conv(inputs, inputs, rngs=rngs)
        self.conv_out = equalised.Conv(inputs, outputs, resample='down', rngs=rngs)
        self.shortcut = equalised.Conv(
            inputs, outputs, kernel=1, resample='down', bias=False, activation=lambda x: x, rngs=rngs
        ) if residual else None  # fmt: skip

    def __call__(self, x: Array) -> Array:
        h = self.conv_out(self.conv_in(x))
        return h if self.shortcut is None else (h + self.shortcut(x)) * math.sqrt(0.5)


class Discriminator(nnx.Module):
    """Images (batch, size, size, image_channels) → logits (batch,). Classes are projected (Miyato & Koyama 2018)."""

    def __init__(
        self, size: int, image_channels: int, forms: Mapping[str, Form], *,
        channels: int, multipliers: tuple[int, ...], compared: int, residual: bool, mapping_rate: float,
        dtype: str = 'float32', rngs: nnx.Rngs,
    ):  # fmt: skip
        self.dtype, self.compared = layers.compute_dtype(dtype), compared
        widths = [channels * multiplier for multiplier in multipliers]  # from the highest resolution
        last, bottom = widths[-1], size >> (len(widths) - 1)
        self.conv_in = equalised.Conv(image_channels, widths[0], kernel=1, rngs=rngs)
        self.blocks = nnx.List([
            Block(*pair, residual=residual, rngs=rngs) for pair in zip(widths[:-1], widths[1:], strict=True)
        ])  # fmt: skip
        self.conv_out = equalised.Conv(last + 1, last, rngs=rngs)
        self.hidden = equalised.Linear(last * bottom**2, last, rngs=rngs)
        self.output = equalised.Linear(last, last if forms else 1, rngs=rngs)
        self.labels = MappingNetwork(
            0, last, forms, depth=LABEL_LAYERS, rate=mapping_rate, rngs=rngs
        ) if forms else None  # fmt: skip

    def __call__(self, x: Array, given: Given = None) -> Array:
        h = self.conv_in(x.astype(self.dtype))
        for block in self.blocks:
            h = block(h)
        h = self.conv_out(equalised.with_deviation(h.astype(jnp.float32), self.compared))
        features = self.output(equalised.leaky(self.hidden(h.reshape(len(h), -1))))
        if self.labels is None:
            return features[:, 0]
        return (features * self.labels(None, given)).sum(-1) * features.shape[-1] ** -0.5

"""Generator and discriminator that grow with the images.

T. Karras et al., Progressive Growing of GANs for Improved Quality, Stability, and Variation, 2018, sections 2 to 4 and
table 2.

The network of a resolution contains the layers of all lower ones, and those of the next lower that read or write
images. While a resolution fades in, images are a mixture of what the two write, and features of what the two read.

Differs from the authors' code: activations are scaled by √2 instead of weights, which changes how fast biases learn;
the layers that read or write images are kept for two resolutions, where the authors' code keeps all; and classes, which
the authors' code appends to z and predicts (AC-GAN), are here appended to z and projected in the discriminator.
"""

from collections.abc import Mapping

import jax
import jax.numpy as jnp
from flax import nnx

from genbench.data.conditions import Form, Given
from genbench.networks import equalised
from genbench.ranges import COUNT, each

Array = jax.Array
DEFAULTS = {
    'channels': 32,
    'multipliers': (1, 2),  # channels at each resolution, in units of `channels`
    'latent': 64,  # number of dimensions of z
    'compared': 4,  # images whose standard deviation the discriminator sees
}
GENERATOR, DISCRIMINATOR = ('latent',), ('compared',)  # what only one of the two takes
RANGES = {
    'channels': COUNT,
    'multipliers': each(COUNT, fewest=1),
    'latent': COUNT,
    'compared': COUNT,
}


class Fade(nnx.Variable):
    """The share of the highest resolution in what the network reads or writes. No optimizer moves it."""


def widths(size: int, channels: int, multipliers: tuple[int, ...]) -> dict[int, int]:
    """The channels of each resolution of images of height `size`, by height, from the lowest."""
    sizes = reversed([size >> depth for depth in range(len(multipliers))])
    return {height: channels * multiplier for height, multiplier in zip(sizes, reversed(multipliers), strict=True)}


def doubled(x: Array) -> Array:
    """Images (batch, height, width, channels) of twice the size, in which each pixel is repeated."""
    return jnp.repeat(jnp.repeat(x, 2, axis=1), 2, axis=2)


def halved(x: Array) -> Array:
    """Images (batch, height, width, channels) of half the size, whose pixels are means of four."""
    batch, height, width, channels = x.shape
    return x.reshape(batch, height // 2, 2, width // 2, 2, channels).mean((2, 4))


def faded(low: Array, high: Array, share: Array) -> Array:
    """`share` of `high` and the rest of `low` (figure 2)."""
    return low + share * (high - low)


def blurred(images: Array, share: Array) -> Array:
    """Real images as the discriminator sees them while their resolution fades in (appendix A.1)."""
    return faded(doubled(halved(images)), images, share)


def plain(x: Array) -> Array:
    return x


def normalised(x: Array) -> Array:
    """A leaky ReLU, and then pixels divided by the root of their mean square over channels (section 4.2)."""
    return equalised.normalised(equalised.leaky(x))


class Reshaped(nnx.Module):
    """z (batch, inputs) → (batch, size, size, outputs), by a convolution whose window is as large as the result."""

    def __init__(self, inputs: int, size: int, outputs: int, *, rngs: nnx.Rngs):
        self.shape = (size, size, outputs)
        self.kernel = nnx.Param(jax.random.normal(rngs.params(), (inputs, size * size * outputs)))
        self.bias = nnx.Param(jnp.zeros(outputs))

    def __call__(self, z: Array) -> Array:
        return (z @ (self.kernel[...] * z.shape[1] ** -0.5)).reshape(len(z), *self.shape) + self.bias[...]


class Growing(nnx.Module):
    """What both networks have: `images`, the layers that read or write images, and `fade`."""

    def __init__(self, heights: list[int]):
        self.heights, self.fade = tuple(heights), Fade(jnp.ones(()))
        self.pair = self.heights[-2:]


class Generator(Growing):
    """Latents (batch, latent) → images (batch, size, size, image_channels), which are not bounded."""

    def __init__(
        self, size: int, image_channels: int, forms: Mapping[str, Form], *,
        channels: int, multipliers: tuple[int, ...], latent: int, rngs: nnx.Rngs,
    ):  # fmt: skip
        width = widths(size, channels, multipliers)
        super().__init__(list(width))
        self.labels = equalised.Labels(forms, latent, rngs=rngs) if forms else None
        bottom = self.heights[0]
        self.start = Reshaped(latent * (2 if forms else 1), bottom, width[bottom], rngs=rngs)
        blocks = {}
        for below, height in zip((None, *self.heights[:-1]), self.heights, strict=True):
            pairs = [(width[height], width[height])] if below is None else [(width[below], width[height])]
            pairs += [] if below is None else [(width[height], width[height])]
            blocks[f'at_{height}'] = nnx.List([equalised.Conv(*one, activation=normalised, rngs=rngs) for one in pairs])
        self.blocks = nnx.Dict(blocks)
        self.images = nnx.Dict({
            f'at_{height}': equalised.Conv(width[height], image_channels, kernel=1, activation=plain, rngs=rngs)
            for height in self.pair
        })  # fmt: skip

    def __call__(self, z: Array, given: Given = None) -> Array:
        z = equalised.normalised(z)
        h = self.start(z if self.labels is None else jnp.concatenate([z, self.labels(given)], axis=-1))
        h, below = normalised(h), None
        for height in self.heights:
            if height > self.heights[0]:
                below, h = h, doubled(h)
            for conv in self.blocks[f'at_{height}']:
                h = conv(h)
        image = self.images[f'at_{self.heights[-1]}'](h)
        if below is None:
            return image
        return faded(doubled(self.images[f'at_{self.pair[0]}'](below)), image, self.fade[...])


class Discriminator(Growing):
    """Images (batch, size, size, image_channels) → logits (batch,)."""

    def __init__(
        self, size: int, image_channels: int, forms: Mapping[str, Form], *,
        channels: int, multipliers: tuple[int, ...], compared: int, rngs: nnx.Rngs,
    ):  # fmt: skip
        width = widths(size, channels, multipliers)
        super().__init__(list(width))
        bottom = self.heights[0]
        self.compared, last = compared, width[bottom]
        self.images = nnx.Dict({
            f'at_{height}': equalised.Conv(image_channels, width[height], kernel=1, rngs=rngs) for height in self.pair
        })  # fmt: skip
        self.blocks = nnx.Dict({
            f'at_{height}': nnx.List([
                equalised.Conv(width[height], outputs, rngs=rngs) for outputs in (width[height], width[below])
            ])
            for below, height in zip(self.heights[:-1], self.heights[1:], strict=True)
        })  # fmt: skip
        self.conv = equalised.Conv(last + 1, last, rngs=rngs)
        self.hidden = equalised.Linear(last * bottom**2, last, rngs=rngs)
        self.output = equalised.Linear(last, last if forms else 1, rngs=rngs)
        self.labels = equalised.Labels(forms, last, rngs=rngs) if forms else None

    def __call__(self, x: Array, given: Given = None) -> Array:
        h = self.images[f'at_{self.heights[-1]}'](x)
        for height in reversed(self.heights[1:]):
            for conv in self.blocks[f'at_{height}']:
                h = conv(h)
            h = halved(h)
            if height == self.heights[-1]:
                h = faded(self.images[f'at_{self.pair[0]}'](halved(x)), h, self.fade[...])
        h = self.conv(equalised.with_deviation(h, self.compared))
        features = self.output(equalised.leaky(self.hidden(h.reshape(len(h), -1))))
        if self.labels is None:
            return features[:, 0]
        return (features * self.labels(given)).sum(-1) * features.shape[-1] ** -0.5

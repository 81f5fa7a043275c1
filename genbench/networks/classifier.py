"""A small convolutional classifier whose last hidden layer serves as a feature space."""

import jax
from flax import nnx

from genbench.networks import layers


class Classifier(nnx.Module):
    """Images in [−1, 1] (batch, height, width, channels) → features (batch, 64); `logits` maps those to classes."""

    FEATURES = 64

    def __init__(self, image_channels: int, classes: int, channels: int, *, rngs: nnx.Rngs):
        self.conv_in = layers.Conv(image_channels, channels, rngs=rngs)
        self.conv_middle = layers.Conv(channels, 2 * channels, stride=2, rngs=rngs)
        self.conv_out = layers.Conv(2 * channels, 2 * channels, stride=2, rngs=rngs)
        self.norms = nnx.List([layers.GroupNorm(size, groups=8) for size in (channels, 2 * channels, 2 * channels)])
        self.hidden = nnx.Linear(2 * channels, self.FEATURES, rngs=rngs)
        self.output = nnx.Linear(self.FEATURES, classes, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        for conv, norm in zip((self.conv_in, self.conv_middle, self.conv_out), self.norms, strict=True):
            x = nnx.silu(norm(conv(x)))
        return nnx.silu(self.hidden(x.max((1, 2))))

    def logits(self, features: jax.Array) -> jax.Array:
        return self.output(features)

"""VGG16 (Simonyan & Zisserman 2015, configuration D), with the names and shapes of the weights in torchvision."""

import math
from collections.abc import Sequence

import jax
import jax.numpy as jnp
from flax import nnx

from genbench.networks.layers import convolve
from genbench.networks.vision_transformer import Dense

Array = jax.Array

STAGES = ((64, 2), (128, 2), (256, 3), (512, 3), (512, 3))  # channels and convolutions per stage; pooling in between
HIDDEN = 4096


class Frozen(nnx.Variable):
    """A weight that no optimizer changes."""


class Convolution(nnx.Module):
    """A zero-padded 3×3 convolution of (batch, height, width, inputs), followed by max(0, ·)."""

    def __init__(self, inputs: int, outputs: int):
        self.weight = Frozen(jnp.zeros((outputs, inputs, 3, 3)))
        self.bias = Frozen(jnp.zeros(outputs))

    def __call__(self, x: Array) -> Array:
        kernel = self.weight[...].transpose(2, 3, 1, 0)
        return jax.nn.relu(convolve(x, kernel) + self.bias[...])


class Convolutions(nnx.Module):
    """The part of the network that reads images of any size."""

    def __init__(self, stages: Sequence[tuple[int, int]] = STAGES):
        layers, ends, place, inputs = {}, [], 0, 3
        for channels, depth in stages:
            for _ in range(depth):
                layers[str(place)] = Convolution(inputs, channels)
                place, inputs = place + 2, channels  # max(0, ·) has its own number
            ends.append(place - 2)
            place += 1  # so does pooling
        self.features = nnx.Dict(layers)
        self.ends = tuple(ends)

    def activations(self, x: Array) -> list[Array]:
        """Scaled images (batch, height, width, 3) → the output of each stage before pooling."""
        found: list[Array] = []
        for place in sorted(map(int, self.features)):
            x = self.features[str(place)](x)
            if place in self.ends:
                found.append(x)
                x = _pooled(x)
        return found


class VGG16(Convolutions):
    """Scaled images (batch, size, size, 3) → the second hidden layer (batch, hidden), after max(0, ·)."""

    def __init__(self, size: int = 224, stages: Sequence[tuple[int, int]] = STAGES, hidden: int = HIDDEN):
        super().__init__(stages)
        inputs = stages[-1][0] * (size // 2 ** len(stages)) ** 2
        self.classifier = nnx.Dict({'0': Dense(inputs, hidden), '3': Dense(hidden, hidden)})

    def __call__(self, x: Array) -> Array:
        x = _pooled(self.activations(x)[-1]).transpose(0, 3, 1, 2)  # the file orders inputs by channel
        x = x.reshape(len(x), math.prod(x.shape[1:]))
        for place in ('0', '3'):
            x = jax.nn.relu(self.classifier[place](x))
        return x


def _pooled(x: Array) -> Array:
    """The maximum over 2×2 pixels. A leftover row or column at an odd border is dropped."""
    return jax.lax.reduce_window(x, -jnp.inf, jax.lax.max, (1, 2, 2, 1), (1, 2, 2, 1), 'VALID')

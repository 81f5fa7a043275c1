"""Perceptrons: networks that know an image as a vector, for small images and points in the plane."""

import math
from collections.abc import Mapping

import jax
from flax import nnx

from genbench.data.conditions import Form, Given
from genbench.networks import layers
from genbench.ranges import COUNT, each, one_of

DEFAULTS = {
    'hidden': (128, 128, 128),  # widths of the hidden layers
    'activation': 'silu',  # or 'tanh', 'relu', 'gelu'
}
ACTIVATIONS = {'tanh': nnx.tanh, 'relu': nnx.relu, 'silu': nnx.silu, 'gelu': nnx.gelu}
RANGES = {'hidden': each(COUNT, fewest=1), 'activation': one_of(*ACTIVATIONS)}


class Perceptron(nnx.Module):
    """Vectors (batch, inputs) → (batch, outputs); conditions enter the first layer.

    Weights are drawn uniformly with variance 2 / (inputs + outputs) of their layer, and biases start at zero (Glorot &
    Bengio 2010).
    """

    def __init__(
        self, inputs: int, outputs: int, forms: Mapping[str, Form], *,
        hidden: tuple[int, ...], activation: str, rngs: nnx.Rngs,
    ):  # fmt: skip
        sizes = (inputs, *hidden, outputs)
        glorot = nnx.initializers.glorot_uniform()
        self.layers = nnx.List([
            layers.Linear(before, after, kernel_init=glorot, rngs=rngs)
            for before, after in zip(sizes[:-1], sizes[1:], strict=True)
        ])  # fmt: skip
        self.classes = layers.Classes(forms, hidden[0] if forms else 0, rngs=rngs)
        self.activation = ACTIVATIONS[activation]

    def __call__(self, x: jax.Array, given: Given = None) -> jax.Array:
        h, condition = self.layers[0](x), self.classes(given)
        h = h if condition is None else h + condition
        for layer in self.layers[1:]:
            h = layer(self.activation(h))
        return h


class Encoder(Perceptron):
    """Images (batch, *shape) → codes (batch, outputs)."""

    def __init__(self, shape: tuple[int, int, int], outputs: int, forms: Mapping[str, Form], **options):
        super().__init__(math.prod(shape), outputs, forms, **options)

    def __call__(self, x: jax.Array, given: Given = None, key: jax.Array | None = None) -> jax.Array:
        return super().__call__(x.reshape(len(x), -1), given)


class Decoder(Perceptron):
    """Codes (batch, inputs) → (batch, height, width, outputs)."""

    def __init__(self, shape: tuple[int, int, int], inputs: int, outputs: int, forms: Mapping[str, Form], **options):
        self.shape = (*shape[:2], outputs)
        super().__init__(inputs, math.prod(self.shape), forms, **options)

    def __call__(self, z: jax.Array, given: Given = None, key: jax.Array | None = None) -> jax.Array:
        return super().__call__(z, given).reshape(len(z), *self.shape)

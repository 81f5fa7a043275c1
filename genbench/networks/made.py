"""MADE: a perceptron whose masks let output d see only the inputs that come before d in an ordering.

M. Germain, K. Gregor, I. Murray, H. Larochelle, MADE: Masked Autoencoder for Distribution Estimation, 2015.

Every input and every hidden unit has a degree. A hidden unit sees the units of the layer below whose degree is at most
its own (equation 12), and output d sees the hidden units whose degree is below that of input d (equation 13). Degrees
count from zero here, and from one in the paper.
"""

import functools
from collections.abc import Mapping

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from genbench.data.conditions import Form, Given
from genbench.networks import layers
from genbench.networks.in_order import InOrder
from genbench.networks.initialisers import kernel_as_pytorch, uniform
from genbench.networks.mlp import ACTIVATIONS
from genbench.ranges import COUNT, SEED, each, one_of

Array = jax.Array

DEFAULTS = {
    'hidden': (500,),  # widths of the hidden layers
    'activation': 'relu',  # or 'tanh', 'silu', 'gelu'
    'order': 'random',  # of the pixels; or 'raster'
    'masks': 1,  # orderings and connectivities, which training steps use in turn and likelihoods average over
    'mask_seed': 0,
    'direct': True,  # connect inputs to outputs, too
    # How they start (Glorot & Bengio 2010); or 'orthogonal', as in the official code for MNIST, or 'as_pytorch'.
    'kernels': 'glorot',
}
RANGES = {
    'hidden': each(COUNT, fewest=1),
    'activation': one_of(*ACTIVATIONS),
    'order': one_of('random', 'raster'),
    'masks': COUNT,
    'mask_seed': SEED,
    'kernels': one_of('glorot', 'orthogonal', 'as_pytorch'),
}
KERNELS = {
    'glorot': nnx.initializers.glorot_uniform(),
    'orthogonal': nnx.initializers.orthogonal(),
    'as_pytorch': kernel_as_pytorch(),
}


@functools.lru_cache(maxsize=32)
def degrees(dims: int, hidden: tuple[int, ...], order: str, masks: int, seed: int) -> tuple[np.ndarray, ...]:
    """Degrees of the inputs, (masks, dims), and of the units of each hidden layer, (masks, width).

    Args:
      order: 'random' draws both the ordering and the degrees of hidden units, as in section 4.2. In the other orders
        the degrees of hidden units go round: 'raster'; 'reversed', from the last input to the first; 'even', in which
        odd inputs see even ones and nothing else is seen; and 'odd', the opposite.
    """
    place = np.arange(dims)
    orders = {'raster': place, 'reversed': place[::-1], 'even': place % 2, 'odd': 1 - place % 2}

    def one(random: np.random.Generator) -> list[np.ndarray]:
        found = [random.permutation(dims) if order == 'random' else orders[order]]
        top = max(int(found[0].max()), 1)
        for width in hidden:
            found.append(
                random.integers(min(int(found[-1].min()), top - 1), top, width) if order == 'random'
                else np.arange(width) % top
            )  # fmt: skip
        return found

    drawn = [one(np.random.default_rng([seed, index])) for index in range(masks)]
    return tuple(np.stack(layer).astype(np.int32) for layer in zip(*drawn, strict=True))


class Masked(layers.Linear):
    """A linear layer without the connections outside a mask (inputs, outputs)."""

    def through(self, x: Array, mask: Array) -> Array:
        y = x @ jnp.where(mask, self.kernel[...], 0)
        return y if self.bias is None else y + self.bias[...]


class Made(nnx.Module):
    """Vectors (batch, dims) → (batch, dims, outputs); conditions enter the first hidden layer.

    Biases start at zero, or uniform in ±1 / √inputs with kernels that are 'as_pytorch'.
    """

    def __init__(
        self, dims: int, outputs: int, forms: Mapping[str, Form], *, hidden: tuple[int, ...], activation: str,
        order: str, masks: int = 1, mask_seed: int = 0, direct: bool = False,
        kernels: str = 'glorot', rngs: nnx.Rngs,
    ):  # fmt: skip
        def layer(before: int, after: int, use_bias: bool = True) -> Masked:
            bias, kernel = uniform(before**-0.5) if kernels == 'as_pytorch' else layers.zeros, KERNELS[kernels]
            return Masked(before, after, kernel_init=kernel, bias_init=bias, use_bias=use_bias, rngs=rngs)

        self.dims, self.outputs, self.masks = dims, outputs, masks
        self._made_of = (dims, tuple(hidden), order, masks, mask_seed)
        self.layers = nnx.List([layer(*pair) for pair in zip((dims, *hidden[:-1]), hidden, strict=True)])
        self.output = layer(hidden[-1], dims * outputs)
        self.direct = layer(dims, dims * outputs, use_bias=False) if direct else None
        self.classes = layers.Classes(forms, hidden[0] if forms else 0, rngs=rngs)
        self.activation = ACTIVATIONS[activation]

    @property
    def degrees(self) -> tuple[np.ndarray, ...]:
        return degrees(*self._made_of)

    def __call__(self, x: Array, given: Given = None, mask: Array | int = 0) -> Array:
        """The outputs under mask number `mask`."""
        # The barrier keeps XLA from computing the masks while it compiles, which is slow for wide layers.
        inputs, *units = jax.lax.optimization_barrier([jnp.asarray(layer)[mask] for layer in self.degrees])
        h, below, condition = x, inputs, self.classes(given)
        for index, (layer, own) in enumerate(zip(self.layers, units, strict=True)):
            h = layer.through(h, below[:, None] <= own)
            h = self.activation(h if index or condition is None else h + condition)
            below = own
        own = jnp.repeat(inputs, self.outputs)
        y = self.output.through(h, below[:, None] < own)
        if self.direct is not None:
            y += self.direct.through(x, inputs[:, None] < own)
        return y.reshape(len(x), self.dims, self.outputs)


class MadeOfImages(InOrder, Made):
    """Made for encoded images (batch, height, width, channels); a step is a value."""

    def __call__(  # type: ignore[override]
        self, x: Array, given: Given = None, mask: Array | int = 0, key: Array | None = None
    ) -> Array:
        return Made.__call__(self, x.reshape(len(x), -1), given, mask).reshape(*x.shape[:3], -1)

    @property
    def steps(self) -> int:  # type: ignore[override]  # here a function of `dims`
        return self.dims

    def order(self, mask: Array | int) -> Array:
        return jnp.argsort(jnp.asarray(self.degrees[0]), axis=1)[mask]

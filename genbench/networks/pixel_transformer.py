"""A decoder-only transformer over the values of an image, in raster order and channel by channel.

R. Child, S. Gray, A. Radford, I. Sutskever, Generating Long Sequences with Sparse Transformers, 2019 (embeddings of
row, column and channel), with dense attention; A. Vaswani et al., Attention Is All You Need, 2017.

Keys and values of earlier steps are kept while an image is sampled, so a step processes one value only.
"""

import math
from collections.abc import Mapping

import jax
import jax.numpy as jnp
from flax import nnx

from genbench.data.conditions import Form, Given
from genbench.errors import UserError
from genbench.networks import layers
from genbench.networks.in_order import InOrder
from genbench.networks.initialisers import linear_as_pytorch, uniform
from genbench.ranges import COUNT, SHARE

Array = jax.Array

DEFAULTS = {
    'depth': 4,
    'width': 64,
    'heads': 4,
    'expansion': 4,  # width of the hidden layer of an MLP, in units of `width`
    'dropout': 0.0,  # of what attention and MLPs add
}
RANGES = {'depth': COUNT, 'width': COUNT, 'heads': COUNT, 'expansion': COUNT, 'dropout': SHARE}
SPREAD = 0.125  # standard deviation of fresh kernels times √inputs (Child et al., section 6)


def _kernel(inputs: int) -> layers.Initializer:
    return nnx.initializers.normal(SPREAD / math.sqrt(inputs))


class Block(nnx.Module):
    """Residual attention and perceptron, each with a layer normalisation before it (Child et al., section 5.2).

    Args:
      causal: a token attends to itself and to those before it; otherwise to all.
      as_pytorch: layers start as PyTorch's, normalisations add 1e-5 to variances, and GELU is exact.
      glorot: kernels start uniform with variance 2 / (inputs + outputs) (Glorot & Bengio 2010), where queries, keys
        and values are three layers.
    """

    def __init__(
        self, width: int, heads: int, expansion: int, depth: int, dropout: float, causal: bool = True, *,
        as_pytorch: bool = False, glorot: bool = False, rngs: nnx.Rngs,
    ):  # fmt: skip
        def linear(before: int, after: int, scale: float = 1.0, parts: int = 1) -> layers.Linear:
            if as_pytorch:
                return linear_as_pytorch(before, after, rngs)
            init = nnx.initializers.normal(scale * SPREAD / math.sqrt(before))
            if glorot:
                init = uniform(math.sqrt(6 / (before + after / parts)))
            return layers.Linear(before, after, kernel_init=init, rngs=rngs)

        last = 1 / math.sqrt(2 * depth)  # so that the sum of all residuals does not grow with the depth
        self.heads, self.dropout, self.causal, self.approximate = heads, dropout, causal, not as_pytorch
        epsilon = 1e-5 if as_pytorch else 1e-6
        self.norms = nnx.List([nnx.LayerNorm(width, epsilon=epsilon, rngs=rngs) for _ in range(2)])
        self.inputs, self.output = linear(width, 3 * width, parts=3), linear(width, width, last)
        self.hidden, self.shrunk = linear(width, expansion * width), linear(expansion * width, width, last)

    def __call__(self, x: Array, key: Array | None) -> Array:
        """x (batch, tokens, width) → the same shape."""
        return self._rest(x, layers.attend(self._qkv(x), causal=self.causal), key)

    def step(self, x: Array, number: Array, kept: Array) -> tuple[Array, Array]:
        """The same for token `number` alone, x (batch, 1, width), with the keys and values of those before it.

        Args:
          kept: keys and values (batch, tokens, 2, heads, size).
        """
        qkv = self._qkv(x)
        kept = jax.lax.dynamic_update_slice_in_dim(kept, qkv[:, :, 1:], number, axis=1)
        seen = jnp.arange(kept.shape[1]) <= number
        found = jax.nn.dot_product_attention(qkv[:, :, 0], kept[:, :, 0], kept[:, :, 1], mask=seen[None, None, None])
        return self._rest(x, found, None), kept

    def _qkv(self, x: Array) -> Array:
        return self.inputs.into(self.norms[0](x).astype(x.dtype), 3, self.heads, x.shape[-1] // self.heads)

    def _rest(self, x: Array, found: Array, key: Array | None) -> Array:
        keys = (None, None) if key is None else jax.random.split(key)
        x = x + layers.dropout(self.output(found.reshape(x.shape)), self.dropout, keys[0])
        h = self.shrunk(nnx.gelu(self.hidden(self.norms[1](x).astype(x.dtype)), approximate=self.approximate))
        return x + layers.dropout(h, self.dropout, keys[1])


class _Transformer(nnx.Module):
    """Embeddings of values, rows, columns, channels and classes, blocks, and outputs that are zero when fresh.

    `first` is the vector of what is not known: the value before the first, or a masked value.

    Raises:
      UserError: the heads do not divide the width.
    """

    causal = True

    def __init__(
        self, shape: tuple[int, int, int], outputs: int, levels: int, forms: Mapping[str, Form], *,
        depth: int, width: int, heads: int, expansion: int, dropout: float, rngs: nnx.Rngs,
    ):  # fmt: skip
        if width % heads:
            raise UserError(f'network.width is {width}; it should be divisible by network.heads ({heads}).')
        self.steps, self.heads = math.prod(shape), heads
        entry = lambda *shape: nnx.Param(_kernel(width)(rngs.params(), (*shape, width)))  # noqa: E731
        self.values, self.first = entry(levels), entry()
        self.rows, self.columns, self.channels = (entry(size) for size in shape)
        self.classes = layers.Classes(forms, width, rngs=rngs)
        self.blocks = nnx.List([
            Block(width, heads, expansion, depth, dropout, self.causal, rngs=rngs) for _ in range(depth)
        ])  # fmt: skip
        self.norm = nnx.LayerNorm(width, rngs=rngs)
        self.output = layers.Linear(width, outputs, kernel_init=layers.zeros, rngs=rngs)

    def _places(self, given: Given) -> Array:
        """The vectors of the places, (steps, width), or (batch, steps, width) with classes."""
        places = self.rows[...][:, None, None] + self.columns[...][:, None] + self.channels[...]
        places, classes = places.reshape(self.steps, -1), self.classes(given)
        return places if classes is None else places + classes[:, None]

    def _through(self, h: Array, given: Given, key: Array | None) -> Array:
        """Outputs (batch, steps, outputs) of the vectors of values, (batch, steps, width)."""
        h = h + self._places(given)
        for index, block in enumerate(self.blocks):
            h = block(h, None if key is None else jax.random.fold_in(key, index))
        return self.output(self.norm(h))


class MaskedTransformer(_Transformer):
    """Integers (batch, steps) and which of them are hidden, (batch, steps) → `outputs` per value.

    Every value sees all that are not hidden (H. Chang et al., MaskGIT, 2022, section 3.1).
    """

    causal = False

    def __call__(self, x: Array, hidden: Array, given: Given = None, key: Array | None = None) -> Array:
        return self._through(jnp.where(hidden[..., None], self.first[...], self.values[...][x]), given, key)


class PixelTransformer(InOrder, _Transformer):
    """Integer images (batch, *shape) → `outputs` per value; a step is a value, which sees those before it."""

    discrete = True

    def __call__(self, x: Array, given: Given = None, mask: Array | int = 0, key: Array | None = None) -> Array:
        before = self.values[...][x.reshape(len(x), -1)[:, :-1]]
        first = jnp.broadcast_to(self.first[...], (len(x), 1, before.shape[-1]))
        h = jnp.concatenate([first, before], axis=1)
        return self._through(h, given, key).reshape(*x.shape[:3], -1)

    def start(self, count: int) -> list[Array]:
        size = self.first[...].size // self.heads
        return [jnp.zeros((count, self.steps, 2, self.heads, size)) for _ in self.blocks]

    def step(
        self, x: Array, number: Array, kept: list[Array], given: Given, mask: Array | int
    ) -> tuple[Array, list[Array]]:
        before = self.values[...][x.reshape(len(x), -1)[:, number - 1]]
        place = jnp.take(self._places(given), number, axis=-2)
        h = (jnp.where(number > 0, before, self.first[...]) + place)[:, None]
        for index, block in enumerate(self.blocks):
            h, mine = block.step(h, number, kept[index])
            kept = [*kept[:index], mine, *kept[index + 1 :]]
        return self.output(self.norm(h))[:, 0], kept

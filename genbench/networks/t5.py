"""The encoder of T5 1.1, with the names and shapes under which its weights are published.

C. Raffel et al., Exploring the Limits of Transfer Learning with a Unified Text-to-Text Transformer, 2020; N. Shazeer,
GLU Variants Improve Transformer, 2020 (the perceptron of version 1.1). Norms divide by the root mean square, without
subtracting a mean; places enter as biases of attention that depend on the distance alone; no layer has a bias, and
attention is not divided by the root of its size. Matrices are stored (outputs, inputs).
"""

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

Array = jax.Array

EPSILON = 1e-6  # for normalisation
BUCKETS, FARTHEST = 32, 128  # of distances


def _matrix(outputs: int, inputs: int) -> nnx.Dict:
    return nnx.Dict(weight=nnx.Param(jnp.zeros((outputs, inputs))))


def _times(x: Array, layer: nnx.Dict) -> Array:
    return x @ layer['weight'][...].T


def buckets(length: int) -> np.ndarray:
    """The bucket (length, length) of the distance from a query, the row, to a key, the column.

    Half of the buckets are for keys after the query. In each half, the first half is of single distances, and the rest
    of ranges whose length grows exponentially up to `FARTHEST`.
    """
    distance = np.arange(length) - np.arange(length)[:, None]
    half = BUCKETS // 2
    single, away = half // 2, abs(distance)
    share = np.log(np.maximum(away, 1) / single) / math.log(FARTHEST / single)
    far = np.minimum(single + (share * (half - single)).astype(int), half - 1)
    return np.where(distance > 0, half, 0) + np.where(away < single, away, far)


class Norm(nnx.Module):
    """x (…, size) divided by its root mean square, times a weight."""

    def __init__(self, size: int):
        self.weight = nnx.Param(jnp.zeros(size))

    def __call__(self, x: Array) -> Array:
        return x * jax.lax.rsqrt(jnp.square(x).mean(-1, keepdims=True) + EPSILON) * self.weight[...]


class Attention(nnx.Module):
    """Self-attention between tokens (batch, length, size), with biases (heads, length, length) and a mask of keys."""

    def __init__(self, size: int, heads: int, inner: int, first: bool):
        self.q, self.k, self.v = (_matrix(inner, size) for _ in range(3))
        self.o, self.heads = _matrix(size, inner), heads
        if first:  # the biases of all blocks
            self.relative_attention_bias = _matrix(BUCKETS, heads)

    def biases(self, length: int) -> Array:
        return self.relative_attention_bias['weight'][...][buckets(length)].transpose(2, 0, 1)

    def __call__(self, x: Array, biases: Array, mask: Array) -> Array:
        q, k, v = (_times(x, layer).reshape(*x.shape[:2], self.heads, -1) for layer in (self.q, self.k, self.v))
        mixed = jax.nn.dot_product_attention(q, k, v, biases[None], mask[:, None, None], scale=1.0)
        return _times(mixed.reshape(*x.shape[:2], -1), self.o)


class Perceptron(nnx.Module):
    """wo (gelu(wi_0 x) · wi_1 x), with the approximation of GELU by a hyperbolic tangent."""

    def __init__(self, size: int, hidden: int):
        self.wi_0, self.wi_1, self.wo = _matrix(hidden, size), _matrix(hidden, size), _matrix(size, hidden)

    def __call__(self, x: Array) -> Array:
        return _times(jax.nn.gelu(_times(x, self.wi_0), approximate=True) * _times(x, self.wi_1), self.wo)


class Block(nnx.Module):
    """Residual attention and perceptron, each with a norm before it."""

    def __init__(self, size: int, heads: int, inner: int, hidden: int, first: bool):
        self.layer = nnx.List([
            nnx.Dict(SelfAttention=Attention(size, heads, inner, first), layer_norm=Norm(size)),
            nnx.Dict(DenseReluDense=Perceptron(size, hidden), layer_norm=Norm(size)),
        ])  # fmt: skip

    def __call__(self, x: Array, biases: Array, mask: Array) -> Array:
        attend, perceive = self.layer[0], self.layer[1]
        x = x + attend['SelfAttention'](attend['layer_norm'](x), biases, mask)
        return x + perceive['DenseReluDense'](perceive['layer_norm'](x))


class TextEncoder(nnx.Module):
    """Token ids (batch, length), 0 for padding → features of tokens (batch, length, size) and their mean (batch, size).

    No token sees padding, whose own features are zero.

    Args:
      inner: heads times the size of each.
      hidden: size of the perceptrons' hidden layers.
    """

    def __init__(self, *, vocabulary: int, size: int, depth: int, heads: int, inner: int, hidden: int):
        self.shared = _matrix(vocabulary, size)
        self.encoder = nnx.Dict(
            block=nnx.List([Block(size, heads, inner, hidden, first=not number) for number in range(depth)]),
            final_layer_norm=Norm(size),
        )

    def __call__(self, ids: Array) -> tuple[Array, Array]:
        blocks: Any = self.encoder['block']
        mask = ids > 0
        x = self.shared['weight'][...][ids]
        biases = blocks[0].layer[0]['SelfAttention'].biases(ids.shape[1])
        for block in blocks:
            x = block(x, biases, mask)
        x = self.encoder['final_layer_norm'](x) * mask[..., None]
        return x, x.sum(1) / jnp.maximum(mask.sum(1, keepdims=True), 1)

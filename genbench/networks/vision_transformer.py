"""The vision transformer of DINOv2 (Dosovitskiy et al. 2021; Oquab et al. 2023), as its weights are published.

Modules and parameters carry the published names, and matrices are stored as (outputs, inputs), so the names and shapes
of this module's parameters are those of the published weights.
"""

import jax
import jax.numpy as jnp
from flax import nnx

Array = jax.Array

EPSILON = 1e-6  # for layer normalisation


class Dense(nnx.Module):
    """x (…, inputs) → (…, outputs)."""

    def __init__(self, inputs: int, outputs: int):
        self.weight = nnx.Param(jnp.zeros((outputs, inputs)))
        self.bias = nnx.Param(jnp.zeros(outputs))

    def __call__(self, x: Array) -> Array:
        return x @ self.weight[...].T + self.bias[...]


class LayerNorm(nnx.Module):
    """Layer normalisation over the last axis (Ba et al. 2016)."""

    def __init__(self, size: int, epsilon: float = EPSILON):
        self.weight = nnx.Param(jnp.zeros(size))
        self.bias = nnx.Param(jnp.zeros(size))
        self.epsilon = epsilon

    def __call__(self, x: Array) -> Array:
        centred = x - x.mean(-1, keepdims=True)
        scale = jax.lax.rsqrt(jnp.square(centred).mean(-1, keepdims=True) + self.epsilon)
        return centred * scale * self.weight[...] + self.bias[...]


class LayerScale(nnx.Module):
    """A learned factor per channel of a residual branch (Touvron et al. 2021)."""

    def __init__(self, size: int):
        self.gamma = nnx.Param(jnp.zeros(size))

    def __call__(self, x: Array) -> Array:
        return x * self.gamma[...]


class Attention(nnx.Module):
    """Self-attention between tokens (batch, tokens, size)."""

    def __init__(self, size: int, heads: int):
        self.qkv, self.proj = Dense(size, 3 * size), Dense(size, size)
        self.heads = heads

    def __call__(self, x: Array) -> Array:
        batch, tokens, size = x.shape
        qkv = self.qkv(x).reshape(batch, tokens, 3, self.heads, size // self.heads)
        mixed = jax.nn.dot_product_attention(qkv[:, :, 0], qkv[:, :, 1], qkv[:, :, 2])
        return self.proj(mixed.reshape(x.shape))


class Perceptron(nnx.Module):
    """Two layers with the exact GELU between them."""

    def __init__(self, size: int, hidden: int):
        self.fc1, self.fc2 = Dense(size, hidden), Dense(hidden, size)

    def __call__(self, x: Array) -> Array:
        return self.fc2(jax.nn.gelu(self.fc1(x), approximate=False))


class Block(nnx.Module):
    """Residual attention and perceptron, each with a norm before it and a scale after it."""

    def __init__(self, size: int, heads: int):
        self.norm1, self.attn, self.ls1 = LayerNorm(size), Attention(size, heads), LayerScale(size)
        self.norm2, self.mlp, self.ls2 = LayerNorm(size), Perceptron(size, 4 * size), LayerScale(size)

    def __call__(self, x: Array) -> Array:
        x = x + self.ls1(self.attn(self.norm1(x)))
        return x + self.ls2(self.mlp(self.norm2(x)))


class Patches(nnx.Module):
    """Images (batch, height, width, 3) → tokens (batch, patches, size), row by row."""

    def __init__(self, size: int, patch: int):
        self.proj = nnx.Dict(weight=nnx.Param(jnp.zeros((size, 3, patch, patch))), bias=nnx.Param(jnp.zeros(size)))
        self.patch = patch

    def __call__(self, x: Array) -> Array:
        batch, height, width, channels = x.shape
        rows, columns = height // self.patch, width // self.patch
        x = x.reshape(batch, rows, self.patch, columns, self.patch, channels)
        tokens = jnp.einsum('nyhxwc,ochw->nyxo', x, self.proj['weight'][...])
        return tokens.reshape(batch, rows * columns, -1) + self.proj['bias'][...]


class VisionTransformer(nnx.Module):
    """Scaled square images (batch, height, width, 3) → the class token after the last norm (batch, size).

    Args:
      positions: the number of learned positions along a side, which equals the number of patches along an image's side.
    """

    def __init__(self, *, size: int, depth: int, heads: int, patch: int, positions: int):
        self.cls_token = nnx.Param(jnp.zeros((1, 1, size)))
        self.pos_embed = nnx.Param(jnp.zeros((1, 1 + positions**2, size)))
        self.patch_embed = Patches(size, patch)
        self.blocks = nnx.List([Block(size, heads) for _ in range(depth)])
        self.norm = LayerNorm(size)

    def __call__(self, x: Array) -> Array:
        patches = self.patch_embed(x)
        first = jnp.broadcast_to(self.cls_token[...], (len(x), 1, patches.shape[-1]))
        x = jnp.concatenate([first, patches], axis=1) + self.pos_embed[...]
        for block in self.blocks:
            x = block(x)
        return self.norm(x[:, 0])

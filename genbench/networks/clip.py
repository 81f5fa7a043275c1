"""The two towers of CLIP (Radford et al. 2021), with the names and shapes under which their weights are published.

The names are those of the published conversion that `transformers` reads; matrices are stored (outputs, inputs).
"""

import jax
import jax.numpy as jnp
from flax import nnx

from genbench.networks.vision_transformer import Dense, LayerNorm

Array = jax.Array

EPSILON = 1e-5  # for layer normalisation
VOCABULARY, LENGTH = 49_408, 77  # token ids, of which the last ends texts, and the most tokens of a text
TEXTS = {  # the published text towers; their projections keep the size
    'clip-vitb32': {'size': 512, 'depth': 12, 'heads': 8},
    'clip-vitl14': {'size': 768, 'depth': 12, 'heads': 12},
}


def _norm(size: int) -> LayerNorm:
    return LayerNorm(size, EPSILON)


class Attention(nnx.Module):
    """Self-attention between tokens (batch, tokens, size); with `causal`, a token sees itself and those before it."""

    def __init__(self, size: int, heads: int, causal: bool = False):
        self.q_proj, self.k_proj, self.v_proj, self.out_proj = (Dense(size, size) for _ in range(4))
        self.heads, self.causal = heads, causal

    def __call__(self, x: Array) -> Array:
        parts = (*x.shape[:2], self.heads, x.shape[2] // self.heads)
        q, k, v = (project(x).reshape(parts) for project in (self.q_proj, self.k_proj, self.v_proj))
        return self.out_proj(jax.nn.dot_product_attention(q, k, v, is_causal=self.causal).reshape(x.shape))


class Block(nnx.Module):
    """Residual attention and perceptron, each with a norm before it; the activation is x σ(1.702 x)."""

    def __init__(self, size: int, heads: int, causal: bool = False):
        self.layer_norm1, self.self_attn = _norm(size), Attention(size, heads, causal)
        self.layer_norm2 = _norm(size)
        self.mlp = nnx.Dict(fc1=Dense(size, 4 * size), fc2=Dense(4 * size, size))

    def __call__(self, x: Array) -> Array:
        x = x + self.self_attn(self.layer_norm1(x))
        hidden = self.mlp['fc1'](self.layer_norm2(x))
        return x + self.mlp['fc2'](hidden * jax.nn.sigmoid(1.702 * hidden))


class Embeddings(nnx.Module):
    """Images (batch, height, width, 3) → the class token and one token per patch, with position embeddings."""

    def __init__(self, size: int, patch: int, tokens: int):
        self.class_embedding = nnx.Param(jnp.zeros(size))
        self.patch_embedding = nnx.Dict(weight=nnx.Param(jnp.zeros((size, 3, patch, patch))))
        self.position_embedding = nnx.Dict(weight=nnx.Param(jnp.zeros((tokens, size))))
        self.patch = patch

    def __call__(self, x: Array) -> Array:
        batch, height, width, channels = x.shape
        rows, columns = height // self.patch, width // self.patch
        x = x.reshape(batch, rows, self.patch, columns, self.patch, channels)
        patches = jnp.einsum('nyhxwc,ochw->nyxo', x, self.patch_embedding['weight'][...])
        patches = patches.reshape(batch, rows * columns, -1)
        first = jnp.broadcast_to(self.class_embedding[...], (batch, 1, patches.shape[-1]))
        return jnp.concatenate([first, patches], axis=1) + self.position_embedding['weight'][...]


class Tower(nnx.Module):
    """Scaled square images (batch, height, width, 3) → the class token after the last norm (batch, size)."""

    def __init__(self, *, size: int, depth: int, heads: int, patch: int, image: int):
        self.embeddings = Embeddings(size, patch, 1 + (image // patch) ** 2)
        self.pre_layrnorm = _norm(size)  # the published weights spell it like this
        self.encoder = nnx.Dict(layers=nnx.List([Block(size, heads) for _ in range(depth)]))
        self.post_layernorm = _norm(size)

    def __call__(self, x: Array) -> Array:
        x = self.pre_layrnorm(self.embeddings(x))
        for block in self.encoder['layers']:
            x = block(x)
        return self.post_layernorm(x[:, 0])


class ImageEncoder(nnx.Module):
    """Scaled images (batch, image, image, 3) → embeddings (batch, embedding), which CLIP compares to texts."""

    def __init__(self, *, size: int, depth: int, heads: int, patch: int, image: int, embedding: int):
        self.vision_model = Tower(size=size, depth=depth, heads=heads, patch=patch, image=image)
        self.visual_projection = nnx.Dict(weight=nnx.Param(jnp.zeros((embedding, size))))

    def __call__(self, x: Array) -> Array:
        return self.vision_model(x) @ self.visual_projection['weight'][...].T


class TextTower(nnx.Module):
    """Token ids (batch, length) → the states after each block, (batch, length, size), and the last after its norm."""

    def __init__(self, *, vocabulary: int, size: int, depth: int, heads: int, length: int):
        self.embeddings = nnx.Dict(
            token_embedding=nnx.Dict(weight=nnx.Param(jnp.zeros((vocabulary, size)))),
            position_embedding=nnx.Dict(weight=nnx.Param(jnp.zeros((length, size)))),
        )
        self.encoder = nnx.Dict(layers=nnx.List([Block(size, heads, causal=True) for _ in range(depth)]))
        self.final_layer_norm = _norm(size)

    def __call__(self, ids: Array) -> tuple[list[Array], Array]:
        tokens, places = (self.embeddings[name]['weight'][...] for name in ('token_embedding', 'position_embedding'))
        x, states = tokens[ids] + places[: ids.shape[1]], []
        for block in self.encoder['layers']:
            x = block(x)
            states.append(x)
        return states, self.final_layer_norm(x)


class TextEncoder(nnx.Module):
    """Token ids (batch, length) → features of tokens (batch, length, size) and of whole texts (batch, size).

    The feature of a text is that of its first end token, after the last norm.

    Args:
      end: the id of the end token.
      skip: how many last blocks the features of tokens leave out. Those of the last block are normalised; earlier ones
        are not, as in Stable Diffusion XL and 3.
      embedding: size of a projection of the feature of a text, into the space where CLIP compares it to images; 0: no
        projection.
    """

    def __init__(
        self, *, vocabulary: int, size: int, depth: int, heads: int, length: int, end: int, skip: int = 0,
        embedding: int = 0,
    ):  # fmt: skip
        self.text_model = TextTower(vocabulary=vocabulary, size=size, depth=depth, heads=heads, length=length)
        if embedding:
            self.text_projection = nnx.Dict(weight=nnx.Param(jnp.zeros((embedding, size))))
        self.end, self.skip, self.projected = end, skip, bool(embedding)

    def __call__(self, ids: Array) -> tuple[Array, Array]:
        states, last = self.text_model(ids)
        whole = last[jnp.arange(len(ids)), jnp.argmax(ids == self.end, axis=1)]
        if self.projected:
            whole = whole @ self.text_projection['weight'][...].T
        return states[-1 - self.skip] if self.skip else last, whole

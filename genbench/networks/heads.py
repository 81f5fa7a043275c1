"""Small discriminators on the features of a frozen network, one for each of its states.

A. Sauer et al., StyleGAN-T: Unlocking the Power of GANs for Fast Large-Scale Text-to-Image Synthesis, 2023 (heads with
a residual block and projection); A. Sauer et al., Adversarial Diffusion Distillation, 2023, section 3.2.
"""

from collections.abc import Mapping, Sequence

import jax
import jax.numpy as jnp
from flax import nnx

from genbench.data.conditions import Form, Given
from genbench.networks import layers

Array = jax.Array
TIME_FEATURES, GROUPS, SLOPE = 64, 8, 0.2  # of the sinusoids, the normalisations and the leaky ReLUs


class Head(nnx.Module):
    """A state (batch, height, width, inputs) and a vector (batch, channels) → logits (batch, height, width).

    A logit is linear in the features at its place, by weights that the vector changes (Miyato & Koyama 2018).
    """

    def __init__(self, inputs: int, channels: int, *, rngs: nnx.Rngs):
        self.entry = layers.Conv(inputs, channels, kernel=1, rngs=rngs)
        self.conv = layers.Conv(channels, channels, rngs=rngs)
        self.norms = nnx.List([layers.GroupNorm(channels, groups=GROUPS) for _ in range(2)])
        self.output = layers.Linear(channels, 1, rngs=rngs)

    def __call__(self, state: Array, vector: Array) -> Array:
        h = nnx.leaky_relu(self.norms[0](self.entry(state.astype(jnp.float32))), SLOPE)
        h = (h + nnx.leaky_relu(self.norms[1](self.conv(h)), SLOPE)) / 2**0.5
        return self.output(h)[..., 0] + jnp.einsum('bhwc,bc->bhw', h, vector) / h.shape[-1] ** 0.5


class Heads(nnx.Module):
    """States of a frozen network, their time (batch,) and conditions → the logits of one `Head` for each state.

    Args:
      widths: the number of channels of each state.
      channels: the number of channels of each head.
    """

    def __init__(self, widths: Sequence[int], channels: int, forms: Mapping[str, Form], *, rngs: nnx.Rngs):
        self.conditioning = layers.Conditioning(
            TIME_FEATURES, channels, forms, endpoint=True, kernel_init=layers.fan_average,
            class_init=nnx.initializers.normal(1.0), vector_init=layers.fan_average, rngs=rngs,
        )  # fmt: skip
        self.heads = nnx.List([Head(width, channels, rngs=rngs) for width in widths])

    def __call__(self, states: Sequence[Array], t: Array, given: Given) -> list[Array]:
        vector = self.conditioning(t, given)
        return [head(state, vector) for head, state in zip(self.heads, states, strict=True)]

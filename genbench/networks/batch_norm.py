"""Batch normalisation of images, whose gains and shifts may depend on classes or on vectors.

S. Ioffe, C. Szegedy, Batch Normalization, 2015; V. Dumoulin, J. Shlens, M. Kudlur, A Learned Representation for
Artistic Style, 2017 (gains and shifts of each class); A. Brock, J. Donahue, K. Simonyan, Large Scale GAN Training for
High Fidelity Natural Image Synthesis, 2019 (those that are linear in a vector).
"""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from genbench.data.conditions import Form, Given
from genbench.networks import layers
from genbench.networks.invertible import Running

Array = jax.Array


class BatchNorm(Running):
    """Normalisation of x (batch, height, width, channels), with running statistics once it no longer trains.

    Args:
      forms: conditions, each of whose classes has gains and shifts of its own.
      vector: length of a vector in which gains and shifts are linear; 0: there is none.
      kind: the module of linear layers, `layers` or `spectral`.
      deviation: of the first gains, where they depend on nothing.
    """

    EPSILON = 1e-5

    def __init__(
        self, channels: int, *, forms: Mapping[str, Form] | None = None, vector: int = 0, kind: Any = layers,
        deviation: float = 0.0, rngs: nnx.Rngs,
    ):  # fmt: skip
        super().__init__(channels)
        started = 1 + deviation * jax.random.normal(rngs.params(), (channels,))
        alone = not forms and not vector
        self.scale = nnx.Param(started) if alone else None
        self.shift = nnx.Param(jnp.zeros(channels)) if alone else None
        self.classes = layers.Classes(forms, 2 * channels, embedding_init=layers.zeros, rngs=rngs) if forms else None
        self.linear = kind.Linear(vector, 2 * channels, use_bias=False, rngs=rngs) if vector else None

    def __call__(self, x: Array, training: bool, given: Given = None, vector: Array | None = None) -> Array:
        mean, variance = self.moments(x.astype(jnp.float32), training, fit=False)
        scale, shift = self._affine(given, vector)
        factor = jax.lax.rsqrt(variance + self.EPSILON) * scale
        return (x * factor + (shift - mean * factor)).astype(x.dtype)

    def _affine(self, given: Given, vector: Array | None) -> tuple[Array, Array]:
        """Gains and shifts, which broadcast with images."""
        if self.scale is not None and self.shift is not None:
            return self.scale[...], self.shift[...]
        told: list[Any] = [] if self.classes is None else [self.classes(given)]
        told += [] if self.linear is None else [self.linear(vector)]
        gain, shift = jnp.split(sum(told, jnp.zeros(()))[:, None, None], 2, axis=-1)
        return 1 + gain, shift

"""A generator with batch normalisation and a discriminator of maxout units, both of vectors.

I. Goodfellow et al., Maxout Networks, 2013; S. Ioffe, C. Szegedy, Batch Normalization, 2015. The defaults are those of
Z. Lin et al., PacGAN, 2018, for points in the plane.
"""

import math
from collections.abc import Mapping

import jax
import jax.numpy as jnp
from flax import nnx

from genbench.data.conditions import Form, Given
from genbench.errors import UserError
from genbench.networks import layers
from genbench.networks.invertible import Running
from genbench.ranges import COUNT, COUNT_OR_NONE, POSITIVE, each

Array = jax.Array

DEFAULTS = {
    'latent': 0,  # dimensions of z; 0: as many as an image has
    'hidden': (400, 400, 400, 400),  # widths of the generator's hidden layers
    'normalise': True,  # batch normalisation before their ReLUs
    'discriminator_hidden': (200, 200, 200),  # numbers of maxout units in each layer of the discriminator
    'pieces': 5,  # linear functions whose maximum a unit takes
    'scale': 1.0,  # both networks compute with images in [−scale, scale]
}
RANGES = {
    'latent': COUNT_OR_NONE, 'hidden': each(COUNT, fewest=1), 'discriminator_hidden': each(COUNT, fewest=1),
    'pieces': COUNT, 'scale': POSITIVE,
}  # fmt: skip
GENERATOR, DISCRIMINATOR = ('latent', 'hidden', 'normalise'), ('discriminator_hidden', 'pieces')
DEVIATION = 0.02  # of all first weights
EPSILON = 1e-4  # added to variances

_kernel = nnx.initializers.normal(DEVIATION)


def _linear(before: int, after: int, use_bias: bool, rngs: nnx.Rngs) -> layers.Linear:
    return layers.Linear(before, after, use_bias=use_bias, kernel_init=_kernel, rngs=rngs)


def _refuse(forms: Mapping[str, Form]) -> None:
    if forms:
        raise UserError(f'network.name=maxout takes no conditions, and the family gives it {next(iter(forms))!r}; use '
                        'resnet or mlp.')  # fmt: skip


class Normalisation(Running):
    """Batch normalisation of vectors (batch, dims), with running statistics once it no longer trains."""

    MOMENTUM = 0.95

    def __init__(self, dims: int):
        super().__init__(dims)
        self.scale, self.shift = nnx.Param(jnp.ones(dims)), nnx.Param(jnp.zeros(dims))

    def __call__(self, x: Array, training: bool) -> Array:
        mean, variance = self.moments(x, training, fit=False)
        return (x - mean) * jax.lax.rsqrt(variance + EPSILON) * self.scale[...] + self.shift[...]


class Generator(nnx.Module):
    """Latents (batch, latent) → images (batch, *shape), not limited to [−1, 1]."""

    def __init__(
        self, shape: tuple[int, int, int], latent: int, forms: Mapping[str, Form], *,
        hidden: tuple[int, ...], normalise: bool, scale: float, rngs: nnx.Rngs,
    ):  # fmt: skip
        _refuse(forms)
        self.shape, self.scale, sizes = shape, scale, (latent, *hidden)
        pairs = zip(sizes[:-1], sizes[1:], strict=True)
        self.layers = nnx.List([_linear(before, after, not normalise, rngs) for before, after in pairs])
        self.norms = nnx.List([Normalisation(size) for size in hidden if normalise])
        self.output = _linear(hidden[-1], math.prod(shape), True, rngs)

    def __call__(self, z: Array, given: Given = None, training: bool = False) -> Array:
        """In training, the normalisation takes the statistics of the batch and keeps a running mean of them."""
        for index, layer in enumerate(self.layers):
            z = layer(z)
            z = nnx.relu(self.norms[index](z, training) if self.norms else z)
        return self.output(z).reshape(len(z), *self.shape) / self.scale


class Discriminator(nnx.Module):
    """Images (batch, *shape) → logits (batch,)."""

    def __init__(
        self, shape: tuple[int, int, int], forms: Mapping[str, Form], *,
        discriminator_hidden: tuple[int, ...], pieces: int, scale: float, rngs: nnx.Rngs,
    ):  # fmt: skip
        _refuse(forms)
        self.pieces, self.scale, sizes = pieces, scale, (math.prod(shape), *discriminator_hidden)
        pairs = zip(sizes[:-1], sizes[1:], strict=True)
        self.layers = nnx.List([_linear(before, after * pieces, True, rngs) for before, after in pairs])
        self.output = _linear(sizes[-1], 1, True, rngs)

    def __call__(self, x: Array, given: Given = None) -> Array:
        h = x.reshape(len(x), -1) * self.scale
        for layer in self.layers:
            h = layer(h).reshape(len(h), -1, self.pieces).max(-1)
        return self.output(h)[:, 0]

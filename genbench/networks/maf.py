"""Masked autoregressive flows, and RealNVP as their paper has it: invertible maps of an image's logits as a vector.

G. Papamakarios, T. Pavlakou, I. Murray, Masked Autoregressive Flow for Density Estimation, 2017 (MAF); L. Dinh,
J. Sohl-Dickstein, S. Bengio, Density estimation using Real NVP, 2017 (RealNVP).

Each layer maps x (batch, dims) to u and log |det du/dx| (batch,). Its `inverse` maps u back, one degree after another:
all dimensions in turn for an autoregressive layer, and two halves for a coupling.
"""

import math
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from genbench.data.conditions import Form, Given
from genbench.networks.invertible import Logit, Running
from genbench.networks.made import Made
from genbench.ranges import COUNT, COUNT_OR_NONE, Range, each, one_of

Array = jax.Array

DEFAULTS = {
    'layers': 5,  # affine layers, whose orderings alternate
    'transform': 'masked',  # or 'coupling'
    'components': 0,  # of the mixtures of normals in a last, autoregressive layer; 0: no such layer
    'hidden': (1024, 1024),  # widths of the hidden layers of each network
    'normalise': True,  # batch normalisation after each affine layer
    'margin': 1e-6,  # α of the logits, as in `couplings`
}
RANGES = {
    'layers': COUNT_OR_NONE,
    'transform': one_of('masked', 'coupling'),
    'components': COUNT_OR_NONE,
    'hidden': each(COUNT, fewest=1),
    'margin': Range(0, 0.5, above=True, below=True),
}
EPSILON = 1e-5  # of the batch normalisation
HALVINGS = 40  # of the interval that is known to contain the inverse of a mixture
FURTHEST = 5.2  # beyond this, the normal distribution function is one in float32


def inversion(config: Any, dims: int) -> int:
    """The number of network evaluations of `Flow.inverse`: one for each degree of each layer."""
    each_layer = 2 if config.transform == 'coupling' else dims
    return config.layers * each_layer + dims * (config.components > 0)


def made(
    dims: int, outputs: int, forms: Mapping[str, Form], order: str, hidden: tuple[int, ...], rngs: nnx.Rngs,
    activation: str = 'relu',
) -> Made:  # fmt: skip
    return Made(
        dims, outputs, forms, hidden=hidden, activation=activation, order=order, kernels='as_pytorch', rngs=rngs
    )


class Affine(nnx.Module):
    """u = (x − μ(x)) exp(−α(x)), where μ and α of a dimension see those before it (MAF, equation 4).

    A coupling is the same with two groups in place of an ordering: one group sees nothing and stays, and the other
    sees the first. Its μ and α have separate networks, with ReLU and tanh (MAF, section 4).
    """

    def __init__(self, dims: int, forms: Mapping[str, Form], *, order: str, hidden: tuple[int, ...], rngs: nnx.Rngs):
        self.coupling = order in ('even', 'odd')
        several = ('relu', 'tanh') if self.coupling else ('relu',)
        self.networks = nnx.List([made(dims, 2 // len(several), forms, order, hidden, rngs, one) for one in several])

    def _parameters(self, x: Array, given: Given) -> tuple[Array, Array]:
        found = jnp.concatenate([network(x, given) for network in self.networks], axis=-1)
        if self.coupling:
            found = jnp.where(self.degrees[:, None] > 0, found, 0)
        return found[..., 0], found[..., 1]

    @property
    def degrees(self) -> Array:
        return jnp.asarray(self.networks[0].degrees[0][0])

    @property
    def evaluations(self) -> int:
        """The number of network evaluations of the inverse."""
        return int(self.networks[0].degrees[0].max()) + 1

    def __call__(self, x: Array, given: Given = None) -> tuple[Array, Array]:
        shift, log_scale = self._parameters(x, given)
        return (x - shift) * jnp.exp(-log_scale), -log_scale.sum(1)

    def inverse(self, u: Array, given: Given = None) -> Array:
        def fill(degree: Array, x: Array) -> Array:
            shift, log_scale = self._parameters(x, given)
            return jnp.where(self.degrees == degree, u * jnp.exp(log_scale) + shift, x)

        return jax.lax.fori_loop(0, self.evaluations, fill, jnp.zeros_like(u))


class Mixture(nnx.Module):
    """u = Φ⁻¹(F(x)) for the distribution function F of a mixture of normals, whose parameters see the x before it.

    With u ~ N(0, I), each x given those before it has this mixture as its density (MAF, section 4, MADE MoG). log |det|
    is the difference of the two log-densities. The density is exact even where u is cut off in the tails, for the
    log-density of the same u cancels in the sum of both.
    """

    def __init__(
        self, dims: int, forms: Mapping[str, Form], *, order: str, components: int, hidden: tuple[int, ...],
        rngs: nnx.Rngs,
    ):  # fmt: skip
        self.network = made(dims, 3 * components, forms, order, hidden, rngs)

    @property
    def evaluations(self) -> int:
        return self.network.dims

    def _parameters(self, x: Array, given: Given) -> tuple[Array, Array, Array]:
        """Means, log-scales and log-weights, (batch, dims, components)."""
        mean, log_scale, logits = jnp.split(self.network(x, given), 3, axis=-1)
        return mean, log_scale, jax.nn.log_softmax(logits)

    def __call__(self, x: Array, given: Given = None) -> tuple[Array, Array]:
        mean, log_scale, log_weight = self._parameters(x, given)
        place = (x[..., None] - mean) * jnp.exp(-log_scale)
        log_p = jax.nn.logsumexp(log_weight + jax.scipy.stats.norm.logpdf(place) - log_scale, axis=-1)
        share = jax.lax.stop_gradient((jnp.exp(log_weight) * jax.scipy.special.ndtr(place)).sum(-1))
        u = jnp.clip(jax.scipy.special.ndtri(jnp.clip(share, 0.0, 1.0)), -FURTHEST, FURTHEST)
        return u, (log_p - jax.scipy.stats.norm.logpdf(u)).sum(1)

    def inverse(self, u: Array, given: Given = None) -> Array:
        places, share = jnp.asarray(self.network.degrees[0][0]), jax.scipy.special.ndtr(u)

        def fill(degree: Array, x: Array) -> Array:
            mean, log_scale, log_weight = self._parameters(x, given)
            scale, weight = jnp.exp(log_scale), jnp.exp(log_weight)

            def halve(_: int, ends: tuple[Array, Array]) -> tuple[Array, Array]:
                middle = (ends[0] + ends[1]) / 2
                inside = (weight * jax.scipy.special.ndtr((middle[..., None] - mean) / scale)).sum(-1)
                return jnp.where(inside < share, middle, ends[0]), jnp.where(inside < share, ends[1], middle)

            ends = ((mean - 6 * scale).min(-1), (mean + 6 * scale).max(-1))
            low, high = jax.lax.fori_loop(0, HALVINGS, halve, ends)
            return jnp.where(places == degree, (low + high) / 2, x)

        return jax.lax.fori_loop(0, self.evaluations, fill, jnp.zeros_like(u))


class BatchNorm(Running):
    """Batch normalisation as an invertible layer (RealNVP, section 3.7), with running statistics after training."""

    def __init__(self, dims: int):
        super().__init__(dims)
        self.log_scale, self.shift = nnx.Param(jnp.zeros(dims)), nnx.Param(jnp.zeros(dims))

    def __call__(self, x: Array, training: bool, fit: bool) -> tuple[Array, Array]:
        mean, variance = self.moments(x, training, fit)
        log_scale = self.log_scale[...] - jnp.log(variance + EPSILON) / 2
        log_det = jnp.broadcast_to(log_scale.sum(), len(x))
        return (x - mean) * jnp.exp(log_scale) + self.shift[...], log_det

    def inverse(self, y: Array) -> Array:
        log_scale = self.log_scale[...] - jnp.log(self.variance[...] + EPSILON) / 2
        return (y - self.shift[...]) * jnp.exp(-log_scale) + self.mean[...]


class Flow(nnx.Module):
    """Images in [−1, 1] (batch, *shape) ↔ vectors (batch, dims), normal after training.

    Calls have the form of those to `couplings.Flow`. With a key or with `fit`, the normalisations use the statistics
    of the batch.
    """

    def __init__(
        self, shape: tuple[int, int, int], forms: Mapping[str, Form], *, layers: int, transform: str, components: int,
        hidden: tuple[int, ...], normalise: bool, margin: float, rngs: nnx.Rngs,
    ):  # fmt: skip
        self.shape, self.logit, dims = shape, Logit(margin), math.prod(shape)
        orders = ('odd', 'even') if transform == 'coupling' else ('raster', 'reversed')
        self.layers = nnx.List([
            Affine(dims, forms, order=orders[index % 2], hidden=hidden, rngs=rngs) for index in range(layers)
        ])  # fmt: skip
        self.norms = nnx.List([BatchNorm(dims) for _ in range(layers if normalise else 0)])
        last = ('raster', 'reversed')[layers % 2]
        self.mixture = (
            Mixture(dims, forms, order=last, components=components, hidden=hidden, rngs=rngs) if components else None
        )

    def __call__(
        self, x: Array, given: Given = None, key: Array | None = None, fit: bool = False
    ) -> tuple[Array, Array]:
        x, log_det = self.logit(x)
        x = x.reshape(len(x), -1)
        for index, layer in enumerate(self.layers):
            x, change = layer(x, given)
            log_det += change
            if self.norms:
                x, change = self.norms[index](x, key is not None, fit)
                log_det += change
        if self.mixture is not None:
            x, change = self.mixture(x, given)
            log_det += change
        return x, log_det

    def inverse(self, z: Array, given: Given = None) -> Array:
        """Map vectors back to images."""
        if self.mixture is not None:
            z = self.mixture.inverse(z, given)
        for index in reversed(range(len(self.layers))):
            if self.norms:
                z = self.norms[index].inverse(z)
            z = self.layers[index].inverse(z, given)
        return self.logit.inverse(z.reshape(len(z), *self.shape))

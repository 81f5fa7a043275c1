"""Normalizing flow: an exact density of dequantised images, and samples by the inverse of the network.

With `network.name=residual_flow` the density of larger images is an estimate, and the inverse a number of iterations.

L. Dinh, J. Sohl-Dickstein, S. Bengio, Density estimation using Real NVP, 2017 (RealNVP); D. Kingma, P. Dhariwal, Glow:
Generative Flow with Invertible 1×1 Convolutions, 2018; G. Papamakarios, T. Pavlakou, I. Murray, Masked Autoregressive
Flow for Density Estimation, 2017 (MAF).
"""

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

import jax
from flax import nnx

from genbench import rng
from genbench.data.conditions import Given
from genbench.data.spec import DataSpec
from genbench.errors import UserError
from genbench.families import dequantisation
from genbench.families.base import (
    Array,
    Batch,
    Family,
    Likelihood,
    Networks,
    Sampler,
    Scalars,
    Update,
    register,
)
from genbench.networks import dequantiser, estimated, flow, inversion
from genbench.ranges import COUNT, NOT_NEGATIVE, one_of

LOGITS = 'density_of_logits'  # the names of parts of a likelihood
ERROR = 'estimator_error'


@register('normalizing_flow')
class NormalizingFlow(Family):
    """z = f(x) ~ N(0, I) for an invertible network f."""

    ranges = {
        'noise': one_of('fresh', 'static'),
        'scale_penalty': NOT_NEGATIVE,
        'dequantisation': one_of('uniform', 'variational'),
        'dequantiser_channels': COUNT,
        'dequantiser_blocks': COUNT,
        'dequantiser_components': COUNT,
    }

    def __init__(self, config: Any, spec: DataSpec, borrowed: Any = None):
        super().__init__(config, spec, borrowed)
        self.variational = config.family.dequantisation == 'variational'
        if self.variational:
            self.space = dequantisation.VariationalPixels(spec)

    @classmethod
    def defaults(cls) -> dict[str, Any]:
        # The noise that dequantises training images is drawn at each use ('fresh') or once for an image ('static').
        # `scale_penalty` weighs the squares of the scales that a network wants small, in nats of an image.
        # The sizes of `dequantiser` are those of the network that `dequantisation=variational` trains beside the flow.
        sizes = {'dequantiser_channels': 32, 'dequantiser_blocks': 2, 'dequantiser_components': 8}
        own = {'noise': 'fresh', 'scale_penalty': 0.0, 'dequantisation': 'uniform', **sizes}
        return {'family': {**super().defaults()['family'], **own}, 'network': {'name': 'couplings'}}

    def networks(self, rngs: nnx.Rngs) -> dict[str, nnx.Module]:
        found = flow(self.config.network, self.space, self.forms, rngs)
        if self.config.family.scale_penalty and not hasattr(found, 'penalty'):
            raise UserError(f'family.scale_penalty is set, but network.name={self.config.network.name} has no scales '
                            'to penalise; use network.name=real_nvp, or 0.')  # fmt: skip
        if not self.variational:
            return {'flow': found}
        return {'flow': found, 'dequantiser': dequantiser(self.config.family, self.space, rngs)}

    def initialise(self, networks: Networks, batch: Batch, key: Array) -> None:
        """Set the activation normalisations from the first batch (Glow, section 3.1)."""
        if self.variational:
            noise = rng.normal(batch['key'], 'places', self.space.shape)
            networks['dequantiser'](self.spec.dequantise(batch['image']), noise, fit=True)
        networks['flow'](self.space.encode(networks, batch), self.given(batch), fit=True)

    @property
    def updates(self) -> tuple[Update, ...]:
        moved = ('flow', 'dequantiser') if self.variational else ('flow',)
        alike = self.config.network.name == 'residual_flow'  # its singular vectors depend on its kernels alone
        return (Update('likelihood', moved, self.loss, splits=alike),)

    def loss(self, networks: Networks, batch: Batch, key: Array, step: Array) -> tuple[Array, Scalars]:
        """−log p(x) in bits per dimension, with x drawn uniformly from the image's bins (Glow, equations 1 and 2)."""
        rows = {**batch, 'key': rng.of_contents(batch['image'])} if self.config.family.noise == 'static' else batch
        x, weight = (
            self.space.draw(networks, rows['image'], rows['key']) if self.variational
            else (self.space.encode(networks, rows), self.space.log_volume)
        )  # fmt: skip
        log_p = self._log_density(networks, x, self.given(batch), key, batch['key'])
        loss = self.spec.bits_per_dim((log_p + weight).mean())
        if not self.config.family.scale_penalty:
            return loss, {'loss': loss}
        penalty = self.config.family.scale_penalty * networks['flow'].penalty()
        return loss + self.spec.bits_per_dim(-penalty), {'loss': loss, 'penalty': penalty}

    def _log_density(
        self, networks: Networks, x: Array, given: Given, key: Array | None = None, keys: Array | None = None
    ) -> Array:
        """log N(f(x); 0, I) + log |det df/dx|, (batch,) (RealNVP, equation 3), or an estimate of it.

        Args:
          key: in training, the key for everything but the noise of estimates.
          keys: one key per image, for that noise.
        """
        z, log_det = self._forward(networks, x, given, key, keys)
        return jax.scipy.stats.norm.logpdf(z).sum(-1) + log_det

    def _forward(
        self, networks: Networks, x: Array, given: Given, key: Array | None, keys: Array | None
    ) -> tuple[Array, Array]:
        noise = {'keys': keys} if self.config.network.name == 'residual_flow' else {}
        return networks['flow'](x, given, key, **noise)

    def why_no_inverse(self, sampler: Sampler) -> str:
        return ''

    def inverted(self, networks: Networks, images: Array, keys: Array, given: Given, sampler: Sampler) -> Array:
        return self._forward(networks, self.space.centre(networks, images), given, None, keys)[0]

    @property
    def latent_shape(self) -> tuple[int, ...]:
        return (math.prod(self.space.shape),)

    def generate(self, networks: Networks, latents: Array, keys: Array, given: Given, sampler: Sampler) -> Array:
        return self.space.decode(networks, networks['flow'].inverse(latents, given))

    def evaluations(self, sampler: Sampler) -> int:
        return inversion(self.config.network, self.space)

    @property
    def likelihoods(self) -> tuple[Likelihood, ...]:
        def density(networks: Networks, given: Given, number: int = 0) -> dequantisation.LogDensity:
            return lambda x, keys: self._log_density(networks, x, given, keys=rng.numbered(keys, number))

        def one_draw(networks: Networks, images: Array, given: Given, keys: Array, number: int = 0) -> Array:
            log_density = density(networks, given, number)
            return dequantisation.bound(self.space, networks, log_density, images, keys, 1)

        def with_logits(networks: Networks, images: Array, given: Given, keys: Array) -> Mapping[str, Array]:
            """The bound, and the log-density of the same draw's logits, which MAF reports."""
            total = one_draw(networks, images, given, keys)
            x, weight = dequantisation.draw(self.space, networks, images, keys, 0)
            return {'log_prob': total, LOGITS: total - weight - networks['flow'].logit(x)[1]}

        def with_error(networks: Networks, images: Array, given: Given, keys: Array) -> Mapping[str, Array]:
            """The mean of two estimates at the same draw, and an error whose mean square is the variance of such means.

            That variance is infinite, so what is measured grows with the number of images.
            """
            one, other = (one_draw(networks, images, given, keys, number) for number in (0, 1))
            return {'log_prob': (one + other) / 2, ERROR: (one - other) / 2}

        draws, how = self.config.evaluation.dequantisation_draws, estimated(self.config.network, self.space)
        kind = 'estimate' if how else 'lower_bound'
        first, *more = dequantisation.likelihoods('density', kind, self.space, draws, density, how)
        if how:
            first = dataclasses.replace(
                first, log_prob=with_error, protocol={**first.protocol, 'estimates': 2}, errors=(ERROR,)
            )
        elif self.config.network.name == 'maf':
            first = dataclasses.replace(first, log_prob=with_logits)
        return (first, *more)

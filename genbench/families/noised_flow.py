"""Noise-augmented normalizing flow: the density of noisy images, and samples whose noise its score removes.

S. Zhai et al., Normalizing Flows are Capable Generative Models, 2024 (TarFlow).
"""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from genbench import rng
from genbench.data import conditions
from genbench.data.conditions import Given
from genbench.data.spec import DataSpec
from genbench.errors import UserError
from genbench.families.base import Array, Batch, Likelihood, Networks, Sampler, Scalars, register
from genbench.families.normalizing_flow import NormalizingFlow
from genbench.families.spaces import Pixels
from genbench.interpolants.options import NoiseOptions, choice
from genbench.networks.tarflow import Guidance
from genbench.ranges import PROBABILITY, Range, one_of


@dataclasses.dataclass(frozen=True)
class FlowOptions(NoiseOptions):
    """Options of the samplers.

    Attributes:
      weights: whether the guidance weight is 'rising' from the first token to the last or 'constant'.
    """

    weights: str = choice('rising', 'constant', acts_with='guidance')


@register('noised_flow')
class NoisedFlow(NormalizingFlow):
    """z = f(x + σ ε) ~ N(0, I) for images x whose values are at the centres of their bins."""

    samplers = ('denoised', 'direct')
    guidable = True
    ranges = {
        'noise': one_of('fresh'),
        'dequantisation': one_of('uniform'),
        'noise_std': Range(0, 10, above=True),
        'condition_dropout': PROBABILITY,
    }

    @classmethod
    def defaults(cls) -> dict[str, Any]:
        # σ of the noise, for images in [−1, 1]; and how often training drops the conditions.
        own = {'noise_std': 0.05, 'condition_dropout': 0.1}
        return {'family': {**super().defaults()['family'], **own}, 'network': {'name': 'tarflow'}}

    def __init__(self, config: Any, spec: DataSpec, borrowed: Any = None):
        super().__init__(config, spec, borrowed)
        self.space = Pixels(spec, drawn=False)

    def networks(self, rngs: nnx.Rngs) -> dict[str, nnx.Module]:
        if self.config.network.name != 'tarflow':
            raise UserError(f'network.name is {self.config.network.name!r}, but noised images leave [−1, 1], and '
                            'guidance needs a network that knows no condition; use tarflow.')  # fmt: skip
        return super().networks(rngs)

    def initialise(self, networks: Networks, batch: Batch, key: Array) -> None:
        """Do nothing: no parameter starts from the data."""

    def loss(self, networks: Networks, batch: Batch, key: Array, step: Array) -> tuple[Array, Scalars]:
        """−log p(x + σ ε) − log of the bin's volume, in bits per dimension."""
        silent = rng.uniform(batch['key'], 'dropped') < self.config.family.condition_dropout
        given = conditions.drop(self.conditions, self.given(batch), silent)
        noise = self.config.family.noise_std * rng.normal(batch['key'], 'noise', self.space.shape)
        log_p = self._log_density(networks, self.space.encode(networks, batch) + noise, given, key)
        loss = self.spec.bits_per_dim((log_p + self.space.log_volume).mean())
        return loss, {'loss': loss}

    def generate(self, networks: Networks, latents: Array, keys: Array, given: Given, sampler: Sampler) -> Array:
        rising = getattr(sampler.options, 'weights', 'rising') == 'rising'
        x = networks['flow'].inverse(latents, given, Guidance(sampler.guidance, rising))
        return self.space.decode(networks, self.denoise(networks, x, given) if sampler.name == 'denoised' else x)

    def why_no_inverse(self, sampler: Sampler) -> str:
        if sampler.guidance:
            return 'guidance changes the map from latents to images'
        return 'the sampler denoised changes what the flow made; use direct' if sampler.name == 'denoised' else ''

    def denoise(self, networks: Networks, x: Array, given: Given) -> Array:
        """The mean of the image, x + σ² ∇ log p(x), for noisy x (batch, …)."""
        score = jax.grad(lambda x: self._log_density(networks, x, given).sum())(x)
        return x + jnp.square(self.config.family.noise_std) * score

    def evaluations(self, sampler: Sampler) -> int:
        """One to invert, one more for guidance, and two for the score, which costs an evaluation and its gradient."""
        return 1 + bool(sampler.guidance) + 2 * (sampler.name == 'denoised')

    @classmethod
    def sampler_options(cls, name: str) -> type[FlowOptions]:
        return FlowOptions

    @property
    def likelihoods(self) -> tuple[Likelihood, ...]:
        """None: the density is that of noisy images."""
        return ()

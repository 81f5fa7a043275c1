"""What families with a decoder p(x | z), z ~ N(0, I), and an approximate posterior share: samples and bounds.

Y. Burda, R. Grosse, R. Salakhutdinov, Importance Weighted Autoencoders, 2016 (IWAE).
"""

from collections.abc import Callable, Mapping
from typing import Any

from genbench import rng
from genbench.data.conditions import Given
from genbench.data.spec import DataSpec
from genbench.families import evidence, observations
from genbench.families.base import Array, Borrowed, Family, LatentModel, Likelihood, Networks, Sampler
from genbench.ranges import COUNT, NOT_NEGATIVE


class Inferred(Family):
    """A family overrides `_decode` and `_weigh`, and if its z is not standard normal also `generate`."""

    samplers = ('mean', 'direct')

    ranges = {'observation_scale': NOT_NEGATIVE, 'components': COUNT}
    stops = observations.STOPS

    @classmethod
    def defaults(cls) -> dict[str, Any]:
        options = {
            # or '(static_, threshold_, grey_)bernoulli'; or 'logistic', 'logistic_mixture', discretised; or
            # 'normal', 'laplace', densities
            'decoder': 'categorical',
            'components': 10,  # of the mixture
            'observation_scale': 0.0,  # σ of the normal, b of the Laplace, for values in [−1, 1]; 0: learned for each
        }
        return {'family': {**super().defaults()['family'], **options}}

    def __init__(self, config: Any, spec: DataSpec, borrowed: Mapping[str, Borrowed] | None = None):
        super().__init__(config, spec, borrowed)
        options = config.family
        self.observation = observations.make(
            options.decoder, spec, options.observation_scale, components=options.components
        )

    def _decode(self, networks: Networks, z: Array, given: Given, key: Array | None = None) -> Array:
        """The parameters of p(x | z), in the shape that `observation` takes."""
        raise NotImplementedError

    def _weigh(
        self, networks: Networks, seen: Array, x: Array, given: Given
    ) -> Callable[[Array], tuple[Array, Array, Array]]:
        """A function of keys (batch,) that draws z from q(z | x).

        It gives log p(x, z) − log q(z | x), (batch,), and for every latent, (batch, latents), the mean of q in units of
        the prior and the contribution to KL(q ‖ p) in nats.

        Args:
          seen: the integer images that the encoder sees.
          x: the variable of p(x | z).
        """
        raise NotImplementedError

    def generate(self, networks: Networks, latents: Array, keys: Array, given: Given, sampler: Sampler) -> Array:
        """'mean' returns the mean of p(x | z) (for a logistic, its location); 'direct' draws from p(x | z)."""
        h = self._decode(networks, latents, given)
        if sampler.name == 'mean':
            return self.observation.mean(h)
        return self.observation.images(self.observation.draw(h, rng.named(keys, 'x')))

    @property
    def likelihoods(self) -> tuple[Likelihood, ...]:
        def bound(draws):
            def log_prob(networks, images, given, keys):
                return self._importance_bound(networks, images, given, keys, draws)

            name = 'elbo' if draws == 1 else f'iwae_{draws}'
            return Likelihood(name, 'lower_bound', log_prob, {**self.observation.protocol, 'draws': draws})

        return tuple(bound(draws) for draws in dict.fromkeys((1, self.config.evaluation.iwae_draws)))

    def _importance_bound(self, networks: Networks, images: Array, given: Given, keys: Array, draws: int) -> Array:
        """log (1/K) Σ p(x, z_k) / q(z_k | x), (batch,) (IWAE, equation 8). K = 1 gives the ELBO."""
        x = self.observation.observe(images, rng.named(keys, 'bins'))
        weigh = self._weigh(networks, self.observation.seen(images, x), x, given)
        keys_z = rng.named(keys, 'draws')
        return evidence.log_mean_of_draws(lambda index: weigh(rng.numbered(keys_z, index))[0], draws, len(images))

    def latent_model(self, networks: Networks, given: Given) -> LatentModel | None:
        assert self.latent_shape is not None
        if not self.observation.normalised:
            return None
        return self.observation.latent_model(
            lambda z: self._decode(networks, z, given), self.latent_shape, decoder=self.config.family.decoder
        )

    def units(
        self, networks: Networks, images: Array, given: Given, keys: Array, draws: Array
    ) -> tuple[Array, Array] | None:
        x = self.observation.observe(images, rng.named(keys, 'bins'))
        _, place, divergence = self._weigh(networks, self.observation.seen(images, x), x, given)(draws)
        return place, divergence


def monitors(place: Array | None, divergence: Array) -> dict[str, Array]:
    """How many latents a batch uses: the means (batch, latents) and divergences of `_weigh` → named scalars.

    `active_units` has a variance of its mean over the batch above 0.01 (IWAE, appendix C). `collapsed_units` has a mean
    divergence below 0.01 nats.

    Args:
      place: None if the means depend on draws of other latents, because they then vary not only between images.
    """
    found = {'collapsed_units': (divergence.mean(0) < evidence.COLLAPSED).sum()}
    return found if place is None else {**found, 'active_units': evidence.active(place.var(0)).sum()}

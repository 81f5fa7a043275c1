"""Very deep VAE: many layers of latents, drawn from coarse to fine.

R. Child, Very Deep VAEs Generalize Autoregressive Models and Can Outperform Them on Images, 2021 (VDVAE).
"""

import math
from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
from flax import nnx

from genbench import rng
from genbench.data.conditions import Given
from genbench.families import evidence
from genbench.families.base import Array, Batch, Networks, Scalars, Update, register
from genbench.families.inferred import Inferred, monitors
from genbench.networks import hierarchy, top_down
from genbench.networks.top_down import Draw


@register('vdvae')
class VDVAE(Inferred):
    """p(z) = Π p(z_l | z_<l) and q(z | x) = Π q(z_l | z_<l, x), all independent normals (VDVAE, section 2).

    The z of `generate` is the noise ε of all layers, z_l = μ_l(z_<l) + σ_l(z_<l) ε_l, in their order and flattened.
    Its temperature scales the standard deviations of all priors.
    """

    @classmethod
    def defaults(cls) -> dict[str, Any]:
        return {
            'family': {**super().defaults()['family'], 'decoder': 'logistic_mixture'},
            'network': {'name': 'top_down'},
        }

    def networks(self, rngs: nnx.Rngs) -> dict[str, nnx.Module]:
        return hierarchy(self.config.network, self.space, self.forms, rngs, outputs=self.observation.per_pixel)

    @property
    def updates(self) -> tuple[Update, ...]:
        return (Update('elbo', ('encoder', 'decoder'), self.loss),)

    def loss(self, networks: Networks, batch: Batch, key: Array, step: Array) -> tuple[Array, Scalars]:
        """−ELBO in bits per dimension, with the KL terms in closed form given the layers before (VDVAE, section 2).

        `kl_3` is the term of the fourth layer. A layer whose term stays at 0 is not used.
        """
        images, given, bits = batch['image'], self.given(batch), self.spec.bits_per_dim
        x = self.observation.observe(images, rng.named(batch['key'], 'bins'))
        h, draws = self._infer(networks, self.observation.seen(images, x), given)(batch['key'])
        kl = [evidence.summed(one.divergence).mean() for one in draws]
        loss = bits(self.observation.log_prob(h, x).mean() - sum(kl))
        layers = {f'kl_{index}': -bits(one) for index, one in enumerate(kl)}
        used = monitors(None, _units(draws)[1]) | self.observation.monitors(h)
        return loss, {'loss': loss, 'elbo': loss, 'kl': -bits(sum(kl)), **layers, **used}

    def _infer(self, networks: Networks, seen: Array, given: Given) -> Callable[[Array], tuple[Array, list[Draw]]]:
        """A function of keys (batch,) that draws all layers from the posterior; see `top_down.Decoder`."""
        features = networks['encoder'](self.observation.encode(seen), given)

        def infer(keys: Array) -> tuple[Array, list[Draw]]:
            noise = lambda layer, shape: rng.normal(rng.numbered(keys, layer), 'z', shape)  # noqa: E731
            h, draws = networks['decoder'](noise, features, given)
            return self.observation.arrange(h), draws

        return infer

    def _weigh(
        self, networks: Networks, seen: Array, x: Array, given: Given
    ) -> Callable[[Array], tuple[Array, Array, Array]]:
        infer = self._infer(networks, seen, given)

        def weigh(keys: Array) -> tuple[Array, Array, Array]:
            h, draws = infer(keys)
            return self.observation.log_prob(h, x) + sum(one.log_ratio for one in draws), *_units(draws)

        return weigh

    def _decode(self, networks: Networks, z: Array, given: Given, key: Array | None = None) -> Array:
        sizes = [math.prod(shape) for shape in self._shapes]
        parts = jnp.split(z, [sum(sizes[: index + 1]) for index in range(len(sizes) - 1)], axis=-1)
        h, _ = networks['decoder'](lambda layer, shape: parts[layer].reshape(-1, *shape), None, given)
        return self.observation.arrange(h)

    @property
    def _shapes(self) -> list[tuple[int, int, int]]:
        return top_down.latent_shapes(self.config.network, self.space.shape[0])

    @property
    def latent_shape(self) -> tuple[int, ...]:
        return (sum(math.prod(shape) for shape in self._shapes),)


def _units(draws: list[Draw]) -> tuple[Array, Array]:
    """The places and divergences of all latents, (batch, latents) each."""
    places, divergences = zip(*((one.place, one.divergence) for one in draws), strict=True)
    joined = lambda parts: jnp.concatenate([part.reshape(len(part), -1) for part in parts], axis=1)  # noqa: E731
    return joined(places), joined(divergences)

"""Generative adversarial network, non-saturating with R1.

I. Goodfellow et al., Generative Adversarial Nets, 2014; L. Mescheder, A. Geiger, S. Nowozin, Which Training Methods
for GANs do actually Converge?, 2018 (R1).
"""

from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from genbench.families.base import Array, Average, Batch, Family, Networks, Sampler, Samples, Scalars, Update, register
from genbench.networks import resnet, square_size


@register('gan')
class GAN(Family):
    """Discriminator first, then generator, once each a step. It has no likelihood."""

    @classmethod
    def defaults(cls) -> dict[str, Any]:
        options = {
            'r1_weight': 1.0,  # γ
            'discriminator_learning_rate': 0.0,  # 0: the same as the generator's
        }
        return {
            'family': {**super().defaults()['family'], **options},
            'network': {'name': 'resnet'},
            'optimizer': {'b1': 0.0, 'b2': 0.99, 'clip_norm': 0.0, 'learning_rate': 2e-4},
        }

    def networks(self, rngs: nnx.Rngs) -> dict[str, nnx.Module]:
        size, channels = square_size(self.config.network, self.spec), self.spec.shape[2]
        network = self.config.network
        shared = {key: network[key] for key in ('channels', 'multipliers', 'blocks')}
        return {
            'generator': resnet.Generator(
                size, channels, self.classes, latent=network.latent, label_features=network.label_features,
                rngs=rngs, **shared,
            ),
            'discriminator': resnet.Discriminator(size, channels, self.classes, rngs=rngs, **shared),
        }  # fmt: skip

    @property
    def updates(self) -> tuple[Update, ...]:
        rate = self.config.family.discriminator_learning_rate
        options = {'learning_rate': rate} if rate else {}
        return (
            Update('discriminator', ('discriminator',), self.discriminator_loss, options),
            Update('generator', ('generator',), self.generator_loss),
        )

    @property
    def averages(self) -> tuple[Average, ...]:
        return (Average('ema', ('generator',), self.config.train.ema_decay),)

    def discriminator_loss(self, networks: Networks, batch: Batch, key: Array, step: Array) -> tuple[Array, Scalars]:
        """softplus(D(G(z))) + softplus(−D(x)) + γ/2 ‖∇D(x)‖² (Mescheder et al. 2018, equations 1 and 9).

        Real images are dequantised uniformly, or their grid of levels would give them away.
        """
        key_u, key_z = jax.random.split(key)
        labels = self.labels(batch)
        real = self.spec.dequantise(batch['image'], jax.random.uniform(key_u, batch['image'].shape))
        fake = jax.lax.stop_gradient(self._generate(networks, key_z, len(real), labels))
        discriminator = networks['discriminator']
        real_logits, gradient = _value_and_input_gradient(lambda x: discriminator(x, labels), real)
        fake_logits = discriminator(fake, labels)
        penalty = jnp.square(gradient).sum((1, 2, 3)).mean()
        loss = nnx.softplus(fake_logits).mean() + nnx.softplus(-real_logits).mean()
        accuracy = ((real_logits > 0).mean() + (fake_logits < 0).mean()) / 2
        return loss + self.config.family.r1_weight / 2 * penalty, {'loss': loss, 'r1': penalty, 'accuracy': accuracy}

    def generator_loss(self, networks: Networks, batch: Batch, key: Array, step: Array) -> tuple[Array, Scalars]:
        """softplus(−D(G(z))): the non-saturating loss (Goodfellow et al. 2014, section 3)."""
        labels = self.labels(batch)
        fake = self._generate(networks, key, len(batch['image']), labels)
        loss = nnx.softplus(-networks['discriminator'](fake, labels)).mean()
        return loss, {'loss': loss}

    def _generate(self, networks: Networks, key: Array, count: int, labels: Array | None) -> Array:
        return networks['generator'](jax.random.normal(key, (count, self.config.network.latent)), labels)

    def sample(self, networks: Networks, keys: Array, labels: Array | None, sampler: Sampler) -> Samples:
        z = jax.vmap(lambda key: jax.random.normal(key, (self.config.network.latent,)))(keys)
        return Samples(self.spec.quantise(networks['generator'](z, labels)), 1)


def _value_and_input_gradient(function, x: Array) -> tuple[Array, Array]:
    """Values (batch,) of a function that treats images one by one, and each value's gradient by its image."""
    values, pull = jax.vjp(function, x)
    return values, pull(jnp.ones_like(values))[0]

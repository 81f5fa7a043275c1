"""VQGAN: an autoencoder with discrete latents whose images also have to deceive a discriminator of patches.

P. Esser, R. Rombach, B. Ommer, Taming Transformers for High-Resolution Image Synthesis, 2021, and its official code.

The loss of the autoencoder is that of `vq_vae` plus the weighted loss of a GAN's generator. With Laplace's
distribution of a fixed scale as the decoder's, the first part is the code's distance |x − x̂|. The paper's perceptual
distance is left out.
"""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from genbench import rng
from genbench.data.spec import DataSpec
from genbench.errors import UserError
from genbench.families.adversarial import LOSSES, balance
from genbench.families.base import Array, Batch, Borrowed, Networks, Scalars, Update, register
from genbench.families.vq_vae import VQVAE
from genbench.networks.gradients import value_and_input_gradient
from genbench.networks.patches import Discriminator
from genbench.ranges import COUNT, COUNT_OR_NONE, NOT_NEGATIVE

HINGE = LOSSES['hinge']


@register('vq_gan')
class VQGAN(VQVAE):
    """Encoder, quantiser and decoder against a discriminator (equation 6)."""

    ranges = {
        'adversarial_weight': NOT_NEGATIVE,
        'adversarial_start': COUNT_OR_NONE,
        'discriminator_channels': COUNT,
        'discriminator_layers': COUNT,
    }

    @classmethod
    def defaults(cls) -> dict[str, Any]:
        found = super().defaults()
        options = {
            **found['family'],
            'decoder': 'laplace',  # or 'normal'
            'observation_scale': 0.1,
            'adversarial_weight': 0.8,  # of the generator's loss, beside λ
            'adversarial_start': 0,  # the step from which the discriminator is trained and enters the loss
            'discriminator_channels': 64,  # of its first layer
            'discriminator_layers': 3,  # halvings at most; fewer for images that these would leave below 3×3
        }
        return {**found, 'family': options, 'optimizer': {'b1': 0.5, 'b2': 0.9, 'clip_norm': 0.0}}

    def __init__(self, config: Any, spec: DataSpec, borrowed: Mapping[str, Borrowed] | None = None):
        super().__init__(config, spec, borrowed)
        if config.family.decoder not in ('laplace', 'normal') or not config.family.observation_scale:
            raise UserError('A discriminator sees the values of an image; use family.decoder=laplace or normal, and a '
                            'positive family.observation_scale.')  # fmt: skip
        if config.train.accumulate > 1:
            raise UserError(f'train.accumulate is {config.train.accumulate}, but the discriminator normalises whole '
                            'batches; set it to 1.')  # fmt: skip

    def networks(self, rngs: nnx.Rngs) -> dict[str, nnx.Module]:
        options = self.config.family
        critic = Discriminator(
            self.space.shape, channels=options.discriminator_channels, layers=options.discriminator_layers, rngs=rngs
        )
        return {**super().networks(rngs), 'discriminator': critic}

    @property
    def updates(self) -> tuple[Update, ...]:
        return (
            Update('autoencoder', ('encoder', 'decoder'), self.loss),
            Update('discriminator', ('discriminator',), self.discriminator_loss),
        )

    @property
    def averaged(self) -> tuple[str, ...]:
        return ('encoder', 'decoder')

    def _heard(self, step: Array) -> Array:
        """1 from the step on at which the discriminator begins, and 0 before."""
        return jnp.where(step >= self.config.family.adversarial_start, 1.0, 0.0)

    def loss(self, networks: Networks, batch: Batch, key: Array, step: Array) -> tuple[Array, Scalars]:
        """The loss of `vq_vae`, plus λ times that of the hinge loss's generator."""
        loss, told, (code, h, x) = self._losses(networks, batch, key)
        logits, slope = value_and_input_gradient(networks['discriminator'], h[..., 0])
        slopes = jax.grad(lambda h: self.spec.bits_per_dim(self.observation.log_prob(h, x).mean()))(h)
        features = networks['decoder'].features(code, self.given(batch), rng.named(key, 'decoder'))
        weight = self._weight(networks, features, slopes, -slope[..., None] / logits.size)
        generator = HINGE.generator(logits, logits)
        heard = self._heard(step) * self.config.family.adversarial_weight
        return loss + heard * weight * generator, {**told, 'adversarial': generator, 'weight': weight}

    def _weight(self, networks: Networks, features: Array, reconstruction: Array, generator: Array) -> Array:
        """λ: the norm of the reconstruction's gradient at the decoder's last kernel over that of the generator's loss.

        Equation 7.

        Args:
          features: what the last convolution sees.
          reconstruction, generator: gradients of both losses by the decoder's outputs.
        """
        last = networks['decoder'].conv_out
        fixed = jax.lax.stop_gradient((features, reconstruction, generator, last.kernel[...]))
        outputs, pull = jax.vjp(lambda kernel: last.apply(fixed[0], kernel), fixed[3])
        norms = [jnp.linalg.norm(pull(slope.reshape(outputs.shape).astype(outputs.dtype))[0]) for slope in fixed[1:3]]
        return balance(*norms)

    def discriminator_loss(self, networks: Networks, batch: Batch, key: Array, step: Array) -> tuple[Array, Scalars]:
        """Half the hinge loss of real images and their reconstructions, as in the code. No noise is added to either."""
        given, quantiser, critic = self.given(batch), networks['quantiser'], networks['discriminator']
        code = quantiser.lookup(quantiser.assign(self._encode(networks, batch['image'], given)))
        fake = jax.lax.stop_gradient(self._decode(networks, code, given)[..., 0])
        logits = critic(self.spec.dequantise(batch['image'])), critic(fake)
        loss = HINGE.discriminator(*logits)
        return self._heard(step) * loss / 2, {'loss': loss, 'accuracy': HINGE.accuracy(*logits)}

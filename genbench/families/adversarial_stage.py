"""First stages whose images also have to deceive a discriminator of patches, and may be compared perceptually.

P. Esser, R. Rombach, B. Ommer, Taming Transformers for High-Resolution Image Synthesis, 2021 (VQGAN), and R. Rombach et
al., High-Resolution Image Synthesis with Latent Diffusion Models, 2022, with their official code.
"""

import math
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from genbench import rng
from genbench.data.spec import DataSpec
from genbench.errors import UserError
from genbench.families import perceptual
from genbench.families.adversarial import LOSSES, balance
from genbench.families.base import Array, Batch, Borrowed, Networks, Scalars, Update
from genbench.families.perceptual import PerceptualFamily
from genbench.networks.gradients import value_and_input_gradient
from genbench.networks.patches import Discriminator
from genbench.ranges import COUNT, COUNT_OR_NONE, NOT_NEGATIVE

HINGE = LOSSES['hinge']
Found = tuple[Array, Array, Array]  # the decoder's latents, its outputs, and x


class AdversarialStage(PerceptualFamily):
    """A basis beside that of an autoencoder, which has `_losses` and the networks 'encoder' and 'decoder'.

    A family adds `unit` and `_reconstructions`.
    """

    observation: Any  # an `observations.Normal`
    _losses: Callable[[Networks, Batch, Array, Array], tuple[Array, Scalars, Found]]

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
            Update('autoencoder', self.trained, self.loss),
            Update('discriminator', ('discriminator',), self.discriminator_loss),
        )

    @property
    def trained(self) -> tuple[str, ...]:
        """The networks that the autoencoder's loss changes."""
        return ('encoder', 'decoder')

    @property
    def averaged(self) -> tuple[str, ...]:
        return self.trained

    @property
    def notes(self) -> Mapping[str, str]:
        return perceptual.notes(self.perceptual)

    @property
    def unit(self) -> float:
        """What a reconstruction loss of 1 in the official code is here, in bits per dimension."""
        raise NotImplementedError

    def _heard(self, step: Array) -> Array:
        """1 from the step on at which the discriminator begins, and 0 before."""
        return jnp.where(step >= self.config.family.adversarial_start, 1.0, 0.0)

    def loss(self, networks: Networks, batch: Batch, key: Array, step: Array) -> tuple[Array, Scalars]:
        """The autoencoder's loss with the perceptual distance, plus λ times that of the hinge loss's generator."""
        loss, told, (z, h, x) = self._losses(networks, batch, key, step)
        logits, slope = value_and_input_gradient(networks['discriminator'], h[..., 0])
        slopes = jax.grad(lambda h: self.spec.bits_per_dim(self.observation.log_prob(h, x).mean()))(h)
        if self.perceptual:
            fixed = jax.lax.stop_gradient(h)
            (cost, distance), steeper = jax.value_and_grad(self._compared, 1, has_aux=True)(networks, fixed, x)
            loss += cost + (steeper * (h - fixed)).sum()  # the gradient of the cost, which is evaluated once
            slopes, told = slopes + steeper, {**told, 'perceptual': distance}
        features = networks['decoder'].features(z, self.given(batch), rng.named(key, 'decoder'))
        weight = self._weight(networks, features, slopes[..., :1], -slope[..., None] / logits.size)
        generator = HINGE.generator(logits, logits)
        heard = self._heard(step) * self.config.family.adversarial_weight
        return loss + heard * weight * generator, {**told, 'adversarial': generator, 'weight': weight}

    def _compared(self, networks: Networks, h: Array, x: Array) -> tuple[Array, Array]:
        """The cost of the perceptual distance in bits per dimension, and the batch's mean distance.

        The distance is added to |x − x̂| of every value, as in both papers' code. It is therefore divided by the scale
        of the Laplace distribution, as |x − x̂| is.
        """
        assert self.perceptual
        real = self.spec.dequantise(self.observation.images(x))
        distance = self.perceptual.distance(networks, h[..., 0], real)
        scale = self.observation.spread(h).mean((1, 2, 3))
        cost = self.config.family.perceptual_weight * (distance / scale).mean() / math.log(2)
        return cost, distance.mean()

    def _weight(self, networks: Networks, features: Array, reconstruction: Array, generator: Array) -> Array:
        """λ: the norm of the reconstruction's gradient at the decoder's last kernel over that of the generator's loss.

        Equation 7 of Esser et al. The reconstruction's loss contains the perceptual distance. λ has the limit of the
        official code.

        Args:
          features: what the last convolution sees.
          reconstruction, generator: gradients of both losses by the decoder's outputs.
        """
        last = networks['decoder'].conv_out
        fixed = jax.lax.stop_gradient((features, reconstruction, generator, last.kernel[...]))
        outputs, pull = jax.vjp(lambda kernel: last.apply(fixed[0], kernel), fixed[3])
        pulled = (pull(slope.reshape(outputs.shape).astype(outputs.dtype))[0] for slope in fixed[1:3])
        first, second = map(jnp.linalg.norm, pulled)
        return balance(first, second, self.unit)

    def discriminator_loss(self, networks: Networks, batch: Batch, key: Array, step: Array) -> tuple[Array, Scalars]:
        """Half the hinge loss of real images and their reconstructions, as in the code. No noise is added to either."""
        critic = networks['discriminator']
        fake = jax.lax.stop_gradient(self._reconstructions(networks, batch))
        logits = critic(self.spec.dequantise(batch['image'])), critic(fake)
        loss = HINGE.discriminator(*logits)
        return self._heard(step) * loss / 2, {'loss': loss, 'accuracy': HINGE.accuracy(*logits)}

    def _reconstructions(self, networks: Networks, batch: Batch) -> Array:
        """Real images in [−1, 1] that the decoder makes of a batch's latents, (batch, height, width, channels)."""
        raise NotImplementedError

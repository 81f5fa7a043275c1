"""VQGAN: an autoencoder with discrete latents whose images also have to deceive a discriminator of patches.

P. Esser, R. Rombach, B. Ommer, Taming Transformers for High-Resolution Image Synthesis, 2021, and its official code.

The loss of the autoencoder is that of `vq_vae` plus the weighted loss of a GAN's generator and, with weights, the
perceptual distance. With Laplace's distribution of a fixed scale as the decoder's, the first part is the code's
distance |x − x̂|.
"""

import math
from typing import Any

from genbench.families.adversarial_stage import AdversarialStage
from genbench.families.base import Array, Batch, Networks, register
from genbench.families.vq_vae import VQVAE


@register('vq_gan')
class VQGAN(AdversarialStage, VQVAE):
    """Encoder, quantiser and decoder against a discriminator (equation 6)."""

    @classmethod
    def defaults(cls) -> dict[str, Any]:
        found = super().defaults()
        own = {'decoder': 'laplace', 'observation_scale': 0.1}  # decoder: or 'normal'
        return {**found, 'family': {**found['family'], **own}}

    @property
    def unit(self) -> float:
        """The code's loss is the mean of |x − x̂| over values, which is divided by the scale here."""
        return 1 / (self.config.family.observation_scale * math.log(2))

    def _reconstructions(self, networks: Networks, batch: Batch) -> Array:
        given, quantiser = self.given(batch), networks['quantiser']
        code = quantiser.lookup(quantiser.assign(self._encode(networks, batch['image'], given)))
        return self._decode(networks, code, given)[..., 0]

"""A family of your own. Every pixel is independent, p(x) = Π p(x_d), with its own distribution over the levels.

This is a starting point: replace the network, the loss and the sampler with yours. genbench.families.base documents
what else a family can have, and the guide "Adding a family" explains it (genbench config list shows where it is).
"""

import jax
import jax.numpy as jnp
from flax import nnx

from genbench import rng
from genbench.families.base import Family, Likelihood, Samples, Update, register
from genbench.networks.decoders import categorical
from genbench.ranges import POSITIVE


class Table(nnx.Module):
    """The logits of all pixels, (pixels, levels)."""

    def __init__(self, pixels: int, levels: int, *, rngs: nnx.Rngs):
        self.logits = nnx.Param(0.01 * jax.random.normal(rngs.params(), (pixels, levels)))


@register('my_family')
class MyFamily(Family):
    """Trained by exact maximum likelihood. The best table is how often each pixel has each level in the train split."""

    ranges = {'temperature': POSITIVE}

    @classmethod
    def defaults(cls):
        return {'family': {**super().defaults()['family'], 'temperature': 1.0}}  # affects samples, not likelihoods

    def networks(self, rngs):
        return {'table': Table(self.spec.num_dims, self.spec.levels, rngs=rngs)}

    @property
    def updates(self):
        return (Update('table', ('table',), self.loss),)

    def loss(self, networks, batch, key, step):
        """The negative log-likelihood in bits per dimension."""
        loss = self.spec.bits_per_dim(self.log_prob(networks, batch['image']).mean())
        return loss, {'loss': loss}

    def log_prob(self, networks, images, given=None, keys=None):
        """The log-likelihood in nats, (batch,), of integer images (batch, height, width, channels)."""
        x = images.reshape(len(images), -1)
        logits = jnp.broadcast_to(networks['table'].logits[...], (len(x), *networks['table'].logits.shape))
        return categorical(logits, x).sum(1)

    @property
    def likelihoods(self):
        return (Likelihood('table', 'exact', self.log_prob, {'dequantisation': 'none'}),)

    def sample(self, networks, keys, given, sampler):
        """Sample one image per key, so that a sample does not depend on its batch."""
        logits = networks['table'].logits[...] / self.config.family.temperature
        draw = jax.vmap(lambda key: jax.random.categorical(rng.named(key, 'pixels'), logits))
        return Samples(draw(keys).reshape(len(keys), *self.spec.shape), 1)

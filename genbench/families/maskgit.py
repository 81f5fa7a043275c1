"""Masked generation: all hidden values are predicted at once, and the most confident ones are kept.

H. Chang, H. Zhang, L. Jiang, C. Liu, W. Freeman, MaskGIT: Masked Generative Image Transformer, 2022 (MaskGIT).
"""

import math
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from genbench import rng
from genbench.data.conditions import Given
from genbench.families.base import Array, Batch, Networks, Sampler, Samples, Scalars, Update, register
from genbench.families.discrete import Discrete
from genbench.interpolants.options import MaskedOptions, Options
from genbench.networks import decoders, masked_predictor
from genbench.ranges import SHARE


@register('maskgit')
class MaskGIT(Discrete):
    """A bidirectional transformer over the pixels or, with `family.tokeniser`, over the codes of a first stage."""

    samplers = ('parallel',)
    default_steps = 8
    ranges = {'label_smoothing': SHARE}

    @classmethod
    def defaults(cls) -> dict[str, Any]:
        # The probability that the target spreads evenly over all values.
        options = {'label_smoothing': 0.1}
        return {'family': {**super().defaults()['family'], **options}, 'network': {'name': 'pixel_transformer'}}

    def networks(self, rngs: nnx.Rngs) -> dict[str, nnx.Module]:
        spec = self.integers.spec
        return {'predictor': masked_predictor(self.config.network, spec, self.forms, rngs, levels=spec.levels)}

    @property
    def updates(self) -> tuple[Update, ...]:
        return (Update('masked', ('predictor',), self.loss),)

    def loss(self, networks: Networks, batch: Batch, key: Array, step: Array) -> tuple[Array, Scalars]:
        """Cross-entropy of the hidden values in bits per value of the image (MaskGIT, equation 1).

        ⌈cos(π r / 2) n⌉ of n values are hidden, with r uniform for each image (sections 3.1 and 3.3). `bits` is the
        mean over hidden values, without smoothing.
        """
        count = self.integers.spec.num_dims
        x = self.integers.encode(networks, batch['image']).reshape(-1, count)
        masked = jnp.ceil(hidden_share(rng.uniform(batch['key'], 'share')) * count)
        order = rng.uniform(batch['key'], 'order', (count,)).argsort(axis=1).argsort(axis=1)
        hidden = order < jnp.maximum(masked, 1)[:, None]
        logits = networks['predictor'](x, hidden, self.given(batch), rng.named(key, 'predictor'))
        log_p, share = decoders.categorical(logits, x), self.config.family.label_smoothing
        wanted = (1 - share) * log_p + share * jax.nn.log_softmax(logits).mean(-1)
        mean = lambda each: -(jnp.where(hidden, each, 0) / math.log(2)).sum(1)  # noqa: E731
        loss = mean(wanted).mean() / count
        return loss, {'loss': loss, 'bits': (mean(log_p) / hidden.sum(1)).mean()}

    @classmethod
    def sampler_options(cls, name: str) -> type[Options]:
        return MaskedOptions

    def sample(self, networks: Networks, keys: Array, given: Given, sampler: Sampler) -> Samples:
        """Iterative decoding in `steps` steps (MaskGIT, section 3.2).

        A step draws all hidden values, independently of each other. It keeps those with the highest confidence, which
        is the log-probability of the drawn value plus Gumbel noise, and hides the others again.
        """
        spec, steps, temperature = self.integers.spec, sampler.num_steps, sampler.options.temperature
        shape = len(keys), spec.num_dims

        def fill(number: Array, carry: tuple[Array, Array]) -> tuple[Array, Array]:
            x, hidden = carry
            log_p = jax.nn.log_softmax(networks['predictor'](x, hidden, given))
            own = rng.numbered(rng.named(keys, 'steps'), number)
            drawn = jax.vmap(jax.random.categorical)(rng.named(own, 'values'), log_p)
            x = jnp.where(hidden, drawn, x)
            done = (number + 1) / steps
            noise = jax.vmap(lambda key: jax.random.gumbel(key, shape[1:]))(rng.named(own, 'confidence'))
            confidence = decoders.categorical(log_p, x) + temperature * (1 - done) * noise
            rank = jnp.where(hidden, confidence, jnp.inf).argsort(axis=1).argsort(axis=1)
            left = jnp.floor(hidden_share(done) * shape[1])
            left = jnp.clip(left, 1, jnp.maximum(hidden.sum(1) - 1, 1))  # each step reveals one and leaves one
            return x, hidden & (rank < left[:, None]) & (number + 1 < steps)

        start = jnp.zeros(shape, jnp.int32), jnp.ones(shape, bool)
        x, _ = jax.lax.fori_loop(0, steps, fill, start)
        images = self.integers.decode(networks, x.reshape(-1, *spec.shape))
        return Samples(images, self.evaluations(sampler))

    def evaluations(self, sampler: Sampler) -> int:
        return sampler.num_steps


def hidden_share(done: Array) -> Array:
    """The cosine schedule: the share of hidden values after the share `done` of the steps (MaskGIT, section 3.3)."""
    return jnp.cos(jnp.pi / 2 * done)

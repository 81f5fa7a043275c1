"""StyleGAN2 with adaptive discriminator augmentation, and StyleGAN3.

T. Karras et al., Analyzing and Improving the Image Quality of StyleGAN, 2020 (path length regularisation, lazy
regularisation); T. Karras, S. Laine, T. Aila, A Style-Based Generator Architecture for GANs, 2019 (mixing, truncation);
T. Karras et al., Training Generative Adversarial Networks with Limited Data, 2020 (ADA); T. Karras et al., Alias-Free
Generative Adversarial Networks, 2021 (StyleGAN3).
"""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from genbench import rng
from genbench.data.conditions import Given
from genbench.data.spec import DataSpec
from genbench.errors import UserError
from genbench.families import adversarial, styles
from genbench.families.base import Array, Batch, Borrowed, Networks, Sampler, Scalars, register
from genbench.families.gan import GAN
from genbench.families.styles import StyleOptions
from genbench.interpolants.options import Options
from genbench.networks import MOVED, STYLED, latent_size
from genbench.ranges import COUNT, NOT_NEGATIVE, PROBABILITY

CENTRE_DECAY, LENGTH_DECAY = 0.995, 0.99  # of the running mean of w, as in StyleGAN2-ADA's code, and of path lengths


class Length(nnx.Variable):
    """The running mean a of path lengths. It is part of the state, and no optimizer moves it."""


class PathLength(nnx.Module):
    """Path length regularisation: (‖J_wᵀ y‖ − a)², where a is the running mean of the norms (equation 4)."""

    def __init__(self) -> None:
        self.mean = Length(jnp.zeros(()))

    def penalty(self, lengths: Array) -> Array:
        """The mean penalty of lengths (batch,), after the running mean has taken them in."""
        mean = LENGTH_DECAY * self.mean[...] + (1 - LENGTH_DECAY) * lengths.mean()
        self.mean[...] = jax.lax.stop_gradient(mean)
        return jnp.square(lengths - mean).mean()


def path_lengths(synthesise: Callable[[Array], Array], w: Array, y: Array) -> Array:
    """‖J_wᵀ y‖ (batch,) of images synthesise(w), for normal images y of standard deviation 1 / √(height · width).

    Args:
      w: (batch, places, features). The norm is the root of the mean over places of the squared norm over features.
    """
    _, pull = jax.vjp(synthesise, w)
    return jnp.sqrt(jnp.square(pull(y)[0]).sum(2).mean(1))


@register('style_gan')
class StyleGAN(GAN):
    """A GAN whose generator has styles w, which are mixed in training and may be truncated in sampling."""

    ranges = {'mixing': PROBABILITY, 'path_length_weight': NOT_NEGATIVE, 'path_length_every': COUNT}

    @classmethod
    def defaults(cls) -> dict[str, Any]:
        options = {
            'penalty_every': 16,
            'mixing': 0.9,  # probability that an image has two styles
            'path_length_weight': 2.0,
            'path_length_every': 4,  # generator updates from one penalty to the next, and its factor
        }
        return {
            'family': {**super().defaults()['family'], **options},
            'network': {'name': 'stylegan2'},
            'optimizer': {'b1': 0.0, 'b2': 0.99, 'clip_norm': 0.0, 'learning_rate': 2.5e-3},
        }

    def __init__(self, config: Any, spec: DataSpec, borrowed: Mapping[str, Borrowed] | None = None):
        super().__init__(config, spec, borrowed)
        if config.network.name not in STYLED:
            raise UserError(f'network.name is {config.network.name!r}, whose generator has no styles; use '
                            f'{" or ".join(STYLED)}, or family.name=gan for other networks.')  # fmt: skip

    def networks(self, rngs: nnx.Rngs) -> dict[str, nnx.Module]:
        lengths = {'lengths': PathLength()} if self.config.family.path_length_weight else {}
        return super().networks(rngs) | lengths

    def generator_loss(self, networks: Networks, batch: Batch, key: Array, step: Array) -> tuple[Array, Scalars]:
        """The loss on the logits of its images, plus the penalty of path lengths on half of the batch."""
        loss, scalars = super().generator_loss(networks, batch, key, step)
        given, keys = self.given(batch), rng.named(batch['key'], 'path')
        weight, every = self.config.family.path_length_weight, self.config.family.path_length_every
        if not weight:
            return loss, scalars
        half = keys[: max(len(keys) // 2, 1)]
        cut = None if given is None else {name: values[: len(half)] for name, values in given.items()}

        def penalty(modules: tuple[Any, ...]) -> Array:
            generator, lengths = modules
            y = rng.normal(half, 'y', self.space.shape) / (self.space.shape[0] * self.space.shape[1]) ** 0.5
            w = self._styles(generator, half, cut)[0]
            return lengths.penalty(path_lengths(lambda w: generator.synthesise(w, half), w, y))

        updates, modules = step // self.config.family.critic_steps, (networks['generator'], networks['lengths'])
        paid = adversarial.sometimes(updates, every, penalty, lambda modules: jnp.zeros(()), modules)
        return loss + every * weight * paid, {**scalars, 'path_length': networks['lengths'].mean[...]}

    def _generate(self, networks: Networks, keys: Array, given: Given) -> Array:
        """Images as in training. The mean of their styles, before mixing, moves the running mean."""
        generator = networks['generator']
        mixed, w = self._styles(generator, keys, given)
        mean = jax.lax.stop_gradient(w).mean(0)
        generator.centre[...] = CENTRE_DECAY * generator.centre[...] + (1 - CENTRE_DECAY) * mean
        return generator.synthesise(mixed, keys, **self.training)

    def _z(self, keys: Array, name: str) -> Array:
        return rng.normal(keys, name, (latent_size(self.config.network, self.space),))

    def _styles(self, generator: Any, keys: Array, given: Given) -> tuple[Array, Array]:
        """Styles as in training (batch, places, features), and those of the first z alone (batch, features).

        With probability `mixing` another z's styles begin at some place, which is uniform among all but the first
        (Karras et al. 2019, section 3.1).
        """
        w, places = generator.mapping(self._z(keys, 'z'), given), generator.styles
        mixing = self.config.family.mixing
        if not mixing:
            return jnp.repeat(w[:, None], places, axis=1), w
        other = generator.mapping(self._z(keys, 'other z'), given)
        first = jnp.where(rng.uniform(keys, 'mixing') < mixing, rng.integers(keys, 'place', 1, places), places)
        return jnp.where((jnp.arange(places) < first[:, None])[..., None], w[:, None], other[:, None]), w

    @classmethod
    def sampler_options(cls, name: str) -> type[Options]:
        return StyleOptions

    def latents(self, keys: Array, sampler: Sampler) -> Array:
        """One latent z per key (batch,), standard normal."""
        return self._z(keys, 'z')

    def generate(self, networks: Networks, latents: Array, keys: Array, given: Given, sampler: Sampler) -> Array:
        return self.space.decode(networks, self._images(networks, latents, keys, given, sampler))

    def moved(
        self, networks: Networks, latents: Array, keys: Array, given: Given, sampler: Sampler, transform: Array
    ) -> Array | None:
        if self.config.network.name not in MOVED:
            return None
        return self._images(networks, latents, keys, given, sampler, transform=transform)

    def _images(
        self, networks: Networks, latents: Array, keys: Array, given: Given, sampler: Sampler, **options: Any
    ) -> Array:
        """Images as real numbers, from latents and the sampler's options."""
        generator, told = networks['generator'], sampler.options
        told = told if isinstance(told, StyleOptions) else StyleOptions()
        if not told.crossover < generator.styles:
            raise UserError(f'The sampler has crossover={told.crossover}, but this generator has {generator.styles} '
                            f'places for styles; it can be 1 to {generator.styles - 1}.')  # fmt: skip

        features = len(generator.centre[...])
        if told.shift and told.direction > features:
            raise UserError(f'The sampler has direction={told.direction}, but the styles w of this generator have '
                            f'{features} directions.')  # fmt: skip

        def style(z: Array) -> Array:
            centre = generator.centre[...]
            w = centre + told.truncation * (generator.mapping(z, given) - centre)
            return w + told.shift * styles.direction(generator, told.direction) if told.shift else w

        w = jnp.repeat(style(latents)[:, None], generator.styles, axis=1)
        if told.crossover:
            w = w.at[:, told.crossover :].set(style(self._z(keys, 'other z'))[:, None])
        return generator.synthesise(w, keys, **options)

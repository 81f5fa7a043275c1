"""Observation models p(x | z): the distributions of an image that a decoder's outputs parametrise.

T. Salimans et al., PixelCNN++, 2017 (discretised logistic); Y. Wu et al., On the Quantitative Analysis of
Decoder-Based Generative Models, 2017 (normal around a generator's output).
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from genbench import rng
from genbench.data.spec import DataSpec
from genbench.errors import UserError, did_you_mean
from genbench.families.base import Array, LatentModel
from genbench.families.spaces import uniform_draw
from genbench.networks import decoders


@dataclasses.dataclass(frozen=True)
class Observation:
    """Independent pixels and channels, given the outputs h (batch, height, width, channels, outputs).

    x is the variable of p(x | z). For discrete distributions, x is the integer image itself.
    """

    spec: DataSpec

    @property
    def outputs(self) -> int:
        """The number of decoder outputs per pixel and channel."""
        raise NotImplementedError

    @property
    def protocol(self) -> dict[str, Any]:
        return {'dequantisation': 'none'}

    def observe(self, images: Array, keys: Array) -> Array:
        """x from integer images and one key per image."""
        return images

    def seen(self, images: Array, x: Array) -> Array:
        """The integer images that an encoder sees when p(x | z) is evaluated at x."""
        return images

    def encode(self, images: Array) -> Array:
        """Turn integer images into an encoder's input."""
        return self.spec.encode(images)

    def log_prob(self, h: Array, x: Array) -> Array:
        """log p(x | z) in nats, (batch,). A density is multiplied by the widths of the bins."""
        raise NotImplementedError

    def mean(self, h: Array) -> Array:
        """The integer images nearest to the mean of p(x | z)."""
        raise NotImplementedError

    def draw(self, h: Array, keys: Array) -> Array:
        """Draw x from p(x | z), with one key per image."""
        raise NotImplementedError

    def images(self, x: Array) -> Array:
        """Integer images from x."""
        return x

    def latent_model(self, decode: Callable[[Array], Array], shape: tuple[int, ...], **protocol: Any) -> LatentModel:
        """The latent model with z ~ N(0, I) of this shape and h = decode(z)."""
        return LatentModel(
            latent_shape=shape,
            observe=self.observe,
            log_likelihood=lambda z, x: self.log_prob(decode(z), x),
            draw=lambda z, keys: self.draw(decode(z), keys),
            protocol={**self.protocol, **protocol},
        )


class Categorical(Observation):
    """Logits of the levels."""

    @property
    def outputs(self) -> int:
        return self.spec.levels

    def log_prob(self, h: Array, x: Array) -> Array:
        return decoders.categorical(h, x).sum((1, 2, 3))

    def mean(self, h: Array) -> Array:
        return jnp.round((jax.nn.softmax(h) * jnp.arange(self.spec.levels)).sum(-1)).astype(jnp.int32)

    def draw(self, h: Array, keys: Array) -> Array:
        return jax.vmap(jax.random.categorical)(keys, h)


@dataclasses.dataclass(frozen=True)
class Bernoulli(Observation):
    """The logit that a pixel is on, for binary images, in which x is 0 or the highest level.

    Images with more levels are binarised: a pixel of level k is on with probability k / (L − 1) (Salakhutdinov &
    Murray 2008). Pixels are drawn afresh at each use or, if `static`, once for an image, as a function of its pixels.
    An encoder sees the binarised image as zeros and ones. Likelihoods are those of the binary images.
    """

    static: bool = False

    @property
    def outputs(self) -> int:
        return 1

    @property
    def protocol(self) -> dict[str, Any]:
        drawn = f'drawn {"once for an image" if self.static else "at each use"}'
        return {**super().protocol, **({'binarisation': drawn} if self.spec.levels > 2 else {})}

    def observe(self, images: Array, keys: Array) -> Array:
        if self.spec.levels == 2:
            return images
        keys = rng.of_contents(images) if self.static else keys
        u = jax.vmap(lambda key: jax.random.uniform(key, self.spec.shape))(keys)
        return jnp.where(u < self.encode(images), self.spec.levels - 1, 0)

    def seen(self, images: Array, x: Array) -> Array:
        return x

    def encode(self, images: Array) -> Array:
        return images.astype(jnp.float32) / (self.spec.levels - 1)

    def log_prob(self, h: Array, x: Array) -> Array:
        logits = h[..., 0]
        return (jnp.where(x > 0, logits, 0) - jax.nn.softplus(logits)).sum((1, 2, 3))

    def mean(self, h: Array) -> Array:
        return jnp.round(jax.nn.sigmoid(h[..., 0]) * (self.spec.levels - 1)).astype(jnp.int32)

    def draw(self, h: Array, keys: Array) -> Array:
        on = jax.vmap(jax.random.bernoulli)(keys, jax.nn.sigmoid(h[..., 0]))
        return jnp.where(on, self.spec.levels - 1, 0)


class Logistic(Observation):
    """The location and log-scale of a discretised logistic (Salimans et al. 2017, equation 2)."""

    @property
    def outputs(self) -> int:
        return 2

    def log_prob(self, h: Array, x: Array) -> Array:
        return decoders.discretised_logistic(h[..., 0], _log_scale(h), x, self.spec.levels).sum((1, 2, 3))

    def mean(self, h: Array) -> Array:
        return self.spec.decode(h[..., 0])

    def draw(self, h: Array, keys: Array) -> Array:
        noise = jax.vmap(lambda key: jax.random.logistic(key, self.spec.shape))(keys)
        return self.spec.decode(h[..., 0] + jnp.exp(_log_scale(h)) * noise)


@dataclasses.dataclass(frozen=True)
class Normal(Observation):
    """N(x; mean, σ²) for dequantised images. The decoder outputs mean and log σ, or only the mean if `scale` is given.

    x is one uniform draw from the image's bins. A density at the bins' centres would not bound the probability of the
    integers, since it grows without limit as σ shrinks.
    """

    scale: float = 0.0

    @property
    def outputs(self) -> int:
        return 1 if self.scale else 2

    @property
    def protocol(self) -> dict[str, Any]:
        return {'dequantisation': 'uniform', 'dequantisation_draws': 1}

    def observe(self, images: Array, keys: Array) -> Array:
        return uniform_draw(self.spec, images, keys)

    def log_prob(self, h: Array, x: Array) -> Array:
        log_density = jax.scipy.stats.norm.logpdf(x, h[..., 0], self._scale(h))
        return (log_density + self.spec.log_bin_width).sum((1, 2, 3))

    def mean(self, h: Array) -> Array:
        return self.spec.quantise(h[..., 0])

    def draw(self, h: Array, keys: Array) -> Array:
        noise = jax.vmap(lambda key: jax.random.normal(key, self.spec.shape))(keys)
        return h[..., 0] + self._scale(h) * noise

    def images(self, x: Array) -> Array:
        return self.spec.quantise(x)

    def _scale(self, h: Array) -> Array | float:
        return self.scale or jnp.exp(_log_scale(h))


def make(name: str, spec: DataSpec, scale: float) -> Observation:
    """The observation model that `family.decoder` calls `name`. The normal uses `scale`, `family.observation_scale`.

    Raises:
      UserError: there is no such decoder, the scale is negative, or the images are binary and the decoder is not.
    """
    if scale < 0:
        raise UserError(f'family.observation_scale is {scale}; it should be positive, or 0 to learn it.')
    models: dict[str, Observation] = {
        'categorical': Categorical(spec),
        'bernoulli': Bernoulli(spec),
        'static_bernoulli': Bernoulli(spec, static=True),
        'logistic': Logistic(spec),
        'normal': Normal(spec, scale),
    }
    if name not in models:
        raise UserError(f'There is no decoder {name!r} (family.decoder). {did_you_mean(name, models)}')
    if spec.levels == 2 and name in ('logistic', 'normal'):
        raise UserError(f'{spec.name} is binary, and family.decoder={name} is for grey values; use '
                        'family.decoder=bernoulli.')  # fmt: skip
    return models[name]


def _log_scale(h: Array) -> Array:
    """The log-scale from the decoder's second output, limited to a range where bins keep some probability."""
    return jnp.clip(h[..., 1] - 2, -7, 3)

"""Observation models p(x | z): the distributions of an image that a decoder's outputs parametrise.

T. Salimans et al., PixelCNN++, 2017 (discretised logistic); Y. Wu et al., On the Quantitative Analysis of
Decoder-Based Generative Models, 2017 (normal around a generator's output).
"""

import dataclasses
import math
from collections.abc import Callable
from typing import Any, ClassVar

import jax
import jax.numpy as jnp

from genbench import rng
from genbench.data.spec import DataSpec
from genbench.errors import UserError, did_you_mean
from genbench.families.base import Array, LatentModel
from genbench.families.spaces import uniform_draw
from genbench.networks import decoders

NARROWEST = 0.1  # of a bin: narrower distributions of a dequantised value do not fit the values of a bin
LIMITS = (-7.0, 3.0)  # of the logarithm of a learned scale
STOPS = {
    'scales_at_limit': 'So many of the learned scales of p(x | z) are at their limit of e⁻⁷ and no longer '
    'change; set family.observation_scale to a fixed scale, or lower optimizer.learning_rate.'
}  # see `Family.stops`


@dataclasses.dataclass(frozen=True)
class Observation:
    """Pixels that are independent given the outputs h, (batch, height, width, channels, outputs) from `arrange`.

    x is the variable of p(x | z). For discrete distributions, x is the integer image itself.
    """

    spec: DataSpec
    coupled: ClassVar[bool] = False  # whether the channels of a pixel depend on each other, given the outputs
    normalised: ClassVar[bool] = True  # whether `log_prob` is a probability or a density of x

    @property
    def outputs(self) -> int:
        """The number of decoder outputs per pixel and channel."""
        raise NotImplementedError

    @property
    def per_pixel(self) -> int:
        """The number of decoder outputs per pixel."""
        return self.spec.shape[2] * self.outputs

    def arrange(self, h: Array) -> Array:
        """A decoder's outputs (batch, …), `per_pixel` for each pixel, in the shape that the other methods take."""
        return h.reshape(len(h), *self.spec.shape, self.outputs)

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

    def logits(self, images: Array) -> Array:
        """The outputs (height, width, channels) with which `mean` is the mean of integer images (batch, *shape)."""
        raise NotImplementedError

    def log_prob(self, h: Array, x: Array) -> Array:
        """log p(x | z) in nats, (batch,). A density is multiplied by the widths of the bins."""
        raise NotImplementedError

    def mean(self, h: Array) -> Array:
        """The integer images nearest to the mean of p(x | z)."""
        raise NotImplementedError

    def draw(self, h: Array, keys: Array) -> Array:
        """Draw x from p(x | z), with one key per image."""
        raise NotImplementedError

    def monitors(self, h: Array) -> dict[str, Array]:
        """Scalars that a loss reports beside its parts; see `STOPS`."""
        return {}

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

    Images with more levels are binarised (`BINARISATIONS`). An encoder sees the binarised image as zeros and ones.
    Likelihoods are those of the binary images.
    """

    binarisation: str = 'drawn at each use'

    @property
    def outputs(self) -> int:
        return 1

    @property
    def protocol(self) -> dict[str, Any]:
        return {**super().protocol, **({'binarisation': self.binarisation} if self.spec.levels > 2 else {})}

    def observe(self, images: Array, keys: Array) -> Array:
        if self.spec.levels == 2:
            return images
        if self.binarisation == 'at half':
            return jnp.where(2 * images >= self.spec.levels - 1, self.spec.levels - 1, 0)
        keys = rng.of_contents(images) if self.binarisation == 'drawn once for an image' else keys
        u = jax.vmap(lambda key: jax.random.uniform(key, self.spec.shape))(keys)
        return jnp.where(u < self.encode(images), self.spec.levels - 1, 0)

    def seen(self, images: Array, x: Array) -> Array:
        return x

    def encode(self, images: Array) -> Array:
        return images.astype(jnp.float32) / (self.spec.levels - 1)

    def log_prob(self, h: Array, x: Array) -> Array:
        logits = h[..., 0]
        return (jnp.where(x > 0, logits, 0) - jax.nn.softplus(logits)).sum((1, 2, 3))

    def logits(self, images: Array) -> Array:
        """The logits of the mean of integer images (batch, *shape), limited to probabilities from 0.001 to 0.999."""
        mean = jnp.clip(self.encode(images).mean(0), 0.001, 0.999)
        return jnp.log(mean) - jnp.log1p(-mean)

    def mean(self, h: Array) -> Array:
        return jnp.round(jax.nn.sigmoid(h[..., 0]) * (self.spec.levels - 1)).astype(jnp.int32)

    def draw(self, h: Array, keys: Array) -> Array:
        on = jax.vmap(jax.random.bernoulli)(keys, jax.nn.sigmoid(h[..., 0]))
        return jnp.where(on, self.spec.levels - 1, 0)


# The way in which each decoder's images are binarised. In the first two, a pixel of level k is on with probability
# k / (L − 1) (Salakhutdinov & Murray 2008). It is drawn afresh at each use, or once for an image, as a function of the
# image's pixels. In the last, a pixel is on if its value is one half or more.
BINARISATIONS = {
    'bernoulli': 'drawn at each use',
    'static_bernoulli': 'drawn once for an image',
    'threshold_bernoulli': 'at half',
}


class Grey(Bernoulli):
    """The model of pixels that are drawn at each use, for a grey x: log p(x | z) is the mean over the draws from x.

    It is the cross-entropy with grey values. Since the logarithm of a mean of exponentials is convex in the
    exponents, bounds made of it bound the mean log-likelihood of the binary images from below.
    """

    normalised: ClassVar[bool] = False

    def observe(self, images: Array, keys: Array) -> Array:
        return images

    def log_prob(self, h: Array, x: Array) -> Array:
        logits = h[..., 0]
        return (self.encode(x) * logits - jax.nn.softplus(logits)).sum((1, 2, 3))


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
class LogisticMixture(Observation):
    """A mixture of discretised logistics over the channels of each pixel (Salimans et al. 2017, section 2.1 and 2.2).

    Its parameters h are (batch, height, width, outputs per pixel), since the channels of a pixel share them. Values are
    drawn channel by channel and rounded to levels, so that draws have exactly the probabilities of `log_prob`.
    """

    components: int = 10
    coupled = True

    @property
    def per_pixel(self) -> int:
        return decoders.mixture_size(self.spec.shape[2], self.components)

    def arrange(self, h: Array) -> Array:
        return h.reshape(len(h), *self.spec.shape[:2], self.per_pixel)

    def _parts(self, h: Array) -> decoders.MixtureParts:
        return decoders.split_mixture(h, self.spec.shape[2], self.components)

    def log_prob(self, h: Array, x: Array) -> Array:
        return decoders.logistic_mixture(self._parts(h), self.encode(x), x, self.spec.levels).sum((1, 2))

    def mean(self, h: Array) -> Array:
        parts, values = self._parts(h), list[Array]()
        for channel in range(self.spec.shape[2]):
            before = sum((parts.slope[..., channel, i, :] * one for i, one in enumerate(values)), jnp.zeros(()))
            values.append(parts.mean[..., channel, :] + before)
        mixed = (jnp.stack(values, axis=-2) * jax.nn.softmax(parts.logits)[..., None, :]).sum(-1)
        return self.spec.decode(mixed)

    def draw(self, h: Array, keys: Array) -> Array:
        parts, images = self._parts(h), list[Array]()
        chosen = jax.vmap(jax.random.categorical)(rng.named(keys, 'component'), parts.logits)
        noise = jax.vmap(lambda key: jax.random.logistic(key, self.spec.shape))(rng.named(keys, 'noise'))
        own = lambda part: jnp.take_along_axis(part, chosen[..., None], axis=-1)[..., 0]  # noqa: E731
        for channel in range(self.spec.shape[2]):
            mean = own(parts.mean[..., channel, :])
            for index, one in enumerate(images):
                mean += own(parts.slope[..., channel, index, :]) * self.encode(one)
            value = mean + jnp.exp(own(parts.log_scale[..., channel, :])) * noise[..., channel]
            images.append(self.spec.decode(value))
        return jnp.stack(images, axis=-1)


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

    def monitors(self, h: Array) -> dict[str, Array]:
        best = self.spec.log_bin_width - math.log(12) / 2  # for a value that is constant: the deviation of its bin
        if self.scale or best <= LIMITS[0]:
            return {}
        return {'scales_at_limit': (_log_scale(h) <= LIMITS[0]).mean()}

    def spread(self, h: Array) -> Array:
        """σ or b of each value, (batch, height, width, channels)."""
        return jnp.broadcast_to(self._scale(h), h.shape[:-1])

    def _scale(self, h: Array) -> Array | float:
        return self.scale or jnp.exp(_log_scale(h))


@dataclasses.dataclass(frozen=True)
class Laplace(Normal):
    """Laplace's distribution in place of the normal: its density falls with |x − mean| / b, where b is the scale."""

    def log_prob(self, h: Array, x: Array) -> Array:
        log_density = jax.scipy.stats.laplace.logpdf(x, h[..., 0], self._scale(h))
        return (log_density + self.spec.log_bin_width).sum((1, 2, 3))

    def draw(self, h: Array, keys: Array) -> Array:
        noise = jax.vmap(lambda key: jax.random.laplace(key, self.spec.shape))(keys)
        return h[..., 0] + self._scale(h) * noise


class OneScale(Laplace):
    """A Laplace distribution whose scale is one number that is learned beside the decoder: see `joined`."""

    @property
    def outputs(self) -> int:
        return 1

    def joined(self, h: Array, log_scale: Array) -> Array:
        """The decoder's outputs (batch, height, width, channels, 1) with log b as a second output of every value."""
        return jnp.concatenate([h, jnp.broadcast_to(log_scale, h.shape)], axis=-1)

    def _scale(self, h: Array) -> Array:
        return jnp.exp(h[..., 1])


def make(name: str, spec: DataSpec, scale: float, components: int = 1) -> Observation:
    """The observation model that `family.decoder` calls `name`.

    Args:
      scale: of the normal or the Laplace distribution, `family.observation_scale`.
      components: of the mixture, `family.components`.

    Raises:
      UserError: there is no such decoder, the scale is too small, or the images are binary and the decoder is not.
    """
    models: dict[str, Observation] = {
        'categorical': Categorical(spec),
        **{decoder: Bernoulli(spec, binarisation) for decoder, binarisation in BINARISATIONS.items()},
        'grey_bernoulli': Grey(spec, 'mean over draws'),
        'logistic': Logistic(spec),
        'logistic_mixture': LogisticMixture(spec, components),
        'normal': Normal(spec, scale),
        'laplace': Laplace(spec, scale),
    }
    if name not in models:
        raise UserError(f'There is no decoder {name!r} (family.decoder). {did_you_mean(name, models)}')
    if spec.levels == 2 and name in ('logistic', 'logistic_mixture', 'normal', 'laplace'):
        raise UserError(f'{spec.name} is binary, and family.decoder={name} is for grey values; use '
                        'family.decoder=bernoulli.')  # fmt: skip
    if scale and isinstance(models[name], Normal):
        check_scale('family.observation_scale', scale, spec, ', or 0 to learn it')
    return models[name]


def check_scale(key: str, scale: float, spec: DataSpec, otherwise: str = '') -> None:
    """Raise a UserError if a normal or Laplace distribution of this scale is too narrow for the bins of the data."""
    width = math.exp(spec.log_bin_width)
    if not scale >= NARROWEST * width:
        raise UserError(f'{key} is {scale:g}, but levels of {spec.name} are {width:.3g} wide and values lie anywhere '
                        f'in them; use at least {NARROWEST * width:.3g}{otherwise}.')  # fmt: skip


def _log_scale(h: Array) -> Array:
    """The log-scale from the decoder's second output, limited to a range where bins keep some probability."""
    return jnp.clip(h[..., 1] - 2, *LIMITS)

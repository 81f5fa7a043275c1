"""Data spaces: the real values that a family models, the maps from and to integer images, and the meaning of densities.

`Pixels` are dequantised images. `Latents` are the codes of a first stage, a borrowed and frozen run (R. Rombach et al.,
High-Resolution Image Synthesis with Latent Diffusion Models, 2022). An image has random draws x in the space. Both
spaces give the weight w of the density p(x) of a draw, such that P(image) = E p(x) exp(w). Then E log p(x) + w is a
lower bound on log P(image).
"""

import dataclasses
import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar

import jax
import jax.numpy as jnp
from flax import nnx

from genbench import rng
from genbench.data.spec import DataSpec
from genbench.errors import UserError

if TYPE_CHECKING:
    from genbench.families.base import Borrowed, Networks

Array = jax.Array
Shape = tuple[int, int, int]  # height, width, channels
CACHED = ('latent_mean', 'latent_log_variance')  # the moments of the posterior, as fields of the rows


class FirstStage:
    """The interface of a family whose latents other families model. It takes no conditions.

    Its latents are pictures, (batch, *code_shape), with three axes after the batch axis.
    """

    name: ClassVar[str]
    spec: DataSpec
    conditional: bool

    @property
    def code_shape(self) -> tuple[int, ...]:
        """The shape of one image's z."""
        raise NotImplementedError

    @property
    def observed(self) -> Mapping[str, Any] | None:
        """Everything besides the checkpoint that `log_likelihood` depends on. None if p(image | z) or q(z | image) has
        no density, so that there is no likelihood through this stage."""
        return None

    def posterior(self, networks: 'Networks', images: Array) -> tuple[Array, Array | None]:
        """Mean and log variance of q(z | image), an independent normal; a log variance of None: z is the mean."""
        raise NotImplementedError

    def encode(self, networks: 'Networks', images: Array, keys: Array) -> Array:
        """Draw z from q(z | image), with one key per image."""
        return draw(*self.posterior(networks, images), keys)

    def decode(self, networks: 'Networks', z: Array) -> Array:
        """Integer images from z."""
        raise NotImplementedError

    def log_likelihood(self, networks: 'Networks', z: Array, images: Array, keys: Array) -> Array:
        """log p(image | z) in nats, (batch,), or an estimate whose mean over keys is a lower bound on it."""
        raise NotImplementedError

    @property
    def num_codes(self) -> int:
        """The number of different codes at a position; 0 if z is continuous. The rest is for discrete z only."""
        return 0

    def codes(self, networks: 'Networks', images: Array) -> Array:
        """The indices (batch, height, width) of an image's codes."""
        raise NotImplementedError

    def vectors(self, networks: 'Networks', index: Array) -> Array:
        """The codes z (batch, *code_shape) of indices."""
        raise NotImplementedError

    def log_of_image(self, networks: 'Networks', index: Array, images: Array, keys: Array) -> Array:
        """log p(image | codes) in nats, (batch,), as `log_likelihood`."""
        raise NotImplementedError


def draw(mean: Array, log_variance: Array | None, keys: Array) -> Array:
    """One draw per key from the normal distribution."""
    return mean if log_variance is None else mean + jnp.exp(log_variance / 2) * rng.normal(keys, 'z', mean.shape[1:])


def uniform_draw(spec: DataSpec, images: Array, keys: Array) -> Array:
    """A random point in the bins of each integer image, as `spec.dequantise` encodes it; one key per image."""
    return spec.dequantise(images, jax.vmap(lambda key: jax.random.uniform(key, spec.shape))(keys))


@dataclasses.dataclass(frozen=True)
class Pixels:
    """Images in [−scale, scale], with every value in the bin of its level (`scale` times `DataSpec.dequantise`).

    Attributes:
      drawn: values are uniform in their bins. Otherwise they are at the centres, with a probability but no density.
      scale: how far the values reach. Noise has the deviation one whatever the scale.
    """

    spec: DataSpec
    drawn: bool = True
    scale: float = 1.0

    @property
    def name(self) -> str:
        return self.spec.name

    @property
    def shape(self) -> Shape:
        """The shape of one x."""
        return self.spec.shape

    @property
    def bounded(self) -> bool:
        """Whether every x lies in [−1, 1]."""
        return self.scale <= 1

    @property
    def width(self) -> float:
        """The unit of the noise at which densities stop."""
        return self.scale * math.exp(self.spec.log_bin_width)

    @property
    def variance_of_draws(self) -> float:
        """The variance of x over the draws of one image, if it is known."""
        return self.width**2 / 12 if self.drawn else 0.0

    @property
    def log_volume(self) -> float:
        """The part of a weight w that is the same for all images and does not depend on networks."""
        return self.spec.num_dims * (self.spec.log_bin_width + math.log(self.scale))

    def modules(self) -> dict[str, nnx.Module]:
        """Networks of the family that belong to the space. No optimizer changes them."""
        return {}

    def measure(self, networks: 'Networks', rows: Mapping[str, Array]) -> None:
        """Set those modules from the first rows, using the rows' keys."""

    def prepare(self, networks: 'Networks', rows: Mapping[str, Array]) -> dict[str, Array]:
        """Arrays that `encode` needs from rows besides the image. Borrowed networks compute them once."""
        return {}

    def encode(self, networks: 'Networks', rows: Mapping[str, Array]) -> Array:
        """x to train on, (batch, *shape). Randomness comes from each row's key."""
        place = rng.uniform(rows['key'], 'bins', self.shape) if self.drawn else 0.5
        return self.scale * self.spec.dequantise(rows['image'], place)

    def decode(self, networks: 'Networks', x: Array) -> Array:
        """Integer images from x."""
        return self.spec.quantise(x / self.scale)

    def centre(self, networks: 'Networks', images: Array) -> Array:
        """The x at the centre of an image's draws."""
        return self.scale * self.spec.dequantise(images)

    def place(self, networks: 'Networks', shown: Array) -> Array:
        """x for images (batch, …) with real values in [−1, 1]."""
        return self.scale * shown

    def draw(self, networks: 'Networks', images: Array, keys: Array) -> tuple[Array, Array]:
        """Draw x (batch, *shape) and its weight w (batch,), with one key per image."""
        return self.scale * uniform_draw(self.spec, images, keys), jnp.full(len(images), self.log_volume)

    def method(self, name: str) -> str:
        """The name of a likelihood that comes from densities in this space."""
        return name

    def protocol(self, draws: int) -> dict[str, Any]:
        """How results describe x: the number of draws, or 0 if x is the centre."""
        return {'dequantisation': 'uniform' if draws else 'none', 'dequantisation_draws': draws}


class Scaling(nnx.Module):
    """x = (z − mean) scale for each channel. Both are measured once and kept with the run; they are not parameters."""

    def __init__(self, channels: int):
        self.mean, self.scale = nnx.BatchStat(jnp.zeros(channels)), nnx.BatchStat(jnp.ones(channels))


@dataclasses.dataclass(frozen=True)
class Latents:
    """Latents of the borrowed run `first_stage`, shifted and scaled to mean zero and a common standard deviation.

    Mean and standard deviation are measured for each channel over the first batch, as in T. Karras et al. 2024
    (Rombach et al. 2022, appendix G, use one standard deviation for all channels). Densities are those of the scaled
    codes. P(image) = E_q p(z) p(image | z) / q(z | image) gives the evidence lower bound of the two stages together
    (D. Kingma, M. Welling 2014, equation 3).

    Attributes:
      std: the standard deviation after scaling.
      cached: rows contain the posteriors that `prepare` computed. Otherwise every step computes them.
    """

    spec: DataSpec
    stage: FirstStage
    shape: Shape
    std: float = 1.0
    cached: bool = False

    drawn: ClassVar[bool] = True
    bounded: ClassVar[bool] = False
    variance_of_draws: ClassVar[float] = 0.0
    log_volume: ClassVar[float] = 0.0

    @property
    def name(self) -> str:
        return f'the latents of {self.stage.name}'

    @property
    def width(self) -> float:
        return self.std

    @property
    def scored(self) -> bool:
        """Whether there is a likelihood through the first stage."""
        return self.stage.observed is not None

    def modules(self) -> dict[str, nnx.Module]:
        return {'scaling': Scaling(self.shape[-1])}

    def measure(self, networks: 'Networks', rows: Mapping[str, Array]) -> None:
        z, scaling = self._codes(networks, rows), networks['scaling']
        scaling.mean[...] = z.mean((0, 1, 2))
        scaling.scale[...] = self.std / jnp.maximum(z.std((0, 1, 2)), 1e-6)

    def prepare(self, networks: 'Networks', rows: Mapping[str, Array]) -> dict[str, Array]:
        if not self.cached:
            return {}
        found = zip(CACHED, self.stage.posterior(_lent(networks), rows['image']), strict=True)
        return {name: values for name, values in found if values is not None}

    def encode(self, networks: 'Networks', rows: Mapping[str, Array]) -> Array:
        return self._scaled(networks, self._codes(networks, rows))

    def decode(self, networks: 'Networks', x: Array) -> Array:
        scaling = networks['scaling']
        return self.stage.decode(_lent(networks), x / scaling.scale[...] + scaling.mean[...])

    def centre(self, networks: 'Networks', images: Array) -> Array:
        return self._scaled(networks, self.stage.posterior(_lent(networks), images)[0])

    def place(self, networks: 'Networks', shown: Array) -> Array:
        return self.centre(networks, self.spec.quantise(shown))

    def draw(self, networks: 'Networks', images: Array, keys: Array) -> tuple[Array, Array]:
        lent = _lent(networks)
        mean, log_variance = self.stage.posterior(lent, images)
        assert log_variance is not None, 'a stage needs a posterior density to have a likelihood'
        z = draw(mean, log_variance, rng.named(keys, 'first stage'))
        log_p = self.stage.log_likelihood(lent, z, images, rng.named(keys, 'observed'))
        log_q = jax.scipy.stats.norm.logpdf(z, mean, jnp.exp(log_variance / 2)).sum((1, 2, 3))
        stretch = math.prod(self.shape[:2]) * jnp.log(networks['scaling'].scale[...]).sum()  # log p(z) − log p(x)
        return self._scaled(networks, z), log_p - log_q + stretch

    def method(self, name: str) -> str:
        return f'first_stage_{name}'

    def protocol(self, draws: int) -> dict[str, Any]:
        return {'first_stage': self.stage.name, 'latent_draws': draws, **(self.stage.observed or {})}

    def _codes(self, networks: 'Networks', rows: Mapping[str, Array]) -> Array:
        keys = rng.named(rows['key'], 'first stage')
        if self.cached:
            return draw(rows[CACHED[0]], rows.get(CACHED[1]), keys)
        return self.stage.encode(_lent(networks), rows['image'], keys)

    def _scaled(self, networks: 'Networks', z: Array) -> Array:
        scaling = networks['scaling']
        return (z - scaling.mean[...]) * scaling.scale[...]


Space = Pixels | Latents


def _lent(networks: 'Networks') -> 'Networks':
    return networks.borrowed('first_stage')


def make(options: Any, spec: DataSpec, borrowed: Mapping[str, 'Borrowed'] | None, std: float = 1.0) -> Space:
    """The space of a family that has the keys `first_stage`, `cache_latents` and `dequantisation`.

    Args:
      std: the standard deviation of scaled latents.

    Raises:
      UserError: the run cannot serve as a first stage, or it does not fit the data.
    """
    if not options.get('first_stage'):
        if options.get('cache_latents'):
            raise UserError('family.cache_latents needs a model of latents; set family.first_stage.')
        return Pixels(spec, options.dequantisation == 'uniform', options.get('scale', 1.0))
    stage = (borrowed or {})['first_stage'].family
    said = f'The first stage is a {stage.name} model'
    if not isinstance(stage, FirstStage):
        raise UserError(f'{said}, which has no encoder and decoder; use a run of vae, vq_vae, vq_gan or '
                        'kl_autoencoder.')  # fmt: skip
    if (stage.spec.shape, stage.spec.levels) != (spec.shape, spec.levels):
        raise UserError(f'The first stage was trained on {stage.spec}, but this run trains on {spec}.')
    if stage.conditional:
        raise UserError(f'{said} with the conditions {", ".join(stage.conditions)}; use one without conditions.')
    shape = stage.code_shape
    if len(shape) != 3:
        raise UserError(f'{said} whose latents are vectors; train one with family.latent_channels=4.')
    if options.dequantisation != 'uniform':
        raise UserError(f'family.dequantisation is {options.dequantisation!r}, but latents need uniform.')
    return Latents(spec, stage, (shape[0], shape[1], shape[2]), std, options.cache_latents)

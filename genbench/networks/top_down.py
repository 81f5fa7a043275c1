"""The encoder and the hierarchical decoder of a very deep VAE, whose layers of latents go from coarse to fine.

R. Child, Very Deep VAEs Generalize Autoregressive Models and Can Outperform Them on Images, 2021 (VDVAE), and its
official code.

Blocks are written as in the paper's code, separated by commas. '32x11' are eleven blocks at 32×32. '32d2' is a block of
the encoder that then averages over 2×2 windows. '16m8' is a layer of the decoder at 16×16 that begins with the features
at 8×8, enlarged.
"""

import re
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx

from genbench.data.conditions import Form, Given
from genbench.errors import UserError
from genbench.networks import layers
from genbench.networks.initialisers import kernel_as_pytorch
from genbench.ranges import COUNT, Range

Array = jax.Array
Noise = Callable[[int, tuple[int, int, int]], Array]  # number of a layer, shape of its latents → (batch, *shape)

DEFAULTS = {
    'width': 64,
    'latent_channels': 8,  # of the latents of each layer
    'depth': 2,  # blocks of the encoder and layers of the decoder at each resolution, where these are not written out
    'encoder': '',  # blocks such as '8x2,8d2,4x2,4d4,1x2'; '': `depth` at each of the resolutions
    'decoder': '',  # layers such as '1x2,4m1,4x2,8m4,8x2'
    'bottleneck': 0.25,  # width inside the blocks, in units of `width`
    'remat': 'none',  # or 'blocks', 'dots': recompute blocks for the gradient instead of keeping their activations
}
RANGES = {'width': COUNT, 'latent_channels': COUNT, 'depth': COUNT, 'bottleneck': Range(0, 4, above=True)}
BIAS_UP_TO = 64  # resolutions up to this start from a learned picture, and larger ones from zeros


class Entry(NamedTuple):
    """A block: its resolution, its kind ('x', 'd' or 'm'), and the pooled window or the coarser resolution."""

    resolution: int
    kind: str
    number: int


class Draw(NamedTuple):
    """Latents z of one layer.

    Attributes:
      z: (batch, …), from q if there is one and otherwise from p.
      divergence: KL(q ‖ p) of each latent in nats, (batch, …).
      log_ratio: log p(z) − log q(z), (batch,).
      place: mean of q in units of p: (mean of q − mean of p) / std of p, (batch, …).
    """

    z: Array
    divergence: Array
    log_ratio: Array
    place: Array


def draw(prior: Array, posterior: Array | None, noise: Array) -> Draw:
    """Draw z = mean + std · noise from independent normals, whose means and log std are joined in the last axis.

    Args:
      prior, posterior: (batch, …, 2 · channels). Without a posterior, z comes from the prior and the rest is 0.
      noise: standard normal, (batch, …, channels).
    """
    mean_p, log_std_p = jnp.split(prior, 2, axis=-1)
    if posterior is None:
        nothing = jnp.zeros_like(noise)
        return Draw(mean_p + jnp.exp(log_std_p) * noise, nothing, jnp.zeros(len(noise)), nothing)
    mean_q, log_std_q = jnp.split(posterior, 2, axis=-1)
    z, place = mean_q + jnp.exp(log_std_q) * noise, (mean_q - mean_p) * jnp.exp(-log_std_p)
    log_share = log_std_q - log_std_p
    divergence = (jnp.exp(2 * log_share) + jnp.square(place) - 1) / 2 - log_share
    ratio = log_share + (jnp.square(noise) - jnp.square((z - mean_p) * jnp.exp(-log_std_p))) / 2
    return Draw(z, divergence, ratio.reshape(len(z), -1).sum(1), place)


def resolutions(size: int) -> list[int]:
    """The default resolutions from fine to coarse: halved down to an odd one or to 4 at most, then 1."""
    found = [size]
    while found[-1] > 4 and found[-1] % 2 == 0:
        found.append(found[-1] // 2)
    return found if found[-1] == 1 else [*found, 1]


def encoder_blocks(text: str, size: int, depth: int) -> list[Entry]:
    """The encoder's blocks, for images of this size. A UserError says what does not fit."""
    steps = resolutions(size)
    if not text:
        ends = [f'{fine}x{depth},{fine}d{fine // coarse}' for fine, coarse in zip(steps, steps[1:], strict=False)]
        text = ','.join([*ends, f'1x{depth}'])
    blocks, now = _read(text, 'encoder', 'd'), size
    for resolution, kind, number in blocks:
        if resolution != now or (kind == 'd' and (number < 1 or now % number)):
            raise UserError(f'network.encoder is {text!r}: a block at {resolution} does not follow features at {now}; '
                            f'the images are {size}×{size}.')  # fmt: skip
        now = now // number if kind == 'd' else now
    return blocks


def decoder_layers(text: str, size: int, depth: int) -> list[Entry]:
    """The decoder's layers, for images of this size. A UserError says what does not fit."""
    steps = resolutions(size)[::-1]
    if not text:
        rest = [f'{fine}m{coarse}' + f',{fine}' * (depth - 1) for coarse, fine in zip(steps, steps[1:], strict=False)]
        text = ','.join([f'{steps[0]}x{depth}', *rest])
    found, made = _read(text, 'decoder', 'm'), set[int]()
    for resolution, kind, number in found:
        if kind == 'm' and (number not in made or resolution % number):
            raise UserError(f'network.decoder is {text!r}: {resolution}m{number} needs a layer at {number} before it, '
                            f'and {number} to divide {resolution}.')  # fmt: skip
        made.add(resolution)
    if found[-1].resolution != size:
        raise UserError(f'network.decoder is {text!r}, which ends at {found[-1].resolution}; the images are '
                        f'{size}×{size}.')  # fmt: skip
    return found


def _read(text: str, key: str, special: str) -> list[Entry]:
    found = []
    for part in text.split(','):
        match = re.fullmatch(rf'(\d+)(?:([x{special}])(\d+))?', part.strip())
        if not match or not int(match[1]):
            raise UserError(f'network.{key} is {text!r}, and {part.strip()!r} is no block; write 8x2 for two blocks at '
                            f'8×8, or 8{special}{2 if special == "d" else 4}.')  # fmt: skip
        many = int(match[3] or 1)
        one = Entry(int(match[1]), match[2] or 'x', many if match[2] == special else 1)
        found += [one] * (many if one.kind == 'x' else 1)
    if not found:
        raise UserError(f'network.{key} is {text!r}, which has no blocks; write 8x2 for two blocks at 8×8.')
    return found


def latent_shapes(config: Any, size: int) -> list[tuple[int, int, int]]:
    """The shape of the latents of each layer, for images of this size and the config of the network."""
    entries = decoder_layers(config.decoder, size, config.depth)
    return [(one.resolution, one.resolution, config.latent_channels) for one in entries]


class Block(nnx.Module):
    """A 1×1 convolution, two 3×3 and a 1×1, each after a GELU. At 1×1 and 2×2 all are 1×1.

    Args:
      scale: of the last kernel at the start.
    """

    def __init__(self, resolution: int, inputs: int, middle: int, outputs: int, scale: float = 1.0, *, rngs: nnx.Rngs):
        window = 3 if resolution > 2 else 1
        widths, kernels = (inputs, middle, middle, middle, outputs), (1, window, window, 1)
        self.convolutions = nnx.List([
            layers.Conv(widths[i], widths[i + 1], kernel=kernels[i],
                        kernel_init=kernel_as_pytorch(scale if i == 3 else 1.0), rngs=rngs) for i in range(4)
        ])  # fmt: skip

    def __call__(self, x: Array) -> Array:
        for convolution in self.convolutions:
            x = convolution(nnx.gelu(x, approximate=False))
        return x


class Encoder(nnx.Module):
    """Encoded images (batch, size, size, channels) → features (batch, resolution, resolution, width) by resolution."""

    def __init__(
        self, size: int, image_channels: int, forms: Mapping[str, Form], *,
        width: int, depth: int, encoder: str, bottleneck: float, remat: str, rngs: nnx.Rngs,
    ):  # fmt: skip
        self.entries, self.remat = encoder_blocks(encoder, size, depth), layers.check_remat(remat)
        self.conv_in = layers.Conv(image_channels, width, kernel_init=kernel_as_pytorch(), rngs=rngs)
        self.classes = layers.Classes(forms, width, rngs=rngs)
        scale, middle = len(self.entries) ** -0.5, max(int(width * bottleneck), 1)
        self.blocks = nnx.List([
            Block(one.resolution, width, middle, width, scale, rngs=rngs) for one in self.entries
        ])  # fmt: skip

    def __call__(self, x: Array, given: Given = None) -> dict[int, Array]:
        x = _told(self.conv_in(x), self.classes(given))
        found = {x.shape[1]: x}
        for one, block in zip(self.entries, self.blocks, strict=True):
            x = x + layers.rematerialise(self.remat, block)(x)
            if one.kind == 'd':
                batch, size, _, width = x.shape
                small = size // one.number
                x = x.reshape(batch, small, one.number, small, one.number, width).mean((2, 4))
            found[x.shape[1]] = x
        return found


class Layer(nnx.Module):
    """One layer of latents: a prior from the decoder's features and a posterior that also sees the encoder's."""

    def __init__(self, resolution: int, width: int, middle: int, latents: int, scale: float, *, rngs: nnx.Rngs):
        self.latents = latents
        self.posterior = Block(resolution, 2 * width, middle, 2 * latents, rngs=rngs)
        self.prior = Block(resolution, width, middle, 2 * latents + width, 0.0, rngs=rngs)
        self.latent = layers.Conv(latents, width, kernel=1, kernel_init=kernel_as_pytorch(scale), rngs=rngs)
        self.rest = Block(resolution, width, middle, width, scale, rngs=rngs)

    def __call__(self, x: Array, seen: Array | None, noise: Array) -> tuple[Array, Draw]:
        prior, added = jnp.split(self.prior(x), [2 * self.latents], axis=-1)
        posterior = None if seen is None else self.posterior(jnp.concatenate([x, seen], axis=-1))
        found = draw(prior, posterior, noise)
        x = x + added + self.latent(found.z)
        return x + self.rest(x), found


class Decoder(nnx.Module):
    """Noise → (outputs (batch, size, size, outputs), the draws of all layers). The noise is that of the latents.

    With features from the encoder the latents come from the posterior, and otherwise from the prior.

    Raises:
      UserError: the encoder has no features at the resolution of a layer.
    """

    def __init__(
        self, size: int, outputs: int, forms: Mapping[str, Form], *, width: int, latent_channels: int, depth: int,
        encoder: str, decoder: str, bottleneck: float, remat: str, rngs: nnx.Rngs,
    ):  # fmt: skip
        self.entries, self.remat = decoder_layers(decoder, size, depth), layers.check_remat(remat)
        known = {size, *(one.resolution // one.number for one in encoder_blocks(encoder, size, depth))}
        if missing := {one.resolution for one in self.entries} - known:
            raise UserError(f'network.decoder has layers at {min(missing)}, where the encoder has no features; add '
                            f'that resolution to network.encoder.')  # fmt: skip
        self.shapes = [(one.resolution, one.resolution, latent_channels) for one in self.entries]
        scale, middle = len(self.entries) ** -0.5, max(int(width * bottleneck), 1)
        self.layers = nnx.List([
            Layer(one.resolution, width, middle, latent_channels, scale, rngs=rngs) for one in self.entries
        ])  # fmt: skip
        self.width, self.classes = width, layers.Classes(forms, width, rngs=rngs)
        started = sorted({one.resolution for one in self.entries if one.resolution <= BIAS_UP_TO})
        self.starts = nnx.Dict({str(one): nnx.Param(jnp.zeros((one, one, width))) for one in started})
        self.gain, self.bias = nnx.Param(jnp.ones(width)), nnx.Param(jnp.zeros(width))
        self.output = layers.Conv(width, outputs, kernel=1, kernel_init=kernel_as_pytorch(), rngs=rngs)

    def __call__(
        self, noise: Noise, seen: Mapping[int, Array] | None = None, given: Given = None
    ) -> tuple[Array, list[Draw]]:
        features, draws, classes = dict[int, Array](), list[Draw](), self.classes(given)
        for index, (one, layer) in enumerate(zip(self.entries, self.layers, strict=True)):
            at = one.resolution
            drawn = noise(index, self.shapes[index])
            if at in features:
                x = features[at]
            else:
                start = self.starts[str(at)][...] if at <= BIAS_UP_TO else jnp.zeros((at, at, self.width))
                x = _told(jnp.broadcast_to(start, (len(drawn), *start.shape)), classes)
            if one.kind == 'm':
                x = x + jnp.repeat(jnp.repeat(features[one.number], at // one.number, 1), at // one.number, 2)
            x, found = layers.rematerialise(self.remat, layer)(x, None if seen is None else seen[at], drawn)
            features[at] = x
            draws.append(found)
        return self.output(x * self.gain[...] + self.bias[...]), draws


def _told(x: Array, classes: Array | None) -> Array:
    return x if classes is None else x + classes[:, None, None]

"""Generator and discriminator of SNGAN, with the options of BigGAN.

T. Miyato et al., Spectral Normalization for Generative Adversarial Networks, 2018, tables 3 to 5; T. Miyato, M. Koyama,
cGANs with Projection Discriminator, 2018 (classes); A. Brock, J. Donahue, K. Simonyan, Large Scale GAN Training for
High Fidelity Natural Image Synthesis, 2019 (BigGAN: `shared`, `split`, `attention`, `spectral_generator`).

Both networks are residual, with ReLUs, and resample inside their blocks. The generator is batch-normalised, by running
statistics once it no longer trains. What the papers leave open follows pfnet-research/sngan_projection and
ajbrock/BigGAN-PyTorch. Differs from BigGAN's code: there is no cross-replica option, because statistics are always
those of the whole batch.
"""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from genbench.data.conditions import Form, Given, combinations, combined
from genbench.errors import UserError
from genbench.networks import layers
from genbench.networks import spectral as spectral_layers
from genbench.networks.batch_norm import BatchNorm
from genbench.networks.resampled import doubled, halved
from genbench.ranges import COUNT, COUNT_OR_NONE, each, one_of

Array = jax.Array
GENERATOR_OPTIONS = {
    'latent': 64,  # number of dimensions of the generator's input
    'shared': 0,  # width of a class embedding that all of the generator's layers share; 0: each layer has its own
    'split': False,  # each block of the generator gets its own part of z
    'spectral_generator': False,  # spectral normalisation of the generator, too
}
DISCRIMINATOR_OPTIONS = {
    'discriminator_channels': 16,
    'discriminator_multipliers': (1, 1),  # channels of its blocks, in units of `discriminator_channels`
    'halvings': 1,  # blocks that halve the image, from the first on
    'spectral': True,  # whether the discriminator's kernels have a largest singular value of 1
}
DEFAULTS = {
    'channels': 32,
    'multipliers': (1, 1),  # channels of the generator at each resolution, in units of `channels`
    **GENERATOR_OPTIONS,
    **DISCRIMINATOR_OPTIONS,
    'attention': (),  # resolutions whose blocks are followed by self-attention
    'start': 'uniform',  # first weights: 'uniform' (Glorot & Bengio 2010) or 'orthogonal'
    'dtype': 'float32',  # type of the computation, or 'bfloat16'; parameters and outputs are always float32
}
RANGES = {
    'channels': COUNT, 'multipliers': each(COUNT, fewest=1), 'latent': COUNT, 'shared': COUNT_OR_NONE,
    'discriminator_channels': COUNT, 'discriminator_multipliers': each(COUNT, fewest=1), 'halvings': COUNT_OR_NONE,
    'attention': each(COUNT), 'start': one_of('uniform', 'orthogonal'),
}  # fmt: skip
GENERATOR, DISCRIMINATOR = (*GENERATOR_OPTIONS, 'multipliers', 'channels'), tuple(DISCRIMINATOR_OPTIONS)
PAIR = (1, 1)  # taps of means over 2×2 pixels, and of repeated pixels


def check_attention(size: int, options: Mapping[str, Any]) -> None:
    """Raise a UserError for a resolution of `attention` that no block of the two networks ends at, or an odd one."""
    generator = [size >> depth for depth in range(len(options['multipliers']) - 1)]
    halvings, blocks = options['halvings'], len(options['discriminator_multipliers'])
    discriminator = [size >> min(depth, halvings) for depth in range(1, blocks + 1)]
    able = sorted(one for one in {*generator, *discriminator} if one % 2 == 0)
    for resolution in options['attention']:
        if resolution not in able:
            known = ' or '.join(map(str, able)) or 'left empty'
            raise UserError(f'network.attention has {resolution}; with images of {size} pixels and these blocks it can '
                            f'be {known}, even resolutions at which a block of a network ends.')  # fmt: skip


class Make:
    """Makes layers of one network.

    Args:
      kind: the module of its layers, `layers` or `spectral`.
      start: how first weights are drawn.
    """

    def __init__(self, kind: Any, start: str, rngs: nnx.Rngs):
        self.kind, self.start, self.rngs = kind, start, rngs

    def _init(self, gain: float) -> layers.Initializer:
        if self.start == 'orthogonal':
            return nnx.initializers.orthogonal()
        return nnx.initializers.variance_scaling(gain, 'fan_avg', 'uniform')

    def conv(self, inputs: int, outputs: int, *, kernel: int = 3, gain: float = 2.0, **options: Any) -> Any:
        """A convolution whose weights have a variance of `gain`, times 2 / (inputs + outputs)."""
        return self.kind.Conv(
            inputs, outputs, kernel=kernel, kernel_init=self._init(gain), rngs=self.rngs, **options
        )  # fmt: skip

    def linear(self, inputs: int, outputs: int, **options: Any) -> Any:
        return self.kind.Linear(inputs, outputs, kernel_init=self._init(1.0), rngs=self.rngs, **options)


class Attention(nnx.Module):
    """x plus its self-attention times a factor that starts at zero (H. Zhang et al. 2019, with BigGAN's widths)."""

    def __init__(self, channels: int, make: Make):
        def conv(inputs: int, outputs: int) -> Any:
            return make.conv(inputs, outputs, kernel=1, gain=1.0, use_bias=False)

        self.queries, self.keys = (conv(channels, max(1, channels // 8)) for _ in range(2))
        self.values, self.output = conv(channels, max(1, channels // 2)), conv(max(1, channels // 2), channels)
        self.factor = nnx.Param(jnp.zeros(()))

    def __call__(self, x: Array) -> Array:
        queries = self.queries(x).reshape(len(x), -1, self.queries.out_features)
        keys, values = (_pooled(part(x)).reshape(len(x), -1, part.out_features) for part in (self.keys, self.values))
        shares = nnx.softmax(jnp.einsum('bqc,bkc->bqk', queries, keys).astype(jnp.float32), axis=-1)
        found = (shares.astype(x.dtype) @ values).reshape(*x.shape[:3], -1)
        return x + self.factor[...].astype(x.dtype) * self.output(found)


def _pooled(x: Array) -> Array:
    """The maximum over 2×2 pixels."""
    batch, height, width, channels = x.shape
    return x.reshape(batch, height // 2, 2, width // 2, 2, channels).max((2, 4))


class Up(nnx.Module):
    """A block of the generator, which doubles the picture."""

    def __init__(self, inputs: int, outputs: int, make: Make, **norm: Any):
        self.norm_in, self.norm_out = (
            BatchNorm(width, kind=make.kind, rngs=make.rngs, **norm) for width in (inputs, outputs)
        )
        self.conv_in, self.conv_out = make.conv(inputs, outputs), make.conv(outputs, outputs)
        self.shortcut = make.conv(inputs, outputs, kernel=1, gain=1.0)

    def __call__(self, x: Array, *told: Any) -> Array:
        h = self.conv_in(doubled(nnx.relu(self.norm_in(x, *told)), PAIR))
        return self.conv_out(nnx.relu(self.norm_out(h, *told))) + self.shortcut(doubled(x, PAIR))


class Down(nnx.Module):
    """A block of the discriminator, which may halve the picture. The `first` has no ReLU before its first layer."""

    def __init__(self, inputs: int, outputs: int, make: Make, *, first: bool, halve: bool):
        self.first, self.halve = first, halve
        self.conv_in, self.conv_out = make.conv(inputs, outputs), make.conv(outputs, outputs)
        changed = inputs != outputs or halve
        self.shortcut = make.conv(inputs, outputs, kernel=1, gain=1.0) if changed else None

    def __call__(self, x: Array) -> Array:
        h = self.conv_out(nnx.relu(self.conv_in(x if self.first else nnx.relu(x))))
        if self.halve:
            h, x = halved(h, PAIR), halved(x, PAIR)
        return h + (x if self.shortcut is None else self.shortcut(x))


class Generator(nnx.Module):
    """Latents (batch, latent) → images in [−1, 1] (batch, size, size, image_channels)."""

    def __init__(
        self, size: int, image_channels: int, forms: Mapping[str, Form], *,
        channels: int, multipliers: tuple[int, ...], latent: int, shared: int = 0, split: bool = False,
        spectral_generator: bool = False, attention: tuple[int, ...] = (), start: str = 'uniform',
        dtype: str = 'float32', rngs: nnx.Rngs,
    ):  # fmt: skip
        make = Make(spectral_layers if spectral_generator else layers, start, rngs)
        widths = [channels * multiplier for multiplier in reversed(multipliers)]  # from the lowest resolution
        self.dtype, self.bottom = layers.compute_dtype(dtype), size >> (len(widths) - 1)
        self.parts = len(widths) if split else 1
        if latent % self.parts:
            raise UserError(f'network.latent is {latent}; with network.split=True and {len(widths)} resolutions it '
                            f'should be divisible by {self.parts}.')  # fmt: skip
        part, shared = latent // self.parts, shared if forms else 0
        self.classes = layers.Classes(forms, shared, rngs=rngs) if shared else None
        norm: dict[str, Any] = {'vector': shared + (part if split else 0), 'forms': {} if shared else forms}
        self.input = make.linear(part, self.bottom**2 * widths[0])
        blocks: list[nnx.Module] = []
        for depth, pair in enumerate(zip(widths[:-1], widths[1:], strict=True), 1):
            blocks.append(Up(*pair, make, **norm))
            blocks += [Attention(pair[1], make)] if self.bottom << depth in attention else []
        self.blocks = nnx.List(blocks)
        self.norm = BatchNorm(widths[-1], rngs=rngs)
        self.output = make.conv(widths[-1], image_channels, gain=1.0)

    def __call__(self, z: Array, given: Given = None, training: bool = False) -> Array:
        """In training, normalisations take the statistics of the batch and keep running means of them."""
        first, *others = jnp.split(z.astype(self.dtype), self.parts, axis=1)
        h = self.input(first).reshape(len(z), self.bottom, self.bottom, -1)
        embedded: list[Any] = [] if self.classes is None else [self.classes(given)]
        for block in self.blocks:
            if isinstance(block, Attention):
                h = block(h)
                continue
            own = [*embedded, *([others.pop(0)] if others else [])]
            h = block(h, training, given, jnp.concatenate(own, axis=1) if own else None)
        return jnp.tanh(self.output(nnx.relu(self.norm(h, training))).astype(jnp.float32))


class Discriminator(nnx.Module):
    """Images in [−1, 1] → logits (batch,), linear in sums over pixels. Classes are projected."""

    def __init__(
        self, size: int, image_channels: int, forms: Mapping[str, Form], *,
        discriminator_channels: int, discriminator_multipliers: tuple[int, ...], halvings: int, spectral: bool = True,
        attention: tuple[int, ...] = (), start: str = 'uniform', dtype: str = 'float32', rngs: nnx.Rngs,
    ):  # fmt: skip
        self.dtype, self.forms = layers.compute_dtype(dtype), tuple(forms.items())
        if halvings > len(discriminator_multipliers) or size % 2**halvings:
            raise UserError(f'network.halvings is {halvings}; it should be at most the number of blocks, '
                            f'{len(discriminator_multipliers)} (network.discriminator_multipliers), and {size} pixels '
                            'should be divisible by 2 as often.')  # fmt: skip
        make = Make(spectral_layers if spectral else layers, start, rngs)
        widths = [image_channels, *(discriminator_channels * multiplier for multiplier in discriminator_multipliers)]
        blocks: list[nnx.Module] = []
        for depth, pair in enumerate(zip(widths[:-1], widths[1:], strict=True)):
            blocks.append(Down(*pair, make, first=depth == 0, halve=depth < halvings))
            size >>= depth < halvings
            blocks += [Attention(pair[1], make)] if size in attention else []
        self.blocks = nnx.List(blocks)
        self.output = make.linear(widths[-1], 1)
        self.classes = make.linear(combinations(forms), widths[-1], use_bias=False) if forms else None

    def __call__(self, x: Array, given: Given = None) -> Array:
        h = x.astype(self.dtype)
        for block in self.blocks:
            h = block(h)
        features = nnx.relu(h).sum((1, 2)).astype(jnp.float32)
        logits = self.output(features)[:, 0]
        if self.classes is None or given is None:
            return logits
        forms = dict(self.forms)
        told = jax.nn.one_hot(combined(forms, given, len(x)), combinations(forms))
        return logits + (features * self.classes(told)).sum(1)

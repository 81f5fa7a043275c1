"""Generator and discriminator of R3GAN (N. Huang et al., The GAN is dead; long live the GAN!, 2024, section 4).

Both are residual networks of inverted bottlenecks with grouped convolutions and without normalisation, and resample by
[1, 3, 3, 1] outside the blocks. What the paper leaves open follows its code, brownvc/R3GAN: kernels are normal with
variance 1 / inputs, those of a block's first two layers times 2 / (1 + 0.2²) / √blocks (Fixup, H. Zhang et al. 2019),
and the last layer of a block starts at zero.

Differs from the code: with `dtype=bfloat16` the whole network computes in bfloat16, even at the lowest resolution.
"""

import math
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from genbench.data.conditions import Form, Given
from genbench.errors import UserError
from genbench.networks import layers, platforms, resampled
from genbench.ranges import COUNT, each

DEFAULTS = {
    'channels': 64,
    'multipliers': (1, 1),  # channels at each resolution, in units of `channels`
    'blocks': 2,  # residual blocks at each resolution
    'group': 8,  # channels of a block's input for each group of its convolution
    'expansion': 2,  # width of a block's middle, in units of that of its input
    'latent': 64,  # number of dimensions of the generator's input
    'label_features': 64,  # width of the generator's label embedding
    'dtype': 'float32',  # type of the computation, or 'bfloat16'; parameters and outputs are always float32
}
GENERATOR, DISCRIMINATOR = ('latent', 'label_features'), ()  # keys that only one of the two takes
RANGES = {
    'channels': COUNT,
    'multipliers': each(COUNT, fewest=1),
    'blocks': COUNT,
    'group': COUNT,
    'expansion': COUNT,
    'latent': COUNT,
    'label_features': COUNT,
}
TAPS, SLOPE = (1, 3, 3, 1), 0.2


def normal(gain: float = 1.0) -> layers.Initializer:
    """Normal with variance gain² / inputs."""
    return nnx.initializers.variance_scaling(gain**2, 'fan_in', 'normal')


def check_groups(widths: list[int], group: int) -> None:
    """Refuse widths that groups do not divide."""
    for width in widths:
        if width % group:
            raise UserError(f'Groups of {group} channels (network.group) do not divide the {width} channels of a '
                            'resolution (network.channels times network.multipliers).')  # fmt: skip


class GroupedConv(layers.Conv):
    """A 3×3 convolution within groups of channels.

    On CPU it is a product with patches, because XLA's gradient of a grouped convolution is five times slower there.
    Counts of FLOPs on CPU therefore include the products with the padding.
    """

    def apply(self, x: jax.Array, kernel: jax.Array) -> jax.Array:
        if platforms.platform() != 'cpu':
            return super().apply(x, kernel)
        (_, height, width, _), (_, _, inputs, outputs) = x.shape, kernel.shape
        padded = jnp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
        padded = padded.reshape(*padded.shape[:3], -1, inputs)
        places = [padded[:, i : i + height, j : j + width] for i in range(3) for j in range(3)]
        own = kernel.astype(x.dtype).reshape(9 * inputs, -1, outputs * inputs // x.shape[-1])
        y = jnp.einsum('bhwgi,igo->bhwgo', jnp.concatenate(places, -1), own).reshape(*x.shape[:3], -1)
        return y if self.bias is None else y + self.bias[...].astype(x.dtype)


class Block(nnx.Module):
    """x + h, where h widens x, convolves its groups, and narrows it again, with leaky ReLUs in between (figure 4)."""

    def __init__(self, width: int, total: int, *, group: int, expansion: int, rngs: nnx.Rngs):
        gain = math.sqrt(2 / (1 + SLOPE**2)) * total**-0.25
        wide = width * expansion
        self.widen = layers.Linear(width, wide, kernel_init=normal(gain), rngs=rngs)
        self.conv = GroupedConv(wide, wide, kernel_init=normal(gain), feature_group_count=width // group, rngs=rngs)
        self.narrow = layers.Linear(wide, width, use_bias=False, kernel_init=layers.zeros, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        h = nnx.leaky_relu(self.widen(x), SLOPE)
        return x + self.narrow(nnx.leaky_relu(self.conv(h), SLOPE))


def _linear(inputs: int, outputs: int, rngs: nnx.Rngs) -> layers.Linear:
    return layers.Linear(inputs, outputs, use_bias=False, kernel_init=normal(), rngs=rngs)


def _transition(inputs: int, outputs: int, rngs: nnx.Rngs) -> layers.Linear | None:
    return _linear(inputs, outputs, rngs) if inputs != outputs else None


class Generator(nnx.Module):
    """Latents (batch, latent) → images (batch, size, size, image_channels), which are not bounded."""

    def __init__(
        self, size: int, image_channels: int, forms: Mapping[str, Form], *,
        channels: int, multipliers: tuple[int, ...], blocks: int, group: int, expansion: int, latent: int,
        label_features: int, dtype: str = 'float32', rngs: nnx.Rngs,
    ):  # fmt: skip
        self.dtype = layers.compute_dtype(dtype)
        widths = [channels * multiplier for multiplier in reversed(multipliers)]  # from the lowest resolution
        check_groups(widths, group)
        options: dict[str, Any] = {'group': group, 'expansion': expansion, 'rngs': rngs}
        total = blocks * len(widths)
        self.classes = layers.Classes(forms, label_features, embedding_init=_of_classes(forms), rngs=rngs)
        self.input = _linear(latent + (label_features if forms else 0), widths[0], rngs)
        bottom = size >> (len(widths) - 1)
        self.basis = nnx.Param(jax.random.normal(rngs.params(), (bottom, bottom, widths[0])))
        self.transitions = nnx.List([_transition(*pair, rngs) for pair in zip(widths[:-1], widths[1:], strict=True)])
        self.stages = nnx.List([nnx.List([Block(width, total, **options) for _ in range(blocks)]) for width in widths])
        self.output = _linear(widths[-1], image_channels, rngs)

    def __call__(self, z: jax.Array, given: Given = None) -> jax.Array:
        embedded = self.classes(given)
        z = z if embedded is None else jnp.concatenate([z, embedded], axis=-1)
        h = self.input(z.astype(self.dtype))[:, None, None] * self.basis[...].astype(self.dtype)
        for transition, stage in zip([None, *self.transitions], self.stages, strict=True):
            h = h if transition is None else transition(h)
            h = h if stage is self.stages[0] else resampled.doubled(h, TAPS)
            for block in stage:
                h = block(h)
        return self.output(h).astype(jnp.float32)


class Discriminator(nnx.Module):
    """Images (batch, size, size, image_channels) → logits (batch,). Classes are projected (Miyato & Koyama 2018)."""

    def __init__(
        self, size: int, image_channels: int, forms: Mapping[str, Form], *,
        channels: int, multipliers: tuple[int, ...], blocks: int, group: int, expansion: int, dtype: str = 'float32',
        rngs: nnx.Rngs,
    ):  # fmt: skip
        self.dtype = layers.compute_dtype(dtype)
        widths = [channels * multiplier for multiplier in multipliers]  # from the highest resolution
        check_groups(widths, group)
        options: dict[str, Any] = {'group': group, 'expansion': expansion, 'rngs': rngs}
        total, bottom = blocks * len(widths), size >> (len(widths) - 1)
        self.input = _linear(image_channels, widths[0], rngs)
        self.transitions = nnx.List([_transition(*pair, rngs) for pair in zip(widths[:-1], widths[1:], strict=True)])
        self.stages = nnx.List([nnx.List([Block(width, total, **options) for _ in range(blocks)]) for width in widths])
        self.basis = nnx.Param(jax.random.normal(rngs.params(), (bottom, bottom, widths[-1])) / bottom)
        self.output = _linear(widths[-1], widths[-1] if forms else 1, rngs)
        scale = widths[-1] ** -0.5
        self.classes = layers.Classes(forms, widths[-1], embedding_init=_of_classes(forms, scale), rngs=rngs)

    def __call__(self, x: jax.Array, given: Given = None) -> jax.Array:
        h = self.input(x.astype(self.dtype))
        for stage, transition in zip(self.stages, [*self.transitions, None], strict=True):
            for block in stage:
                h = block(h)
            h = h if stage is self.stages[-1] else resampled.halved(h, TAPS)
            h = h if transition is None else transition(h)
        h = jnp.einsum('bhwc,hwc->bc', h, self.basis[...].astype(h.dtype))
        features, embedded = self.output(h).astype(jnp.float32), self.classes(given)
        return features[:, 0] if embedded is None else (features * embedded).sum(-1)


def _of_classes(forms: Mapping[str, Form], scale: float = 1.0) -> layers.Initializer:
    """The initialiser of embeddings, which the code takes for layers with one input for each class."""
    count = max((form.size for form in forms.values()), default=1)
    return nnx.initializers.normal(scale * count**-0.5)

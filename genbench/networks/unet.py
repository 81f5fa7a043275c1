"""The U-Net of DDPM (Ho et al. 2020, appendix B), with residual blocks at each resolution and attention at some.

The initialisation is that of the official code, except that layers that start near zero there (with a variance of 1e-10
over their average fan) start at zero here. DDPM has no conditions. Here classes, vectors and captions as a whole are
added to the embedding of time, pictures become further channels, and every block attends to words.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from genbench.data.conditions import Form, Given
from genbench.networks import layers, text
from genbench.networks.residual import ResidualBlock
from genbench.ranges import COUNT, POSITIVE, SHARE, each

DEFAULTS = {
    'channels': 32,
    'multipliers': (1, 2),  # channels at each resolution, in units of `channels`
    'blocks': 1,  # residual blocks at each resolution; one more on the way up
    'attention': (),  # heights (in pixels) at which self-attention follows blocks; if any, also in the middle
    'heads': 1,
    'groups': 8,  # groups of the group normalisation
    'dropout': 0.0,
    'scale_shift': False,  # conditions scale and shift the second norm of a block (improved DDPM), not add to its input
    'time_scale': 1000.0,  # scale of the time sinusoids; use less if a loss differentiates with respect to time
    'dtype': 'float32',  # type of the computation, or 'bfloat16'; parameters and the output are always float32
    'remat': 'none',  # or 'blocks', 'dots': recompute blocks for the gradient instead of keeping their activations
    **text.DEFAULTS,
}
RANGES = {
    'channels': COUNT,
    'multipliers': each(COUNT, fewest=1),
    'blocks': COUNT,
    'attention': each(COUNT, int),
    'heads': COUNT,
    'groups': COUNT,
    'dropout': SHARE,
    'time_scale': POSITIVE,
    **text.RANGES,
}


# The variance is 1 / features, so that a class counts as much as a time.
CLASS_INIT = nnx.initializers.variance_scaling(1.0, 'fan_in', 'normal', out_axis=0)


class Level(nnx.Module):
    """A residual block, optionally followed by self-attention and by attention to words of width `words`."""

    def __init__(
        self, inputs: int, outputs: int, *, attention: bool, words: int, heads: int, groups: int, remat: str,
        rngs: nnx.Rngs, **options,
    ):  # fmt: skip
        self.remat = layers.check_remat(remat)
        self.block = ResidualBlock(inputs, outputs, groups=groups, rngs=rngs, **options)
        self.attention = layers.Attention(outputs, heads=heads, groups=groups, rngs=rngs) if attention else None
        self.words = layers.CrossAttention(outputs, words, heads=heads, rngs=rngs) if words else None

    def __call__(self, x, condition, words, key):
        return layers.rematerialise(self.remat, self._apply)(x, condition, words, key)

    def _apply(self, x, condition, words, key):
        h = self.block(x, condition, key)
        h = h if self.attention is None else self.attention(h)
        if self.words is None:
            return h
        return self.words(h.reshape(len(h), -1, h.shape[-1]), words).reshape(h.shape)


class Encoder(nnx.Module):
    """The first half of a U-Net, down to its middle. It takes the U-Net's arguments.

    A subclass creates `words`, after its own layers.
    """

    words: layers.Words

    def __init__(
        self, size: int, image_channels: int, forms: Mapping[str, Form], *,
        channels: int, multipliers: tuple[int, ...], blocks: int, attention: tuple[int, ...], heads: int,
        groups: int, dropout: float, time_scale: float, dtype: str, remat: str, second_time: bool,
        features: int = 0, attend_middle: bool = False, scale_shift: bool = False, rngs: nnx.Rngs, **reader: int,
    ):  # fmt: skip
        self.dtype, self.forms = layers.compute_dtype(dtype), tuple(forms.items())
        self.reader = {'own': channels * max(multipliers), 'outputs': 4 * channels, **reader}
        self.level_options: dict[str, Any] = {
            'words': text.wide(forms, **self.reader), 'heads': heads, 'condition': 4 * channels, 'groups': groups,
            'dropout': dropout, 'remat': remat, 'scale_shift': scale_shift,
        }  # fmt: skip
        self.conditioning = layers.Conditioning(
            channels, 4 * channels, forms, endpoint=True,
            kernel_init=layers.fan_average, class_init=CLASS_INIT, time_scale=time_scale, second_time=second_time,
            rngs=rngs,
        )  # fmt: skip
        inputs = image_channels + features + layers.channels_of(forms)
        self.conv_in = layers.Conv(inputs, channels, kernel_init=layers.fan_average, rngs=rngs)
        down: list[Any] = []
        width, skips = channels, [channels]
        for depth, multiplier in enumerate(multipliers):
            if depth:
                down.append(layers.Downsample(width, rngs=rngs))
                skips.append(width)
            for _ in range(blocks):
                down.append(self.level(width, channels * multiplier, size >> depth in attention, rngs))
                width = channels * multiplier
                skips.append(width)
        self.down, self.widths = nnx.List(down), (*skips, width)  # widths of the skips and the middle
        self.middle = nnx.List([
            self.level(width, width, bool(attention) or attend_middle, rngs), self.level(width, width, False, rngs),
        ])  # fmt: skip

    def level(self, inputs: int, outputs: int, attend: bool, rngs: nnx.Rngs) -> Level:
        return Level(inputs, outputs, attention=attend, rngs=rngs, **self.level_options)

    def encode(
        self, x: jax.Array, t: jax.Array, given: Given, key: jax.Array | None, s: jax.Array | None = None,
        hint: jax.Array | None = None,
    ) -> tuple[jax.Array, jax.Array | None, list[jax.Array]]:  # fmt: skip
        """The vector of time and conditions, the words, and the states at the skips and after the middle.

        Args:
          hint: added to the first layer's output.
        """
        words, whole = self.words.read(given, len(x))
        condition = self.conditioning(t, given, s, whole).astype(self.dtype)
        h = self.conv_in(layers.with_channels(x, dict(self.forms), given).astype(self.dtype))
        h = h if hint is None else h + hint
        states = [h]
        for index, layer in enumerate(self.down):
            h = layer(h, condition, words, numbered(key, index)) if isinstance(layer, Level) else layer(h)
            states.append(h)
        for index, layer in enumerate(self.middle):
            h = layer(h, condition, words, numbered(key, 1000 + index))
        return condition, words, [*states, h]


def numbered(key: jax.Array | None, index: int) -> jax.Array | None:
    """The dropout key of one layer."""
    return None if key is None else jax.random.fold_in(key, index)


class UNet(Encoder):
    """(x_t, t, given) → an array shaped like x_t, or with `outputs` times its channels.

    Args:
      size: height and width of the images, divisible by 2 ** (len(multipliers) - 1).
      image_channels: the number of channels of the images.
      forms: the forms of the conditions, by name.
      second_time: build the network for calls with a time s before t.
      features: the number of further channels of x, which a subclass computes.
      attend_middle: attend in the middle even if no resolution is in `attention`.
      reader: the keys of `text.DEFAULTS`.
    """

    def __init__(
        self, size: int, image_channels: int, forms: Mapping[str, Form], *,
        channels: int, multipliers: tuple[int, ...], blocks: int, attention: tuple[int, ...], heads: int,
        groups: int, dropout: float, time_scale: float = 1000.0, dtype: str = 'float32', remat: str = 'none',
        second_time: bool = False, outputs: int = 1, features: int = 0, attend_middle: bool = False,
        scale_shift: bool = False, rngs: nnx.Rngs, **reader: int,
    ):  # fmt: skip
        super().__init__(
            size, image_channels, forms, channels=channels, multipliers=multipliers, blocks=blocks,
            attention=attention, heads=heads, groups=groups, dropout=dropout, time_scale=time_scale, dtype=dtype,
            remat=remat, second_time=second_time, features=features, attend_middle=attend_middle,
            scale_shift=scale_shift, rngs=rngs, **reader,
        )  # fmt: skip
        *skips, width = self.widths
        up: list[Any] = []
        for depth, multiplier in reversed(list(enumerate(multipliers))):
            for _ in range(blocks + 1):
                up.append(self.level(width + skips.pop(), channels * multiplier, size >> depth in attention, rngs))
                width = channels * multiplier
            if depth:
                up.append(layers.Upsample(width, rngs=rngs))
        self.up = nnx.List(up)
        self.norm_out = layers.GroupNorm(width, groups=groups)
        self.conv_out = layers.Conv(width, outputs * image_channels, kernel_init=layers.zeros, rngs=rngs)
        self.words = text.reader(forms, rngs=rngs, **self.reader)

    def __call__(
        self, x: jax.Array, t: jax.Array, given: Given = None, key: jax.Array | None = None,
        s: jax.Array | None = None, residuals: Sequence[jax.Array] = (),
    ) -> jax.Array:  # fmt: skip
        """x (batch, height, width, channels), t and s (batch,) in [0, 1], conditions or None; `key` turns dropout on.

        s defaults to t. Residuals from a `Control` are added to the states at the skips and after the middle."""
        condition, words, states = self.encode(x, t, given, key, s)
        if residuals:
            states = [state + more for state, more in zip(states, residuals, strict=True)]
        *skips, h = states
        for index, layer in enumerate(self.up):
            if isinstance(layer, Level):
                h = layer(jnp.concatenate([h, skips.pop()], axis=-1), condition, words, numbered(key, 2000 + index))
            else:
                h = layer(h)
        return self.conv_out(nnx.silu(self.norm_out(h))).astype(jnp.float32)

    def features(self, x: jax.Array, t: jax.Array, given: Given = None) -> list[jax.Array]:
        """The states at the skips and after the middle, (batch, height, width, `widths`) each."""
        return self.encode(x, t, given, None)[2]


class Classifier(Encoder):
    """(x_t, t) → logits (batch, classes), from the first half of a `UNet` and the mean over its lowest resolution.

    P. Dhariwal, A. Nichol, Diffusion Models Beat GANs on Image Synthesis, 2021 (section 4), pool by attention.

    Args:
      classes: the number of logits. All other arguments are those of the `UNet`.
    """

    def __init__(self, size: int, image_channels: int, classes: int, *, groups: int, rngs: nnx.Rngs, **options: Any):
        super().__init__(size, image_channels, {}, groups=groups, second_time=False, rngs=rngs, **options)
        self.norm_out = layers.GroupNorm(self.widths[-1], groups=groups)
        self.output = layers.Linear(self.widths[-1], classes, kernel_init=layers.fan_average, rngs=rngs)
        self.words = text.reader({}, rngs=rngs, **self.reader)

    def __call__(self, x: jax.Array, t: jax.Array, key: jax.Array | None = None) -> jax.Array:
        *_, h = self.encode(x, t, None, key)[2]
        return self.output(nnx.silu(self.norm_out(h)).mean((1, 2))).astype(jnp.float32)


class Control(Encoder):
    """(x_t, t, given) → the residuals of a `UNet`, from pictures that it was not built for; zero when fresh.

    L. Zhang et al., Adding Conditional Control to Text-to-Image Diffusion Models, 2023: this is a copy of the U-Net's
    first half that also sees the pictures, which are added to its first layer's output. Pictures enter and residuals
    leave through convolutions that start at zero.

    Args:
      pictures: the forms of these pictures. All other arguments are those of the `UNet`.
    """

    def __init__(
        self, size: int, image_channels: int, forms: Mapping[str, Form], pictures: Mapping[str, Form], *,
        channels: int, rngs: nnx.Rngs, **options: Any,
    ):  # fmt: skip
        super().__init__(size, image_channels, forms, channels=channels, second_time=False, rngs=rngs, **options)
        self.pictures = tuple(pictures.items())
        seen = layers.channels_of(pictures)
        self.hint_in = layers.Conv(seen, channels, kernel_init=layers.fan_average, rngs=rngs)
        self.hint_out = layers.Conv(channels, channels, kernel_init=layers.zeros, rngs=rngs)
        self.outputs = nnx.List([
            layers.Conv(width, width, kernel=1, kernel_init=layers.zeros, rngs=rngs) for width in self.widths
        ])  # fmt: skip
        self.words = text.reader(forms, rngs=rngs, **self.reader)

    def begin_as(self, network: UNet) -> None:
        """Copy the parameters of this U-Net's first half."""
        for name in ('conditioning', 'conv_in', 'down', 'middle', 'words'):
            nnx.update(getattr(self, name), nnx.state(getattr(network, name)))

    def __call__(
        self, x: jax.Array, t: jax.Array, given: Given = None, key: jax.Array | None = None
    ) -> list[jax.Array]:
        seen = layers.with_channels(x, dict(self.pictures), given)[..., x.shape[-1] :].astype(self.dtype)
        hint = self.hint_out(nnx.silu(self.hint_in(seen)))
        _, _, states = self.encode(x, t, given, key, hint=hint)
        return [layer(state) for layer, state in zip(self.outputs, states, strict=True)]

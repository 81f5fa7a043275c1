"""An invertible network of affine couplings on images of several scales.

L. Dinh, J. Sohl-Dickstein, S. Bengio, Density estimation using Real NVP, 2017 (RealNVP: affine couplings, squeezing,
factoring out, logits); D. Kingma, P. Dhariwal, Glow: Generative Flow with Invertible 1×1 Convolutions, 2018 (Glow:
activation normalisation, learned 1×1 convolutions).

The network differs from both papers'. Factored-out channels have the prior N(0, I), whereas Glow learns their mean and
scale from the remaining channels. The couplings' networks contain no normalisation. Classes enter these networks and
not the prior. 1×1 convolutions start as a reversal, not as a random rotation, and preserve volume. A tanh of fixed
range bounds the log-scales; RealNVP learns the range, and Glow uses a sigmoid. As in RealNVP, and unlike in Glow,
pixels are turned into logits.

Each layer maps x (batch, height, width, channels) to y and log |det dy/dx| (batch,). Its `inverse` maps y back.
"""

import math
from collections.abc import Mapping

import jax
import jax.numpy as jnp
from flax import nnx

from genbench.data.conditions import Form, Given
from genbench.errors import UserError
from genbench.networks import layers
from genbench.ranges import COUNT, SHARE, Range, each

Array = jax.Array

DEFAULTS = {
    'channels': 64,
    'multipliers': (1, 1),  # channels of the couplings' networks at each scale, in units of `channels`
    'steps': 6,  # steps at each scale: normalisation, 1×1 convolution, coupling
    'margin': 0.01,  # α of the logits: [−1, 1] is first mapped into (α, 1 − α)
    'dropout': 0.0,
    'dtype': 'float32',  # type of the networks in couplings, or 'bfloat16'; the transformed values are always float32
}
RANGES = {
    'channels': COUNT,
    'multipliers': each(COUNT, fewest=1),
    'steps': COUNT,
    'margin': Range(0, 0.5, above=True, below=True),
    'dropout': SHARE,
}
LOG_SCALE_BOUND = 2.0  # bound for each coupling, so that neither direction overflows


def squeeze(x: Array) -> Array:
    """Turn 2×2 pixels into four times the channels: (b, 2h, 2w, c) → (b, h, w, 4c) (RealNVP, section 3.6)."""
    batch, height, width, channels = x.shape
    x = x.reshape(batch, height // 2, 2, width // 2, 2, channels).transpose(0, 1, 3, 2, 4, 5)
    return x.reshape(batch, height // 2, width // 2, 4 * channels)


def unsqueeze(x: Array) -> Array:
    """Inverse of `squeeze`."""
    batch, height, width, channels = x.shape
    x = x.reshape(batch, height, width, 2, 2, channels // 4).transpose(0, 1, 3, 2, 4, 5)
    return x.reshape(batch, 2 * height, 2 * width, channels // 4)


class Logit(nnx.Module):
    """logit(α + (1 − 2α) (x + 1) / 2), which takes the bounded range of pixels to a line (RealNVP, section 4.1)."""

    def __init__(self, margin: float):
        self.margin = margin

    def __call__(self, x: Array) -> tuple[Array, Array]:
        p = self.margin + (1 - 2 * self.margin) * (x + 1) / 2
        y = jnp.log(p) - jnp.log1p(-p)
        slope = math.log((1 - 2 * self.margin) / 2) - jnp.log(p) - jnp.log1p(-p)
        return y, slope.sum((1, 2, 3))

    def inverse(self, y: Array) -> Array:
        return 2 * (nnx.sigmoid(y) - self.margin) / (1 - 2 * self.margin) - 1


class Normalisation(nnx.Module):
    """(x − shift) · scale in each channel ('actnorm': Glow, section 3.1)."""

    def __init__(self, channels: int):
        self.shift = nnx.Param(jnp.zeros(channels))
        self.log_scale = nnx.Param(jnp.zeros(channels))

    def fit(self, x: Array) -> None:
        """Set shift and scale so that every output channel has mean 0 and variance 1 on x."""
        self.shift[...] = x.mean((0, 1, 2))
        self.log_scale[...] = -jnp.log(x.std((0, 1, 2)) + 1e-6)

    def __call__(self, x: Array) -> tuple[Array, Array]:
        log_scale = self.log_scale[...]
        log_det = x.shape[1] * x.shape[2] * log_scale.sum()
        return (x - self.shift[...]) * jnp.exp(log_scale), jnp.broadcast_to(log_det, len(x))

    def inverse(self, y: Array) -> Array:
        return y * jnp.exp(-self.log_scale[...]) + self.shift[...]


class Mixing(nnx.Module):
    """1×1 convolution with W = P L U (Glow, equation 10), where P reverses the channels.

    L and U have unit diagonals, so the layer preserves volume. The normalisation before it provides the scales.
    """

    def __init__(self, channels: int):
        self.kernel = nnx.Param(jnp.zeros((channels, channels)))

    def _factors(self) -> tuple[Array, Array]:
        one = jnp.eye(len(self.kernel[...]))
        return jnp.tril(self.kernel[...], -1) + one, jnp.triu(self.kernel[...], 1) + one

    def __call__(self, x: Array) -> tuple[Array, Array]:
        weight = jnp.matmul(*self._factors(), precision='highest')
        return jnp.matmul(x[..., ::-1], weight, precision='highest'), jnp.zeros(len(x))

    def inverse(self, y: Array) -> Array:
        lower, upper = self._factors()
        columns = jax.scipy.linalg.solve_triangular(upper, y.reshape(-1, y.shape[-1]).T, trans='T')
        columns = jax.scipy.linalg.solve_triangular(lower, columns, trans='T', lower=True)
        return columns.T.reshape(y.shape)[..., ::-1]


class Coupling(nnx.Module):
    """y_a = x_a, y_b = (x_b + t(x_a)) · exp(s(x_a)) for the halves a, b of the channels (Glow's code; its table 1 adds
    t after the scaling).

    The network for s and t starts at zero, so a fresh layer is the identity.
    """

    def __init__(
        self,
        channels: int,
        forms: Mapping[str, Form],
        *,
        width: int,
        dropout: float = 0.0,
        dtype: str = 'float32',
        rngs: nnx.Rngs,
    ):
        self.dropout, self.dtype, moved = dropout, layers.compute_dtype(dtype), channels // 2
        self.conv_in = layers.Conv(channels - moved, width, rngs=rngs)
        self.classes = layers.Classes(forms, width, rngs=rngs)
        self.hidden = layers.Linear(width, width, rngs=rngs)
        self.conv_out = layers.Conv(width, 2 * moved, kernel_init=layers.zeros, rngs=rngs)

    def _affine(self, kept: Array, given: Given, key: Array | None) -> tuple[Array, Array]:
        """The log-scale and the shift."""
        h = self.conv_in(kept.astype(self.dtype) if self.dtype == jnp.bfloat16 else kept)
        classes = self.classes(given)
        if classes is not None:
            h = h + classes[:, None, None].astype(h.dtype)
        h = layers.dropout(nnx.relu(self.hidden(nnx.relu(h))), self.dropout, key)
        log_scale, shift = jnp.split(self.conv_out(h).astype(kept.dtype), 2, axis=-1)
        return LOG_SCALE_BOUND * jnp.tanh(log_scale / LOG_SCALE_BOUND), shift

    def __call__(self, x: Array, given: Given = None, key: Array | None = None) -> tuple[Array, Array]:
        kept, moved = jnp.split(x, [x.shape[-1] - x.shape[-1] // 2], axis=-1)
        log_scale, shift = self._affine(kept, given, key)
        y = jnp.concatenate([kept, (moved + shift) * jnp.exp(log_scale)], axis=-1)
        return y, log_scale.sum((1, 2, 3))

    def inverse(self, y: Array, given: Given = None) -> Array:
        kept, moved = jnp.split(y, [y.shape[-1] - y.shape[-1] // 2], axis=-1)
        log_scale, shift = self._affine(kept, given, None)
        return jnp.concatenate([kept, moved * jnp.exp(-log_scale) - shift], axis=-1)


class Step(nnx.Module):
    """Normalisation, 1×1 convolution, coupling (Glow, figure 2a)."""

    def __init__(self, channels: int, forms: Mapping[str, Form], *, rngs: nnx.Rngs, **options):
        self.normalisation = Normalisation(channels)
        self.mixing = Mixing(channels)
        self.coupling = Coupling(channels, forms, rngs=rngs, **options)

    def __call__(
        self, x: Array, given: Given = None, key: Array | None = None, fit: bool = False
    ) -> tuple[Array, Array]:
        if fit:
            self.normalisation.fit(x)
        x, normalised = self.normalisation(x)
        x, mixed = self.mixing(x)
        x, coupled = self.coupling(x, given, key)
        return x, normalised + mixed + coupled

    def inverse(self, y: Array, given: Given = None) -> Array:
        return self.normalisation.inverse(self.mixing.inverse(self.coupling.inverse(y, given)))


class Flow(nnx.Module):
    """Images in [−1, 1] (batch, *shape) ↔ vectors (batch, dims), normal after training (Glow, figure 2b).

    Pixels become logits. Each scale then applies a squeeze and its steps. After every scale except the last, the half
    of the channels that the last coupling transformed is factored out.

    Raises:
      UserError: the images cannot be halved that often.
    """

    def __init__(
        self, shape: tuple[int, int, int], forms: Mapping[str, Form], *,
        channels: int, multipliers: tuple[int, ...], steps: int, margin: float, dropout: float,
        dtype: str = 'float32', rngs: nnx.Rngs,
    ):  # fmt: skip
        factor = 2 ** len(multipliers)
        if shape[0] % factor or shape[1] % factor:
            raise UserError(
                f'A flow of {len(multipliers)} scales (network.multipliers) needs images whose height and width are '
                f'divisible by {factor}; these have {shape[0]}×{shape[1]}.'
            )
        self.logit = Logit(margin)
        scales, depth = [], shape[2]
        self.shapes: list[tuple[int, int, int]] = []  # the shapes after the squeeze of each scale
        for index, multiplier in enumerate(multipliers, start=1):
            depth *= 4
            self.shapes.append((shape[0] >> index, shape[1] >> index, depth))
            width = channels * multiplier
            options = {'width': width, 'dropout': dropout, 'dtype': dtype}
            scales.append(nnx.List([Step(depth, forms, rngs=rngs, **options) for _ in range(steps)]))
            depth //= 2
        self.scales = nnx.List(scales)

    def __call__(
        self, x: Array, given: Given = None, key: Array | None = None, fit: bool = False
    ) -> tuple[Array, Array]:
        """Map images to vectors and log |det| (batch,).

        Args:
          key: the key for dropout in training.
          fit: initialise the normalisations on x, which should be a whole batch.
        """
        (x, log_det), factored = self.logit(x), []
        for scale, steps in enumerate(self.scales):
            x = squeeze(x)
            for index, step in enumerate(steps):
                x, change = step(x, given, None if key is None else jax.random.fold_in(key, 1000 * scale + index), fit)
                log_det += change
            if scale < len(self.scales) - 1:
                x, moved = jnp.split(x, 2, axis=-1)
                factored.append(moved)
        return jnp.concatenate([part.reshape(len(x), -1) for part in (*factored, x)], axis=-1), log_det

    def inverse(self, z: Array, given: Given = None) -> Array:
        """Map vectors back to images."""
        kept = [(height, width, depth // 2) for height, width, depth in self.shapes[:-1]] + [self.shapes[-1]]
        ends = [sum(math.prod(shape) for shape in kept[: index + 1]) for index in range(len(kept) - 1)]
        parts = [part.reshape(len(z), *shape) for part, shape in zip(jnp.split(z, ends, axis=-1), kept, strict=True)]
        x = parts.pop()
        for steps in reversed(self.scales):
            for step in reversed(steps):
                x = step.inverse(x, given)
            x = unsqueeze(x)
            if parts:
                x = jnp.concatenate([x, parts.pop()], axis=-1)
        return self.logit.inverse(x)

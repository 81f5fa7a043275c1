"""An invertible network of affine couplings on images of several scales.

L. Dinh, J. Sohl-Dickstein, S. Bengio, Density estimation using Real NVP, 2017 (RealNVP: affine couplings, squeezing,
factoring out, logits); D. Kingma, P. Dhariwal, Glow: Generative Flow with Invertible 1×1 Convolutions, 2018 (Glow:
activation normalisation, learned 1×1 convolutions).

By default the network differs from both papers'. Factored-out channels have the prior N(0, I), whereas Glow learns
their mean and scale from the remaining channels. The couplings' networks contain no normalisation. Classes enter these
networks and not the prior. 1×1 convolutions start as a reversal, not as a random rotation, and preserve volume. A tanh
of fixed range bounds the log-scales; RealNVP learns the range, and Glow uses a sigmoid. As in RealNVP, and unlike in
Glow, pixels are turned into logits. Each of these has a key, and configs/cifar10/glow.py sets them all as Glow's code.

Each module maps x (batch, height, width, channels) to y and log |det dy/dx| (batch,). Its `inverse` maps y back.
"""

import math
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from genbench.data.conditions import Form, Given
from genbench.errors import UserError
from genbench.networks import layers
from genbench.networks.glow import SPEED, Normalised, SplitPrior
from genbench.networks.invertible import Halved, Logit, Mixing, Normalisation, squeeze, unsqueeze
from genbench.networks.reversible import through
from genbench.ranges import COUNT, SHARE, Range, each, one_of

Array = jax.Array

DEFAULTS = {
    'channels': 64,
    'multipliers': (1, 1),  # channels of the couplings' networks at each scale, in units of `channels`
    'steps': 6,  # steps at each scale: normalisation, 1×1 convolution, coupling
    'margin': 0.01,  # α of the logits: [−1, 1] is first mapped into (α, 1 − α)
    'dropout': 0.0,
    'dtype': 'float32',  # type of the networks in couplings, or 'bfloat16'; the transformed values are always float32
    'pixels': 'logits',  # or 'plain': in [−1/2, 1/2], as in Glow
    'mixing': 'reversal',  # the start of 1×1 convolutions, which keep its volume; or 'rotation', free and at random
    'scale': 'tanh',  # of the couplings: exp(2 tanh(s / 2)); or 'sigmoid': σ(s + 2), as in Glow's code
    # Activation normalisation inside the couplings' networks, and log-scales of all normalisations that learn three
    # times as fast, as in Glow's code.
    'normalised': False,
    'reversible': False,  # compute activations for the gradient by inverting the steps, instead of keeping them
    'prior': 'standard',  # of factored-out channels; or 'learned' from those that stay, with classes in the last one
}
RANGES = {
    'channels': COUNT,
    'multipliers': each(COUNT, fewest=1),
    'steps': COUNT,
    'margin': Range(0, 0.5, above=True, below=True),
    'dropout': SHARE,
    'pixels': one_of('logits', 'plain'),
    'mixing': one_of('reversal', 'rotation'),
    'scale': one_of('tanh', 'sigmoid'),
    'prior': one_of('standard', 'learned'),
}
LOG_SCALE_BOUND = 2.0  # bound for each coupling, so that neither direction overflows


class Coupling(nnx.Module):
    """y_a = x_a, y_b = (x_b + t(x_a)) · exp(s(x_a)) for the halves a, b of the channels (Glow's code; its table 1 adds
    t after the scaling).

    The network for s and t starts at zero, so a fresh layer is the identity, or multiplies by σ(2).
    """

    def __init__(
        self,
        channels: int,
        forms: Mapping[str, Form],
        *,
        width: int,
        dropout: float = 0.0,
        dtype: str = 'float32',
        scale: str = 'tanh',
        normalised: bool = False,
        rngs: nnx.Rngs,
    ):
        self.dropout, self.dtype, moved = dropout, layers.compute_dtype(dtype), channels // 2
        self.scale = scale
        self.network = Normalised(channels - moved, 2 * moved, width=width, rngs=rngs) if normalised else None
        if normalised:
            return
        self.conv_in = layers.Conv(channels - moved, width, rngs=rngs)
        self.classes = layers.Classes(forms, width, rngs=rngs)
        self.hidden = layers.Linear(width, width, rngs=rngs)
        self.conv_out = layers.Conv(width, 2 * moved, kernel_init=layers.zeros, rngs=rngs)

    def _affine(self, kept: Array, given: Given, key: Array | None, fit: bool = False) -> tuple[Array, Array]:
        """The log-scale and the shift."""
        x = kept.astype(self.dtype) if self.dtype == jnp.bfloat16 else kept
        h = self._plain(x, given, key) if self.network is None else self.network(x, fit)
        log_scale, shift = jnp.split(h.astype(kept.dtype), 2, axis=-1)
        if self.scale == 'sigmoid':
            return nnx.log_sigmoid(log_scale + 2), shift
        return LOG_SCALE_BOUND * jnp.tanh(log_scale / LOG_SCALE_BOUND), shift

    def _plain(self, x: Array, given: Given, key: Array | None) -> Array:
        h = self.conv_in(x)
        classes = self.classes(given)
        if classes is not None:
            h = h + classes[:, None, None].astype(h.dtype)
        return self.conv_out(layers.dropout(nnx.relu(self.hidden(nnx.relu(h))), self.dropout, key))

    def __call__(
        self, x: Array, given: Given = None, key: Array | None = None, fit: bool = False
    ) -> tuple[Array, Array]:
        kept, moved = jnp.split(x, [x.shape[-1] - x.shape[-1] // 2], axis=-1)
        log_scale, shift = self._affine(kept, given, key, fit)
        y = jnp.concatenate([kept, (moved + shift) * jnp.exp(log_scale)], axis=-1)
        return y, log_scale.sum((1, 2, 3))

    def inverse(self, y: Array, given: Given = None) -> Array:
        kept, moved = jnp.split(y, [y.shape[-1] - y.shape[-1] // 2], axis=-1)
        log_scale, shift = self._affine(kept, given, None)
        return jnp.concatenate([kept, moved * jnp.exp(-log_scale) - shift], axis=-1)


class Step(nnx.Module):
    """Normalisation, 1×1 convolution, coupling (Glow, figure 2a)."""

    def __init__(
        self, channels: int, forms: Mapping[str, Form], *, number: int | None = None, speed: float = 1.0,
        rngs: nnx.Rngs, **options: Any,
    ):  # fmt: skip
        self.normalisation = Normalisation(channels, speed)
        self.mixing = Mixing(channels, number)
        self.coupling = Coupling(channels, forms, rngs=rngs, **options)

    def __call__(
        self, x: Array, given: Given = None, key: Array | None = None, fit: bool = False
    ) -> tuple[Array, Array]:
        if fit:
            self.normalisation.fit(x)
        x, normalised = self.normalisation(x)
        x, mixed = self.mixing(x)
        x, coupled = self.coupling(x, given, key, fit)
        return x, normalised + mixed + coupled

    def inverse(self, y: Array, given: Given = None) -> Array:
        return self.normalisation.inverse(self.mixing.inverse(self.coupling.inverse(y, given)))


class Flow(nnx.Module):
    """Images in [−1, 1] (batch, *shape) ↔ vectors (batch, dims), normal after training (Glow, figure 2b).

    Pixels become logits. Each scale then applies a squeeze and its steps. After every scale except the last, the half
    of the channels that the last coupling transformed is factored out.

    Raises:
      UserError: the images cannot be halved that often, or the networks of Glow are asked for what they lack.
    """

    def __init__(
        self, shape: tuple[int, int, int], forms: Mapping[str, Form], *,
        channels: int, multipliers: tuple[int, ...], steps: int, margin: float, dropout: float,
        dtype: str = 'float32', pixels: str = 'logits', mixing: str = 'reversal', scale: str = 'tanh',
        normalised: bool = False, reversible: bool = False, prior: str = 'standard', rngs: nnx.Rngs,
    ):  # fmt: skip
        factor = 2 ** len(multipliers)
        if shape[0] % factor or shape[1] % factor:
            raise UserError(
                f'A flow of {len(multipliers)} scales (network.multipliers) needs images whose height and width are '
                f'divisible by {factor}; these have {shape[0]}×{shape[1]}.'
            )
        if pixels == 'plain' and margin != DEFAULTS['margin']:
            raise UserError(f'network.margin is {margin:g}, but only network.pixels=logits has a margin.')
        if normalised and dropout:
            raise UserError('network.normalised is True, and the couplings of Glow have no dropout, but '
                            f'network.dropout is {dropout:g}; use 0.')  # fmt: skip
        if normalised and forms and prior != 'learned':
            raise UserError('network.normalised is True, and the couplings of Glow do not see conditions; use '
                            'network.prior=learned, which does.')  # fmt: skip
        if reversible and dropout:
            raise UserError('network.reversible is True, and steps with dropout have no inverse; use '
                            'network.dropout=0.')  # fmt: skip
        self.reversible = reversible
        self.logit = Logit(margin) if pixels == 'logits' else Halved()
        scales, priors, depth, learned = [], [], shape[2], prior == 'learned'
        self.shapes: list[tuple[int, int, int]] = []  # the shapes after the squeeze of each scale
        for index, multiplier in enumerate(multipliers, start=1):
            depth *= 4
            self.shapes.append((shape[0] >> index, shape[1] >> index, depth))
            width = channels * multiplier
            options: dict[str, Any] = {'width': width, 'dropout': dropout, 'dtype': dtype, 'scale': scale,
                                       'normalised': normalised, 'speed': SPEED if normalised else 1.0}  # fmt: skip
            numbers = [steps * index + one if mixing == 'rotation' else None for one in range(steps)]
            heard = {} if learned else forms
            scales.append(nnx.List([Step(depth, heard, number=one, rngs=rngs, **options) for one in numbers]))
            kept = 0 if index == len(multipliers) else depth // 2
            if learned:
                priors.append(SplitPrior(kept, depth - kept, forms, rngs=rngs))
            depth //= 2
        self.scales, self.priors = nnx.List(scales), nnx.List(priors)

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
            if self.reversible and not fit:
                x, change = through(steps, x, given)
                log_det += change
            else:
                for index, step in enumerate(steps):
                    own = None if key is None else jax.random.fold_in(key, 1000 * scale + index)
                    x, change = step(x, given, own, fit)
                    log_det += change
            last = scale == len(self.scales) - 1
            x, moved = (x, x) if last else jnp.split(x, 2, axis=-1)
            if self.priors:
                moved, change = self.priors[scale](moved, None if last else x, given)
                log_det += change
            factored.append(moved)
        return jnp.concatenate([part.reshape(len(part), -1) for part in factored], axis=-1), log_det

    def inverse(self, z: Array, given: Given = None) -> Array:
        """Map vectors back to images."""
        kept = [(height, width, depth // 2) for height, width, depth in self.shapes[:-1]] + [self.shapes[-1]]
        ends = [sum(math.prod(shape) for shape in kept[: index + 1]) for index in range(len(kept) - 1)]
        parts = [part.reshape(len(z), *shape) for part, shape in zip(jnp.split(z, ends, axis=-1), kept, strict=True)]
        x: Array = parts[-1][..., :0]  # what stays of the scale below, if there is one
        for scale in reversed(range(len(self.scales))):
            stays, moved = (x if x.size else None), parts[scale]
            moved = self.priors[scale].inverse(moved, stays, given) if self.priors else moved
            x = jnp.concatenate([x, moved], axis=-1)
            for step in reversed(self.scales[scale]):
                x = step.inverse(x, given)
            x = unsqueeze(x)
        return self.logit.inverse(x)

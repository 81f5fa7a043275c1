"""Parts of Glow beside its invertible layers: the network of its couplings, and priors of factored-out channels.

D. Kingma, P. Dhariwal, Glow: Generative Flow with Invertible 1×1 Convolutions, 2018, and its official code, from which
details that the paper leaves open come.
"""

from collections.abc import Mapping

import jax
import jax.numpy as jnp
from flax import nnx

from genbench.data.conditions import Form, Given
from genbench.networks import layers
from genbench.networks.invertible import Normalisation

Array = jax.Array

SPEED = 3.0  # of log-scales, which are this times their parameters


class EdgeConv(nnx.Module):
    """A 3×3 convolution of x and of one more channel, which is 1 beyond the edges and 0 inside (Glow's code)."""

    def __init__(self, inputs: int, outputs: int, *, kernel_init: layers.Initializer, rngs: nnx.Rngs):
        self.kernel = nnx.Param(kernel_init(rngs.params(), (3, 3, inputs + 1, outputs)))

    def __call__(self, x: Array) -> Array:
        sides = ((0, 0), (1, 1), (1, 1), (0, 0))
        inside = jnp.pad(jnp.ones_like(x[..., :1]), sides)
        padded = jnp.concatenate([jnp.pad(x, sides), 1 - inside], axis=-1)
        return layers.convolve(padded, self.kernel[...], padding='VALID')


class Outputs(nnx.Module):
    """An `EdgeConv` that starts at zero, with a bias and with learned scales exp(3 s) (Glow, section 3.3)."""

    def __init__(self, inputs: int, outputs: int, *, rngs: nnx.Rngs):
        self.conv = EdgeConv(inputs, outputs, kernel_init=layers.zeros, rngs=rngs)
        self.bias, self.log_scale = nnx.Param(jnp.zeros(outputs)), nnx.Param(jnp.zeros(outputs))

    def __call__(self, x: Array) -> Array:
        scale = jnp.exp(SPEED * self.log_scale[...]).astype(x.dtype)
        return (self.conv(x) + self.bias[...].astype(x.dtype)) * scale


class Normalised(nnx.Module):
    """The network of Glow's couplings (section 3.3 and the code): windows of 3×3, 1×1 and 3×3."""

    def __init__(self, inputs: int, outputs: int, *, width: int, rngs: nnx.Rngs):
        init = nnx.initializers.normal(0.05)
        self.conv_in = EdgeConv(inputs, width, kernel_init=init, rngs=rngs)
        self.hidden = layers.Linear(width, width, use_bias=False, kernel_init=init, rngs=rngs)
        self.norms = nnx.List([Normalisation(width, SPEED) for _ in range(2)])
        self.output = Outputs(width, outputs, rngs=rngs)

    def __call__(self, x: Array, fit: bool) -> Array:
        for layer, norm in zip((self.conv_in, self.hidden), self.norms, strict=True):
            x = layer(x)
            if fit:
                norm.fit(x)
            x = nnx.relu(norm(x)[0].astype(x.dtype))  # the normalisation itself is float32
        return self.output(x)


class SplitPrior(nnx.Module):
    """ε = (moved − mean) / scale, where mean and scale of the factored-out channels see those that stay (Glow's code).

    In the last scale nothing stays. Mean and scale are then learned for each channel, and depend on the classes.
    """

    def __init__(self, kept: int, moved: int, forms: Mapping[str, Form], *, rngs: nnx.Rngs):
        self.seen: Outputs | None = Outputs(kept, 2 * moved, rngs=rngs) if kept else None
        self.own: nnx.Param | None = None if kept else nnx.Param(jnp.zeros(2 * moved))
        self.classes = layers.Classes({} if kept else forms, 2 * moved, embedding_init=layers.zeros, rngs=rngs)

    def _parameters(self, kept: Array | None, given: Given) -> tuple[Array, Array]:
        if self.seen is not None and kept is not None:
            h = self.seen(kept)
        else:
            assert self.own is not None
            h, classes = self.own[...], self.classes(given)
            h = h if classes is None else h + classes[:, None, None]
        mean, log_scale = jnp.split(h, 2, axis=-1)
        return mean, log_scale

    def __call__(self, moved: Array, kept: Array | None, given: Given) -> tuple[Array, Array]:
        mean, log_scale = self._parameters(kept, given)
        return (moved - mean) * jnp.exp(-log_scale), -jnp.broadcast_to(log_scale, moved.shape).sum((1, 2, 3))

    def inverse(self, z: Array, kept: Array | None, given: Given) -> Array:
        mean, log_scale = self._parameters(kept, given)
        return z * jnp.exp(log_scale) + mean

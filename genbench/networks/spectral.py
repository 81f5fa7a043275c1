"""Layers whose kernels have a largest singular value of one.

T. Miyato, T. Kataoka, M. Koyama, Y. Yoshida, Spectral Normalization for Generative Adversarial Networks, 2018.
"""

from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from genbench.networks import layers

Array = jax.Array


class Singular(nnx.Variable):
    """The estimate of a left singular vector (outputs,). It is not trained."""


def unit(vector: Array) -> Array:
    return vector / (jnp.linalg.norm(vector) + 1e-12)


def normalised(kernel: Array, left: Array) -> tuple[Array, Array]:
    """The kernel (…, outputs) divided by its spectral norm, and a better estimate of its singular vector.

    The norm is that of the matrix (window · inputs, outputs). One step of the power method refines the estimate
    (algorithm 1). Gradients do not pass through the singular vectors.
    """
    matrix = kernel.reshape(-1, kernel.shape[-1])
    fixed = jax.lax.stop_gradient(matrix)
    right = unit(fixed @ left)
    left = unit(right @ fixed)
    return kernel / (right @ matrix @ left), left


class Conv(layers.Conv):
    """A convolution with a normalised kernel. Each call refines the estimate of its norm."""

    def __init__(self, inputs: int, outputs: int, *, rngs: nnx.Rngs, **options: Any):
        super().__init__(inputs, outputs, rngs=rngs, **options)
        self.left = Singular(unit(jax.random.normal(rngs.params(), (outputs,))))

    def __call__(self, x: Array) -> Array:  # type: ignore[override]
        kernel, self.left[...] = normalised(self.kernel[...], self.left[...])
        return self.apply(x, kernel)


class Linear(layers.Linear):
    """A linear layer with a normalised kernel."""

    def __init__(self, inputs: int, outputs: int, *, rngs: nnx.Rngs, **options: Any):
        super().__init__(inputs, outputs, rngs=rngs, **options)
        self.left = Singular(unit(jax.random.normal(rngs.params(), (outputs,))))

    def __call__(self, x: Array) -> Array:  # type: ignore[override]
        kernel, self.left[...] = normalised(self.kernel[...], self.left[...])
        y = x @ kernel.astype(x.dtype)
        return y if self.bias is None else y + self.bias[...].astype(x.dtype)


class Downsample(nnx.Module):
    """Halves height and width with a strided convolution whose kernel is normalised."""

    def __init__(self, channels: int, *, rngs: nnx.Rngs):
        self.conv = Conv(channels, channels, stride=2, kernel_init=layers.fan_average, rngs=rngs)

    def __call__(self, x: Array) -> Array:
        return self.conv(x)

"""How layers of PyTorch start: kernels and biases are uniform in ±1 / √inputs, where inputs count a window's pixels."""

from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from genbench.networks import layers


def uniform(limit: float) -> layers.Initializer:
    """Uniform in ±limit."""
    return lambda key, shape, dtype=jnp.float32, **_: jax.random.uniform(key, shape, dtype, -limit, limit)


def kernel_as_pytorch(scale: float = 1.0) -> layers.Initializer:
    """PyTorch's kernels, times `scale`."""
    return nnx.initializers.variance_scaling(scale**2 / 3, 'fan_in', 'uniform') if scale else layers.zeros


def linear_as_pytorch(before: int, after: int, rngs: nnx.Rngs, **options: Any) -> layers.Linear:
    """A linear layer whose kernel and bias start as PyTorch's."""
    options = {'kernel_init': kernel_as_pytorch(), 'bias_init': uniform(before**-0.5), **options}
    return layers.Linear(before, after, rngs=rngs, **options)

"""Gradients with respect to a network's input, for penalties, and to its last kernel, for weights of losses."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from flax import nnx


def value_and_input_gradient(module: nnx.Module, x: jax.Array, *others: object) -> tuple[jax.Array, jax.Array]:
    """A network's values (batch,) for images x, and each value's gradient with respect to its own image, like x.

    If the network compares the images of a batch, the gradient is that of the sum of all values. Variables that it
    changes, such as the vectors of spectral normalisation, are updated once per call. Both results can be
    differentiated with respect to its parameters.
    """
    definition, state = nnx.split(module)
    arrays = nnx.to_pure_dict(state)

    def run(x: jax.Array) -> tuple[jax.Array, dict]:
        own = nnx.merge(definition, arrays)  # a copy, because this trace may not change the module's variables
        return own(x, *others), nnx.to_pure_dict(nnx.state(own, nnx.Not(nnx.Param)))

    values, pull, left = jax.vjp(run, x, has_aux=True)
    nnx.update(module, left)
    return values, pull(jnp.ones_like(values))[0]


def losses_and_norms(
    module: nnx.Module, losses: Callable[[nnx.Module], tuple[jax.Array, jax.Array]]
) -> tuple[tuple[jax.Array, jax.Array], tuple[jax.Array, jax.Array]]:
    """Two losses of a network, and the norms of their gradients with respect to the kernel of its last layer.

    Args:
      module: a network whose last layer is its `conv_out`, or else its `output`.
      losses: the network → two scalars. Both can be differentiated with respect to its parameters.
    """
    definition, state = nnx.split(module)
    arrays, last = nnx.to_pure_dict(state), 'conv_out' if hasattr(module, 'conv_out') else 'output'

    def run(kernel: jax.Array) -> tuple[jax.Array, jax.Array]:
        return losses(nnx.merge(definition, {**arrays, last: {**arrays[last], 'kernel': kernel}}))

    values, pull = jax.vjp(run, arrays[last]['kernel'])
    one, zero = jnp.ones_like(values[0]), jnp.zeros_like(values[0])
    first, second = (jnp.linalg.norm(pull(which)[0]) for which in ((one, zero), (zero, one)))
    return values, (first, second)

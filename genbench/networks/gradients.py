"""Gradients with respect to a network's input, for gradient penalties."""

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

"""Gradients by what a network sees, for penalties on them."""

import jax
import jax.numpy as jnp
from flax import nnx


def value_and_input_gradient(module: nnx.Module, x: jax.Array, *others: object) -> tuple[jax.Array, jax.Array]:
    """Values (batch,) of a network of images, and each value's gradient by its own image, shaped like x.

    The network must treat images one by one. Variables that it changes, such as the vectors of spectral
    normalisation, keep what this call leaves in them, once; both results can be differentiated by its parameters.
    """
    definition, state = nnx.split(module)
    arrays = nnx.to_pure_dict(state)

    def run(x: jax.Array) -> tuple[jax.Array, dict]:
        own = nnx.merge(definition, arrays)  # its variables can be changed in this trace, and the module's cannot
        return own(x, *others), nnx.to_pure_dict(nnx.state(own, nnx.Not(nnx.Param)))

    values, pull, left = jax.vjp(run, x, has_aux=True)
    nnx.update(module, left)
    return values, pull(jnp.ones_like(values))[0]

"""Modules with random parameters, for fresh networks often end in zeros."""

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx


def scrambled(module, scale):
    """The module with normal numbers of this deviation in place of its parameters."""
    return _changed(module, scale, 0)


def disturbed(module, scale):
    """The module with normal numbers of this deviation added to its parameters."""
    return _changed(module, scale, 1)


def _changed(module, scale, kept):
    rng = np.random.default_rng(1)
    draw = lambda leaf: jnp.asarray(kept * leaf + scale * rng.normal(size=leaf.shape), jnp.float32)  # noqa: E731
    nnx.update(module, jax.tree.map(draw, nnx.state(module, nnx.Param)))
    return module

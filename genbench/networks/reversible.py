"""A backward pass through invertible layers whose memory does not grow with their number.

A. Gomez, M. Ren, R. Urtasun, R. Grosse, The Reversible Residual Network: Backpropagation Without Storing Activations,
2017. The forward pass keeps the last output only. The backward pass gets the input of each layer from its output by the
layer's inverse, and evaluates the layer again. A step thus costs one more inverse and one more evaluation.
"""

import functools
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from genbench.data.conditions import Given

Array = jax.Array


def through(layers: Sequence[Any], x: Array, given: Given) -> tuple[Array, Array]:
    """x (batch, …) through modules (x, given) → (y, log |det|), with the sum of log |det| (batch,).

    Layers must have an `inverse` (y, given) → x, draw no random numbers and change no variables. `given` gets no
    gradient. The gradients are those of ordinary calls up to the rounding errors of the inverses.
    """
    parts = [nnx.split(layer) for layer in layers]
    return _through(tuple(graph for graph, _ in parts), [state for _, state in parts], x, given)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _through(graphs: tuple[Any, ...], states: list[Any], x: Array, given: Given) -> tuple[Array, Array]:
    log_det = jnp.zeros(len(x))
    for graph, state in zip(graphs, states, strict=True):
        x, change = nnx.merge(graph, state)(x, given)
        log_det = log_det + change
    return x, log_det


def _forward(graphs: tuple[Any, ...], states: list[Any], x: Array, given: Given) -> Any:
    y, log_det = _through(graphs, states, x, given)
    return (y, log_det), (states, y, given)


def _backward(graphs: tuple[Any, ...], kept: Any, slopes: tuple[Array, Array]) -> Any:
    states, y, given = kept
    slope, slope_det = slopes
    slopes_of_states = []
    for graph, state in zip(reversed(graphs), reversed(states), strict=True):
        x = nnx.merge(graph, state).inverse(y, given)
        # Without the barrier, XLA would compute inverses early and keep their results in memory until they are needed.
        x, slope, slope_det = jax.lax.optimization_barrier((x, slope, slope_det))
        _, pull = jax.vjp(lambda state, x, graph=graph: nnx.merge(graph, state)(x, given), state, x)
        slope_of_state, slope = pull((slope, slope_det))
        slopes_of_states.append(slope_of_state)
        y = x
    return slopes_of_states[::-1], slope, None


_through.defvjp(_forward, _backward)

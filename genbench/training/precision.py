"""The types in which a function reads its arrays, found in its traced program."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

Tree = Any

# Primitives whose program has the arguments of the call, in the same order, and runs once.
_CALLS = ('jit', 'pjit', 'closed_call', 'checkpoint', 'remat', 'remat2', 'custom_jvp_call', 'custom_vjp_call')


def read_types(function: Callable[..., Any], arrays: Tree, *arguments: Any) -> Tree:
    """The type in which `function(arrays, *arguments)` reads each of the arrays. Nothing is computed.

    This is the type of an array itself, unless its only use is a cast to a shorter floating-point type. The cast may
    then as well happen before the call. With more than one use, also in a loop, a gradient would be summed in the
    shorter type, so such an array keeps its own.
    """
    program = jax.make_jaxpr(function)(arrays, *arguments).jaxpr
    leaves, structure = jax.tree.flatten(arrays)
    return jax.tree.unflatten(structure, [
        _read(program, variable, leaf.dtype) for variable, leaf in zip(program.invars, leaves, strict=False)
    ])  # fmt: skip


def _read(program: Any, variable: Any, own: Any) -> Any:
    uses = [(one, place) for one in program.eqns for place, read in enumerate(one.invars) if read is variable]
    if len(uses) != 1 or any(out is variable for out in program.outvars):
        return own
    ((equation, place),) = uses
    if equation.primitive.name == 'convert_element_type':
        return equation.params['new_dtype'] if _shorter(equation.params['new_dtype'], own) else own
    if equation.primitive.name in _CALLS:
        inner = equation.params.get('jaxpr', equation.params.get('call_jaxpr'))
        inner = getattr(inner, 'jaxpr', inner)
        if len(inner.invars) == len(equation.invars):
            return _read(inner, inner.invars[place], own)
    return own


def _shorter(new: Any, old: Any) -> bool:
    floating = all(jnp.issubdtype(dtype, jnp.floating) for dtype in (new, old))
    return floating and jnp.finfo(new).bits < jnp.finfo(old).bits

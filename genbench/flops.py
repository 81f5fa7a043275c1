"""Floating-point operations of a traced program, with one definition for budgets, telemetry, utilisation and the page.

* A matrix product or a convolution counts a multiplication and an addition for each pair of numbers that meet. The
  products of a convolution with its padding, or with the zeros of a dilated input, do not count.
* Elementwise floating-point functions count one for each number they return, reductions one for each they take.
* A Fourier transform of n numbers counts 5 n log₂ n, or half of that if one side is real.
* Integers, random bits, comparisons and data movement count nothing.
* A loop counts as often as it runs, a branch as its most expensive side, recomputation as often as it happens.

The count follows from the program as written, for all devices together, so it is the same on every machine.
"""

import contextlib
import math
import re
from collections.abc import Iterator, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend import core


def _names(text: str) -> frozenset[str]:
    return frozenset(text.split())


DEFINITION = 'in the traced program, loops by their length'  # how stored counts describe themselves

ELEMENTWISE = _names(
    'abs acos acosh add add_any asin asinh atan atan2 atanh bessel_i0e bessel_i1e cbrt ceil clamp cos cosh digamma div '
    'erf erf_inv erfc exp exp2 expm1 floor integer_pow lgamma log log1p logistic max min mul neg polygamma pow rem '
    'round rsqrt sign sin sinh sqrt square sub tan tanh zeta'
)
REDUCTIONS = _names(
    'argmax argmin cumlogsumexp cummax cummin cumprod cumsum reduce reduce_max reduce_min reduce_prod reduce_sum '
    'reduce_window reduce_window_sum scatter-add scatter-mul'
)
UNKNOWN = _names(
    'call_exported cholesky_update custom_call eig eigh ffi_call geqp3 geqrf hessenberg householder_product igamma '
    'igamma_grad_a igammac io_callback ormqr pallas_call pure_callback qr random_gamma regularized_incomplete_beta '
    'scaled_dot scaled_matmul scaled_matmul_wrapper schur svd symmetric_product tridiagonal tridiagonal_solve'
)
_TRIPS = re.compile(r'expected_trips=([0-9.e+-]+)')


class UnknownError(ValueError):
    """The operations of a program cannot be counted from the program. The message says why."""


@contextlib.contextmanager
def expected_trips(number: float) -> Iterator[None]:
    """Give the average number of iterations of enclosed `while` loops whose condition depends on computed values.

    It does not reach loops in a function that is jitted inside the context. Use it in that function, around the loop.
    """
    with jax.named_scope(f'expected_trips={number:g}'):
        yield


def count(traced: core.ClosedJaxpr) -> float:
    """Operations of a program, as given by `jax.jit(f).trace(…).jaxpr` or `jax.make_jaxpr(f)(…)`.

    Raises:
      UnknownError: the program has a loop whose length it does not show, or a kernel that hides its operations.
    """
    return _count(traced.jaxpr, dict(zip(traced.jaxpr.constvars, traced.consts, strict=True)))


def _count(jaxpr: core.Jaxpr, known: dict[Any, Any]) -> float:
    """`known` holds the values of the variables that are constants. Loop lengths are computed from them."""
    total = 0.0
    for equation in jaxpr.eqns:
        total += _operations(equation, known)
        _propagate(equation, known)
    return total


def _operations(equation: Any, known: Mapping[Any, Any]) -> float:
    name, parameters = equation.primitive.name, equation.params
    if name in _RULES:
        return _RULES[name](equation, known)
    if name.startswith('dot_product_attention'):  # cuDNN's: two products in the forward pass, four in the backward
        query, key = (equation.invars[index].aval.shape for index in (0, 1))
        return (8 if 'bwd' in name else 4) * math.prod(query) * key[1]
    if name in UNKNOWN:
        raise UnknownError(f'it calls {name}, which hides its operations')
    inner = list(_programs(parameters))
    if name.startswith('scatter'):
        inner = []
    if inner and name not in REDUCTIONS:
        return sum(_inside(one, equation.invars, known) for one in inner)
    if name in ELEMENTWISE:
        return float(sum(_size(out) for out in equation.outvars if _floating(out)))
    if name in REDUCTIONS:
        taken = equation.invars[-1 if name.startswith('scatter') else 0]
        return float(_size(taken)) if _floating(taken) else 0.0
    return 0.0


def _programs(parameters: Mapping[str, Any]) -> Iterator[Any]:
    """The programs inside an equation, such as those of a jitted function, `checkpoint` or a custom derivative."""
    for name, value in parameters.items():
        if name.startswith(('jvp_', 'fwd', 'bwd')):  # derivatives that this program does not call
            continue
        for one in value if isinstance(value, tuple | list) else (value,):
            if isinstance(one, core.ClosedJaxpr | core.Jaxpr):
                yield one


def _inside(program: Any, inputs: Any, known: Mapping[Any, Any]) -> float:
    """Operations of a program called with these variables."""
    jaxpr, constants = (program.jaxpr, program.consts) if isinstance(program, core.ClosedJaxpr) else (program, ())
    inner = dict(zip(jaxpr.constvars, constants, strict=False))
    if len(inputs) == len(jaxpr.invars):
        values = ((variable, _value(given, known)) for variable, given in zip(jaxpr.invars, inputs, strict=True))
        inner |= {variable: value for variable, value in values if value is not None}
    return _count(jaxpr, inner)


def _product(equation: Any, known: Mapping[Any, Any]) -> float:
    (contracted, _), _ = equation.params['dimension_numbers']
    left = equation.invars[0].aval.shape
    return 2.0 * _size(equation.outvars[0]) * math.prod(left[axis] for axis in contracted)


def _convolution(equation: Any, known: Mapping[Any, Any]) -> float:
    parameters, (left, right) = equation.params, equation.invars
    numbers = parameters['dimension_numbers']
    out = equation.outvars[0].aval.shape
    met = math.prod(
        _meetings(
            left.aval.shape[numbers.lhs_spec[axis + 2]],
            right.aval.shape[numbers.rhs_spec[axis + 2]],
            out[numbers.out_spec[axis + 2]],
            *(parameters[name][axis] for name in ('window_strides', 'padding', 'lhs_dilation', 'rhs_dilation')),
        )
        for axis in range(len(out) - 2)
    )
    channels = right.aval.shape[numbers.rhs_spec[1]]  # of one group
    return 2.0 * out[numbers.out_spec[0]] * out[numbers.out_spec[1]] * channels * met


def _meetings(
    size: int, window: int, out: int, stride: int, padding: tuple[int, int], dilation: int, spread: int
) -> int:
    """The number of pairs (output position, window position) along one axis that meet an actual input value."""
    place = np.arange(out)[:, None] * stride + np.arange(window)[None] * spread - padding[0]
    return int(((place >= 0) & (place <= (size - 1) * dilation) & (place % dilation == 0)).sum())


def _scan(equation: Any, known: Mapping[Any, Any]) -> float:
    length, program = equation.params['length'], equation.params['jaxpr']
    if 'num_consts' in equation.params:
        fixed = equation.params['num_consts']
    else:  # jax 0.11 groups the inputs: constants, carried values, slices
        fixed = len(list(equation.params['ft_in'].unpack()[0]))
    inner = {
        variable: value
        for variable, given in zip(program.jaxpr.invars[:fixed], equation.invars[:fixed], strict=True)
        if (value := _value(given, known)) is not None
    }
    return length * _count(program.jaxpr, {**dict(zip(program.jaxpr.constvars, program.consts, strict=True)), **inner})


def _while(equation: Any, known: Mapping[Any, Any]) -> float:
    condition, body = equation.params['cond_jaxpr'], equation.params['body_jaxpr']
    for_condition, for_body = equation.params['cond_nconsts'], equation.params['body_nconsts']
    carried = equation.invars[for_condition + for_body :]
    given = [*equation.invars[:for_condition], *carried]
    try:
        trips = _trips(condition.jaxpr, given, body.jaxpr, for_body, for_condition, known)
    except UnknownError:
        stated = _TRIPS.findall(str(equation.source_info.name_stack))
        if not stated:
            raise
        trips = float(stated[-1])
    once = _inside(body, [*equation.invars[for_condition : for_condition + for_body], *(None for _ in carried)], known)
    return trips * (once + _inside(condition, (), known))


def _trips(condition: Any, given: Any, body: Any, for_body: int, for_condition: int, known: Mapping[Any, Any]) -> float:
    """Iterations of a loop that counts up by one from a known start to a known end, as `fori_loop` does."""
    told = UnknownError('it has a loop whose length depends on its values; put genbench.flops.'
                        'expected_trips(NUMBER) around the loop, inside the jitted function, to say '
                        'how often it runs')  # fmt: skip
    if len(condition.eqns) != 1 or condition.eqns[0].primitive.name != 'lt':
        raise told
    places = [condition.invars.index(one) if not isinstance(one, core.Literal) else None
              for one in condition.eqns[0].invars]  # fmt: skip
    counter, end = places
    if counter is None or counter < for_condition:
        raise told
    moved = body.outvars[counter - for_condition]
    step = next((one for one in body.eqns if moved in one.outvars), None)
    entering = body.invars[for_body + counter - for_condition]
    by_one = step is not None and step.primitive.name == 'add' and step.invars[0] is entering and (
        isinstance(step.invars[1], core.Literal) and step.invars[1].val == 1
    )  # fmt: skip
    steady = end is None or end < for_condition or (
        body.outvars[end - for_condition] is body.invars[for_body + end - for_condition]
    )  # fmt: skip
    first = _value(given[counter], known)
    last = condition.eqns[0].invars[1].val if end is None else _value(given[end], known)
    if not (by_one and steady) or first is None or last is None:
        raise told
    return float(max(int(last) - int(first), 0))


def _branches(equation: Any, known: Mapping[Any, Any]) -> float:
    return max(_inside(branch, equation.invars[1:], known) for branch in equation.params['branches'])


def _cholesky(equation: Any, known: Mapping[Any, Any]) -> float:
    shape = equation.invars[0].aval.shape
    return math.prod(shape) * shape[-1] / 3


def _triangular(equation: Any, known: Mapping[Any, Any]) -> float:
    return float(math.prod(equation.outvars[0].aval.shape) * equation.invars[0].aval.shape[-1])


def _linear_solve(equation: Any, known: Mapping[Any, Any]) -> float:
    """Count only the program that solves. The products and the transposed solver are for derivatives."""
    lengths, programs = equation.params['const_lengths'], equation.params['jaxprs']
    before = lengths.matvec + lengths.vecmat
    right = equation.invars[sum(lengths) :]
    return _inside(programs.solve, [*equation.invars[before : before + lengths.solve], *right], known)


def _ragged_product(equation: Any, known: Mapping[Any, Any]) -> float:
    """Each row of the left side meets only the matrix of its own group."""
    numbers = equation.params['ragged_dot_dimension_numbers']
    left, right = (equation.invars[index].aval.shape for index in (0, 1))
    (_, on_right), (_, batch_right) = numbers.dot_dimension_numbers
    taken = {*on_right, *batch_right, *numbers.rhs_group_dimensions}
    return 2.0 * math.prod(left) * math.prod(size for axis, size in enumerate(right) if axis not in taken)


def _fourier(equation: Any, known: Mapping[Any, Any]) -> float:
    """5 n log₂ n for each transform of n complex numbers, half of that between real and complex numbers (radix 2)."""
    lengths = equation.params['fft_lengths']
    size = math.prod(lengths)
    real = any(not jnp.issubdtype(one.aval.dtype, jnp.complexfloating) for one in (*equation.invars, *equation.outvars))
    shape = equation.invars[0].aval.shape
    transforms = math.prod(shape[: len(shape) - len(lengths)])
    return (2.5 if real else 5.0) * transforms * size * math.log2(size)


def _lu(equation: Any, known: Mapping[Any, Any]) -> float:
    return 2 * _cholesky(equation, known)


def _shards(equation: Any, known: Mapping[Any, Any]) -> float:
    mesh = equation.params['mesh']
    manual = equation.params.get('manual_axes') or mesh.axis_names
    shards = math.prod(mesh.shape[axis] for axis in manual)
    return shards * sum(_inside(one, (), known) for one in _programs(equation.params))


_RULES = {
    'dot_general': _product,
    'conv_general_dilated': _convolution,
    'scan': _scan,
    'while': _while,
    'cond': _branches,
    'cholesky': _cholesky,
    'triangular_solve': _triangular,
    'lu': _lu,
    'custom_linear_solve': _linear_solve,
    'ragged_dot_general': _ragged_product,
    'fft': _fourier,
    'shard_map': _shards,
}


def _size(variable: Any) -> int:
    return math.prod(variable.aval.shape)


def _floating(variable: Any) -> bool:
    return jnp.issubdtype(variable.aval.dtype, jnp.inexact)


def _value(variable: Any, known: Mapping[Any, Any]) -> Any:
    if variable is None:
        return None
    return variable.val if isinstance(variable, core.Literal) else known.get(variable)


def _propagate(equation: Any, known: dict[Any, Any]) -> None:
    """Record what an equation computes from integer constants alone."""
    outputs = equation.outvars
    if len(outputs) != 1 or outputs[0].aval.shape or not jnp.issubdtype(outputs[0].aval.dtype, jnp.integer):
        return
    values = [_value(one, known) for one in equation.invars]
    if not values or any(value is None or np.shape(value) for value in values) or list(_programs(equation.params)):
        return
    with jax.ensure_compile_time_eval():
        known[outputs[0]] = equation.primitive.bind(*map(jnp.asarray, values), **equation.params)

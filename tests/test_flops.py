"""Operations of programs whose number is known."""

import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from genbench import config as configs
from genbench import flops, rng
from genbench.training import placement
from genbench.training.prepared import prepare
from genbench.training.state import Blueprint
from genbench.training.step import active_updates, make_step


def counted(function, *arguments):
    return flops.count(jax.make_jaxpr(function)(*arguments))


def ones(*shape):
    return jnp.ones(shape)


def test_a_product_of_matrices_multiplies_and_adds_once_for_each_pair():
    assert counted(jnp.matmul, ones(3, 4), ones(4, 5)) == 2 * 3 * 4 * 5
    assert counted(jnp.matmul, ones(7, 3, 4), ones(7, 4, 5)) == 7 * 2 * 3 * 4 * 5


CONVOLUTIONS = {
    'valid': {'padding': 'VALID'},
    'same': {'padding': 'SAME'},
    'stride': {'padding': 'SAME', 'window_strides': (2, 3)},
    'groups': {'padding': [(2, 1), (0, 3)], 'feature_group_count': 2},
    'transposed': {'padding': [(1, 2), (2, 2)], 'lhs_dilation': (2, 3)},
    'dilated': {'padding': 'SAME', 'rhs_dilation': (2, 1)},
    'groups of images': {'padding': 'SAME', 'batch_group_count': 2},
}


@pytest.mark.parametrize('options', CONVOLUTIONS.values(), ids=CONVOLUTIONS)
def test_a_convolution_of_ones_by_ones_adds_up_to_its_multiplications(options):
    options = {'window_strides': (1, 1), **options}
    channels = 6 // options.get('feature_group_count', 1)
    image, window = ones(4, 6, 7, 8), ones(8, channels, 3, 3)
    convolve = lambda x, w: jax.lax.conv_general_dilated(x, w, **options)  # noqa: E731
    assert counted(convolve, image, window) == 2 * float(convolve(image, window).sum())


def chained(times, w, x):
    return jax.lax.scan(lambda x, _: (w @ x, None), x, None, length=times)[0]


def test_a_scan_counts_as_often_as_it_runs():
    once = counted(lambda w, x: w @ x, ones(4, 4), ones(4, 5))
    assert counted(lambda w, x: chained(20, w, x), ones(4, 4), ones(4, 5)) == 20 * once
    nested = lambda w, x: jax.lax.fori_loop(0, 3, lambda _, x: jax.jit(chained, static_argnums=0)(20, w, x), x)  # noqa: E731
    assert counted(nested, ones(4, 4), ones(4, 5)) == 60 * once


def test_the_gradient_of_a_scan_costs_two_products_for_one():
    """One for the gradient by the state, one for that by the matrix; what accumulates it is little."""
    n, width, times = 32, 64, 20
    loss = lambda w, x: (chained(times, w, x) * ones(n, width)).sum()  # noqa: E731
    assert counted(jax.grad(loss, (0, 1)), ones(n, n), ones(n, width)) == pytest.approx(
        3 * times * 2 * n * n * width, rel=0.02
    )


@pytest.mark.parametrize('wrap', [jax.jit, jax.checkpoint, jax.vmap], ids=['jit', 'checkpoint', 'vmap'])
def test_programs_within_programs_are_counted(wrap):
    function = wrap(lambda x: jnp.matmul(x, ones(4, 4)))
    assert counted(function, ones(6, 3, 4)) == 6 * 2 * 3 * 4 * 4


def test_a_custom_derivative_is_counted_once():
    @jax.custom_vjp
    def double(x):
        return x @ ones(4, 4)

    double.defvjp(lambda x: (double(x), None), lambda _, g: (g @ ones(4, 4),))
    once = 2 * 3 * 4 * 4
    assert counted(double, ones(3, 4)) == once
    assert counted(lambda x: jax.vjp(double, x)[1](ones(3, 4)), ones(3, 4)) == 2 * once


def test_a_branch_counts_as_its_most_expensive_side():
    cheap, dear = (lambda x: x[:, :1] * ones(1, 4)), (lambda x: x @ ones(4, 4))
    found = counted(lambda p, x: jax.lax.cond(p, cheap, dear, x), True, ones(3, 4))
    assert found == 2 * 3 * 4 * 4


def test_a_loop_to_a_traced_end_is_counted_where_its_end_follows_from_constants():
    def run(x):
        steps = jnp.asarray(7, jnp.int32) * 2 + 1
        return jax.lax.fori_loop(jnp.asarray(3), steps, lambda _, x: x @ ones(4, 4), x)

    assert counted(run, ones(3, 4)) == pytest.approx(12 * 2 * 3 * 4 * 4, abs=20)


def test_a_loop_of_unknown_length_is_refused_unless_its_length_is_stated():
    def run(x):
        return jax.lax.while_loop(lambda x: x.sum() < 100, lambda x: 2 * (x @ ones(4, 4)), x)

    with pytest.raises(flops.UnknownError, match='expected_trips'):
        counted(run, ones(3, 4))
    with pytest.raises(flops.UnknownError, match='expected_trips'):
        counted(lambda n, x: jax.lax.fori_loop(0, n, lambda _, x: x @ ones(4, 4), x), 3, ones(3, 4))

    def stated(x):
        with flops.expected_trips(2.5):
            return run(x)

    assert counted(stated, ones(3, 4)) == pytest.approx(2.5 * (2 * 3 * 4 * 4 + 12 + 12))
    assert counted(jax.jit(stated), ones(3, 4)) == counted(stated, ones(3, 4))


def test_a_length_that_is_known_counts_where_another_is_stated_around_it():
    def run(x):
        with flops.expected_trips(10):
            return jax.lax.fori_loop(0, 100, lambda _, x: x @ ones(4, 4), x)

    assert counted(run, ones(3, 4)) == pytest.approx(100 * 2 * 3 * 4 * 4, rel=0.02)  # and what counts the trips


def test_a_length_stated_around_a_jitted_function_is_refused_with_the_place_where_it_belongs():
    run = jax.jit(lambda x: jax.lax.while_loop(lambda x: x.sum() < 100, lambda x: 2 * x, x))

    def stated(x):
        with flops.expected_trips(2.5):
            return run(x)

    with pytest.raises(flops.UnknownError, match='inside the jitted function'):
        counted(stated, ones(3, 4))


HIDDEN = {
    'svd': (jnp.linalg.svd, ones(4, 4)),
    'random_gamma': (lambda x: jax.random.gamma(jax.random.key(0), x), ones(3)),
    'igamma': (lambda x: jax.scipy.special.gammainc(2.0, x), ones(3)),
    'igammac': (lambda x: jax.scipy.special.gammaincc(2.0, x), ones(3)),
    'regularized_incomplete_beta': (lambda x: jax.scipy.special.betainc(2.0, 3.0, x), ones(3) / 2),
}


@pytest.mark.parametrize('name', HIDDEN)
def test_a_kernel_that_hides_its_operations_is_refused(name):
    function, argument = HIDDEN[name]
    with pytest.raises(flops.UnknownError, match=f'calls {name}, '):
        counted(function, argument)


def test_a_ragged_product_meets_each_row_with_the_matrix_of_its_group():
    sizes = jnp.array([2, 0, 4])
    product = lambda x, y: jax.lax.ragged_dot(x, y, sizes)  # noqa: E731
    left, right = ones(6, 4), ones(3, 4, 5)
    assert counted(product, left, right) == 2 * float(product(left, right).sum()) == 2 * 6 * 4 * 5
    both = lambda x, y: jax.vjp(product, x, y)[1](ones(6, 5))  # noqa: E731
    assert counted(both, left, right) == 3 * 2 * 6 * 4 * 5  # its value, and one more product by each side


def butterflies(size):
    """Real operations of the radix-2 transform: a complex product is 6 of them, a complex sum 2."""
    return 0 if size == 1 else 2 * butterflies(size // 2) + size // 2 * (6 + 2 * 2)


def test_a_fourier_transform_counts_as_its_butterflies():
    assert counted(jnp.fft.fft, ones(3, 16).astype(jnp.complex64)) == 3 * butterflies(16)
    assert counted(jnp.fft.rfft, ones(3, 16)) == 3 * butterflies(16) / 2
    assert counted(lambda x: jnp.fft.irfft(x, 16), ones(3, 9).astype(jnp.complex64)) == 3 * butterflies(16) / 2
    planes = jnp.fft.fft2(ones(5, 8, 4))
    assert counted(jnp.fft.fft2, planes) == 5 * (8 * butterflies(4) + 4 * butterflies(8))


def test_a_linear_solve_counts_the_program_that_solves():
    matrix = 2 * jnp.eye(4)

    def solve(b):
        forwards, transposed = (lambda _, b: matrix @ b / 4), (lambda _, b: matrix.T @ (matrix.T @ b))
        return jax.lax.custom_linear_solve(lambda x: matrix @ x, b, forwards, transposed)

    assert counted(solve, ones(4)) == 2 * 4 * 4 + 4
    assert counted(lambda b: jax.vjp(solve, b)[1](b), ones(4)) == 2 * 4 * 4 + 4 + 2 * 2 * 4 * 4


def test_integers_and_random_bits_are_no_floating_point_operations():
    assert counted(lambda key: jax.random.bits(key, (100,)), jax.random.key(0)) == 0
    assert counted(lambda x: x * 2 + 1, jnp.arange(100)) == 0
    assert counted(lambda x: jnp.exp(x * 2).sum(), np.ones(100, np.float32)) == 300


@pytest.mark.parametrize('name', ['diffusion', 'gan', 'vae'])
def test_a_training_step_without_loops_has_the_operations_that_xla_counts(name):
    """XLA counts integers and comparisons too, those of random bits above all, and logarithms and the like apart."""
    root = pathlib.Path(__file__).resolve().parents[1]
    config = configs.load(str(root / f'configs/digits/{name}.py'))
    ready = prepare(config)
    blueprint, feed = Blueprint(ready.family), ready.feed
    state = placement.abstract_state(blueprint, ready.mesh)
    step = make_step(blueprint, feed, rng.root(0, 'training'), placement.shardings(state), {})
    traced = step.trace(state, ready.constants, feed.inputs(0), active_updates(blueprint, 0))
    assert 0.98 < flops.count(traced.jaxpr) / traced.lower().cost_analysis()['flops'] < 1.01

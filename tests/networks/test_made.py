"""Masked networks: who sees whom, by the Jacobian; flows of them return, and have the Jacobian's volume."""

import integrals
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from ml_collections import ConfigDict

from genbench.networks import made, maf


def scrambled(build, scale=0.5):
    """The module with random parameters and statistics, which leave no connection at zero."""
    random, module = np.random.default_rng(0), nnx.eval_shape(build)
    draw = lambda leaf: jnp.asarray(scale * random.normal(size=leaf.shape))  # noqa: E731
    nnx.update(module, jax.tree.map(draw, nnx.state(module, nnx.Param)))
    nnx.update(module, jax.tree.map(lambda leaf: jnp.exp(draw(leaf)), nnx.state(module, nnx.BatchStat)))
    return module


@pytest.mark.parametrize('order', ['random', 'raster', 'reversed'])
@pytest.mark.parametrize('direct', [True, False])
def test_an_output_sees_all_inputs_before_it_and_no_others(order, direct):
    options = {'hidden': (40, 30), 'activation': 'tanh', 'order': order, 'masks': 2, 'direct': direct}
    network = scrambled(lambda: made.Made(6, 2, {}, rngs=nnx.Rngs(0), **options))
    slopes_of = jax.jit(jax.jacobian(lambda x, mask: network(x[None], mask=mask)[0]))
    for mask in (0, 1):
        slopes = np.asarray(slopes_of(jnp.linspace(-1, 1, 6), mask))  # (output, 2, input)
        place = network.degrees[0][mask]
        assert sorted(place) == list(range(6))
        np.testing.assert_array_equal((slopes != 0).any(1), place[None] < place[:, None])
    orders = {'raster': [0, 1, 2, 3, 4, 5], 'reversed': [5, 4, 3, 2, 1, 0]}
    if order == 'random':
        assert (network.degrees[0][0] != network.degrees[0][1]).any()
    else:
        assert list(network.degrees[0][0]) == orders[order]


def test_the_last_of_several_masks_differs_in_its_connections_and_seeds_give_others():
    one, other = (made.degrees(5, (8,), 'random', 2, seed) for seed in (0, 1))
    assert (one[1][0] != one[1][1]).any() and (one[1] != other[1]).any()
    for units in one[1:]:
        assert units.min() >= 0 and units.max() <= 3  # a unit of degree 4 would reach no output


FLOWS = {
    'masked': {'layers': 2},
    'without normalisation': {'layers': 1, 'normalise': False},
    'coupling': {'layers': 3, 'transform': 'coupling'},
    'mixture': {'layers': 0, 'components': 3},
    'mixture after layers': {'layers': 2, 'components': 2},
}


def make_flow(shape=(1, 3, 1), **options):
    options = {**maf.DEFAULTS, 'hidden': (8, 8), 'margin': 0.01, **options}
    return scrambled(lambda: maf.Flow(shape, {}, rngs=nnx.Rngs(0), **options), 0.3)


@pytest.mark.parametrize('name', FLOWS)
def test_a_flow_returns_and_its_volume_is_that_of_its_differences(name):
    """In double precision, by central differences, which need no derivative of the layers."""
    with jax.enable_x64(True):
        flow, x = make_flow(**FLOWS[name]), np.random.default_rng(1).uniform(-0.9, 0.9, (3, 1, 3, 1))
        step = 1e-5 * np.eye(3).reshape(3, 1, 1, 3, 1)
        z, log_det = jax.jit(lambda x: flow(x))(np.concatenate([x, *(x + step), *(x - step)]))
        np.testing.assert_allclose(jax.jit(lambda z: flow.inverse(z))(z[:3]), x, atol=1e-7)
        ahead, behind = np.asarray(z[3:]).reshape(2, 3, 3, 3)  # (dimension that moves, image, output)
        slopes = (ahead - behind).transpose(1, 2, 0) / 2e-5
        np.testing.assert_allclose(np.linalg.slogdet(slopes)[1], log_det[:3], atol=1e-6)


class Same(nnx.Module):
    """In place of the logits."""

    def __call__(self, x):
        return x, jnp.zeros(len(x))


@pytest.mark.parametrize('name', ['masked', 'coupling', 'mixture after layers'])
def test_a_density_in_the_plane_integrates_to_one(name):
    """The density of the logits."""
    flow = make_flow((1, 2, 1), **FLOWS[name])
    flow.logit = Same()
    assert integrals.of_flow(flow, 40.0, 1000)[0] == pytest.approx(1, abs=1e-3)


def test_normalisation_uses_the_batch_in_training_and_what_it_kept_afterwards():
    norm, x = maf.BatchNorm(2), jnp.asarray([[0.0, 1.0], [4.0, 3.0]])
    y, log_det = norm(x, True, False)
    np.testing.assert_allclose(y, [[-1, -1], [1, 1]], atol=1e-4)
    np.testing.assert_allclose(log_det, -np.log([2, 2]), atol=1e-4)  # deviations 2 and 1
    np.testing.assert_allclose(norm.mean[...], [0.2, 0.2], atol=1e-6)  # a tenth of the way from 0 to (2, 2)
    np.testing.assert_allclose(norm.variance[...], [0.9 + 0.4, 1.0], atol=1e-6)
    again, _ = norm(x, False, False)
    np.testing.assert_allclose(again, (x - 0.2) / np.sqrt([1.3, 1.0]), atol=1e-4)
    np.testing.assert_allclose(norm.inverse(again), x, atol=1e-5)


def test_the_inverse_takes_one_evaluation_for_each_degree_of_each_layer():
    for options in FLOWS.values():
        network, options = ConfigDict({**maf.DEFAULTS, **options}), {**maf.DEFAULTS, **options}
        flow = nnx.eval_shape(lambda options=options: maf.Flow((1, 3, 1), {}, rngs=nnx.Rngs(0), **options))
        layers = [*flow.layers, *filter(None, [flow.mixture])]
        assert maf.inversion(network, 3) == sum(layer.evaluations for layer in layers)

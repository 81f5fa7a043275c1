"""The bound by uniform dequantisation, where the probability of every level is known."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import integrate, stats

from genbench.data.spec import DataSpec
from genbench.families.dequantisation import bound, likelihoods, smoothing_cost
from genbench.families.spaces import Pixels

SPACE = Pixels(DataSpec('pixels', (1, 1, 1), levels=4))
LAW = stats.norm(0.1, 0.2)
EDGES = np.linspace(-1, 1, 5)
WIDTH, REPEATS = 0.5, 4000


def log_density(x, keys):
    return jax.scipy.stats.norm.logpdf(x, 0.1, 0.2).sum((1, 2, 3))


def bounds(keys, draws, density=log_density):
    """(level, repeat)."""
    images = jnp.repeat(jnp.arange(4), REPEATS).reshape(-1, 1, 1, 1)
    score = jax.jit(lambda images, keys: bound(SPACE, None, density, images, keys, draws))
    return np.asarray(score(images, keys(4 * REPEATS)), float).reshape(4, REPEATS)


def standard_error(found):
    return found.std(1) / np.sqrt(REPEATS)


def test_one_draw_has_the_mean_of_the_log_density_over_the_bin(keys):
    found = bounds(keys, 1)
    wanted = [integrate.quad(LAW.logpdf, low, high)[0] / WIDTH for low, high in zip(EDGES[:-1], EDGES[1:], strict=True)]
    assert (np.abs(found.mean(1) - wanted - np.log(WIDTH)) < 5 * standard_error(found)).all()


@pytest.mark.parametrize('draws', [1, 8])
def test_its_exponential_is_the_probability_on_average(draws, keys):
    found = np.exp(bounds(keys, draws))
    assert (np.abs(found.mean(1) - np.diff(LAW.cdf(EDGES))) < 5 * standard_error(found)).all()


def test_more_draws_come_nearer_to_the_log_probability_from_below(keys):
    gaps = np.array([np.log(np.diff(LAW.cdf(EDGES))) - bounds(keys, draws).mean(1) for draws in (1, 4, 64)])
    assert (gaps[0] > 2 * gaps[1]).all() and (gaps[1] > 2 * gaps[2]).all()
    assert (gaps[2] > -0.01).all()  # at 64 draws the noise of the mean is as large as the gap
    assert gaps[2].max() < 0.1


def test_the_first_draw_of_many_is_that_of_one(keys):
    """Where one place of the bin outweighs all others, the better of two draws is the first one half of the time."""
    one, two = (bounds(keys, draws, lambda x, keys: 1e5 * x.sum((1, 2, 3))) for draws in (1, 2))
    assert (np.abs(two + np.log(2) - one) < 0.1).mean() == pytest.approx(0.5, abs=5 * 0.5 / np.sqrt(one.size))


def test_a_density_has_a_row_of_one_draw_and_one_of_all(keys):
    def rows(draws):
        density = lambda networks, given: log_density  # noqa: E731
        return likelihoods('density', 'lower_bound', SPACE, draws, density, {'note': 'kept'}, refined=density)

    assert [one.method for one in rows(1)] == ['density_1']
    assert [one.method for one in rows(8)] == ['density_1', 'density_8']
    images = jnp.arange(4).reshape(-1, 1, 1, 1)
    for one, draws in zip(rows(8), (1, 8), strict=True):
        assert one.protocol == {'dequantisation': 'uniform', 'dequantisation_draws': draws, 'note': 'kept'}
        wanted = bound(SPACE, None, log_density, images, keys(4), draws)
        for log_prob in (one.log_prob, one.refined):
            np.testing.assert_array_equal(log_prob(None, images, None, keys(4)), wanted)


def test_more_draws_do_not_profit_from_the_noise_of_an_estimate(keys):
    """A flat density whose logarithm is known but for noise: the bound keeps its mean and its spread."""

    def noisy(x, keys):
        return jax.vmap(jax.random.normal)(keys)

    found = bounds(keys, 16, noisy) - np.log(WIDTH)
    assert (np.abs(found.mean(1)) < 5 * standard_error(found)).all()
    assert found.std() == pytest.approx(1, abs=0.05)


def test_an_image_has_its_own_draws(keys):
    images = jnp.zeros((5, 1, 1, 1), int)
    same, other = (bound(SPACE, None, log_density, x, keys(5), 3) for x in (images, images.at[:2].set(3)))
    assert len(np.unique(same)) == 5
    assert (same == other).tolist() == [False] * 2 + [True] * 3


@pytest.mark.parametrize('ratio', [1.28, 0.128, 0.01])
def test_what_a_certain_pixel_loses_to_noise_is_the_integral_over_its_bin(ratio):
    def loss(u):
        return -np.log(stats.norm.cdf(u / ratio) - stats.norm.cdf((u - 1) / ratio))

    edge = min(10 * ratio, 0.5)  # beyond it next to nothing is lost
    wanted = 2 * integrate.quad(loss, 0, edge)[0] if edge < 0.5 else integrate.quad(loss, 0, 1)[0]
    assert smoothing_cost(ratio) == pytest.approx(wanted, rel=1e-3)

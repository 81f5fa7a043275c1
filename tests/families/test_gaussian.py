"""The closed-form Gaussian against numpy and scipy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from genbench.data.spec import DataSpec
from genbench.families.base import Sampler

SPEC = DataSpec('vectors', (1, 2, 2), levels=64, classes=2)
NOISE = SPEC.levels**-2 / 3 * np.eye(4)  # variance of a uniform draw from a bin of width 2 / L


def images(count=600):
    """Correlated integers, the second half with another law; labels say which half."""
    rng, label = np.random.default_rng(0), np.repeat([0, 1], count // 2)
    x = rng.normal(size=(count, 4)) @ rng.normal(size=(4, 4)) * np.where(label, 2, 4)[:, None] + 30 + 4 * label[:, None]
    return np.clip(np.round(x), 0, 63).astype(np.int32), label


def centres(x):
    return (2 * x + 1) / SPEC.levels - 1


@pytest.fixture
def fitted(make_family, keys):
    def fit(conditional=False, chunk=150):
        family = make_family('gaussian', conditional, spec=SPEC)
        networks = jax.tree.map(lambda x: x, family.networks(None))
        x, label = images()
        order = np.random.default_rng(1).permutation(len(x)).reshape(-1, chunk)
        for part in order:
            batch = {'image': jnp.asarray(x[part]).reshape(-1, 1, 2, 2), 'label': jnp.asarray(label[part])}
            family.loss(networks, {**batch, 'key': keys(chunk)}, jax.random.key(0), jnp.zeros(()))
        return family, networks

    return fit


@pytest.mark.parametrize('chunk', [600, 50])
def test_batches_that_cover_the_data_once_give_the_maximum_likelihood_fit(chunk, fitted):
    _, networks = fitted(chunk=chunk)
    (mean,), (covariance,) = networks['moments'].moments()
    x = centres(images()[0])
    np.testing.assert_allclose(mean, x.mean(0), atol=1e-5)
    np.testing.assert_allclose(covariance, np.cov(x.T, ddof=0), rtol=1e-4, atol=1e-6)


def test_a_conditional_gaussian_fits_each_label(fitted):
    _, networks = fitted(conditional=True)
    means, covariances = networks['moments'].moments()
    x, label = images()
    for index in range(2):
        members = centres(x[label == index])
        np.testing.assert_allclose(means[index], members.mean(0), atol=1e-5)
        np.testing.assert_allclose(covariances[index], np.cov(members.T, ddof=0), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize('conditional', [False, True])
def test_the_log_probability_is_scipys_over_the_bin(conditional, fitted, keys):
    """Averaged over draws from the bin: a quadratic in x gains −tr(Σ⁻¹) w² / 24 over its value at the centre."""
    (family, networks), count, (x, label) = fitted(conditional), 4000, images()
    covered = x[label == 1] if conditional else x
    covariance = np.cov(centres(covered).T, ddof=0) + NOISE
    density = stats.multivariate_normal(centres(covered).mean(0), covariance).logpdf(centres(x[500]))
    wanted = density - np.trace(np.linalg.inv(covariance) @ NOISE) / 2 + 4 * np.log(2 / SPEC.levels)
    repeated = jnp.broadcast_to(jnp.asarray(x[500]).reshape(1, 2, 2), (count, 1, 2, 2))
    given = {'label': jnp.ones(count, int)} if conditional else None
    found = np.asarray(family.likelihoods[0].log_prob(networks, repeated, given, keys(count)))
    assert found.mean() == pytest.approx(wanted, abs=5 * found.std() / np.sqrt(count))
    assert found.std() > 0


def test_a_diagonal_covariance_makes_dimensions_independent(make_family, fitted, keys):
    """The density is then the product of scipy's of each dimension alone, here at the very draws from the bin."""
    _, networks = fitted()
    family = make_family('gaussian', spec=SPEC, covariance='diagonal')
    x = images()[0]
    scale = np.sqrt(centres(x).var(0) + np.diag(NOISE))
    drawn = np.random.default_rng(2).uniform(-1, 1, (5, 4))
    found = family._log_density(networks, None)(jnp.asarray(drawn).reshape(5, 1, 2, 2), keys(5))
    wanted = stats.norm(centres(x).mean(0), scale).logpdf(drawn).sum(1)
    np.testing.assert_allclose(found, wanted, rtol=1e-4)


@pytest.fixture
def bounds(fitted, keys):
    """`bounds(draws, count)` → {method: nats (image, repeat)} of three images, and the log of their integrals."""

    def score(draws, count):
        family, networks = fitted()
        family.config = family.config.copy_and_resolve_references()
        family.config.evaluation.dequantisation_draws = draws
        x = images()[0]
        law = stats.multivariate_normal(centres(x).mean(0), np.cov(centres(x).T, ddof=0) + NOISE)
        low, high = (centres(x[:3]) + side / SPEC.levels for side in (-1, 1))
        truth = [law.cdf(upper, lower_limit=lower) for lower, upper in zip(low, high, strict=True)]
        repeated = jnp.repeat(jnp.asarray(x[:3]).reshape(3, 1, 2, 2), count, axis=0)
        found = {
            one.method: np.asarray(one.log_prob(networks, repeated, None, keys(3 * count)), float).reshape(3, count)
            for one in family.likelihoods
        }
        assert {one.kind for one in family.likelihoods} == {'lower_bound'}
        return found, np.log(truth)

    return score


def test_the_densities_are_below_the_probability_of_the_image_and_the_nearer_the_more_draws_they_take(bounds):
    count = 20_000
    found, truth = bounds(8, count)
    assert list(found) == ['density_1', 'density_8']
    gaps = np.array([(truth - values.mean(1)).mean() for values in found.values()])
    errors = np.array([np.sqrt((values.var(1) / count).mean() / 3) for values in found.values()])
    assert (gaps > 5 * errors).all() and gaps[0] > 4 * gaps[1]


def test_very_many_draws_give_the_probability_of_the_whole_bin(bounds):
    found, truth = bounds(2000, 1)
    np.testing.assert_allclose(found['density_2000'][:, 0], truth, atol=0.03)


@pytest.mark.parametrize('label', [None, 0, 1])
def test_samples_have_the_moments_of_the_fit(label, fitted, keys):
    family, networks = fitted(conditional=label is not None)
    given = None if label is None else {'label': jnp.full(20_000, label)}
    sample = jax.jit(lambda keys: family.sample(networks, keys, given, Sampler('direct')).images)
    found = np.reshape(centres(sample(keys(20_000))), (-1, 4))
    x, labels = images()
    wanted = centres(x if label is None else x[labels == label])
    covariance = np.cov(wanted.T, ddof=0) + 2 * NOISE  # of the model, and of putting a draw into a bin
    scale = np.sqrt(np.diag(covariance))
    np.testing.assert_allclose((found.mean(0) - wanted.mean(0)) / scale, 0, atol=5 / np.sqrt(20_000))
    np.testing.assert_allclose((np.cov(found.T) - covariance) / np.outer(scale, scale), 0, atol=5 * np.sqrt(2 / 20_000))


def test_no_parameter_is_trained(make_family):
    family = make_family('gaussian')
    assert [update.optimizer for update in family.updates] == [None]
    assert family.averages == ()

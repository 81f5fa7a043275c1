"""Observation models are probability distributions over all levels, whatever a decoder puts out."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from genbench.networks import decoders

MEANS = [-50.0, -1.0, -0.3, 0.0, 0.99, 1.0, 30.0]
LOG_SCALES = [-7.0, -3.0, -1.0, 0.0, 3.0]

DISCRETISED = {
    'logistic': lambda mean, log_scale, images, levels: decoders.discretised_logistic(mean, log_scale, images, levels),
    'normal': lambda mean, log_scale, images, levels: decoders.discretised_normal(
        mean, jnp.exp(log_scale), images, levels
    ),
}
each_kind = pytest.mark.parametrize('kind', DISCRETISED)
each_size = pytest.mark.parametrize('levels', [2, 256])


def grid(levels):
    """Every mean with every log-scale with every level."""
    return jnp.meshgrid(jnp.asarray(MEANS), jnp.asarray(LOG_SCALES), jnp.arange(levels), indexing='ij')


@each_kind
@each_size
def test_a_discretised_decoder_sums_to_one(kind, levels):
    mean, log_scale, images = grid(levels)
    log_p = jax.jit(lambda *inputs: DISCRETISED[kind](*inputs, levels))(mean, log_scale, images)
    assert np.isfinite(log_p).all()
    np.testing.assert_allclose(np.exp(log_p).sum(-1), 1, atol=1e-3)


@each_kind
def test_a_discretised_decoder_integrates_its_density_over_each_bin(kind):
    levels, mean, log_scale = 17, 0.2, -1.5
    images = np.arange(levels)
    width, first = {'logistic': (2 / (levels - 1), -1), 'normal': (2 / levels, 1 / levels - 1)}[kind]
    edges = first + width * (np.arange(levels + 1) - 0.5)
    edges[[0, -1]] = -np.inf, np.inf
    cdf = {'logistic': stats.logistic, 'normal': stats.norm}[kind](mean, np.exp(log_scale)).cdf
    found = jax.jit(lambda images: DISCRETISED[kind](mean, log_scale, images, levels))(images)
    np.testing.assert_allclose(np.exp(found), np.diff(cdf(edges)), rtol=1e-4, atol=1e-7)


def test_a_mixture_couples_the_channels_of_a_pixel_as_the_paper_says_and_sums_to_one():
    """Equations 2 and 3 of Salimans et al. 2017 with differences of scipy's distribution functions, for all colours."""
    levels, components = 4, 2
    h = np.random.default_rng(0).normal(size=decoders.mixture_size(3, components))
    parts = decoders.split_mixture(jnp.asarray(h), 3, components)
    images = np.stack(np.meshgrid(*[np.arange(levels)] * 3, indexing='ij'), axis=-1).reshape(-1, 3)
    values = 2 * images / (levels - 1) - 1
    found = np.exp(decoders.logistic_mixture(parts, jnp.asarray(values), jnp.asarray(images), levels))
    pi, mu, log_s, slopes = h[:2], h[2:8].reshape(3, 2), h[8:14].reshape(3, 2), np.tanh(h[14:].reshape(3, 2))
    alpha, beta, gamma = slopes
    wanted = np.zeros(len(images))
    for k in range(components):
        red, green, _ = values.T
        means = mu[0, k], mu[1, k] + alpha[k] * red, mu[2, k] + beta[k] * red + gamma[k] * green
        product = np.exp(pi[k]) / np.exp(pi).sum()
        for channel in range(3):
            edges = values[:, channel, None] + np.array([-1, 1]) / (levels - 1)
            edges[images[:, channel] == 0, 0], edges[images[:, channel] == levels - 1, 1] = -np.inf, np.inf
            cdf = stats.logistic.cdf(edges, means[channel] if channel == 0 else means[channel][:, None],
                                     np.exp(log_s[channel, k]))  # fmt: skip
            product = product * (cdf[:, 1] - cdf[:, 0])
        wanted += product
    np.testing.assert_allclose(found, wanted, rtol=1e-4)
    assert found.sum() == pytest.approx(1, abs=1e-5)


@each_kind
@each_size
def test_gradients_of_a_discretised_decoder_are_finite_everywhere(kind, levels):
    mean, log_scale, images = grid(levels)
    log_p = lambda *inputs: DISCRETISED[kind](*inputs, images, levels).sum()  # noqa: E731
    gradients = jax.jit(jax.grad(log_p, (0, 1)))(mean, log_scale)
    assert all(np.isfinite(gradient).all() for gradient in gradients)


@each_kind
def test_likelihood_of_a_far_level_pulls_the_mean_towards_it(kind):
    """The gradient does not die in the tails, where a difference of two cumulative probabilities rounds to zero."""
    slope = jax.jit(jax.grad(lambda mean, image: DISCRETISED[kind](mean, -3.0, image, 256)))
    assert slope(-0.9, 250) > 1 and slope(0.9, 5) < -1


@each_size
def test_the_categorical_decoder_is_a_softmax(levels):
    logits = 20 * jax.random.normal(jax.random.key(0), (5, levels))
    log_p = decoders.categorical(logits[:, None].repeat(levels, 1), jnp.tile(jnp.arange(levels), (5, 1)))
    np.testing.assert_allclose(np.exp(log_p).sum(-1), 1, rtol=1e-5)
    np.testing.assert_allclose(log_p - log_p[:, :1], logits - logits[:, :1], rtol=1e-4, atol=1e-4)

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

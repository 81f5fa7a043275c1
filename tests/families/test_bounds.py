"""Variational bounds with exact denoisers: every term is known in closed form."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from genbench.data.spec import DataSpec
from genbench.families.bounds import VariationalBound
from genbench.families.spaces import Pixels
from genbench.interpolants import schedules
from genbench.interpolants.predictions import Prediction
from genbench.interpolants.schedules import expand

# So many levels that where in its bin an image lies matters to none of the tests of Gaussian data.
SPEC = DataSpec('pairs', (1, 1, 2), levels=8192)
MEAN, VARIANCE = np.array([0.1, -0.2]), np.array([0.2, 0.05])
STD = np.sqrt(VARIANCE)
LOG_BIN = 2 * SPEC.log_bin_width
REPEATS = 4000
TERMS = ('prior', 'diffusion', 'reconstruction')


def denoiser(schedule, mean=MEAN, variance=VARIANCE):
    """E[x | x_t] of N(mean, diag variance)."""

    def denoise(x_t, t):
        alpha, sigma = expand(schedule.alpha(t), x_t), expand(schedule.sigma(t), x_t)
        white = (x_t - alpha * mean) / (alpha**2 * variance + sigma**2)
        return Prediction(mean + alpha * variance * white, sigma * white)

    return denoise


def snr(schedule, t):
    return np.square(np.asarray(schedule.alpha(t), float) / np.asarray(schedule.sigma(t), float))


def squared_error(x, ratio):
    """E‖x − x̂(x_t)‖² over the noise, for each dimension, at the signal-to-noise ratio (…, 1)."""
    return ((x - MEAN) ** 2 + ratio * VARIANCE**2) / (1 + ratio * VARIANCE) ** 2


def continuous_terms(schedule, x):
    """The integral of −½ E‖x − x̂‖² over the signal-to-noise ratio, and the ends."""
    low, high = (snr(schedule, jnp.asarray(t)) for t in (schedule.t_max, schedule.t_min))

    def integral(ratio):
        shrunk = 1 / (1 + ratio * VARIANCE)
        return -((x - MEAN) ** 2) / VARIANCE * shrunk + np.log1p(ratio * VARIANCE) + shrunk

    decoder = -0.5 * np.log(2 * np.pi * np.e / high) * np.ones(2)
    terms = -0.5 * low * x**2, -0.5 * (integral(high) - integral(low)), decoder
    return {name: term.sum() + LOG_BIN * (name == 'reconstruction') for name, term in zip(TERMS, terms, strict=True)}


def terms_in_steps(schedule, x, times):
    """With β_t for the variance of the reverse steps, and β_1 in the decoder."""
    ratios, variance = snr(schedule, times)[:, None], np.square(np.asarray(schedule.sigma(times), float))[:, None]
    decoder = -0.5 * (np.log(2 * np.pi * variance[0]) + squared_error(x, ratios[0]) / variance[0])
    shrinkage = variance[:-1] / variance[1:]
    steps = -0.5 * ((ratios[:-1] - ratios[1:]) * shrinkage * squared_error(x, ratios[1:])).sum(0)
    steps += 0.5 * (np.log(shrinkage) + 1 - shrinkage).sum()
    terms = -0.5 * ratios[-1] * x**2, steps, decoder
    return {name: term.sum() + LOG_BIN * (name == 'reconstruction') for name, term in zip(TERMS, terms, strict=True)}


def grid(schedule, steps):
    return jnp.linspace(schedule.t_min ** (1 / 3), schedule.t_max ** (1 / 3), steps) ** 3


def estimates(score, images, keys, repeats=REPEATS):
    """{term: (image, repeat)} of `score(images, keys)`."""
    images = jnp.asarray(images)
    found = jax.jit(score)(jnp.repeat(images, repeats, axis=0), keys(len(images) * repeats))
    return {name: np.asarray(value, float).reshape(len(images), repeats) for name, value in found.items()}


def assert_mean(found, wanted):
    assert found.mean() == pytest.approx(wanted, abs=5 * found.std() / np.sqrt(found.size) + 2e-3)


IMAGE = np.asarray(SPEC.quantise(np.array([0.5, -0.3], np.float32))).reshape(1, 1, 1, 2)
X = np.asarray(SPEC.dequantise(jnp.asarray(IMAGE)), float).ravel()
every_schedule = pytest.mark.parametrize('name', schedules.SCHEDULES)


@every_schedule
def test_the_continuous_bound_is_the_log_density_and_its_terms_are_known(name, keys):
    """The gap is what the decoder of x_t at t_min and the prior at t_max leave, and nothing else."""
    schedule = schedules.get(name)
    bound = VariationalBound(Pixels(SPEC), schedule, 10)
    found = estimates(lambda *inputs: bound.in_continuous_time(denoiser(schedule), *inputs), IMAGE, keys)
    wanted = continuous_terms(schedule, X)
    for term in TERMS:
        assert_mean(found[term], wanted[term])
    np.testing.assert_allclose(sum(found[term] for term in TERMS), found['log_prob'], rtol=1e-5)
    assert sum(wanted.values()) == pytest.approx(stats.norm.logpdf(X, MEAN, STD).sum() + LOG_BIN, abs=5e-3)


def test_the_bound_is_averaged_over_the_bin_where_bins_are_wide(keys):
    spec, schedule = DataSpec('pairs', (1, 1, 2), levels=4), schedules.cosine()
    bound = VariationalBound(Pixels(spec), schedule, 10)
    image = np.array([3, 1]).reshape(1, 1, 1, 2)
    found = estimates(lambda *inputs: bound.in_continuous_time(denoiser(schedule), *inputs), image, keys)
    places = (image.ravel() + (np.arange(100)[:, None] + 0.5) / 100) / 2 - 1
    wanted = np.mean([sum(continuous_terms(schedule, x).values()) for x in places]) - LOG_BIN + 2 * spec.log_bin_width
    assert_mean(found['log_prob'], wanted)


@pytest.mark.parametrize(('name', 'steps'), [('linear', 2), ('cosine', 30), ('straight', 1000), ('straight', 1)])
def test_every_term_of_the_bound_in_steps_has_its_closed_form(name, steps, keys):
    schedule = schedules.get(name)
    times = grid(schedule, steps)
    bound = VariationalBound(Pixels(SPEC), schedule, 4)
    found = estimates(lambda *inputs: bound.in_steps(denoiser(schedule), *inputs, times, 'beta'), IMAGE, keys)
    for term, wanted in terms_in_steps(schedule, X, times).items():
        assert_mean(found[term], wanted)


@every_schedule
def test_the_gap_of_the_steps_vanishes_as_their_number_grows(name):
    """In closed form, averaged over the data; the test before this one ties the bound to it."""
    schedule = schedules.get(name)
    x = MEAN + STD * stats.norm.ppf((np.arange(20) + 0.5) / 20)[:, None]

    def mean(terms):
        return np.mean([sum(terms(one).values()) for one in x])

    limit = mean(lambda one: continuous_terms(schedule, one))
    gaps = [limit - mean(lambda one, n=n: terms_in_steps(schedule, one, grid(schedule, n))) for n in (100, 1000, 5000)]
    assert gaps[0] > gaps[1] > gaps[2] > -1e-3 and gaps[2] < 0.02  # the limit's decoder asks no network
    falls = -np.diff(gaps)
    assert falls[0] / falls[1] == pytest.approx((1 / 100 - 1 / 1000) / (1 / 1000 - 1 / 5000), rel=0.06)  # ∝ 1 / T


@pytest.mark.parametrize('wrong', [{'mean': MEAN + 0.1}, {'variance': VARIANCE / 2}], ids=['mean', 'variance'])
def test_a_wrong_denoiser_is_paid_for(wrong, keys):
    """No model has a larger mean log-likelihood on the data than the data's own law, so no bound has."""
    schedule, rng = schedules.straight(), np.random.default_rng(0)
    x = MEAN + STD * rng.normal(size=(4000, 2))
    images = SPEC.quantise(x.astype(np.float32)).reshape(-1, 1, 1, 2)
    bound = VariationalBound(Pixels(SPEC), schedule, 20)
    right, found = (
        estimates(lambda *inputs, d=one: bound.in_continuous_time(d, *inputs), images, keys, 1)['log_prob']
        for one in (denoiser(schedule), denoiser(schedule, **wrong))
    )
    gain = found - right
    assert gain.mean() < -5 * gain.std() / np.sqrt(len(x))


LEVELS = DataSpec('pixels', (1, 1, 1), levels=4)
PROBABILITY = np.array([0.1, 0.55, 0.05, 0.3])


def level_denoiser(schedule):
    """E[x | x_t] of images at the centres of their bins."""
    centres = (2 * np.arange(4) + 1) / 4 - 1

    def denoise(x_t, t):
        alpha, sigma = expand(schedule.alpha(t), x_t), expand(schedule.sigma(t), x_t)
        weight = jax.nn.softmax(np.log(PROBABILITY) - jnp.square((x_t - alpha * centres) / sigma) / 2, axis=-1)
        x = (weight * centres).sum(-1, keepdims=True)
        return Prediction(x, (x_t - alpha * x) / sigma)

    return denoise


@every_schedule
def test_images_at_the_centres_of_their_bins_have_their_probability_for_a_bound(name, keys):
    schedule = schedules.get(name)
    bound = VariationalBound(Pixels(LEVELS, drawn=False), schedule, 20)
    images = np.arange(4).reshape(4, 1, 1, 1)
    found = estimates(lambda *inputs: bound.in_continuous_time(level_denoiser(schedule), *inputs), images, keys)
    for level, probability in enumerate(PROBABILITY):
        assert_mean(found['log_prob'][level], np.log(probability))
    assert np.abs(found['reconstruction']).max() < 1e-3  # the noise at t_min moves no image out of its bin


def test_a_decoder_that_sees_noise_as_wide_as_the_bins_makes_the_bound_loose_but_keeps_it_one(keys):
    schedule = dataclasses.replace(schedules.straight(), t_min=0.2)
    bound = VariationalBound(Pixels(LEVELS, drawn=False), schedule, 20)
    images = np.arange(4).reshape(4, 1, 1, 1)
    found = estimates(lambda *inputs: bound.in_continuous_time(level_denoiser(schedule), *inputs), images, keys)
    gap = PROBABILITY @ (np.log(PROBABILITY) - found['log_prob'].mean(1))
    assert 0.01 < gap < 0.5
    assert found['reconstruction'].mean() < -0.05


def test_an_image_has_its_own_draws_whatever_its_neighbours(keys):
    schedule = schedules.cosine()
    bound = VariationalBound(Pixels(SPEC), schedule, 3)
    score = jax.jit(lambda *inputs: bound.in_continuous_time(denoiser(schedule), *inputs)['log_prob'])
    images = jnp.broadcast_to(IMAGE, (6, 1, 1, 2))
    same, other = score(images, keys(6)), score(images.at[:3].set(0), keys(6))
    assert len(np.unique(same)) == 6
    assert (same == other).tolist() == [False] * 3 + [True] * 3


def chain_gap(variance, choice, steps=1000):
    """KL(q ‖ p) in bits over the whole chain of Gaussian data, from DDPM's table in float64 (equations 4 to 8)."""
    beta = np.linspace(1e-4, 0.02, steps)
    bar = np.cumprod(1 - beta)
    before, now = bar[:-1], bar[1:]
    posterior = (1 - before) / (1 - now) * beta[1:]
    reverse = posterior if choice == 'fixedsmall' else beta[1:]
    error = variance * (1 - bar) / (bar * variance + 1 - bar)  # E(x − x̂)²
    shift = before * np.square(beta[1:] / (1 - now)) * error[1:]
    chain = (np.log(reverse / posterior) + (posterior + shift) / reverse - 1).sum()
    decoder = beta[0] if choice == 'beta' else posterior[0]
    first = np.log(2 * np.pi * decoder) + error[0] / decoder
    prior = bar[-1] * variance - bar[-1] - np.log(1 - bar[-1])
    return (chain + first + prior - np.log(2 * np.pi * np.e * variance)) / 2 / np.log(2)


@pytest.mark.parametrize('variance', [1e-4, 0.1])
def test_which_variance_of_the_reverse_steps_is_tightest_depends_on_the_data(variance, keys):
    """β on wide data, β̃ on a nearly certain pixel, where β loses most."""
    choices = ('beta', 'fixedlarge', 'fixedsmall')
    wanted = [chain_gap(variance, choice) for choice in choices]
    assert wanted == sorted(wanted, reverse=variance == 1e-4)
    schedule, law = schedules.linear(), stats.norm(scale=np.sqrt(variance))
    bound = VariationalBound(Pixels(SPEC), schedule, 100)
    x = law.ppf((np.arange(4000) + 0.5) / 4000).reshape(2000, 1, 1, 2)
    images, truth = SPEC.quantise(x.astype(np.float32)), law.logpdf(x).sum((1, 2, 3)) + LOG_BIN
    denoise, times = denoiser(schedule, 0.0, variance), jnp.arange(1, 1001) / 1000
    for choice, gap in zip(choices, wanted, strict=True):
        score = jax.jit(lambda images, keys, choice=choice: bound.in_steps(denoise, images, keys, times, choice))
        found = np.asarray(score(jnp.asarray(images), keys(2000))['log_prob'], float)
        bits = (truth - found) / 2 / np.log(2)
        assert bits.mean() == pytest.approx(gap, abs=4 * bits.std() / np.sqrt(2000) + 0.005)
        assert bits.std() / np.sqrt(2000) < 0.035  # the choices are 0.13 apart or more

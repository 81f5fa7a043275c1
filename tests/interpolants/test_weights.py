"""Weights of the regression: stated as in their papers, and the same for every prediction."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import integrate

from genbench.interpolants import predictions, schedules, weights
from genbench.interpolants.choices import choose

NAMES = [name for name in weights.WEIGHTS if name != 'none']


def weight(text, schedule, prediction, t):
    return choose('family.weight', text, weights.WEIGHTS).function(schedule, prediction, t)


def drawn(schedule):
    x, noise, wrong = jax.random.normal(jax.random.key(0), (3, 5, 2, 2, 1))
    t = schedule.time(jnp.linspace(0.9, 0.1, 5))
    return x, noise, wrong, t, schedule.perturb(x, noise, t)


@pytest.mark.parametrize('name', NAMES)
@pytest.mark.parametrize('schedule', ['cosine', 'straight', 'linear'])
def test_a_wrong_image_costs_the_same_whatever_is_predicted(name, schedule):
    """The weighted loss of networks that all see the image `wrong` in x_t."""
    schedule = schedules.get(schedule)
    x, noise, wrong, t, x_t = drawn(schedule)
    alpha, sigma = (schedules.expand(value, x) for value in (schedule.alpha(t), schedule.sigma(t)))

    def loss(prediction):
        y = predictions.target(prediction, schedule, wrong, (x_t - alpha * wrong) / sigma, t)
        error = y - predictions.target(prediction, schedule, x, noise, t)
        return jnp.square(error).mean((1, 2, 3)) * weight(name, schedule, prediction, t)

    found = {prediction: np.asarray(loss(prediction)) for prediction in predictions.NAMES}
    for one, other in itertools.pairwise(found):
        np.testing.assert_allclose(found[one], found[other], rtol=2e-3)


@pytest.mark.parametrize(
    ('text', 'prediction', 'wanted'),
    [
        ('none', 'v', lambda snr: np.ones_like(snr)),
        ('min_snr', 'x', lambda snr: np.minimum(snr, 5)),
        ('min_snr:gamma=2', 'noise', lambda snr: np.minimum(snr, 2) / snr),  # Hang et al. 2023, section 3.4
        ('min_snr:gamma=2', 'v', lambda snr: np.minimum(snr, 2) / (snr + 1)),
        ('truncated_snr', 'x', lambda snr: np.maximum(snr, 1)),
        ('truncated_snr', 'noise', lambda snr: np.maximum(1, 1 / snr)),
        ('snr_plus_one', 'x', lambda snr: snr + 1),
        ('snr_plus_one', 'v', lambda snr: np.ones_like(snr)),  # Salimans & Ho 2022, appendix D
        ('p2', 'noise', lambda snr: 1 / (1 + snr)),
        ('p2:gamma=0.5,k=2', 'noise', lambda snr: (2 + snr) ** -0.5),
        ('edm', 'x', lambda snr: (1 / snr + 0.25) / (0.25 / snr)),  # λ(σ) = (σ² + σ_data²) / (σ σ_data)²
        ('edm', 'preconditioned', lambda snr: np.ones_like(snr)),  # whose network output is weighted evenly
    ],
)
@pytest.mark.parametrize('schedule', ['cosine', 'linear'])
def test_weights_are_what_papers_write_for_their_prediction(text, prediction, wanted, schedule):
    """On schedules with α² + σ² = 1, as functions of the signal-to-noise ratio."""
    schedule = schedules.get(schedule)
    with jax.enable_x64(True):
        t = jnp.linspace(0.1, 0.9, 9)
        snr = np.exp(np.asarray(schedule.log_snr(t)))
        np.testing.assert_allclose(weight(text, schedule, prediction, t), wanted(snr), rtol=1e-6)


@pytest.mark.parametrize(('text', 'bias'), [('elbo', np.inf), ('sigmoid', 2.0), ('sigmoid:bias=-1', -1.0)])
def test_the_bound_s_weight_is_half_the_fall_of_the_signal_to_noise_ratio(text, bias):
    """−½ dSNR/dt = (1 − t) / t³ on the straight path, times sigmoid(b − log SNR)."""
    schedule = schedules.straight()
    with jax.enable_x64(True):
        t = np.linspace(0.1, 0.9, 9)
        wanted = (schedule.t_max - schedule.t_min) * (1 - t) / t**3 / (1 + np.exp(2 * np.log((1 - t) / t) - bias))
        np.testing.assert_allclose(weight(text, schedule, 'x', jnp.asarray(t)), wanted, rtol=1e-6)


@pytest.mark.parametrize('schedule', ['cosine', 'straight', 'linear'])
def test_the_mean_of_the_bound_s_weight_is_an_integral_over_log_snr_alone(schedule):
    """½ ∫ f(λ) dλ for a noise error of f(λ) = sigmoid(λ) sigmoid(−λ), whatever the schedule (Kingma & Gao 2023)."""
    schedule = schedules.get(schedule)
    span = [float(schedule.log_snr(jnp.asarray(t))) for t in (0.1, 0.9)]

    def value(name, t):
        t = jnp.asarray(t, jnp.float32)
        error = jax.nn.sigmoid(schedule.log_snr(t)) * jax.nn.sigmoid(-schedule.log_snr(t))
        return float(weight(name, schedule, 'noise', t) * error) / (schedule.t_max - schedule.t_min)

    sigmoid = lambda number: 1 / (1 + np.exp(-number))  # noqa: E731
    for name, factor in (('elbo', lambda _: 1.0), ('sigmoid:bias=-1', lambda at: sigmoid(-1 - at))):
        wanted = integrate.quad(lambda at, of=factor: 0.5 * of(at) * sigmoid(at) * sigmoid(-at), span[1], span[0])[0]
        found = integrate.quad(lambda t, of=name: value(of, t), 0.1, 0.9, epsabs=1e-5, epsrel=1e-4)[0]
        assert found == pytest.approx(wanted, rel=1e-3)


@pytest.mark.parametrize('name', NAMES)
def test_weights_are_finite_where_sampling_starts_and_ends(name):
    for schedule in (schedules.straight(), schedules.cosine()):
        t = jnp.asarray([schedule.t_min, schedule.t_max])
        assert np.isfinite(weight(name, schedule, 'velocity', t)).all()

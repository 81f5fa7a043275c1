"""What networks predict: every prediction determines the clean image and the noise, and through them all others."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from genbench.errors import UserError
from genbench.interpolants import predictions, schedules

ALL = schedules.SCHEDULES
everywhere = pytest.mark.parametrize('schedule', [make() for make in ALL.values()], ids=list(ALL))
SHAPE = (6, 3, 2, 1)


def drawn(schedule):
    """(x, noise, t, x_t) at times from early to late."""
    x, noise = jax.random.normal(jax.random.key(0), (2, *SHAPE))
    t = schedule.time(jnp.linspace(0.9, 0.1, SHAPE[0]))
    return x, noise, t, schedule.perturb(x, noise, t)


@everywhere
@pytest.mark.parametrize('name', predictions.NAMES)
def test_converting_a_perfect_prediction_gives_the_image_and_the_noise(schedule, name):
    x, noise, t, x_t = drawn(schedule)
    result = predictions.convert(name, schedule, predictions.target(name, schedule, x, noise, t), x_t, t)
    scale = schedules.expand(schedule.sigma(t) / schedule.alpha(t), x)  # late on, x drowns in the rounding of x_t
    np.testing.assert_allclose((result.x - x) / (1 + scale), 0, atol=2e-5)
    np.testing.assert_allclose((result.noise - noise) * scale / (1 + scale), 0, atol=2e-5)


@everywhere
@pytest.mark.parametrize(('source', 'goal'), list(itertools.permutations(predictions.NAMES, 2)))
def test_every_prediction_gives_every_other(schedule, source, goal):
    x, noise, t, x_t = drawn(schedule)
    given = predictions.convert(source, schedule, predictions.target(source, schedule, x, noise, t), x_t, t)
    found = predictions.target(goal, schedule, given.x, given.noise, t)
    wanted = predictions.target(goal, schedule, x, noise, t)
    np.testing.assert_allclose(found, wanted, rtol=1e-3, atol=1e-3 * float(jnp.abs(wanted).max()))


@everywhere
def test_velocity_is_the_time_derivative_of_the_path(schedule):
    x, noise, t, _ = drawn(schedule)
    _, slope = jax.jvp(lambda t: schedule.perturb(x, noise, t), (t,), (jnp.ones_like(t),))
    found = predictions.target('velocity', schedule, x, noise, t)
    np.testing.assert_allclose(found, slope, rtol=1e-5, atol=1e-5)


@everywhere
def test_score_is_the_gradient_of_the_log_density_of_x_t(schedule):
    x, noise, t, x_t = drawn(schedule)
    mean, std = (schedules.expand(values, x) for values in (schedule.alpha(t), schedule.sigma(t)))
    score = jax.grad(lambda x_t: jax.scipy.stats.norm.logpdf(x_t, mean * x, std).sum())(x_t)
    np.testing.assert_allclose(predictions.target('score', schedule, x, noise, t), score, rtol=1e-3, atol=1e-3)


def test_v_is_salimans_and_hos():
    schedule = schedules.cosine()
    x, noise, t, _ = drawn(schedule)
    angle = schedules.expand(jnp.arctan2(schedule.sigma(t), schedule.alpha(t)), x)
    wanted = jnp.cos(angle) * noise - jnp.sin(angle) * x
    np.testing.assert_allclose(predictions.target('v', schedule, x, noise, t), wanted, atol=1e-6)


def listening_network(x_t, t, given):
    """A network that predicts the noise as 1 without conditions and as the number it is told with them."""
    return jnp.ones_like(x_t) if given is None else jnp.broadcast_to(given['noise'][:, None, None, None], x_t.shape)


@pytest.mark.parametrize('guidance', [0.0, 0.5, 3.0])
def test_guidance_extrapolates_from_knowing_nothing(guidance):
    schedule, told = schedules.cosine(), jnp.arange(SHAPE[0], dtype=jnp.float32)
    _, _, t, x_t = drawn(schedule)
    noise = predictions.denoiser(listening_network, 'noise', schedule, {'noise': told}, guidance)(x_t, t).noise
    np.testing.assert_allclose(noise[:, 0, 0, 0], (1 + guidance) * told - guidance, atol=1e-5)


def test_without_guidance_the_network_is_evaluated_once():
    schedule, calls = schedules.cosine(), []
    _, _, t, x_t = drawn(schedule)

    def network(x_t, t, given):
        calls.append(given)
        return x_t

    predictions.denoiser(network, 'noise', schedule, {'label': jnp.zeros(SHAPE[0], int)}, guidance=0.0)(x_t, t)
    assert len(calls) == 1 and calls[0] is not None


def test_the_network_sees_the_schedules_condition():
    schedule, seen = schedules.edm(), []
    _, _, t, x_t = drawn(schedule)
    predictions.denoiser(lambda x_t, t, given: seen.append(t) or x_t, 'noise', schedule)(x_t, t)
    np.testing.assert_array_equal(seen[0], schedule.condition(t))


@everywhere
def test_a_clipped_image_still_explains_x_t(schedule):
    x, noise, t, x_t = drawn(schedule)
    network = lambda x_t, t, given: 5 * x  # noqa: E731
    clipped = predictions.denoiser(network, 'x', schedule, clip=True)(x_t, t)
    np.testing.assert_allclose(clipped.x, jnp.clip(5 * x, -1, 1), atol=1e-6)
    np.testing.assert_allclose(schedule.perturb(clipped.x, clipped.noise, t), x_t, rtol=1e-5, atol=1e-5)


def test_an_unknown_prediction_is_answered_with_the_nearest_name():
    with pytest.raises(UserError, match="'velocty'.*Did you mean velocity"):
        predictions.check('velocty')


@pytest.mark.parametrize('schedule', ALL)
def test_the_preconditioned_network_sees_and_predicts_variance_one(schedule):
    """Karras et al. 2022, equations 114 and 117: for data of deviation SIGMA_DATA, at every noise level."""
    path = ALL[schedule]()
    key_x, key_noise = jax.random.split(jax.random.key(0))
    x = predictions.SIGMA_DATA * jax.random.normal(key_x, (5, 200, 200))
    noise, t = jax.random.normal(key_noise, x.shape), path.time(jnp.linspace(0.01, 1, 5))
    seen = predictions.seen('preconditioned', path, path.perturb(x, noise, t), t)
    goal = predictions.target('preconditioned', path, x, noise, t)
    np.testing.assert_allclose(jnp.var(seen, (1, 2)), 1, rtol=0.02)
    np.testing.assert_allclose(jnp.var(goal, (1, 2)), 1, rtol=0.02)


def test_at_deviation_one_the_preconditioned_prediction_would_be_v(monkeypatch):
    """Salimans & Ho 2022, appendix D: on a path of constant variance the two are one, up to the sign."""
    monkeypatch.setattr(predictions, 'SIGMA_DATA', 1.0)
    path, t = schedules.cosine(), jnp.linspace(0.1, 0.9, 3)
    x, noise = jnp.full((3, 2), 0.7), jnp.full((3, 2), -0.4)
    goal = predictions.target('preconditioned', path, x, noise, t)
    np.testing.assert_allclose(goal, -predictions.target('v', path, x, noise, t), rtol=1e-5)


def test_preconditioning_is_table_1_of_karras():
    """D = c_skip x + c_out F(c_in x; c_noise) at σ_data = 0.5."""
    level, network = np.array([0.002, 0.3, 80.0])[:, None, None, None], lambda x: np.sin(3 * x)
    x = np.random.default_rng(0).normal(size=(3, 2, 2, 1)) * level
    total = level**2 + 0.25
    skip, out, into = 0.25 / total, level * 0.5 / np.sqrt(total), 1 / np.sqrt(total)
    with jax.enable_x64(True):
        seen = []

        def counted(x_t, t, given):
            seen.append(t)
            return jnp.sin(3 * x_t)

        denoise = predictions.denoiser(counted, 'preconditioned', schedules.edm())
        found = denoise(jnp.asarray(x), jnp.asarray(level.ravel())).x
    np.testing.assert_allclose(found, skip * x + out * network(into * x), rtol=1e-6)
    np.testing.assert_allclose(1000 * np.asarray(seen[0]), np.log(level.ravel()) / 4, rtol=1e-6)


def test_plain_noise_is_what_guidance_moves_away_from():
    """CFG++: the guided image and the unconditional noise, also if the image is clipped (Chung et al. 2024)."""
    schedule, told = schedules.cosine(), jnp.arange(SHAPE[0], dtype=jnp.float32)
    _, _, t, x_t = drawn(schedule)
    build = lambda **how: predictions.denoiser(listening_network, 'noise', schedule, {'noise': told}, -0.4, **how)  # noqa: E731
    found, usual = build(plain_noise=True)(x_t, t), build()(x_t, t)
    np.testing.assert_allclose(found.noise, 1, rtol=1e-5)
    np.testing.assert_allclose(found.x, usual.x, rtol=1e-5)
    np.testing.assert_allclose(build(plain_noise=True, clip=True)(x_t, t).noise, 1, rtol=1e-5)


def test_plain_noise_without_a_weight_is_the_conditional_image_with_the_unconditional_noise():
    """CFG++ with λ = 1."""
    schedule, told = schedules.cosine(), jnp.arange(SHAPE[0], dtype=jnp.float32)
    _, _, t, x_t = drawn(schedule)
    found, alone, nothing = (
        predictions.denoiser(listening_network, 'noise', schedule, given, **how)(x_t, t)
        for given, how in (({'noise': told}, {'plain_noise': True}), ({'noise': told}, {}), (None, {}))
    )
    np.testing.assert_allclose(found.x, alone.x, rtol=1e-5)
    np.testing.assert_allclose(found.noise, nothing.noise, rtol=1e-5)
    assert np.abs(alone.noise - nothing.noise).max() > 0.5

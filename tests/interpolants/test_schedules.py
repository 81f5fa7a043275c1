"""Schedules against the tables and formulas of their papers."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from genbench.errors import UserError
from genbench.interpolants import schedules, spacings
from genbench.networks.layers import timestep_embedding

ALL = schedules.SCHEDULES
BETAS = np.linspace(1e-4, 0.02, 1000)
everywhere = pytest.mark.parametrize('schedule', [make() for make in ALL.values()], ids=list(ALL))


def inner_times(schedule, count=9):
    return np.linspace(schedule.t_min, schedule.t_max, count + 2)[1:-1]


def test_linear_is_ddpms_table():
    n = np.arange(1, 1001)
    t, schedule = jnp.asarray(n / 1000, jnp.float32), schedules.linear()
    alpha_bar = np.cumprod(1 - BETAS)
    np.testing.assert_allclose(schedule.alpha(t) ** 2, alpha_bar, rtol=1e-4)
    np.testing.assert_allclose(schedule.sigma(t) ** 2, 1 - alpha_bar, rtol=1e-4)


def test_cosine_is_the_formula_of_improved_ddpm():
    t = np.linspace(0, 0.995, 50)
    f = np.cos(np.pi / 2 * (t + 0.008) / 1.008) ** 2
    np.testing.assert_allclose(schedules.cosine().alpha(jnp.asarray(t)) ** 2, f / f[0], rtol=1e-4, atol=1e-7)


def test_straight_goes_from_data_to_noise_at_constant_speed():
    t = jnp.linspace(0, 1, 5)
    alpha, sigma, alpha_dot, sigma_dot = schedules.straight().coefficients(t)
    np.testing.assert_allclose(alpha + sigma, 1)
    np.testing.assert_allclose([alpha_dot, sigma_dot], [[-1] * 5, [1] * 5])


def test_edm_spaces_times_evenly_in_their_seventh_root():
    """Karras et al. 2022, equation 5: σ_min after N − 1 of N steps, and then zero."""
    schedule = schedules.edm()
    for count in (2, 10, 18, 50):
        i = np.arange(count)
        wanted = (80 ** (1 / 7) + i / (count - 1) * (0.002 ** (1 / 7) - 80 ** (1 / 7))) ** 7
        np.testing.assert_allclose(schedule.step(count - np.arange(count + 1), count), [*wanted, 0], rtol=1e-5)
    np.testing.assert_allclose(schedule.step(np.array([1, 0]), 1), [80, 0], rtol=1e-6)


@pytest.mark.parametrize('name', ['linear', 'cosine'])
def test_variance_is_preserved(name):
    schedule = schedules.get(name)
    t = jnp.linspace(0, schedule.t_max, 20)
    np.testing.assert_allclose(schedule.alpha(t) ** 2 + schedule.sigma(t) ** 2, 1, rtol=1e-5)


@everywhere
def test_derivatives_are_finite_differences(schedule):
    with jax.enable_x64(True):
        t, h = jnp.asarray(inner_times(schedule), jnp.float64), 1e-5
        _, _, alpha_dot, sigma_dot = schedule.coefficients(t)
        for function, derivative in ((schedule.alpha, alpha_dot), (schedule.sigma, sigma_dot)):
            difference = (function(t + h) - function(t - h)) / (2 * h)
            np.testing.assert_allclose(derivative, difference, rtol=1e-6, atol=1e-8)


@everywhere
def test_data_is_clean_at_time_zero_and_noisier_ever_after(schedule):
    t = jnp.asarray([0.0, schedule.t_min, *inner_times(schedule), schedule.t_max])
    np.testing.assert_array_equal([schedule.alpha(t)[0], schedule.sigma(t)[0]], [1, 0])
    assert (np.diff(schedule.log_snr(t)[1:-1]) < 0).all()
    assert (schedule.sigma(t)[1:] > 0).all()


@everywhere
def test_a_solver_starts_at_t_max_and_ends_at_zero(schedule):
    times = np.asarray(schedule.step(jnp.arange(7, -1, -1), 7))
    np.testing.assert_allclose(times[[0, -1]], [schedule.t_max, 0], rtol=1e-5)
    assert (np.diff(times) < 0).all()


@everywhere
def test_networks_see_times_of_order_one(schedule):
    seen = np.asarray(schedule.condition(jnp.linspace(schedule.t_min, schedule.t_max, 20)))
    assert (np.abs(seen) <= 1 + 1e-6).all()
    assert (np.diff(seen) > 0).all()


def test_networks_embed_a_quarter_of_the_logarithm_of_edms_noise():
    """c_noise of Karras et al. 2022, table 1, times the frequencies: what is asked of the schedule is all there is."""
    t, size = jnp.asarray([0.002, 0.3, 80.0]), 8
    seen = timestep_embedding(schedules.edm().condition(t), size)
    angles = 0.25 * np.log(np.asarray(t))[:, None] * np.geomspace(1, 1e-4, size // 2)
    np.testing.assert_allclose(seen, np.concatenate([np.sin(angles), np.cos(angles)], 1), atol=1e-5)


@everywhere
def test_perturb_is_alpha_x_plus_sigma_noise_for_each_image(schedule):
    t = jnp.asarray(inner_times(schedule, 3), jnp.float32)
    x, noise = jax.random.normal(jax.random.key(0), (2, 3, 2, 2, 1))
    x_t = jax.jit(schedule.perturb)(x, noise, t)
    alpha, sigma = schedule.alpha(t), schedule.sigma(t)
    for i in range(3):
        np.testing.assert_allclose(x_t[i], alpha[i] * x[i] + sigma[i] * noise[i], rtol=1e-5, atol=1e-6)


def test_an_unknown_schedule_is_answered_with_the_nearest_name():
    with pytest.raises(UserError, match="'cosin'.*Did you mean cosine"):
        schedules.get('cosin')


def test_cosine_noise_starts_at_exactly_zero_and_has_no_cancellation():
    schedule, t = schedules.cosine(), np.linspace(0, 0.995, 200)
    sigma = np.asarray(jax.jit(schedule.sigma)(jnp.asarray(t, jnp.float32)), np.float64)
    offset = 0.008
    alpha = np.cos(np.pi / 2 * (t + offset) / (1 + offset)) / np.cos(np.pi / 2 * offset / (1 + offset))
    assert sigma[0] == 0
    np.testing.assert_allclose(sigma[1:], np.sqrt(1 - alpha[1:] ** 2), rtol=1e-5)


@pytest.mark.parametrize('count', [10, 20, 50])
def test_quadratic_steps_are_those_of_ddim_up_to_rounding(count):
    """The official code: whole steps (linspace(0, √(0.8 T), N)²), counted from 0; −1 stands for the data."""
    wanted = [int(step) for step in np.linspace(0, np.sqrt(1000 * 0.8), count) ** 2]
    steps = 1000 * np.asarray(schedules.linear().step(np.arange(count, 0, -1), count, 'ddim_quad'))[::-1] - 1
    assert (steps - wanted > -1e-3).all() and (steps - wanted < 1).all()


@everywhere
@pytest.mark.parametrize('spacing', ['uniform', 'quadratic'])
def test_steps_go_down_from_t_max_to_zero_however_they_are_spaced(schedule, spacing):
    times = np.asarray(jax.jit(lambda n: schedule.step(n - jnp.arange(13), n, spacing))(12))
    np.testing.assert_allclose(times[0], schedule.t_max, rtol=1e-5)
    assert times[-1] == 0 and (np.diff(times) < 0).all()
    assert times[-2] >= schedule.t_min * 0.999


@everywhere
def test_quadratic_times_grow_with_the_square_of_the_index(schedule):
    times = np.asarray(schedule.step(jnp.arange(9) + 1, 9, 'quadratic'))
    np.testing.assert_allclose(np.diff(np.sqrt(times - times[0]))[1:], np.sqrt(times[1] - times[0]), rtol=2e-3)


def test_a_sequence_that_begins_before_noise_is_refused():
    spacings.check_spacing(schedules.linear(), 'ddim_quad')
    with pytest.raises(UserError, match='begins at 0.801.*cosine has not; use spacing=quadratic'):
        spacings.check_spacing(schedules.cosine(), 'ddim_quad')


@everywhere
def test_a_straightened_path_is_a_straight_line(schedule):
    """(α, σ) / c lies on the line from (1, 0) to where sampling starts."""
    t = jnp.asarray([0.0, *inner_times(schedule), schedule.t_max], jnp.float32)
    scale, position = schedule.straightened(t)
    end = position[-1], schedule.alpha(t)[-1] / scale[-1]
    np.testing.assert_allclose(schedule.alpha(t) / scale, 1 + (end[1] - 1) * position / end[0], atol=1e-6)
    assert np.isfinite(scale).all() and (np.diff(position) > 0).all()


def test_the_cosine_chain_differs_from_improved_ddpms_by_as_much_as_its_docstring_says():
    """Betas are clipped at 0.999 there; here time is scaled by 0.995."""
    n, f = np.arange(1, 1001), lambda t: np.cos(np.pi / 2 * (t + 0.008) / 1.008) ** 2
    betas = np.minimum(1 - f(n / 1000) / f((n - 1) / 1000), 0.999)
    clipped = np.cumprod(1 - betas)
    ours = np.asarray(schedules.cosine().alpha(schedules.cosine().step(n, 1000)), np.float64) ** 2
    assert np.abs(ours - clipped).max() == pytest.approx(0.0045, abs=1e-4)
    np.testing.assert_allclose([ours[-1], clipped[-1]], [6.07e-5, 2.4e-9], rtol=0.02)


def test_the_paths_of_score_sde_are_the_integrals_of_their_equations():
    """Y. Song et al. 2021, equations 29, 31 and 33, by sums of β(t) over fine steps; σ twice as wide in [−1, 1]."""
    t = np.linspace(0, 1, 100_001)
    beta = 0.1 + 19.9 * t
    integral = np.concatenate([[0], np.cumsum((beta[1:] + beta[:-1]) / 2) * t[1]])
    chosen = slice(100, None, 9_990)
    vp, subvp, ve = (schedules.get(name) for name in ('vp', 'subvp', 've'))
    times = jnp.asarray(t[chosen], jnp.float32)
    for schedule, variance in ((vp, 1 - np.exp(-integral)), (subvp, (1 - np.exp(-integral)) ** 2)):
        np.testing.assert_allclose(schedule.alpha(times), np.exp(-integral / 2)[chosen], rtol=2e-5)
        np.testing.assert_allclose(schedule.sigma(times), np.sqrt(variance)[chosen], rtol=2e-5)
    levels = 2 * 0.01 * (50 / 0.01) ** np.linspace(0, 1, 7)
    np.testing.assert_allclose(ve.curve(jnp.linspace(0, 1, 7)), levels, rtol=1e-5)
    np.testing.assert_allclose(1000 * ve.condition(jnp.asarray(levels, jnp.float32)), np.log(levels / 2), rtol=1e-5)


@pytest.mark.parametrize('name', ['linear', 'cosine', 'vp'])
def test_zero_terminal_snr_is_algorithm_1_of_lin(name):
    """From the table of √ᾱ over 1000 steps: minus its last value, then stretched to keep its first one."""
    with jax.enable_x64(True):
        schedule, rescaled = schedules.get(name), schedules.get(f'{name}:zero_snr')
        t = schedule.t_max * jnp.arange(1, 1001) / 1000
        found, table, sigma = (np.asarray(part(t)) for part in (rescaled.alpha, schedule.alpha, rescaled.sigma))
    wanted = (table - table[-1]) * table[0] / (table[0] - table[-1])
    np.testing.assert_allclose(found, wanted, atol=1e-6)
    np.testing.assert_allclose(found**2 + sigma**2, 1, rtol=1e-10)
    assert found[-1] == 0


@pytest.mark.parametrize('name', ['linear', 'cosine', 'vp'])
def test_a_shift_moves_log_snr_as_in_simple_diffusion(name):
    """log SNR + 2 log(64 / d) for images of d = 256 pixels a side, with α² = sigmoid(log SNR)."""
    with jax.enable_x64(True):
        schedule, shifted = schedules.get(name), schedules.get(f'{name}:shift=4')
        t = jnp.asarray(inner_times(schedule))
        log_snr = np.asarray(schedule.log_snr(t)) + 2 * np.log(64 / 256)
        np.testing.assert_allclose(shifted.alpha(t) ** 2, 1 / (1 + np.exp(-log_snr)), rtol=1e-9)
        np.testing.assert_allclose(shifted.sigma(t) ** 2, 1 / (1 + np.exp(log_snr)), rtol=1e-9)


@pytest.mark.parametrize(
    ('text', 'why'),
    [
        ('edm:shift=2', 'edm cannot be changed so; linear, cosine and vp take zero_snr'),
        ('straight:zero_snr', 'straight cannot be changed so'),
        ('cosine:shift', 'cosine:zero_snr or cosine:shift=FACTOR'),
        ('cosine:shift=0', 'a factor from 0.001 to 1000'),
        ('cosin:shift=2', "'cosin'.*Did you mean cosine"),
    ],
)
def test_a_change_that_a_schedule_does_not_allow_is_refused(text, why):
    with pytest.raises(UserError, match=why):
        schedules.get(text)


def test_linear_is_ddpms_table_to_one_part_in_a_million():
    with jax.enable_x64(True):
        alpha = np.asarray(schedules.linear().alpha(jnp.arange(1, 1001) / 1000))
    np.testing.assert_allclose(alpha**2, np.cumprod(1 - BETAS), rtol=1e-6)


def test_the_other_schedules_are_their_formulas_to_one_part_in_a_million():
    t = np.linspace(0.01, 0.99, 9)
    log_alpha = -0.25 * t**2 * 19.9 - 0.05 * t
    f = lambda t: np.cos((t + 0.008) / 1.008 * np.pi / 2) ** 2  # noqa: E731
    wanted = {
        'cosine': (np.sqrt(f(t) / f(0)), np.sqrt(1 - f(t) / f(0))),
        'straight': (1 - t, t),
        'edm': (np.ones(9), t),
        've': (np.ones(9), t),
        'vp': (np.exp(log_alpha), np.sqrt(1 - np.exp(2 * log_alpha))),
        'subvp': (np.exp(log_alpha), 1 - np.exp(2 * log_alpha)),
    }
    with jax.enable_x64(True):
        for name, parts in wanted.items():
            schedule = schedules.get(name)
            np.testing.assert_allclose(
                [schedule.alpha(jnp.asarray(t)), schedule.sigma(jnp.asarray(t))], parts, rtol=1e-6
            )

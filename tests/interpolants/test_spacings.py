"""Where steps begin: against the formulas of the papers, in NumPy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from genbench.errors import UserError
from genbench.interpolants import schedules, spacings

every_schedule = pytest.mark.parametrize('name', schedules.SCHEDULES)


def times(schedule, count, spacing):
    """The count + 1 times, in double precision."""
    with jax.enable_x64(True):
        step = jax.jit(lambda n: schedule.step(n - jnp.arange(count + 1), n, spacing))
        return np.asarray(step(count))


def karras(low, high, rho, count):
    """Equation 5 of Karras et al. 2022, without the zero at the end."""
    i = np.arange(count) / max(count - 1, 1)
    return (high ** (1 / rho) + i * (low ** (1 / rho) - high ** (1 / rho))) ** rho


@pytest.mark.parametrize('rho', [1, 3, 7, 10.5])
@pytest.mark.parametrize('count', [1, 2, 18])
def test_rho_is_equation_5_of_karras(rho, count):
    found = times(schedules.edm(), count, f'rho{rho}')
    np.testing.assert_allclose(found[:-1], karras(0.002, 80.0, rho, count), rtol=1e-6)
    assert found[-1] == 0


@pytest.mark.parametrize('name', ['linear', 'cosine', 'straight'])
@pytest.mark.parametrize('rho', [3, 7])
def test_rho_spaces_the_noise_levels_of_any_path(name, rho):
    """From a level of 1000 where there is no largest one, as on straight; the first step begins at t_max there, too."""
    schedule, count = schedules.get(name), 12
    found = times(schedule, count, f'rho{rho}')
    with jax.enable_x64(True):
        levels = np.asarray(schedule.sigma(found) / schedule.alpha(found))
        low = float(schedule.sigma(schedule.t_min) / schedule.alpha(schedule.t_min))
    high = 1000.0 if name == 'straight' else levels[0]
    np.testing.assert_allclose(levels[1:-1], karras(low, high, rho, count)[1:], rtol=1e-5)
    assert found[0] == schedule.t_max and found[-1] == 0


@pytest.mark.parametrize('name', ['linear', 'cosine', 'edm'])
def test_logsnr_is_even_in_the_logarithm_of_the_signal_to_noise_ratio(name):
    schedule = schedules.get(name)
    found = times(schedule, 9, 'logsnr')
    with jax.enable_x64(True):
        gaps = np.diff(np.asarray(schedule.log_snr(jnp.asarray(found[:-1]))))
    np.testing.assert_allclose(gaps, gaps.mean(), rtol=1e-5)
    assert (found[0], found[-1]) == (schedule.t_max, 0)


@every_schedule
def test_logsnr_is_rho_without_end(name):
    schedule = schedules.get(name)
    np.testing.assert_allclose(times(schedule, 7, 'logsnr'), times(schedule, 7, 'rho1e6'), rtol=1e-3)


@every_schedule
@pytest.mark.parametrize('spacing', ['rho7', 'logsnr'])
def test_one_program_spaces_any_number_of_steps(name, spacing):
    schedule = schedules.get(name)
    step = jax.jit(lambda ahead, n: schedule.step(ahead, n, spacing))
    for count in (1, 3, 8):
        found = np.asarray([step(ahead, count) for ahead in range(count, -1, -1)])
        np.testing.assert_allclose(found, times(schedule, count, spacing), rtol=1e-4)
        assert (np.diff(found) < 0).all() and found[0] == np.float32(schedule.t_max) and found[-1] == 0


@pytest.mark.parametrize('count', [1, 4, 10])
def test_linspace_and_leading_are_those_of_the_official_codes(count):
    """Steps of 1000, counted from 1: np.linspace (improved DDPM's `space_timesteps`), and DDIM's range(0, 1000, c)."""
    spaced = np.linspace(1, 1000, count) if count > 1 else [1000]
    np.testing.assert_allclose(1000 * times(schedules.linear(), count, 'linspace')[-2::-1], spaced, rtol=1e-9)
    leading = np.arange(0, 1000, 1000 / count) + 1
    np.testing.assert_allclose(1000 * times(schedules.linear(), count, 'leading')[-2::-1], leading, rtol=1e-9)


@every_schedule
@pytest.mark.parametrize('power', [1, 2, 3.5])
def test_power_is_even_in_a_root_of_the_time(name, power):
    """Zhang & Chen 2023, appendix H.3."""
    schedule = schedules.get(name)
    found = times(schedule, 9, f'power{power}')
    wanted = np.linspace(schedule.t_max ** (1 / power), schedule.t_min ** (1 / power), 9) ** power
    np.testing.assert_allclose(found, [*wanted, 0], rtol=1e-6)


def test_shift_is_equation_23_of_esser():
    t = np.linspace(1, 0, 7)
    np.testing.assert_allclose(times(schedules.straight(), 6, 'shift3'), 3 * t / (1 + 2 * t), rtol=1e-6, atol=1e-12)
    shifted = schedules.get('straight:shift=3')  # the same levels, at even times
    with jax.enable_x64(True):
        np.testing.assert_allclose(shifted.sigma(jnp.asarray(t)), 3 * t / (1 + 2 * t), rtol=1e-6)


def test_chosen_times_are_taken_as_they_are_and_end_at_zero():
    np.testing.assert_allclose(times(schedules.edm(), 3, '80/24.4/0.661'), [80, 24.4, 0.661, 0])
    assert spacings.check_spacing(schedules.edm(), '80/24.4/0.661') == 3
    assert spacings.check_spacing(schedules.edm(), 'rho7') is None
    with pytest.raises(UserError, match=r'begins at 1, .* schedule cosine start from noise at 0.995'):
        spacings.check_spacing(schedules.cosine(), '1/0.5')


@pytest.mark.parametrize(
    'text', ['cubic', 'shift', 'power0', 'rho', 'rho0', 'rho-2', 'rhonan', 'rhoinf', '0.5/1', '1/1', '1/0', '1//2', '']
)
def test_what_is_no_spacing_says_what_could_be(text):
    with pytest.raises(
        ValueError, match='uniform, quadratic, ddim_quad, logsnr, linspace, leading, rho7 or another rhoN .* or times'
    ):
        spacings.read_spacing(text)

"""Times of training against the laws they are named after."""

import jax
import numpy as np
import pytest
from scipy import optimize, stats

from genbench.errors import UserError
from genbench.interpolants import schedules, times
from genbench.interpolants.choices import choose

SIZE = 5000


def drawn(text, schedule, size=SIZE, seed=0):
    keys = jax.random.split(jax.random.key(seed), size)
    return np.asarray(choose('family.time_sampler', text, times.SAMPLERS).function(schedule, keys), float)


def level(schedule, t):
    return np.asarray(schedule.sigma(t) / schedule.alpha(t), float)


@pytest.mark.parametrize(
    ('text', 'law'),
    [
        ('uniform', stats.uniform.cdf),
        ('logit_normal', lambda t: stats.norm.cdf(np.log(t / (1 - t)))),
        ('logit_normal:mean=-0.5,deviation=2', lambda t: stats.norm.cdf(np.log(t / (1 - t)), -0.5, 2)),
    ],
)
def test_times_on_the_straight_path_follow_their_law(text, law):
    schedule = schedules.straight()
    t = drawn(text, schedule)
    assert t.min() >= schedule.t_min and t.max() <= schedule.t_max
    assert stats.kstest(t, law).pvalue > 1e-4


@pytest.mark.parametrize('scale', [-1, -0.5, 0, 1.29, 1.75])
def test_mode_shifted_times_have_the_density_of_the_inverse_of_their_function(scale):
    """The share of times in each of twenty parts is that of the even numbers u with f(u) there, found by bisection."""
    f = lambda u: 1 - u - scale * (np.cos(np.pi * u / 2) ** 2 - 1 + u)  # noqa: E731
    ends = np.linspace(0, 1, 21)
    inside = [optimize.brentq(lambda u, end=end: f(u) - end, 0, 1) for end in ends[1:-1]]
    shares = -np.diff([1, *inside, 0])
    t = drawn(f'mode:scale={scale}', schedules.straight(), 20_000)
    assert stats.chisquare(np.histogram(t, ends)[0], 20_000 * shares).pvalue > 1e-4
    if scale < 1.75:  # where the density of the middle is not far from infinite
        middle = 1 / (1 + scale - scale * np.pi / 2)  # by differentiation of f
        assert np.mean(np.abs(t - 0.5) < 0.02) / 0.04 == pytest.approx(middle, rel=0.12)


def test_mode_shifted_times_are_refused_where_their_function_turns():
    for scale in (-1.01, 1.752):
        with pytest.raises(UserError, match='scale of family.time_sampler is'):
            choose('family.time_sampler', f'mode:scale={scale}', times.SAMPLERS)


@pytest.mark.parametrize('name', ['edm', 'cosine', 'straight', 'linear'])
def test_noise_levels_are_log_normal_on_every_schedule(name):
    schedule = schedules.get(name)
    found = np.log(level(schedule, drawn('log_normal:mean=-1,deviation=0.8', schedule)))
    assert stats.kstest(found, stats.norm(-1, 0.8).cdf).pvalue > 1e-4


def test_steps_are_the_times_of_a_chain_and_all_as_likely():
    schedule = schedules.cosine()
    t = drawn('steps:count=4', schedule)
    values, counts = np.unique(t, return_counts=True)
    np.testing.assert_allclose(values, schedule.t_max * np.arange(1, 5) / 4, rtol=1e-6)
    assert stats.chisquare(counts).pvalue > 1e-4


def test_a_batch_of_low_discrepancy_has_one_time_in_each_part_and_the_mean_of_a_batch_varies_less():
    schedule = schedules.straight()
    batches = np.stack([drawn('low_discrepancy', schedule, 16, seed) for seed in range(400)])
    batches = (batches - schedule.t_min) / (1 - schedule.t_min)
    np.testing.assert_array_equal(np.floor(batches * 16), np.tile(np.arange(16), (400, 1)))
    assert stats.kstest(batches.ravel(), stats.uniform.cdf).pvalue > 1e-4
    # The mean of n even numbers has the variance 1 / 12 n, and of n that are each even in a part 1 / 12 n³.
    assert batches.mean(1).std() == pytest.approx(np.sqrt(1 / 12 / 16**3), rel=0.2)


def test_the_time_of_a_noise_level_is_where_the_schedule_has_it():
    for name in schedules.SCHEDULES:
        schedule = schedules.get(name)
        wanted = np.asarray([0.05, 0.5, 5.0], np.float32)
        np.testing.assert_allclose(level(schedule, schedule.time_at(wanted)), wanted, rtol=1e-4)

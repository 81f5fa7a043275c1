"""Averages: what one step does to them, and any width from the snapshots of two."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from genbench import config as configs
from genbench.errors import UserError
from genbench.training import averages, runs, state
from genbench.training.loop import train

STEPS = 512


def profile(steps, gamma):
    """Weights (steps,) that the power-function average gives the parameters after each step."""
    found = np.zeros(steps)
    for done in range(1, steps + 1):
        kept = (1 - 1 / done) ** (gamma + 1)
        found *= kept
        found[done - 1] += 1 - kept
    return found


@pytest.mark.parametrize('width', [0.05, 0.1, 0.2])
def test_a_profile_is_as_wide_as_its_name_says(width):
    weights, times = profile(STEPS, averages.exponent(width)), np.arange(1, STEPS + 1) / STEPS
    mean = weights @ times
    assert weights.sum() == pytest.approx(1)
    assert np.sqrt(weights @ (times - mean) ** 2) == pytest.approx(width, rel=0.02)


def test_the_exponents_are_those_of_the_paper():
    assert averages.exponent(0.05) == pytest.approx(16.97, abs=0.005)
    assert averages.exponent(0.10) == pytest.approx(6.94, abs=0.005)


@pytest.mark.parametrize('gamma', [6.94, 16.97])
def test_shares_of_a_young_average_are_those_of_every_step(gamma):
    done = jnp.arange(1, 16_000)
    wanted = 1 - (1 - 1 / np.arange(1.0, 16_000.0)) ** (gamma + 1)
    np.testing.assert_allclose(averages.share(gamma, done), wanted, rtol=1e-5)


@pytest.mark.parametrize('steps', [100_000, 8_000_000, 40_000_000])
@pytest.mark.parametrize('gamma', [6.94, 16.97])
def test_after_millions_of_steps_an_average_in_float32_has_the_profile_of_the_paper(gamma, steps):
    """Of θ(t) = t / T and of small drifts on top of one, over the last half of a run; ∫ t p(t) = (γ + 1)/(γ + 2) T.

    Only the steps with a share are walked, for the others change nothing. What is left is half of the last
    bit, 2^−24, over the smallest share, (γ + 1) / 2^14.
    """
    done = np.arange(steps // 2, steps + 1, dtype=np.int32)
    entering = done[np.asarray(averages.share(gamma, jnp.asarray(done)) > 0)]
    scale, base = np.array([1, 1e-2, 1e-3]), np.array([0.0, 1.0, 1.0])
    average = lambda at: base + scale * (gamma + 1) / (gamma + 2) * at / steps  # noqa: E731

    def update(old, at):
        new = (base + scale * at / steps).astype(np.float32)
        return old + averages.share(gamma, at) * (new - old), None

    start = jnp.asarray(average(entering[0]), jnp.float32)
    found, _ = jax.jit(lambda start: jax.lax.scan(update, start, jnp.asarray(entering[1:])))(start)
    assert len(entering) >= averages.DENSE // 2
    lag = base + scale - average(entering[-1])  # of the average behind the parameters
    np.testing.assert_allclose(np.asarray(found, float), average(entering[-1]), rtol=2e-4)
    np.testing.assert_allclose((base + scale - np.asarray(found, float))[0], lag[0], rtol=5e-3)


@pytest.mark.parametrize('width', [0.07, 0.12])
def test_another_width_is_made_of_snapshots_of_two(width):
    gammas, times = [averages.exponent(w) for w in (0.05, 0.1)], list(range(32, STEPS + 1, 32))
    parts = [(time, gamma) for time in times for gamma in gammas]
    share = averages.weights(*zip(*parts, strict=True), STEPS, averages.exponent(width))
    made = np.zeros(STEPS)
    for weight, (time, gamma) in zip(share, parts, strict=True):
        made[:time] += weight * profile(time, gamma)
    assert np.abs(made - profile(STEPS, averages.exponent(width))).sum() < 0.02


@pytest.fixture(scope='module')
def run(tiny, tmp_path_factory):
    """A run of 16 steps with averages of several kinds."""
    folder = tmp_path_factory.mktemp('averages')
    config = tiny(
        'vae', 'train.num_steps=16', 'train.power_widths=0.05,0.1', 'train.extra_decays=0.5', 'train.snapshot_every=2'
    )
    train(config, folder, quiet=True)
    return runs.open_run(folder)


def distance(a, b):
    return sum(
        float(np.abs(np.asarray(x) - np.asarray(y)).sum())
        for x, y in zip(state.flatten(a).values(), state.flatten(b).values(), strict=True)
    )


def test_a_run_keeps_every_average_that_is_asked_for(run):
    _, kept = run.restore()
    assert set(kept['averages']) == {'ema', 'ema_0.5', 'power_0.05', 'power_0.1'}
    assert averages.Snapshots(run.folder.snapshots).steps() == list(range(2, 17, 2))


def test_a_width_that_was_tracked_is_found_again(run):
    step, kept = run.restore()
    _, made = run.networks(step, kept, 'power:0.1')
    tracked = {name: kept['averages']['power_0.1'][name] for name in made['params']}
    assert distance(made['params'], tracked) < 1e-3 * distance(made['params'], kept['params'])


def test_a_width_between_two_lies_between_them(run):
    step, kept = run.restore()
    made = run.networks(step, kept, 'power:0.07')[1]['params']
    narrow, wide = (kept['averages'][f'power_{width}'] for width in ('0.05', '0.1'))
    assert distance(made, narrow) < distance(wide, narrow)
    assert distance(made, wide) < distance(wide, narrow)


@pytest.mark.parametrize(
    ('average', 'words'),
    [
        ('power:wide', 'write power:WIDTH'),
        ('power:0.9', 'should be above 0 and at most 0.2887'),
        ('ema_0.9', 'this run has'),
    ],
)
def test_an_average_that_cannot_be_says_why(run, average, words):
    step, kept = run.restore()
    with pytest.raises(UserError, match=words):
        run.networks(step, kept, average)


def test_without_power_averages_there_is_no_other_width(diffusion_run):
    run = runs.open_run(diffusion_run)
    step, kept = run.restore()
    with pytest.raises(UserError, match='train.power_widths'):
        run.networks(step, kept, 'power:0.1')


def test_a_width_out_of_range_is_said_before_a_run_is_made(tiny, tmp_path):
    with pytest.raises(UserError, match=r'at most 0\.28867'):
        train(tiny('vae', 'train.power_widths=0.4'), tmp_path / 'run', quiet=True)
    assert not (tmp_path / 'run').exists()


def test_the_first_step_of_a_warm_average_is_quick(tiny, tmp_path):
    config = tiny('vae', 'train.num_steps=1', 'train.extra_decays=0.5')
    train(config, tmp_path, quiet=True)
    _, kept = runs.open_run(tmp_path).restore()
    assert configs.plain(config)['train']['extra_decays'] == (0.5,)
    ratio = distance(kept['averages']['ema'], kept['params']) / distance(kept['averages']['ema_0.5'], kept['params'])
    assert ratio == pytest.approx(1, rel=1e-4)  # (1 + 1) / (10 + 1) is below both decays

"""The history of losses and the steps that it draws, against a list of lists in NumPy."""

import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from genbench.families.importance import History

STEPS = 5
HEAR = nnx.jit(lambda history, steps, losses: history.hear(steps, losses))
DRAW = nnx.jit(lambda history, keys: history.draw(keys))


def of_lists(kept):
    """p_n ∝ √E[L_n²] of the last ten losses of each step, with a thousandth spread evenly, once each step has ten."""
    if min(map(len, kept)) < 10:
        return np.full(STEPS, 1 / STEPS)
    size = np.array([np.sqrt(np.mean(np.square(losses[-10:]))) for losses in kept])
    return 0.999 * size / size.sum() + 0.001 / STEPS


@pytest.fixture(scope='module')
def heard():
    """A history that heard 60 batches, in which steps occur between no and 30 times, and the lists of the same."""
    rng, history, kept = np.random.default_rng(0), History(STEPS), [[] for _ in range(STEPS)]
    seen = []
    for _ in range(60):
        steps = rng.choice(STEPS, 32, p=rng.dirichlet(np.full(STEPS, 0.3))) + 1
        losses = (rng.normal(size=32) / steps**2).astype(np.float32)
        HEAR(history, jnp.asarray(steps), jnp.asarray(losses))
        for step, loss in zip(steps, losses, strict=True):
            kept[step - 1].append(float(loss))
        seen.append((np.asarray(history.probabilities()), of_lists(kept)))
    return history, kept, seen


def test_probabilities_follow_the_last_ten_losses_of_each_step_and_are_even_before(heard):
    _, kept, seen = heard
    for found, wanted in seen:
        np.testing.assert_allclose(found, wanted, rtol=1e-5)
    even = [np.ptp(wanted) == 0 for _, wanted in seen]
    assert 2 < sum(even) < 58 and even == sorted(even, reverse=True)
    assert max(map(len, kept)) > 30


def test_steps_are_drawn_by_their_probabilities(heard, keys):
    history, kept, _ = heard
    p, count = of_lists(kept), 20_000
    steps, factor = DRAW(history, keys(count))
    np.testing.assert_allclose(factor, 1 / (p[np.asarray(steps) - 1] * STEPS), rtol=1e-5)
    found = np.bincount(steps, minlength=STEPS + 1)[1:] / count
    np.testing.assert_allclose(found, p, atol=5 * np.sqrt(p.max() / count))


def test_the_mean_is_that_of_even_steps_and_the_variance_is_lower(keys):
    """Losses of a bound of 300 steps, of which the first has most, as in figure 2 of the paper."""
    steps, count, rng = 300, 20_000, np.random.default_rng(1)
    size = 1 / np.arange(1, steps + 1) ** 1.5
    history = History(steps)
    for _ in range(10):
        HEAR(history, jnp.arange(steps) + 1, jnp.asarray(size * rng.gamma(4, 0.25, steps)))
    drawn, factor = map(np.asarray, DRAW(history, keys(count)))
    even = size[rng.integers(0, steps, count)] * rng.gamma(4, 0.25, count)
    found = size[drawn - 1] * rng.gamma(4, 0.25, count) * factor
    assert found.mean() == pytest.approx(size.mean(), abs=5 * found.std() / np.sqrt(count))
    assert even.mean() == pytest.approx(size.mean(), abs=5 * even.std() / np.sqrt(count))
    assert found.var() < 0.05 * even.var()


def test_losses_of_zero_leave_the_steps_equally_likely():
    history = History(STEPS)
    for _ in range(10):
        HEAR(history, jnp.arange(STEPS) + 1, jnp.zeros(STEPS))
    np.testing.assert_allclose(history.probabilities(), 1 / STEPS, rtol=1e-6)

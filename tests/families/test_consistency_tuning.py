"""Easy consistency tuning: its times against the official code's, and its loss where the answer is known."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from genbench.data.spec import DataSpec
from genbench.errors import UserError
from genbench.families.base import Borrowed, Networks
from genbench.interpolants import predictions
from genbench.interpolants.schedules import expand

SPEC, STD = DataSpec('pairs', (1, 1, 2), levels=8192), 0.25
PATH = {'schedule': 'cosine', 'prediction': 'v'}


@pytest.fixture
def tuned(make_family):
    def make(**options):
        teacher = Borrowed(make_family('diffusion', spec=SPEC, **PATH))
        return make_family('consistency_tuning', spec=SPEC, borrowed={'teacher': teacher}, **options)

    return make


@pytest.mark.parametrize(('shrinking', 'part', 'wanted'), [
    (2.0, 0, [0, 0, 0.0463767, 10]),
    (2.0, 3, [0.0068875, 0.3743648, 1.7557971, 18.75]),
    (4.0, 0, [0, 0, 1.0231884, 15]),
    (4.0, 3, [0.0098055, 0.4921478, 1.9847373, 19.921875]),
])  # fmt: skip
def test_the_earlier_level_is_that_of_the_official_code(shrinking, part, wanted, tuned):
    """Recorded from ECMLoss of locuslab/ect (4311059), `t_to_r` at the stage `part`."""
    family = tuned(shrinking=shrinking, tuning_stages=4)
    updates = family.config.train.num_steps
    levels = jnp.array([0.01, 0.5, 2.0, 20.0])
    for step in (part * (updates // 4), (part + 1) * (updates // 4) - 1):
        np.testing.assert_allclose(family.earlier(levels, jnp.asarray(step)), wanted, rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(
        family.earlier(levels, jnp.asarray(10 * updates)), family.earlier(levels, jnp.asarray(updates - 1))
    )


def jumping(family, function):
    """A student whose predicted image is function(x_t, t)."""

    def network(x_t, t, given, key=None):
        alpha, sigma = (expand(part(t), x_t) for part in (family.schedule.alpha, family.schedule.sigma))
        x = function(x_t, t)
        noise = (x_t - alpha * x) / jnp.where(sigma > 0, sigma, 1)
        return jnp.nan_to_num(predictions.target(family.prediction, family.schedule, x, noise, t))

    return Networks({'student': network})


def test_tuning_begins_as_diffusion(tuned, keys):
    """Where the earlier time is 0, the student's image is compared with the image itself."""
    family = tuned(shrinking=2.0, huber=0.0, time_sampler='log_normal:mean=-3,deviation=0.1')
    normal = STD * jax.random.normal(jax.random.key(0), (500, 1, 1, 2))
    batch = {'image': SPEC.quantise(normal), 'key': keys(500)}
    guess = jnp.array([0.3, -0.2])
    student = jumping(family, lambda x_t, t: jnp.broadcast_to(guess, x_t.shape))
    loss, logged = jax.jit(lambda key: family.loss(student, batch, key, jnp.asarray(0)))(jax.random.key(0))
    t = family._draw_times(family.schedule, batch['key'])
    x = family.space.encode({}, batch)
    wanted = jnp.square(guess - x).mean((1, 2, 3)) * family.schedule.alpha(t) / family.schedule.sigma(t)
    assert logged['ratio'] == 0
    np.testing.assert_allclose(loss, wanted.mean(), rtol=1e-3)


def test_a_jump_counts_by_the_inverse_of_the_difference_in_noise(tuned, keys):
    """A student whose image is the level t everywhere: (t − r)² / (t − r) at t = 2, whose r is that of the code."""
    family = tuned(shrinking=2.0, huber=0.0)
    family._draw_times = lambda schedule, keys: jnp.full(len(keys), schedule.time_at(jnp.asarray(2.0)))
    level = lambda x_t, t: jnp.broadcast_to(family.schedule.sigma(t) / family.schedule.alpha(t), x_t.shape)  # noqa: E731
    student = jumping(family, lambda x_t, t: level(x_t, expand(t, x_t)))
    batch = {'image': jnp.zeros((4, 1, 1, 2), int), 'key': keys(4)}
    loss, logged = family.loss(student, batch, jax.random.key(0), jnp.asarray(0))
    assert loss == pytest.approx(2 - 0.0463767, rel=1e-4) and logged['ratio'] == pytest.approx(0.0463767 / 2, rel=1e-3)


def test_tuning_ends_at_the_consistency_function(tuned, keys):
    """f_c = x_t m(t)^c with m = STD / √(α² STD² + σ²) is the consistency function for c = 1.

    Of the mean squared distance, the slope in c at short steps has the sign of c − 1.
    """
    family = tuned(huber=0.0, tuning_stages=8, time_sampler='uniform')
    normal = STD * jax.random.normal(jax.random.key(0), (20_000, 1, 1, 2))
    batch, last = {'image': SPEC.quantise(normal), 'key': keys(20_000)}, family.config.train.num_steps - 1

    @jax.jit
    @jax.grad
    def slope(c):
        def power(x_t, t):
            alpha, sigma = (expand(part(t), x_t) for part in (family.schedule.alpha, family.schedule.sigma))
            return x_t * (STD / jnp.sqrt((alpha * STD) ** 2 + sigma**2)) ** c

        return family.loss(jumping(family, power), batch, jax.random.key(0), jnp.asarray(last))[0]

    below, exact, above = (float(slope(c)) for c in (0.7, 1.0, 1.3))
    assert below < 0 < above and abs(exact) < 0.1 * min(-below, above)


def test_times_that_follow_a_weight_are_refused(tuned):
    with pytest.raises(UserError, match='by_weight.*use log_normal or uniform'):
        tuned(time_sampler='by_weight')

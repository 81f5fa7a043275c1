"""Few-step families trained for seconds on a normal distribution of one dimension, against its exact trajectories.

x_t has the mean m(t) = α(t) μ and the deviation d(t) = √(α² S² + σ²), and a trajectory keeps (x_t − m(t)) / d(t). Its
jumps are linear in x_t, so networks here are a x_t + b, where a perceptron gives the coefficients a and b at the
times. The losses are those of the families, and Adam minimises them.
"""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from genbench.data.spec import DataSpec
from genbench.families.base import Borrowed, Networks
from genbench.interpolants.predictions import Prediction

SPEC = DataSpec('numbers', (1, 1, 1), levels=8192)
MEAN, DEVIATION = 0.1, 0.25
HIDDEN, BATCH = 48, 512


class Averaged(Networks):
    """Every average is the networks themselves."""

    def averaged(self, name):
        return self


def start():
    rng = np.random.default_rng(0)
    shapes = ((2, HIDDEN), (HIDDEN,), (HIDDEN, HIDDEN), (HIDDEN,), (HIDDEN, 2), (2,))
    scales = (3.0, 1.0, HIDDEN**-0.5, 0.0, 0.0, 0.0)
    return [jnp.asarray(scale * rng.normal(size=one), jnp.float32) for one, scale in zip(shapes, scales, strict=True)]


def network(params):
    """(x_t, t, s) → a x_t + b, with a and b from a perceptron of t and s."""
    first, shift, second, moved, last, ends = params

    def call(x_t, t, given=None, key=None, s=None):
        told = jnp.stack([t, t if s is None else s], axis=1)
        h = jnp.tanh(jnp.tanh(told @ first + shift) @ second + moved)
        a, b = ((h @ last + ends)[:, place, None, None, None] for place in (0, 1))
        return a * x_t + b

    return call


def moments(schedule, t):
    alpha, sigma = schedule.alpha(t), schedule.sigma(t)
    return alpha * MEAN, jnp.sqrt(jnp.square(alpha * DEVIATION) + jnp.square(sigma))


def trained(loss, steps):
    """The parameters after `steps` updates by loss(networks, rows, key)."""
    optimizer = optax.adam(optax.cosine_decay_schedule(1e-2, steps))

    def update(carry, number):
        params, state = carry
        key = jax.random.fold_in(jax.random.key(0), number)
        x = MEAN + DEVIATION * jax.random.normal(jax.random.fold_in(key, 0), (BATCH, 1, 1, 1))
        rows = {'image': SPEC.quantise(x), 'key': jax.random.split(jax.random.fold_in(key, 1), BATCH)}

        def value(params):
            return loss(Averaged(dict.fromkeys(('denoiser', 'student'), network(params))), rows, key)

        moves, state = optimizer.update(jax.grad(value)(params), state)
        return (optax.apply_updates(params, moves), state), None

    run = jax.jit(lambda params: jax.lax.scan(update, (params, optimizer.init(params)), jnp.arange(steps))[0][0])
    return run(start())


def worst_error(schedule, jump, times):
    """The largest root mean square error of jumps x_t → x_s, of x_t drawn from its distribution."""
    errors = []
    for t, s in times:
        (m, d), (m_s, d_s) = moments(schedule, jnp.asarray(t)), moments(schedule, jnp.asarray(s))
        normal = np.random.default_rng(1).normal(size=(2000, 1, 1, 1)).astype(np.float32)
        found = jump(m + d * normal, jnp.full(2000, t), jnp.full(2000, s))
        errors.append(float(jnp.sqrt(jnp.mean(jnp.square(found - (m_s + d_s * normal))))))
    return max(errors)


@pytest.mark.parametrize(('name', 'steps', 'options'), [
    ('mean_flow', 3000, {'apart': 0.75, 'adaptive': 0.0}),
    ('shortcut', 2000, {'consistent': 0.5, 'halvings': 7}),  # 128 steps of euler are 0.0042 from the end of the ODE
])  # fmt: skip
def test_jumps_of_any_length_are_learned(name, steps, options, make_family):
    family = make_family(name, spec=SPEC, time_sampler='uniform', **options)
    jump = lambda params: family.flow_map(Networks({'denoiser': network(params)}), None, None)  # noqa: E731
    times = [(1.0, 0.0), (1.0, 0.5), (0.5, 0.0)]
    params = trained(lambda networks, rows, key: family.loss(networks, rows, key, jnp.zeros(()))[0], steps)
    assert worst_error(family.schedule, jump(params), times) < 1e-2 < worst_error(family.schedule, jump(start()), times)


def test_jumps_to_the_end_are_distilled(make_family):
    """From the exact denoiser. Forty of its steps of Heun's rule are 0.002 from the end of the trajectory."""
    teacher = make_family('diffusion', spec=SPEC)

    def denoise(networks, given, *_, **__):
        def predict(x_t, t):
            t, schedule = t[:, None, None, None], teacher.schedule
            (m, d), alpha, sigma = moments(schedule, t), schedule.alpha(t), schedule.sigma(t)
            off = (x_t - m) / jnp.square(d)
            return Prediction(MEAN + alpha * DEVIATION**2 * off, sigma * off)

        return predict

    teacher.denoise = denoise
    lent = {'teacher': Borrowed(teacher)}
    family = make_family('consistency', spec=SPEC, borrowed=lent, huber=0.0, discretisation=40)

    def loss(networks, rows, key):
        lent = Averaged(dict(networks), borrowed={'teacher': Networks({})})
        return family.loss(lent, rows, key, jnp.zeros(()))[0]

    def jump(params):
        return lambda x_t, t, s: family.jump(network(params), x_t, t, None)

    times = [(family.schedule.t_max, 0.0), (family.schedule.t_max / 2, 0.0)]
    params = trained(loss, 3000)
    assert worst_error(family.schedule, jump(params), times) < 1e-2 < worst_error(family.schedule, jump(start()), times)

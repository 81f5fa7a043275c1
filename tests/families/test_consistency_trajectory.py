"""Consistency trajectory models of isotropic Gaussian data, whose trajectories are known."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from oracles import STD, from_image, isotropic

from genbench import config, families
from genbench.data.spec import DataSpec
from genbench.errors import UserError
from genbench.families.base import Borrowed, Networks, Sampler
from genbench.interpolants import predictions, solvers
from genbench.interpolants.options import FlowMapOptions
from genbench.interpolants.schedules import expand

pytestmark = pytest.mark.unoptimized
SPEC = DataSpec('pairs', (1, 1, 2), levels=8192)
PATHS = [('cosine', 'v'), ('straight', 'velocity')]
every_path = pytest.mark.parametrize(('schedule', 'prediction'), PATHS)


@pytest.fixture
def student_of(make_family):
    def make(schedule='cosine', prediction='v', **options):
        teacher = Borrowed(make_family('diffusion', spec=SPEC, schedule=schedule, prediction=prediction))
        return make_family('consistency_trajectory', spec=SPEC, borrowed={'teacher': teacher}, **options)

    return make


def deviation(schedule, t):
    return jnp.sqrt(jnp.square(schedule.alpha(t) * STD) + jnp.square(schedule.sigma(t)))


def network_of(family, power):
    """The network whose jumps are x_s = x_t (d(s) / d(t))^power with d² = α² STD² + σ²: exact for a power of 1.

    x_s = α_s x + σ_s ε and x_t = α_t x + σ_t ε give the image x of a jump. At s = t, x is the limit of short jumps,
    which is the mean image for a power of 1.
    """
    schedule = family.schedule

    def network(x_t, t, given, key=None, s=None):
        s = t if s is None else s
        s = jnp.minimum(s, 0.99 * t)  # a short jump in place of none
        parts = (schedule.alpha, t), (schedule.sigma, t), (schedule.alpha, s), (schedule.sigma, s)
        alpha, sigma, early, low = (expand(part(at), x_t) for part, at in parts)
        x_s = x_t * expand(deviation(schedule, s) / deviation(schedule, t), x_t) ** power
        x = (sigma * x_s - low * x_t) / (sigma * early - low * alpha)
        return predictions.target(family.prediction, schedule, x, (x_t - alpha * x) / sigma, t)

    return network


def bound(family, power):
    teacher = {'denoiser': lambda x_t, t, given: predictions.target(
        family.prediction, family.schedule, *isotropic(family.schedule)(x_t, t)[:2], t
    )}  # fmt: skip
    student = {'student': network_of(family, power)}
    return Networks(student, {'target': student}, {'teacher': Networks(teacher)})


def rows(keys, count):
    return {
        'image': SPEC.quantise(STD / 2 * jax.random.normal(jax.random.key(0), (count, 1, 1, 2))),
        'key': keys(count),
    }


@every_path
def test_the_map_of_the_exact_student_is_the_trajectory(schedule, prediction, student_of):
    family = student_of(schedule, prediction)
    x, t = jax.random.normal(jax.random.key(0), (5, 1, 1, 2)), jnp.linspace(0.3, 0.9, 5)
    moved = family.flow_map(bound(family, 1.0), None, Sampler('flow_map'))
    for s in (jnp.zeros(5), t / 2, t):
        wanted = x * expand(deviation(family.schedule, s) / deviation(family.schedule, t), x)
        np.testing.assert_allclose(moved(x, t, s), wanted, rtol=2e-3, atol=1e-4)


@every_path
def test_matching_has_its_minimum_at_the_trajectory(schedule, prediction, student_of, keys):
    """With a teacher of many short steps; x_u is then on the trajectory through x_t."""
    family = student_of(schedule, prediction, discretisation=40, solver_steps=8, huber=0.0, denoising=0.0)
    batch = rows(keys, 500)
    value = jax.jit(lambda power: family.loss(bound(family, power), batch, jax.random.key(0), 0)[0])
    exact = float(value(1.0))
    assert exact < 1e-6 and exact < 0.01 * min(float(value(0.9)), float(value(1.1)))


def test_the_gradient_passes_through_the_jump_of_the_target_to_the_student(student_of, keys):
    """Finite differences of the loss, with the target as it is."""
    family, batch = student_of(discretisation=4, solver_steps=1, huber=0.0, denoising=0.0), rows(keys, 100)

    def loss(power):
        student, averaged = {'student': network_of(family, power)}, {'target': {'student': network_of(family, 1.1)}}
        networks = Networks(student, averaged, {'teacher': bound(family, 1.0).borrowed('teacher')})
        return family.loss(networks, batch, jax.random.key(0), 0)[0]

    values, slopes = jax.jit(jax.vmap(jax.value_and_grad(loss)))(jnp.array([0.88, 0.9, 0.92]))
    assert slopes[1] == pytest.approx(float(values[2] - values[0]) / 0.04, rel=0.02) and abs(slopes[1]) > 0.01


def test_solved_states_are_those_of_the_sampler_heun(student_of, keys):
    """From the first of six times to the image, and not at all."""
    family = student_of(discretisation=6, solver_steps=6)
    curved = from_image(family.schedule, lambda x_t, t: jnp.tanh(x_t / (1 + t)))
    start = solvers.initial_noise(family.schedule, keys(3), (1, 1, 2))
    states = solvers.trace(solvers.SOLVERS['heun'], family.schedule, curved, start, keys(3), 6).states
    found = family.solved(curved, start, jnp.full(3, 6), jnp.array([0, 4, 6]))
    np.testing.assert_allclose(found, jnp.stack([states[6, 0], states[2, 1], start[2]]), rtol=1e-4, atol=1e-5)


def test_times_are_drawn_in_their_order(student_of, keys):
    """t over all steps, s over all times before t, and u from s up to the last time before t."""
    family = student_of(discretisation=8, solver_steps=3)
    n, k, m = (np.asarray(one) for one in family.indices(keys(4000)))
    assert (m <= k).all() and (k < n).all() and (n - k <= 3).all() and n.min() == 1 and n.max() == 8 and m.min() == 0
    for t in (3, 8):
        shares = np.bincount(m[n == t], minlength=t) / (n == t).sum()
        np.testing.assert_allclose(shares, 1 / t, atol=0.07)
    far = (n == 8) & (m <= 4)
    np.testing.assert_allclose(np.bincount(8 - k[far])[1:] / far.sum(), 1 / 3, atol=0.1)


def test_denoising_is_the_teachers_loss_at_one_time(student_of, keys):
    """It prefers the mean image, which the limit of exact jumps gives, to others."""
    family = student_of()
    batch = rows(keys, 4000)
    batch['image'] = SPEC.quantise(STD * jax.random.normal(jax.random.key(0), (4000, 1, 1, 2)))
    loss = jax.jit(lambda power: family.denoising(bound(family, power), batch, jax.random.key(0)))
    below, exact, above = (float(loss(power)) for power in (0.8, 1.0, 1.2))
    assert exact < below and exact < above


@every_path
@pytest.mark.parametrize('gamma', [0.5, 1.0])
def test_fresh_noise_leaves_the_distribution_as_it_is(schedule, prediction, gamma, student_of, keys):
    """Of the exact map, at any γ: x at time s has the deviation √(α² STD² + σ²)."""
    family = student_of(schedule, prediction)
    start = solvers.initial_noise(family.schedule, keys(4000), (1, 1, 2))
    sampler = Sampler('flow_map', 3, 0.0, FlowMapOptions(gamma=gamma))
    states = family.trace(bound(family, 1.0), start, keys(4000), None, sampler, 0).states
    end = jnp.asarray(family.schedule.t_max)
    first = family.schedule.sigma(end) / deviation(family.schedule, end)  # what starts as pure noise keeps this share
    for ahead, state in zip((3, 2, 1, 0), states, strict=True):
        time = jnp.asarray(family.schedule.step(jnp.asarray(ahead), 3))
        assert float(jnp.std(state)) == pytest.approx(float(first * deviation(family.schedule, time)), rel=0.03)


def test_full_fresh_noise_is_the_sampler_of_consistency_models(student_of, keys):
    family = student_of()
    networks, drawn = bound(family, 1.0), keys(3)
    start = solvers.initial_noise(family.schedule, drawn, (1, 1, 2))
    options = FlowMapOptions(gamma=1.0)
    x = family.carried(networks, start, drawn, None, Sampler('flow_map', 3, 0.0, options)).x
    ends = from_image(family.schedule, lambda x, t: x * STD / deviation(family.schedule, t))
    wanted = solvers.solve(solvers.SOLVERS['multistep_consistency'], family.schedule, ends, start, drawn, 3).x
    np.testing.assert_allclose(x, wanted, rtol=1e-3, atol=1e-3)


def test_the_student_starts_as_the_teacher_at_every_second_time(built, batch):
    _, lender, borrowed = built('diffusion')
    family, _, _ = built('consistency_trajectory')
    lent = lender.bind_state(borrowed)
    networks = Networks(family.networks(nnx.Rngs(3)), borrowed={'teacher': lent})
    family.initialise(networks, batch, jax.random.key(0))
    x, t = jax.random.normal(jax.random.key(0), (3, 4, 4, 3)), jnp.array([0.2, 0.5, 0.9])
    wanted = lent['denoiser'](x, t)
    for s in (None, t, t / 2):
        np.testing.assert_allclose(networks['student'](x, t, s=s), wanted, rtol=1e-5, atol=1e-5)


def test_the_student_alone_is_trained_and_its_target_is_averaged_from_the_start(built):
    family = built('consistency_trajectory')[0]
    assert [update.networks for update in family.updates] == [('student',)]
    target = {average.name: average for average in family.averages}['target']
    assert (target.networks, target.decay, target.warmup) == (('student',), 0.999, False)
    assert family.likelihoods == () and family.samplers == ('flow_map',)


def test_a_teacher_whose_second_time_cannot_start_at_zero_is_refused():
    chosen = {'family': {'name': 'diffusion', 'prediction': 'v', 'schedule': 'cosine'}, 'network': {'name': 'edm2'}}
    teacher = Borrowed(families.get('diffusion')(config.resolve(chosen), SPEC))
    asked = config.resolve({'family': {'name': 'consistency_trajectory', 'teacher': 'a run'}})
    with pytest.raises(UserError, match='edm2, whose normalised weights cannot start a second time at zero'):
        families.get('consistency_trajectory')(asked, SPEC, {'teacher': teacher})


class Shown:
    """A network of the kind 'map' whose last kernel scales its prediction, and the teacher's features: what it sees."""

    def __init__(self, family):
        self.family = family

    def features(self, x_t, t, given):
        return [x_t]


class Scaled(nnx.Module):
    """The jumps of `network_of`, times a kernel."""

    def __init__(self, family, scale):
        self.output = nnx.Linear(1, 1, use_bias=False, rngs=nnx.Rngs(0))
        self.output.kernel[...] = jnp.full((1, 1), scale)
        self.jumps = network_of(family, 1.0)

    def __call__(self, *arguments, **options):
        return self.output.kernel[0, 0] * self.jumps(*arguments, **options)


def test_the_adversarial_loss_has_the_slope_of_the_matching_at_the_last_kernel(student_of, keys):
    """Slopes by finite differences. The weight makes both equal in size, and none of it before its step."""
    options = {'huber': 0.0, 'denoising': 0.0, 'discretisation': 4, 'solver_steps': 1, 'adversarial_start': 5}
    family, batch = student_of(adversarial=0.7, **options), rows(keys, 64)
    plain = student_of(**options)
    lent = bound(family, 1.0).borrowed('teacher')['denoiser']

    class Teacher(Shown):
        def __call__(self, *arguments, **options):
            return lent(*arguments, **options)

    def loss(scale, family=family, step=5):
        student = {'student': Scaled(family, scale)}
        averaged = {'target': {'student': network_of(family, 1.0)}}
        critic = {'discriminator': lambda states, t, given: [state.sum(-1) for state in states]}
        networks = Networks({**student, **critic}, averaged, {'teacher': Networks({'denoiser': Teacher(family)})})
        return family.loss(networks, batch, jax.random.key(0), step)

    total, told = jax.device_get(jax.jit(loss)(0.8))
    parts = [jax.jit(lambda scale: [loss(scale)[1][name] for name in ('matching', 'adversarial')])(scale)
             for scale in (0.79, 0.81)]  # fmt: skip
    matching, adversarial = (float(high - low) / 0.02 for low, high in zip(*parts, strict=True))
    assert told['weight'] == pytest.approx(abs(matching) / (abs(adversarial) + 1e-4), rel=1e-2)
    assert total == pytest.approx(float(told['matching'] + 0.7 * told['weight'] * told['adversarial']), rel=1e-5)
    slope = jax.jit(jax.grad(lambda scale: loss(scale)[0]))(0.8)
    assert slope == pytest.approx(float(matching + 0.7 * told['weight'] * adversarial), rel=1e-2)
    early, told = jax.jit(lambda scale: loss(scale, step=4))(0.8)
    assert told['weight'] == 0 and early == pytest.approx(
        float(jax.jit(lambda scale: loss(scale, plain)[0])(0.8)), rel=1e-5
    )


def test_a_discriminator_is_built_and_trained_only_if_asked_for(student_of, keys):
    assert 'discriminator' not in jax.eval_shape(lambda: {name: 0 for name in student_of().networks(nnx.Rngs(0))})
    family = student_of(adversarial=1.0)
    assert [update.networks for update in family.updates] == [('discriminator',), ('student',)]
    assert family.averaged == ('student',)


def test_the_discriminator_sees_where_jumps_end(student_of, keys):
    """The student jumps from t to s, by (d(s) / d(t))^1.3 here, and the target from s to 0, by (d(0) / d(s))^0.6.

    With logits w |x'|² of noised images x' = α x + σ ε and margins that hold, the slope of the hinge loss by w is the
    mean of |x'|² over the ends of jumps minus that over the data. The noise is the same for both and has mean 0.
    """
    family = student_of(adversarial=1.0, penalty_weight=0.0, judged_times='logit_normal:mean=-2,deviation=0.000001')
    batch, key, judged = rows(keys, 4096), jax.random.key(0), jax.nn.sigmoid(jnp.full(1, -2.0))

    def loss(weight):
        critic = {'discriminator': lambda states, t, given: [jnp.square(states[0]) @ (weight * jnp.ones(2))]}
        networks = Networks(
            {'student': network_of(family, 1.3), **critic},
            {'target': {'student': network_of(family, 0.6)}},
            {'teacher': Networks({'denoiser': Shown(family)})},
        )
        x_t, t, _, s = family.states(networks, batch, key, family.indices(batch['key']))
        first, then, last = (deviation(family.schedule, time) for time in (t, s, jnp.zeros_like(s)))
        ends = x_t * expand((then / first) ** 1.3 * (last / then) ** 0.6, x_t)
        real = family.space.encode(networks, batch)
        known = jnp.square(ends).sum((1, 2, 3)).mean(), jnp.square(real).sum((1, 2, 3)).mean()
        return family.discriminator_loss(networks, batch, key, 0)[0], known

    slope, (ends, real) = jax.jit(jax.grad(loss, has_aux=True))(0.0)
    alpha = float(family.schedule.alpha(judged)[0])
    assert abs(ends - real) > 0.05 and slope == pytest.approx(alpha**2 * float(ends - real), abs=0.02)

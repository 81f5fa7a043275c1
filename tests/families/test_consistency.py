"""Consistency distillation of a teacher whose trajectories are known: isotropic Gaussian data."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from genbench.data.spec import DataSpec
from genbench.errors import UserError
from genbench.families.base import Borrowed, Networks
from genbench.families.endpoints import BOUNDARY_PREDICTIONS
from genbench.interpolants import predictions, schedules
from genbench.interpolants.schedules import expand

pytestmark = pytest.mark.unoptimized
STD = 0.5  # of the data
PATHS = [('cosine', 'v'), ('linear', 'noise'), ('straight', 'velocity')]
every_path = pytest.mark.parametrize(('schedule', 'prediction'), PATHS)
SPEC = DataSpec('images', (4, 4, 3), levels=5, classes=3)


def marginal_std(schedule, t, like):
    return jnp.sqrt((expand(schedule.alpha(t), like) * STD) ** 2 + expand(schedule.sigma(t), like) ** 2)


def teacher(schedule):
    """The exact denoiser of N(0, STD² I)."""

    def denoise(x_t, t):
        alpha, sigma = expand(schedule.alpha(t), x_t), expand(schedule.sigma(t), x_t)
        white = x_t / marginal_std(schedule, t, x_t) ** 2
        return predictions.Prediction(alpha * STD**2 * white, sigma * white)

    return denoise


def exact(schedule):
    """The exact consistency function: x_t STD / √(α² STD² + σ²)."""

    def jump(x_t, t):
        x = x_t * STD / marginal_std(schedule, t, x_t)
        sigma = expand(schedule.sigma(t), x_t)
        noise = (x_t - expand(schedule.alpha(t), x_t) * x) / jnp.where(sigma > 0, sigma, 1)
        return predictions.Prediction(x, noise)

    return jump


def as_network(prediction, schedule, denoise):
    """The network whose output means this image and noise; finite where the noise vanishes and slopes do not."""

    def network(x_t, t, given, key=None):
        return jnp.nan_to_num(predictions.target(prediction, schedule, *denoise(x_t, t)[:2], t))

    return network


@pytest.fixture
def student_of(make_family):
    def make(schedule, prediction, **options):
        lender = make_family('diffusion', schedule=schedule, prediction=prediction)
        return make_family('consistency', borrowed={'teacher': Borrowed(lender)}, **options)

    return make


def lent(students, teacher):
    """Networks of 'student', or 'student' and 'target', with this network as the teacher's."""
    target = students.get('target', students['student'])
    lender = Networks({'denoiser': teacher})
    return Networks({'student': students['student']}, {'target': {'student': target}}, {'teacher': lender})


def loss(family, student, batch):
    """The loss of a student that is its own target, before the compiler's view of it as a constant."""
    name, schedule = family.prediction, family.schedule
    networks = lent({'student': as_network(name, schedule, student)}, as_network(name, schedule, teacher(schedule)))
    return float(jax.jit(lambda key: family.loss(networks, batch, key, 0)[0])(jax.random.key(0)))


def eightfold(batch):
    """Every image eight times, with its own key each time."""
    size = len(batch['image'])
    repeated = {name: jnp.concatenate([values] * 8) for name, values in batch.items()}
    return repeated | {'key': jax.random.split(jax.random.key(3), 8 * size)}


@every_path
def test_a_step_of_the_teacher_has_an_error_of_third_order(schedule, prediction, student_of):
    """Heun's rule is of second order over a whole trajectory, so halving one step divides its error by eight."""
    family = student_of(schedule, prediction)
    x = jax.random.normal(jax.random.key(0), (3, 2, 2, 1))
    t = jnp.asarray([0.5, 0.6, 0.7])

    def error(h):
        stepped = family.solver_step(teacher(family.schedule), x, t, t - h)
        exact = x * marginal_std(family.schedule, t - h, x) / marginal_std(family.schedule, t, x)
        return float(jnp.abs(stepped - exact).max())

    with jax.enable_x64(True):
        x, t = x.astype(jnp.float64), t.astype(jnp.float64)
        assert np.log2(error(0.1) / error(0.05)) == pytest.approx(3, abs=0.4)


@every_path
def test_the_exact_consistency_function_of_the_teacher_has_almost_no_loss(schedule, prediction, student_of, batch):
    batch = eightfold(batch)
    coarse, fine = (student_of(schedule, prediction, discretisation=n, huber=0.0) for n in (8, 64))
    assert loss(fine, exact(fine.schedule), batch) < 2e-4
    assert loss(fine, exact(fine.schedule), batch) < loss(coarse, exact(coarse.schedule), batch) / 4
    assert loss(fine, teacher(fine.schedule), batch) > 3 * loss(fine, exact(fine.schedule), batch)


@every_path
def test_a_step_below_the_trained_times_is_the_sampler_heuns(schedule, prediction, student_of, keys):
    """With more than 1,000 steps: teacher and student are asked about the noise that their images have."""
    family, keys = student_of(schedule, prediction), keys(3)
    times = {'t': jnp.full(3, 8e-4), 's': jnp.full(3, 4e-4)}
    with jax.enable_x64(True):
        x = jax.random.normal(jax.random.key(0), (3, 2, 2, 1), jnp.float64)
        t, s = (value.astype(jnp.float64) for value in times.values())
        stepped = family.solver_step(teacher(family.schedule), x, t, s)
        exact_step = x * marginal_std(family.schedule, s, x) / marginal_std(family.schedule, t, x)
        network = as_network(prediction, family.schedule, exact(family.schedule))
        jumped = family.jump(network, x, t, None)
        np.testing.assert_allclose(stepped, exact_step, rtol=1e-7)
        np.testing.assert_allclose(jumped, exact(family.schedule)(x, t).x, rtol=1e-7)


FITTING = [
    (schedule, prediction)
    for schedule in schedules.SCHEDULES
    for prediction in BOUNDARY_PREDICTIONS
    if (schedule, prediction) != ('straight', 'noise')  # refused: at pure noise it does not determine the image
    and (schedule != 'edm' or prediction == 'preconditioned')  # refused: nothing scales x_t
]


@pytest.mark.parametrize(('schedule', 'prediction'), FITTING)
def test_at_time_zero_every_student_returns_its_input(schedule, prediction, student_of):
    family = student_of(schedule, prediction)
    x = jax.random.normal(jax.random.key(0), (2, 4, 4, 3))
    jumped = family.jump(lambda x_t, t, given: jnp.sin(5 * x_t), x, jnp.zeros(2), None)
    np.testing.assert_allclose(jumped, x, atol=1e-6)


@every_path
def test_the_loss_and_its_gradient_are_finite_over_the_whole_trajectory(schedule, prediction, student_of, batch):
    """Rounding must not carry the last time past zero."""
    family = student_of(schedule, prediction, discretisation=3)
    batch = eightfold(batch)  # every n is drawn

    def value(scale):
        network = lambda x_t, t, given, key=None: scale * jnp.sin(x_t)  # noqa: E731
        return family.loss(lent({'student': network}, network), batch, jax.random.key(0), 0)[0]

    assert all(np.isfinite(part) for part in jax.jit(jax.value_and_grad(value))(0.5))


@pytest.mark.parametrize('schedule', ['linear', 'cosine', 'edm'])
def test_the_teacher_leaves_no_noise_of_a_point_mass(schedule, student_of):
    """On the last of the steps, whose target is what the student learns to jump to."""
    family = student_of(schedule, 'preconditioned')

    def point(x_t, t):
        alpha, sigma = expand(family.schedule.alpha(t), x_t), expand(family.schedule.sigma(t), x_t)
        return predictions.Prediction(jnp.full_like(x_t, 0.3), (x_t - 0.3 * alpha) / sigma)

    t = jnp.asarray([family.schedule.step(1, 18), family.schedule.step(18, 18)])
    x_t = family.schedule.perturb(jnp.full((2, 2, 2, 1), 0.3), jax.random.normal(jax.random.key(0), (2, 2, 2, 1)), t)
    np.testing.assert_allclose(family.solver_step(point, x_t, t, jnp.zeros(2)), 0.3, atol=5e-5)


def test_student_and_target_share_their_dropout_and_the_teacher_has_none(student_of, batch):
    seen = {}

    def network(name):
        def call(x_t, t, given, key=None):
            seen[name] = key
            return x_t if key is None else x_t * jax.random.bernoulli(key, 0.5, x_t.shape)

        return call

    networks = lent({'student': network('student'), 'target': network('target')}, network('teacher'))
    family = student_of('cosine', 'v')
    losses = [family.loss(networks, batch, jax.random.key(seed), 0)[0] for seed in (0, 0, 1)]
    assert seen['teacher'] is None
    assert jnp.array_equal(jax.random.key_data(seen['student']), jax.random.key_data(seen['target']))
    assert losses[0] == losses[1] != losses[2]


def test_pseudo_huber_has_the_constant_of_its_paper(student_of):
    """√(‖a − b‖² + c²) − c with c = 0.00054 √d (Song & Dhariwal 2024, equation 8 and section 3.3)."""
    difference = 1e-3 * np.random.default_rng(0).normal(size=(5, 4, 4, 3))
    c = 0.00054 * np.sqrt(4 * 4 * 3)
    wanted = [np.sqrt(np.linalg.norm(one) ** 2 + c**2) - c for one in difference]
    found = student_of('cosine', 'v').distance(jnp.asarray(difference, jnp.float32))
    np.testing.assert_allclose(found, wanted, rtol=1e-3)


def test_without_its_constant_the_distance_is_the_mean_square(student_of):
    assert student_of('cosine', 'v', huber=0.0).distance(jnp.full((1, 4, 4, 3), 3.0))[0] == pytest.approx(9)


def test_the_student_starts_as_the_borrowed_network_and_is_all_that_the_run_keeps(built, batch):
    _, lender, borrowed = built('diffusion')
    family, blueprint, state = built('consistency')
    networks = Networks(family.networks(nnx.Rngs(3)), borrowed={'teacher': lender.bind_state(borrowed)})
    family.initialise(networks, batch, jax.random.key(0))
    found = nnx.to_pure_dict(nnx.state(networks['student'], nnx.Param))
    jax.tree.map(np.testing.assert_array_equal, found, borrowed['params']['denoiser'])
    assert set(blueprint.shapes['params']) == {'student'}


def test_the_student_alone_is_trained_and_its_target_is_averaged_from_the_start(built):
    family = built('consistency')[0]
    assert [update.networks for update in family.updates] == [('student',)]
    target = {average.name: average for average in family.averages}['target']
    assert (target.networks, target.decay, target.warmup) == (('student',), 0.95, False)
    assert family.likelihoods == ()


REFUSALS = {
    'other data': (('diffusion', {}, DataSpec('other', (4, 4, 3), 5, 3)), 'was trained on.*other.*this run trains on'),
    'image prediction': (('diffusion', {'prediction': 'x'}, SPEC), "predicts 'x'.*tend to x_t.*noise, v, velocity"),
    'score prediction': (('diffusion', {'prediction': 'score'}, SPEC), "predicts 'score'"),
    'no path': (('gan', {}, SPEC), 'is a gan model that has no path from noise to data'),
}


@pytest.mark.parametrize(('given', 'why'), REFUSALS.values(), ids=REFUSALS)
def test_a_teacher_that_does_not_fit_is_refused_in_words(given, why, make_family):
    name, options, spec = given
    with pytest.raises(UserError, match=why):
        make_family('consistency', spec=SPEC, borrowed={'teacher': Borrowed(make_family(name, spec=spec, **options))})


def test_a_conditional_student_needs_a_conditional_teacher(make_family):
    with pytest.raises(UserError, match='label needs a teacher that was trained with it'):
        make_family('consistency', True, borrowed={'teacher': Borrowed(make_family('diffusion'))})

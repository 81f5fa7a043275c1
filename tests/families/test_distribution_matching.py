"""Distribution matching on isotropic Gaussian data, where both denoisers and the divergence are known."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from oracles import STD, from_image, isotropic

from genbench.data.spec import DataSpec
from genbench.errors import UserError
from genbench.families.base import Borrowed, Networks
from genbench.interpolants import predictions
from genbench.training import samplers

PATHS = [('cosine', 'v'), ('straight', 'velocity')]
SPEC = DataSpec('images', (16, 16, 3), levels=256)


@pytest.fixture
def student_of(make_family):
    def make(schedule='cosine', prediction='v', spec=SPEC, **options):
        teacher = Borrowed(make_family('diffusion', spec=spec, schedule=schedule, prediction=prediction))
        return make_family('distribution_matching', spec=spec, borrowed={'teacher': teacher}, **options)

    return make


def as_network(family, denoise):
    """The network whose output means the image and noise that `denoise` gives."""

    def network(x_t, t, given, key=None):
        return predictions.target(family.prediction, family.schedule, *denoise(x_t, t)[:2], t)

    return network


def bound(family, a, b):
    """A student whose images are a z, a fake denoiser that is exact for N(0, b²), and the exact teacher."""
    schedule = family.schedule
    image = lambda x_t, t: a * x_t / schedule.sigma(jnp.asarray(schedule.t_max))  # noqa: E731

    def imitated(x_t, t):
        alpha, sigma = schedule.alpha(t), schedule.sigma(t)
        return alpha * b**2 * x_t / (alpha**2 * b**2 + sigma**2)

    lent = Networks({'denoiser': as_network(family, isotropic(schedule))})
    student, fake = (as_network(family, from_image(schedule, one)) for one in (image, imitated))
    return Networks({'student': student, 'fake': fake}, borrowed={'teacher': lent})


def divergence(a, alpha, sigma):
    """KL(N(0, α² a² + σ²) ‖ N(0, α² STD² + σ²)), per dimension."""
    ratio = (alpha**2 * a**2 + sigma**2) / (alpha**2 * STD**2 + sigma**2)
    return (ratio - 1 - np.log(ratio)) / 2


@pytest.mark.parametrize('a', [0.3, 0.8])
@pytest.mark.parametrize(('schedule', 'prediction'), PATHS)
def test_the_gradient_is_that_of_the_divergence_from_the_teacher(schedule, prediction, a, student_of, keys):
    """In many dimensions, mean |x − x̂| is √(2 / π) times the deviation of x − x̂. The scores differ by α / σ² times what
    the images do, and the chain rule gives another α."""
    family = student_of(schedule, prediction, earliest=0.5, latest=0.50001)
    batch = {'image': jnp.zeros((64, *SPEC.shape), int), 'key': keys(64)}
    loss = lambda a, b: family.loss(bound(family, a, b), batch, jax.random.key(0), 0)[0]  # noqa: E731
    found = jax.jit(jax.grad(loss))(a, a)
    t = jnp.asarray(0.5 * family.schedule.t_max)
    alpha, sigma = float(family.schedule.alpha(t)), float(family.schedule.sigma(t))
    slope = (divergence(a + 1e-4, alpha, sigma) - divergence(a - 1e-4, alpha, sigma)) / 2e-4
    kept = alpha * STD**2 / (alpha**2 * STD**2 + sigma**2)
    off = np.hypot(a * (1 - alpha * kept), kept * sigma)
    assert found == pytest.approx(sigma**2 / alpha**2 * slope / (np.sqrt(2 / np.pi) * off), rel=0.03)


def test_nothing_moves_once_the_fake_denoiser_is_the_teacher(student_of, keys):
    family = student_of()
    batch = {'image': jnp.zeros((4, *SPEC.shape), int), 'key': keys(4)}
    assert family.loss(bound(family, 0.8, STD), batch, jax.random.key(0), 0)[0] < 1e-9


def test_alternating_updates_end_at_the_deviation_of_the_data(student_of, keys):
    """From a student that spreads too far, and a fake denoiser that starts as the teacher."""
    spec = DataSpec('small', (4, 4, 3), levels=256)
    family = student_of(spec=spec)
    batch = {'image': jnp.zeros((256, *spec.shape), int)}

    def step(state, keys):
        a, b = state
        rows, key = {**batch, 'key': keys}, jax.random.key(0)
        for _ in range(2):
            b -= 0.5 * jax.grad(lambda b, a=a: family.imitate(bound(family, a, b), rows, key, 0)[0])(b)
        a -= 0.05 * jax.grad(lambda a, b=b: family.loss(bound(family, a, b), rows, key, 0)[0])(a)
        return (a, b), a

    (a, b), _ = jax.jit(lambda keys: jax.lax.scan(step, (0.8, STD), keys))(keys(400 * 256).reshape(400, 256))
    assert a == pytest.approx(STD, abs=0.02) and b == pytest.approx(STD, abs=0.02)


def test_the_fake_denoiser_is_trained_on_the_images_of_the_student(student_of, keys):
    """The exact denoiser of N(0, a²) has no slope, and those of smaller and larger deviations do."""
    family, a = student_of(), 0.8
    batch = {'image': jnp.zeros((64, *SPEC.shape), int), 'key': keys(64)}
    loss = lambda b: family.imitate(bound(family, a, b), batch, jax.random.key(0), 0)[0]  # noqa: E731
    slope = jax.jit(jax.grad(loss))
    below, exact, above = (float(slope(b)) for b in (0.7, a, 0.9))
    assert below < 0 < above and abs(exact) < 0.1 * min(-below, above)


def test_the_student_is_trained_on_the_states_that_its_steps_reach(student_of, keys):
    """A student whose image is 0.3 everywhere reaches α 0.3 + σ ε at each of the four times, and starts from σ ε."""
    family = student_of(jumps=4)
    flat = as_network(family, from_image(family.schedule, lambda x_t, t: jnp.full_like(x_t, 0.3)))
    x, t = jax.jit(lambda keys: family.reached(Networks({'student': flat}), keys, None))(keys(200))
    for step in (1, 2, 3, 4):
        time = family.schedule.step(jnp.asarray(step), 4)
        here = np.isclose(t, time)
        assert 25 < here.sum() < 75
        wanted = 0.3 * float(family.schedule.alpha(time)) if step < 4 else 0.0
        assert x[here].mean() == pytest.approx(wanted, abs=0.02)
        assert x[here].std() == pytest.approx(float(family.schedule.sigma(time)), abs=0.02)


def test_both_networks_start_as_the_teacher_and_the_student_is_updated_less_often(built, batch):
    _, lender, borrowed = built('diffusion')
    family, _, _ = built('distribution_matching')
    networks = Networks(family.networks(nnx.Rngs(3)), borrowed={'teacher': lender.bind_state(borrowed)})
    family.initialise(networks, batch, jax.random.key(0))
    for name in ('student', 'fake'):
        found = nnx.to_pure_dict(nnx.state(networks[name], nnx.Param))
        jax.tree.map(np.testing.assert_array_equal, found, borrowed['params']['denoiser'])
    assert [(one.networks, one.every) for one in family.updates] == [(('fake',), 1), (('student',), 5)]
    assert family.averaged == ('student',) and family.likelihoods == ()


def test_steps_that_were_not_learned_are_refused(student_of):
    family = student_of(jumps=4)
    for steps in (1, 2, 4):
        assert samplers.parse(f'multistep_consistency:{steps}', family).num_steps == steps
    for other, steps in ((family, 3), (family, 8), (student_of(), 2)):
        with pytest.raises(UserError, match=f'takes {steps} steps, and this model learned to take'):
            samplers.parse(f'multistep_consistency:{steps}', other)
    for spacing in ('linspace', 'rho7', 'power2'):
        text = f'multistep_consistency:spacing={spacing}'
        with pytest.raises(UserError, match='learned the times of spacing=uniform, not of'):
            samplers.parse(text, family)
    assert samplers.parse('multistep_consistency:4:spacing=uniform', family).num_steps == 4
    with pytest.raises(UserError, match='family.earliest is 0.5; it should be below family.latest .0.4.'):
        student_of(earliest=0.5, latest=0.4)


def test_the_student_learns_nothing_from_the_steps_before_its_own(student_of, keys):
    """Its images are x_t a / σ(t_max), and their slope by a is that of the last step alone: x_t / σ(t_max)."""
    family, drawn = student_of(jumps=3), keys(8)
    total = lambda a: family.images(bound(family, a, STD), drawn, None).sum()  # noqa: E731
    reach = lambda a: family.reached(bound(family, a, STD), drawn, None)[0].sum()  # noqa: E731
    slope = jax.jit(jax.grad(total))(0.8)
    size = float(family.schedule.sigma(jnp.asarray(family.schedule.t_max)))
    assert slope == pytest.approx(float(jax.jit(reach)(0.8)) / size, rel=1e-3)
    assert abs(jax.jit(reach)(0.9) - jax.jit(reach)(0.7)) > 1


def test_denoisers_are_compared_where_they_were_trained(student_of, keys):
    """Not before t_min, even if the comparison begins at 0."""
    family, seen = student_of(earliest=0.0, latest=1e-5), []
    networks = bound(family, 0.8, STD)

    def fake(x_t, t, given, key=None):
        seen.append(np.asarray(t))
        return x_t

    family.direction(Networks({**networks, 'fake': fake}, borrowed={'teacher': networks.borrowed('teacher')}),
                     jnp.zeros((4, *SPEC.shape)), keys(4), None)  # fmt: skip
    first = family.schedule.condition(jnp.asarray(family.schedule.t_min))
    np.testing.assert_allclose(np.concatenate(seen), first, rtol=1e-6)

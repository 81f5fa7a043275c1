"""Continuous-time consistency on Gaussian data in one dimension, whose consistency function is known."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from genbench import families
from genbench.data.spec import DataSpec
from genbench.errors import UserError
from genbench.families.base import Borrowed, Networks
from genbench.interpolants import predictions, schedules
from genbench.interpolants.schedules import expand

SPEC, STD, SIGMA_DATA = DataSpec('points', (1, 1, 1), levels=8192), 0.25, 0.5


@pytest.fixture
def family(make_family):
    return make_family('continuous_consistency', spec=SPEC, uncertainty=False, tangent_warmup=0)


def deviation(t):
    """Of x_t, for data with the deviation STD."""
    return jnp.sqrt((jnp.cos(t) * STD) ** 2 + (SIGMA_DATA * jnp.sin(t)) ** 2)


def flow_of(power):
    """F of f = x_t (STD / deviation)^power, which is the consistency function for the power 1, and f(x, 0) = x."""

    def flow(x_t, t):
        jumped = x_t * expand((STD / deviation(t)) ** power, x_t)
        return (expand(jnp.cos(t), x_t) * x_t - jumped) / expand(SIGMA_DATA * jnp.sin(t), x_t)

    return flow


def test_the_schedule_and_the_prediction_are_those_of_trigflow():
    schedule, t = schedules.get('trig'), jnp.asarray([0.3, 1.1])
    np.testing.assert_allclose(schedule.alpha(t), np.cos([0.3, 1.1]), rtol=1e-6)
    np.testing.assert_allclose(schedule.sigma(t), 0.5 * np.sin([0.3, 1.1]), rtol=1e-6)
    np.testing.assert_allclose(0.5 * np.tan([schedule.t_min, schedule.t_max]), [0.002, 80], rtol=1e-6)
    x, noise = jax.random.normal(jax.random.key(0), (2, 2, 1, 1, 1))
    x_t, flow = schedule.perturb(x, noise, t), -predictions.target('preconditioned', schedule, x, noise, t)
    jumped = expand(jnp.cos(t), x_t) * x_t - expand(jnp.sin(t), x_t) * SIGMA_DATA * flow  # equation 5
    np.testing.assert_allclose(jumped, x, rtol=1e-4)
    np.testing.assert_allclose(SIGMA_DATA * flow, predictions.target('velocity', schedule, x, noise, t), rtol=1e-4)


def test_the_exact_consistency_function_has_no_tangent(family):
    """Along the trajectories of the whole distribution, x_t = x_0 deviation(t) / STD."""
    with jax.enable_x64(True):
        t = jnp.linspace(0.01, 1.56, 40, dtype=jnp.float64)
        x_t = jnp.linspace(-1, 1, 40, dtype=jnp.float64)[:, None, None, None]
        slope = jax.vmap(jax.grad(lambda t: jnp.log(deviation(t))))(t)
        tangents = {power: family.tangent(flow_of(power), x_t, t, x_t * expand(slope, x_t))[1] for power in (0.9, 1.0)}
    np.testing.assert_allclose(tangents[1.0], 0, atol=1e-7)
    assert np.abs(tangents[0.9]).max() > 0.01


def test_the_tangent_is_the_derivative_of_the_jump_times_the_cosine(family):
    """By finite differences of the jump that samplers use, for a network that is no consistency function."""
    with jax.enable_x64(True):
        t = jnp.linspace(0.1, 1.5, 8, dtype=jnp.float64)
        x_t, velocity = jax.random.normal(jax.random.key(0), (2, 8, 1, 1, 1), jnp.float64)
        network = lambda x, t, given=None: jnp.sin(3 * x) + expand(t**2, x)  # noqa: E731
        jumps = [family.jump(network, x_t + h * velocity, t + h, None) for h in (1e-4, -1e-4)]
        flow = lambda x_t, t: -network(x_t / SIGMA_DATA, t)  # noqa: E731
        found = family.tangent(flow, x_t, t, velocity)[1]
        np.testing.assert_allclose(found, expand(jnp.cos(t), x_t) * (jumps[0] - jumps[1]) / 2e-4, rtol=1e-5, atol=1e-7)
        start = family.tangent(flow, x_t, t, velocity, ramp=0.0)[1]
        wanted = expand(jnp.cos(t) ** 2, x_t) * (velocity - SIGMA_DATA * flow(x_t, t))  # the slope of flow matching
        np.testing.assert_allclose(start, wanted, rtol=1e-6)


def test_training_pulls_towards_the_consistency_function(family, keys):
    """E ⟨g / (‖g‖ + c), ∂F/∂power⟩ vanishes at the power 1: given x_t, g is then symmetric around zero."""
    batch = {'image': SPEC.quantise(STD * jax.random.normal(jax.random.key(0), (20_000, 1, 1, 1))), 'key': keys(20_000)}

    @jax.jit
    @jax.grad
    def slope(power):
        def network(x, t, given, key=None):
            return -flow_of(power)(SIGMA_DATA * x, t)

        return family.loss(Networks({'denoiser': network}), batch, jax.random.key(0), jnp.ones((), int))[0]

    below, exact, above = (float(slope(power)) for power in (0.7, 1.0, 1.3))
    assert below < 0 < above and abs(exact) < 0.15 * min(-below, above)


def test_the_loss_is_that_of_a_normalised_tangent_that_grows_in(make_family, keys):
    """‖g‖² / (‖g‖ + c)², where a tenth of the warm-up lets in a tenth of the unstable part."""
    family = make_family('continuous_consistency', spec=SPEC, uncertainty=False, tangent_warmup=100)
    batch = {'image': jnp.full((64, 1, 1, 1), 5000), 'key': keys(64)}
    t = family.times(batch['key'])
    x, noise, _ = family.pairs({}, batch, None)
    x_t, velocity = family.schedule.perturb(x, noise, t), predictions.target('velocity', family.schedule, x, noise, t)
    _, tangent = family.tangent(flow_of(0.5), x_t, t, velocity, 0.1)
    network = lambda x, t, given, key=None: -flow_of(0.5)(SIGMA_DATA * x, t)  # noqa: E731
    loss, logged = family.loss(Networks({'denoiser': network}), batch, jax.random.key(0), jnp.asarray(10))
    size = np.abs(np.asarray(tangent, float)).ravel()
    assert loss == pytest.approx(np.mean((size / (size + 0.1)) ** 2), rel=1e-4)
    assert logged['tangent'] == pytest.approx(size.mean(), rel=1e-4)
    at_once = make_family('continuous_consistency', spec=SPEC, uncertainty=False, tangent_warmup=0)
    whole = family.tangent(flow_of(0.5), x_t, t, velocity)[1]
    _, logged = at_once.loss(Networks({'denoiser': network}), batch, jax.random.key(0), jnp.asarray(0))
    assert logged['tangent'] == pytest.approx(np.abs(whole).mean(), rel=1e-4)


def test_other_paths_and_predictions_are_refused(make_family):
    for options in ({'schedule': 'edm'}, {'prediction': 'velocity'}):
        with pytest.raises(UserError, match='needs family.schedule=trig and family.prediction=preconditioned'):
            make_family('continuous_consistency', **options)
    with pytest.raises(UserError, match="There is no weight 'min_snr'"):
        make_family('continuous_consistency', weight='min_snr')


@pytest.fixture
def taught(make_family, resolve):
    """`taught(schedule=…, …)` → a family that distils a diffusion run with these options, and that run's family."""

    def make(schedule='trig', time_scale=1.0, **options):
        config = resolve('diffusion', schedule=schedule, prediction='preconditioned', **options)
        config = config.copy_and_resolve_references()
        config.network.time_scale = time_scale
        teacher = families.get('diffusion')(config, SPEC)
        options = {'teacher': 'run', 'distil': True, 'uncertainty': False, 'tangent_warmup': 0}
        lent = {'teacher': Borrowed(teacher)}
        return make_family('continuous_consistency', spec=SPEC, borrowed=lent, **options), teacher

    return make


def test_trajectories_of_the_teacher_leave_no_tangent_where_those_of_single_images_do(taught, family, keys):
    """Of the consistency function of Gaussian data, with a teacher that knows the velocity of the distribution."""
    slope = jax.vmap(jax.grad(lambda t: jnp.log(deviation(t))))
    teacher = Networks({'denoiser': lambda x, t, given=None: -expand(slope(t), x) * x})  # σ_d F = x_t · slope
    student = lambda x, t, given, key=None: -flow_of(1.0)(SIGMA_DATA * x, t)  # noqa: E731
    networks = Networks({'denoiser': student}, borrowed={'teacher': teacher})
    batch = {'image': jnp.arange(64)[:, None, None, None] * 100, 'key': keys(64)}
    distilled, _ = taught()
    sizes = [
        one.loss(networks, batch, jax.random.key(0), jnp.zeros((), int))[1]['tangent'] for one in (distilled, family)
    ]
    assert sizes[0] < 1e-3 < 0.01 < sizes[1]


def test_training_starts_from_the_weights_of_the_teacher(taught, batch):
    distilled, teacher = taught()
    networks = Networks(distilled.networks(nnx.Rngs(0)), borrowed={'teacher': Networks(teacher.networks(nnx.Rngs(1)))})
    distilled.initialise(networks, batch, jax.random.key(0))
    own, lent = (jax.tree.leaves(nnx.state(one['denoiser'])) for one in (networks, networks.borrowed('teacher')))
    assert all((a == b).all() for a, b in zip(own, lent, strict=True))


@pytest.mark.parametrize(
    ('options', 'why'),
    [
        ({'schedule': 'cosine'}, 'family.schedule=cosine and family.prediction=preconditioned; train one with trig'),
        ({'time_scale': 1000.0}, 'another network than this run'),
    ],
)
def test_a_teacher_on_another_path_or_with_another_network_is_refused(options, why, taught):
    with pytest.raises(UserError, match=why):
        taught(**options)


def test_distillation_without_a_teacher_is_refused(make_family):
    with pytest.raises(UserError, match='family.distil needs a teacher'):
        make_family('continuous_consistency', distil=True)

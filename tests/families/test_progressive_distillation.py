"""Progressive distillation of a teacher whose predictions are known: isotropic Gaussian data."""

import copy
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from genbench.data.spec import DataSpec
from genbench.errors import UserError
from genbench.families import stages
from genbench.families.base import Borrowed, Networks
from genbench.interpolants import predictions
from genbench.interpolants.schedules import expand
from genbench.training import samplers
from genbench.training.state import Blueprint

pytestmark = pytest.mark.unoptimized
STD = 0.5  # of the data
SPEC = DataSpec('images', (4, 4, 3), levels=5, classes=3)
every_path = pytest.mark.parametrize(
    ('schedule', 'prediction'), [('cosine', 'v'), ('linear', 'x'), ('cosine:zero_snr', 'x'), ('straight', 'velocity')]
)


@pytest.fixture
def student_of(make_family):
    def make(schedule='cosine', prediction='v', teaching=None, **options):
        lender = make_family('diffusion', spec=SPEC, schedule=schedule, prediction=prediction, **(teaching or {}))
        return make_family('progressive_distillation', spec=SPEC, borrowed={'teacher': Borrowed(lender)}, **options)

    return make


def exact(schedule):
    """E[x | x_t] of N(0, STD² I), and the noise that goes with it."""

    def denoise(x_t, t):
        alpha, sigma = expand(schedule.alpha(t), x_t), expand(schedule.sigma(t), x_t)
        white = x_t / ((alpha * STD) ** 2 + sigma**2)
        return predictions.Prediction(alpha * STD**2 * white, sigma * white)

    return denoise


def factor(alpha_t, sigma_t, alpha_s, sigma_s):
    """x_s / x_t of one DDIM step with the exact denoiser, α_s x̂ + σ_s ε̂ (J. Song et al. 2021, equation 12)."""
    return (alpha_s * alpha_t * STD**2 + sigma_s * sigma_t) / ((alpha_t * STD) ** 2 + sigma_t**2)


@every_path
def test_one_step_with_the_target_ends_where_two_of_the_teacher_do(schedule, prediction, student_of):
    """Both states and the target are multiples of x_t, which are products of the factors of single steps."""
    family = student_of(schedule, prediction)
    with jax.enable_x64(True):
        x_t = jax.random.normal(jax.random.key(0), (4, 2, 2, 1), jnp.float64)
        times = [family.schedule.step(jnp.asarray([8.0, 5.0, 3.0, 2.0]) - late, 8) for late in (0, 1, 2)]
        x = family.target(exact(family.schedule), x_t, *times)
        ends = [(np.asarray(family.schedule.alpha(t)), np.asarray(family.schedule.sigma(t))) for t in times]
        both = factor(*ends[0], *ends[1]) * factor(*ends[1], *ends[2])
        (alpha_t, sigma_t), (alpha_s, sigma_s) = ends[0], ends[2]
        wanted = (both - sigma_s / sigma_t) / (alpha_s - sigma_s / sigma_t * alpha_t)
        np.testing.assert_allclose(x, expand(wanted, x) * x_t, rtol=1e-6)
        noise = (x_t - expand(alpha_t, x) * x) / expand(sigma_t, x)
        stepped = expand(alpha_s, x) * x + expand(sigma_s, x) * noise
        np.testing.assert_allclose(stepped, expand(both, x) * x_t, rtol=1e-6)


@pytest.mark.parametrize(('schedule', 'prediction'), [('cosine', 'v'), ('cosine:zero_snr', 'x')])
def test_a_student_that_predicts_the_target_has_no_loss(schedule, prediction, student_of, batch):
    family = student_of(schedule, prediction, first=4, last=4)
    denoise = exact(family.schedule)

    def as_network(denoise):
        return lambda x_t, t, given: predictions.target(prediction, family.schedule, *denoise(x_t, t)[:2], t)

    def taught(x_t, t):
        middle, s = (family.schedule.step(jnp.round(8 * t / family.schedule.t_max) - late, 8) for late in (1, 2))
        x = family.target(denoise, x_t, t, middle, s)
        return predictions.Prediction(x, (x_t - expand(family.schedule.alpha(t), x) * x) /
                                      expand(family.schedule.sigma(t), x))  # fmt: skip

    @jax.jit
    def losses(batch):
        students = {'of the target': taught, 'unchanged': denoise}
        networks = {name: Networks({'student': as_network(one), 'teacher': as_network(denoise)})
                    for name, one in students.items()}  # fmt: skip
        return {name: family.loss(one, batch, jax.random.key(0), 0)[0] for name, one in networks.items()}

    found = losses(batch)
    assert found['of the target'] < 1e-6 < 1e-4 < found['unchanged']


def test_the_loss_is_the_weighted_error_at_the_times_of_n_steps(student_of, batch):
    """With a teacher that always sees black, x̃ is black; with a student that sees one shade, the error is known."""
    seen = {}

    def network(name, shade):
        def call(x_t, t, given):
            seen.setdefault(name, []).append(t)
            return jnp.full_like(x_t, shade)

        return call

    networks = Networks({'student': network('student', 0.5), 'teacher': network('teacher', 0.0)})
    families = {weight: student_of('cosine', 'x', first=4, last=4, weight=weight)
                for weight in ('truncated_snr', 'snr_plus_one')}  # fmt: skip

    @jax.jit
    def losses(batch):
        found = {name: one.loss(networks, batch, jax.random.key(0), 0)[0] for name, one in families.items()}
        return found, seen['teacher'][:2], seen['student'][0]

    found, (first, middle), t = losses(batch)
    schedule = families['truncated_snr'].schedule
    snr = np.asarray(schedule.alpha(t) / schedule.sigma(t), float) ** 2
    assert found['truncated_snr'] == pytest.approx(0.25 * np.maximum(snr, 1).mean(), rel=1e-5)
    assert found['snr_plus_one'] == pytest.approx(0.25 * (snr + 1).mean(), rel=1e-5)
    np.testing.assert_array_equal(first, t)
    np.testing.assert_allclose(first - middle, 0.995 / 8, rtol=1e-5)
    assert {*np.round(np.asarray(first) / 0.995 * 4, 4)} <= {1.0, 2.0, 3.0, 4.0}


def test_rounds_halve_the_steps_and_the_last_two_are_twice_as_long(student_of):
    family = student_of(first=16, last=1)
    spans = stages.spans(family)
    assert [span.stage.name for span in spans] == [f'{n} steps' for n in (16, 8, 4, 2, 1)]
    assert [family.at(span.stage.name).count for span in spans] == [16, 8, 4, 2, 1]
    updates = family.config.train.num_steps
    lengths = np.diff([0, *(span.end for span in spans[:-1]), updates])
    np.testing.assert_allclose(lengths / updates, [1 / 7, 1 / 7, 1 / 7, 2 / 7, 2 / 7], atol=1 / updates)
    assert [span.stage.name for span in stages.spans(student_of(first=4, last=4))] == ['4 steps']


def test_a_student_becomes_the_teacher_of_the_next_round(built, batch):
    family, _, state = built('progressive_distillation')
    first, second = (family.at(name) for name in ('8 steps', '4 steps'))
    old = Blueprint(first).bind_state({**state, 'lent': state['lent']})
    begin = jax.jit(lambda: Blueprint(second).initial_state(jax.random.key(0), batch, state['lent'], old))
    carried, average = begin(), state['averages']['ema']['student']
    for found in (carried['params']['student'], carried['params']['teacher'], carried['averages']['ema']['student']):
        jax.tree.map(np.testing.assert_array_equal, found, average)


def test_the_first_round_begins_with_the_borrowed_run(built, batch):
    _, lender, borrowed = built('diffusion')
    family = built('progressive_distillation')[0]
    networks = Networks(family.networks(nnx.Rngs(3)), borrowed={'teacher': lender.bind_state(borrowed)})
    family.initialise(networks, batch, jax.random.key(0))
    for name in ('student', 'teacher'):
        found = nnx.to_pure_dict(nnx.state(networks[name], nnx.Param))
        jax.tree.map(np.testing.assert_array_equal, found, borrowed['params']['denoiser'])
    assert [update.networks for update in family.updates] == [('student',)] and family.likelihoods == ()


def test_samplers_take_the_steps_that_were_learned(student_of):
    family = student_of(first=8, last=4)
    assert samplers.default(family).num_steps == 4
    assert [samplers.parse(f'ddim:{n}', family).num_steps for n in (1, 2, 4)] == [1, 2, 4]
    for text, why in {'ddim:3': 'takes 3 steps, and this model learned to take 4', 'ddim:8': 'learned to take 4',
                      'ddim:4:spacing=quadratic': 'learned those that are even', 'heun:2': 'steps of one length',
                      'ddim:4:eta=1': "has the option 'eta'"}.items():  # fmt: skip
        with pytest.raises(UserError, match=why):
            samplers.parse(text, family)


REFUSED = {
    'not a power of two': ({'first': 12, 'last': 4}, 'first is 12 and family.last 4; each round halves'),
    'more steps than at first': ({'first': 2, 'last': 4}, 'first must be last times a power of two'),
    'predicted noise': ({'prediction': 'noise'}, "predicts 'noise'.*use one that predicts x, v"),
    'uneven times': ({'schedule': 'edm', 'prediction': 'preconditioned'}, 'schedule edm, whose times for N steps'),
    'too few times': ({'teaching': {'num_timesteps': 10}, 'first': 8}, 'take 16 steps.*times of 10; use at most 5'),
    'learned schedule': ({'schedule': 'learned', 'teaching': {'weight': 'elbo', 'time_sampler': 'low_discrepancy'}},
                         'family.schedule is learned, but progressive_distillation'),
    'unknown weight': ({'weight': 'snr'}, "no weight 'snr'.*snr_plus_one, truncated_snr"),
}  # fmt: skip


@pytest.mark.parametrize(('options', 'why'), REFUSED.values(), ids=REFUSED)
def test_what_does_not_go_together_is_refused(options, why, student_of):
    with pytest.raises(UserError, match=why):
        student_of(**options)


@pytest.mark.parametrize('lender', ['gan', 'mean_flow'])
def test_a_teacher_that_does_not_denoise_is_refused(lender, make_family):
    with pytest.raises(UserError, match=f'is a {lender} model that has no path'):
        make_family('progressive_distillation', borrowed={'teacher': Borrowed(make_family(lender))})


def test_samplers_take_the_steps_of_the_round_that_was_reached(make_family):
    """Also in a run with fewer updates than rounds, which ends in an earlier one."""
    whole = make_family('progressive_distillation', first=16, last=1)
    spans = list(stages.spans(whole))
    assert all(one.first < other.first for one, other in itertools.pairwise(spans))
    for span, steps in zip(spans, (16, 8, 4, 2, 1), strict=True):
        family = copy.copy(whole)
        family.span = span
        assert (family.default_steps, samplers.default(family).num_steps) == (steps, steps)
        assert not family.why_not(steps) and family.why_not(2 * steps)


def test_a_teacher_that_starts_from_points_is_refused(make_family):
    teacher = make_family('flow_matching')
    teacher.from_noise = False  # as with family.source
    with pytest.raises(UserError, match='starts from points'):
        make_family('progressive_distillation', borrowed={'teacher': Borrowed(teacher)})

"""Reflow: pairs of noise and image that the ODE of a finished run makes, and training on them."""

import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from genbench import config, families
from genbench.data.spec import DataSpec
from genbench.errors import UserError
from genbench.families.base import Borrowed, Networks
from genbench.interpolants import times
from genbench.interpolants.predictions import Prediction
from genbench.training import lending, preparation, runs, samplers
from genbench.training.state import Blueprint

MEAN, DEVIATION = 0.3, 0.4  # of every pixel of the teacher's images


@pytest.fixture
def reflow(make_family):
    """`reflow(coupling, conditional=False)` → (student, a teacher that knows the law of its Gaussian images)."""

    def make(coupling='pairs:copies=2,steps=64', conditional=False, **options):
        teacher = make_family('flow_matching', conditional, condition_dropout=0.0)

        def denoise(networks, given, *_, **__):
            shift = 0 if given is None else 0.1 * given['label'][:, None, None, None]

            def predict(x_t, t):
                t = t[:, None, None, None]
                variance = jnp.square((1 - t) * DEVIATION) + jnp.square(t)
                off = x_t - (1 - t) * (MEAN + shift)
                return Prediction(MEAN + shift + (1 - t) * DEVIATION**2 / variance * off, t / variance * off)

            return predict

        teacher.denoise = denoise
        lent = {'teacher': Borrowed(teacher)}
        return make_family('flow_matching', conditional, borrowed=lent, coupling=coupling, **options), teacher

    return make


def prepared(student, batch):
    return jax.jit(lambda rows: student.prepare(Networks({}, borrowed={'teacher': Networks({})}), rows))(batch)


@pytest.mark.parametrize('conditional', [False, True])
def test_pairs_are_the_ends_of_the_teachers_trajectories(reflow, batch, conditional):
    """Of Gaussian images every trajectory is known: x_0 = μ + s ε."""
    student, _ = reflow(conditional=conditional)
    made = prepared(student, batch)
    mean = MEAN + (0.1 * np.asarray(batch['label'])[:, None, None, None, None] if conditional else 0)
    assert made['pair_noise'].shape == (8, 2, 4, 4, 3) and made['pair_image'].dtype == jnp.float32
    np.testing.assert_allclose(made['pair_image'], mean + DEVIATION * made['pair_noise'], atol=2e-3)
    assert np.std(made['pair_noise']) == pytest.approx(1, abs=0.05)
    assert (made['pair_noise'][:, 0] != made['pair_noise'][:, 1]).all()
    if conditional:
        np.testing.assert_array_equal(made['pair_label'], np.repeat(batch['label'][:, None], 2, 1))


def test_a_step_takes_one_of_the_pairs_of_each_row(reflow, batch):
    student, _ = reflow(conditional=True, condition_dropout=0.5)
    made = prepared(student, batch)
    x, noise, given = jax.jit(lambda rows: student.pairs(None, rows, None))({**batch, **made})
    taken = [np.flatnonzero((made['pair_image'][row] == x[row]).all((1, 2, 3)))[0] for row in range(8)]
    assert set(taken) == {0, 1}
    for row, copy in enumerate(taken):
        np.testing.assert_array_equal(noise[row], made['pair_noise'][row, copy])
    told = np.asarray(given['label'])
    assert set(told[told != np.asarray(batch['label'])]) == {3} and (told == np.asarray(batch['label'])).any()


def test_a_student_starts_as_its_teacher_where_both_are_built_alike(reflow, built, batch):
    student, teacher = reflow()
    _, blueprint, state = built('flow_matching')
    lent = Networks({}, borrowed={'teacher': blueprint.bind_state(state)}).borrowed('teacher')
    own = blueprint.bind(jax.tree.map(jnp.zeros_like, state['params']), state['aux'])
    student.initialise(Networks(dict(own), borrowed={'teacher': lent}), batch, jax.random.key(0))
    for left, right in zip(*(jax.tree.leaves(one) for one in (blueprint.params(own), state['params'])), strict=True):
        np.testing.assert_array_equal(left, right)


@pytest.mark.parametrize('coupling, message', [
    ('pairs:solver=hein', "There is no sampler 'hein'. Did you mean heun"),
    ('pairs:steps=0', 'steps of family.coupling is 0; it should be '),
    ('pairs:solver=ancestral', 'solver=ancestral, which draws noise; pairs are the two ends of an ODE, so use heun'),
    ('pairs:solver=dpmpp_2m_sde', 'draws noise'),
    ('pairs:solver=euler_maruyama', 'draws noise'),
    ('pairs:solver=predictor_corrector', 'draws noise'),
    ('pairs:guidance=1', 'guidance=1, which needs a teacher with conditions'),
])  # fmt: skip
def test_pairs_that_cannot_be_made_are_refused(reflow, coupling, message):
    with pytest.raises(UserError, match=message):
        reflow(coupling)
    with pytest.raises(UserError, match='offset_noise changes .* family.coupling=pairs fixes it'):
        reflow(offset_noise=0.1)


def test_teachers_that_cannot_make_pairs_are_refused(make_family):
    with pytest.raises(UserError, match='The teacher is a gan model that has no ODE from noise to images'):
        make_family('flow_matching', borrowed={'teacher': Borrowed(make_family('gan'))}, coupling='pairs')
    unconditional = {'teacher': Borrowed(make_family('flow_matching'))}
    with pytest.raises(UserError, match='The condition label needs a teacher that was trained with it'):
        make_family('flow_matching', True, borrowed=unconditional, coupling='pairs')
    short = {'teacher': Borrowed(make_family('diffusion', num_timesteps=4))}
    with pytest.raises(UserError, match='steps=25, and the teacher was trained at the times of 4; take at most 4'):
        make_family('flow_matching', borrowed=short, coupling='pairs')
    with pytest.raises(UserError, match='family.teacher has no effect without family.coupling=pairs'):
        make_family('flow_matching', borrowed={}, teacher='runs/x')


def straight(x_t, t, given=None, key=None):
    """The velocity ε − x of the line through x_t between a noise ε and its end x = μ + s ε."""
    t = t[:, None, None, None]
    noise = (x_t - (1 - t) * MEAN) / ((1 - t) * DEVIATION + t)
    return noise - (MEAN + DEVIATION * noise)


def test_a_flow_trained_on_pairs_makes_the_pairs_of_the_next_round_in_one_step(reflow, make_family, batch):
    """Lines between the ends of one trajectory of Gaussian images never cross, so the second flow is straight."""
    first, _ = reflow()
    lent = {'teacher': Borrowed(first)}
    second = make_family('flow_matching', borrowed=lent, coupling='pairs:solver=euler,steps=1,copies=2')
    networks = Networks({}, borrowed={'teacher': Networks({'denoiser': straight})})
    made = jax.jit(lambda rows: second.prepare(networks, rows))(batch)
    np.testing.assert_allclose(made['pair_image'], MEAN + DEVIATION * made['pair_noise'], atol=1e-5)
    make_family('consistency', borrowed=lent)  # as any other distillation takes it


@pytest.mark.parametrize('count', [1, 2])
def test_distillation_learns_the_ends_of_the_trajectories_at_the_times_of_its_steps(reflow, batch, keys, count):
    """Only the velocity of the lines has no loss, and `count` steps of it end where the trajectory does."""
    student, _ = reflow(time_sampler=f'steps:count={count}')
    np.testing.assert_allclose(np.unique(student.times(keys(50))), np.arange(1, count + 1) / count, rtol=1e-6)
    rows = {**batch, **prepared(student, batch)}
    networks = Networks({'denoiser': straight})
    assert float(student.loss(networks, rows, jax.random.key(0), 0)[0]) < 1e-5
    start = jax.random.normal(jax.random.key(1), (8, 4, 4, 3))
    found = student.carried(networks, start, keys(8), None, samplers.parse(f'euler:{count}', student)).x
    np.testing.assert_allclose(found, MEAN + DEVIATION * start, atol=1e-5)
    teacher = Networks({'denoiser': lambda x_t, t, *_, **__: x_t - MEAN})  # the first flow's velocity, at t = 1
    assert float(student.loss(teacher, rows, jax.random.key(0), 0)[0]) > 0.5 * DEVIATION**2


def test_a_distilled_flow_takes_its_own_steps_and_has_no_density_and_no_students(reflow, make_family):
    student, _ = reflow(time_sampler='steps:count=4')
    assert student.likelihoods == () and samplers.default(student).num_steps == 4
    assert samplers.parse('euler:2', student).num_steps == 2
    assert samplers.parse('ddim:4', student).num_steps == 4
    for other in ('heun', 'ancestral', 'rk45', 'dpmpp_2m'):
        with pytest.raises(UserError, match='this model learned steps of euler; use euler'):
            samplers.parse(f'{other}:4', student)
    assert samplers.default(student).name in ('euler', 'ddim')
    for text in ('euler:3', 'euler:8', 'euler:4:spacing=rho7'):
        with pytest.raises(UserError, match='learned 4 steps of spacing=uniform .* a smaller number that divides it'):
            samplers.parse(text, student)
    for name, coupling in (('flow_matching', {'coupling': 'pairs'}), ('consistency', {})):
        with pytest.raises(UserError, match='or a flow_matching run that was not distilled'):
            make_family(name, borrowed={'teacher': Borrowed(student)}, **coupling)
    assert reflow()[0].likelihoods


def test_u_shaped_times_have_the_density_of_the_paper(make_family):
    """∝ e^(4 s) + e^(4 (1 − s)), whose integral is known."""
    schedule = make_family('flow_matching').schedule
    t = np.sort(times.u_shaped(schedule, jax.random.split(jax.random.key(0), 20_000), a=4.0))
    share = (np.exp(4 * t) - np.exp(4 * (1 - t)) + np.exp(4) - 1) / (2 * (np.exp(4) - 1))
    np.testing.assert_allclose(share, (np.arange(20_000) + 0.5) / 20_000, atol=0.015)


def test_a_round_that_is_planned_borrows_its_teacher_and_nothing_that_only_trained_it():
    """As `--dry-run` sees the third of three runs, none of which is trained."""
    root = pathlib.Path(__file__).resolve().parents[2] / 'configs' / 'digits'
    first = config.load(str(root / 'reflow.py'), [f'family.teacher={root / "flow_matching.py"}'])
    second = config.load(str(root / 'reflow_distilled.py'))
    loans = lending.promised(second, {'teacher': first})
    assert list(loans['teacher'].description['borrowed']) == ['teacher'] and loans['teacher'].state['lent'] == {}
    spec = DataSpec('digits', (8, 8, 1), levels=17, classes=10)
    described = runs.describe({name: loan.description for name, loan in loans.items()})
    student = Blueprint(families.get(second.family.name)(second, spec, described))
    assert student.family.stands_alone and student.family.teacher.stands_alone
    shapes = preparation.shapes(student.family, {name: loan.state for name, loan in loans.items()}, {
        'image': np.zeros((2, 8, 8, 1), np.int32), 'label': np.zeros(2, np.int32),
    })  # fmt: skip
    assert shapes['pair_image'].shape == (4, 8, 8, 1)

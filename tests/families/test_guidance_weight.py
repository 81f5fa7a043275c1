"""A model that is told the weight of guidance: its samples, its distillation by pairs, and what is refused.

Images are Gaussian, with a mean that moves by SHIFT for each label. Predictions are linear in the mean, so guidance of
weight w is the flow of images whose mean moves by (1 + w) SHIFT.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from genbench.errors import UserError
from genbench.evaluation import draw
from genbench.families.base import Borrowed, Networks, Sampler
from genbench.training import samplers, sampling

MEAN, SHIFT, DEVIATION = 0.3, 0.1, 0.4
GUIDED = Sampler('heun', 64, 1.5)


def velocity(x_t, t, given=None):
    """Of these images, guided by the weight that it is told of; no label counts as 0."""
    told = {'label': jnp.zeros(len(t)), 'guidance_weight': jnp.zeros(len(t)), **(given or {})}
    mean = (MEAN + SHIFT * told['label'] * (1 + told['guidance_weight']))[:, None, None, None]
    t = t[:, None, None, None]
    variance = jnp.square((1 - t) * DEVIATION) + jnp.square(t)
    off = x_t - (1 - t) * mean
    return t / variance * off - mean - (1 - t) * DEVIATION**2 / variance * off


@pytest.fixture
def student(make_family):
    """`student(coupling='pairs', conditions=('guidance_weight:0-2',), taught=True, dropout=0.1)` → it, its teacher."""

    def make(coupling='pairs:copies=3,steps=64', conditions=('guidance_weight:0-2',), taught=True, dropout=0.1):
        teacher = make_family('flow_matching', taught, condition_dropout=dropout)
        lent = {'teacher': Borrowed(teacher)}
        options = {'coupling': coupling, 'conditions': conditions, 'condition_dropout': 0.0}
        return make_family('flow_matching', taught, borrowed=lent, **options), teacher

    return make


def images(noise, labels, weight):
    return MEAN + SHIFT * (1 + weight) * labels + DEVIATION * noise


def test_a_weight_that_is_known_guides_in_one_evaluation_as_two_evaluations_do(student, keys):
    labels, start = jnp.arange(6) % 3, jax.random.normal(jax.random.key(0), (6, 4, 4, 3))
    wanted = images(start, labels[:, None, None, None], GUIDED.guidance)
    for family, count in zip(student(), (127, 254), strict=True):
        given = {'label': labels, **({'guidance_weight': jnp.zeros(6)} if count == 127 else {})}
        networks = Networks({'denoiser': velocity})
        found = jax.jit(lambda start, given, f=family, n=networks: f.carried(n, start, keys(6), given, GUIDED).x)
        np.testing.assert_allclose(found(start, given), wanted, atol=2e-3)
        assert family.evaluations(GUIDED) == count
        if count == 127:  # or with the weight among what is given
            told = {'label': labels, 'guidance_weight': jnp.full(6, 0.5)}
            plain = jax.jit(lambda s, g, f=family, n=networks: f.carried(n, s, keys(6), g, Sampler('heun', 64)).x)
            np.testing.assert_allclose(plain(start, told), images(start, labels[:, None, None, None], 0.5), atol=2e-3)


def test_pairs_are_guided_by_the_weight_that_the_student_is_told_of(student, batch):
    family, _ = student()
    lent = Networks({}, borrowed={'teacher': Networks({'denoiser': velocity})})
    made = jax.jit(lambda rows: family.prepare(lent, rows))(batch)
    weight = np.asarray(made['pair_guidance_weight'])
    assert weight.shape == (8, 3) and 0 <= weight.min() < 0.4 and 1.6 < weight.max() <= 2
    labels, weights = (np.asarray(one)[..., None, None, None] for one in (made['pair_label'], weight))
    np.testing.assert_allclose(made['pair_image'], images(np.asarray(made['pair_noise']), labels, weights), atol=2e-3)
    _, noise, given = jax.jit(lambda rows: family.pairs(None, rows, None))({**batch, **made})
    for row in range(8):
        copy = [(made['pair_noise'][row, one] == noise[row]).all() for one in range(3)].index(True)
        assert given['guidance_weight'][row] == weight[row, copy]


def test_the_pairs_of_the_next_round_have_the_weights_that_both_rounds_are_told_of(student, make_family, batch):
    first, _ = student()
    options = {'coupling': 'pairs:copies=2,steps=64', 'condition_dropout': 0.0}

    def second(weights='guidance_weight:0-1', coupling=options['coupling']):
        asked = {**options, 'coupling': coupling, 'conditions': (weights,) if weights else ()}
        return make_family('flow_matching', True, borrowed={'teacher': Borrowed(first)}, **asked)

    lent = Networks({}, borrowed={'teacher': Networks({'denoiser': velocity})})
    for family, fixed in ((second(), None), (second('', 'pairs:copies=2,steps=64,guidance=1.5'), 1.5)):
        made = jax.jit(lambda rows, one=family: one.prepare(lent, rows))(batch)
        weight = np.full((8, 2), fixed) if fixed else np.asarray(made['pair_guidance_weight'])
        assert weight.max() <= (fixed or 1) and 'pair_guidance_weight' not in (made if fixed else {})
        labels, weights = (np.asarray(one)[..., None, None, None] for one in (made['pair_label'], weight))
        found = images(np.asarray(made['pair_noise']), labels, weights)
        np.testing.assert_allclose(made['pair_image'], found, atol=2e-3)
    for refused in (('guidance_weight:0-3',), ('', 'pairs:guidance=2.5')):
        with pytest.raises(UserError, match="guidance of the teacher's pairs is .*with guidance weights from 0 to 2"):
            second(*refused)
    with pytest.raises(UserError, match='The teacher takes the condition guidance_weight'):
        make_family('consistency', True, borrowed={'teacher': Borrowed(first)})


def test_a_student_that_is_told_the_weight_starts_as_its_teacher(student, batch):
    family, teacher = student()
    taught, own = (Networks(one.networks(nnx.Rngs(seed))) for one, seed in ((teacher, 0), (family, 1)))
    family.initialise(Networks(dict(own), borrowed={'teacher': taught}), batch, jax.random.key(0))
    theirs, ours = (dict(nnx.to_flat_state(nnx.state(one['denoiser'], nnx.Param))) for one in (taught, own))
    assert [path for path in ours if path not in theirs] == [('conditioning', 'numbers', 'guidance_weight', 'kernel')]
    for path, value in theirs.items():
        np.testing.assert_array_equal(ours[path][...], value[...])


def test_pictures_of_samples_have_classes_in_turn_and_no_guidance(student):
    shown = sampling.shown(student()[0], 4, lambda numbers: None, 0)
    np.testing.assert_array_equal(shown['label'], [0, 1, 2, 0])
    np.testing.assert_array_equal(shown['guidance_weight'], np.zeros(4))


@pytest.mark.parametrize(('sampler', 'why'), [
    ('heun:5:guidance=1,interval=0.2-2', 'takes guidance only as a condition'),
    ('heun:5:guidance=1,negative=label=1', 'takes guidance only as a condition'),
    ('ddim:5:guidance=0,renoise=plain', 'takes guidance only as a condition'),
    ('heun:5:2.5', 'is 2.5; this model was trained with guidance weights from 0 to 2'),
    ('heun:5:-0.5', 'is -0.5; this model was trained with guidance weights from 0 to 2'),
])  # fmt: skip
def test_samplers_that_ask_for_more_than_the_model_knows_are_refused(student, sampler, why):
    with pytest.raises(UserError, match=why):
        samplers.parse(sampler, student()[0])


def test_weights_that_nothing_distils_are_refused(student, make_family):
    with pytest.raises(UserError, match='guidance_weight is for a model that distils the guidance of a teacher'):
        make_family('diffusion', True, conditions=('guidance_weight',))
    with pytest.raises(UserError, match='needs a teacher that was trained with other conditions'):
        student(taught=False)
    with pytest.raises(UserError, match='and no guidance in family.coupling'):
        student('pairs:guidance=1')
    with pytest.raises(UserError, match='condition_dropout above 0; this one was trained with 0'):
        student(dropout=0.0)


def test_a_weight_is_said_once(student):
    family, _ = student()
    with pytest.raises(UserError, match='are the same; use only one'):
        draw.check_said(('label=1', 'guidance_weight=1'), samplers.parse('heun:5:1', family))

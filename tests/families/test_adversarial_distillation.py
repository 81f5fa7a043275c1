"""Adversarial distillation with linear discriminators, and of Gaussian data, whose denoiser is known."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from oracles import STD, from_image, isotropic

from genbench import config, families
from genbench.data.spec import DataSpec
from genbench.errors import UserError
from genbench.families.base import Borrowed, Networks
from genbench.interpolants import predictions
from genbench.training import samplers

pytestmark = pytest.mark.unoptimized
PATHS = [('cosine', 'v'), ('straight', 'velocity')]
SPEC = DataSpec('images', (4, 4, 3), levels=256)
HALFWAY = 'logit_normal:mean=0,deviation=0.000001'
every_path = pytest.mark.parametrize(('schedule', 'prediction'), PATHS)


@pytest.fixture
def student_of(make_family):
    def make(schedule='cosine', prediction='v', **options):
        teacher = Borrowed(make_family('diffusion', spec=SPEC, schedule=schedule, prediction=prediction))
        return make_family('adversarial_distillation', spec=SPEC, borrowed={'teacher': teacher}, **options)

    return make


class Exact:
    """A network that predicts what a denoiser does, and whose features are its input and twice its input."""

    def __init__(self, family, denoise):
        self.family, self.denoise = family, denoise

    def __call__(self, x_t, t, given, key=None):
        return predictions.target(self.family.prediction, self.family.schedule, *self.denoise(x_t, t)[:2], t)

    def features(self, x_t, t, given):
        return [x_t, 2 * x_t]


def linear(*weights):
    """Heads whose logits are products of the states' channels with these weights (channels,)."""
    return lambda states, t, given: [state @ jnp.asarray(one) for one, state in zip(weights, states, strict=True)]


def bound(family, image=None, discriminator=None):
    """The exact teacher, a student with the images `image(x_t, t)`, and a discriminator."""
    lent = Networks({'denoiser': Exact(family, isotropic(family.schedule))})
    student = {'student': Exact(family, from_image(family.schedule, image))} if image else {}
    return Networks({**student, 'discriminator': discriminator}, borrowed={'teacher': lent})


def kept(schedule, share):
    """(α, σ, k) at fractions of the way to noise, where the mean image is k x_t."""
    t = jnp.asarray(np.maximum(schedule.t_max * share, schedule.t_min))
    alpha, sigma = np.asarray(schedule.alpha(t), float), np.asarray(schedule.sigma(t), float)
    return alpha, sigma, alpha * STD**2 / (alpha**2 * STD**2 + sigma**2)


@every_path
def test_distillation_and_its_slope_are_integrals_over_even_times(schedule, prediction, student_of, keys):
    """For an image a everywhere the teacher sees α a + σ ε and answers k (α a + σ ε), which has no slope by a."""
    family, a, drawn = student_of(schedule, prediction), 0.7, keys(4000)
    loss = lambda a: family.distillation(bound(family), jnp.full((4000, *SPEC.shape), a), drawn, None)  # noqa: E731
    found, slope = jax.jit(jax.value_and_grad(loss))(a)
    alpha, sigma, k = kept(family.schedule, (np.arange(2000) + 0.5) / 2000)
    weight = alpha / np.hypot(alpha, sigma)
    assert found == pytest.approx((weight * ((1 - k * alpha) ** 2 * a**2 + k**2 * sigma**2)).mean(), rel=0.03)
    assert slope == pytest.approx((weight * 2 * (1 - k * alpha) * a).mean(), rel=0.03)


def test_the_weight_is_alpha_on_the_path_of_the_paper(student_of, keys):
    """With a teacher that always answers 0, the loss of images of ones is the mean of α."""
    family = student_of()
    lent = Networks({'denoiser': Exact(family, from_image(family.schedule, lambda x_t, t: jnp.zeros_like(x_t)))})
    networks = Networks({}, borrowed={'teacher': lent})
    found = family.distillation(networks, jnp.ones((4000, *SPEC.shape)), keys(4000), None)
    assert found == pytest.approx(kept(family.schedule, (np.arange(2000) + 0.5) / 2000)[0].mean(), rel=0.02)


def test_the_discriminator_pays_for_what_is_inside_its_margins_and_for_slopes(student_of, keys):
    """With logits w · x_t, real images r and others f far enough on the wrong sides, hinges are linear: the loss is
    Σ_k 2 + α w (f − r). R1 is the sum over heads and places of ‖w‖²."""
    family = student_of(judged_times=HALFWAY, penalty_weight=0.5)
    weights = (np.array([1.0, 0.5, 0.0]), np.array([0.2, 0.0, 0.3]))
    networks = bound(family, discriminator=linear(*weights))
    images = lambda value: jnp.full((400, *SPEC.shape), value)  # noqa: E731
    alpha = kept(family.schedule, 0.5)[0]
    penalty = 16 * sum((w**2).sum() for w in weights)
    wrong = 4 + alpha * 2 * 30 * (1.5 + 2 * 0.5)
    for real, fake, wanted in ((30.0, -30.0, 0.0), (-30.0, 30.0, wrong)):
        total, told = family.judge.loss(networks, images(real), images(fake), keys(400), None)
        assert told['loss'] == pytest.approx(wanted, rel=1e-2) and told['penalty'] == pytest.approx(penalty, rel=1e-5)
        assert total == pytest.approx(float(told['loss'] + 0.5 * told['penalty']), rel=1e-6)
    slope = jax.grad(lambda f: family.judge.loss(networks, images(0.0), images(f), keys(400), None)[0])(0.3)
    assert slope == 0  # the images belong to the student


def test_the_student_is_paid_by_the_logits_of_its_images(student_of, keys):
    """By logits w · x_t, a student with images b everywhere gets −α Σ_k w, whatever else is in the loss."""
    family = student_of(judged_times=HALFWAY, distillation=0.0)
    weights = (np.array([1.0, 0.5, 0.0]), np.array([0.2, 0.0, 0.3]))
    batch = {'image': jnp.zeros((64, *SPEC.shape), int), 'key': keys(64)}

    def loss(b):
        networks = bound(family, lambda x_t, t: jnp.full_like(x_t, b), linear(*weights))
        return family.loss(networks, batch, jax.random.key(0), 0)[0]

    assert jax.jit(jax.grad(loss))(0.2) == pytest.approx(-kept(family.schedule, 0.5)[0] * 2.5, rel=1e-4)


def test_the_losses_are_added_with_their_weight(student_of, keys):
    batch = {'image': jnp.zeros((8, *SPEC.shape), int), 'key': keys(8)}
    family = student_of(distillation=3.0)
    networks = bound(family, lambda x_t, t: jnp.tanh(x_t), linear(np.ones(3), np.ones(3)))
    total, told = family.loss(networks, batch, jax.random.key(0), 0)
    assert total == pytest.approx(float(told['adversarial'] + 3 * told['distillation']), rel=1e-6)
    assert told['distillation'] > 0.01 and abs(told['adversarial']) > 0.01


def test_the_student_sees_noised_real_images_at_its_times_and_noise_alone_at_the_last(student_of, keys):
    """A student that returns what it sees, with the time in its first pixel."""
    family = student_of(jumps=4)

    def echo(x_t, t):
        return x_t.at[:, 0, 0].set(t[:, 0, 0])

    x = family.images(bound(family, echo), jnp.full((400, *SPEC.shape), 0.6), keys(400), None)
    t, x = np.asarray(x[:, 0, 0, 0]), np.asarray(x[:, 1:])
    for step in (1, 2, 3, 4):
        time = family.schedule.step(jnp.asarray(step), 4)
        here = np.isclose(t, time)
        assert 60 < here.sum() < 140
        wanted = 0.6 * float(family.schedule.alpha(time)) if step < 4 else 0.0
        assert x[here].mean() == pytest.approx(wanted, abs=0.06)
        assert x[here].std() == pytest.approx(float(family.schedule.sigma(time)), abs=0.04)


def test_alternating_updates_take_the_student_to_the_data(student_of, keys):
    """Images of one number, which starts at −0.5 and should become that of the data, 0.5. The discriminator has one
    weight, whose penalty ends the circles of the two players."""
    family = student_of(judged_times=HALFWAY, distillation=0.0, penalty_weight=0.1)
    data = SPEC.quantise(jnp.full((16, *SPEC.shape), 0.5))

    def networks(b, w):
        return bound(family, lambda x_t, t: jnp.full_like(x_t, b), linear(w * jnp.ones(3), 0 * jnp.ones(3)))

    def step(state, keys):
        b, w = state
        batch = {'image': data, 'key': keys}
        w -= 0.02 * jax.grad(lambda w: family.discriminator_loss(networks(b, w), batch, keys[0], 0)[0])(w)
        b -= 0.02 * jax.grad(lambda b: family.loss(networks(b, w), batch, keys[0], 0)[0])(b)
        return (b, w), b

    _, path = jax.jit(lambda keys: jax.lax.scan(step, (-0.5, 0.0), keys))(keys(600 * 16).reshape(600, 16))
    assert path[-200:].mean() == pytest.approx(0.5, abs=0.05)


def test_the_student_starts_as_the_teacher_and_is_updated_after_the_discriminator(built, batch):
    _, lender, borrowed = built('diffusion')
    family, _, _ = built('adversarial_distillation')
    networks = Networks(family.networks(nnx.Rngs(3)), borrowed={'teacher': lender.bind_state(borrowed)})
    family.initialise(networks, batch, jax.random.key(0))
    found = nnx.to_pure_dict(nnx.state(networks['student'], nnx.Param))
    jax.tree.map(np.testing.assert_array_equal, found, borrowed['params']['denoiser'])
    assert [(one.networks, one.every) for one in family.updates] == [(('discriminator',), 1), (('student',), 1)]
    assert family.averaged == ('student',) and family.likelihoods == ()


def test_a_rate_of_its_own_reaches_the_discriminator(student_of):
    assert [dict(one.optimizer) for one in student_of(discriminator_learning_rate=1e-3).updates] == [
        {'learning_rate': 1e-3}, {},
    ]  # fmt: skip
    assert dict(student_of().updates[0].optimizer) == {}


def test_steps_that_were_not_learned_are_refused(student_of):
    family = student_of()
    assert [samplers.parse(f'multistep_consistency:{steps}', family).num_steps for steps in (1, 2, 4)] == [1, 2, 4]
    assert samplers.parse('multistep_consistency', family).num_steps == 4
    with pytest.raises(UserError, match='takes 3 steps, and this model learned to take 4'):
        samplers.parse('multistep_consistency:3', family)


def test_what_a_discriminator_cannot_see_is_refused(student_of):
    with pytest.raises(UserError, match='family.judged_times is .by_weight., which is for losses with a weight'):
        student_of(judged_times='by_weight')
    chosen = {'family': {'name': 'diffusion', 'prediction': 'v', 'schedule': 'cosine'}, 'network': {'name': 'edm2'}}
    teacher = Borrowed(families.get('diffusion')(config.resolve(chosen), SPEC))
    asked = config.resolve({'family': {'name': 'adversarial_distillation', 'teacher': 'a run'}})
    with pytest.raises(UserError, match='The teacher has network.name=edm2, whose features no discriminator can see'):
        families.get('adversarial_distillation')(asked, SPEC, {'teacher': teacher})


def test_the_discriminator_fits_the_features_of_every_kind_of_teacher():
    """Of a U-Net and a DiT: the states are as wide as they say, and each has its head."""
    for network in ({'name': 'unet', 'channels': 8, 'groups': 4}, {'name': 'dit', 'width': 16, 'depth': 2}):
        chosen = {'family': {'name': 'flow_matching', 'conditional': True}, 'network': network}
        spec = DataSpec('images', (4, 4, 3), levels=5, classes=3)
        teacher = families.get('flow_matching')(config.resolve(chosen), spec)
        asked = config.resolve(
            {'family': {'name': 'adversarial_distillation', 'teacher': 'a run', 'conditional': True}}
        )
        family = families.get('adversarial_distillation')(asked, spec, {'teacher': Borrowed(teacher)})

        def judged(teacher=teacher, family=family):
            lent = Networks(teacher.networks(nnx.Rngs(0)))
            networks = Networks(family.networks(nnx.Rngs(1)), borrowed={'teacher': lent})
            keys, given = jax.random.split(jax.random.key(0), 2), {'label': jnp.arange(2)}
            return (
                family.judge.logits(networks, jnp.zeros((2, 4, 4, 3)), keys, given),
                family.judge.features(networks, jnp.zeros((2, 4, 4, 3)), keys, given)[0],
            )

        logits, states = jax.eval_shape(judged)
        widths = nnx.eval_shape(lambda teacher=teacher: teacher.networks(nnx.Rngs(0))['denoiser']).widths
        assert len(logits) == len(states) >= 2
        for one, state, width in zip(logits, states, widths, strict=True):
            assert one.shape == state.shape[:3] and state.shape[3] == width

"""Adversarial distillation with players whose values are known, and a teacher of isotropic Gaussian data."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from oracles import STD, from_image, isotropic
from scipy import integrate

from genbench.data.spec import DataSpec
from genbench.families.base import Borrowed, Networks
from genbench.interpolants import predictions

SPEC = DataSpec('images', (4, 4, 3), levels=256)


class Critic(nnx.Module):
    """A discriminator that is a function without parameters."""

    def __init__(self, function):
        self.function = function

    def __call__(self, x, given=None):
        return self.function(x)


@pytest.fixture
def student_of(make_family):
    def make(schedule='cosine', prediction='v', **options):
        teacher = Borrowed(make_family('diffusion', spec=SPEC, schedule=schedule, prediction=prediction))
        return make_family('adversarial_distillation', spec=SPEC, borrowed={'teacher': teacher}, **options)

    return make


def bound(family, image, critic=lambda x: x.mean((1, 2, 3))):
    """A student whose images are image(x_t), the exact teacher of N(0, STD² I), and a critic."""

    def network(denoise):
        return lambda x_t, t, given, key=None: predictions.target(
            family.prediction, family.schedule, *denoise(x_t, t)[:2], t
        )

    student = network(from_image(family.schedule, lambda x_t, t: image(x_t)))
    lent = Networks({'denoiser': network(isotropic(family.schedule))})
    return Networks({'student': student, 'discriminator': Critic(critic)}, borrowed={'teacher': lent})


def rows(keys, count, level=128):
    return {'image': jnp.full((count, *SPEC.shape), level), 'key': keys(count)}


@pytest.mark.parametrize(('schedule', 'prediction'), [('cosine', 'v'), ('straight', 'velocity')])
def test_the_teachers_term_and_its_slope_are_the_integrals_over_time(schedule, prediction, student_of, keys):
    """For images c everywhere the teacher gives k (α c + σ ε) with k = α STD² / (α² STD² + σ²). No gradient passes
    through what it sees, so the slope by c is that of (c − m)² at the mean m of its images."""
    family, batch, c = student_of(schedule, prediction), rows(keys, 4000), 0.4

    def value(c):
        return family.disagreement(bound(family, None), batch, jnp.full((4000, *SPEC.shape), c)).mean()

    def over_time(term):
        def at(share):
            t = jnp.asarray(share * family.schedule.t_max)
            alpha, sigma = float(family.schedule.alpha(t)), float(family.schedule.sigma(t))
            return alpha * term(alpha * STD**2 / (alpha**2 * STD**2 + sigma**2), alpha, sigma)

        return integrate.quad(at, 0, 1, limit=20, epsrel=1e-3)[0]

    found, slope = jax.jit(jax.value_and_grad(value))(c)
    wanted = over_time(lambda k, alpha, sigma: c**2 * (1 - k * alpha) ** 2 + (k * sigma) ** 2)
    assert found == pytest.approx(wanted, rel=0.03)
    assert slope == pytest.approx(over_time(lambda k, alpha, sigma: 2 * c * (1 - k * alpha)), rel=0.03)


def test_the_players_have_the_hinge_loss(student_of, keys):
    """D is the mean of an image: −0.6 for the student's, and about 0 for the real ones, whose slope is 1 / d."""
    family, batch = student_of(penalty_weight=48.0, distillation=2.0), rows(keys, 500)
    networks = bound(family, lambda x_t: jnp.full_like(x_t, -0.6))
    loss, told = family.discriminator_loss(networks, batch, jax.random.key(0), 0)
    assert told['loss'] == pytest.approx(1.0 + 0.4, abs=0.01) and told['penalty'] == pytest.approx(1 / 48, rel=1e-4)
    assert float(loss) == pytest.approx(float(told['loss']) + 1, rel=1e-4)
    loss, told = family.loss(networks, batch, jax.random.key(0), 0)
    assert told['adversarial'] == pytest.approx(0.6, abs=1e-5)
    assert float(loss) == pytest.approx(0.6 + 2 * float(told['distillation']), rel=1e-5)


def test_the_student_sees_noisy_real_images_at_its_times(student_of, keys):
    """White images: their mean at each of the four times is α, and the deviation is σ."""
    family, batch, seen = student_of(), rows(keys, 400, level=255), {}
    real = jnp.ones((400, *SPEC.shape))

    def student(x_t, t, given, key=None):
        seen.update(x=np.asarray(x_t), t=np.asarray(t))
        return x_t

    family.images(Networks({'student': student}), batch, real)
    for step in (1, 2, 3, 4):
        time = family.schedule.step(jnp.asarray(step), 4)
        here = np.isclose(seen['t'], time)
        assert 65 < here.sum() < 135
        assert seen['x'][here].mean() == pytest.approx(float(family.schedule.alpha(time)), abs=0.05)
        assert seen['x'][here].std() == pytest.approx(float(family.schedule.sigma(time)), abs=0.05)


def test_the_discriminator_moves_first_and_only_the_student_is_averaged(make_family):
    family = make_family('adversarial_distillation')
    assert [update.networks for update in family.updates] == [('discriminator',), ('student',)]
    assert family.averaged == ('student',) and family.default_steps == 4 and family.likelihoods == ()

"""Losses of pairs, and penalties of both players' images, with critics whose values are known."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from genbench.errors import UserError
from genbench.families import adversarial
from genbench.families.base import Networks

WEIGHTS = np.linspace(-1, 1, 48).reshape(4, 4, 3)


class Player(nnx.Module):
    """A network that is a function without parameters."""

    def __init__(self, function):
        self.function = function

    def __call__(self, x, given):
        return self.function(x, given)


def players(discriminator, image=0.0):
    fake = lambda z, given: jnp.full((len(z), 4, 4, 3), image)  # noqa: E731
    return Networks({'discriminator': Player(discriminator), 'generator': fake})


def quadratic(x, given):
    return (x**2).sum((1, 2, 3)) / 2


@pytest.mark.parametrize(('real', 'fake'), [(2.0, -3.0), (-0.5, 0.25), (30.0, 30.0)])
def test_the_relativistic_loss_sees_only_the_difference_of_a_pair(real, fake, make_family, batch):
    """log(1 + e^−(D(x) − D(G(z)))) for the discriminator, and the same with the sign turned for the generator."""
    family = make_family('gan', loss='relativistic', penalty='none')
    critic = players(lambda x, given: jnp.where(jnp.abs(x).max((1, 2, 3)) > 0, real, fake))
    _, scalars = family.discriminator_loss(critic, batch, jax.random.key(0), jnp.zeros(()))
    paid, _ = family.generator_loss(critic, batch, jax.random.key(0), jnp.zeros(()))
    assert scalars['loss'] == pytest.approx(np.log1p(np.exp(fake - real)), rel=1e-5)
    assert paid == pytest.approx(np.log1p(np.exp(real - fake)), rel=1e-5)
    assert scalars['accuracy'] == (real > fake)


def test_pairs_are_of_one_row(make_family, batch):
    """The sum over pairs of softplus is not that of the means: each image of the batch meets its own fake."""
    family = make_family('gan', loss='relativistic', penalty='none')
    ramp = 10 * jnp.arange(8.0)
    critic = players(lambda x, given: jnp.where(jnp.abs(x).max((1, 2, 3)) > 0, ramp, ramp[::-1]))
    _, scalars = family.discriminator_loss(critic, batch, jax.random.key(0), jnp.zeros(()))
    difference = np.arange(8) * 10.0 - np.arange(8)[::-1] * 10.0
    assert scalars['loss'] == pytest.approx(np.log1p(np.exp(-difference)).mean(), rel=1e-5)


def test_r2_adds_the_slope_at_fake_images(make_family, batch):
    """The gradient of ‖x‖² / 2 is x: the fakes are constant, so R2 is 48 · 0.5²."""
    scalars = {
        name: make_family('gan', penalty=name).discriminator_loss(
            players(quadratic, 0.5), batch, jax.random.key(0), jnp.zeros(())
        )[1]
        for name in ('r1', 'r1_r2')
    }
    assert scalars['r1_r2']['penalty'] - scalars['r1']['penalty'] == pytest.approx(48 * 0.25, rel=1e-5)


@pytest.mark.parametrize('penalty', ['r1', 'r1_r2'])
def test_penalties_of_a_linear_critic_are_its_squared_norm(penalty, make_family, batch):
    family = make_family('gan', penalty=penalty, penalty_weight=3.0)
    linear = players(lambda x, given: (x * WEIGHTS).sum((1, 2, 3)))
    total, scalars = family.discriminator_loss(linear, batch, jax.random.key(0), jnp.zeros(()))
    terms = {'r1': 1, 'r1_r2': 2}[penalty]
    assert total - scalars['loss'] == pytest.approx(1.5 * terms * (WEIGHTS**2).sum(), rel=1e-4)


@pytest.mark.parametrize(('share', 'left'), [(0.0, 1.0), (0.5, 0.55), (1.0, 0.1), (2.0, 0.1)])
def test_the_weight_of_the_penalty_falls_along_half_a_cosine(share, left, make_family, batch):
    family = make_family('gan', penalty_falls_to=0.1)
    step = jnp.asarray(share * family.config.train.num_steps)
    total, scalars = family.discriminator_loss(players(quadratic), batch, jax.random.key(0), step)
    assert (total - scalars['loss']) / (scalars['penalty'] / 2) == pytest.approx(left, rel=1e-4)


@pytest.mark.parametrize(('key', 'value'), [('penalty_falls_to', 0.1), ('penalty_every', 4)])
def test_options_of_a_penalty_that_is_not_paid_are_refused(key, value, make_family):
    with pytest.raises(UserError, match=f'family.{key} is {value}, but family.penalty=none pays nothing'):
        make_family('gan', penalty='none', **{key: value})


def test_orthogonality_is_that_of_the_columns_of_each_kernel():
    """Σ over pairs of different outputs of their squared products, by numpy; a large rotation pays nothing."""
    layer = nnx.Conv(3, 4, (2, 2), rngs=nnx.Rngs(0))
    columns = np.asarray(layer.kernel[...], np.float64).reshape(12, 4).T
    wanted = sum((one @ other) ** 2 for i, one in enumerate(columns) for j, other in enumerate(columns) if i != j)
    assert adversarial.orthogonality(layer) == pytest.approx(wanted, rel=1e-4)
    rotation = nnx.Linear(4, 4, rngs=nnx.Rngs(0))
    rotation.kernel[...] = 3 * jnp.asarray(np.linalg.qr(np.random.default_rng(0).normal(size=(4, 4)))[0], jnp.float32)
    assert adversarial.orthogonality(rotation) == pytest.approx(0, abs=1e-8)


def test_the_generator_pays_for_it(make_family, batch):
    class Plain(nnx.Module):
        def __init__(self):
            self.layer = nnx.Linear(4, 48, rngs=nnx.Rngs(0))

        def __call__(self, z, given):
            return self.layer(z).reshape(-1, 4, 4, 3)

    networks = Networks({'discriminator': lambda x, given: x.sum((1, 2, 3)), 'generator': Plain()})
    plain, paid = (make_family('gan', orthogonality=weight).generator_loss(networks, batch, None, jnp.zeros(()))[0]
                   for weight in (0.0, 0.5))  # fmt: skip
    assert paid - plain == pytest.approx(float(0.5 * adversarial.orthogonality(networks['generator'])), rel=1e-3)

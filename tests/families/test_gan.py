"""The adversarial losses with players whose values are known."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from genbench.families.base import Networks

WEIGHTS = np.linspace(-1, 1, 48).reshape(4, 4, 3)


def players(discriminator):
    return Networks({'discriminator': discriminator, 'generator': lambda z, labels: jnp.zeros((len(z), 4, 4, 3))})


def linear(x, labels):
    return (x * WEIGHTS).sum((1, 2, 3))


@pytest.mark.parametrize('weight', [0.0, 1.0, 10.0])
def test_r1_of_a_linear_critic_is_half_gamma_times_its_squared_norm(weight, make_family, batch):
    family = make_family('gan', r1_weight=weight)
    total, scalars = family.discriminator_loss(players(linear), batch, jax.random.key(0), jnp.zeros(()))
    assert scalars['r1'] == pytest.approx((WEIGHTS**2).sum(), rel=1e-5)
    assert total - scalars['loss'] == pytest.approx(weight / 2 * (WEIGHTS**2).sum(), rel=1e-4, abs=1e-6)


def test_r1_is_taken_at_each_real_image(make_family, batch):
    """The gradient of ‖x‖² / 2 is x, so the penalty is the mean squared norm of the dequantised images."""
    family, seen = make_family('gan'), []

    def quadratic(x, labels):
        seen.append(x)
        return (x**2).sum((1, 2, 3)) / 2

    _, scalars = family.discriminator_loss(players(quadratic), batch, jax.random.key(0), jnp.zeros(()))
    centres = family.spec.dequantise(batch['image'])
    assert scalars['r1'] == pytest.approx(float((centres**2).sum((1, 2, 3)).mean()), rel=0.1)
    low, high = family.spec.dequantise(batch['image'], 0), family.spec.dequantise(batch['image'], 1)
    norms = [np.sort(np.abs([low, high]), axis=0)[i] ** 2 for i in range(2)]
    assert norms[0].sum((1, 2, 3)).mean() - 1 < scalars['r1'] < norms[1].sum((1, 2, 3)).mean()


def test_an_undecided_critic_costs_log_four_and_its_generator_log_two(make_family, batch):
    family = make_family('gan')
    undecided = players(lambda x, labels: jnp.zeros(len(x)))
    loss, scalars = family.discriminator_loss(undecided, batch, jax.random.key(0), jnp.zeros(()))
    assert loss == pytest.approx(np.log(4)) and scalars['r1'] == 0
    assert family.generator_loss(undecided, batch, jax.random.key(0), jnp.zeros(()))[0] == pytest.approx(np.log(2))


def test_accuracy_counts_both_kinds_of_images(make_family, batch):
    family = make_family('gan')
    sharp = players(lambda x, labels: jnp.where(jnp.abs(x).max((1, 2, 3)) > 0, 1.0, -1.0) * 50)
    _, scalars = family.discriminator_loss(sharp, batch, jax.random.key(0), jnp.zeros(()))
    assert scalars['accuracy'] == 1 and scalars['loss'] == pytest.approx(0, abs=1e-6)


def test_a_saturated_generator_still_learns(make_family, batch):
    """The non-saturating loss has slope −1 in the logit of a fake that is certainly recognised."""
    family = make_family('gan')

    def loss(logit):
        networks = players(lambda x, labels: jnp.full(len(x), logit))
        return family.generator_loss(networks, batch, jax.random.key(0), jnp.zeros(()))[0]

    assert jax.grad(loss)(-30.0) == pytest.approx(-1)


def test_a_gan_has_no_likelihood_and_averages_its_generator_alone(make_family):
    family = make_family('gan')
    assert family.likelihoods == ()
    assert [average.networks for average in family.averages] == [('generator',)]


def test_the_discriminator_moves_first_and_may_have_its_own_learning_rate(make_family):
    first, second = make_family('gan', discriminator_learning_rate=0.5).updates
    assert (first.networks, second.networks) == (('discriminator',), ('generator',))
    assert (first.optimizer, second.optimizer) == ({'learning_rate': 0.5}, {})
    assert make_family('gan').updates[0].optimizer == {}

"""The adversarial losses with players whose values are known."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from scipy import stats

from genbench import config as configs
from genbench.errors import UserError
from genbench.families.base import Networks
from genbench.training.loop import train
from genbench.training.state import Blueprint

WEIGHTS = np.linspace(-1, 1, 48).reshape(4, 4, 3)
NORM = np.sqrt((WEIGHTS**2).sum())


class Player(nnx.Module):
    """A network that is a function without parameters."""

    def __init__(self, function):
        self.function = function

    def __call__(self, x, given):
        return self.function(x, given)


def players(discriminator):
    fake = lambda z, given: jnp.zeros((len(z), 4, 4, 3))  # noqa: E731
    return Networks({'discriminator': Player(discriminator), 'generator': fake})


def linear(x, given):
    return (x * WEIGHTS).sum((1, 2, 3))


@pytest.mark.parametrize('weight', [0.0, 1.0, 10.0])
def test_r1_of_a_linear_critic_is_half_gamma_times_its_squared_norm(weight, make_family, batch):
    family = make_family('gan', penalty_weight=weight)
    total, scalars = family.discriminator_loss(players(linear), batch, jax.random.key(0), jnp.zeros(()))
    assert scalars['penalty'] == pytest.approx(NORM**2, rel=1e-5)
    assert total - scalars['loss'] == pytest.approx(weight / 2 * NORM**2, rel=1e-4, abs=1e-6)


@pytest.mark.parametrize('scale', [0.0, 1 / NORM, 1.0])
def test_the_gradient_penalty_of_a_linear_critic_is_the_squared_distance_of_its_norm_from_one(
    scale, make_family, batch
):
    family = make_family('gan', loss='wasserstein', penalty='gradient_penalty', penalty_weight=10.0)
    critic = players(lambda x, given: scale * linear(x, given))
    total, scalars = family.discriminator_loss(critic, batch, jax.random.key(0), jnp.zeros(()))
    wanted = (scale * NORM - 1) ** 2
    assert scalars['penalty'] == pytest.approx(wanted, rel=1e-5, abs=1e-6)
    assert total - scalars['loss'] == pytest.approx(10 * wanted, rel=1e-4, abs=1e-4)


def test_the_gradient_penalty_is_taken_on_the_lines_between_real_and_fake_images(make_family, batch, keys):
    """The gradient of ‖x‖² / 2 is x, and the fakes are zero: the norms are uniform shares of those of real images."""
    family = make_family('gan', penalty='gradient_penalty')
    same = {name: jnp.repeat(values[:1], 4000, axis=0) for name, values in batch.items() if name != 'key'}
    batch = {**same, 'key': keys(4000)}
    quadratic = players(lambda x, given: (x**2).sum((1, 2, 3)) / 2)
    _, scalars = family.discriminator_loss(quadratic, batch, jax.random.key(0), jnp.zeros(()))
    centre = np.asarray(family.spec.dequantise(batch['image'][0]))
    norm = np.sqrt((centre**2).sum() + 48 * 0.4**2 / 12)  # the latter from the draws in the bins
    assert scalars['penalty'] == pytest.approx(norm**2 / 3 - norm + 1, rel=0.05)  # E (s‖x‖ − 1)², s uniform


def test_without_a_penalty_none_is_paid(make_family, batch):
    family = make_family('gan', penalty='none', penalty_weight=5.0)
    total, scalars = family.discriminator_loss(players(linear), batch, jax.random.key(0), jnp.zeros(()))
    assert total == scalars['loss'] and scalars['penalty'] == 0


def softplus(x):
    return np.log1p(np.exp(x))


LOSSES = {  # of the discriminator and of the generator, from the logits of real and fake images
    'non_saturating': lambda real, fake: (softplus(-real) + softplus(fake), softplus(-fake)),
    'wasserstein': lambda real, fake: (fake - real, -fake),
    'hinge': lambda real, fake: (max(0, 1 - real) + max(0, 1 + fake), -fake),
}


@pytest.mark.parametrize('logits', [(2.0, -3.0), (-0.5, 0.25), (0.0, 0.0)])
@pytest.mark.parametrize('loss', LOSSES)
def test_each_loss_is_its_papers(loss, logits, make_family, batch):
    family, (real, fake) = make_family('gan', loss=loss), logits
    critic = players(lambda x, given: jnp.where(jnp.abs(x).max((1, 2, 3)) > 0, real, fake))
    _, scalars = family.discriminator_loss(critic, batch, jax.random.key(0), jnp.zeros(()))
    paid, _ = family.generator_loss(critic, batch, jax.random.key(0), jnp.zeros(()))
    assert (scalars['loss'], paid) == pytest.approx(LOSSES[loss](real, fake), abs=1e-6)


def test_r1_is_taken_at_each_real_image(make_family, batch):
    """The gradient of ‖x‖² / 2 is x, so the penalty is the mean squared norm of the dequantised images."""
    family, seen = make_family('gan'), []

    def quadratic(x, given):
        seen.append(x)
        return (x**2).sum((1, 2, 3)) / 2

    _, scalars = family.discriminator_loss(players(quadratic), batch, jax.random.key(0), jnp.zeros(()))
    centres = family.spec.dequantise(batch['image'])
    assert scalars['penalty'] == pytest.approx(float((centres**2).sum((1, 2, 3)).mean()), rel=0.1)
    low, high = family.spec.dequantise(batch['image'], 0), family.spec.dequantise(batch['image'], 1)
    norms = [np.sort(np.abs([low, high]), axis=0)[i] ** 2 for i in range(2)]
    assert norms[0].sum((1, 2, 3)).mean() - 1 < scalars['penalty'] < norms[1].sum((1, 2, 3)).mean()


def test_an_undecided_critic_costs_log_four_and_its_generator_log_two(make_family, batch):
    family = make_family('gan')
    undecided = players(lambda x, given: jnp.zeros(len(x)))
    loss, scalars = family.discriminator_loss(undecided, batch, jax.random.key(0), jnp.zeros(()))
    assert loss == pytest.approx(np.log(4)) and scalars['penalty'] == 0
    assert family.generator_loss(undecided, batch, jax.random.key(0), jnp.zeros(()))[0] == pytest.approx(np.log(2))


def test_accuracy_counts_both_kinds_of_images(make_family, batch):
    family = make_family('gan')
    sharp = players(lambda x, given: jnp.where(jnp.abs(x).max((1, 2, 3)) > 0, 1.0, -1.0) * 50)
    _, scalars = family.discriminator_loss(sharp, batch, jax.random.key(0), jnp.zeros(()))
    assert scalars['accuracy'] == 1 and scalars['loss'] == pytest.approx(0, abs=1e-6)


def test_a_saturated_generator_still_learns(make_family, batch):
    """The non-saturating loss has slope −1 in the logit of a fake that is certainly recognised."""
    family = make_family('gan')

    def loss(logit):
        networks = players(lambda x, given: jnp.full(len(x), logit))
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


def test_a_critic_may_take_several_steps_for_one_of_the_generator(make_family):
    assert [update.every for update in make_family('gan', critic_steps=5).updates] == [1, 5]


def test_the_decay_of_a_rare_update_ends_with_the_run(make_family):
    family = make_family('gan', critic_steps=5)
    with family.config.unlocked():
        family.config.train.num_steps = 20
        family.config.optimizer.update({'name': 'sgd', 'schedule': 'linear', 'warmup_steps': 0, 'clip_norm': 0.0})
    optimizer = Blueprint(family).optimizers['generator']
    ones, sizes = {'generator': jnp.ones(())}, []
    state = optimizer.init(ones)
    for _ in range(5):
        change, state = optimizer.update(ones, state, ones)
        sizes.append(-float(change['generator']) / family.config.optimizer.learning_rate)
    assert sizes == pytest.approx([1, 0.75, 0.5, 0.25, 0], abs=1e-6)  # it runs on steps 0, 5, 10 and 15


def test_micro_batches_are_refused_where_the_generator_takes_statistics_of_the_batch(tmp_path):
    options = {'hidden': (8,), 'discriminator_hidden': (8,), 'pieces': 2}
    resolved = configs.resolve({
        'family': {'name': 'gan', 'penalty': 'none'}, 'network': {'name': 'maxout', **options},
        'train': {'num_steps': 1, 'batch_size': 8, 'accumulate': 2},
    })  # fmt: skip
    with pytest.raises(UserError, match='accumulate is 2, but the update discriminator changes generator/norms/0/mean'):
        train(resolved, tmp_path / 'run', quiet=True)


@pytest.mark.parametrize(
    ('option', 'value', 'why'),
    [
        ('loss', 'wassersten', 'family.loss.*Did you mean wasserstein'),
        ('penalty', 'gradient', 'family.penalty.*Did you mean gradient_penalty'),
        ('critic_steps', 0, 'at least 1'),
    ],
)
def test_options_that_do_not_exist_are_refused(option, value, why, make_family):
    with pytest.raises(UserError, match=why):
        make_family('gan', **{option: value})


def test_the_latent_model_is_a_normal_around_the_generators_image(make_family, batch, keys):
    family = make_family('gan')
    networks = {'generator': lambda z, given: jnp.tanh(z[:, :3])[:, None, None] * jnp.ones((1, 4, 4, 1))}
    model = family.latent_model(networks, None)
    z = jax.random.normal(jax.random.key(1), (8, *model.latent_shape))
    x = model.observe(batch['image'], keys(8))
    np.testing.assert_array_equal(family.spec.quantise(x), batch['image'])
    scale = family.config.evaluation.ais.observation_scale
    wanted = stats.norm.logpdf(x, np.tanh(z[:, None, None, :3]), scale).sum((1, 2, 3)) + 48 * np.log(2 / 5)
    np.testing.assert_allclose(model.log_likelihood(z, x), wanted, rtol=1e-5)
    residual = np.asarray(model.draw(z, keys(8))) - np.tanh(z[:, None, None, :3])
    assert residual.std() == pytest.approx(scale, rel=0.15) and abs(residual.mean()) < 5 * scale / np.sqrt(384)


def test_a_pack_has_the_images_that_follow_each_other_as_channels(make_family):
    packed = make_family('gan', pack=2)._packed
    images = np.random.default_rng(0).normal(size=(6, 4, 4, 2))
    wanted = [np.concatenate(images[start : start + 2], axis=-1) for start in (0, 2, 4)]
    np.testing.assert_allclose(packed(jnp.asarray(images)), wanted, rtol=1e-6)


def test_a_packed_discriminator_judges_several_images_by_one_logit(make_family, batch):
    """Oracle: the loss of packs of real images and of packs of zeros, by numpy."""
    family = make_family('gan', pack=2, penalty='none')
    weights = np.linspace(-1, 1, 96).reshape(4, 4, 6)
    critic = players(lambda x, given: (x * weights).sum((1, 2, 3)) + 0.3)
    loss, scalars = family.discriminator_loss(critic, batch, jax.random.key(0), jnp.zeros(()))
    real = np.asarray(family.space.encode(critic, batch))
    logits = [(np.concatenate(pair, axis=-1) * weights).sum() + 0.3 for pair in real.reshape(4, 2, 4, 4, 3)]
    assert loss == pytest.approx(softplus(-np.array(logits)).mean() + softplus(0.3), rel=1e-4)
    paid, _ = family.generator_loss(critic, batch, jax.random.key(0), jnp.zeros(()))
    assert paid == pytest.approx(softplus(-0.3), rel=1e-5)


@pytest.mark.parametrize(
    ('options', 'why'),
    [
        ({'pack': 7}, 'a pack of this size does not divide a .micro-.batch of'),
        ({'pack': 2, 'conditional': True}, 'has no common condition'),
    ],
)
def test_packs_that_cannot_be_formed_are_refused(options, why, make_family):
    with pytest.raises(UserError, match=why):
        make_family('gan', **options)

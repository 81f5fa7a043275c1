"""The controller of adaptive augmentation, and discriminators behind an augmentation."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from scipy import ndimage

from genbench.errors import UserError
from genbench.families import augmented
from genbench.families.base import Networks
from genbench.training.state import Blueprint


@pytest.mark.parametrize('target', [0.3, 0.6])
def test_the_controller_holds_its_target(target):
    """Of logits whose signs agree the less the higher p is: E sign = 1 − 2 p, so p settles at (1 − target) / 2."""
    controller, rng, found = augmented.Controller(), np.random.default_rng(0), []
    hear = nnx.jit(lambda controller, logits, step: controller.hear(logits, step, target, 5000))
    for step in range(1200):
        p = float(controller.probability[...])
        hear(controller, jnp.asarray(np.where(rng.uniform(size=50) < p, -1.0, 1.0)), jnp.asarray(step))
        found.append(p)
    assert np.mean(found[600:]) == pytest.approx((1 - target) / 2, abs=0.03)


def test_the_probability_moves_by_the_share_of_images_every_four_steps():
    controller = augmented.Controller()
    for step in range(8):
        controller.hear(jnp.ones(10), jnp.asarray(step), 0.6, 1000)
        assert float(controller.probability[...]) == pytest.approx(0.04 * ((step + 1) // 4))
    for step in range(12):
        controller.hear(-jnp.ones(10), jnp.asarray(step), 0.6, 1000)
    assert controller.probability[...] == 0


class Critic(nnx.Module):
    def __call__(self, x, given):
        return x.sum((1, 2, 3))


def test_the_controller_is_in_the_state_and_hears_only_discriminators(make_family, batch):
    family = make_family('gan', augmentation='bgc', augmentation_images=1000)
    assert set(Blueprint(family).shapes['aux']['augmentation']) == {'probability', 'signs'}
    controller = augmented.Controller()
    networks = Networks({
        'discriminator': Critic(), 'generator': lambda z, given: jnp.zeros((len(z), 4, 4, 3)),
        'augmentation': controller,
    })  # fmt: skip
    _, scalars = family.discriminator_loss(networks, batch, jax.random.key(0), jnp.asarray(3))
    assert abs(float(controller.probability[...])) <= 4 * 8 / 1000 and controller.signs[...] == 0
    assert scalars['augmentation'] == controller.probability[...]
    family.generator_loss(networks, batch, jax.random.key(0), jnp.asarray(3))
    assert controller.signs[...] == 0


@pytest.mark.parametrize('spread', [0.0, 0.4, 2.0, 10.0])
def test_a_blur_is_the_filter_of_scipy(spread):
    """The taps 2^−(d / σ)² at distances d up to ⌊3 σ⌋, divided by their sum, with zeros around the image."""
    x = np.random.default_rng(0).normal(size=(2, 12, 12, 3))
    reach = int(3 * spread)
    taps = 2.0 ** -((np.arange(-reach, reach + 1) / (spread or 1)) ** 2)
    wanted = x
    for axis in (1, 2):
        wanted = ndimage.correlate1d(wanted, taps / taps.sum(), axis, mode='constant')
    np.testing.assert_allclose(augmented.blurred(jnp.asarray(x), jnp.asarray(spread), 10.0), wanted, atol=1e-5)


def test_a_blur_fades_over_its_images(make_family, batch):
    """Batches of 8 images: of a spread of 10 pixels that lasts for 160 images, half is left after 10 steps."""
    family = make_family('gan', blur=10.0, blur_images=8 * 20)
    family.config.train.batch_size = 8
    critics = [
        family._critic(Networks({'discriminator': Critic()}), batch['key'], step, 'real') for step in (0, 10, 99)
    ]
    assert [float(one.spread[...]) for one in critics] == [10, 5, 0]


@pytest.mark.parametrize('named', ['none', 'diffaugment'])
def test_no_other_augmentation_has_a_state(named, make_family):
    assert 'augmentation' not in Blueprint(make_family('gan', augmentation=named)).shapes['aux']


def test_a_fixed_probability_rises_along_half_a_cosine(make_family, batch):
    family = make_family('gan', augmentation='bgc_cutout', augmentation_probability=0.5)
    assert 'augmentation' not in Blueprint(family).shapes['aux']
    networks, steps = Networks({'discriminator': Critic()}), family.config.train.num_steps
    seen = [family._critic(networks, batch['key'], jnp.asarray(share * steps), 'real') for share in (0, 0.5, 1)]
    assert [float(one.probability[...]) for one in seen] == pytest.approx([0, 0.25, 0.5])


def test_real_and_fake_images_are_augmented_alike_but_not_the_same(make_family, batch):
    family = make_family('gan', augmentation='diffaugment')
    networks, x = Networks({'discriminator': Critic()}), jnp.ones((8, 4, 4, 3))
    real, fake = (family._critic(networks, batch['key'], jnp.zeros(()), kind)(x, None) for kind in ('real', 'fake'))
    assert (np.asarray(real) != np.asarray(fake)).all()
    again = family._critic(networks, batch['key'], jnp.zeros(()), 'fake')(x, None)
    np.testing.assert_array_equal(again, fake)


@pytest.mark.parametrize('named', ['none', 'diffaugment'])
def test_a_probability_of_an_augmentation_that_takes_none_is_refused(named, make_family):
    with pytest.raises(UserError, match=f'augmentation_probability is set, but family.augmentation={named} has none'):
        make_family('gan', augmentation=named, augmentation_probability=0.5)


def test_an_augmentation_that_does_not_exist_is_refused(resolve):
    with pytest.raises(UserError, match="family.augmentation is 'diffaugmnt'.*Did you mean diffaugment"):
        resolve('gan', augmentation='diffaugmnt')

"""Networks that grow continue where the smaller ones were, and fade their new layers in."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from genbench import config, families
from genbench.data.spec import DataSpec
from genbench.errors import UserError
from genbench.families import stages
from genbench.families.base import Networks
from genbench.networks import progressive

SPEC = DataSpec('images', (12, 12, 3), levels=5, classes=3)
SMALL = {'name': 'progressive', 'channels': 4, 'multipliers': (1, 2, 3), 'latent': 5, 'compared': 2}
BATCH, STEPS = 4, 50  # the first of the stages has half the length of the others, so their ends are 10, 30 and 50


def make(**options):
    changes = {
        'family': {'name': 'progressive_gan', **options},
        'network': SMALL,
        'train': {'num_steps': STEPS, 'batch_size': BATCH},
    }
    return families.get('progressive_gan')(config.resolve(changes), SPEC)


@pytest.fixture(scope='module')
def grown():
    """(family, networks) of each stage. The first is random, and the others took over what they could."""
    whole, found = make(conditional=True), []
    for number, stage in enumerate(whole.stages):
        family = whole.at(stage.name)
        networks = Networks(family.networks(nnx.Rngs(number)))
        if found:
            family.carry(found[-1][1], networks)
        found.append((family, networks))
    return found


def sized(height, count=BATCH):
    images = np.random.default_rng(0).uniform(-1, 1, (count, height, height, 3))
    return jnp.asarray(images, jnp.float32), {'label': jnp.arange(count) % 3}


def test_both_networks_of_1024_pixels_have_the_published_number_of_parameters():
    """23.1 million each (table 2), and with the layers for images of 4 to 256 pixels those of the authors' code.

    These layers write or read 3 colours, with 2,496 channels in all, and have a bias for each colour or channel.
    """
    options = {'channels': 16, 'multipliers': (1, 2, 4, 8, 16, 32, 32, 32, 32)}
    kinds = (progressive.Generator, {'latent': 512}, 7 * 3, 23_079_115), (
        progressive.Discriminator, {'compared': 4}, 2496, 23_087_249
    )  # fmt: skip
    for kind, own, biases, wanted in kinds:
        made = nnx.eval_shape(lambda kind=kind, own=own: kind(1024, 3, {}, rngs=nnx.Rngs(0), **options, **own))
        found = sum(leaf.size for leaf in jax.tree.leaves(nnx.state(made, nnx.Param)))
        assert found + 3 * 2496 + biases == wanted and round(found / 1e6, 1) == 23.1


def test_stages_have_the_lengths_of_the_paper():
    """800,000 images at the lowest resolution, then 800,000 to fade in and as many more, for each that follows."""
    long = make(stage_images=1_600_000)
    assert [stage.shape for stage in long.stages] == [(3, 3), (6, 6), None]
    assert [stage.until for stage in long.stages] == [800_000 // BATCH, 2_400_000 // BATCH, None]
    assert [stage.until for stage in make().stages] == [10, 30, None]
    assert [span.stop for span in stages.spans(make())] == [10, 30, 50]


def test_a_resolution_fades_in_during_the_first_part_of_its_stage(grown):
    shares = [[float(family._share(jnp.asarray(step))) for step in range(STEPS)] for family, _ in grown]
    assert shares[0] == [1.0] * STEPS
    np.testing.assert_allclose(shares[1][10:21], np.linspace(0, 1, 11), atol=1e-6)
    np.testing.assert_allclose(shares[2][30:], np.clip(np.arange(20) / 10, 0, 1), atol=1e-6)


@pytest.mark.parametrize('number', [1, 2])
def test_a_stage_begins_with_what_the_networks_of_the_stage_before_do(number, grown):
    (_, old), (family, new) = grown[number - 1 : number + 1]
    z = jnp.asarray(np.random.default_rng(1).normal(size=(BATCH, 5)), jnp.float32)
    images, given = sized(family.spec.shape[0])
    family._fade(new, jnp.asarray(family.span.first))
    before = old['generator'](z, given)
    np.testing.assert_allclose(new['generator'](z, given), np.kron(before, np.ones((1, 2, 2, 1))), atol=1e-5)
    means = images.reshape(BATCH, images.shape[1] // 2, 2, images.shape[2] // 2, 2, 3).mean((2, 4))
    np.testing.assert_allclose(new['discriminator'](images, given), old['discriminator'](means, given), atol=1e-5)
    family._fade(new, jnp.asarray(STEPS))
    assert np.abs(new['generator'](z, given) - np.kron(before, np.ones((1, 2, 2, 1)))).max() > 0.1
    assert np.abs(new['discriminator'](images, given) - old['discriminator'](means, given)).max() > 0.01


def test_half_way_images_are_the_mean_of_both_and_real_ones_too(grown):
    family, networks = grown[2]
    z, (images, given) = jnp.ones((2, 5)), sized(12, 2)

    def at(share):
        networks['generator'].fade[...] = jnp.asarray(share)
        return np.asarray(networks['generator'](z, given))

    np.testing.assert_allclose(at(0.5), (at(0.0) + at(1.0)) / 2, atol=1e-6)
    blocks = images.reshape(2, 6, 2, 6, 2, 3)
    wanted = 0.75 * images + 0.25 * jnp.broadcast_to(blocks.mean((2, 4), keepdims=True), blocks.shape).reshape(
        images.shape
    )
    np.testing.assert_allclose(progressive.blurred(images, jnp.asarray(0.75)), wanted, atol=1e-6)


def test_pixels_of_features_have_a_mean_square_of_one():
    x = jnp.asarray(np.random.default_rng(0).normal(size=(2, 3, 3, 64)) * 7, jnp.float32)
    np.testing.assert_allclose(np.square(progressive.normalised(x)).mean(-1), 1, rtol=1e-5)


def test_the_drift_is_a_weighted_mean_of_squares(make_family, batch):
    networks = Networks({
        'discriminator': lambda x, given: jnp.arange(len(x), dtype=jnp.float32),
        'generator': lambda z, given: jnp.zeros((len(z), 4, 4, 3)),
    })  # fmt: skip
    plain, paid = (
        make_family('gan', penalty='none', drift=weight).discriminator_loss(networks, batch, None, jnp.zeros(()))[0]
        for weight in (0.0, 0.5)
    )
    assert paid - plain == pytest.approx(0.5 * np.mean(np.arange(8) ** 2), rel=1e-5)


class Twice(nnx.Module):
    def __call__(self, x, given):
        return 2 * x.sum((1, 2, 3))


def test_the_penalty_asks_for_the_norm_that_is_its_target(make_family, batch):
    """The slope of a linear discriminator is its weights, here 48 times 2."""
    networks = Networks({'discriminator': Twice(), 'generator': lambda z, given: jnp.zeros((len(z), 4, 4, 3))})
    options = {'penalty': 'gradient_penalty', 'penalty_weight': 10.0, 'penalty_target': 5.0}
    loss, told = make_family('gan', **options).discriminator_loss(networks, batch, None, jnp.zeros(()))
    wanted = (2 * 48**0.5 / 5 - 1) ** 2
    assert (told['penalty'], loss - told['loss']) == pytest.approx((wanted, 10 * wanted), rel=1e-5)


def test_networks_that_do_not_grow_are_refused():
    values = config.resolve({'family': {'name': 'progressive_gan'}, 'network': {'name': 'resnet'}})
    with pytest.raises(UserError, match="'resnet', which does not grow; use progressive"):
        stages.spans(families.get('progressive_gan')(values, SPEC))

"""VQGAN: its adaptive weight by whole gradients, its loss and discriminator by hand, and the published sizes."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from scipy import signal, stats

from genbench import config, families
from genbench.data.spec import DataSpec
from genbench.errors import UserError
from genbench.families import observations
from genbench.families.base import Networks
from genbench.networks import patches
from genbench.studies import ledger, verify

SPEC = DataSpec('images', (8, 8, 1), levels=5)
PHOTOS = DataSpec('photos', (256, 256, 3), levels=256)
NETWORK = {'channels': 8, 'multipliers': (1, 1), 'groups': 4}


def make(dtype='float32', **options):
    resolved = config.resolve({
        'family': {'name': 'vq_gan', 'codes': 8, 'discriminator_channels': 4, 'discriminator_layers': 1, **options},
        'network': {**NETWORK, 'dtype': dtype}, 'train': {'batch_size': 4},
    })  # fmt: skip
    return families.get('vq_gan')(resolved, SPEC)


@pytest.fixture(scope='module')
def built():
    """(family, networks whose codes are vectors of the batch, batch)."""
    family, keys = make(adversarial_start=10), jax.random.split(jax.random.key(1), 4)
    batch = {'image': jax.random.randint(jax.random.key(0), (4, *SPEC.shape), 0, 5), 'key': keys}

    @nnx.jit
    def fresh():
        networks = Networks(family.networks(nnx.Rngs(0)))
        family.initialise(networks, batch, jax.random.key(2))
        return dict(networks)

    return family, Networks(fresh()), batch


@pytest.fixture(scope='module')
def losses(built):
    """A program (step, last kernel of the decoder) → loss and its parts. Nothing changes in the networks."""
    family, networks, batch = built

    def run(step, kernel):
        modules = {name: nnx.clone(networks[name]) for name in networks}
        modules['decoder'].conv_out.kernel[...] = kernel
        return family.loss(Networks(modules), batch, jax.random.key(3), step)

    return run


@pytest.fixture(scope='module')
def scored(built, losses):
    """Kernel, loss and parts at steps 9 and 10, and the gradients of loss and generator's loss at step 0."""
    kernel = built[1]['decoder'].conv_out.kernel[...]

    def both(kernel):
        loss, told = losses(0, kernel)
        return jnp.stack([loss, told['adversarial']])

    return jax.jit(lambda kernel: (losses(9, kernel), losses(10, kernel), jax.jacrev(both)(kernel)))(kernel)


def test_the_weight_is_the_ratio_of_the_gradients_at_the_last_kernel(scored):
    """Of the whole losses, of which that of the autoencoder still has no other part at step 0."""
    _, (_, told), slopes = scored
    lengths = np.linalg.norm(np.reshape(slopes, (2, -1)), axis=1)
    assert told['weight'] == pytest.approx(lengths[0] / (lengths[1] + 1e-4), rel=1e-3) and lengths.min() > 1e-3


def test_the_distance_of_codes_has_the_official_weight_if_beta_is_values_over_channels_and_scale(built):
    """The loss is then mean |x − x̂| + mean (z − code)², up to a constant of the likelihood and the unit b ln 2."""
    _, networks, batch = built
    family = make(observation_scale=0.2, commitment=SPEC.num_dims / 4 / 0.2, revive=0.0)

    @jax.jit
    def run():
        held = Networks({name: nnx.clone(networks[name]) for name in networks})
        loss, _, (code, h, x) = family._losses(held, batch, jax.random.key(3), 0)
        return loss, family._encode(networks, batch['image'], None), code, h[..., 0], x

    loss, z, code, h, x = jax.device_get(run())
    assert z.shape == (4, 8 // 2, 8 // 2, 4)
    official = np.abs(x - h).mean() + np.square(z - code).mean()
    constant = np.log(2 * 0.2) - np.log(2 / 5)
    assert loss * 0.2 * np.log(2) == pytest.approx(official + 0.2 * constant, rel=1e-5)
    assert np.square(z - code).mean() > 1e-3


@pytest.mark.parametrize(
    ('row', 'shape', 'encoder', 'decoder'),
    [
        ('vqgan-16384-rfid', (16, 16, 256), 29_298_176, 42_449_795),
        ('ldm-vq-f8-rfid', (32, 32, 4), 27_397_764, 40_253_955),
        ('ldm-vq-f4-rfid', (64, 64, 3), 22_337_411, 32_960_771),
    ],
)
def test_recipes_have_the_published_sizes(row, shape, encoder, decoder):
    """As PyTorch counts the official encoders and decoders, and with the official weight of the codes' distance."""
    loaded = verify.resolve(ledger.get(row))
    family = families.get('vq_gan')(loaded, PHOTOS)
    assert family.code_shape == shape and loaded.family.commitment * shape[2] == PHOTOS.num_dims
    modules = nnx.eval_shape(lambda: family.networks(nnx.Rngs(0)))
    sizes = [sum(leaf.size for leaf in jax.tree.leaves(nnx.state(modules[name], nnx.Param)))
             for name in ('encoder', 'decoder')]  # fmt: skip
    assert sizes == [encoder, decoder]


def test_networks_of_half_precision_have_a_weight(built):
    """Their last layer has outputs of another type than the images whose gradients pass through it."""
    family, batch = make('bfloat16'), built[2]
    score = lambda: family.loss(Networks(family.networks(nnx.Rngs(0))), batch, jax.random.key(3), 0)  # noqa: E731
    assert jax.eval_shape(score)[1]['weight'].shape == ()


def test_the_generator_is_heard_from_its_step_on(scored):
    early, late, _ = scored
    assert early[0] == pytest.approx(float(early[1]['loss']), rel=1e-6)
    wanted = late[1]['loss'] + 0.8 * late[1]['weight'] * late[1]['adversarial']
    assert late[0] == pytest.approx(float(wanted), rel=1e-5)
    assert abs(late[0] - early[0]) > 1e-3


def test_the_discriminator_learns_from_its_step_on_and_sees_reconstructions(built):
    """Half the hinge loss, from its logits of the images and of what the decoder makes of their codes."""
    family, networks, batch = built
    score = jax.jit(lambda step: family.discriminator_loss(networks, batch, jax.random.key(3), step))
    early, late = score(9), score(10)

    @jax.jit
    def logits():
        codes = family.vectors(networks, family.codes(networks, batch['image']))
        pictures = networks['decoder'](codes)[..., :1], (batch['image'] + 0.5) / 2.5 - 1  # centres of five bins
        return [networks['discriminator'](one) for one in pictures]

    fake, real = map(np.asarray, logits())
    wanted = (np.maximum(0, 1 - real).mean() + np.maximum(0, 1 + fake).mean()) / 2
    assert early[0] == 0 and late[0] == pytest.approx(wanted, rel=1e-5)


def test_a_discriminator_of_one_halving_is_its_layers_by_scipy():
    critic = patches.Discriminator((8, 8, 1), channels=2, layers=1, rngs=nnx.Rngs(0))
    x = np.random.default_rng(0).normal(size=(3, 8, 8, 1))

    def convolved(x, conv):
        kernel, padded = np.asarray(conv.kernel[...], np.float64), np.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
        out = [[sum(signal.correlate2d(image[..., i], kernel[..., i, o], 'valid') for i in range(kernel.shape[2]))
                for o in range(kernel.shape[3])] for image in padded]  # fmt: skip
        y = np.moveaxis(np.array(out), 1, 3)[:, :: conv.stride, :: conv.stride]
        return y if conv.bias is None else y + np.asarray(conv.bias[...])

    leaky = lambda x: np.where(x > 0, x, 0.2 * x)  # noqa: E731
    h = convolved(leaky(convolved(x, critic.first)), critic.convs[0])
    normal = (h - h.mean((0, 1, 2))) / np.sqrt(h.var((0, 1, 2)) + 1e-5) * np.asarray(critic.norms[0].scale[...])
    found = critic(jnp.asarray(x, jnp.float32))
    assert found.shape == (3, 2, 2)
    np.testing.assert_allclose(found, convolved(leaky(normal), critic.output)[..., 0], atol=1e-5)


def test_a_logit_sees_seventy_pixels_and_the_size_is_that_of_the_official_code():
    critic = nnx.eval_shape(lambda: patches.Discriminator((256, 256, 3), channels=64, layers=3, rngs=nnx.Rngs(0)))
    assert sum(leaf.size for leaf in jax.tree.leaves(nnx.state(critic, nnx.Param))) == 2_765_633
    seen = 1
    for conv in reversed([critic.first, *critic.convs, critic.output]):
        seen = (seen - 1) * conv.stride + 4
    assert seen == 70


def test_laplace_is_that_of_scipy_and_its_draws_have_its_spread():
    observation, keys = observations.make('laplace', SPEC, 0.3), jax.random.split(jax.random.key(0), 400)
    x, mean = np.random.default_rng(0).normal(size=(2, 3, *SPEC.shape))
    found = observation.log_prob(jnp.asarray(mean[..., None], jnp.float32), jnp.asarray(x, jnp.float32))
    wanted = (stats.laplace.logpdf(x, mean, 0.3) + np.log(2 / 5)).sum((1, 2, 3))
    np.testing.assert_allclose(found, wanted, rtol=1e-5)
    draws = observation.draw(jnp.zeros((400, *SPEC.shape, 1)), keys)
    assert np.abs(draws).mean() == pytest.approx(0.3, rel=0.05)


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        ({'decoder': 'categorical'}, 'use family.decoder=laplace or normal'),
        ({'observation_scale': 0.0}, 'a positive family.observation_scale'),
    ],
)
def test_decoders_without_values_are_refused(options, message):
    with pytest.raises(UserError, match=message):
        make(**options)


def test_small_images_are_halved_less_often():
    for side, strides in ((4, [1]), (8, [2, 1]), (12, [2, 2, 1]), (256, [2, 2, 2, 1])):
        make = lambda side=side: patches.Discriminator((side, side, 1), channels=2, layers=3, rngs=nnx.Rngs(0))  # noqa: E731
        critic = nnx.eval_shape(make)
        assert [conv.stride for conv in (critic.first, *critic.convs)] == strides

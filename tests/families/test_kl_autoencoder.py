"""The KL autoencoder: its published sizes, its loss by SciPy, and latents that other families model."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from scipy import stats

from genbench import config, families
from genbench.data.spec import DataSpec
from genbench.errors import UserError
from genbench.families.base import Borrowed, Networks, Sampler

SPEC = DataSpec('images', (8, 8, 1), levels=5)
PHOTOS = DataSpec('photos', (256, 256, 3), levels=256)
NETWORK = {'channels': 8, 'multipliers': (1, 1), 'groups': 4, 'middle': True, 'decoder_blocks': 2}


def resolved(**options):
    own = {'name': 'kl_autoencoder', 'latent_channels': 2, 'discriminator_channels': 4, 'discriminator_layers': 1}
    return config.resolve({'family': {**own, **options}, 'network': NETWORK, 'train': {'batch_size': 4}})


@pytest.fixture(scope='module')
def built():
    """(family, networks, batch)."""
    family = families.get('kl_autoencoder')(resolved(beta=0.01, observation_scale=0.3), SPEC)
    images = jax.random.randint(jax.random.key(0), (4, *SPEC.shape), 0, 5)
    batch = {'image': images, 'key': jax.random.split(jax.random.key(1), 4)}
    return family, Networks(family.networks(nnx.Rngs(0))), batch


@pytest.mark.parametrize(('file', 'shape', 'count'), [('first_stage', (32, 32, 4), 83_653_863),
                                                      ('first_stage_f4', (64, 64, 3), 55_312_063),
                                                      ('first_stage_f16', (16, 16, 16), 69_610_963)])  # fmt: skip
def test_configs_have_the_published_sizes(file, shape, count):
    """As PyTorch counts the official autoencoders, without the 1×1 convolutions around z, which are not here."""
    loaded = config.load(f'imagenet256/{file}')
    family = families.get('kl_autoencoder')(loaded, PHOTOS)
    assert family.code_shape == shape
    modules = nnx.eval_shape(lambda: family.networks(nnx.Rngs(0)))
    sizes = {name: sum(leaf.size for leaf in jax.tree.leaves(nnx.state(module, nnx.Param)))
             for name, module in modules.items()}  # fmt: skip
    depth = shape[2]
    linear = 2 * depth * (2 * depth + 1) + depth * (depth + 1)
    assert sizes['encoder'] + sizes['decoder'] + linear == count
    assert sizes['discriminator'] == 2_765_633 and 'scale' not in sizes


def test_the_loss_is_that_of_a_laplace_distribution_with_one_learned_scale(built):
    """Its gradient by log b is 1 − |x − x̂| / b for every value, which vanishes where b is the mean distance."""
    family, networks, batch = built

    @jax.jit
    def score():
        def run(log):
            held = Networks({**networks, 'scale': nnx.clone(networks['scale'])})
            held['scale'].log[...] = log
            loss, told, (z, h, x) = family._losses(held, batch, jax.random.key(3), 0)
            return loss, (told, z, h, x)

        mean, log_std = family._encode(networks, batch['image'], None)
        return jax.value_and_grad(run, has_aux=True)(jnp.log(0.3)), mean, log_std

    ((loss, (told, z, h, x)), slope), mean, log_std = jax.device_get(score())
    nats = SPEC.num_dims * np.log(2)
    wanted = -(stats.laplace.logpdf(x, h[..., 0], 0.3) + np.log(2 / 5)).sum() / 4 / nats
    kl = ((mean**2 + np.exp(2 * log_std) - 1) / 2 - log_std).sum() / 4 / nats
    assert loss == pytest.approx(wanted + 0.01 * kl, rel=1e-5) and told['kl'] == pytest.approx(kl, rel=1e-5)
    assert told['elbo'] == pytest.approx(wanted + kl, rel=1e-5) and told['scale'] == pytest.approx(0.3)
    assert slope == pytest.approx((1 - np.abs(x - h[..., 0]).mean() / 0.3) / np.log(2), rel=1e-4)
    assert np.abs(z - mean).max() > 0.1


def test_the_discriminator_begins_at_its_step(built):
    """Before it, its own loss is 0 and the autoencoder's is that without a discriminator."""
    _, networks, batch = built
    family = families.get('kl_autoencoder')(resolved(beta=0.01, observation_scale=0.3, adversarial_start=3), SPEC)
    key = jax.random.key(3)

    @jax.jit
    def losses(step):
        plain = family._losses(networks, batch, key, step)[0]
        return (
            plain,
            family.loss(networks, batch, key, step)[0],
            family.discriminator_loss(networks, batch, key, step)[0],
        )

    plain, whole, own = jax.device_get(losses(2))
    assert own == 0 and whole == pytest.approx(plain, rel=1e-6)
    plain, whole, own = jax.device_get(losses(3))
    assert own > 0 and whole != pytest.approx(plain, rel=1e-6)


def test_an_autoencoder_without_a_learned_scale_has_none_to_train():
    family = families.get('kl_autoencoder')(resolved(learn_scale=False), SPEC)
    assert family.trained == ('encoder', 'decoder') and family.observation.scale == 1.0
    assert 'scale' not in nnx.eval_shape(lambda: family.networks(nnx.Rngs(0)))


def test_a_family_on_a_path_models_its_latents(built):
    stage, lent, batch = built
    small = {'network': {'name': 'unet', 'channels': 8, 'multipliers': (1,), 'attention': (), 'groups': 4}}
    options = config.resolve({'family': {'name': 'flow_matching', 'first_stage': 'run'}, **small})
    family = families.get('flow_matching')(options, SPEC, {'first_stage': Borrowed(stage)})
    assert family.space.shape == (4, 4, 2)
    assert [one.method for one in family.likelihoods][:1] == ['first_stage_ode_1']
    modules = family.networks(nnx.Rngs(1))
    networks = Networks(modules, borrowed={'first_stage': lent})

    @jax.jit
    def run(keys):
        x, weight = family.space.draw(networks, batch['image'], keys)
        loss = family.loss(networks, batch, jax.random.key(0), 0)[0]
        return loss, x, weight, family.sample(networks, keys, None, Sampler('euler', 1)).images

    loss, x, weight, images = run(batch['key'])
    assert np.isfinite(loss) and np.isfinite(weight).all() and x.shape == (4, 4, 4, 2)
    assert images.shape == (4, *SPEC.shape) and images.min() >= 0 and images.max() <= 4


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        ({'decoder': 'normal'}, "family.decoder is 'normal', but a KL autoencoder has 'laplace' there"),
        ({'draws': 2}, 'family.draws is 2, but a KL autoencoder has 1 there'),
        ({'latent_channels': 0}, 'family.latent_channels is 0, but these latents are pictures; set it to 4'),
        ({'observation_scale': 0.0}, 'a positive family.observation_scale'),
    ],
)
def test_options_of_a_vae_that_do_not_fit_are_refused(options, message):
    with pytest.raises(UserError, match=message):
        families.get('kl_autoencoder')(resolved(**options), SPEC)

"""First stages with a discriminator: what the last kernel learns, against the losses of the official code by NumPy."""

import jax
import numpy as np
import pytest
from flax import nnx

from genbench import config, families
from genbench.data.spec import DataSpec
from genbench.families.base import Networks

pytestmark = pytest.mark.unoptimized
SPEC = DataSpec('images', (8, 8, 1), levels=5)
SCALE, WEIGHT = 0.3, 0.7
SIZES = {'discriminator_channels': 4, 'discriminator_layers': 1}


def built(name, **options):
    """A program (factor of the discriminator's last kernel) → arrays about the last kernel of the decoder.

    These are the gradient of the family's loss, the features that the kernel sees, the images that it makes, the
    training images, and the gradient of the generator's loss by the images it makes. The features are scaled up, so
    that the norms of gradients are large beside the 1e-4 in the denominator of λ.
    """
    shared = {'decoder': 'laplace', 'observation_scale': SCALE, 'adversarial_weight': WEIGHT, **SIZES, **options}
    family = families.get(name)(config.resolve({
        'family': {'name': name, **shared},
        'network': {'channels': 8, 'multipliers': (1,), 'groups': 4}, 'train': {'batch_size': 4},
    }), SPEC)  # fmt: skip
    images = jax.random.randint(jax.random.key(0), (4, *SPEC.shape), 0, 5)
    batch, key = {'image': images, 'key': jax.random.split(jax.random.key(1), 4)}, jax.random.key(3)

    @jax.jit
    def run(factor):
        networks = Networks(family.networks(nnx.Rngs(0)))
        family.initialise(networks, batch, jax.random.key(2))
        networks['decoder'].norm_out.scale[...] *= 100
        networks['discriminator'].output.kernel[...] *= factor

        def loss(kernel):
            held, second = (Networks({part: nnx.clone(networks[part]) for part in networks}) for _ in range(2))
            held['decoder'].conv_out.kernel[...] = kernel
            _, _, (z, h, x) = family._losses(second, batch, key, 0)
            return family.loss(held, batch, key, 0)[0], (second['decoder'].features(z), h[..., 0], x)

        slope, (features, h, x) = jax.grad(loss, has_aux=True)(networks['decoder'].conv_out.kernel[...])
        return slope, features, h, x, jax.grad(lambda image: -networks['discriminator'](image).mean())(h)

    return lambda factor: jax.device_get(run(factor))


def by_kernel(features, slopes):
    """The gradient of a 3×3 kernel whose outputs have these gradients."""
    padded = np.pad(features.astype(float), ((0, 0), (1, 1), (1, 1), (0, 0)))
    windows = np.lib.stride_tricks.sliding_window_view(padded, (3, 3), axis=(1, 2))
    return np.einsum('bhwcij,bhwo->ijco', windows, slopes.astype(float))


def direction(gradient):
    return gradient / np.linalg.norm(gradient)


# LPIPSWithDiscriminator of latent-diffusion divides by the scale, sums over values and divides by the number of images.
# VQLPIPSWithDiscriminator of taming-transformers takes the mean over all values.
@pytest.mark.parametrize(
    ('name', 'options', 'divisor'),
    [('kl_autoencoder', {'latent_channels': 2}, 4 * SCALE), ('vq_gan', {'codes': 8}, 4 * SPEC.num_dims)],
)
def test_the_last_kernel_learns_in_the_direction_of_the_official_loss(name, options, divisor):
    """With a discriminator that keeps the official λ below its limit, and with one so flat that λ is at its limit."""
    run = built(name, **options)

    def gradients(factor):
        slope, features, h, x, generator = run(factor)
        return slope, by_kernel(features, np.sign(h - x) / divisor), by_kernel(features, generator)

    _, *both = gradients(1.0)
    start = np.linalg.norm(both[0]) / np.linalg.norm(both[1])
    for ratio in (3e3, 3e4):
        slope, reconstruction, adversarial = gradients(start / ratio)
        found = np.linalg.norm(reconstruction) / (np.linalg.norm(adversarial) + 1e-4)
        official = reconstruction + WEIGHT * np.clip(found, 0, 1e4) * adversarial
        assert (found > 1e4) == (ratio > 1e4)
        np.testing.assert_allclose(direction(slope), direction(official), atol=1e-4)
        assert np.abs(direction(official) - direction(reconstruction)).max() > 0.01

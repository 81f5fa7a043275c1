"""The noise-augmented flow: its score removes noise, and guidance and refusals are as stated."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from genbench import config
from genbench.data.spec import DataSpec
from genbench.errors import UserError
from genbench.families import noised_flow
from genbench.training import samplers

SPEC = DataSpec('pixels', (2, 2, 1), levels=5, classes=3)
SMALL = {'name': 'tarflow', 'patch': 1, 'blocks': 1, 'depth': 1, 'width': 8, 'heads': 2}


def make(network=SMALL, **options):
    resolved = config.resolve({'family': {'name': 'noised_flow', 'noise_std': 0.5, **options}, 'network': network})
    return noised_flow.NoisedFlow(resolved, SPEC)


def of_normals(family, mean, deviation):
    """Networks whose density is that of independent normal pixels after the first one, which is standard normal."""
    networks = family.networks(nnx.Rngs(0))
    networks['flow'].flows[0].output.bias[...] = jnp.asarray([np.log(deviation), mean])
    return networks


def test_denoising_gives_the_posterior_mean_of_normal_pixels():
    """For x ~ N(m, v) and y = x + σ ε, the mean of x given y is (v y + σ² m) / (v + σ²)."""
    family, mean, variance = make(), 0.3, 0.4
    networks = of_normals(family, mean, np.sqrt(variance + 0.25))
    y = jax.random.normal(jax.random.key(0), (5, 2, 2, 1))
    found = jax.jit(lambda y: family.denoise(networks, y, None))(y).reshape(5, 4)[:, 1:]
    np.testing.assert_allclose(found, (variance * y.reshape(5, 4)[:, 1:] + 0.25 * mean) / (variance + 0.25), atol=1e-5)


def test_samplers_differ_by_the_denoising():
    """Of normal pixels with deviation 0.6, which is shrunk by 1 − σ² / 0.6²; that of the first is 1."""
    family, keys = make(), jax.random.split(jax.random.key(1), 200)
    networks, one, other = of_normals(family, 0.0, 0.6), *(samplers.parse(name, family) for name in family.samplers)
    assert (one.name, other.name) == ('denoised', 'direct')
    y = np.array([1.0, 0.6, 0.6, 0.6]) * family.latents(keys, one)
    shrunk = np.array([1 - 0.25, *[1 - 0.25 / 0.36] * 3])
    for sampler, wanted, cost in ((one, shrunk * y, 3), (other, y, 1)):
        draw = jax.jit(lambda keys, sampler=sampler: family.sample(networks, keys, None, sampler).images)
        np.testing.assert_array_equal(draw(keys), SPEC.quantise(jnp.asarray(wanted).reshape(200, 2, 2, 1)))
        assert family.evaluations(sampler) == cost


def test_the_loss_is_the_cross_entropy_of_noisy_images():
    """Pixels at the centre of the middle bin plus noise of 0.5, under the normal that they have."""
    family = make(condition_dropout=0.0)
    networks = of_normals(family, 0.0, 0.5)
    batch = {'image': jnp.full((4000, 2, 2, 1), 2), 'key': jax.random.split(jax.random.key(2), 4000)}
    loss, _ = jax.jit(lambda batch: family.loss(networks, batch, jax.random.key(0), 0))(batch)
    entropy = 0.5 * np.log(2 * np.pi * np.e * 0.25)  # of three pixels; the first is scored by a standard normal
    first = 0.5 * np.log(2 * np.pi) + 0.25 / 2
    assert loss * 4 * np.log(2) == pytest.approx(3 * entropy + first - 4 * np.log(2 / 5), abs=0.05)


def test_guidance_and_its_weights_are_options_of_a_conditional_model():
    family = make(conditional=True)
    sampler = samplers.parse('denoised:1:guidance=2,weights=constant', family)
    assert sampler.guidance == 2 and sampler.options.weights == 'constant' and family.evaluations(sampler) == 4
    with pytest.raises(UserError, match='has guidance, which needs family.conditional'):
        samplers.parse('denoised:1:2', make())


def test_guidance_moves_samples_away_from_those_without_a_class():
    """With scales that ignore the class, sample = (1 + w) · conditional − w · unconditional shift."""
    family = make(conditional=True)
    networks = of_normals(family, 0.0, 0.5)
    flow = networks['flow'].flows[0]
    flow.output.kernel[...] = flow.output.kernel[...].at[:, 1].set(0.3)
    given, z = {'label': jnp.array([0, 1, 2])}, jnp.zeros((3, 4))
    first = lambda given, guidance: networks['flow'].inverse(z, given, guidance).reshape(3, 4)[:, 1]  # noqa: E731
    none, full = noised_flow.Guidance(0.0), noised_flow.Guidance(2.0, False)
    one, nothing = first(given, none), first(None, none)
    np.testing.assert_allclose(first(given, full), 3 * one - 2 * nothing, atol=1e-5)
    assert np.abs(one - nothing).max() > 1e-4


def test_a_network_of_bounded_images_is_refused_and_there_is_no_likelihood():
    assert make().likelihoods == ()
    with pytest.raises(UserError, match="'couplings', but noised images leave"):
        make({'name': 'couplings'}).networks(nnx.Rngs(0))

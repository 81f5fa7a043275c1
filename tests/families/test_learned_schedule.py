"""A schedule that is learned: the bound does not depend on its shape, the variance of the loss does."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

from genbench import config as configs
from genbench import families, rng
from genbench.data.spec import DataSpec
from genbench.errors import UserError
from genbench.families.base import Networks, Sampler
from genbench.networks.monotone import Monotone

DEVIATION = 0.4  # of every pixel of the data, which are normal and independent
SPEC = DataSpec('pixels', (1, 1, 2), levels=8192)
OPTIONS = {'schedule': 'learned', 'prediction': 'noise', 'weight': 'elbo', 'time_sampler': 'low_discrepancy'}


class Gaussian(nnx.Module):
    """The best network for the noise in data that are normal, from γ = −log SNR between its ends."""

    def __call__(self, x_t, scaled, given=None, key=None):
        gamma = -13.3 + 23.3 * scaled[:, None, None, None]
        alpha2, sigma2 = jax.nn.sigmoid(-gamma), jax.nn.sigmoid(gamma)
        return jnp.sqrt(sigma2) * x_t / (alpha2 * DEVIATION**2 + sigma2)


class Off(Gaussian):
    """The same, and `error` x_t."""

    def __init__(self, error):
        self.error = error

    def __call__(self, x_t, scaled, given=None, key=None):
        return super().__call__(x_t, scaled) + self.error * x_t


def shape(seed):
    """A monotone function far from the identity."""
    module = Monotone(nnx.Rngs(seed))
    module.heights[...] = 4 * jax.random.normal(jax.random.key(seed), module.heights[...].shape)
    module.line[...] = jnp.asarray(-3.0)
    return module


@pytest.fixture(scope='module')
def family():
    values = {'family': {'name': 'diffusion', **OPTIONS}, 'network': {'channels': 8, 'multipliers': (1,)}}
    family = families.get('diffusion')(configs.resolve(values), SPEC)

    def pairs(networks, rows, key):
        noises = jax.vmap(lambda key: jax.random.normal(key, (2, *SPEC.shape)))(rows['key'])
        return DEVIATION * noises[:, 0], noises[:, 1], None

    family.pairs = pairs
    return family


def networks_of(schedule):
    return Networks({'denoiser': Gaussian(), 'schedule': schedule})


@jax.jit(static_argnums=0)
def losses(family, state, keys):
    networks = networks_of(nnx.merge(nnx.graphdef(Monotone(nnx.Rngs(0))), state))
    return family.asked(networks).losses(networks, {'key': keys}, None)[0]


def test_the_shape_rises_between_fixed_ends(family):
    share = jnp.linspace(0, 1, 1001)
    for module in (Monotone(nnx.Rngs(0)), shape(1), shape(2)):
        found = np.asarray(module(share), float)
        np.testing.assert_allclose(found[[0, -1]], [0, 1], atol=1e-6)
        assert (np.diff(found) > 0).all()
        schedule = family.asked(networks_of(module)).schedule
        ends = jnp.asarray([schedule.t_min, schedule.t_max])
        np.testing.assert_allclose(schedule.log_snr(ends), [13.3, -10], rtol=1e-3)
        np.testing.assert_allclose(schedule.alpha(share) ** 2 + schedule.sigma(share) ** 2, 1, rtol=1e-5)
        assert schedule.sigma(jnp.zeros(())) == 0 and schedule.alpha(jnp.zeros(())) == 1
    assert np.abs(Monotone(nnx.Rngs(0))(share) - share).max() < 0.05
    assert np.abs(shape(1)(share) - shape(2)(share)).max() > 0.1


def test_the_expected_loss_is_the_integral_over_log_snr_whatever_the_shape(family):
    """½ ∫ mmse dSNR = ½ log((1 + SNR_high s²) / (1 + SNR_low s²)) for a pixel of variance s² (VDM, equation 18)."""
    wanted = 0.5 * np.log((1 + np.exp(13.3) * DEVIATION**2) / (1 + np.exp(-10) * DEVIATION**2))
    for seed in (1, 2):
        found = np.asarray(
            losses(family, nnx.state(shape(seed)), jax.random.split(jax.random.key(seed), 200_000)), float
        )
        assert found.mean() == pytest.approx(wanted, abs=5 * found.std() / 200_000**0.5)
        assert found.std() / 200_000**0.5 < 0.01 * wanted


def test_learning_the_shape_lowers_the_second_moment_to_what_the_best_shape_has(family):
    """E l² = ∫ γ'² q(γ) dt is least, (∫ √q dγ)², for γ' ∝ q^(−½); q = 2 (½ m)² for m = SNR s² / (1 + SNR s²)."""
    gamma = np.linspace(-13.3, 10, 100_001)
    root = np.sqrt(2) * 0.5 / (1 + np.exp(gamma) / DEVIATION**2)
    best, even = np.trapezoid(root, gamma) ** 2, 23.3 * np.trapezoid(root**2, gamma)
    module, optimizer = Monotone(nnx.Rngs(0)), optax.adam(0.1)
    graph, state = nnx.split(module)

    @jax.jit
    def train(state, opt):
        def one(carry, index):
            state, opt = carry
            keys = jax.random.split(jax.random.fold_in(jax.random.key(0), index), 256)
            spread = lambda s: family.spread(networks_of(nnx.merge(graph, s)), {'key': keys}, None, None)[0]  # noqa: E731
            updates, opt = optimizer.update(jax.grad(spread)(state), opt)
            return (optax.apply_updates(state, updates), opt), None

        return jax.lax.scan(one, (state, opt), jnp.arange(300))[0][0]

    moments = {}
    for name, one in (('even', state), ('learned', train(state, optimizer.init(state)))):
        found = np.asarray(losses(family, one, jax.random.split(jax.random.key(9), 50_000)), float)
        moments[name] = (found**2).mean()
    assert moments['even'] == pytest.approx(even, rel=0.05) and even > 1.3 * best
    assert best * 0.97 < moments['learned'] < best + (even - best) / 4


def test_densities_bounds_and_samples_are_those_of_the_learned_schedule(family):
    """Of normal data both are known. The bound is tight in the dimensions; two Euler steps are done by hand."""
    networks = networks_of(shape(1))
    learned = family.asked(networks)
    images = jnp.asarray(np.random.default_rng(0).normal(0, DEVIATION, (512, 1, 1, 2)) * 4096 + 4096, jnp.int32)
    keys = jax.random.split(jax.random.key(3), 512)
    x = np.asarray(SPEC.dequantise(images), float)
    wanted = (-0.5 * (x / DEVIATION) ** 2 - np.log(DEVIATION * np.sqrt(2 * np.pi))).sum((1, 2, 3))
    wanted += 2 * SPEC.log_bin_width
    finer = dataclasses.replace(family.ode, num_steps=64)  # 16 steps of RK4 are 0.2% off in the tails
    found = jax.jit(lambda: family._ode_density(finer, networks, None)(jnp.asarray(x, jnp.float32), keys))()
    np.testing.assert_allclose(found + 2 * SPEC.log_bin_width, wanted, atol=0.02)
    terms = jax.jit(lambda: family._vlb_continuous(networks, images, None, keys))()
    off = np.asarray(terms['log_prob'] - wanted, float)
    assert abs(off.mean()) < 5 * off.std() / 512**0.5 < 1.5
    middle = [float(one.path.alpha(jnp.asarray(0.5))) for one in (learned, family)]
    assert abs(middle[0] - middle[1]) > 0.02  # another shape than the fixed one
    drawn = jax.jit(lambda: family.sample(networks, keys, None, Sampler('euler', 2)))().images
    rate = lambda t: float(np.exp(-learned.path.log_snr(jnp.asarray(t))))  # noqa: E731
    noise = jax.vmap(lambda key: jax.random.normal(key, (1, 1, 2)))(rng.named(keys, 'start'))
    state = float(learned.path.sigma(jnp.asarray(1.0))) * np.asarray(noise, float)
    for t, s in ((1.0, 0.5), (0.5, 0.0)):
        alpha2, sigma2 = 1 / (1 + rate(t)), rate(t) / (1 + rate(t))
        clean = np.sqrt(alpha2) * DEVIATION**2 / (alpha2 * DEVIATION**2 + sigma2) * state
        left = (state - np.sqrt(alpha2) * clean) / np.sqrt(sigma2)
        alpha2, sigma2 = (1 / (1 + rate(s)), rate(s) / (1 + rate(s))) if s else (1, 0)
        state = np.sqrt(alpha2) * clean + np.sqrt(sigma2) * left
    np.testing.assert_allclose(np.asarray(drawn, float), np.clip((state + 1) * 4096, 0, 8191), atol=3)


def test_an_error_that_all_noise_levels_share_costs_the_density_more_than_the_bound(family):
    """With ε̂ off by e x_t the ODE is linear, and the density stays normal: from r = σ / α = r₀ to r₁, log x / α grows
    by e (asinh r₁ − asinh r₀) more. The bound loses e² ∫ (s² + r²) / (1 + r²) d log r for each pixel. Sixteen steps
    that are even in log b would miss the density by a fifth of a bit.
    """
    error, (low, high) = 0.05, np.exp(np.array([-13.3, 10.0]) / 2)
    images = jnp.asarray(np.random.default_rng(0).normal(0, DEVIATION, (512, 1, 1, 2)) * 4096 + 4096, jnp.int32)
    keys = jax.random.split(jax.random.key(3), 512)
    x = np.asarray(SPEC.dequantise(images), float)
    networks = lambda error: Networks({'denoiser': Off(error), 'schedule': Monotone(nnx.Rngs(0))})  # noqa: E731
    density = lambda e: family._ode_density(family.ode, networks(e), None)(jnp.asarray(x, jnp.float32), keys)  # noqa: E731
    growth = np.log(np.hypot(DEVIATION, high) / np.hypot(DEVIATION, low))
    growth += error * (np.arcsinh(high) - np.arcsinh(low))
    ends = family.schedule.alpha(jnp.asarray([family.schedule.t_min, 1.0]))
    std = float(ends[0]) * high * np.exp(-growth)
    wanted = (-0.5 * (x / std) ** 2 - np.log(std * np.sqrt(2 * np.pi))).sum((1, 2, 3))
    np.testing.assert_allclose(jax.jit(density)(error), wanted, atol=0.02, rtol=0.02)
    bound = jax.jit(lambda e: family._vlb_continuous(networks(e), images, None, keys)['log_prob'])
    lost = np.asarray(bound(0.0) - bound(error), float)  # of the same draws
    shares = DEVIATION**2, 0.5 * (1 - DEVIATION**2)
    stated = 2 * error**2 * (shares[0] * np.log(high / low) + shares[1] * np.log((1 + high**2) / (1 + low**2)))
    assert lost.mean() == pytest.approx(stated, abs=5 * lost.std() / 512**0.5)
    truth = (-0.5 * (x / DEVIATION) ** 2 - np.log(DEVIATION * np.sqrt(2 * np.pi))).sum((1, 2, 3))
    assert (truth - wanted).mean() > 4 * stated


@pytest.mark.parametrize('name, options, message', [
    ('diffusion', {**OPTIONS, 'weight': 'none'}, 'family.schedule=learned needs family.weight=elbo'),
    ('diffusion', {**OPTIONS, 'time_sampler': 'by_weight'}, 'by_weight needs a fixed schedule'),
    ('flow_matching', OPTIONS, 'family.schedule is learned, but flow_matching cannot learn one'),
])  # fmt: skip
def test_what_cannot_be_learned_is_refused(make_family, name, options, message):
    with pytest.raises(UserError, match=message):
        make_family(name, **options)

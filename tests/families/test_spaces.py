"""Data spaces: likelihoods through a first stage against a linear-Gaussian model, and what a first stage must be."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from scipy import stats

from genbench.data.spec import DataSpec
from genbench.errors import UserError
from genbench.families import dequantisation
from genbench.families.base import Borrowed, Networks, Sampler
from genbench.families.bounds import VariationalBound
from genbench.families.spaces import FirstStage, Latents, Pixels, Scaling
from genbench.interpolants import density, schedules
from genbench.interpolants.options import PathOptions
from genbench.interpolants.predictions import Prediction
from genbench.interpolants.schedules import expand

# image = W z + μ + noise with z ~ N(m, diag s²). W's columns are orthogonal, so the posterior's axes are those of z.
W = np.array([[1.0, 0.5], [0.5, -1.0], [0.3, 0.0], [0.0, 0.7]])
W[2, 0] = 0.0
MU, NOISE, CENTRE, SPREAD = np.array([0.2, -0.1, 0.4, 0.0]), 0.6, np.array([1.0, -2.0]), np.array([0.5, 1.5])
MARGINAL = stats.multivariate_normal(MU + W @ CENTRE, (W * SPREAD**2) @ W.T + NOISE**2 * np.eye(4))
PRECISION = (W**2).sum(0) / NOISE**2 + 1 / SPREAD**2
SHIFT, SCALE = np.array([0.7, -1.0]), np.array([3.0, 0.4])  # of the scaling: not those of the law of z


class Linear(FirstStage):
    """The model above with its exact posterior, moved by `shift` and made wider by `stretch`."""

    name, conditional, observed = 'linear', False, {}
    shift, stretch = 0.0, 1.0

    def posterior(self, networks, images):
        mean = ((images.reshape(-1, 4) - MU) @ W / NOISE**2 + CENTRE / SPREAD**2) / PRECISION + self.shift
        variance = jnp.broadcast_to(self.stretch**2 / PRECISION, mean.shape)
        return mean.reshape(-1, 1, 1, 2), jnp.log(variance).reshape(-1, 1, 1, 2)

    def decode(self, networks, z):
        return jnp.round((z @ W.T + MU).reshape(-1, 1, 1, 4)).astype(jnp.int32)

    def log_likelihood(self, networks, z, images, keys):
        return jax.scipy.stats.norm.logpdf(images, z @ W.T + MU, NOISE).sum((1, 2, 3))


def latents(**options):
    stage = Linear()
    for name, value in options.items():
        setattr(stage, name, value)
    return Latents(DataSpec('vectors', (1, 1, 4), levels=4), stage, (1, 1, 2))


def networks():
    scaling = Scaling(2)
    scaling.mean[...], scaling.scale[...] = SHIFT, SCALE
    return Networks({'scaling': scaling}, borrowed={'first_stage': Networks({})})


IMAGES = jnp.asarray(MARGINAL.rvs(20, random_state=0), jnp.float32).reshape(-1, 1, 1, 4)
TRUTH = MARGINAL.logpdf(np.reshape(IMAGES, (20, 4)))
SCALED, WIDTH = (CENTRE - SHIFT) * SCALE, SPREAD * SCALE  # mean and standard deviations of scaled latents


def log_density(x, keys):
    """Of scaled latents."""
    return jax.scipy.stats.norm.logpdf(x, SCALED, WIDTH).sum((1, 2, 3))


def denoiser(schedule):
    """E[x | x_t] of scaled latents."""

    def denoise(x_t, t):
        alpha, sigma = expand(schedule.alpha(t), x_t), expand(schedule.sigma(t), x_t)
        x = SCALED + alpha * WIDTH**2 / (alpha**2 * WIDTH**2 + sigma**2) * (x_t - alpha * SCALED)
        return Prediction(x, (x_t - alpha * x) / sigma)

    return denoise


@pytest.mark.parametrize('draws', [1, 3])
def test_a_likelihood_through_the_exact_posterior_is_that_of_the_image(draws, keys):
    """Then p(z) p(image | z) / q(z | image) is p(image) for every z, so no draw has variance."""
    found = dequantisation.bound(latents(), networks(), log_density, IMAGES, keys(20), draws)
    np.testing.assert_allclose(found, TRUTH, rtol=1e-4, atol=1e-4)


def test_a_worse_posterior_lowers_it_by_the_divergence(keys):
    shift, stretch, count = 0.2, 1.4, 20_000
    images = jnp.broadcast_to(IMAGES[:1], (count, 1, 1, 4))
    space = latents(shift=shift, stretch=stretch)
    found = np.asarray(dequantisation.bound(space, networks(), log_density, images, keys(count), 1), float)
    divergence = (shift**2 * PRECISION + stretch**2 - 1 - 2 * np.log(stretch)).sum() / 2
    assert found.mean() == pytest.approx(TRUTH[0] - divergence, abs=5 * found.std() / np.sqrt(count))
    more = np.asarray(dequantisation.bound(space, networks(), log_density, images[:4000], keys(4000), 32), float)
    assert TRUTH[0] - 0.05 < more.mean() < TRUTH[0] + 5 * more.std() / np.sqrt(4000)


def test_the_continuous_bound_of_latents_bounds_the_image(keys):
    schedule, count = schedules.straight(), 4000
    bound, images = VariationalBound(latents(), schedule, 10), jnp.broadcast_to(IMAGES[:1], (count, 1, 1, 4))
    score = jax.jit(lambda images, keys: bound.in_continuous_time(denoiser(schedule), images, keys, networks()))
    found = np.asarray(score(images, keys(count))['log_prob'], float)
    assert found.mean() == pytest.approx(TRUTH[0], abs=5 * found.std() / np.sqrt(count) + 5e-3)
    assert bound.protocol['first_stage'] == 'linear' and bound.protocol['latent_draws'] == 1


def test_the_ode_of_latents_estimates_the_image(keys):
    schedule, ode = schedules.straight(), density.Ode('rk4', 64, probes=0)

    def log_p(x, keys):
        return density.log_density(schedule, lambda x_t, t, given: denoiser(schedule)(x_t, t), x, keys, ode)

    found = dequantisation.bound(latents(), networks(), log_p, IMAGES, keys(20), 1)
    np.testing.assert_allclose(found, TRUTH, atol=2e-2)


def test_latents_are_measured_and_scaled_channel_by_channel(keys):
    space, own = latents(), networks()
    images = jnp.asarray(MARGINAL.rvs(4000, random_state=1), jnp.float32).reshape(-1, 1, 1, 4)
    rows = {'image': images, 'key': keys(4000)}
    space.measure(own, rows)
    x = space.encode(own, rows)
    np.testing.assert_allclose(x.mean((0, 1, 2)), 0, atol=1e-5)
    np.testing.assert_allclose(x.std((0, 1, 2)), 1, rtol=1e-5)
    wanted = SPREAD * own['scaling'].scale[...]  # of the law of z, of which the images are draws
    np.testing.assert_allclose(wanted, 1, rtol=0.05)
    levels = space.spec.quantise(images)
    shown = space.spec.dequantise(levels)  # as samplers are given an original
    np.testing.assert_array_equal(space.place(own, shown), space.centre(own, levels))
    z = space.stage.posterior(None, images)[0]
    np.testing.assert_array_equal(space.decode(own, space.centre(own, images)), space.stage.decode(None, z))


def test_a_stage_without_a_density_gives_no_likelihood(make_family, monkeypatch):
    borrowed = {'first_stage': Borrowed(make_family('vae', latent_channels=2))}
    family = make_family('diffusion', borrowed=borrowed, first_stage='a run')
    methods = [(one.method, one.kind) for one in family.likelihoods]
    assert methods == [('first_stage_ode_1', 'estimate'), ('first_stage_vlb_continuous', 'lower_bound'),
                       ('first_stage_vlb_beta', 'lower_bound')]  # fmt: skip
    assert all(one.protocol['first_stage'] == 'vae' for one in family.likelihoods)
    monkeypatch.setattr(type(family.space.stage), 'observed', None)
    assert family.likelihoods == ()


def test_the_pictures_of_a_vae_have_the_posterior_that_they_are_drawn_from(built, make_family, batch):
    family = make_family('vae', latent_channels=2)

    own = Networks(family.networks(nnx.Rngs(0)))
    keys = jax.random.split(jax.random.key(0), 4000)
    mean, log_variance = family.posterior(own, batch['image'][:1])
    z = family.encode(own, jnp.broadcast_to(batch['image'][:1], (4000, 4, 4, 3)), keys)
    assert z.shape[1:] == mean.shape[1:] == family.latent_shape == (4, 4, 2)
    np.testing.assert_allclose(z.mean(0), mean[0], atol=6 * float(z.std(0).max()) / np.sqrt(4000))
    np.testing.assert_allclose(z.std(0), np.exp(log_variance[0] / 2), rtol=0.1)


SMALLER = DataSpec('smaller', (2, 2, 3), levels=5)


@pytest.mark.parametrize(
    ('stage', 'options', 'said'),
    [
        (('gan', {}), {}, 'The first stage is a gan model, which has no encoder and decoder'),
        (('vae', {}), {}, 'whose latents are vectors; train one with family.latent_channels'),
        (
            ('vae', {'latent_channels': 2, 'spec': SMALLER}),
            {},
            r'trained on .*2×2×3.* but this run',
        ),
        (
            ('vae', {'latent_channels': 2, 'conditional': True}),
            {},
            'with the conditions label; use one without conditions',
        ),
        (('vae', {'latent_channels': 2}), {'dequantisation': 'none'}, 'but latents need uniform'),
        (('vae', {'latent_channels': 2}), {'clip': True}, 'the latents of vae reach further'),
        (('vae', {'latent_channels': 2, 'halved': True}), {'conditions': ('edges',)}, 'edges is a picture in pixels'),
    ],
    ids=['family', 'vectors', 'shape', 'conditions', 'dequantisation', 'clip', 'picture'],
)
def test_a_first_stage_that_does_not_fit_is_refused(make_family, resolve, stage, options, said, monkeypatch):
    name, settings = stage
    halved = settings.pop('halved', False)
    lent = make_family(name, **settings)
    if halved:
        monkeypatch.setattr(type(lent), 'latent_shape', (2, 2, 2))
    with pytest.raises(UserError, match=said):
        make_family('diffusion', borrowed={'first_stage': Borrowed(lent)}, first_stage='a run', **options)


def test_samplers_of_latents_refuse_what_means_pixels(make_family, keys):
    borrowed = {'first_stage': Borrowed(make_family('vae', latent_channels=2))}
    family = make_family('diffusion', borrowed=borrowed, first_stage='a run')
    with pytest.raises(UserError, match='The option threshold is for pixels'):
        family.sample(Networks({}), keys(2), None, Sampler('ddim', 2, 0.0, PathOptions(threshold='static')))
    held = {'original': jnp.zeros((2, 4, 4, 3)), 'known': jnp.ones((2, 4, 4, 1))}
    with pytest.raises(UserError, match='cannot keep known pixels'):
        family.sample(Networks({}), keys(2), held, Sampler('ddim', 2))


def test_pixels_are_what_families_take_by_default(make_family):
    for name in ('diffusion', 'normalizing_flow', 'gan', 'gaussian', 'vae'):
        assert make_family(name).space == Pixels(make_family(name).spec)

"""Flow matching: its regression, the paths it regresses on, and the densities of the velocity it looks for."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from genbench import config, families
from genbench.data.spec import DataSpec
from genbench.errors import UserError
from genbench.interpolants.schedules import expand
from genbench.training import samplers


def test_the_loss_is_the_squared_distance_to_noise_minus_image(make_family, batch):
    """Data that is one image, at the centres of its bins, shows its noise in x_t."""
    family = make_family('flow_matching', dequantisation='none')
    batch = {**batch, 'image': jnp.broadcast_to(batch['image'][:1], batch['image'].shape)}
    x = family.spec.dequantise(batch['image'])

    def loss(offset):
        network = lambda x_t, t, given, key: (x_t - x) / expand(t, x) + offset  # noqa: E731
        return family.loss({'denoiser': network}, batch, jax.random.key(0), jnp.zeros(()))[0]

    assert loss(0.0) == pytest.approx(0, abs=1e-4)
    assert loss(0.5) == pytest.approx(0.25, rel=0.01)


PLANE = DataSpec('points', (1, 2, 1), levels=4096)
MEAN, VARIANCE = np.array([0.1, -0.2]), np.array([0.2, 0.05])


def velocity(x_t, t, given):
    """E[ε − x | x_t] of data N(MEAN, diag VARIANCE) at x_t = (1 − t) x + t ε."""
    t = expand(t, x_t)
    alpha = 1 - t
    white = (x_t - alpha * MEAN) / (alpha**2 * VARIANCE + t**2)
    return t * white - (MEAN + alpha * VARIANCE * white)


def test_the_exact_velocity_has_the_density_of_gaussian_data_by_the_ode_and_by_the_bound(make_family, keys):
    """The levels are too fine to matter, and the densities stop at a noise that is finer still."""
    spec = DataSpec('pairs', (1, 1, 2), levels=8192)
    family = make_family('flow_matching', spec=spec)
    x = MEAN + np.sqrt(VARIANCE) * np.random.default_rng(0).normal(size=(2000, 2))
    images = spec.quantise(x.astype(np.float32)).reshape(-1, 1, 1, 2)
    x = np.asarray(spec.dequantise(images), float).reshape(-1, 2)
    truth = stats.norm.logpdf(x, MEAN, np.sqrt(VARIANCE)).sum(1) + 2 * spec.log_bin_width
    found = {
        likelihood.method: jax.jit(lambda *inputs, one=likelihood: one.log_prob({'denoiser': velocity}, *inputs))(
            images, None, keys(2000)
        )
        for likelihood in family.likelihoods
    }
    assert list(found) == ['ode_1', 'vlb_continuous']
    found['ode_1'] = found['ode_1']['log_prob']
    assert np.corrcoef(found['ode_1'], truth)[0, 1] > 0.99
    for log_prob in (found['ode_1'], found['vlb_continuous']['log_prob']):
        noise = np.asarray(log_prob) - truth
        assert np.mean(noise) == pytest.approx(0, abs=5 * noise.std() / np.sqrt(2000) + 0.01)


def plane_family(**options):
    options = {'name': 'flow_matching', **options}
    network = {'name': 'mlp', 'hidden': (8,), 'activation': 'selu', 'time': 'input'}
    return families.get('flow_matching')(config.resolve({'family': options, 'network': network}), PLANE)


def rows(count, seed=0):
    images = np.random.default_rng(seed).integers(0, 4096, (count, 1, 2, 1))
    return {
        'image': jnp.asarray(images),
        'label': jnp.zeros(count, int),
        'key': jax.random.split(jax.random.key(seed), count),
    }


def test_noise_around_paths_and_data_has_the_moments_of_the_papers():
    """x_t ~ N((1 − t) x + t ε, σ²) at one velocity (Tong et al. 2024), or N((1 − t) x, ((1 − t) σ + t)²) (Lipman)."""
    one = {**rows(1), 'key': jax.random.split(jax.random.key(3), 20_000)}
    one['image'] = jnp.broadcast_to(one['image'], (20_000, 1, 2, 1))
    centre = np.asarray(PLANE.dequantise(one['image'][0]))

    def pairs(**options):
        x, noise, _ = plane_family(dequantisation='none', **options).pairs({}, one, jax.random.key(0))
        return np.asarray(x), np.asarray(noise)

    x, noise = pairs(path_noise=0.5)
    plain, start = pairs()
    np.testing.assert_allclose(noise - x, start - plain, atol=1e-5)
    for t in (0.0, 0.3, 1.0):
        shift = (1 - t) * x + t * noise - ((1 - t) * plain + t * start)
        assert shift.std() == pytest.approx(0.5, rel=0.02) and abs(shift.mean()) < 0.02
    x, noise = pairs(data_noise=0.2)
    for t in (0.0, 0.3, 1.0):
        x_t = (1 - t) * x + t * noise - (1 - t) * centre
        assert x_t.std() == pytest.approx((1 - t) * 0.2 + t, rel=0.02)
    np.testing.assert_allclose(noise - x, 0.8 * start - centre, atol=1e-5)


def test_paths_start_at_points_of_the_source_and_have_no_density():
    family = plane_family(source='ring', scale=3.0)
    _, noise, _ = family.pairs({}, rows(64), jax.random.key(0))
    starts = family.starts(rows(64)['key'])
    for points in (noise, starts):
        np.testing.assert_allclose(np.linalg.norm(points.reshape(64, 2), axis=1), 2.4, atol=0.15)
    assert not np.isin(np.asarray(starts), np.asarray(noise)).any()
    assert family.likelihoods == () and not family.from_noise
    assert len(plane_family().likelihoods) == 2


NOISY = 'draws noise, which is right only for paths that start from noise, and these start at family.source'


@pytest.mark.parametrize(('text', 'why'), [
    ('ancestral:10', NOISY),
    ('ddim:10:eta=0.5', NOISY),
    ('dpmpp_2m_sde:10', NOISY),
    ('heun:10:churn=5', NOISY),
    ('euler_maruyama:10:diffusion=sigma', NOISY),
    ('predictor_corrector:10:predictor=ancestral', NOISY),
    ('heun:10:temperature=0.5', 'has temperature, which is for paths that start from noise'),
    ('euler_maruyama:10', 'none of where it starts, at pure noise'),
    ('euler:10:spacing=0.9/0.5', 'begins at 0.9'),
    ('rk45:10:spacing=rho7', 'chooses the steps of each image by itself'),
])  # fmt: skip
def test_samplers_that_are_wrong_for_a_source_are_refused(text, why):
    with pytest.raises(UserError, match=why):
        samplers.parse(text, plane_family(source='ring'))


@pytest.mark.parametrize('text', ['euler:10', 'heun:10:spacing=rho7', 'ddim:10', 'dpmpp_3m:10', 'rk45:10'])
def test_samplers_that_follow_the_ode_start_at_a_source(text):
    assert samplers.parse(text, plane_family(source='ring')).num_steps == 10


def test_a_scale_stretches_the_space_and_its_densities():
    """log p falls by log s for each dimension, and the images stay the same."""
    family, batch = plane_family(scale=3.0), rows(16)
    x = family.space.encode({}, batch)
    np.testing.assert_allclose(x, 3 * plane_family().space.encode({}, batch), rtol=1e-6)
    np.testing.assert_array_equal(family.space.decode({}, x), batch['image'])
    assert family.space.log_volume == pytest.approx(plane_family().space.log_volume + 2 * np.log(3))


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        ({'source': 'rings'}, 'No set of points is called .rings. .family.source.. Did you mean ring'),
        ({'path_noise': 0.1, 'schedule': 'cosine'}, 'path_noise is for straight paths'),
        ({'source': 'ring', 'offset_noise': 0.1}, 'offset_noise changes .* family.source fixes it'),
        ({'scale': 2.0, 'clip': True}, 'points reach further'),
    ],
)
def test_mistakes_of_paths_are_said(options, message):
    with pytest.raises(UserError, match=message):
        plane_family(**options)

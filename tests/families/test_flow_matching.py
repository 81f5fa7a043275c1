"""Flow matching: its regression, and the densities of the velocity it looks for."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from genbench.data.spec import DataSpec
from genbench.interpolants.schedules import expand


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

"""Where densities stop short of the data: a pixel of certain level has the probability one, and so costs nothing."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from genbench.data.spec import DataSpec
from genbench.errors import UserError
from genbench.families.flow_matching import FlowMatching
from genbench.interpolants import schedules
from genbench.interpolants.predictions import Prediction
from genbench.interpolants.schedules import expand

SPEC = DataSpec('pixel', (1, 1, 1), levels=256)
LEVEL, COUNT = 128, 400
WIDTH = 2 / SPEC.levels
CENTRE = (2 * LEVEL + 1) / SPEC.levels - 1
# Of the noise at which each path is trained last, in bits: E −log₂(Φ((1 − u) / r) − Φ(−u / r)), r = 128 σ / α there.
AT_THE_END_OF_TRAINING = {'linear': 1.75, 'cosine': 1.21, 'straight': 0.18, 'edm': 0.35}


def image_of(x_t, alpha, sigma):
    """E[x | x_t] of x uniform in the bin: the mean of N(x_t / α, (σ / α)²) cut off at the bin's ends."""
    safe = jnp.maximum(alpha, 1e-3)  # where α is smaller the other branch is taken
    mean, scale = x_t / safe, sigma / safe
    low, high = (CENTRE - WIDTH / 2 - mean) / scale, (CENTRE + WIDTH / 2 - mean) / scale
    pdf, cdf = jax.scipy.stats.norm.pdf, jax.scipy.stats.norm.cdf
    inside = mean + scale * (pdf(low) - pdf(high)) / jnp.maximum(cdf(high) - cdf(low), 1e-30)
    # Where the noise is wide the law in the bin is nearly flat, and its slope is that of the normal's logarithm.
    slope = alpha * (x_t - alpha * CENTRE) / jnp.square(sigma)
    return jnp.where(scale > 20 * WIDTH, CENTRE + WIDTH**2 / 12 * slope, inside)


class Certain(FlowMatching):
    """The network is E[x | x_t] of one pixel whose level is LEVEL, dequantised or at the centre of its bin."""

    def denoise(self, networks, given, guidance=0.0, clip=False):
        def denoise(x_t, t):
            alpha, sigma = expand(self.schedule.alpha(t), x_t), expand(self.schedule.sigma(t), x_t)
            x = jnp.full_like(x_t, CENTRE)
            if self.path_config.dequantisation == 'uniform':
                x = image_of(x_t, alpha, sigma)
            return Prediction(x, (x_t - alpha * x) / sigma)

        return denoise


@pytest.fixture
def certain(resolve):
    def make(schedule, truncation=None, dequantisation='uniform', prediction='velocity', **ode):
        prediction = 'preconditioned' if schedule == 'edm' else prediction
        config = resolve('flow_matching', schedule=schedule, prediction=prediction, dequantisation=dequantisation)
        config = config.copy_and_resolve_references()
        config.evaluation.ode.update(ode)
        config.evaluation.vlb_draws = 100
        config.evaluation.truncation = config.evaluation.truncation if truncation is None else truncation
        return Certain(config, SPEC)

    return make


def bits(likelihood, keys):
    """Mean over COUNT draws, its standard error, and the mean of each part."""
    images = jnp.full((COUNT, 1, 1, 1), LEVEL)
    score = jax.jit(functools.partial(likelihood.log_prob, None))
    scored = score(images, None, keys(COUNT))
    scored = scored if isinstance(scored, dict) else {'log_prob': scored}
    found = {name: np.asarray(SPEC.bits_per_dim(part)) for name, part in scored.items()}
    total = found.pop('log_prob')
    return total.mean(), total.std() / np.sqrt(COUNT), {name: part.mean() for name, part in found.items()}


every_schedule = pytest.mark.parametrize('name', schedules.SCHEDULES)


@pytest.mark.parametrize('ode', [{}, {'solver': 'heun', 'num_steps': 32}, {'solver': 'dopri5'}], ids=str)
@every_schedule
def test_a_pixel_of_certain_level_costs_next_to_nothing_by_the_ode(name, ode, certain, keys):
    """With the shipped solver, and with any other at its usual cost; below zero its probability would be above one."""
    if 'solver' in ode and ode['solver'] == 'dopri5':
        pytest.importorskip('diffrax')
    value, error, parts = bits(certain(name, **ode).likelihoods[0], keys)
    assert value == pytest.approx(parts['truncation_at_most'], abs=3 * error + (0.005 if not ode else 0.03))
    assert parts['truncation_at_most'] < 0.05 and -0.05 < value < 0.06


@every_schedule
def test_a_model_of_bin_centres_is_followed_no_further_than_it_was_trained_and_names_no_loss(name, certain, keys):
    """At 0.03 of a bin the density of one centre, at points uniform in the bin, costs 68 bits."""
    family = certain(name, dequantisation='none')
    ode = family.likelihoods[0]
    assert ode.protocol['t_min'] == family.schedule.t_min and ode.protocol['trained_on'] == 'centres of bins'
    value, _, parts = bits(ode, keys)
    # E −log₂(w N(w (u − 1/2); 0, s²)) for u uniform in [0, 1] and s = σ / α at the end of training
    t = jnp.asarray(family.schedule.t_min)
    ratio = float(family.schedule.sigma(t) / family.schedule.alpha(t)) / WIDTH
    wanted = math.log2(ratio * math.sqrt(2 * math.pi)) + 1 / (24 * ratio**2 * math.log(2))
    assert parts == {} and value == pytest.approx(wanted, rel=0.2, abs=0.05)


@pytest.mark.parametrize('name', ['linear', 'cosine', 'straight'])
def test_a_prediction_of_the_image_is_followed_no_further_than_it_was_trained(name, certain):
    """Its error in x is divided by σ: with the network of the last trained time, the bound loses tens of bits."""
    family = certain(name, prediction='x')
    assert family.scored.t_min == family.schedule.t_min
    assert all(one.protocol['t_min'] == family.schedule.t_min for one in family.likelihoods)


@every_schedule
def test_where_the_density_stops_with_training_it_costs_bits_and_the_row_says_how_many(name, certain, keys):
    family = certain(name, truncation=100.0)
    assert family.scored.t_min == family.schedule.t_min
    value, error, parts = bits(family.likelihoods[0], keys)
    assert value == pytest.approx(AT_THE_END_OF_TRAINING[name], abs=5 * error + 0.01)
    assert parts['truncation_at_most'] == pytest.approx(AT_THE_END_OF_TRAINING[name], abs=0.01)


@pytest.mark.parametrize(
    ('name', 'dequantisation'), [*((name, 'uniform') for name in schedules.SCHEDULES), ('linear', 'none')]
)
def test_a_pixel_of_certain_level_costs_next_to_nothing_by_the_continuous_bound(name, dequantisation, certain, keys):
    """At the end of training it would be up to 2.4 bits, the entropy of x + σ ε over that of x in widths of a bin."""
    value, error, _ = bits(certain(name, dequantisation=dequantisation).likelihoods[1], keys)
    assert -5 * error <= value < 0.06 + 5 * error and error < 0.025


@every_schedule
def test_densities_stop_at_the_same_noise_on_every_path(name, certain):
    family = certain(name, truncation=0.02)
    t = jnp.asarray(family.scored.t_min)
    assert family.scored.sigma(t) / family.scored.alpha(t) / WIDTH == pytest.approx(0.02, rel=1e-3)
    assert all(one.protocol['t_min'] == family.scored.t_min for one in family.likelihoods)
    assert family.scored.t_max == family.schedule.t_max


def test_noise_that_is_no_noise_is_refused(certain):
    with pytest.raises(UserError, match='evaluation.truncation is 0.*above 0'):
        certain('straight', truncation=0.0)
    assert math.isfinite(certain('straight', truncation=1e-6).scored.t_min)

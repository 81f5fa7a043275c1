"""Consistency training on Gaussian data, whose consistency function is known, and its times against their laws."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import special

from genbench.data.spec import DataSpec
from genbench.errors import UserError
from genbench.families.base import Networks
from genbench.interpolants import predictions
from genbench.interpolants.schedules import expand

SPEC, STD = DataSpec('pairs', (1, 1, 2), levels=8192), 0.25


def test_training_pulls_towards_the_consistency_function(make_family, keys):
    """f_c = x_t m(t)^c with m = STD / √(α² STD² + σ²) is the consistency function for c = 1, and f_c(x, 0) = x.

    The squared distance has the slope E ⟨f_c(x_t) − f_c(x_s), ∂f_c(x_t)/∂c⟩, which then vanishes for small steps: with
    x_s on the trajectory through x_t the difference is x_t m(t) (m(t)^(c−1) − m(s)^(c−1)), of the sign of 1 − c.
    """
    options = {'schedule': 'cosine', 'prediction': 'v', 'time_sampler': 'uniform', 'huber': 0.0}
    family = make_family('consistency_training', spec=SPEC, fewest=200, most=200, **options)
    normal = STD * jax.random.normal(jax.random.key(0), (20_000, 1, 1, 2))
    batch = {'image': SPEC.quantise(normal), 'key': keys(20_000)}

    @jax.jit
    @jax.grad
    def slope(c):
        def jump(x_t, t):
            alpha, sigma = (expand(part(t), x_t) for part in (family.schedule.alpha, family.schedule.sigma))
            x = x_t * (STD / jnp.sqrt((alpha * STD) ** 2 + sigma**2)) ** c
            return predictions.Prediction(x, (x_t - alpha * x) / jnp.where(sigma > 0, sigma, 1))

        def network(x_t, t, given, key=None):
            return jnp.nan_to_num(predictions.target('v', family.schedule, *jump(x_t, t)[:2], t))

        networks = Networks({'denoiser': network})
        return family.loss(networks, batch, jax.random.key(0), jnp.zeros((), int))[0]

    below, exact, above = (float(slope(c)) for c in (0.7, 1.0, 1.3))
    assert below < 0 < above and abs(exact) < 0.1 * min(-below, above)


def test_steps_double_until_they_are_the_most(make_family):
    """N(k) − 1 with N(k) = min(s₀ 2^⌊k / K'⌋, s₁) + 1 and K' = ⌊K / (log₂⌊s₁ / s₀⌋ + 1)⌋ (equation 10)."""
    family = make_family('consistency_training', fewest=10, most=1280)
    updates = family.config.train.num_steps
    part = updates // (7 + 1)
    for k in (0, part - 1, part, 3 * part, 7 * part, updates - 1):
        assert int(family.steps(jnp.asarray(k))) == min(10 * 2 ** (k // part), 1280)
    with pytest.raises(UserError, match='fewest is 20, more than family.most'):
        make_family('consistency_training', fewest=20, most=10)


def test_neighbouring_times_have_the_discrete_law_of_the_paper(make_family, keys):
    """p(σ_i) ∝ erf((ln σ_{i+1} − P_mean) / √2 P_std) − erf((ln σ_i − P_mean) / √2 P_std) (section 3.5)."""
    family, count = make_family('consistency_training', fewest=10, most=20), 20_000
    t, s = (np.asarray(one) for one in jax.jit(lambda keys: family.neighbours(keys, 10))(keys(count)))
    edges = (0.002 ** (1 / 7) + np.arange(10) / 9 * (80 ** (1 / 7) - 0.002 ** (1 / 7))) ** 7
    share = np.diff(special.erf((np.log(edges) + 1.1) / (np.sqrt(2) * 2))) / 2
    for low, high, wanted in zip(edges[:-2], edges[1:-1], share[:-1], strict=True):
        here = np.isclose(s, low, rtol=1e-3) & np.isclose(t, high, rtol=1e-3)
        assert here.mean() == pytest.approx(wanted, abs=5 * np.sqrt(wanted / count) + 1e-4)


def test_the_step_to_the_image_is_trained_at_every_number_of_steps(make_family, keys):
    """With the share of the noise levels below σ_min, which are moved there."""
    family, count = make_family('consistency_training', fewest=10, most=1280), 20_000
    wanted = special.ndtr((np.log(0.002) + 1.1) / 2)
    neighbours = jax.jit(family.neighbours)
    for number in (10, 160, 1280):
        s = np.asarray(neighbours(keys(count), jnp.asarray(number))[1])
        assert (s == 0).mean() == pytest.approx(wanted, abs=5 * np.sqrt(wanted / count))

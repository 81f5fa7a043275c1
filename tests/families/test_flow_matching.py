"""Flow matching: its times and its regression."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from genbench.errors import UserError
from genbench.interpolants.schedules import expand


@pytest.mark.parametrize(
    ('name', 'law'),
    [('uniform', stats.uniform.cdf), ('logit_normal', lambda t: stats.norm.cdf(np.log(t / (1 - t))))],
)
def test_training_times_follow_the_law_they_are_named_after(name, law, make_family):
    family = make_family('flow_matching', time_sampler=name)
    t = np.asarray(family.times(jax.random.key(0), (5000,)))
    assert t.min() >= family.schedule.t_min and t.max() <= family.schedule.t_max
    assert stats.kstest(t, law).pvalue > 1e-4


def test_an_unknown_time_sampler_is_answered_with_the_nearest_name(make_family):
    with pytest.raises(UserError, match="'logit_norm'.*Did you mean logit_normal"):
        make_family('flow_matching', time_sampler='logit_norm')


def test_the_loss_is_the_squared_distance_to_noise_minus_image(make_family, batch):
    """Data that is one image, at the centres of its bins, shows its noise in x_t."""
    family = make_family('flow_matching', dequantisation='none')
    batch = {**batch, 'image': jnp.broadcast_to(batch['image'][:1], batch['image'].shape)}
    x = family.spec.dequantise(batch['image'])

    def loss(offset):
        network = lambda x_t, t, labels, key: (x_t - x) / expand(t, x) + offset  # noqa: E731
        return family.loss({'denoiser': network}, batch, jax.random.key(0), jnp.zeros(()))[0]

    assert loss(0.0) == pytest.approx(0, abs=1e-4)
    assert loss(0.5) == pytest.approx(0.25, rel=0.01)

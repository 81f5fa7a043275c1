"""Inductive moment matching: its times, its discrepancy written out, and a flow that has none."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from genbench import config as configs
from genbench import families
from genbench.data.spec import DataSpec
from genbench.errors import UserError
from genbench.families.base import Networks
from genbench.interpolants.schedules import expand

SPEC = DataSpec('pairs', (1, 1, 2), levels=64)


def loss(family, network, rows):
    return float(family.loss(Networks({'denoiser': network}), rows, jax.random.key(0), jnp.zeros(()))[0])


def test_jumps_along_a_flow_agree_and_others_do_not(make_family, keys):
    """Data that is one image: its velocity is constant along every path, so jumps from t and from r meet."""
    family = make_family('inductive_moment_matching', spec=SPEC, dequantisation='none', decrement=0.5)
    rows = {'image': jnp.full((64, 1, 1, 2), 40), 'key': keys(64)}
    x = SPEC.dequantise(rows['image'])

    def network(x_t, t, given=None, key=None, s=None):
        return (x_t - x) / expand(t, x)

    assert loss(family, network, rows) == pytest.approx(0, abs=1e-5)
    assert loss(family, lambda *inputs, **options: 1.3 * network(*inputs, **options), rows) > 1e-3


def test_groups_share_their_times_and_r_is_one_decrement_before_t(make_family, keys):
    family = make_family('inductive_moment_matching', spec=SPEC, group=4, decrement=0.1)
    t, r, s = (np.asarray(value, float).reshape(-1, 4) for value in family._three_times(keys(4000)))
    for value in (t, r, s):
        assert (value == value[:, :1]).all()
    assert len(np.unique(t)) > 900 and t.max() <= family.config.family.latest + 1e-6  # in float32
    assert (s <= r).all() and (r <= t).all()
    np.testing.assert_allclose(r, np.maximum(t - 0.1, s), atol=1e-6)


def test_r_may_be_one_step_in_the_noise_level_before_t(make_family, keys):
    """η(r) = η(t) − ε with η = t / (1 − t), in float64; r is s where that is later, and never after t."""
    family = make_family('inductive_moment_matching', spec=SPEC, decrement=0.02, decrement_in='noise_level', latest=1.0)
    t, r, s = (np.asarray(value, float) for value in family._three_times(keys(4000)))
    level = t / (1 - t) - 0.02
    np.testing.assert_allclose(r, np.clip(level / (1 + level), s, None), rtol=1e-5)
    assert (s <= r).all() and (r <= t).all() and t.max() > 0.999


def test_the_step_of_the_config_for_cifar10_is_still_a_step_in_float32(make_family, keys):
    options = configs.load('configs/cifar10/inductive_moment_matching.py').family
    chosen = {key: options[key] for key in ('decrement', 'decrement_in', 'latest')}
    family = make_family('inductive_moment_matching', spec=SPEC, **chosen)
    t, r, s = (np.asarray(value, float) for value in family._three_times(keys(4000)))
    free = r > s
    wanted = options.decrement * (1 - t) ** 2  # dt of a small step of η = t / (1 − t)
    assert free.mean() > 0.9 and (t - r)[free] == pytest.approx(wanted[free], rel=0.3)


def test_the_loss_is_the_discrepancy_of_every_pair_in_a_group(make_family, keys):
    family = make_family('inductive_moment_matching', spec=SPEC, group=2, weight='none')
    rows = {'image': jax.random.randint(jax.random.key(1), (6, 1, 1, 2), 0, 64), 'key': keys(6)}
    network = lambda x_t, t, given=None, key=None, s=None: jnp.sin(3 * x_t) + expand(t, x_t)  # noqa: E731
    t, r, s = (np.asarray(value, float) for value in family._three_times(rows['key']))
    x, noise = (np.asarray(value, float).reshape(6, 2) for value in family.pairs({}, rows, None)[:2])

    def jump(i, time):
        x_t = (1 - time) * x[i] + time * noise[i]
        return x_t - (time - s[i]) * (np.sin(3 * x_t) + time)

    total = 0.0
    for first in (0, 2, 4):
        ours, theirs = ([jump(first + i, times[first]) for i in range(2)] for times in (t, r))
        width = 0.5 * (t[first] - s[first])
        kernel = lambda a, b, width=width: np.exp(-np.linalg.norm(a - b) / 2 / width)  # noqa: E731
        pairs = [(i, j) for i in range(2) for j in range(2)]
        total += sum(kernel(ours[i], ours[j]) + kernel(theirs[i], theirs[j]) - 2 * kernel(ours[i], theirs[j])
                     for i, j in pairs) / 4  # fmt: skip
    assert loss(family, network, rows) == pytest.approx(total / 3, rel=1e-3, abs=1e-6)


def test_a_group_at_the_earliest_time_has_no_way_to_go_and_moves_nothing(make_family, keys):
    family = make_family('inductive_moment_matching', spec=SPEC, group=2)
    t, _, s = family._three_times(keys(20_000))
    earliest = int(jnp.argmax(t == s)) // 2 * 2
    assert t[earliest] == s[earliest]
    rows = {'image': jnp.full((2, 1, 1, 2), 40), 'key': keys(20_000)[earliest : earliest + 2]}

    def found(scale):
        network = lambda x_t, t, given=None, key=None, s=None: scale * x_t  # noqa: E731
        return family.loss(Networks({'denoiser': network}), rows, jax.random.key(0), jnp.zeros(()))[0]

    np.testing.assert_array_equal(jax.value_and_grad(found)(2.0), (0.0, 0.0))


@pytest.mark.parametrize(
    ('overrides', 'why'),
    [
        (('family.group=3',), r'family\.group is 3, which does not divide train\.batch_size \(128\)'),
        (('train.accumulate=2',), 'whole batch at once: use train.accumulate=1'),
        (('family.weight=elbo',), "There is no weight 'elbo'.*moments"),
    ],
)
def test_groups_that_a_batch_does_not_hold_are_refused(overrides, why):
    config = configs.resolve({'family': {'name': 'inductive_moment_matching'}}, overrides)
    with pytest.raises(UserError, match=why):
        families.get('inductive_moment_matching')(config, SPEC)

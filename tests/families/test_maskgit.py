"""Masked generation with an exact predictor of a known distribution, whose samples are listed by brute force."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from genbench import config, families
from genbench.data.spec import DataSpec
from genbench.errors import UserError
from genbench.families.base import Networks, Sampler
from genbench.families.maskgit import hidden_share
from genbench.interpolants.options import MaskedOptions

LEVELS, COUNT = 2, 40_000
SPEC = DataSpec('tiny', (1, 3, 1), LEVELS)
EVERY = np.array(list(itertools.product(range(LEVELS), repeat=3)))
JOINT = np.random.default_rng(3).dirichlet(np.full(len(EVERY), 0.5))


class Exact:
    """p(x_i | the values that are not hidden) of JOINT, in place of the network."""

    def __call__(self, x, hidden, given=None, key=None):
        agrees = (x[:, None] == EVERY) | hidden[:, None]
        weight = jnp.where(agrees.all(-1), JOINT, 0)
        counts = jnp.einsum('bk,kil->bil', weight, jax.nn.one_hot(EVERY, LEVELS))
        return jnp.log(counts + 1e-30)


@pytest.fixture
def family(resolve):
    return families.get('maskgit')(resolve('maskgit', label_smoothing=0.0), SPEC)


def shares(family, keys, steps, temperature):
    sampler = Sampler('parallel', steps, options=MaskedOptions(temperature))
    images = jax.jit(lambda keys: family.sample({'predictor': Exact()}, keys, None, sampler).images)(keys(COUNT))
    return np.bincount(np.asarray(images).reshape(COUNT, 3) @ [4, 2, 1], minlength=8) / COUNT


def test_in_random_order_and_one_by_one_samples_have_the_joint_distribution(family, keys):
    np.testing.assert_allclose(shares(family, keys, 12, 1e5), JOINT, atol=0.012)


def test_a_single_step_draws_from_the_product_of_the_marginals(family, keys):
    marginals = [JOINT @ (EVERY[:, i] == 1) for i in range(3)]
    wanted = np.prod(np.where(EVERY, marginals, 1 - np.array(marginals)), axis=1)
    np.testing.assert_allclose(shares(family, keys, 1, 4.5), wanted, atol=0.012)
    assert np.abs(wanted - JOINT).max() > 0.05


def test_without_noise_the_most_confident_draw_is_kept_and_the_others_are_drawn_again(family, keys):
    """Two steps: three independent draws, of which cos(π/4) · 3 → 2 are hidden again; all cases by enumeration."""
    conditional = lambda fixed: JOINT * np.all([EVERY[:, i] == v for i, v in fixed.items()], axis=0)  # noqa: E731
    marginal = lambda weight, i, v: weight @ (EVERY[:, i] == v) / weight.sum()  # noqa: E731
    wanted = np.zeros(8)
    for first in EVERY:
        p = np.array([marginal(JOINT, i, v) for i, v in enumerate(first)])
        best = int(p.argmax())
        weight = conditional({best: first[best]})
        for index, second in enumerate(EVERY):
            if second[best] == first[best]:
                others = [marginal(weight, i, second[i]) for i in range(3) if i != best]
                wanted[index] += p.prod() * np.prod(others)
    assert wanted.sum() == pytest.approx(1)
    np.testing.assert_allclose(shares(family, keys, 2, 0.0), wanted, atol=0.012)


def test_the_loss_of_the_exact_predictor_is_the_entropy_of_what_is_hidden(family, keys):
    """E −log p(x_i | seen) over data from JOINT, with the share of each number of hidden values from the schedule."""
    data = EVERY[np.random.default_rng(0).choice(8, COUNT, p=JOINT)].reshape(-1, 1, 3, 1)
    loss, _ = jax.jit(lambda batch: family.loss({'predictor': Exact()}, batch, jax.random.key(0), 0))(
        {'image': jnp.asarray(data), 'key': keys(COUNT)}
    )
    r = (np.arange(100_000) + 0.5) / 100_000
    number = np.maximum(np.ceil(3 * np.cos(np.pi / 2 * r)), 1)
    wanted = 0.0
    for size in (1, 2, 3):
        sets = list(itertools.combinations(range(3), size))
        for hidden, (p, x) in itertools.product(sets, zip(JOINT, EVERY, strict=True)):
            seen = np.all([(EVERY[:, i] == x[i]) | (i in hidden) for i in range(3)], axis=0) * JOINT
            nats = -sum(np.log(seen @ (EVERY[:, i] == x[i]) / seen.sum()) for i in hidden)
            wanted += (number == size).mean() / len(sets) * p * nats
    assert loss == pytest.approx(wanted / 3 / np.log(2), rel=0.02)


def test_smoothing_spreads_a_share_of_the_target_over_all_values(family, keys, resolve):
    """A predictor that gives 0.7 to ones, of images of ones: by hand, the true value weighs 0.8 + 0.2 / 2."""
    smooth = families.get('maskgit')(resolve('maskgit', label_smoothing=0.2), SPEC)
    predict = lambda x, *_: jnp.broadcast_to(jnp.log(jnp.array([0.3, 0.7])), (*x.shape, 2))  # noqa: E731
    batch = {'image': jnp.ones((16, 1, 3, 1), int), 'key': keys(16)}
    found = [one.loss({'predictor': predict}, batch, jax.random.key(0), 0) for one in (family, smooth)]
    (plain, logged), (spread, also) = found
    assert spread / plain == pytest.approx(0.9 + 0.1 * np.log(0.3) / np.log(0.7), rel=1e-5)
    assert logged['bits'] == also['bits'] == pytest.approx(-np.log2(0.7), rel=1e-5)


def test_the_schedule_hides_everything_at_the_start_and_nothing_at_the_end():
    np.testing.assert_allclose(hidden_share(jnp.array([0, 1 / 3, 1])), [1, np.sqrt(3) / 2, 0], atol=1e-6)


def test_the_network_does_not_see_what_is_hidden_and_sees_the_rest():
    network = {'name': 'pixel_transformer', 'depth': 2, 'width': 8, 'heads': 2}
    family = families.get('maskgit')(config.resolve({'family': {'name': 'maskgit'}, 'network': network}), SPEC)
    networks = Networks(family.networks(nnx.Rngs(0)))
    random = np.random.default_rng(0)
    nnx.update(networks['predictor'], jax.tree.map(
        lambda leaf: jnp.asarray(random.normal(size=leaf.shape), jnp.float32), nnx.state(networks['predictor'])
    ))  # fmt: skip
    x, hidden = jnp.array([[0, 1, 1]]), jnp.array([[False, True, False]])
    first = networks['predictor'](x, hidden)
    np.testing.assert_array_equal(first, networks['predictor'](x.at[0, 1].set(0), hidden))
    assert np.abs(first - networks['predictor'](x.at[0, 2].set(0), hidden))[0, :2].max() > 1e-3


def test_a_network_that_sees_one_direction_is_refused(resolve):
    resolved = config.resolve({'family': {'name': 'maskgit'}, 'network': {'name': 'made'}})
    with pytest.raises(UserError, match='does not fill in masked values; use pixel_transformer'):
        families.get('maskgit')(resolved, SPEC).networks(nnx.Rngs(0))

"""Marks in noise and their tests, against explicit bases, simulated noise and a model in closed form."""

import itertools

import jax
import numpy as np
import oracles
import pytest
from flax import nnx
from scipy import stats

from genbench import config, families
from genbench.data.spec import DataSpec
from genbench.errors import UserError
from genbench.evaluation.watermarks import GaussianShading, TreeRing
from genbench.families.base import Networks, Sampler
from genbench.training import samplers

SHAPES = [(8, 8, 1), (9, 14, 2)]


def noise(count, shape, seed=0):
    return np.random.default_rng(seed).standard_normal((count, *shape))


def basis(shape, radius):
    """Orthonormal pictures of the waves of the pattern, (d, height, width), and which of them are cosines' rings."""
    height, width = shape[:2]
    rows, columns = np.mgrid[:height, :width]
    waves, rings = [np.full((height, width), (height * width) ** -0.5)], [0]
    for down, across in itertools.product(range(-radius, radius + 1), repeat=2):
        length = np.hypot(down, across)
        if length <= radius and (down, across) > (0, 0):
            angle = 2 * np.pi * (down * rows / height + across * columns / width)
            waves += [np.cos(angle) * (2 / angle.size) ** 0.5, np.sin(angle) * (2 / angle.size) ** 0.5]
            rings += [int(np.ceil(length)), -1]
    return np.stack(waves), np.array(rings)


@pytest.mark.parametrize('shape', SHAPES)
def test_tree_ring_writes_the_same_number_into_the_cosines_of_a_ring_and_nothing_into_the_rest(shape):
    mark, z = TreeRing(shape, 'a', 3), noise(2, shape)
    waves, rings = basis(shape, 3)
    drawn = mark.marked(z)
    parts = np.einsum('dhw,nhwc->ndc', waves, drawn)
    np.testing.assert_allclose(parts[0], parts[1], atol=1e-5)
    np.testing.assert_allclose(parts[0][rings == -1], 0, atol=1e-5)
    for ring in range(1, 4):
        assert np.ptp(parts[0][rings == ring], axis=0).max() < 1e-5 < np.abs(parts[0][rings == ring]).min()
    assert np.square(parts[0]).sum() == pytest.approx(parts[0].size, rel=1e-5)  # the energy of noise
    rest = z - np.einsum('dhw,ndc->nhwc', waves, np.einsum('dhw,nhwc->ndc', waves, z))
    np.testing.assert_allclose(drawn - np.einsum('dhw,ndc->nhwc', waves, parts), rest, atol=1e-5)


@pytest.mark.parametrize('shape', SHAPES)
def test_the_numbers_of_tree_ring_are_those_of_the_paper_in_an_explicit_basis(shape):
    mark, z = TreeRing(shape, 'a', 2), 1.7 * noise(3, shape)
    waves, _ = basis(shape, 2)
    y, k = (np.einsum('dhw,nhwc->ndc', waves, one).reshape(len(one), -1) for one in (z, mark.marked(z[:1])))
    found, variance = mark.tested(z), np.square(y).mean(1)
    distance = np.square(y - k).sum(1) / variance
    paper = stats.ncx2.cdf(distance, k.size, np.square(k).sum() / variance)
    np.testing.assert_allclose(found.more['p_chi_square'], paper, rtol=1e-5)
    np.testing.assert_allclose(found.score, [1 - (np.square(a / np.linalg.norm(a) - k / np.linalg.norm(k))).sum() / 2
                                             for a in y], atol=1e-6)  # fmt: skip


def rates(hits, count):
    """The exact 99.9% interval of a rate."""
    return stats.binomtest(int(hits), count).proportion_ci(0.999)


def within(hits, count, rate):
    low, high = rates(hits, count)
    return low <= rate <= high


@pytest.mark.parametrize('shape', SHAPES)
@pytest.mark.parametrize('deviation', [1.0, 0.3])
def test_p_values_of_tree_ring_are_uniform_for_unmarked_noise(shape, deviation):
    found = TreeRing(shape, 'b', 2).tested(deviation * noise(20000, shape))
    assert stats.kstest(found.p_value, 'uniform').pvalue > 1e-3
    for rate in (0.001, 0.01, 0.05):
        assert within((found.p_value <= rate).sum(), 20000, rate)
        if deviation == 1:
            assert (found.more['p_chi_square'] <= rate).mean() < rate  # the paper's is conservative


def test_with_the_true_variance_the_distance_is_noncentral_chi_square():
    mark = TreeRing((8, 8, 1), 'c', 3)
    waves, _ = basis(mark.shape, 3)
    y, k = (np.einsum('dhw,nhwc->ndc', waves, one).reshape(len(one), -1)
            for one in (noise(5000, mark.shape), mark.marked(noise(1, mark.shape))))  # fmt: skip
    distance = np.square(y - k).sum(1)
    assert stats.kstest(distance, stats.ncx2(k.size, np.square(k).sum()).cdf).pvalue > 1e-3


def test_noise_of_gaussian_shading_is_standard_normal_over_pads():
    shape, count = (4, 4, 1), 20000
    mark = GaussianShading(shape, 'd', bits=5, pads=count)
    drawn = mark.marked(noise(count, shape)).reshape(count, -1)
    assert stats.kstest(drawn.ravel(), 'norm').pvalue > 1e-3
    covariance = np.cov(drawn.T)
    assert np.abs(covariance - np.eye(16)).max() < 5 * (2 / count) ** 0.5
    pairs = (drawn[:, :-1] > 0) & (drawn[:, 1:] > 0)
    assert np.abs(pairs.mean(0) - 0.25).max() < 5 * (0.1875 / count) ** 0.5


@pytest.mark.parametrize(('shape', 'bits', 'pads'), [((4, 4, 1), 16, 1), ((8, 8, 1), 7, 3), ((9, 14, 2), 0, 2)])
def test_a_message_is_read_from_its_own_noise(shape, bits, pads):
    mark = GaussianShading(shape, 'e', bits=bits, pads=pads)
    found = mark.tested(mark.marked(noise(5, shape)))
    assert (found.score == 1).all() and found.more['pad'].tolist() == [n % pads for n in range(5)]
    assert {''.join(map(str, one)) for one in found.more['message']} == {mark.message}
    assert GaussianShading(shape, 'e', mark.message, pads=pads).tested(mark.marked(noise(5, shape))).score.min() == 1
    assert GaussianShading(shape, 'other', mark.message).tested(mark.marked(noise(5, shape))).score.max() < 1


def test_most_copies_decide_a_bit_and_the_first_one_a_tie():
    mark = GaussianShading((4, 4, 1), 'f', '101', pads=1)
    whole, places = mark.marked(np.abs(noise(1, mark.shape)) + 0.1), mark._places
    for bit, lost in itertools.product(range(3), range(7)):
        copies = np.flatnonzero(places == bit)
        if lost > len(copies):
            continue
        for flipped in (copies[:lost], copies[len(copies) - lost :]):
            hurt = whole.reshape(-1).copy()
            hurt[flipped] *= -1
            kept = [(len(copies) - lost) * 2, 0 not in np.searchsorted(copies, flipped)]
            right = kept[0] > len(copies) or (kept[0] == len(copies) and kept[1])
            read = mark.read(hurt.reshape(1, *mark.shape), np.array([0]))[0]
            assert (read[bit] == int('101'[bit])) == right
            assert [read[other] for other in range(3) if other != bit] == [int('101'[o]) for o in range(3) if o != bit]


@pytest.mark.parametrize('pads', [1, 4])
def test_false_alarms_of_gaussian_shading_have_the_binomial_rate(pads):
    """One fixed image under many random secrets, and one secret for many random noises. Pads are independent only over
    secrets."""
    shape, bits, fixed = (4, 4, 1), 8, np.linspace(-1, 2, 16).reshape(1, 4, 4, 1)
    over_secrets = [GaussianShading(shape, str(n), bits=bits, pads=pads).tested(fixed) for n in range(1500)]
    over_noise = GaussianShading(shape, 'g', bits=bits, pads=pads).tested(noise(20000, shape))
    scores = np.concatenate([one.score for one in over_secrets])
    for right in (5, 6, 7, 8):
        tail = stats.binom.sf(right - 1, bits, 0.5)
        assert within((scores >= right / bits).sum(), len(scores), 1 - (1 - tail) ** pads)
        assert over_noise.p_value[over_noise.score == right / bits] == pytest.approx(min(1, pads * tail))
        alarms = (over_noise.score >= right / bits).sum()
        assert within(alarms, 20000, tail) if pads == 1 else rates(alarms, 20000)[0] <= pads * tail


@pytest.mark.parametrize(('bits', 'pads'), [(8, 1), (8, 4), (16, 500)])
def test_chance_is_the_mean_of_the_best_of_independent_coins(bits, pads):
    best = np.random.default_rng(0).binomial(bits, 0.5, (20000, pads)).max(1) / bits
    chance = GaussianShading((4, 4, 1), 'a', bits=bits, pads=pads).chance
    assert chance == pytest.approx(best.mean(), abs=5 * best.std() / 20000**0.5)
    fixed = np.linspace(-1, 2, 16).reshape(1, 4, 4, 1)
    if pads <= 4:
        scores = [GaussianShading((4, 4, 1), str(n), bits=bits, pads=pads).tested(fixed).score[0] for n in range(800)]
        assert chance == pytest.approx(np.mean(scores), abs=5 * best.std() / 800**0.5)


@pytest.mark.parametrize('name', ['diffusion', 'flow_matching'])
def test_inversion_of_a_gaussian_model_finds_the_marked_noise(name):
    """Of images N(0, 1/4), the ODE makes noise twice the image."""
    spec = DataSpec('images', (8, 8, 1), levels=256)
    family = families.get(name)(config.resolve({'family': {'name': name}}), spec)
    family.denoise = lambda *_, **__: oracles.isotropic(family.schedule)
    keys, z = jax.random.split(jax.random.key(0), 40), noise(40, spec.shape, 3)

    def through(mark, steps):
        sampler = Sampler('ddim', steps)
        images = family.sample({}, keys, {'noise': jax.numpy.asarray(mark.marked(z))}, sampler).images
        return np.asarray(images), np.asarray(family.inverted({}, images, keys, None, sampler))

    mark = TreeRing(spec.shape, 'h')
    errors = []
    for steps in (10, 80):
        images, found = through(mark, steps)
        errors.append(np.abs(found - 2 * np.asarray(spec.dequantise(images))).max())
    assert errors[1] < errors[0] / 4 and errors[1] < 0.1
    result = mark.tested(found)
    assert result.score.min() > 0.97 and result.p_value.max() < 1e-6
    shading = GaussianShading(spec.shape, 'h', bits=16, pads=40)
    assert shading.tested(through(shading, 80)[1]).score.min() > 0.99


def test_a_flow_finds_the_marked_noise_up_to_rounding(tiny):
    spec = DataSpec('images', (8, 8, 1), levels=256)
    family = families.get('normalizing_flow')(tiny('normalizing_flow'), spec)
    networks, sampler = Networks(family.networks(nnx.Rngs(0))), samplers.default(family)
    keys, z = jax.random.split(jax.random.key(0), 20), noise(20, spec.shape, 4)
    mark = GaussianShading(spec.shape, 'i', pads=20)
    start = jax.numpy.asarray(mark.marked(z).reshape(20, -1))
    images = family.sample(networks, keys, {'noise': start}, sampler).images
    found = np.asarray(family.inverted(networks, images, keys, None, sampler))
    assert np.corrcoef(found.ravel(), start.ravel())[0, 1] > 0.99
    assert mark.tested(found.reshape(-1, *spec.shape)).score.min() > 0.9


@pytest.mark.parametrize(
    ('make', 'message'),
    [
        (lambda: TreeRing((8, 8, 1), '', 4), 'radii from 1 to 3'),
        (lambda: GaussianShading((8, 8, 1), '', '10x'), 'write zeros and ones'),
        (lambda: GaussianShading((8, 8, 1), '', '101', 4), 'leave out --bits'),
        (lambda: GaussianShading((8, 8, 1), '', bits=65), 'from 1 to 64'),
        (lambda: GaussianShading((8, 8, 1), '', pads=2_000_000_000), '2000000000 pads; .* from 1 to 4194304'),
        (lambda: GaussianShading((8, 8, 1), '', pads=0), 'There are 0 pads'),
    ],
)
def test_settings_that_noise_cannot_carry(make, message):
    with pytest.raises(UserError, match=message):
        make()

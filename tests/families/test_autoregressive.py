"""Autoregressive models against all images of a space that is small enough to list, and fixed binary images."""

import dataclasses
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from genbench import config, families, rng
from genbench.data.spec import DataSpec
from genbench.errors import UserError
from genbench.families import observations
from genbench.families.base import Networks, Sampler

MADE = {'name': 'made', 'hidden': (24,)}
CNN = {'name': 'pixel_cnn', 'channels': 4, 'blocks': 1, 'scales': 2}
TRANSFORMER = {'name': 'pixel_transformer', 'depth': 2, 'width': 8, 'heads': 2}
KINDS = {  # decoder, data and network
    'bernoulli': ('bernoulli', DataSpec('tiny', (3, 3, 1), 2), {**MADE, 'masks': 2}),
    'categorical': ('categorical', DataSpec('tiny', (2, 2, 1), 3), MADE),
    'logistic': ('logistic', DataSpec('tiny', (1, 2, 2), 4), MADE),
    'pixel_cnn': ('logistic_mixture', DataSpec('tiny', (1, 2, 2), 3), {**CNN, 'scales': 1}),
    'pixel_cnn of two scales': ('categorical', DataSpec('tiny', (2, 2, 1), 3), CNN),
    'pixel_transformer': ('categorical', DataSpec('tiny', (1, 2, 2), 3), TRANSFORMER),
}
NEW = [name for name in KINDS if name.startswith('pixel')]


def make(kind, masks=None, **changes):
    """(family, networks with random parameters)."""
    decoder, spec, network = KINDS[kind]
    network = network if masks is None else {**network, 'masks': masks}
    family = {'name': 'autoregressive', 'decoder': decoder, 'components': 2, **changes}
    built = families.get('autoregressive')(config.resolve({'family': family, 'network': network}), spec)
    return built, scrambled(built)


def scrambled(family, scale=0.7):
    """The networks with random parameters everywhere."""
    random, modules = np.random.default_rng(0), nnx.eval_shape(lambda: nnx.Dict(family.networks(nnx.Rngs(0))))
    draw = lambda leaf: jnp.asarray(scale * random.normal(size=leaf.shape))  # noqa: E731
    nnx.update(modules, jax.tree.map(draw, nnx.state(modules, nnx.Param)))
    return Networks(dict(modules.items()))


def everything(spec):
    values = itertools.product(range(spec.levels), repeat=spec.num_dims)
    return jnp.asarray(list(values), jnp.int32).reshape(-1, *spec.shape)


def probabilities(family, networks):
    (likelihood,) = family.likelihoods
    images = everything(family.spec)
    keys = jax.random.split(jax.random.key(0), len(images))
    return np.exp(np.asarray(jax.jit(lambda x: likelihood.log_prob(networks, x, None, keys))(images), np.float64))


@pytest.mark.parametrize('name', KINDS)
def test_the_probabilities_of_all_images_sum_to_one(name):
    found = probabilities(*make(name))
    assert found.sum() == pytest.approx(1, abs=1e-5) and found.max() > 2 / len(found)


@pytest.mark.parametrize('name', ['bernoulli', *NEW])
def test_samples_have_the_probabilities_of_their_images(name):
    family, networks = make(name)
    expected, count, levels, dims = probabilities(family, networks), 20_000, family.spec.levels, family.spec.num_dims
    keys = jax.random.split(jax.random.key(1), count)
    samples = jax.jit(lambda keys: family.sample(networks, keys, None, Sampler('direct', 1)).images)(keys)
    index = np.asarray(samples).reshape(count, -1) @ (levels ** np.arange(dims - 1, -1, -1))
    observed = np.bincount(index, minlength=levels**dims)
    likely = expected * count > 5
    rest = ([], []) if likely.all() else ([observed[~likely].sum()], [expected[~likely].sum() * count])
    o, e = (np.concatenate([part, more]) for part, more in zip((observed[likely], expected[likely] * count), rest,
                                                               strict=True))  # fmt: skip
    squared = ((o - e) ** 2 / e).sum()
    assert likely.sum() > 15 and abs(squared - len(o)) < 5 * np.sqrt(2 * len(o))  # χ², 5 standard deviations


def test_steps_take_the_orderings_in_turn():
    family, networks = make('bernoulli', 3)
    images = everything(family.spec)[::40]
    batch = {'image': images, 'key': jax.random.split(jax.random.key(0), len(images))}
    loss = jax.jit(lambda step: family.loss(networks, batch, jax.random.key(0), step)[0])
    losses = [float(loss(step)) for step in (0, 1, 2, 3)]
    assert losses[3] == losses[0] and len(set(losses)) == 3


def test_binary_images_are_drawn_once_for_an_image_and_keep_its_grey():
    """The same pixels at every use and in any batch, independent between images and as dark as the image."""
    spec = DataSpec('grey', (4, 4, 1), 256)
    static = observations.make('static_bernoulli', spec, 0.0)
    levels = np.random.default_rng(0).integers(0, 256, (1500, 4, 4, 1))
    images = jnp.asarray(levels, jnp.uint8)
    keys = jax.random.split(jax.random.key(3), len(images))
    observe = jax.jit(static.observe)
    x = observe(images, keys)
    np.testing.assert_array_equal(static.observe(jnp.asarray(levels[5:9], jnp.int32), keys[:4]), x[5:9])
    share = np.corrcoef(np.asarray(x > 0).ravel(), levels.ravel() / 255)[0, 1]
    assert share == pytest.approx(1 / np.sqrt(3), abs=0.02)  # of an indicator with a uniform probability, and that
    assert abs(float((x > 0).mean()) - levels.mean() / 255) < 0.02
    assert static.protocol['binarisation'] == 'drawn once for an image'
    changed = jnp.asarray(levels, jnp.uint8).at[:, 0, 0, 0].add(1)
    same = np.asarray(observe(changed, keys) == x)[:, 1:].mean()
    assert same == pytest.approx(2 / 3, abs=0.02)  # one level elsewhere is another draw: ∫ p² + (1 − p)² dp


def test_keys_of_contents_differ_between_images():
    images = jnp.asarray(np.random.default_rng(0).integers(0, 2, (2000, 12)), jnp.uint8)
    distinct = len(np.unique(np.asarray(images), axis=0))
    assert len(np.unique(jax.random.key_data(rng.of_contents(images)), axis=0)) == distinct


def test_static_noise_of_a_flow_is_the_same_at_every_step():
    spec = DataSpec('grey', (1, 2, 1), 8)
    images = jnp.asarray([[[[1], [6]]]] * 4, jnp.uint8)
    for noise, several in (('static', False), ('fresh', True)):
        resolved = config.resolve({
            'family': {'name': 'normalizing_flow', 'noise': noise},
            'network': {'name': 'maf', 'layers': 1, 'hidden': (4,), 'normalise': False},
        })  # fmt: skip
        family = families.get('normalizing_flow')(resolved, spec)
        networks = scrambled(family)

        @jax.jit
        def loss(key, family=family, networks=networks):
            batch = {'image': images, 'key': jax.random.split(key, 4)}
            return family.loss(networks, batch, jax.random.key(0), 0)[0]

        assert (len({float(loss(jax.random.key(seed))) for seed in (0, 1)}) > 1) == several


def test_the_density_of_logits_is_that_of_the_same_draw_by_hand():
    """A flow without layers has normal logits: log N(y) gives ∣y∣, and that the volume that the bound must add."""
    spec = DataSpec('grey', (1, 1, 1), 8)
    network = {'name': 'maf', 'layers': 0, 'margin': 0.05}
    family = families.get('normalizing_flow')(
        config.resolve({'family': {'name': 'normalizing_flow'}, 'network': network}), spec
    )
    networks, images = scrambled(family), jnp.asarray([[[[1]]]], jnp.int32)
    found = family.likelihoods[0].log_prob(networks, images, None, jax.random.split(jax.random.key(0), 1))
    log_p, bound = float(found['density_of_logits'][0]), float(found['log_prob'][0])
    y = -np.sqrt(-2 * log_p - np.log(2 * np.pi))  # negative, for level 1 of 8 lies below one half
    x = 1 / (1 + np.exp(-y))
    assert 1 < (x - 0.05) / 0.9 * 8 < 2
    assert bound - log_p == pytest.approx(np.log(0.9 / 8 / (x * (1 - x))), abs=1e-4)


@pytest.mark.parametrize('name', NEW[1:])
def test_training_reaches_every_parameter_and_hears_the_label(name):
    decoder, spec, network = KINDS[name]
    spec = dataclasses.replace(spec, classes=2)
    options = {'name': 'autoregressive', 'decoder': decoder, 'conditional': True}
    family = families.get('autoregressive')(config.resolve({'family': options, 'network': network}), spec)
    networks, images = scrambled(family), everything(spec)[:8]
    batch = {'image': images, 'key': jax.random.split(jax.random.key(0), 8), 'label': jnp.arange(8) % 2}

    def loss(network, batch):
        return family.loss(Networks({'pixels': network}), batch, jax.random.key(0), 0)[0]

    both = nnx.jit(nnx.value_and_grad(loss))
    value, slopes = both(networks['pixels'], batch)
    assert all(np.abs(slope).max() > 0 for slope in jax.tree.leaves(slopes))
    assert abs(value - both(networks['pixels'], {**batch, 'label': 1 - batch['label']})[0]) > 1e-4


def test_evaluations_are_pixels_or_values():
    found = {name: make(name)[0].evaluations(Sampler('direct')) for name in ('bernoulli', *NEW)}
    assert list(found.values()) == [2 * 9, 2, 4, 4]


def test_a_pixel_cnn_starts_from_normalised_features():
    """Outputs of the last layer then have mean 0 and deviation 1 on the first batch, here without dropout."""
    family, networks = make('pixel_cnn')
    batch = {'image': everything(family.spec)[::2], 'key': jax.random.split(jax.random.key(0), 41)}

    @nnx.jit
    def outputs(network):
        family.initialise(Networks({'pixels': network}), batch, jax.random.key(1))
        return network(family.spec.encode(batch['image']))

    h = np.reshape(outputs(networks['pixels']), (-1, 12))
    np.testing.assert_allclose(h.mean(0), 0, atol=1e-5)
    np.testing.assert_allclose(h.std(0), 1, rtol=1e-3)


def test_a_mixture_over_colours_is_refused_for_a_network_that_predicts_them_one_by_one():
    with pytest.raises(UserError, match='couples the channels .* network.name=pixel_transformer .*use .*pixel_cnn'):
        make('pixel_transformer', decoder='logistic_mixture')


def test_a_density_and_a_network_without_an_ordering_are_refused():
    with pytest.raises(UserError, match='normal, a density'):
        make('bernoulli', decoder='normal')
    with pytest.raises(UserError, match='would see what it predicts'):
        make('bernoulli', decoder='grey_bernoulli')
    resolved = config.resolve({'family': {'name': 'autoregressive'}, 'network': {'name': 'mlp'}})
    with pytest.raises(UserError, match="'mlp', which has no ordering of pixels; use made"):
        families.get('autoregressive')(resolved, KINDS['bernoulli'][1]).networks(nnx.Rngs(0))

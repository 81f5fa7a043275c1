"""StyleGAN's regularisations with generators whose Jacobian is known, mixing and truncation."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from genbench import config, families
from genbench.data.spec import DataSpec
from genbench.errors import UserError
from genbench.families import adversarial, styles
from genbench.families.base import Networks, Sampler
from genbench.families.style_gan import PathLength, path_lengths
from genbench.families.styles import StyleOptions
from genbench.training import samplers

pytestmark = pytest.mark.unoptimized


def test_path_lengths_of_a_linear_generator_are_norms_of_its_transpose():
    """For images A w of each place's own matrix A_k: the root of the mean over places of ‖A_kᵀ y‖²."""
    rng = np.random.default_rng(0)
    matrices, w, y = rng.normal(size=(3, 16, 5)), rng.normal(size=(4, 3, 5)), rng.normal(size=(4, 4, 4, 1))
    found = path_lengths(lambda w: jnp.einsum('kdf,bkf->bd', matrices, w).reshape(4, 4, 4, 1), w, y)
    wanted = [np.sqrt(np.mean([np.sum((m.T @ one.ravel()) ** 2) for m in matrices])) for one in y]
    np.testing.assert_allclose(found, wanted, rtol=1e-5)


def test_the_penalty_is_the_squared_distance_from_the_running_mean():
    regularisation, mean = PathLength(), 0.0
    for lengths in ([2.0, 4.0], [1.0, 1.0], [5.0, 3.0]):
        mean = 0.99 * mean + 0.01 * np.mean(lengths)
        paid = regularisation.penalty(jnp.asarray(lengths))
        assert paid == pytest.approx(np.mean((np.array(lengths) - mean) ** 2), rel=1e-5)
        assert regularisation.mean[...] == pytest.approx(mean, rel=1e-5)


def test_the_penalty_pulls_lengths_towards_their_running_mean():
    def paid(lengths):
        regularisation = PathLength()
        regularisation.mean[...] = jnp.asarray(3.0)
        return regularisation.penalty(lengths)

    assert (np.sign(jax.grad(paid)(jnp.array([1.0, 5.0]))) == [-1, 1]).all()


@pytest.mark.parametrize(('step', 'paid'), [(0, 4.0), (1, 0.0), (3, 0.0), (8, 4.0)])
def test_lazy_penalties_are_paid_on_every_fourth_step(step, paid):
    module = PathLength()
    found = adversarial.sometimes(
        jnp.asarray(step), 4, lambda modules: modules[0].penalty(jnp.full(2, 2 / 0.99)),
        lambda modules: jnp.zeros(()), (module,),
    )  # fmt: skip
    assert found == pytest.approx(paid, rel=1e-4)
    assert module.mean[...] == pytest.approx(0.01 * 2 / 0.99 if paid else 0)


class Linear(nnx.Module):
    def __call__(self, x, given):
        return x.sum((1, 2, 3))


@pytest.mark.parametrize(('step', 'times'), [(0, 4), (2, 0)])
def test_a_lazy_penalty_counts_as_often_as_it_is_left_out(step, times, make_family, batch):
    family = make_family('gan', penalty_every=4, penalty_weight=1.0)
    networks = Networks({'discriminator': Linear(), 'generator': lambda z, given: jnp.zeros((len(z), 4, 4, 3))})
    total, scalars = family.discriminator_loss(networks, batch, jax.random.key(0), jnp.asarray(step))
    assert total - scalars['loss'] == pytest.approx(times * 48 / 2, rel=1e-4, abs=1e-4)


class Shown(nnx.Module):
    """A generator that shows its styles: w is z, and the image is the first features at each of its four places."""

    def __init__(self):
        self.styles, self.centre = 4, nnx.Variable(jnp.full(4, 0.25))

    def mapping(self, z, given):
        return z[:, :4]

    def synthesise(self, w, keys=None):
        return jnp.repeat(w[..., None], 3, -1)


def test_path_lengths_are_paid_on_every_fourth_update_of_the_generator(make_family, batch):
    family = make_family('style_gan', critic_steps=2, path_length_every=4)
    lengths, paid = PathLength(), []
    networks = Networks({'discriminator': Linear(), 'generator': Shown(), 'lengths': lengths})
    for step in range(0, 12, family.updates[1].every):
        before = float(lengths.mean[...])
        family.generator_loss(networks, batch, jax.random.key(0), jnp.asarray(step))
        paid.append(float(lengths.mean[...]) != before)
    assert paid == [True, False, False, False, True, False]


@pytest.mark.parametrize('mixing', [0.0, 0.5, 1.0])
def test_styles_are_mixed_as_often_as_asked_and_from_a_uniform_place(mixing, make_family, keys):
    family = make_family('style_gan', mixing=mixing)
    w = np.asarray(jax.jit(lambda keys: family._styles(Shown(), keys, None)[0])(keys(800)))
    changed = np.array([[(row[place] != row[0]).any() for place in range(4)] for row in w])
    assert changed[:, -1].mean() == pytest.approx(mixing, abs=0.06)
    if mixing:
        first = np.argmax(changed[changed[:, -1]], 1)
        assert all((first == place).mean() == pytest.approx(1 / 3, abs=0.08) for place in (1, 2, 3))
    assert len(np.unique(w[:, 0, 0])) == 800


@pytest.mark.parametrize('truncation', [0.0, 0.5, 1.0])
def test_truncation_moves_styles_towards_their_mean(truncation, make_family, keys):
    family = make_family('style_gan')
    z = jnp.asarray(np.random.default_rng(0).uniform(-0.9, 0.9, (8, 4)), jnp.float32)
    sampler = Sampler('direct', 1, 0.0, StyleOptions(truncation=truncation))
    found = family.generate(Networks({'generator': Shown()}), z, keys(8), None, sampler)
    wanted = 0.25 + truncation * (np.asarray(z) - 0.25)
    np.testing.assert_array_equal(found[:, 2, :, 0], family.space.decode({}, jnp.asarray(wanted)))


def test_truncation_is_an_option_of_the_sampler_and_temperature_is_not(make_family):
    family = make_family('style_gan')
    sampler = samplers.parse('direct:truncation=0.7', family)
    assert sampler.protocol['sampler_options'] == {'truncation': 0.7}
    with pytest.raises(UserError, match='temperature'):
        samplers.parse('direct:temperature=0.7', family)


def test_the_running_mean_of_styles_follows_them(built, batch):
    family, blueprint, state = built('style_gan')
    networks = blueprint.bind_state(state)

    def run(key):
        networks = blueprint.bind_state(state)
        family.generator_loss(networks, batch, key, jnp.zeros(()))
        return networks['generator'].centre[...], networks['generator'].mapping(family._z(batch['key'], 'z'))

    before = np.asarray(networks['generator'].centre[...])
    after, w = jax.jit(run)(jax.random.key(0))
    np.testing.assert_allclose(after, 0.995 * before + 0.005 * np.asarray(w).mean(0), rtol=1e-4, atol=1e-5)


def test_networks_without_styles_are_refused():
    values = config.resolve({'family': {'name': 'style_gan'}, 'network': {'name': 'resnet'}})
    with pytest.raises(UserError, match="'resnet', whose generator has no styles"):
        families.get('style_gan')(values, DataSpec('images', (4, 4, 3), 5))


def test_a_crossover_takes_the_styles_of_another_z_from_a_place_on(make_family, keys):
    family = make_family('style_gan')
    z, networks = jnp.zeros((8, 4)), Networks({'generator': Shown()})
    plain, mixed = (family._images(networks, z, keys(8), None, Sampler('direct', 1, 0.0, StyleOptions(crossover=place)))
                    for place in (0, 2))  # fmt: skip
    np.testing.assert_array_equal(mixed[:, :2], plain[:, :2])
    np.testing.assert_allclose(mixed[:, 3, :, 0], family._z(keys(8), 'other z')[:, :4], rtol=1e-5)
    np.testing.assert_array_equal(mixed[:, 2], mixed[:, 3])
    with pytest.raises(UserError, match='crossover=4, but this generator has 4 places.*1 to 3'):
        family._images(networks, z, keys(8), None, Sampler('direct', 1, 0.0, StyleOptions(crossover=4)))


class Edited(Shown):
    """The same with two linear maps from w to styles."""

    def __init__(self):
        super().__init__()
        self.one, self.other = (nnx.Dict({'styles': nnx.Linear(4, size, rngs=nnx.Rngs(size))}) for size in (3, 6))


@pytest.mark.parametrize('number', [1, 2, 4])
def test_directions_are_singular_vectors_of_all_maps_to_styles(number):
    generator = Edited()
    maps = np.concatenate([generator.one['styles'].kernel[...], generator.other['styles'].kernel[...]], axis=1)
    wanted, found = np.linalg.svd(maps)[0][:, number - 1], np.asarray(styles.direction(generator, number))
    assert abs(wanted @ found) == pytest.approx(1, abs=1e-4) and found[np.abs(found).argmax()] > 0


def test_a_shift_moves_every_style_along_its_direction(make_family, keys):
    family, z = make_family('style_gan'), jnp.zeros((2, 4))
    networks = Networks({'generator': Edited()})
    found = family._images(networks, z, keys(2), None, Sampler('direct', 1, 0.0, StyleOptions(shift=-2.0, direction=2)))
    beyond = Sampler('direct', 1, 0.0, StyleOptions(shift=-2.0, direction=1000))
    with pytest.raises(UserError, match='direction=1000, but .* directions'):
        family._images(networks, z, keys(2), None, beyond)
    wanted = -2 * np.asarray(styles.direction(networks['generator'], 2))
    np.testing.assert_allclose(found[:, :, :, 0], np.broadcast_to(wanted, (2, 4, 4)), rtol=1e-4, atol=1e-5)


@pytest.fixture(scope='module')
def alias_free():
    """(a family with StyleGAN3 for 8 pixels, its generator with random numbers)."""
    network = {'name': 'stylegan3', 'channels': 2, 'multipliers': (1,), 'latent': 4, 'features': 4, 'layers': 2,
               'critical': 1, 'margin': 1, 'first_cutoff': 1.0}  # fmt: skip
    family = families.get('style_gan')(
        config.resolve({'family': {'name': 'style_gan'}, 'network': network}), DataSpec('images', (8, 8, 1), 16)
    )
    generator, rng = nnx.eval_shape(lambda: family.networks(nnx.Rngs(0))['generator']), np.random.default_rng(0)
    draw = lambda leaf: jnp.asarray(rng.uniform(0.2, 1, leaf.shape), jnp.float32)  # noqa: E731
    nnx.update(generator, jax.tree.map(draw, nnx.state(generator)))
    return family, generator


def test_training_moves_the_mean_of_squared_inputs_and_sampling_does_not(alias_free, keys):
    family, generator = alias_free
    graph, state = nnx.split(generator)

    @jax.jit
    def run(state):
        one = nnx.merge(graph, state)
        magnitude, networks = one.layers[0].magnitude, Networks({'generator': one})
        found = jnp.square(one.input(family._styles(one, keys(4), None)[0][:, 0])).mean()
        family.generate(networks, jnp.ones((4, 4)), keys(4), None, Sampler('direct'))
        kept = magnitude[...]
        family._generate(networks, keys(4), None)
        return kept, magnitude[...], found

    before = generator.layers[0].magnitude[...]
    kept, after, found = run(state)
    assert kept == before
    assert after == pytest.approx(float(0.999 * before + 0.001 * found), rel=1e-5) and abs(after - before) > 1e-6


def test_a_scene_moves_by_its_transform_and_only_where_it_can(alias_free, make_family, keys):
    """A shift by a whole sample is a shift of the Fourier features, and so of the image away from its edges."""
    family, generator = alias_free
    graph, state = nnx.split(generator)
    shift = jnp.broadcast_to(jnp.array([[1.0, 0, -1 / 8], [0, 1, 0], [0, 0, 1]]), (2, 3, 3))

    @jax.jit
    def run(state, transform):
        networks = Networks({'generator': nnx.merge(graph, state)})
        features = networks['generator'].input(jnp.ones((2, 4)), transform)
        return features, family.moved(networks, jnp.ones((2, 4)), keys(2), None, Sampler('direct'), transform)

    still, moved = run(state, jnp.broadcast_to(jnp.eye(3), (2, 3, 3))), run(state, shift)
    np.testing.assert_allclose(moved[0][:, :, 1:], still[0][:, :, :-1], atol=1e-4)
    assert np.abs(moved[0][:, :, 1:] - still[0][:, :, 1:]).max() > 0.1
    assert moved[1].shape == (2, 8, 8, 1) and np.abs(moved[1] - still[1]).max() > 1e-3
    assert make_family('style_gan').moved({}, None, None, None, Sampler('direct'), shift) is None

"""Keys: every draw has one of its own, in training, sampling and likelihoods alike."""

import collections
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import shipped
from flax import nnx
from jax.extend.core import primitives

from genbench import families, rng
from genbench.evaluation.features import fitted
from genbench.families.base import Sampler
from genbench.networks import layers
from genbench.training import lending, sampling
from genbench.training.prepared import prepare
from genbench.training.state import Blueprint
from genbench.training.step import Constants, seen, take_batch

pytestmark = pytest.mark.unoptimized
SIZE = 4
# A loss evaluates its network twice with one dropout: because its paper asks for it, or to see what the last layer saw.
ONE_DROPOUT = {'consistency_training', 'consistency_tuning', 'kl_autoencoder', 'vq_gan'}


def words(key):
    return tuple(np.asarray(jax.random.key_data(key)).reshape(-1, 2).tolist())


def rows(data):
    return map(tuple, np.asarray(data).reshape(-1, 2).tolist())


def test_numbers_below_a_key_are_those_of_a_split():
    """Which is why a key that is split must not be folded with small numbers too."""
    key = jax.random.key(3)
    assert words(jax.random.fold_in(key, 2)) == words(jax.random.split(key, 5)[2])


def test_networks_are_built_with_the_keys_of_flax():
    def drawn(make, key):
        rngs = make(key)
        return [jax.random.key_data(ask()) for ask in (rngs.params, rngs, rngs.dropout, rngs.params)]

    key = jax.random.key(3)
    wanted = np.array(drawn(nnx.Rngs, key))
    np.testing.assert_array_equal(drawn(rng.for_networks, key), wanted)
    np.testing.assert_array_equal(jax.jit(lambda key: drawn(rng.for_networks, key))(key), wanted)
    np.testing.assert_array_equal(drawn(rng.for_networks, 3), wanted)
    assert len(np.unique(wanted, axis=0)) == 4


def test_names_lie_far_from_every_count():
    names = ['networks', 'samples', 'training', 'bins', 'z', 'x', 'noise', 'time', 'steps', 'update generator']
    key = jax.random.key(0)
    small = set(map(tuple, np.asarray(jax.random.key_data(jax.random.split(key, 2**16))).tolist()))
    found = {tuple(words(rng.named(key, name))[0]) for name in names}
    assert len(found) == len(names) and not found & small


@pytest.mark.parametrize('purpose', ['initialisation', 'training'])
def test_the_first_samples_of_a_seed_do_not_have_the_keys_of_its_training(purpose, tiny):
    family = families.get('gan')(tiny('gan'), pipeline_spec())
    drawn = {tuple(row) for row in words(sampling.image_keys(family, 'samples', 0, 0, 1000))}
    assert tuple(words(rng.root(0, purpose))[0]) not in drawn
    assert not drawn & {tuple(row) for row in words(jax.random.split(jax.random.key(0), 1000))}


def pipeline_spec():
    from genbench.data import sources

    return sources.spec_by_name('digits', '')


def test_training_seeds_sample_independently_and_variants_of_a_seed_share_their_noise(tiny):
    def keys(name, seed, purpose='samples'):
        family = families.get(name)(tiny(name, f'train.seed={seed}'), pipeline_spec())
        return words(sampling.image_keys(family, purpose, 0, 0, 3))

    assert keys('gan', 1) == keys('vae', 1)
    every = [
        tuple(row) for seed in (0, 1, 2) for purpose in ('samples', 'likelihood') for row in keys('gan', seed, purpose)
    ]
    assert len(set(every)) == len(every)


class Recorder:
    """Every key that bits are drawn from, and every key that others are derived from."""

    def __init__(self, monkeypatch):
        self.drawn, self.parents, self.dropout = collections.Counter(), set(), set()
        jax.clear_caches()  # what was traced before does not report
        for primitive, note in (
            (primitives.random_bits_p, self._draw),
            (primitives.random_fold_in_p, self._derive),
            (primitives.random_split_p, self._derive),
        ):
            monkeypatch.setattr(primitive, 'bind', self._reporting(primitive.bind, note))
        monkeypatch.setattr(layers, 'dropout', self._reporting_dropout(layers.dropout))

    def _reporting(self, bind, note):
        def reporting(keys, *rest, **options):
            # Not where a transformation binds again what a function of jax.random has bound.
            if sys._getframe(1).f_code.co_name.startswith('random_'):
                jax.debug.callback(note, jax.random.key_data(keys))
            return bind(keys, *rest, **options)

        return reporting

    def _reporting_dropout(self, dropout):
        def reporting(x, rate, key):
            if key is not None:
                jax.debug.callback(lambda data: self.dropout.update(rows(data)), jax.random.key_data(key))
            return dropout(x, rate, key)

        return reporting

    def _draw(self, data):
        self.drawn.update(rows(data))

    def _derive(self, data):
        self.parents.update(rows(data))

    def take(self):
        jax.effects_barrier()
        found, self.drawn = self.drawn, collections.Counter()
        return found


@pytest.fixture
def recorder(monkeypatch):
    yield Recorder(monkeypatch)
    monkeypatch.undo()
    jax.clear_caches()


def test_no_two_draws_of_the_feature_classifier_share_a_key(tiny, digits, recorder, tmp_path, monkeypatch):
    monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path))  # where it finds none that is trained
    spec, train, _ = digits
    still = lambda params, images, labels: ((0.0, jnp.zeros((len(labels), spec.classes))), params)  # noqa: E731
    monkeypatch.setattr(jax, 'value_and_grad', lambda *_, **__: still)  # gradients draw nothing, and compile for long
    fitted.classifier(spec, train, tiny('gaussian').evaluation.classifier, quiet=True)
    found = recorder.take()
    twice = [key for key, times in found.items() if times > 1]
    assert not twice and len(found) > 5  # its weights, and the shifts of five steps


def without_result(function):
    """Compiled, so that XLA leaves out all that no key is made of."""

    def run(*arguments):
        function(*arguments)

    return jax.jit(run)


def filled(shapes):
    return jax.tree.map(lambda leaf: jnp.full(leaf.shape, 0.1, leaf.dtype), shapes)


@pytest.mark.parametrize('name', shipped.NAMES)
def test_no_two_draws_of_a_run_share_a_key(name, tiny, recorder, digits, lenders):
    """The initialisation, losses of two steps with dropout, samples of the same seed, and each likelihood."""
    dropout = ('network.dropout=0.1',) if 'dropout' in tiny(name).network else ()
    config = tiny(name, f'train.batch_size={SIZE}', 'data.flip=True', 'evaluation.dequantisation_draws=2', *dropout)
    loans = {key: lending.promise(tiny(lender), digits[0]) for key, lender in lenders(name).items()}
    ready = prepare(config, loans)
    family, feed, blueprint = ready.family, ready.feed, Blueprint(ready.family)
    lent = filled({key: loan.state for key, loan in loans.items()})
    constants = Constants(feed.constants, lent)
    batch = feed.batch(feed.constants, feed.inputs(0))
    initialised = (rng.numbered(rng.root(0, 'initialisation'), 0), batch, lent)
    without_result(blueprint.initial_state)(*initialised)
    run = recorder.take()
    state = filled(jax.eval_shape(blueprint.initial_state, *initialised))

    def losses(state, index, constants, inputs):  # without gradients, for which reports may be made twice
        key = rng.numbered(rng.root(0, 'training'), index)
        seen_by_all = take_batch(blueprint, feed, constants, inputs, key)
        for update in family.updates:
            networks = blueprint.bind_state({**state, 'lent': constants.lent})
            update.loss(networks, *seen(update, seen_by_all, key), index)

    run_losses = without_result(losses)
    for index in range(2):
        run_losses(state, index, constants, feed.inputs(index))
    trained = recorder.take()
    assert not trained & run
    run += trained
    networks = {'params': state['params'], 'aux': state['aux'], 'lent': lent}

    def apart(purpose, use):
        keys = sampling.image_keys(family, purpose, 0, 0, SIZE)
        without_result(lambda arrays, keys: use(blueprint.bind(**arrays), keys))(networks, keys)
        found = run + recorder.take()
        shared = set(rows(jax.random.key_data(rng.named(keys, 'density'))))  # by an image's draws, on purpose
        if name in ONE_DROPOUT:
            shared |= recorder.dropout
        twice = [key for key, times in found.items() if times > 1 and key not in shared]
        assert not twice, f'{purpose}: {len(twice)} of {len(found)} keys are drawn from twice'
        assert not found.keys() & recorder.parents, f'{purpose}: a key is drawn from and derived from'
        return found

    solver = 'ancestral' if 'ancestral' in family.samplers else family.samplers[0]
    found = apart('samples', lambda networks, keys: family.sample(networks, keys, None, Sampler(solver, 3)))
    assert len(found - run) >= SIZE  # the test sees the draws
    for one in family.likelihoods:
        apart('likelihood', lambda networks, keys, one=one: one.log_prob(networks, batch['image'], None, keys))

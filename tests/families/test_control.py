"""Control of a frozen base: what is lent stays, a fresh control changes nothing, and what it learns is its own."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from genbench import config, families
from genbench.data.spec import DataSpec
from genbench.errors import UserError
from genbench.families.base import Borrowed, Sampler
from genbench.networks import transformer, unet
from genbench.training import runs, samplers
from genbench.training.loop import train
from genbench.training.state import Blueprint

SPEC = DataSpec('images', (4, 4, 3), levels=5, classes=3)
NETWORK = {'channels': 8, 'multipliers': (1, 1), 'groups': 4}
DIT = {'name': 'dit', 'patch': 2, 'depth': 3, 'width': 8, 'heads': 2}
both = pytest.mark.parametrize('name', ['unet', 'dit'])


def diffusion(kinds=(), base=None, network=NETWORK, name='diffusion', spec=SPEC, **options):
    chosen = {'name': name, 'conditions': kinds, 'base': 'somewhere' if base else '', **options}
    resolved = config.resolve({'family': chosen, 'network': network})
    return families.get(name)(resolved, spec, {'base': Borrowed(base)} if base else {})


def rows(count=4):
    images = np.random.default_rng(0).integers(0, SPEC.levels, (count, *SPEC.shape))
    keys = jax.random.split(jax.random.key(3), count)
    return {'image': jnp.asarray(images, jnp.int32), 'label': jnp.arange(count) % 3, 'key': keys}


def scrambled(tree):
    rng = np.random.default_rng(1)
    return jax.tree.map(lambda leaf: jnp.asarray(0.2 * rng.normal(size=leaf.shape), jnp.float32), tree)


@functools.cache
def controlled(name='unet'):
    """(family, networks of its fresh state, on a base of labels with random parameters). Of a DiT, two blocks are
    copied."""
    network, options = (DIT, {'control_blocks': 2}) if name == 'dit' else (NETWORK, {})
    base = diffusion(('label',), network=network)
    shapes = Blueprint(base).shapes
    lent = {'base': {'params': scrambled(shapes['params']), 'aux': shapes['aux'], 'lent': {}}}
    family = diffusion(('label', 'edges'), base, network, **options)
    blueprint = Blueprint(family)
    state = jax.jit(lambda lent: blueprint.initial_state(jax.random.key(0), rows(), lent))(lent)
    return family, blueprint, {**state, 'lent': lent}


@both
def test_a_fresh_control_leaves_the_base_as_it_is_to_the_bit(name):
    """Operation by operation: XLA may fuse, and so round, two compiled programs in different ways."""
    family, blueprint, state = controlled(name)
    networks, given = blueprint.bind_state(state), family.given(rows())
    x, t = jax.random.normal(jax.random.key(1), (4, *SPEC.shape)), jnp.linspace(0.2, 0.9, 4)
    steered = family.network(networks)(x, t, given)
    alone = networks.borrowed('base')['denoiser'](x, t, {'label': given['label']})
    np.testing.assert_array_equal(steered, alone)
    assert set(state['params']) == {'control'} and np.abs(alone).max() > 0
    keys, once, lent = jax.random.split(jax.random.key(2), 4), Sampler('ddim', 1), networks.borrowed('base')
    with jax.disable_jit():
        drawn = family.sample(networks, keys, given, once).images
        np.testing.assert_array_equal(
            drawn, family.control.base.sample(lent, keys, {'label': given['label']}, once).images
        )


def test_a_fresh_control_of_a_dit_is_its_first_blocks():
    family, blueprint, state = controlled('dit')
    networks, given = blueprint.bind_state(state), family.given(rows())
    x, t = jax.random.normal(jax.random.key(1), (4, *SPEC.shape)), jnp.linspace(0.2, 0.9, 4)
    control, base = networks['control'], networks.borrowed('base')['denoiser']
    states = control.states(x, t, given)
    assert len(states) == 3  # the vector of time and conditions, and the tokens after two blocks
    for one, other in zip(states, base.states(x, t, given), strict=False):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize(('depth', 'blocks', 'wanted'), [(28, 0, 13), (4, 0, 1), (1, 0, 1), (4, 4, 4)])
def test_how_many_blocks_are_copied(depth, blocks, wanted):
    network = {**DIT, 'depth': depth}
    family = diffusion(('edges',), diffusion(network=network), network, control_blocks=blocks)
    assert len(nnx.eval_shape(lambda: family.control.network(nnx.Rngs(0))).blocks) == wanted


def test_residuals_are_added_to_the_tokens_after_the_first_blocks():
    """Each output of the control at its own place, against the blocks gone through by hand. A residual that is the same
    in all channels would be lost in the norms."""
    family, blueprint, state = controlled('dit')
    label, given = {'label': rows()['label']}, family.given(rows())
    x, t = jax.random.normal(jax.random.key(1), (4, *SPEC.shape)), jnp.linspace(0.2, 0.9, 4)
    base = blueprint.bind_state(state).borrowed('base')['denoiser']
    condition, *_ = base.states(x, t, label)
    found = jax.jit(lambda params, scale: family.control.scaled(scale).denoiser(
        blueprint.bind_state({**state, 'params': params}))(x, t, given), static_argnums=1)  # fmt: skip
    added = jnp.linspace(-0.3, 0.5, DIT['width'])
    for place in range(2):
        params = jax.tree.map(lambda leaf: leaf, state['params'])
        params['control']['outputs'][place]['bias'] = added
        for scale in (1.0, 0.5):
            h = base.placed(x, base.tokens)
            for index, block in enumerate(base.blocks):
                h = block(h, condition, None) + (scale * added if index == place else 0)
            shift, factor = jnp.split(base.modulation(condition), 2, axis=-1)
            wanted = base.output(transformer.modulate(h, shift, factor)).reshape(4, 2, 2, 2, 2, 3)
            wanted = wanted.swapaxes(2, 3).reshape(x.shape)
            np.testing.assert_allclose(found(params, scale), wanted, rtol=1e-4, atol=1e-5)
            assert np.abs(wanted - base(x, t, label)).max() > 1e-3


def test_residuals_are_added_to_the_skips_and_after_the_middle():
    """Each output of the control at its own place, against the second half of the U-Net gone through by hand."""
    family, blueprint, state = controlled()
    label = {'label': rows()['label']}
    x, t = jax.random.normal(jax.random.key(1), (4, *SPEC.shape)), jnp.linspace(0.2, 0.9, 4)

    @jax.jit
    def found(params):
        networks = blueprint.bind_state({**state, 'params': params})
        given = family.given(rows())
        return networks['control'](x, t, given), family.network(networks)(x, t, given)

    @jax.jit
    def by_hand(added):
        base = blueprint.bind_state(state).borrowed('base')['denoiser']
        condition, _, states = base.encode(x, t, label, None)
        *skips, h = [one + more for one, more in zip(states, added, strict=True)]
        for layer in base.up:
            one = isinstance(layer, unet.Level)
            h = layer(jnp.concatenate([h, skips.pop()], -1), condition, None, None) if one else layer(h)
        return base.conv_out(nnx.silu(base.norm_out(h)))

    zeros, alone = found(state['params'])
    assert len(zeros) == len(state['params']['control']['outputs'])
    for place in state['params']['control']['outputs']:
        params = jax.tree.map(lambda leaf: leaf, state['params'])
        bias = params['control']['outputs'][place]['bias']
        params['control']['outputs'][place]['bias'] = jnp.full_like(bias, 0.3)
        added = [jnp.full_like(one, 0.3 if index == place else 0.0) for index, one in enumerate(zeros)]
        residuals, steered = found(params)
        jax.tree.map(np.testing.assert_array_equal, residuals, added)
        np.testing.assert_allclose(steered, by_hand(added), rtol=1e-4, atol=1e-5)
        assert np.abs(steered - alone).max() > 1e-4


@both
def test_every_parameter_of_a_control_that_has_begun_is_reached_and_the_base_is_not(name):
    family, blueprint, state = controlled(name)
    assert [update.networks for update in family.updates] == [('control',)] and family.averaged == ('control',)

    def loss(params):
        networks = blueprint.bind_state({**state, 'params': params, 'averages': {}})
        return family.updates[0].loss(networks, rows(), jax.random.key(0), 0)[0]

    slopes = jax.jit(jax.grad(loss))(scrambled(state['params']))
    silent = [path for path, slope in jax.tree_util.tree_leaves_with_path(slopes) if not np.abs(slope).max() > 0]
    assert not silent
    given = family.given(rows())
    keys = jax.random.split(jax.random.key(2), 4)
    steered = blueprint.bind_state({**state, 'params': scrambled(state['params']), 'averages': {}})
    off = samplers.parse('ddim:2:control=0', family)

    @functools.partial(jax.jit, static_argnums=1)
    def draw(given, sampler):
        return family.carried(steered, family.starts(keys), keys, given, sampler).x

    rolled = {**given, 'edges': jnp.roll(given['edges'], 1, axis=0)}
    assert (draw(given, Sampler('ddim', 2)) != draw(rolled, Sampler('ddim', 2))).any()
    np.testing.assert_array_equal(draw(given, off), draw(rolled, off))


def test_a_run_that_is_controlled_stays_as_it_was_and_is_not_in_the_checkpoint(diffusion_run, tiny, tmp_path):
    before = runs.open_run(diffusion_run).sha256(4)
    options = (f'family.base={diffusion_run}', "family.conditions=('edges',)", 'train.num_steps=2')
    train(tiny('diffusion', *options), tmp_path / 'run', quiet=True)
    run = runs.open_run(tmp_path / 'run')
    assert run.manifest['borrowed']['base']['state_sha256'] == runs.open_run(diffusion_run).sha256(4) == before
    _, state = run.restore()
    assert set(state['params']) == {'control'}
    assert np.abs(state['params']['control']['outputs'][0]['kernel']).max() > 0  # it has begun


REFUSED = {
    'no picture': (lambda: diffusion((), diffusion()), 'has nothing to control it'),
    'a label': (
        lambda: diffusion(('label', 'edges'), diffusion()),
        'label comes as classes, but only pictures can control a base',
    ),
    'other data': (
        lambda: diffusion(('edges',), diffusion(spec=DataSpec('other', (4, 4, 3), 5))),
        'trained on .*other',
    ),
    'another path': (
        lambda: diffusion(('edges',), diffusion(schedule='linear')),
        'family.schedule of the base differs.*linear',
    ),
    'another network': (
        lambda: diffusion(('edges',), diffusion(network={**NETWORK, 'channels': 16})),
        'The network of the base differs from this config: channels is 16 there, but 8 here',
    ),
    'a perceptron': (
        lambda: diffusion(('edges',), diffusion(network={'name': 'mlp'}), network={'name': 'mlp'}).networks(
            nnx.Rngs(0)
        ),
        'the network mlp, but a control adds residuals to a unet or a dit',
    ),
    'more blocks than there are': (
        lambda: diffusion(('edges',), diffusion(network=DIT), DIT, control_blocks=4).networks(nnx.Rngs(0)),
        'control_blocks is 4, but the base has 3 blocks',
    ),
    'blocks of a U-Net': (
        lambda: diffusion(('edges',), diffusion(), control_blocks=1).networks(nnx.Rngs(0)),
        'control_blocks counts blocks of a dit',
    ),
    'a factor without a control': (
        lambda: samplers.parse('ddim:2:control=0.5', diffusion()),
        'has control, which needs a run with family.base',
    ),
    'a base of a base': (
        lambda: diffusion(('edges', 'low_resolution:2'), diffusion(('edges',), diffusion())),
        'builds on other runs',
    ),
    'jumps': (lambda: diffusion(('edges',), diffusion(), name='mean_flow'), 'mean_flow learns jumps'),
}


@pytest.mark.parametrize('why', REFUSED)
def test_a_base_that_cannot_be_controlled_is_refused_in_words(why):
    make, words = REFUSED[why]
    with pytest.raises(UserError, match=words):
        make()

"""EDM2's network: published sizes, official numbers (record_edm2.py says how they were made), and magnitudes."""

import json
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from ml_collections import ConfigDict

from genbench import networks
from genbench.data.conditions import Form
from genbench.data.spec import DataSpec
from genbench.errors import UserError
from genbench.networks import constraints, edm2

PUBLISHED = {'multipliers': (1, 2, 3, 4), 'blocks': 3, 'attention': (16, 8), 'head_width': 64}
SMALL = {'channels': 16, 'multipliers': (1, 2), 'blocks': 1, 'attention': (4,), 'head_width': 8}
LABEL = {'label': Form('classes', (), 3)}


def build(shape, forms, second_time=False, outputs=1, **options):
    config, space = ConfigDict({**networks.defaults('edm2'), **options}), DataSpec('images', shape, 256)
    return networks.denoiser(config, space, forms, nnx.Rngs(0), second_time=second_time, outputs=outputs)


@pytest.mark.parametrize(('channels', 'wanted'), [
    (128, 124_713_125), (192, 280_212_709), (256, 497_807_653), (320, 777_497_957), (384, 1_119_283_621),
    (448, 1_523_164_645),
])  # fmt: skip
def test_published_networks_have_their_parameters(channels, wanted):
    """Of the official U-Net for latents of ImageNet-512, XS to XXL; table 2 prints them in millions."""
    forms = {'label': Form('classes', (), 1000)}
    network = nnx.eval_shape(lambda: build((64, 64, 4), forms, channels=channels, **PUBLISHED))
    assert sum(leaf.size for leaf in jax.tree.leaves(nnx.state(network, nnx.Param))) == wanted


@pytest.fixture(scope='module')
def recorded():
    with np.load(pathlib.Path(__file__).parent / 'fixtures' / 'edm2.npz') as file:
        return {name: file[name] for name in file.files}


LAYERS = {
    'conv_res0': 'conv_in', 'emb_linear': 'condition', 'conv_res1': 'conv_out', 'conv_skip': 'shortcut',
    'attn_qkv': 'attention.inputs', 'attn_proj': 'attention.output', 'emb_gain': 'gain',
}  # fmt: skip
OUTER = {
    'out_gain': 'gain', 'out_conv': 'conv_out', 'enc.8x8_conv': 'conv_in', 'emb_noise': 'embedding.time',
    'emb_fourier.freqs': 'embedding.waves.frequencies', 'emb_fourier.phases': 'embedding.waves.phases',
}  # fmt: skip


def variable(network, blocks, name):
    """The variable for an array of the official state dict. `blocks` are the names of the blocks in its order."""
    name = name.removesuffix('.weight')
    if name == 'emb_label':
        return network.embedding.entries['label'].kernel
    place, _, part = name.rpartition('.')
    found, inside = network, OUTER.get(name)
    if inside is None:
        found, inside = [*network.down, *network.up][blocks.index(place)], LAYERS[part]
    for word in inside.split('.'):
        found = getattr(found, word)
    return found.kernel if isinstance(found, edm2.Weights) else found


def ours(value, name):
    """An official array in our order: windows first, and queries, keys and values as parts of heads."""
    if value.ndim < 2:
        return value
    kernel = value.T if value.ndim == 2 else value.transpose(2, 3, 1, 0)
    kernel = kernel[0, 0] if kernel.shape[:2] == (1, 1) else kernel
    if 'qkv' in name:
        kernel = kernel.reshape(len(kernel), -1, 8, 3).transpose(0, 3, 1, 2).reshape(len(kernel), -1)
    return kernel


@pytest.fixture(scope='module')
def official(recorded):
    """The network with the parameters of the recorded one."""
    numbers, network = np.random.RandomState(0), nnx.eval_shape(lambda: build((8, 8, 3), LABEL, **SMALL))
    shapes = json.loads(str(recorded['shapes']))
    blocks = list(dict.fromkeys(name.rpartition('.emb_linear')[0] for name in shapes if 'emb_linear' in name))
    for name, shape in shapes.items():
        value = ours(numbers.normal(size=shape).astype(np.float32), name)
        variable(network, blocks, name).set_value(jnp.asarray(value))
    return network


def predict(network, recorded):
    t = jnp.log(recorded['levels']) / 4000
    return network(jnp.asarray(recorded['x']), t, {'label': jnp.asarray([0, 1, 2, 3])})


def test_the_official_code_computes_the_same_and_has_the_same_gradient(official, recorded):
    """Three classes and none, at four noise levels, with gains that are not zero."""
    graph, params, rest = nnx.split(official, nnx.Param, ...)

    def total(params):
        y = predict(nnx.merge(graph, params, rest), recorded)
        return jnp.cos(y).sum(), y

    gradient, y = jax.jit(jax.grad(total, has_aux=True))(params)
    assert np.std(recorded['y']) > 0.1
    np.testing.assert_allclose(y, recorded['y'], rtol=1e-4, atol=1e-4)
    block = gradient['down'][2]
    slope = np.asarray(block['conv_in']['kernel'][...])
    np.testing.assert_allclose(slope[..., :4], ours(recorded['slope'], ''), rtol=1e-3, atol=1e-4)
    np.testing.assert_allclose(block['gain'][...], recorded['gain'], rtol=1e-3, atol=1e-4)
    kernel = official.down[2].conv_in.kernel[...]
    assert np.abs((slope * kernel).sum((0, 1, 2))).max() < 1e-2 * np.abs(slope * kernel).sum((0, 1, 2)).min()


def test_the_constraint_is_the_official_one_and_does_not_change_the_function(official, recorded):
    network = nnx.clone(official)
    for module in constraints.within(network):
        module.constrain()
    np.testing.assert_allclose(
        network.down[2].conv_in.kernel[..., :4], ours(recorded['forced'], ''), rtol=1e-5, atol=1e-6
    )
    kernels = [module.kernel[...] for module in constraints.within(network)]
    sizes = [np.sqrt(np.square(one).mean(tuple(range(one.ndim - 1)))) for one in kernels]
    np.testing.assert_allclose(np.concatenate(sizes), 1, atol=1e-3)
    seen = {name: recorded[name] for name in ('x', 'levels')}
    np.testing.assert_allclose(nnx.jit(predict)(network, seen), recorded['y'], rtol=1e-2, atol=1e-2)


def power(values):
    return float(np.square(values).mean())


def test_layers_keep_the_variance_of_normal_inputs():
    a, b = (jax.random.normal(jax.random.key(key), (4096, 64)) for key in (0, 1))
    wide = edm2.joined(a, b[:, :16])
    assert power(edm2.Weights(64, 256, rngs=nnx.Rngs(0))(a)) == pytest.approx(1, abs=0.05)
    assert power(edm2.Fourier(64, rngs=nnx.Rngs(0))(5 * a[:, 0])) == pytest.approx(1, abs=0.05)
    assert power(edm2.mixed(a, b, 0.3)) == pytest.approx(1, abs=0.02)
    assert 64 * power(wide[:, :64]) == pytest.approx(16 * power(wide[:, 64:]), rel=0.02)  # both contribute alike
    assert power(wide) == pytest.approx(1, abs=0.02)
    z, weight = np.polynomial.hermite_e.hermegauss(100)  # E silu(z)² by quadrature
    squares = np.square(np.asarray(edm2.silu(jnp.asarray(z, jnp.float32))))
    assert (squares * weight).sum() / np.sqrt(2 * np.pi) == pytest.approx(1, abs=2e-3)


def test_blocks_of_a_fresh_network_keep_the_variance(monkeypatch):
    """Nearly: zeros around the pictures, and means over tokens, lower it, and skips are not independent."""
    found, apply = [], edm2.Block._apply
    monkeypatch.setattr(edm2.Block, '_apply', lambda *told: found.append(apply(*told)) or found[-1])

    @jax.jit
    def run(x, t):
        found.clear()
        network = build((16, 16, 3), LABEL, channels=32, multipliers=(1, 2), blocks=1, attention=(), head_width=32)
        return network(x, t, {'label': jnp.asarray([0, 1])}), [jnp.square(h).mean() for h in found]

    y, powers = run(jax.random.normal(jax.random.key(0), (2, 16, 16, 3)), jnp.linspace(-4e-4, 4e-4, 2))
    np.testing.assert_array_equal(y, 0)
    assert len(powers) == 10
    np.testing.assert_allclose(powers, 1, atol=0.25)


def test_vectors_pictures_a_second_time_and_a_second_output_are_taken():
    forms = {**LABEL, 'augmentation': Form('vector', (9,)), 'grey': Form('image', (8, 8, 1))}
    network = nnx.jit(lambda: build((8, 8, 3), forms, second_time=True, outputs=2, **SMALL, dropout=0.5))()
    network.gain[...] = 1.0
    x, t = jax.random.normal(jax.random.key(0), (2, 8, 8, 3)), jnp.array([0.1, 0.2])
    given = {'label': jnp.array([0, 2]), 'augmentation': jnp.ones((2, 9)), 'grey': jnp.ones((2, 8, 8, 1))}
    for block in (*network.down, *network.up):
        block.gain[...] = 1.0
    call = nnx.jit(lambda network, key, s, given: network(x, t, given, key, s))
    plain = call(network, None, None, given)
    assert plain.shape == (2, 8, 8, 6)
    np.testing.assert_allclose(call(network, None, t, given), plain, atol=1e-5)
    others = [call(network, None, t / 2, given), call(network, jax.random.key(1), None, given)]
    others += [call(network, None, None, {**given, name: form.null(2)}) for name, form in forms.items()]
    assert all(np.abs(other - plain).max() > 1e-3 for other in others)


@pytest.mark.parametrize(('forms', 'options', 'words'), [
    ({}, {'head_width': 24}, 'network.head_width is 24; it should divide 32'),
    ({'caption': Form('tokens', (3,), 7)}, {}, 'the condition caption comes as tokens'),
    ({'guidance_weight': Form('number', limits=(0.0, 4.0))}, {}, 'guidance_weight comes as number'),
])  # fmt: skip
def test_what_does_not_fit_is_refused_with_the_reason(forms, options, words):
    with pytest.raises(UserError, match=words):
        nnx.eval_shape(lambda: build((8, 8, 3), forms, **{**SMALL, **options}))

"""Readers of captions and the joint attention of the MMDiT, against loops over tokens and published sizes."""

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
from genbench.networks import layers, mmdit, text

SPEC = DataSpec('images', (4, 4, 2), levels=5)
FORMS = {'caption': Form('tokens', (5,), 257)}
SMALL = {
    'unet': {'channels': 8, 'multipliers': (1,), 'groups': 4},
    'dit': {'depth': 1, 'width': 16, 'heads': 2},
    'mmdit': {'depth': 2, 'width': 16, 'heads': 2},
}


def parameters(module):
    return sum(leaf.size for leaf in jax.tree.leaves(nnx.state(module, nnx.Param)))


def scrambled(build):
    """The module with random parameters everywhere, for fresh ones end in zeros."""
    module, rng = nnx.eval_shape(build), np.random.default_rng(1)
    draw = lambda leaf: jnp.asarray(0.3 * rng.normal(size=leaf.shape), jnp.float32)  # noqa: E731
    nnx.update(module, jax.tree.map(draw, nnx.state(module, nnx.Param)))
    return module


def normalised(x):
    return (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-6)


def linear(layer, x):
    return x @ np.asarray(layer.kernel[...]) + np.asarray(layer.bias[...])


def perceptron(mlp, x):
    h = linear(mlp.hidden, x)
    return linear(mlp.output, 0.5 * h * (1 + np.tanh(np.sqrt(2 / np.pi) * (h + 0.044715 * h**3))))


def attended(queries, keys, values, heads):
    """Softmax attention (tokens, width) of one image, head by head and query by query."""
    size, found = queries.shape[1] // heads, np.zeros_like(queries)
    for head in range(heads):
        part = slice(head * size, (head + 1) * size)
        for place, query in enumerate(queries[:, part]):
            scores = np.exp(keys[:, part] @ query / np.sqrt(size))
            found[place, part] = scores / scores.sum() @ values[:, part]
    return found


def test_a_reader_is_a_transformer_that_looks_both_ways_and_gives_its_last_place():
    reader = scrambled(lambda: text.reader(FORMS, 8, 3, text_depth=2, text_heads=2, rngs=nnx.Rngs(0)))
    tokens = np.array([[3, 0, 250, 9, 0], [0, 0, 0, 0, 0]])
    found, whole = reader.read({'caption': jnp.asarray(tokens)}, 2)
    for index, row in enumerate(tokens):
        x = np.asarray(reader.words['caption'].embedding[...])[row] + np.asarray(
            reader.places['caption'].embedding[...]
        )
        for block in reader.blocks:
            asked = np.split(linear(block.attention.inputs, normalised(x)), 3, axis=1)
            x = x + linear(block.attention.output, attended(*asked, 2))
            x = x + perceptron(block.mlp, normalised(x))
        np.testing.assert_allclose(found[index], normalised(x), rtol=1e-3, atol=1e-4)
        np.testing.assert_allclose(whole[index], linear(reader.pooled, normalised(x)[-1]), rtol=1e-3, atol=1e-3)
    np.testing.assert_array_equal(reader.read(None, 2)[0][0], found[1])


def test_without_depth_or_captions_a_reader_is_the_table_of_words():
    tables = [text.reader(FORMS, 8, 3, rngs=nnx.Rngs(0)), text.reader({}, 8, 3, text_depth=2, rngs=nnx.Rngs(0))]
    assert [type(table) for table in tables] == [layers.Words, layers.Words]
    assert tables[0].read(None, 2)[0].shape == (2, 5, 8) and tables[1].read(None, 2) == (None, None)


def test_heads_that_do_not_divide_the_width_of_captions_are_refused():
    with pytest.raises(UserError, match='features of width 6 .*text_width.*text_heads \\(4\\) should divide'):
        text.reader(FORMS, 6, 3, text_depth=1, rngs=nnx.Rngs(0))


def modulated(x, shift, scale):
    return normalised(x) * (1 + scale) + shift


@pytest.mark.parametrize(('qk_norm', 'last'), [(True, False), (False, True)])
def test_a_joint_block_is_one_attention_over_two_streams_with_their_own_weights(qk_norm, last):
    """Esser et al. 2024, figure 2b."""
    block = scrambled(lambda: mmdit.JointBlock(8, 2, 4, qk_norm=qk_norm, last=last, rngs=nnx.Rngs(0)))
    rng = np.random.default_rng(0)
    words, x, y = rng.normal(size=(3, 8)), rng.normal(size=(4, 8)), rng.normal(size=8)
    asked, later = [], []
    for stream, tokens in ((block.text, words), (block.image, x)):
        shift, scale, *rest = np.split(linear(stream.modulation, y), 2 if stream.last else 6)
        parts = np.split(linear(stream.attention['inputs'], modulated(tokens, shift, scale)), 3, axis=1)
        if qk_norm:
            for index in range(2):
                heads = parts[index].reshape(-1, 2, 4)
                heads = heads / np.sqrt((heads**2).mean(-1, keepdims=True) + 1e-6)
                parts[index] = (heads * np.asarray(stream.scales[...])[index]).reshape(-1, 8)
        asked.append(parts)
        later.append(rest)
    found = attended(*(np.concatenate(pair) for pair in zip(*asked, strict=True)), 2)
    wanted = []
    for stream, tokens, part, rest in zip((block.text, block.image), (words, x), (found[:3], found[3:]), later,
                                          strict=True):  # fmt: skip
        if not stream.last:
            gate, shift, scale, gate_mlp = rest
            tokens = tokens + gate * linear(stream.attention['output'], part)
            tokens = tokens + gate_mlp * perceptron(stream.mlp, modulated(tokens, shift, scale))
        wanted.append(tokens)
    batched = (jnp.asarray(one, jnp.float32)[None] for one in (words, x, y))
    for one, other in zip(block(*batched), wanted, strict=True):
        np.testing.assert_allclose(one[0], other, rtol=1e-3, atol=1e-3)


def test_stable_diffusion_3_medium_has_its_parameters():
    """2,028,328,000, as counted for the published transformer (depth 24 on latents of 16 channels). Its vector of a
    caption as a whole has 2,048 features and its tokens 4,096; here both come from one reader."""
    options = {'patch': 2, 'depth': 24, 'width': 1536, 'heads': 24, 'text_depth': 1, 'text_width': 4096,
               'qk_norm': False}  # fmt: skip
    medium = nnx.eval_shape(lambda: mmdit.MMDiT((128, 128, 16), FORMS, **options, rngs=nnx.Rngs(0)))
    found = parameters(medium) - parameters(medium.words) - (4096 - 2048) * 1536
    assert found == 2_028_328_000


def denoiser(name, **options):
    config = ConfigDict({**networks.defaults(name), 'text_depth': 1, 'text_heads': 2, **SMALL[name], **options})
    return networks.denoiser(config, SPEC, {**FORMS, 'label': Form('classes', (), 3)}, nnx.Rngs(0))


call = nnx.jit(lambda network, x, t, given: network(x, t, given))
INPUTS = jax.random.normal(jax.random.key(0), (3, *SPEC.shape)), jnp.linspace(0.2, 0.9, 3)
TOLD = {'caption': jnp.array([[98, 33, 99, 0, 0]] * 3), 'label': jnp.array([0, 1, 2])}


@pytest.mark.parametrize('name', SMALL)
def test_a_network_with_a_reader_hears_each_byte_of_its_own_caption_alone(name):
    network = scrambled(lambda: denoiser(name))
    y = call(network, *INPUTS, TOLD)
    for place in range(5):
        other = {**TOLD, 'caption': TOLD['caption'].at[1, place].add(1)}
        changed = np.abs(call(network, *INPUTS, other) - y).max((1, 2, 3))
        assert changed[1] > 1e-3 and max(changed[0], changed[2]) < 1e-5
    assert np.abs(call(network, *INPUTS, {**TOLD, 'label': jnp.full(3, 3)}) - y).max() > 1e-3


def test_an_mmdit_in_bfloat16_is_near_the_one_in_float32():
    exact, rounded = (call(scrambled(lambda kind=kind: denoiser('mmdit', dtype=kind, remat='blocks')), *INPUTS, TOLD)
                      for kind in ('float32', 'bfloat16'))  # fmt: skip
    assert rounded.dtype == jnp.float32 and (rounded != exact).any()
    np.testing.assert_allclose(rounded, exact, atol=0.05 * np.abs(exact).max())


def test_a_fresh_mmdit_is_zero_and_its_blocks_are_the_identity():
    network = denoiser('mmdit')
    np.testing.assert_array_equal(call(network, *INPUTS, TOLD), jnp.zeros_like(INPUTS[0]))
    words, x = (jax.random.normal(jax.random.key(count), (2, count, 16)) for count in (5, 6))
    for found, wanted in zip(network.blocks[0](words, x, jnp.ones((2, 16))), (words, x), strict=True):
        np.testing.assert_array_equal(found, wanted)


def test_an_mmdit_without_captions_is_refused():
    config = ConfigDict({**networks.defaults('mmdit'), **SMALL['mmdit']})
    with pytest.raises(UserError, match='mmdit reads captions: add caption to family.conditions'):
        networks.denoiser(config, SPEC, {'label': Form('classes', (), 3)}, nnx.Rngs(0))

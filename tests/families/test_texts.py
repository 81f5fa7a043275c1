"""Frozen text encoders as part of a condition: what networks are told, what is kept, and what is refused."""

import hashlib
import json
import pathlib
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from genbench.data import captions
from genbench.data.conditions import Form
from genbench.errors import UserError
from genbench.evaluation import draw
from genbench.exchange.safetensors import encode
from genbench.families import texts
from genbench.networks.weights import abstract, by_path
from genbench.training import encoders, lending, runs
from genbench.training.loop import train

pytestmark = pytest.mark.unoptimized
TINY = texts.of_clip(8, 2, 2, vocabulary=12, length=6)
WORDS = {'a': 0, 'bold': 1, 'thin': 2, 'seven': 3, 'three': 4, 'other': 9, '<start>': 10, '<end>': 11}
TOKENIZER = {
    'version': '1.0', 'truncation': {'direction': 'Right', 'max_length': 3, 'strategy': 'LongestFirst', 'stride': 0},
    'padding': None, 'added_tokens': [], 'normalizer': {'type': 'Lowercase'},
    'pre_tokenizer': {'type': 'Whitespace'},
    'post_processor': {'type': 'RobertaProcessing', 'sep': ['<end>', 11], 'cls': ['<start>', 10], 'trim_offsets': False,
                       'add_prefix_space': False},
    'decoder': None, 'model': {'type': 'WordLevel', 'vocab': WORDS, 'unk_token': 'other'},
}  # fmt: skip


@pytest.fixture(scope='module')
def tokenizer(tmp_path_factory):
    pytest.importorskip('tokenizers')
    path = tmp_path_factory.mktemp('tokenizer') / 'tokenizer.json'
    path.write_text(json.dumps(TOKENIZER))
    return str(path)


def weights(path, architecture=TINY, seed=0):
    """A file of random weights of an encoder, and of other tensors that its publishers put beside them."""
    shapes = {name: leaf.shape for name, leaf in by_path(abstract(lambda: architecture.make(0))[1]).items()}
    draw = np.random.Generator(np.random.Philox(seed))
    held = {name: draw.normal(size=shape).astype(np.float32) for name, shape in shapes.items()}
    held |= {'logit_scale': np.ones(1, np.float32), 'vision_model.x': np.ones(2, np.float32)}
    pathlib.Path(path).write_bytes(encode(held, {}))
    return held


@pytest.fixture
def architecture(monkeypatch):
    monkeypatch.setitem(texts.ARCHITECTURES, 'tiny', TINY)
    return TINY


def test_tokens_are_those_of_the_tokenizer_with_its_ends_and_zeros_after_them(tokenizer):
    reading = captions.reading(f'tokens6:{tokenizer}')
    found = reading.numbers(['a bold seven', b'', 'A strange seven'])
    np.testing.assert_array_equal(found, [[11, 1, 2, 4, 12, 0], [11, 12, 0, 0, 0, 0], [11, 1, 10, 4, 12, 0]])
    assert (reading.length, reading.size, reading.nothing) == (6, 13 - 4, tuple(found[1].tolist()))


def test_a_caption_with_too_many_tokens_is_cut_only_where_that_is_asked_for(tokenizer):
    long = 'a bold thin seven three'
    with pytest.raises(UserError, match='has 7 tokens, and this model takes 6') as refused:
        captions.reading(f'tokens6:{tokenizer}').number(long)
    assert '\n' not in str(refused.value)
    np.testing.assert_array_equal(captions.reading(f'tokens6:{tokenizer}:cut').number(long), [[11, 1, 2, 3, 4, 12]])


@pytest.mark.parametrize('way', ['tokens', 'tokens6', 'tokens6:', 'tokens1:x.json', 'tokensx:x.json', 'tokens6::cut'])
def test_tokens_that_are_not_spelt_well_are_refused(way):
    with pytest.raises(UserError, match='write caption:tokensN:FILE'):
        captions.reading(way)


def test_a_tokenizer_that_is_not_there_is_refused(tmp_path):
    with pytest.raises(UserError, match='gone.json .family.conditions. is not a file'):
        captions.reading(f'tokens6:{tmp_path}/gone.json').number('a')


def test_nothing_is_the_empty_caption():
    form = Form('tokens', (3,), 9, nothing=(8, 9, 0))
    np.testing.assert_array_equal(form.null(2), [[8, 9, 0]] * 2)


class Frozen:
    """Networks that lend one encoder."""

    def __init__(self, encoder):
        self._encoder = encoder

    def borrowed(self, name):
        assert name == texts.NAME
        return {'encoder': self._encoder}


def test_networks_are_told_features_of_captions_and_of_the_empty_one(architecture):
    form = Form('tokens', (5,), 13, nothing=(11, 12, 0, 0, 0))
    encoder = texts.Encoder('tiny', 0)
    module = encoder.networks(nnx.Rngs(0))['encoder']
    draw = np.random.Generator(np.random.Philox(1))
    state = jax.tree.map(lambda leaf: jnp.asarray(draw.normal(size=leaf.shape), jnp.float32), nnx.state(module))
    nnx.update(module, state)
    told = texts.Texts(encoder, {'caption': form})
    assert told.forms({'caption': form})['caption'] == Form('features', (5, 8))
    given = {'caption': jnp.array([[11, 1, 4, 12, 0], [11, 12, 0, 0, 0]])}
    found, nothing = told.told(Frozen(module), given, 2), told.told(Frozen(module), None, 2)
    tokens, whole = module(jnp.array([[10, 0, 3, 11, 11], [10, 11, 11, 11, 11]]))  # filled up with the end token
    np.testing.assert_allclose(found['caption'], tokens, atol=1e-5)
    np.testing.assert_allclose(found['caption_whole'], whole, atol=1e-5)
    for name in ('caption', 'caption_whole'):
        np.testing.assert_allclose(nothing[name], jnp.stack([found[name][1]] * 2), atol=1e-5)
    assert told.told(Frozen(module), found, 2) is found


@pytest.mark.parametrize(
    ('form', 'why'),
    [
        (Form('tokens', (6,), 257), 'reads token ids: add caption:tokensN:FILE'),
        (Form('tokens', (6,), 99, nothing=(1,) * 6), 'The tokenizer has 98 tokens, but tiny knows 12'),
        (Form('tokens', (7,), 13, nothing=(1,) * 7), 'captions of 7 tokens, but tiny takes 6'),
        (Form('tokens', (6,), 9, nothing=(2, 0, 0, 0, 0, 0)), 'does not end captions with the token 11, as tiny needs'),
    ],
)
def test_captions_that_are_not_of_the_encoder_are_refused(architecture, form, why):
    with pytest.raises(UserError, match=why):
        texts.Texts(texts.Encoder('tiny', 0), {'caption': form})


@pytest.mark.parametrize(('kind', 'skip'), [('t5-v1_1-small', 1), ('clip-vitb32', 12)])
def test_blocks_that_cannot_be_left_out_are_refused(kind, skip):
    with pytest.raises(UserError, match=f'family.text_skip is {skip}'):
        texts.Encoder(kind, skip)


@pytest.mark.parametrize('text', ['clip-vitb23:x', 'clip-vitb32', 'clip-vitb32:'])
def test_an_encoder_that_is_not_spelt_well_is_refused(text):
    with pytest.raises(UserError, match='should be ARCHITECTURE:FILE'):
        texts.parse(text)


def test_an_encoder_is_promised_by_its_shapes_without_its_file(architecture):
    entry, state = encoders.promise('tiny:nowhere.safetensors', 1)
    assert encoders.encoder(entry).skip == 1 and state['lent'] == {}
    assert state['params']['encoder']['text_model']['embeddings']['token_embedding']['weight'].shape == (12, 8)


@pytest.mark.parametrize('stray', ['', 'notes'])
def test_a_copied_encoder_is_the_file_of_the_name_in_the_config(architecture, stray, tiny, tmp_path):
    copies = tmp_path / 'borrowed' / 'text_encoder'
    copies.mkdir(parents=True)
    if stray:
        weights(copies / stray)
    weights(tmp_path / 'clip.safetensors')
    config = tiny('diffusion', f'family.text_encoder=tiny:{tmp_path}/clip.safetensors')
    with pytest.raises(UserError, match='text_encoder/clip.safetensors .family.text_encoder. cannot be read'):
        encoders.lend(config.family, tmp_path)
    weights(copies / 'clip.safetensors')
    assert encoders.lend(config.family, tmp_path)[0]['run'] == str(copies / 'clip.safetensors')


def test_a_run_borrows_its_encoder_and_refuses_another_one(architecture, tokenizer, tiny, tmp_path):
    """Neither the checkpoint nor the optimizer holds it, and the manifest has its hash and that of the tokenizer."""
    path, folder, words = tmp_path / 'clip.safetensors', tmp_path / 'run', tmp_path / 'tokenizer.json'
    shutil.copy(tokenizer, words)
    held = weights(path)
    config = tiny(
        'diffusion', f'family.conditions=caption:tokens6:{words}', f'family.text_encoder=tiny:{path}',
        'network.channels=8', 'train.num_steps=1', 'family.text_skip=1',
    )  # fmt: skip
    train(config, folder, quiet=True)
    run = runs.open_run(folder)
    step, state = run.restore()
    assert step == 1 and state['params'].keys() == {'denoiser'} and not run.lent.keys() & state.keys()
    lent = run.lent['text_encoder']['params']['encoder']
    np.testing.assert_array_equal(
        lent['text_model']['final_layer_norm']['bias'], held['text_model.final_layer_norm.bias']
    )
    asked = {'count': 2, 'sampler': 'ddim:2:1.0', 'seed': 0, 'given': ['caption=a bold seven'], 'overrides': ()}
    draw.draw_to_file(str(folder), f'{tmp_path}/x.npz', **asked, step=None)
    assert (np.load(tmp_path / 'x.npz')['given_caption'] == [11, 1, 2, 4, 12, 0]).all()
    lending.export(str(folder), f'{tmp_path}/copy')
    weights(path, seed=1)
    copied = runs.open_run(tmp_path / 'copy')
    found = runs.borrow(copied.config, copied.folder)['text_encoder'].state['params']['encoder']
    jax.tree.map(np.testing.assert_array_equal, found, lent)
    entry = copied.manifest['borrowed']['text_encoder']
    assert entry['tokenizer_sha256'] == hashlib.sha256(words.read_bytes()).hexdigest()
    words.write_text(json.dumps(TOKENIZER | {'normalizer': None}))
    with pytest.raises(UserError, match='family.conditions: .*tokenizer.json has changed since it was borrowed'):
        runs.borrow(copied.config, copied.folder)
    before = {key: value for key, value in entry.items() if key != 'tokenizer_sha256'}  # as manifests were
    assert encoders.lend(copied.config.family, copied.folder.path, before)[0]['state_sha256'] == entry['state_sha256']
    words.unlink()
    with pytest.raises(UserError, match='tokenizer.json .family.conditions. is not a file'):
        runs.borrow(copied.config, copied.folder)
    shutil.copy(tokenizer, words)
    with pytest.raises(UserError, match='has changed since it was borrowed'):
        runs.borrow(run.config, run.folder)
    weights(path, texts.of_clip(8, 3, 2, vocabulary=12, length=6))
    with pytest.raises(UserError, match='this network does not have'):
        runs.borrow(run.config)
    path.unlink()
    with pytest.raises(UserError, match='cannot be read: No such file'):
        runs.borrow(run.config)

"""CLIP score: its scale, the captions that samples are compared with, and what is refused."""

import json

import jax.numpy as jnp
import numpy as np
import pytest
from untrained import Untrained

from genbench.data import captions
from genbench.errors import UserError
from genbench.evaluation import clip_score, harness
from genbench.evaluation.features import clip, weights
from genbench.exchange.safetensors import encode
from genbench.families.base import Samples, register
from genbench.networks.clip import ImageEncoder, TextEncoder
from genbench.training.loop import train
from genbench.training.sampling import to_uint8

pytestmark = pytest.mark.unoptimized
WORDS = ('one', 'two', 'three', 'four', 'five', 'six', 'seven', 'eight', 'nine', 'zero', 'a', 'bold', 'thin')
IDS = {word: number for number, word in enumerate((*WORDS, 'other', '<start>', '<end>'))}
TEXTS = {'vocabulary': len(IDS), 'size': 8, 'depth': 2, 'heads': 2, 'length': 77, 'end': IDS['<end>'], 'embedding': 6}
IMAGES = {'size': 8, 'depth': 1, 'heads': 2, 'patch': 8, 'image': 16, 'embedding': 6}


@register('scribe')
class Scribe(Untrained):
    """It writes the digit and the weight of its caption into two pixels."""

    def sample(self, networks, keys, given, sampler):
        numbers = jnp.asarray(captions.words([' '.join(WORDS[:10])])[0, :10])
        digit = jnp.argmax(given['caption'][:, 2:3] == numbers, axis=1)
        bold = given['caption'][:, 1] == captions.words(['bold'])[0, 0]
        images = jnp.zeros((len(keys), *self.spec.shape), jnp.int32)
        return Samples(images.at[:, 0, 0, 0].set(digit).at[:, 0, 1, 0].set(bold), 1)


def test_a_score_is_a_hundred_times_the_cosine_and_never_negative():
    images, texts = np.array([[3.0, 4], [1, 0], [1, 0]]), np.array([[6.0, 8], [1, 3**0.5], [-1, 0.1]])
    np.testing.assert_allclose(clip_score.scores(images, texts), [100, 50, 0], rtol=1e-12)


@pytest.fixture(scope='module')
def files(tmp_path_factory):
    """A tokenizer and a file of both towers with random weights."""
    pytest.importorskip('tokenizers')
    folder = tmp_path_factory.mktemp('clip')
    parts = {
        'version': '1.0', 'truncation': None, 'padding': None, 'added_tokens': [], 'normalizer': None, 'decoder': None,
        'pre_tokenizer': {'type': 'Whitespace'},
        'post_processor': {'type': 'RobertaProcessing', 'sep': ['<end>', IDS['<end>']],
                           'cls': ['<start>', IDS['<start>']], 'trim_offsets': False, 'add_prefix_space': False},
        'model': {'type': 'WordLevel', 'vocab': IDS, 'unk_token': 'other'},
    }  # fmt: skip
    (folder / 'tokenizer.json').write_text(json.dumps(parts))
    (folder / 'endless.json').write_text(json.dumps({**parts, 'post_processor': None}))
    draw, held = np.random.Generator(np.random.Philox(0)), {'logit_scale': np.ones(1, np.float32)}
    for module in (lambda: TextEncoder(**TEXTS), lambda: ImageEncoder(**IMAGES)):
        shapes = {name: leaf.shape for name, leaf in weights.by_path(weights.abstract(module)[1]).items()}
        held |= {name: draw.normal(size=shape).astype(np.float32) for name, shape in shapes.items()}
    (folder / 'both.safetensors').write_bytes(encode(held, {}))
    return folder


def test_samples_are_compared_with_the_captions_they_were_drawn_for(files, tiny, tmp_path, monkeypatch):
    """The score of a run against both towers by hand, on the images and captions that the run has."""
    sha256 = weights.hash_of(files / 'both.safetensors', 'a test')
    words = {
        'weights': str(files / 'both.safetensors'),
        'weights_sha256': sha256,
        'tokenizer': f'{files}/tokenizer.json',
    }
    published = weights.Published('tiny', 'https://nowhere/tiny', '0' * 64)
    monkeypatch.setitem(clip.ARCHITECTURES, 'clip-vitb32', clip.Architecture(published, **IMAGES))
    monkeypatch.setitem(clip_score.TEXTS, 'clip-vitb32', TEXTS)
    folder = tmp_path / 'run'
    train(tiny('scribe', 'train.num_steps=1', 'family.conditions=caption'), folder, quiet=True)
    overrides = [f'evaluation.clip_score.{key}={value}' for key, value in words.items()]
    overrides += ['evaluation.metrics=clip_score', 'evaluation.num_samples=5', 'evaluation.sets=2']
    (row,) = harness.evaluate(str(folder), overrides, quiet=True)
    (stored,) = (folder / 'evaluation' / 'samples').glob('*/shard_*.npz')
    images = np.load(stored)['images']
    said = [f'a {("thin", "bold")[int(image[0, 1, 0])]} {WORDS[image[0, 0, 0]]}' for image in images]
    assert len(set(said)) > 4
    told = clip_score.texts('clip-vitb32', words['weights'], sha256, options=TEXTS)(
        jnp.asarray(captions.reading(f'tokens77:{words["tokenizer"]}').numbers(said))
    )
    seen = clip.open_network('clip-vitb32', words['weights'], sha256)(
        to_uint8(images, harness.opened(folder, ()).family.spec)
    )
    cosines = [x @ y / np.linalg.norm(x) / np.linalg.norm(y) for x, y in zip(seen, np.asarray(told), strict=True)]
    assert row['value'] == pytest.approx(100 * np.maximum(cosines, 0).mean(), rel=1e-4) and np.ptp(cosines) > 0.01
    assert row['metric'] == 'clip_score' and row['n'] == 10 and 0 <= row['value'] <= 100
    assert row['details']['hessel_2021'] == pytest.approx(2.5 * row['value'] / 100)
    assert row['protocol']['weights'] == sha256
    assert not harness.evaluate(str(folder), overrides, quiet=True)  # it has this row


def test_long_captions_are_cut(files, tiny):
    config = tiny('scribe', f'evaluation.clip_score.tokenizer={files}/tokenizer.json')
    name, _, way = clip_score.field(config.evaluation).partition(':')
    (row,) = captions.reading(way).numbers([' '.join(['bold'] * 76 + ['thin'])])
    assert name == 'caption' and len(row) == 77
    np.testing.assert_array_equal(row, [1 + IDS[one] for one in ('<start>', *['bold'] * 75, '<end>')])


@pytest.mark.parametrize(
    ('conditions', 'tokenizer', 'why'),
    [
        (('label',), 'x.json', 'this model has none'),
        (('caption',), '', 'needs evaluation.clip_score.tokenizer'),
        (('caption',), 'x.json', r'The tokenizer x.json \(evaluation.clip_score.tokenizer\) is not a file'),
    ],
)
def test_what_has_no_captions_or_no_tokenizer_is_refused(conditions, tokenizer, why, tiny):
    config = tiny('scribe', f'family.conditions={",".join(conditions)}', 'evaluation.metrics=clip_score',
                  f'evaluation.clip_score.tokenizer={tokenizer}')  # fmt: skip

    class Model:
        pass

    Model.conditions = conditions
    with pytest.raises(UserError, match=why):
        clip_score.fields(Model, config.evaluation)


def test_a_tokenizer_that_does_not_end_captions_as_clip_does_is_refused(files, tiny, monkeypatch):
    class Model:
        conditions = ('caption',)

    def fields(name):
        words = 'evaluation.metrics=clip_score', f'evaluation.clip_score.tokenizer={files}/{name}'
        return clip_score.fields(Model, tiny('scribe', *words).evaluation)

    with pytest.raises(UserError, match='does not end captions with the token 49407, as CLIP needs; give'):
        fields('tokenizer.json')
    monkeypatch.setitem(clip_score.TEXTS, 'clip-vitb32', TEXTS)
    assert len(fields('tokenizer.json')) == 1
    with pytest.raises(UserError, match=f'endless.json.* does not end captions with the token {IDS["<end>"]}'):
        fields('endless.json')

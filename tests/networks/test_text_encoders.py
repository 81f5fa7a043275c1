"""The text encoders of CLIP and T5 against transformers, by recordings with small random weights."""

import importlib.util
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from genbench.networks import clip, t5

pytestmark = pytest.mark.unoptimized
HERE = pathlib.Path(__file__).parent
RECORDED = dict(np.load(HERE / 'fixtures' / 'text_encoders.npz'))
PUBLISHED = {'vocabulary': 49_408, 'length': 77, 'end': 49_407}


def loaded(path):
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


recorder = loaded(HERE / 'record_text_encoders.py')


def shapes(key):
    pairs = (text.split(' ', 1) for text in RECORDED[key])
    return {name: tuple(int(size) for size in shape.strip('(,)').split(',')) for name, shape in pairs}


def filled(module, key):
    """The module with its part of the recorded network's seeded weights, by their published names."""
    values, state = recorder.seeded_weights(shapes(key)), nnx.state(module, nnx.Param)
    named = {'.'.join(map(str, path)): leaf for path, leaf in nnx.to_flat_state(state)}
    assert {name: leaf.shape for name, leaf in named.items()}.items() <= shapes(key).items()
    for name, leaf in named.items():
        leaf[...] = jnp.asarray(values[name])
    nnx.update(module, state)
    return module, named.keys()


def close(found, key):
    np.testing.assert_allclose(found, RECORDED[key], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(('skip', 'key'), [(0, 'clip last'), (1, 'clip before')])
def test_clip_reads_texts_as_transformers_does(skip, key):
    options = {**recorder.CLIP, 'embedding': 0, 'skip': skip}
    encoder, _ = filled(clip.TextEncoder(**options), 'clip names')
    tokens, whole = encoder(jnp.asarray(recorder.CLIP_IDS))
    close(tokens, key)
    close(whole, 'clip pooled')


def test_clip_compares_images_and_texts_as_transformers_does():
    texts, names = filled(clip.TextEncoder(**recorder.CLIP), 'clip names')
    images, others = filled(clip.ImageEncoder(**recorder.IMAGES), 'clip names')
    assert {*names, *others} == shapes('clip names').keys()
    told, seen = texts(jnp.asarray(recorder.CLIP_IDS))[1], images(jnp.asarray(recorder.pixels()))
    close(told, 'clip projected')
    told, seen = (x / jnp.linalg.norm(x, axis=1, keepdims=True) for x in (told, seen))
    close(seen @ told.T, 'clip cosines')


def test_a_token_of_clip_sees_none_after_it():
    encoder, _ = filled(clip.TextEncoder(**recorder.CLIP), 'clip names')
    ids = jnp.asarray(recorder.CLIP_IDS[1:2])
    before, after = encoder(ids)[0], encoder(ids.at[0, 5].set(11))[0]
    np.testing.assert_array_equal(before[0, :5], after[0, :5])
    assert (abs(before - after)[0, 5:].max(1) > 1e-3).all()


def test_t5_reads_texts_as_transformers_does_and_no_padding():
    encoder, names = filled(t5.TextEncoder(**recorder.T5), 't5 names')
    assert names == shapes('t5 names').keys()
    tokens, whole = encoder(jnp.asarray(recorder.t5_ids()))
    close(tokens[0, ::7], 't5 first')
    close(tokens[1, :7], 't5 second')
    np.testing.assert_allclose(whole[1], RECORDED['t5 second'].mean(0), atol=1e-5)
    assert not tokens[1, 7:].any()


CLIP_L = {**PUBLISHED, 'size': 768, 'depth': 12, 'heads': 12}
CLIP_B = {**PUBLISHED, 'size': 512, 'depth': 12, 'heads': 8}


def t5_of(size, depth, heads, hidden):
    options = {'size': size, 'depth': depth, 'heads': heads, 'inner': 64 * heads, 'hidden': hidden}
    return lambda: t5.TextEncoder(vocabulary=32_128, **options)


@pytest.mark.parametrize(
    ('module', 'numbers'),
    [
        (lambda: clip.TextEncoder(**CLIP_L), 123_060_480),
        (lambda: clip.TextEncoder(**CLIP_B), 63_165_952),
        (t5_of(512, 8, 6, 1024), 35_332_800),
        (t5_of(4096, 24, 64, 10_240), 4_762_310_656),
    ],
)
def test_text_encoders_have_as_many_numbers_as_transformers_counts(module, numbers):
    """The parameters of CLIPTextModel (ViT-L/14, ViT-B/32) and of T5EncoderModel (v1_1-small, v1_1-xxl)."""
    assert sum(leaf.size for leaf in jax.tree.leaves(nnx.state(nnx.eval_shape(module), nnx.Param))) == numbers

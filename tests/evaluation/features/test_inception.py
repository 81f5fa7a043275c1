"""The Inception against what the reference tools compute with the same weights and images (see record_inception.py)."""

import pathlib

import jax
import numpy as np
import pytest
from flax import nnx

from genbench.errors import UserError
from genbench.evaluation import features
from genbench.evaluation.features import inception, weights
from genbench.networks import inception as networks

KINDS = ('32x32', '28x28 grey', '299x299')
TOOLS = {'ttur': KINDS, 'pytorch-fid': KINDS, 'clean': KINDS}
CASES = [(convention, kind) for convention, kinds in TOOLS.items() for kind in kinds]


def shapes():
    state = nnx.split(nnx.eval_shape(networks.Inception))[1]
    return networks.published_shapes(weights.by_path(nnx.to_pure_dict(state)))


@pytest.fixture(scope='module')
def tensors(recorder):
    return recorder.seeded_weights(shapes())


@pytest.fixture(scope='module')
def seeded(tensors, safetensors, tmp_path_factory):
    """(file, SHA-256) of the seeded weights."""
    path = tmp_path_factory.mktemp('weights') / 'inception.safetensors'
    return str(path), safetensors(path, tensors)


@pytest.fixture(scope='module')
def found(recorder, seeded):
    """Outputs for every convention and kind of image; the network is compiled once, for six images."""
    definition, params = inception.load(weights.Weights(pathlib.Path(seeded[0]), seeded[1], False))
    apply = jax.jit(lambda params, x: nnx.merge(definition, params)(x))
    scale = jax.jit(inception.scaled, static_argnums=1)
    x = np.concatenate([scale(recorder.images(kind), convention) for convention, kind in CASES])
    parts = [jax.device_get(apply(params, x[start : start + 6])) for start in range(0, len(x), 6)]
    joined = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    return {case: {name: joined[name][2 * i : 2 * i + 2] for name in joined} for i, case in enumerate(CASES)}


@pytest.mark.parametrize(('convention', 'kind'), CASES)
def test_pool3_is_that_of_the_reference(found, recorded, recorder, convention, kind):
    wanted = recorded[f'{convention}/{kind}/features']
    error = np.abs(found[convention, kind]['features'][:, :: recorder.FEATURES_STEP] - wanted)
    assert error.mean() < 1e-5
    assert error.max() < 1e-4


@pytest.mark.parametrize('kind', KINDS)
@pytest.mark.parametrize('output', ['logits', 'spatial'])
def test_logits_and_spatial_features_are_those_of_the_reference(found, recorded, recorder, kind, output):
    step = {'logits': recorder.LOGITS_STEP, 'spatial': recorder.SPATIAL_STEP}[output]
    error = np.abs(found['ttur', kind][output][:, ::step] - recorded[f'ttur/{kind}/{output}'])
    assert error.mean() < 1e-5


@pytest.mark.parametrize('kind', ['32x32', '28x28 grey'])
def test_conventions_are_told_apart(recorded, kind):
    """The tolerance above means something: between conventions features differ a hundred times more."""
    ttur, pytorch, clean = (recorded[f'{convention}/{kind}/features'] for convention in TOOLS)
    for a, b in ((ttur, pytorch), (ttur, clean), (pytorch, clean)):
        assert np.abs(a - b).mean() > 100 * 1e-5


def test_the_network_of_the_harness(seeded, recorder, found):
    """From integers to the outputs asked for, in batches; with weights that are not the published ones."""
    network = features.get('inception', weights=seeded[0], weights_sha256=seeded[1].upper(), batch_size=3)
    images = recorder.images('32x32')
    seen = network.extract(images, ('features', 'spatial', 'logits'))
    for name, size in (('features', 2048), ('spatial', 7 * 17 * 17), ('logits', 1008)):
        assert seen[name].shape == (2, size)
        np.testing.assert_allclose(seen[name], found['ttur', '32x32'][name], atol=1e-5)
    assert (network.name, network.levels, network.published) == ('inception', 256, False)
    assert network.protocol['weights'] == network.weights == seeded[1]
    assert (network.protocol['convention'], network.protocol['dimensions']) == ('ttur', 2048)


def test_the_published_weights_may_give_a_fid(seeded, monkeypatch):
    published = weights.Published('seeded', 'https://nowhere/inception.pth', seeded[1])
    monkeypatch.setattr(inception, 'PUBLISHED', published)
    networks = [features.get('inception', convention=name, weights=seeded[0]) for name in TOOLS]
    assert all(network.published for network in networks)
    assert len({str(network.protocol) for network in networks}) == 3


def test_names_and_shapes_are_those_of_the_published_file():
    """torch-fidelity loads it into 566 tensors of 23,885,486 numbers, 94 of which count batches and are not needed."""
    found = shapes()
    assert len(found) == 566 - 94
    assert found['Conv2d_1a_3x3.conv.weight'] == (32, 3, 3, 3)
    assert found['Mixed_5d.branch_pool.bn.running_var'] == (64,)
    assert found['Mixed_6c.branch7x7dbl_2.conv.weight'] == (160, 160, 7, 1)
    assert found['Mixed_7c.branch3x3dbl_3b.conv.weight'] == (384, 384, 3, 1)
    assert found['fc.weight'] == (1008, 2048)
    assert sum(int(np.prod(shape)) for shape in found.values()) == 23_885_486 - 94


def test_weights_of_another_network_are_one_sentence(tensors, safetensors, tmp_path):
    path = tmp_path / 'imagenet.safetensors'
    sha256 = safetensors(path, {**tensors, 'fc.weight': np.zeros((1000, 2048), np.float32)})
    with pytest.raises(
        UserError, match=r'fc.weight in .* has the shape \(1000, 2048\), but this network needs \(1008, 2048\)'
    ):
        features.get('inception', weights=str(path), weights_sha256=sha256)

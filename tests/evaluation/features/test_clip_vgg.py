"""CLIP, VGG16 and LPIPS against the packages that publish them, by recordings with small random weights."""

import importlib.util
import pathlib

import numpy as np
import pytest

from genbench.data.spec import DataSpec
from genbench.errors import UserError
from genbench.evaluation import features, path_length
from genbench.evaluation.features import clip, vgg, weights
from genbench.networks.clip import ImageEncoder
from genbench.networks.vgg import STAGES, VGG16, Convolutions

HERE = pathlib.Path(__file__).parent
RECORDED = dict(np.load(HERE / 'networks.npz'))
KINDS = ('wide', 'high and grey', 'of its size')


@pytest.fixture(scope='module')
def networks():
    """The module record_networks.py, which says how images and weights of the recording are made."""
    spec = importlib.util.spec_from_file_location('record_networks', HERE / 'record_networks.py')
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope='module')
def write(recorder, safetensors, tmp_path_factory):
    """(name, shapes of tensors or tensors) → (file of seeded weights, its SHA-256)."""

    def written(name, tensors):
        path = tmp_path_factory.mktemp('weights') / f'{name}.safetensors'
        seeded = all(isinstance(value, tuple) for value in tensors.values())
        return str(path), safetensors(path, recorder.seeded_weights(tensors) if seeded else tensors)

    return written


def shapes_of(module):
    """Names and shapes of a module's parameters."""
    return {name: leaf.shape for name, leaf in weights.by_path(weights.abstract(module)[1]).items()}


def recorded_shapes(key):
    pairs = (text.split(' ', 1) for text in RECORDED[key])
    return {name: tuple(int(size) for size in shape.strip('(,)').split(',')) for name, shape in pairs}


@pytest.fixture(scope='module')
def tiny_clip(networks, write):
    published = weights.Published('tiny', 'https://nowhere/tiny.safetensors', '0' * 64)
    beside = {'logit_scale': (1,), 'text_model.final_layer_norm.weight': (3,)}
    path, sha256 = write('clip', recorded_shapes('clip names'))
    # The seeded values depend on all names, so what stands beside them is added to them.
    whole = {**weights.read_safetensors(pathlib.Path(path)), **{name: np.zeros(s, 'f4') for name, s in beside.items()}}
    path, sha256 = write('whole', whole)
    return clip.open_network('tiny', path, sha256, architecture=clip.Architecture(published, **networks.CLIP))


@pytest.mark.parametrize('kind', KINDS)
def test_clip_embeds_as_transformers_does_what_its_own_transforms_prepare(networks, tiny_clip, kind):
    images = networks.images(networks.CLIP_IMAGES[kind])
    pixels = np.asarray(clip.scaled(images, networks.CLIP['image']))[:, ::9, ::7]
    np.testing.assert_allclose(pixels, RECORDED[f'clip pixels {kind}'], atol=1e-6)
    np.testing.assert_allclose(tiny_clip(images), RECORDED[f'clip {kind}'], atol=1e-5)


def test_clip_has_the_names_that_are_published(networks):
    assert shapes_of(lambda: ImageEncoder(**networks.CLIP)) == recorded_shapes('clip names')


@pytest.mark.parametrize(('name', 'numbers'), [('clip-vitb32', 87_849_216), ('clip-vitl14', 303_966_208)])
def test_clip_has_as_many_numbers_as_the_published_towers(name, numbers):
    """As transformers counts the parameters of the two CLIPVisionModelWithProjection."""
    options = {key: getattr(clip.ARCHITECTURES[name], key) for key in ('size', 'depth', 'heads', 'patch', 'embedding',
                                                                        'image')}  # fmt: skip
    assert sum(int(np.prod(shape)) for shape in shapes_of(lambda: ImageEncoder(**options)).values()) == numbers


def test_an_image_by_itself_is_cut_as_in_a_batch():
    image = np.random.Generator(np.random.Philox(1)).integers(0, 256, (30, 47, 3), dtype=np.uint8)
    cut = clip.alone(image)
    assert cut.shape == (224, 224, 3) and cut.dtype == np.uint8
    np.testing.assert_array_equal(clip.scaled(cut[None]), clip.scaled(image[None]))


def test_vgg_is_torchvisions(networks, write):
    hidden = networks.HIDDEN
    shapes = shapes_of(lambda: VGG16(stages=networks.STAGES, hidden=hidden))
    last = {'classifier.6.weight': (3, hidden), 'classifier.6.bias': (3,)}
    path, sha256 = write('vgg', {**shapes, **last})
    network = vgg.open_network('dgm-eval', path, sha256, stages=networks.STAGES, hidden=hidden, batch_size=2)
    found = network(networks.images((224, 224, 3)))
    assert (found > 0).any()
    np.testing.assert_allclose(found, RECORDED['vgg hidden'], rtol=1e-5, atol=1e-5)


def test_vgg_has_the_names_that_torchvision_has():
    named = {name: shape for name, shape in recorded_shapes('vgg names').items() if 'classifier.6' not in name}
    assert shapes_of(VGG16) == named


@pytest.fixture(scope='module')
def lpips(networks, write):
    path, sha256 = write('convolutions', shapes_of(Convolutions))
    linear, linear_sha256 = write('linear', networks.linear_weights())
    return vgg.open_distance(path, sha256, linear, linear_sha256)


@pytest.mark.parametrize('kind', ['even', 'odd'])
def test_lpips_is_that_of_its_package(networks, lpips, kind):
    x, y = np.split(networks.images(networks.LPIPS_IMAGES[kind], 6), 2)
    np.testing.assert_allclose(lpips(x, y), RECORDED[f'lpips {kind}'], rtol=1e-4)


def test_a_path_is_measured_in_lpips_of_real_valued_images(networks, lpips):
    """The same images in 256 levels, and in 4 levels as thirds of their range."""
    x, y = np.split(networks.images(networks.LPIPS_IMAGES['even'], 6), 2)
    distance = path_length.perceptual(lpips, DataSpec('images', (32, 48, 3), levels=4))
    found = distance.apply(distance.params, x / np.float32(85), y / np.float32(85))
    np.testing.assert_allclose(found, RECORDED['lpips even'], rtol=1e-4)
    assert distance.metric == 'perceptual_path_length'


def test_lpips_of_equal_images_is_nothing_and_of_others_an_error(networks, lpips):
    x = networks.images(networks.LPIPS_IMAGES['even'], 3)
    assert lpips(x, x).max() < 1e-12
    with pytest.raises(UserError, match='pairs of images'):
        lpips(x, x[:2])


def test_the_linear_layers_have_one_weight_a_channel(networks):
    assert [shape[1] for shape in networks.LINEAR.values()] == [channels for channels, _ in STAGES]


@pytest.mark.parametrize('name', ['clip-vitb32', 'vgg16'])
def test_weights_of_another_network_are_one_sentence(write, name):
    path, sha256 = write('other', {'conv.weight': (2, 2)})
    with pytest.raises(UserError, match='so it does not belong to this network'):
        features.get(name, weights=path, weights_sha256=sha256)

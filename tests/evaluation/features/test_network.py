"""Features depend on the image alone: not on the images beside it, the batch, or the number of devices."""

import json
import os
import subprocess
import sys

import jax.numpy as jnp
import numpy as np
import pytest

from genbench.errors import UserError
from genbench.evaluation import features
from genbench.evaluation.features import dinov2, network


def noise(*shape, levels=256):
    return np.random.Generator(np.random.Philox(3)).integers(0, levels, shape).astype(np.uint8)


def toy(batch_size):
    """Two outputs of every image; anything that mixed images would show."""

    def apply(params, images):
        x = images.astype(jnp.float32).reshape(len(images), -1)
        return {'features': x @ params, 'logits': x[:, :3] / 7}

    params = np.random.Generator(np.random.Philox(4)).standard_normal((12, 5)).astype(np.float32)
    return network.make('toy', apply, params, {}, batch_size=batch_size, outputs=('features', 'logits'))


@pytest.mark.parametrize('batch_size', [1, 4, 7, 64])
@pytest.mark.parametrize('count', [1, 7, 9])
def test_every_image_once_whatever_the_batch(batch_size, count):
    images, heard = noise(9, 2, 2, 3)[:count], []
    found = toy(batch_size).extract(images, ('logits', 'features'), heard.append)
    assert list(found) == ['logits', 'features']
    np.testing.assert_allclose(found['logits'], images.reshape(count, -1)[:, :3] / 7, rtol=1e-6)
    np.testing.assert_allclose(found['features'], toy(3)(noise(9, 2, 2, 3))[:count], rtol=1e-5)
    assert found['features'].dtype == np.float32
    assert heard[-1] == count and heard == sorted(heard)


SCRIPT = """
import json, sys
import jax, numpy as np
from genbench.evaluation.features import dinov2, weights

path, sha256, images = sys.argv[1:]
assert jax.device_count() == 4
tiny = dinov2.Architecture(weights.Published('tiny', 'https://nowhere/tiny.pth', '0' * 64), 12, 2, 3, positions=5)
network = dinov2.open_network('tiny', 'clean', path, sha256, architecture=tiny, batch_size=6)
print(json.dumps(network(np.load(images)).tolist()))
"""


def test_features_do_not_depend_on_the_number_of_devices(tiny_vit, tmp_path):
    """Nine images, eight at a time on four devices."""
    architecture, _, path, sha256 = tiny_vit
    images = noise(9, 8, 8, 3)
    alone = dinov2.open_network('tiny', 'clean', path, sha256, architecture=architecture, batch_size=5)(images)
    environment = {**os.environ, 'JAX_PLATFORMS': 'cpu', 'JAX_NUM_CPU_DEVICES': '4'}
    np.save(tmp_path / 'images.npy', images)
    command = [sys.executable, '-c', SCRIPT, path, sha256, str(tmp_path / 'images.npy')]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 0, done.stderr
    assert alone.shape == (9, 12)
    assert alone.std(0).min() > 0.01
    np.testing.assert_allclose(json.loads(done.stdout), alone, atol=2e-5)


def test_pixels():
    images = noise(5, 4, 3, 1)
    pixels = features.get('pixels')
    np.testing.assert_allclose(pixels(images), images.reshape(5, 12) / 255, rtol=1e-6)
    assert (pixels.name, pixels.levels, pixels.published, pixels.outputs) == ('pixels', 256, False, ('features',))


def test_the_classifier_by_name_is_the_classifier(tiny, digits, tmp_path, monkeypatch):
    monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path))
    spec, train, _ = digits
    options = tiny('gaussian').evaluation.classifier
    found = features.get('classifier', spec=spec, train=train, classifier_options=options, quiet=True)
    again = features.classifier(spec, train, options, quiet=True)
    assert found.name == again.name
    assert (found.levels, found.outputs, found.published) == (17, ('features', 'logits'), False)
    assert found.weights == found.protocol['weights'] == again.weights
    np.testing.assert_array_equal(found(train.images[:20]), again(train.images[:20]))


@pytest.mark.parametrize(
    ('name', 'options', 'words'),
    [
        ('inceptoin', {}, 'There is no feature network .inceptoin.*Did you mean inception'),
        ('inception', {'convention': 'tf'}, 'inception has ttur, pytorch-fid, clean, not the convention .tf.'),
        ('dinov2', {'convention': 'ttur'}, 'dinov2-vitb14 has dgm-eval, clean, not the convention .ttur.'),
        ('pixels', {'convention': 'ttur'}, 'pixels has none, not the convention'),
        ('pixels', {'weights': 'a.pth'}, 'do not use evaluation.features.weights'),
        ('classifier', {}, 'need a data set to train on, but there is none here'),
    ],
)
def test_features_that_cannot_be_say_why(name, options, words):
    with pytest.raises(UserError, match=words):
        features.get(name, **options)


@pytest.mark.parametrize('shape', [(0, 8, 8, 3), (4, 8, 8), (4, 8, 8, 4)])
def test_images_that_cannot_be_say_why(shape):
    with pytest.raises(UserError, match=r'pixels needs at least one, with the shape \(n, height, width, 1 or 3\)'):
        features.get('pixels')(np.zeros(shape, np.uint8))

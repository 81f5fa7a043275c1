"""The perceptual distance of first stages: LPIPS against NumPy, its gradients by brute force, and files of weights."""

import hashlib
import json
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from scipy import signal

from genbench import cli, config, families
from genbench.data.spec import DataSpec
from genbench.errors import UserError
from genbench.families import perceptual
from genbench.families.base import Networks
from genbench.networks import perceptual as networks
from genbench.training import runs

SPEC = DataSpec('images', (8, 8, 3), levels=5)
STAGES = ((3, 1), (4, 2), (5, 1))
SIZES = {'channels': 8, 'multipliers': (1,), 'groups': 4}
WEIGHT, SCALE = 0.7, 0.3


def write(path, tensors):
    """Float32 tensors as a safetensors file, by the format's description; its SHA-256."""
    header, begin = {}, 0
    for name, value in tensors.items():
        header[name] = {'dtype': 'F32', 'shape': value.shape, 'data_offsets': (begin, begin + value.nbytes)}
        begin += value.nbytes
    text = json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, 'little') + text + b''.join(map(np.ndarray.tobytes, tensors.values())))
    return hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.fixture(scope='module')
def files(tmp_path_factory):
    """(options of a family, tensors): small random weights under the names and in the layout of the published ones."""
    folder, draw = tmp_path_factory.mktemp('weights'), np.random.default_rng(0).normal
    vgg, place, inputs = {'classifier.0.weight': np.zeros((2, 3), 'f4')}, 0, 3
    for channels, depth in STAGES:
        for _ in range(depth):
            vgg[f'features.{place}.weight'] = draw(0, (9 * inputs) ** -0.5, (channels, inputs, 3, 3)).astype('f4')
            vgg[f'features.{place}.bias'] = draw(0, 0.1, channels).astype('f4')
            place, inputs = place + 2, channels
        place += 1
    linear = {f'lin{i}.model.1.weight': np.abs(draw(size=(1, n, 1, 1))).astype('f4') for i, (n, _) in enumerate(STAGES)}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(perceptual, 'STAGES', STAGES)
        patch.setattr(perceptual, 'SMALLEST', 4)
        patch.setattr(networks, 'VGG_SHA256', write(folder / 'vgg16.safetensors', vgg))
        patch.setattr(networks, 'LINEAR_SHA256', write(folder / 'linear.safetensors', linear))
        options = {'perceptual_vgg': str(folder / 'vgg16.safetensors'),
                   'perceptual_linear': str(folder / 'linear.safetensors'), 'perceptual_weight': WEIGHT}  # fmt: skip
        yield options, {**vgg, **linear}


def make(name='vq_gan', **options):
    own = {'vq_gan': {'codes': 8}, 'kl_autoencoder': {'latent_channels': 2, 'beta': 0.01}}[name]
    resolved = config.resolve({
        'family': {'name': name, 'observation_scale': SCALE, 'discriminator_channels': 4, **own, **options},
        'network': SIZES, 'train': {'batch_size': 4},
    })  # fmt: skip
    return families.get(name)(resolved, SPEC)


def lpips(tensors, x, y):
    """Zhang et al. 2018, equation 1, with images in [−1, 1] (height, width, channels), in double precision."""
    shift, scale = np.array([-0.030, -0.088, -0.188]), np.array([0.458, 0.448, 0.450])
    found = 0.0
    seen = [np.moveaxis((np.asarray(image, float) - shift) / scale, 2, 0) for image in (x, y)]
    place = 0
    for stage, (_, depth) in enumerate(STAGES):
        for _ in range(depth):
            kernel, bias = tensors[f'features.{place}.weight'].astype(float), tensors[f'features.{place}.bias']
            seen = [
                np.maximum(0, [sum(signal.correlate2d(plane, k, 'same') for plane, k in zip(one, row, strict=True)) + b
                               for row, b in zip(kernel, bias, strict=True)])
                for one in seen
            ]  # fmt: skip
            place += 2
        place += 1
        first, second = (one / (np.sqrt((one**2).sum(0)) + 1e-10) for one in seen)
        weight = tensors[f'lin{stage}.model.1.weight'].astype(float).reshape(-1, 1, 1)
        found += (weight * (first - second) ** 2).sum(0).mean()
        seen = [one.reshape(len(one), one.shape[1] // 2, 2, -1, 2).max((2, 4)) for one in seen]
    return found


@pytest.fixture(scope='module')
def built(files):
    """(family, its networks, batch, loss and parts at steps 0 and 10, gradients of the loss at step 0)."""
    family = make('kl_autoencoder', adversarial_start=10, discriminator_layers=1, **files[0])
    images = jax.random.randint(jax.random.key(0), (4, *SPEC.shape), 0, 5)
    batch = {'image': images, 'key': jax.random.split(jax.random.key(1), 4)}

    modules = Networks(family.networks(nnx.Rngs(0)))
    family.initialise(modules, batch, jax.random.key(2))

    def score(variables, step):
        return family.loss(Networks(holding(modules, variables)), batch, jax.random.key(3), step)

    program, own = jax.jit(jax.value_and_grad(score, has_aux=True)), trained(family, modules)
    (early, slopes), (late, _) = (program(own, step) for step in (0, 10))
    return family, modules, batch, (early, late, slopes)


def trained(family, modules):
    return {name: nnx.state(modules[name], nnx.Param) for name in family.trained}


def holding(modules, variables):
    """Copies of the modules with these parameters."""
    held = {name: nnx.clone(module) for name, module in modules.items()}
    for name, values in variables.items():
        nnx.update(held[name], values)
    return held


@pytest.fixture(scope='module')
def by_brute_force(built):
    """(x̂, gradient of the whole loss, norms of two gradients at the last kernel), without any shortcut."""
    family, modules, batch, _ = built

    def parts(variables):
        held = Networks(holding(modules, variables))
        loss, _, (_, h, x) = family._losses(held, batch, jax.random.key(3), 0)
        centres, b = (batch['image'] + 0.5) / 2.5 - 1, jnp.exp(held['scale'].log[...])
        cost = WEIGHT * held['perceptual'](h[..., 0], centres).mean() / b / math.log(2)
        nll = -family.observation.log_prob(h, x).mean() / (SPEC.num_dims * math.log(2))
        return (loss + cost, nll + cost, -held['discriminator'](h[..., 0]).mean()), h[..., 0]

    @jax.jit
    def run(own):
        found, pull, shown = jax.vjp(parts, own, has_aux=True)
        slopes = [pull(tuple(jnp.eye(3)[row]))[0] for row in range(3)]
        return shown, slopes[0], [jnp.linalg.norm(one['decoder']['conv_out']['kernel'][...]) for one in slopes[1:]]

    return run(trained(family, modules))


def test_the_distance_is_that_of_the_paper_and_enters_beside_the_absolute_one(built, files, by_brute_force):
    family, _, batch, ((early, told), _, _) = built
    shown = by_brute_force[0]
    wanted = np.mean([lpips(files[1], x, (image + 0.5) / 2.5 - 1)
                      for x, image in zip(np.asarray(shown), np.asarray(batch['image']), strict=True)])  # fmt: skip
    assert told['perceptual'] == pytest.approx(wanted, rel=1e-4) and wanted > 1e-3
    assert early - told['loss'] == pytest.approx(WEIGHT * wanted / SCALE / math.log(2), rel=1e-3)


def test_its_gradient_reaches_the_autoencoder_alone_and_is_that_of_the_sum(built, by_brute_force):
    family, modules, _, (_, _, slopes) = built
    for found, wanted in zip(*map(jax.tree.leaves, (slopes, by_brute_force[1])), strict=True):
        np.testing.assert_allclose(found, wanted, atol=2e-5 * float(jnp.abs(wanted).max()) + 1e-7)
    moved = {name for update in family.updates for name in update.networks}
    assert moved == {*family.trained, 'discriminator'} and not nnx.state(modules['perceptual'], nnx.Param)


def test_the_weight_is_a_ratio_of_two_norms_with_the_distance_in_the_first(built, by_brute_force):
    _, _, _, (_, (late, told), _) = built
    reconstruction, generator = by_brute_force[2]
    assert told['weight'] == pytest.approx(float(reconstruction / (generator + 1e-4)), rel=1e-3)


def test_a_run_keeps_the_weights_and_tells_of_them(files, tmp_path, capsys):
    options, tensors = files
    small = ['family.codes=8', 'family.discriminator_channels=4', 'network.channels=8', 'network.multipliers=(1,)',
             'train.num_steps=2', 'train.batch_size=4', 'train.sample_every=0']  # fmt: skip
    path = tmp_path / 'config.py'
    path.write_text('def get_config():\n    return {"family": {"name": "vq_gan"}, "data": {"name": "digits"}}\n')
    words = [f'--config.{one}' for one in (*small, *(f'family.{key}={value}' for key, value in options.items()))]
    run = tmp_path / 'run'
    assert cli.main(['train', f'--config={path}', f'--workdir={run}', *words]) == 0, capsys.readouterr().err
    held = runs.open_run(str(run)).restore()[1]['aux']['perceptual']
    np.testing.assert_array_equal(held['linear'][1], tensors['lin1.model.1.weight'].reshape(-1))
    np.testing.assert_array_equal(held['convolutions']['features']['0']['weight'], tensors['features.0.weight'])
    assert runs.open_run(str(run)).manifest['notes']['perceptual distance'].startswith('LPIPS 0.1, VGG16')


def test_jumps_are_compared_as_enlarged_images(files):
    """Enlarged to eight pixels a side by a matrix with the rows of bilinear interpolation between pixels' centres."""
    options, tensors = files
    spec = DataSpec('images', (4, 4, 3), levels=5)
    own = {'name': 'consistency_training', **options}
    family = families.get('consistency_training')(config.resolve({'family': own}), spec)
    assert family.enlarged == 224 and family.notes['perceptual distance'].startswith('LPIPS')
    family.perceptual = perceptual.Perceptual(options['perceptual_vgg'], options['perceptual_linear'], side=8)
    held = Networks({'perceptual': networks.LPIPS(STAGES)})
    family.perceptual.start(held)
    x, y = np.random.default_rng(1).normal(size=(2, 2, 4, 4, 3)).astype('f4')
    centres = (np.arange(8) + 0.5) / 2 - 0.5
    rows = np.array([np.interp(centres, range(4), one) for one in np.eye(4)])
    large = [np.einsum('yh,xw,nyxc->nhwc', rows, rows, images) for images in (x, y)]
    wanted = [WEIGHT * lpips(tensors, *pair) for pair in zip(*large, strict=True)]
    np.testing.assert_allclose(family.apart(held, x, y), wanted, rtol=1e-4)


def test_without_weights_there_is_no_distance_and_the_manifest_says_so():
    family = make()
    assert family.notes == {'perceptual distance': 'none'}
    assert 'perceptual' not in nnx.eval_shape(lambda: family.networks(nnx.Rngs(0)))


def test_bad_weights_are_one_line(files, tmp_path):
    options, tensors = files
    spec = DataSpec('images', (2, 2, 3), levels=5)
    with pytest.raises(UserError, match=r'needs two files, but family.perceptual_linear is empty'):
        make(**{**options, 'perceptual_linear': ''})
    with pytest.raises(UserError, match='at least 4 pixels a side, but these are 2×2 with 3 channels'):
        perceptual.make(make(**options).config.family, spec)
    for text, message in {
        str(tmp_path / 'gone.pth'): r'gone.pth \(family.perceptual_vgg\) cannot be read: No such file',
        options['perceptual_linear']: r'family.perceptual_vgg\) has the sha256 .* use the published file',
    }.items():
        with pytest.raises(UserError, match=message):
            perceptual.Perceptual(text, options['perceptual_linear']).start({})


def test_weights_of_another_network_are_one_line(files, tmp_path, monkeypatch):
    options, tensors = files
    other = {name: value for name, value in tensors.items() if name.startswith('features.') and '.0.' not in name}
    monkeypatch.setattr(networks, 'VGG_SHA256', write(tmp_path / 'other.safetensors', other))
    with pytest.raises(UserError, match='has no tensor features.0.*so it does not belong to this network'):
        perceptual.Perceptual(str(tmp_path / 'other.safetensors'), options['perceptual_linear']).start({})

"""What users of other tools bring to `genbench metrics`: features, moments, references of ADM, mixed folders."""

import json

import numpy as np
import pytest
from PIL import Image

from genbench import cli, evaluation
from genbench.data import opening
from genbench.data.recipe import Recipe
from genbench.errors import UserError
from genbench.evaluation import standalone
from genbench.evaluation.features import inception, network, weights
from genbench.evaluation.inputs import Options
from genbench.evaluation.scoring import Settings
from genbench.evaluation.standalone import compare, save_moments

QUIET = Options(quiet=True)
PIXELS = Options(features='pixels', quiet=True)
RNG = np.random.default_rng(0)
X, Y = RNG.normal(size=(40, 6)), RNG.normal(size=(50, 6)) + 0.5
IMAGES, OTHERS = (RNG.integers(0, 256, (count, 4, 4, 3), np.uint8) for count in (30, 24))


@pytest.fixture
def files(tmp_path):
    """`files(name=array, …)` → their paths as text."""

    def write(**arrays):
        for name, array in arrays.items():
            np.save(tmp_path / f'{name}.npy', array)
        return [str(tmp_path / f'{name}.npy') for name in arrays]

    return write


def values(rows):
    return {row['metric']: row['value'] for row in rows}


def distance(x, y):
    return evaluation.frechet_distance(*evaluation.moments(x), *evaluation.moments(y))


def test_arrays_of_features_need_no_network(files):
    rows = compare(*files(x=X, y=Y), None, Options(features='clip-vit-b32', quiet=True))
    assert list(values(rows)) == ['fd', 'kd', 'precision', 'recall', 'density', 'coverage']
    assert values(rows)['fd'] == pytest.approx(distance(X, Y), rel=1e-9)
    assert values(rows)['kd'] == pytest.approx(evaluation.kernel_distance(Y, X)[0], rel=1e-9)
    assert rows[0]['features'] == 'clip-vit-b32' and rows[0]['protocol']['images']['from'] == 'features'


def test_several_samples_are_compared_in_one_call(files, tmp_path, capsys):
    x, z, y = files(x=X, z=X * 2, y=Y)
    assert cli.main(['metrics', x, z, y, '--metrics=fd', f'--json={tmp_path / "all.json"}']) == 0
    rows = json.loads((tmp_path / 'all.json').read_text())['rows']
    assert [(row['samples'], row['value']) for row in rows] == [
        (x, pytest.approx(distance(X, Y))), (z, pytest.approx(distance(X * 2, Y))),
    ]  # fmt: skip
    out = capsys.readouterr().out
    assert f'{x}:' in out and f'{z}:' in out


def test_two_files_of_moments_are_compared(files, tmp_path):
    x, y = files(x=X, y=Y)
    save_moments(x, str(tmp_path / 'mx.npz'), QUIET)
    np.savez(tmp_path / 'my.npz', **dict(zip(('mu', 'sigma'), evaluation.moments(Y), strict=True)))
    (row,) = compare(str(tmp_path / 'mx.npz'), str(tmp_path / 'my.npz'), None, QUIET)
    assert row['metric'] == 'fd' and row['n'] == 40 and row['value'] == pytest.approx(distance(X, Y), rel=1e-9)
    with pytest.raises(UserError, match='kd needs images or features, but .* has only moments'):
        compare(str(tmp_path / 'mx.npz'), y, ['kd'], QUIET)
    with pytest.raises(UserError, match='cannot be split into 2 sets'):
        compare(str(tmp_path / 'mx.npz'), y, ['fd'], Options(quiet=True, sets=2))


def test_features_and_images_are_not_compared(files):
    with pytest.raises(UserError, match='x.npy has features, but .*a.npy has images'):
        compare(*files(x=X, a=IMAGES), ['fd'], PIXELS)


def adm(tmp_path, whole, shown):
    """A reference as ADM publishes it: moments of the whole set beside fewer images."""
    mu, sigma = evaluation.moments(whole.reshape(len(whole), -1) / 255)
    path = tmp_path / 'VIRTUAL_reference.npz'
    np.savez(path, arr_0=shown, mu=mu, sigma=sigma, mu_s=np.ones(3), sigma_s=np.eye(3))
    return str(path)


def test_a_reference_of_adm_gives_moments_and_images(files, tmp_path):
    (samples,) = files(a=IMAGES)
    rows = compare(samples, adm(tmp_path, OTHERS, OTHERS[:15]), ['fd', 'pr'], PIXELS)
    flat, shown = IMAGES.reshape(30, -1) / 255, OTHERS[:15].reshape(15, -1) / 255
    assert values(rows)['fd'] == pytest.approx(distance(flat, OTHERS.reshape(24, -1) / 255), rel=1e-5)
    precision, recall = evaluation.precision_recall(shown, flat)
    assert (values(rows)['precision'], values(rows)['recall']) == (precision, recall)
    assert rows[0]['protocol']['reference']['images']['n'] == 15
    from genbench.evaluation import saved_moments

    assert saved_moments.read(adm(tmp_path, OTHERS, OTHERS), ['spatial']).moments['spatial'][0].shape == (3,)


def test_moments_serve_where_moments_are_asked_and_spatial_ones_are_not_of_features(files, tmp_path):
    path = adm(tmp_path, OTHERS, OTHERS[:15])
    (row,) = compare(path, path, None, QUIET)
    assert (row['metric'], row['value']) == ('fd', pytest.approx(0, abs=1e-9))
    x, y = files(x=X, y=Y)
    with pytest.raises(UserError, match="sfd needs the output 'spatial'"):
        compare(x, y, ['sfd'], QUIET)
    save_moments(y, str(tmp_path / 'my.npz'), QUIET)
    with pytest.raises(UserError, match='contains moments, but images are needed'):
        compare(x, y, ['c2st'], QUIET, held_out=str(tmp_path / 'my.npz'))


def averaged(image):
    """Any size to one colour, as a network that resizes."""
    return np.broadcast_to(image.mean((0, 1), keepdims=True), (2, 2, 3)).astype(np.float32)


def test_images_of_several_sizes_are_each_resized_alone(files, tmp_path, monkeypatch):
    def apply(params, images):
        return {'features': images.mean((1, 2))}

    resizing = network.make('means', apply, (), {}, batch_size=8, alone=averaged)
    monkeypatch.setattr(standalone, 'open_network', lambda options: resizing)
    folder = tmp_path / 'mixed'
    folder.mkdir()
    for index, image in enumerate(IMAGES):
        Image.fromarray(image[: 2 + index % 3]).save(folder / f'{index:02d}.png')
    (b,) = files(b=OTHERS)
    (row,) = compare(str(folder), b, ['fd'], Options(quiet=True, cache=False))
    means = np.stack([image[: 2 + index % 3].mean((0, 1)) for index, image in enumerate(IMAGES)])
    assert row['value'] == pytest.approx(distance(means, OTHERS.mean((1, 2))), rel=1e-4)
    assert 'each image resized by itself' in row['protocol']['images']['sizes']
    monkeypatch.undo()
    with pytest.raises(UserError, match='several sizes .00.png 4×2 and 01.png 4×3., and pixels does not resize'):
        compare(str(folder), b, ['fd'], PIXELS)


@pytest.mark.parametrize('convention', list(inception.CONVENTIONS))
def test_an_image_resized_alone_is_resized_as_in_a_batch(convention):
    image = RNG.integers(0, 256, (40, 33, 3), np.uint8)
    alone = inception.alone(image, convention)
    together = np.asarray(inception.scaled(image[None], convention))[0]
    np.testing.assert_allclose(np.asarray(inception.scaled(alone[None], convention))[0], together, atol=2e-5)


OWN = """
import numpy as np

WEIGHTS = 'means of colours, version 2'

def means(images):
    return images.astype(float).mean((1, 2))

def flat(images):
    return images.mean()

def broken(images):
    raise ValueError('no network here')
"""


def test_a_network_of_the_users_own_is_named_in_the_protocol(files, tmp_path):
    (tmp_path / 'own.py').write_text(OWN)
    a, b = files(a=IMAGES, b=OTHERS)
    (row,) = compare(a, b, ['fd'], Options(features=f'{tmp_path / "own.py"}:means', quiet=True, batch_size=7))
    assert row['value'] == pytest.approx(distance(IMAGES.mean((1, 2)), OTHERS.mean((1, 2))), rel=1e-5)
    said = row['protocol']['features']
    assert (said['features'], said['weights']) == ('own.py:means', 'means of colours, version 2')
    assert len(said['file_sha256']) == 16


@pytest.mark.parametrize(
    ('name', 'words'),
    [('own.py:flat', 'returned float64'), ('own.py:broken', 'ValueError: no network here'),
     ('own.py:absent', 'does not define absent'), ('other.py:means', 'There is no feature network')],
)  # fmt: skip
def test_one_that_does_not_work_is_one_line(files, tmp_path, capsys, name, words):
    (tmp_path / 'own.py').write_text(OWN)
    assert cli.main(['metrics', *files(a=IMAGES, b=OTHERS), '--metrics=fd', f'--features={tmp_path / name}']) == 2
    (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith('genbench')]
    assert words in line


def test_features_are_kept_by_what_the_images_hold(files, tmp_path, monkeypatch):
    monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path / 'cache'))
    asked = []

    def apply(params, images):
        return {'features': images.reshape(len(images), -1) / 1.0}

    made = network.make('counted', apply, (), {}, batch_size=64)
    extract = network.FeatureNetwork.extract
    monkeypatch.setattr(standalone, 'open_network', lambda options: made)
    monkeypatch.setattr(network.FeatureNetwork, 'extract', lambda *a, **k: asked.append(len(a[1])) or extract(*a, **k))
    a, b, c, d = files(a=IMAGES, b=OTHERS, c=IMAGES, d=IMAGES[::-1])
    first = compare(a, b, ['fd', 'kd'], QUIET)
    assert sum(asked) == 54
    assert compare(c, b, ['fd', 'kd'], QUIET) == first and sum(asked) == 54  # the same images under another name
    compare(d, b, ['fd'], Options(quiet=True, cache=False))
    assert sum(asked) == 108


def test_parameters_of_metrics_reach_them_and_their_protocol(files):
    settings = Settings(kernel_subsets=3, kernel_subset_size=10, neighbours=1, density_neighbours=2, slices=5)
    rows = compare(*files(x=X, y=Y), ['kd', 'pr', 'dc', 'swd'], Options(quiet=True, settings=settings))
    assert values(rows)['kd'] == pytest.approx(evaluation.kernel_distance(Y, X, subsets=3, subset_size=10)[0])
    assert values(rows)['precision'] == evaluation.precision_recall(Y, X, 1)[0]
    assert values(rows)['coverage'] == evaluation.density_coverage(Y, X, 2)[1]
    assert values(rows)['sliced_wasserstein'] == evaluation.sliced_wasserstein(Y, X, slices=5)[0]
    said = {row['metric']: row['protocol'] for row in rows}
    assert (said['kd']['subsets'], said['kd']['subset_size'], said['precision']['neighbours']) == (3, 10, 1)
    assert (said['density']['neighbours'], said['sliced_wasserstein']['slices']) == (2, 5)


def test_fld_is_of_samples_against_train_and_held_out_images(files):
    samples, train, test = files(x=X, y=Y, z=X[::-1] + 1)
    (row,) = compare(samples, train, ['fld'], QUIET, held_out=test)
    value, parts = evaluation.feature_likelihood_divergence(Y, X[::-1] + 1, X)
    assert row['value'] == pytest.approx(value)
    assert row['details'] == {name: [pytest.approx(part)] for name, part in parts.items()}
    with pytest.raises(UserError, match='fld also needs held-out real images'):
        compare(samples, train, ['fld'], QUIET)


def test_a_prepared_folder_is_an_input(files, tmp_path):
    folder = tmp_path / 'photos' / 'train'
    folder.mkdir(parents=True)
    for index, image in enumerate(IMAGES):
        Image.fromarray(image).save(folder / f'{index:02d}.png')
    recipe = Recipe(size=(4, 4), test_share=0.2)
    name = opening.named(f'folder:{tmp_path / "photos"}', str(tmp_path / 'kept'), recipe)
    (b,) = files(b=OTHERS)
    options = Options(features='pixels', quiet=True, recipe=recipe, data_dir=str(tmp_path / 'kept'))
    with pytest.raises(UserError, match='is not prepared'):
        compare(f'folder:{tmp_path / "photos"}:train', b, ['fd'], options)
    opening.prepare(name, 1)
    (row,) = compare(f'folder:{tmp_path / "photos"}:train', b, ['fd'], options)
    assert row['protocol']['images']['from'] == 'folder' and row['protocol']['images']['split'] == 'train'
    assert row['n'] + len(list(standalone.inputs.images.data_set(
        f'folder:{tmp_path / "photos"}:test', str(tmp_path / 'kept'), recipe).batches())[0]) == 30  # fmt: skip


def test_weights_in_the_cache_of_torch_are_recognised_by_their_hash(tmp_path, monkeypatch):
    monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path))
    monkeypatch.delenv('TORCH_HOME', raising=False)
    digest = '2c26b46b68ffc68ff99b453c1d30413413422d706483bfa0f98a5e886266e7ae'  # of the three letters foo
    published = weights.Published('some weights', 'http://nowhere.invalid/own.pth', digest, ('theirs.pth',))
    hub = tmp_path / 'torch' / 'hub' / 'checkpoints'
    hub.mkdir(parents=True)
    (hub / 'own.pth').write_text('other')  # of this name, but another file
    (hub / 'theirs.pth').write_text('foo')
    assert weights.find(published).path == hub / 'theirs.pth'

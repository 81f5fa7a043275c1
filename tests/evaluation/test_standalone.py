"""`genbench metrics`: the same number from whatever holds the images, with all it depends on, or one clear line."""

import json

import numpy as np
import pytest
from PIL import Image

from genbench import cli, evaluation
from genbench.errors import UserError
from genbench.evaluation import harness, standalone
from genbench.evaluation.standalone import Options, compare, save_moments
from genbench.training.metrics import read_rows

PIXELS = Options(features='pixels', quiet=True, batch_size=16)


def drawn(seed, count=60, shape=(4, 4, 3)):
    return np.random.default_rng(seed).integers(0, 256, (count, *shape), np.uint8)


@pytest.fixture
def sets(tmp_path):
    """Paths of two arrays of images, samples and reference."""
    np.save(tmp_path / 'a.npy', drawn(0))
    np.save(tmp_path / 'b.npy', drawn(1, 80))
    return str(tmp_path / 'a.npy'), str(tmp_path / 'b.npy')


def values(rows):
    return {row['metric']: row['value'] for row in rows}


def test_the_distance_is_that_of_the_pixels(sets):
    (row,) = compare(*sets, ['fd'], PIXELS)
    a, b = (evaluation.moments(drawn(seed, count).reshape(count, -1) / 255) for seed, count in ((0, 60), (1, 80)))
    assert row['value'] == pytest.approx(evaluation.frechet_distance(*a, *b), rel=1e-5)
    assert (row['metric'], row['kind'], row['n']) == ('fd', 'distance', 60)


def test_folders_and_arrays_give_the_same_numbers_and_images(sets, tmp_path):
    (tmp_path / 'a').mkdir()
    for index, image in enumerate(drawn(0)):
        Image.fromarray(image).save(tmp_path / 'a' / f'{index:03d}.png')
    np.savez(tmp_path / 'a.npz', images=drawn(0))
    names = ['fd', 'kd', 'pr', 'dc']
    rows = [compare(str(tmp_path / a), sets[1], names, PIXELS) for a in ('a.npy', 'a', 'a.npz')]
    assert values(rows[0]) == values(rows[1]) == values(rows[2])
    assert len({row[0]['protocol']['images']['images_sha256'] for row in rows}) == 1


def test_the_batch_size_changes_nothing(sets):
    rows = [
        compare(*sets, ['fd', 'kd', 'pr'], Options(features='pixels', quiet=True, batch_size=size)) for size in (7, 64)
    ]
    assert values(rows[0]) == pytest.approx(values(rows[1]), rel=1e-6)
    assert rows[0][0]['protocol_hash'] == rows[1][0]['protocol_hash']


def test_saved_moments_stand_for_their_images(sets, tmp_path):
    save_moments(sets[1], str(tmp_path / 'ref.npz'), PIXELS)
    (there,) = compare(sets[0], str(tmp_path / 'ref.npz'), ['fd'], PIXELS)
    (here,) = compare(*sets, ['fd'], PIXELS)
    assert there['value'] == pytest.approx(here['value'], rel=1e-9)
    assert there['protocol_hash'] == here['protocol_hash']


def test_published_moments_are_read_and_said_to_be_so(sets, tmp_path):
    mu, sigma = evaluation.moments(drawn(1, 80).reshape(80, -1) / 255)
    np.savez(tmp_path / 'ref.npz', mu=mu, sigma=sigma)
    (row,) = compare(sets[0], str(tmp_path / 'ref.npz'), ['fd'], PIXELS)
    assert row['value'] == pytest.approx(compare(*sets, ['fd'], PIXELS)[0]['value'], rel=1e-5)
    assert 'unknown' in row['protocol']['reference']['from']


def test_sets_give_mean_and_standard_deviation(sets):
    options = Options(features='pixels', quiet=True, sets=3)
    (row,) = compare(*sets, ['fd'], options)
    assert (row['n'], len(row['values'])) == (20, 3)
    assert row['value'] == pytest.approx(np.mean(row['values']))
    assert row['sd'] == pytest.approx(np.std(row['values'], ddof=1))
    assert row['sd'] > 0


def test_the_json_holds_the_rows_with_their_protocol(sets, tmp_path):
    rows = compare(*sets, ['fd'], PIXELS, out=str(tmp_path / 'out' / 'x.json'))
    stored = json.loads((tmp_path / 'out' / 'x.json').read_text())
    assert stored['rows'] == rows
    protocol = rows[0]['protocol']
    assert protocol['reference']['n'] == 80 and protocol['features'] and protocol['images']['n'] == 60


def test_a_data_set_against_itself_is_no_distance():
    rows = values(compare('tfds:digits:test', 'tfds:digits:test', ['fd', 'pr'], PIXELS))
    assert rows['fd'] == pytest.approx(0, abs=1e-6)
    assert (rows['precision'], rows['recall']) == (1, 1)


def test_a_run_is_scored_as_evaluate_scores_it(diffusion_copy):
    changes = ['evaluation.metrics=fd_train', 'evaluation.features.name=pixels', 'evaluation.sets=1']
    harness.evaluate(diffusion_copy, changes, quiet=True)
    (evaluated,) = read_rows(diffusion_copy / 'results.jsonl')
    (row,) = compare(str(diffusion_copy), 'tfds:digits:train', ['fd'], Options(features='pixels', quiet=True))
    assert row['value'] == pytest.approx(evaluated['value'], rel=1e-5)
    assert row['protocol']['images']['sampler'] == evaluated['protocol']['sampler']


def test_memorised_samples_are_told_from_fresh_ones(tmp_path):
    rng = np.random.default_rng(0)
    train, test, fresh = (rng.integers(0, 256, (200, 3, 3, 1), np.uint8) for _ in range(3))
    for name, images in (('train', train), ('test', test), ('fresh', fresh), ('copied', train[::2])):
        np.save(tmp_path / f'{name}.npy', images)
    scored = {
        name: values(
            compare(
                str(tmp_path / f'{name}.npy'),
                str(tmp_path / 'train.npy'),
                ['memorisation', 'c2st'],
                PIXELS,
                held_out=str(tmp_path / 'test.npy'),
            )  # fmt: skip
        )
        for name in ('fresh', 'copied')
    }
    assert scored['copied']['authenticity'] < 0.05 < scored['fresh']['authenticity']
    assert scored['fresh']['two_sample_accuracy'] == pytest.approx(0.5, abs=0.1)


def few(tmp_path):
    np.save(tmp_path / 'a.npy', drawn(0, 3))


def one(tmp_path):
    np.save(tmp_path / 'a.npy', drawn(0, 1))


def other_size(tmp_path):
    np.save(tmp_path / 'a.npy', drawn(0, shape=(5, 5, 3)))


def other_dimension(tmp_path):
    np.savez(tmp_path / 'b.npz', mu=np.zeros(7), sigma=np.eye(7))


def bad_moments(tmp_path):
    np.savez(tmp_path / 'b.npz', mu=np.zeros(48), sigma=np.eye(7))


def own_moments(tmp_path):
    save_moments(str(tmp_path / 'b.npy'), str(tmp_path / 'b.npz'), PIXELS)


def other_protocol(tmp_path):
    own_moments(tmp_path)
    stored = dict(np.load(tmp_path / 'b.npz'))
    saved = json.loads(str(stored['protocol']))
    saved['features']['features'] = 'inception'
    np.savez(tmp_path / 'b.npz', **{**stored, 'protocol': json.dumps(saved)})


def nothing(tmp_path):
    pass


@pytest.mark.parametrize(
    ('spoil', 'reference', 'metrics', 'words'),
    [
        (few, 'b.npy', 'pr', 'at least'),
        (one, 'b.npy', 'fd', 'at least 2'),
        (one, 'b.npy', 'fd,kd', 'at least 2'),
        (other_size, 'b.npy', 'fd', 'features of A have 75 dimensions and those of B 48'),
        (other_dimension, 'b.npz', 'fd', 'features of A have 48 dimensions and those of B 7'),
        (bad_moments, 'b.npz', 'fd', r'are not a mean \(d,\) and a covariance'),
        (other_protocol, 'b.npz', 'fd', 'moments of another protocol: features is .inception'),
        (own_moments, 'b.npz', 'kd', 'kd needs the reference images'),
        (nothing, 'b.npy', 'fid', '2015 Inception .* use fd'),
        (nothing, 'b.npy', 'sfd', "needs the output 'spatial'"),
        (nothing, 'b.npy', 'memorisation', '--held-out'),
        (nothing, 'b.npy', 'fdd', "There is no metric 'fdd'.*Did you mean fd"),
        (nothing, 'c.npy', 'fd', 'There is no .*c.npy'),
    ],
)
def test_what_cannot_be_scored_says_why(sets, tmp_path, spoil, reference, metrics, words):
    spoil(tmp_path)
    with pytest.raises(UserError, match=words):
        compare(sets[0], str(tmp_path / reference), metrics.split(','), PIXELS)


def test_the_verb_prints_a_table_and_ends_with_zero(sets, capsys):
    assert cli.main(['metrics', *sets, '--metrics=fd,pr', '--features=pixels']) == 0
    out = capsys.readouterr().out
    assert 'fd' in out and 'precision' in out and 'features: pixels' in out


@pytest.mark.parametrize(
    'words',
    [
        ['metrics', '{a}', '{b}', '--features=inceptoin'],
        ['metrics', '{a}', '{b}', '--features=pixels', '--metrics=fd', '--sets=0'],
        ['metrics', '{a}', '{b}', '--features=pixels', '--metrics=fd', '--sets=50'],
        ['metrics', 'moments', '{a}', '--features=pixels'],
        ['metrics', 'moments', '{a}', '--features=pixels', '--out=x.png'],
        ['metrics', '{a}', '{b}', '--features=classifier', '--metrics=fd'],
        ['metrics', 'tfds:digits:tset', '{b}', '--features=pixels', '--metrics=fd'],
    ],
)
def test_a_mistake_is_one_line_and_status_2(sets, capsys, words):
    filled = [word.format(a=sets[0], b=sets[1]) for word in words]
    assert cli.main(filled) == 2
    (line,) = [line for line in capsys.readouterr().err.splitlines() if 'image ' not in line]
    assert line.startswith('genbench: ')


def test_a_place_that_cannot_be_written_is_said_before_the_work(sets, tmp_path, monkeypatch):
    monkeypatch.setattr(standalone, 'open_network', lambda options: pytest.fail('too late'))
    (tmp_path / 'file').write_text('')
    with pytest.raises(UserError, match='cannot be written'):
        compare(*sets, ['fd'], PIXELS, out=str(tmp_path / 'file' / 'x.json'))


def test_one_held_out_image_has_no_standard_error(diffusion_copy):
    with pytest.raises(UserError, match='ais has one image of test.:1., so there is no standard error'):
        harness.evaluate(diffusion_copy, ['evaluation.metrics=likelihood', 'evaluation.split=test[:1]'], quiet=True)


@pytest.mark.parametrize('missing', ['a', 'b', 'held'])
def test_a_folder_that_is_not_there_is_said_before_weights_are_fetched(tmp_path, monkeypatch, missing):
    def fetch(*_, **__):
        raise AssertionError('weights were fetched')

    monkeypatch.setattr(standalone.features, 'get', fetch)
    places = {name: str(tmp_path / name) for name in ('a', 'b', 'held')}
    for name in places:
        if name != missing:
            np.save(tmp_path / f'{name}.npy', np.zeros((4, 8, 8, 1), np.uint8))
            places[name] += '.npy'
    with pytest.raises(UserError, match=f"There is no '{places[missing]}'"):
        standalone.compare(places['a'], places['b'], ['fd'], standalone.Options(), held_out=places['held'])

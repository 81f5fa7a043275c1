"""What a checkpoint's exploration shows is what its sampler does, from noise and from real images."""

import json
import shutil
import types

import jax
import numpy as np
import pytest
from PIL import Image

from genbench import families
from genbench.errors import UserError
from genbench.evaluation import exploration, harness
from genbench.families.base import Sampler
from genbench.training.state import Blueprint

OPTIONS = ['evaluation.metrics=fd,exploration', 'evaluation.samplers=ddim:1,ddim:6', 'evaluation.num_samples=64']


@pytest.fixture(scope='module')
def explored(diffusion_run, tmp_path_factory):
    """A tiny diffusion run, its exploration, and what exploration.json says."""
    folder = tmp_path_factory.mktemp('explored') / 'diffusion'
    shutil.copytree(diffusion_run, folder)
    harness.evaluate(folder, OPTIONS, quiet=True)
    return folder, json.loads((folder / 'exploration' / 'exploration.json').read_text())


def sprite(folder, name):
    """Cells (rows, columns, 8, 8) of a picture of digits."""
    picture = np.asarray(Image.open(folder / 'exploration' / f'{name}.png'))
    return picture.reshape(picture.shape[0] // 8, 8, picture.shape[1] // 8, 8).swapaxes(1, 2)


def test_a_trace_is_that_of_the_longest_sampler_with_its_schedule(explored):
    folder, index = explored
    denoising = index['denoising']
    assert (denoising['sampler'], denoising['steps']) == ('ddim', 6)
    assert denoising['kept'] == list(range(7))
    np.testing.assert_allclose(np.square(denoising['alpha']) + np.square(denoising['sigma']), 1, atol=1e-5)
    snr = denoising['log_snr']
    assert snr[-1] is None and snr[:-1] == sorted(snr[:-1])  # no noise is left at the end
    assert sprite(folder, 'generation_states').shape[:2] == (7, 8)
    assert sprite(folder, 'generation_predictions').shape[:2] == (6, 8)


def test_the_last_step_of_a_deterministic_sampler_ends_in_its_prediction(explored):
    folder, _ = explored
    states, predictions = sprite(folder, 'generation_states'), sprite(folder, 'generation_predictions')
    np.testing.assert_array_equal(states[-1], predictions[-1])


def test_reconstructions_begin_with_noisy_images_of_the_split_and_the_less_the_noise_the_nearer_they_end(explored):
    folder, index = explored
    targets = sprite(folder, 'targets')[0].astype(float)
    places = index['denoising']['reconstructions']
    states = {place: sprite(folder, f'reconstruction_{place}_states').astype(float) for place in places}
    assert places == sorted(places) and len(places) == 3
    assert all(len(states[place]) == 7 - place for place in places)
    errors = [np.abs(states[place][0] - targets).mean() for place in places]
    assert errors == sorted(errors, reverse=True)


def test_a_second_evaluation_of_the_same_checkpoint_draws_nothing_again(explored):
    folder, _ = explored
    path = folder / 'exploration' / 'generation_states.png'
    before = path.stat().st_mtime_ns
    harness.evaluate(folder, [*OPTIONS, 'evaluation.sets=1'], quiet=True)
    assert path.stat().st_mtime_ns == before


@pytest.mark.parametrize('key', ['noise', 'format'])
def test_pictures_that_were_drawn_in_another_way_are_drawn_again(explored, key):
    folder, index = explored
    path = folder / 'exploration' / 'exploration.json'
    path.write_text(json.dumps({**index, key: {'noise': 'evaluation.seed', 'format': 2}[key]}))
    harness.evaluate(folder, OPTIONS, quiet=True)
    assert json.loads(path.read_text())[key] == index[key]


def test_what_traces_begin_with_depends_on_both_seeds_and_on_its_purpose(tiny, digits):
    def noise(seed, training, purpose):
        family = families.get('diffusion')(tiny('diffusion', f'train.seed={training}'), digits[0])
        sampler = Sampler('ddim', 6)
        return exploration.Explorer(Blueprint(family), {}, sampler, sampler, seed)._noise(purpose, (2, 2, 1))

    drawn = {noise(*numbers).tobytes() for numbers in np.ndindex(2, 2, 2)}
    assert len(drawn) == 8
    assert np.array_equal(noise(0, 1, 0), noise(0, 1, 0))


def test_neighbours_are_train_images_nearest_first(explored):
    folder, index = explored
    distances = np.array(index['neighbours']['distances'])
    assert distances.shape == (8, 3)
    assert (folder / 'exploration' / 'neighbours.png').is_file()
    assert (np.diff(distances, axis=1) >= 0).all()


def test_an_interpolation_has_its_rows_and_changes_along_them(explored):
    picture = np.asarray(Image.open(explored[0] / 'exploration' / 'interpolation.png'))
    cells = picture[2:, 2:].reshape(4, 42, 8, 42, 3).swapaxes(1, 2)  # forty pixels and a gap of two
    assert all((row[0] != row[-1]).any() for row in cells)


def test_pictures_are_of_the_sampler_with_the_lowest_distance(explored):
    folder, index = explored
    rows = [json.loads(line) for line in (folder / 'results.jsonl').read_text().splitlines()]
    distances = {row['protocol']['steps']: row['value'] for row in rows if row['metric'] == 'fd'}
    assert index['steps'] == min(distances, key=distances.get) and index['denoising']['steps'] == 6


def test_real_images_stand_beside(explored, digits):
    picture = np.asarray(Image.open(explored[0] / 'exploration' / 'real.png'))
    assert picture.size > 0 and picture.max() > 200


def test_images_and_rows_of_interpolations_have_noise_of_their_own(tiny, digits, monkeypatch):
    """What a stochastic sampler adds would else be the same, and its samples look alike."""
    used = []

    def trace(self, sampler, start, keys, given, first):
        used.append(np.asarray(jax.random.key_data(keys)))
        return np.zeros((7, 8, 8, 8, 1)), np.zeros((6, 8, 8, 8, 1))

    monkeypatch.setattr(exploration.Explorer, '_trace', trace)
    family = families.get('diffusion')(tiny('diffusion'), digits[0])
    blueprint = Blueprint(family)
    state = {part: jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), blueprint.shapes[part])
             for part in ('params', 'aux')}  # fmt: skip
    explorer = exploration.Explorer(blueprint, state, Sampler('ddim', 6), Sampler('ddim', 6), 0)
    real = types.SimpleNamespace(split=types.SimpleNamespace(rows=lambda _: {'image': np.zeros((8, 8, 8, 1), int)}))
    explorer._denoising({}, lambda *_: None, real)
    assert all(len(np.unique(keys, axis=0)) == 8 for keys in used)
    images, used[:] = used[0], []
    explorer._interpolation(lambda *_: None)
    assert all(len(np.unique(keys, axis=0)) == 1 for keys in used)  # along a row only the latent moves
    assert len(np.unique([*images, *(keys[0] for keys in used)], axis=0)) == 8 + len(used)


def test_a_great_circle_keeps_the_norm_and_its_ends():
    one, other = np.array([3.0, 0, 0]), np.array([0, 3.0, 0])
    points = exploration.slerp(one, other, np.linspace(0, 1, 5))
    np.testing.assert_allclose(np.linalg.norm(points, axis=1), 3, rtol=1e-6)
    np.testing.assert_allclose(points[[0, -1]], [one, other], atol=1e-6)
    np.testing.assert_allclose(exploration.slerp(one, one, np.array([0.3])), [one])


@pytest.mark.parametrize(('steps', 'best'), [((1, 50, 10), 50), ((1000, 50), 50), ((1000, 250), 250), ((1,), 1)])
def test_the_longest_sampler_that_is_not_very_long_is_followed(steps, best):
    assert exploration.chosen([Sampler('ddim', count) for count in steps]).num_steps == best


def test_a_name_near_it_is_told(diffusion_run):
    with pytest.raises(UserError, match='exploration'):
        harness.evaluate(diffusion_run, ['evaluation.metrics=fd,explorations'], quiet=True)

"""Points in the plane: what is drawn has the density that is stated, and only perceptrons are trained on it."""

import numpy as np
import pytest

from genbench import cli
from genbench.data import plane, sources

BUILDERS = {
    'ring': plane.Ring, 'grid': plane.Grid, 'checkerboard': plane.Checkerboard, 'two_moons': plane.TwoMoons,
    'pinwheel': plane.Pinwheel, 'swiss_roll': plane.SwissRoll,
}  # fmt: skip
ENTROPIES = {  # of modes that do not touch, and of squares
    'ring': np.log(8) + 1 + np.log(2 * np.pi * 0.008**2),
    'grid': np.log(25) + 1 + np.log(2 * np.pi * 0.01**2),
    'checkerboard': np.log(8 * 0.4**2),
}


def drawn(name, count=20_000):
    return BUILDERS[name].draw(np.random.default_rng(0), count)


@pytest.mark.parametrize('name', ENTROPIES)
def test_the_mean_log_density_of_draws_is_minus_the_entropy(name):
    found = plane.log_density(name, drawn(name)[0])
    assert found.mean() == pytest.approx(-ENTROPIES[name], abs=1e-9 + 5 * found.std() / np.sqrt(len(found)))


@pytest.mark.parametrize(
    ('name', 'centre'), [('ring', (0.8, 0.0)), ('grid', (0.4, 0.8)), ('checkerboard', (-0.6, -0.6))]
)
def test_a_density_has_its_share_around_a_mode(name, centre):
    """By the midpoint rule in a square that holds one of the modes."""
    side = {'ring': 0.1, 'grid': 0.1, 'checkerboard': 0.4}[name]
    places = (np.arange(200) + 0.5) / 200 * side - side / 2
    points = np.stack(np.meshgrid(places, places), -1).reshape(-1, 2) + centre
    mass = np.exp(plane.log_density(name, points)).mean() * side**2
    assert mass == pytest.approx(1 / {'ring': 8, 'grid': 25, 'checkerboard': 8}[name], rel=1e-3)


@pytest.mark.parametrize('name', BUILDERS)
def test_points_lie_in_the_square_and_every_part_is_there(name):
    points, parts = drawn(name)
    assert (np.abs(points) < 1).mean() > 0.999
    assert set(parts) == set(range(BUILDERS[name].parts))


def test_a_set_ships_by_name_and_keeps_points_to_half_a_cell():
    builder = sources.open_builder('ring')
    spec, test = sources.spec_of(builder), sources.load(builder, 'test')
    assert spec.is_plane and (spec.levels, spec.classes, len(test)) == (4096, 8, 2000)
    points, parts = plane.Ring.draw(np.random.default_rng(1), 2000)
    assert np.abs(plane.points_of(test.images) - points).max() <= 1 / 4096 + 1e-9
    np.testing.assert_array_equal(test.labels, parts)


def test_an_image_network_is_refused_in_one_line(tmp_path, capsys):
    words = ['train', '--config=configs/plane/points.py', f'--workdir={tmp_path}/run', '--config.data.name=ring']
    assert cli.main([*words, '--config.network.name=unet', '--config.network.multipliers=1']) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert 'ring holds points in the plane' in line and 'network.name=mlp' in line

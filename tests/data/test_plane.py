"""Points in the plane: what is drawn has the density that is stated, and only perceptrons are trained on it."""

import numpy as np
import pytest
from sklearn import datasets

from genbench import cli
from genbench import config as configs
from genbench.data import plane, sources
from genbench.errors import UserError
from genbench.training import state as states
from genbench.training.prepared import prepare

BUILDERS = plane.SETS
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


def test_every_set_is_known_by_name():
    assert {*plane.SETS} == {*sources.POINTS}


def test_the_sets_of_tong_et_al_have_their_moments():
    """Of scikit-learn's moons and S-curve, moved as the authors' code does, and of normals on a circle."""
    found = {name: reach * drawn(name, 40_000)[0] for name, reach in plane.REACH.items()}
    moons, curve = (
        datasets.make_moons(20_000, noise=0.05, random_state=0)[0],
        datasets.make_s_curve(20_000, noise=0.05, random_state=0)[0],
    )
    far = datasets.make_moons(20_000, noise=0.1, random_state=0)[0]
    wanted = {
        'otcfm_moons': 2 * moons - [1, 0],
        'otcfm_s_curve': 1.5 * curve[:, [0, 2]],
        'otcfm_far_moons': 7 * (far - far.mean()) / far.std(),
    }
    for name, points in wanted.items():
        np.testing.assert_allclose(found[name].mean(0), points.mean(0), atol=0.04 * points.std())
        np.testing.assert_allclose(np.cov(found[name].T), np.cov(points.T), atol=0.03 * points.var())
    for name, radius, deviation in (('otcfm_normals', 5, 1), ('otcfm_far_normals', 12, 1.5)):
        np.testing.assert_allclose(
            np.cov(found[name].T), np.eye(2) * (radius**2 / 2 + deviation**2), rtol=0.03, atol=0.5
        )


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
    assert 'ring has points in the plane' in line and 'network.name=mlp' in line


@pytest.mark.parametrize(
    ('family', 'why'),
    [
        ('autoregressive', 'no ordering of pixels'),
        ('maskgit', 'does not fill in masked values'),
        ('vdvae', 'no layers of latents'),
        ('vq_vae', 'no resolutions'),
        ('vq_gan', 'no resolutions'),
        ('kl_autoencoder', 'mlp has none'),
        ('style_gan', 'no styles'),
        ('progressive_gan', 'does not grow'),
        ('noised_flow', 'use tarflow'),
    ],
)
def test_a_family_that_a_perceptron_does_not_suit_says_why(family, why, tmp_path):
    """docs/studies/two_dimensions.md lists them."""
    config = configs.load('configs/plane/points.py', ['data.name=ring', f'family.name={family}', 'network.name=mlp'])
    with pytest.raises(UserError, match=why):
        family = prepare(config, {}, on_noise=True).family
        states.Blueprint(family.at(family.stages[0].name))

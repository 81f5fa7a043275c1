"""Pictures of a model in the plane show its density, and where its sampler carries points."""

import json

import numpy as np
import pytest
from PIL import Image
from scipy import stats

from genbench import config as configs
from genbench.data import plane as sets
from genbench.data import sources
from genbench.evaluation import harness, plane
from genbench.families.base import Sampler
from genbench.report import page
from genbench.training import runs, sampling
from genbench.training.loop import train

FAMILIES = {  # each trains for one epoch, in four batches
    'gaussian': {'network': {'name': 'none'}},
    'flow_matching': {'network': {'name': 'mlp', 'hidden': (8,)}, 'samplers': 'ddim:5'},
}


@pytest.fixture(scope='module', params=FAMILIES)
def family(request):
    return request.param


@pytest.fixture(scope='module')
def evaluated(tmp_path_factory):
    """{family: its evaluated run on the two moons}."""
    folders = {}
    for name, options in FAMILIES.items():
        folders[name] = tmp_path_factory.mktemp('plane') / name
        values = {
            'data': {'name': 'two_moons'}, 'family': {'name': name}, 'network': options['network'],
            'train': {'num_steps': 4, 'batch_size': 2500},
            'evaluation': {
                'metrics': ('sliced_wasserstein', 'exploration'), 'features': {'name': 'pixels'}, 'num_samples': 200,
                'ode': {'num_steps': 2, 'probes': 0}, 'samplers': options.get('samplers', 'direct'),
            },
        }  # fmt: skip
        train(configs.resolve(values), folders[name], quiet=True)
        harness.evaluate(folders[name], quiet=True)
    return folders


def explorer(folder):
    run = runs.open_run(folder)
    step, state = run.restore()
    blueprint, state = run.networks(step, state, run.config.evaluation.average)
    family = blueprint.family
    sampler = Sampler(*(('ddim', 5) if family.path else ('direct', 1)))
    return plane.Explorer(blueprint, state, sampler, sampler, family.likelihoods[0], 0, 2000)


def test_the_density_of_the_gaussian_is_the_normal_with_the_moments_of_the_points(evaluated):
    """SciPy's density. An image has one draw from a bin of 2/4096, and a cell of the picture 43 levels."""
    ours = explorer(evaluated['gaussian'])
    found = ours._log_density(ours.likelihood)
    points = sets.points_of(sources.load(sources.open_builder('two_moons'), 'train').images)
    side = sets.points_of(plane.lattice(ours.blueprint.family.spec))[: plane.CELLS, 0]
    normal = stats.multivariate_normal(points.mean(0), np.cov(points.T, ddof=0))
    np.testing.assert_allclose(found, normal.logpdf(np.stack(np.meshgrid(side, side), -1)), atol=0.02)
    assert found[80, 48] < found[48, 20]  # the moons are wider than high


def test_paths_start_from_noise_and_end_at_the_samples_of_the_same_keys(evaluated):
    ours = explorer(evaluated['flow_matching'])
    states = ours._states(lambda first, count: None)
    assert states.shape == (6, plane.PATHS, 2)
    assert stats.kstest(states[0].ravel(), 'norm').pvalue > 1e-3
    keys = sampling.image_keys(ours.blueprint.family, 'exploration', 0, 0, plane.PATHS)
    samples = sampling.sample(ours.blueprint, ours.state, keys, None, ours.sampler).images
    np.testing.assert_allclose(np.clip(states[-1], -1, 1), sets.points_of(samples), atol=1.5 / sets.LEVELS)


def test_what_is_drawn_is_listed(evaluated, family):
    folder = evaluated[family] / 'exploration'
    found = json.loads((folder / 'exploration.json').read_text())
    assert Image.open(folder / 'density.png').size == (plane.PIXELS, plane.PIXELS)
    density = {'gaussian': ('density_1', 'lower_bound'), 'flow_matching': ('ode_1', 'estimate')}[family]
    assert (found['density']['method'], found['density']['kind']) == density
    assert (folder / 'paths.png').is_file() == (found['paths'] is not None) == (family == 'flow_matching')


def test_the_page_of_a_run_shows_both(evaluated):
    text = page.write(evaluated['flow_matching']).read_text()
    assert 'alt="Paths of ' in text and '200 points of ddim, 5 steps' in text
    assert 'alt="Log-density of ' in text and 'ode_1, estimate' in text
    assert 'sliced Wasserstein</button>' in text and 'alt="Samples of ' in text  # although there is no FD


def test_a_map_shows_points_where_they_are_although_they_have_sixteen_bits(evaluated):
    spec = runs.open_run(evaluated['gaussian']).family.spec
    corners = np.array([[0, 0], [4095, 0], [4095, 4095]], np.uint16).reshape(-1, 1, 2, 1)
    picture = sampling.map_of_points(corners, spec)
    assert [picture[y, x] for y, x in ((-1, 0), (-1, -1), (0, -1), (0, 0))] == [255, 255, 255, 0]


def test_white_is_the_highest_density_and_black_lies_eight_nats_below_with_y_upwards():
    picture = plane.shades(np.array([[-1.0, -5.0], [-9.0, -np.inf]]))
    half = plane.PIXELS // 2
    assert picture.shape == (plane.PIXELS, plane.PIXELS)
    corners = picture[half:, :half], picture[half:, half:], picture[:half, :half], picture[:half, half:]
    assert [{*corner.ravel().tolist()} for corner in corners] == [{255}, {128}, {0}, {0}]
    assert not plane.shades(np.full((2, 2), np.nan)).any()


def test_a_path_goes_from_an_amber_start_along_a_blue_line_to_a_white_end():
    # From the lower left to the upper right, and one that leaves the numbers.
    states = np.array([[[-1.0, -1.0], [0.0, 1.0]], [[1.0, 1.0], [np.nan, 1.0]]])
    picture = plane.lines(states, 2.0)
    quarter, middle = plane.PIXELS // 4, plane.PIXELS // 2
    assert picture[3 * quarter, quarter].tolist() == list(plane.START)
    assert picture[quarter, 3 * quarter].tolist() == list(plane.END)
    assert picture[middle, middle].any() and not picture[quarter, quarter].any()
    far = plane.lines(np.array([[[80.0, 20.0]], [[0.0, 0.0]]]), 2.0)  # enters at the right, above the middle
    row = plane.PIXELS * 3 // 8
    assert far[row - 3 : row + 4, -2].any() and not far[: row - 3, -2].any()

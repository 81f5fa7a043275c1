"""Path lengths of linear generators, whose derivative along a great circle is a formula, and of what has none."""

import itertools
import shutil
import types

import numpy as np
import pytest
from flax import nnx

from genbench import families, rng
from genbench.data.spec import DataSpec
from genbench.errors import UserError
from genbench.evaluation import harness, path_length
from genbench.evaluation.features import network, pixels
from genbench.families.base import Networks, Sampler
from genbench.training import sampling

WEIGHTS = np.random.default_rng(0).normal(size=(4, 3))
SPEC = DataSpec('images', (2, 2, 1), levels=16)
DIRECT = Sampler('direct')


class Linear(nnx.Module):
    def __call__(self, z, given):
        return (0.3 * z @ WEIGHTS.T).reshape(-1, 2, 2, 1)


@pytest.fixture(scope='module')
def blueprint(tiny):
    family = families.get('gan')(tiny('gan', 'network.latent=3'), SPEC)
    return types.SimpleNamespace(family=family, bind_state=lambda state: Networks({'generator': Linear()}))


def lengths(blueprint, distance, **changes):
    options = {'span': (0, 40), 'epsilon': 1e-4, 'seed': 0, 'batch_size': 16, **changes}
    return path_length.measure(blueprint, {}, DIRECT, distance, None, **options)


def speed(a, b, t):
    """d/dt of the way from a to b by the angle between them, in double precision."""
    angle = np.arccos(a @ b / np.sqrt(a @ a * (b @ b)))
    return angle * (np.cos(t * angle) * b - np.cos((1 - t) * angle) * a) / np.sin(angle)


@pytest.mark.parametrize(('epsilon', 'tolerance', 'cuts'), [(1e-4, 0.02, (0, 25, 40)), (1e-2, 0.05, (0, 40))])
def test_it_is_the_squared_derivative_of_a_linear_generator(blueprint, epsilon, tolerance, cuts):
    """Whatever the step, whose rounding or curvature is the error, and whichever process has which pairs."""
    distance = path_length.in_features(pixels.open_network(), SPEC)
    parts = [lengths(blueprint, distance, epsilon=epsilon, span=span) for span in itertools.pairwise(cuts)]
    found = np.concatenate(parts)
    keys = sampling.image_keys(blueprint.family, 'path_length', 0, 0, 40)
    first, second = (blueprint.family.latents(rng.named(keys, end), DIRECT) for end in ('first', 'second'))
    ways = zip(*(np.asarray(part, np.float64) for part in (first, second, rng.uniform(keys, 'place'))), strict=True)
    # Half of 16 levels is one unit of the generator, and pixels are shares of 15 levels.
    wanted = [np.square(0.3 * 8 / 15 * WEIGHTS @ speed(*way)).sum() for way in ways]
    np.testing.assert_allclose(found, wanted, rtol=tolerance)


def test_outliers_are_left_out_of_the_mean():
    values = np.concatenate([np.full(150, 2.0), np.full(149, 3.0), [1e6]])
    value, error = path_length.trimmed(values)
    assert value == pytest.approx((150 * 2 + 149 * 3) / 299) and error == pytest.approx(0.5 / 299**0.5, rel=0.01)


def test_what_does_not_see_small_steps_says_so(blueprint, tiny):
    rounding = network.make('coarse', None, (), {}, batch_size=1, rounds=True)
    with pytest.raises(UserError, match='coarse rounds images'):
        path_length.in_features(rounding, SPEC)
    with pytest.raises(UserError, match='LPIPS needs images of at least 16 pixels'):
        path_length.perceptual(None, SPEC)
    with pytest.raises(UserError, match='diffusion does not make images from latents'):
        path_length.check(families.get('diffusion')(tiny('diffusion'), SPEC))
    half = tiny('gan', 'network.dtype=bfloat16')
    with pytest.raises(UserError, match='bfloat16, which rounds away a small step'):
        path_length.check(families.get('gan')(half, SPEC))


def test_a_run_has_a_row_of_it(trained, tmp_path):
    shutil.copytree(trained('gaussian'), tmp_path, dirs_exist_ok=True)
    changes = ['evaluation.metrics=path_length', 'evaluation.features.name=pixels', 'evaluation.path_length.pairs=50']
    (row,) = harness.evaluate(tmp_path, changes, quiet=True)
    assert (row['metric'], row['kind'], row['n']) == ('path_length', 'distance', 50)
    assert row['value'] > 0 and row['std_err'] > 0
    assert row['protocol']['features'] == 'pixels' and row['protocol']['epsilon'] == 1e-4
    assert harness.evaluate(tmp_path, changes, quiet=True) == []

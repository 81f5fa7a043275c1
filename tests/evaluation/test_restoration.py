"""The metrics of restored images, for results that are known; and what is refused before anything is drawn."""

import types

import jax
import numpy as np
import pytest

from genbench import config, families
from genbench.data.spec import DataSpec
from genbench.errors import UserError
from genbench.evaluation import harness, restoration
from genbench.training import loop

SPEC = DataSpec('images', (8, 8, 1), levels=17, classes=3)
WANTED = ['restored_psnr', 'restored_ssim', 'restored_misfit', 'restored_diversity']


def family(name, **options):
    return families.get(name)(config.resolve({'family': {'name': name, **options}}), SPEC)


def asked(problem, sampler):
    """`evaluation` of a config with one problem and one sampler."""
    return types.SimpleNamespace(restoration=types.SimpleNamespace(problems=(problem,), samplers=(sampler,)))


def weights(results):
    """Those of a model that draws these results, two for each image."""
    options = types.SimpleNamespace(seed=0, restoration=types.SimpleNamespace(draws=2), metrics=WANTED)
    drawer = types.SimpleNamespace(draw=lambda *_: results)
    return types.SimpleNamespace(
        evaluation=types.SimpleNamespace(spec=SPEC), options=options, drawer=drawer, state=None
    )


def test_results_are_compared_with_their_own_image():
    images = np.random.default_rng(0).integers(1, 16, (5, 8, 8, 1))
    sampler = restoration.chosen(family('diffusion'), 'pool2', 'ancestral:3:posterior=ddnm')
    labels, twice = np.zeros(5, int), np.repeat(images, 2, axis=0)
    found = restoration.measure(weights(twice), 'pool2', sampler, images, labels, WANTED)
    values = {name: value for name, (value, *_) in found.items()}
    assert values['restored_psnr'] == 99 and values['restored_ssim'] == pytest.approx(1)
    assert values['restored_misfit'] == pytest.approx(0, abs=1e-6) and values['restored_diversity'] == 0
    assert found['restored_psnr'][2]['bicubic'] < 30
    brighter = twice.copy()
    brighter[1::2] += 1  # every second result, by 2 / 17 of [−1, 1]
    found = restoration.measure(weights(brighter), 'pool2', sampler, images, labels, WANTED)
    assert found['restored_misfit'][0] == pytest.approx(1 / 17, rel=1e-4)
    assert found['restored_diversity'][0] == pytest.approx(2 / 17 / np.sqrt(2), rel=1e-4)


@pytest.mark.parametrize(('noise', 'misfit'), [(0, 0.25), (0.5, 0.25**2 + 0.5**2)])
def test_the_misfit_of_a_mask_is_that_of_the_pixels_it_shows(noise, misfit):
    """Results that are 2 levels of 2/16 too bright, in the half that is seen; noise adds its own variance there."""
    spec = DataSpec('images', (8, 8, 1), levels=16)
    images = np.full((40, 8, 8, 1), 7)
    sampler = restoration.chosen(family('diffusion'), 'half', f'ancestral:3:posterior=ddnm,noise={noise}')
    given, observed = weights(np.repeat(images, 2, axis=0) + 2), []
    given.evaluation.spec, draw = spec, given.drawer.draw
    given.drawer.draw = lambda *told: (observed.append(told[-1]['observed']), draw(*told))[1]
    found = restoration.measure(given, 'half', sampler, images, np.zeros(40, int), ['restored_misfit'])
    assert found['restored_misfit'][0] == pytest.approx(misfit**0.5 if noise else misfit, rel=0.05)
    assert (observed[0][:, 4:] == 0).all() and np.ptp(observed[0][:, :4]) >= noise


@pytest.mark.parametrize(
    ('name', 'options', 'why'),
    [
        ('gan', {}, 'has no path'),
        ('diffusion', {'conditional': True}, 'has conditions'),
        ('diffusion', {'conditions': ('label', 'degraded:half')}, 'has conditions'),
    ],
)
def test_what_cannot_be_measured_is_refused(name, options, why):
    with pytest.raises(UserError, match=why):
        restoration.check(family(name, **options), asked('half', 'ancestral:3'))


def test_a_blur_without_noise_would_show_the_true_image():
    with pytest.raises(UserError, match='magnifies errors, even those of rounding.*add noise'):
        restoration.check(family('diffusion'), asked('blur1', 'ddim:3:posterior=pigdm'))
    restoration.check(family('diffusion'), asked('blur1', 'ddim:3:posterior=pigdm,noise=0.02'))


@pytest.mark.parametrize('problem', ['half', 'pool2'])
def test_a_model_that_was_trained_for_a_problem_is_shown_what_it_was_trained_on(problem):
    """The picture is the condition made of the true images, and the results are compared as those of solvers are."""
    spec = DataSpec('images', (8, 8, 1), levels=16)
    images = np.random.default_rng(0).integers(1, 15, (5, 8, 8, 1))
    conditional = families.get('diffusion')(
        config.resolve({'family': {'name': 'diffusion', 'conditions': (f'degraded:{problem}',)}}), spec
    )
    asked = types.SimpleNamespace(problems=('blur1',), samplers=(), trained_samplers=('ddim:3',))
    restoration.check(conditional, types.SimpleNamespace(restoration=asked))
    ((found, sampler),) = restoration.ways(conditional, asked)
    assert found == problem and sampler.name == 'ddim' and not sampler.options.problem
    given, told = weights(np.repeat(images, 2, axis=0) + 1), []
    given.evaluation.spec, draw = spec, given.drawer.draw
    given.drawer.draw = lambda *args: (told.append(args[-1]), draw(*args))[1]
    values = restoration.measure(given, problem, sampler, images, np.zeros(5, int), WANTED)
    (shown,) = told
    wanted = conditional.given({'image': images, 'key': jax.random.split(jax.random.key(0), 5)})
    assert set(shown) == set(wanted) == {'degraded'}
    np.testing.assert_allclose(shown['degraded'], np.repeat(wanted['degraded'], 2, axis=0), atol=1e-6)
    assert values['restored_misfit'][0] == pytest.approx(2 / 16, rel=1e-4)


def test_a_trained_model_takes_no_solver():
    conditional = family('diffusion', conditions=('degraded:half',))
    asked = types.SimpleNamespace(trained_samplers=('ancestral:3:problem=half,posterior=ddnm',))
    with pytest.raises(UserError, match='is shown what half leaves of an image; leave .* problem out'):
        restoration.check(conditional, types.SimpleNamespace(restoration=asked))


def test_rows_of_a_trained_model_name_its_problem_and_are_measured_once(tiny, tmp_path):
    config = tiny('diffusion', 'train.num_steps=1', "family.conditions=('degraded:half',)")
    loop.train(config, tmp_path / 'run', quiet=True)
    asked = ['evaluation.metrics=restored_psnr,restored_misfit', 'evaluation.restoration.num_images=8',
             'evaluation.restoration.draws=1', 'evaluation.restoration.trained_samplers=ddim:2']  # fmt: skip
    rows = harness.evaluate(tmp_path / 'run', asked, quiet=True)
    assert {row['metric'] for row in rows} == {'restored_psnr', 'restored_misfit'}
    assert {(row['protocol']['problem'], row['protocol']['posterior'], row['n']) for row in rows} == {
        ('half', 'trained', 8)
    }
    assert not harness.evaluate(tmp_path / 'run', asked, quiet=True)

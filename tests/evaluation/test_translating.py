"""`genbench edit --task=translate`: to noise along one ODE, and back along another."""

import json
import types

import jax
import jax.numpy as jnp
import numpy as np
import oracles
import pytest
from PIL import Image

from genbench import cli, config, families
from genbench.data.spec import DataSpec
from genbench.errors import UserError
from genbench.evaluation import translating
from genbench.families.base import Sampler

SPEC = DataSpec('images', (8, 8, 1), levels=4096)


def normal(mean, deviation):
    """A diffusion family whose denoiser is exact for pixels that are independent and normal."""
    family = families.get('diffusion')(config.resolve({'family': {'name': 'diffusion'}}), SPEC)
    schedule = family.schedule

    def image(x_t, t):
        alpha, sigma = schedule.alpha(t), schedule.sigma(t)
        gain = alpha * deviation**2 / (alpha**2 * deviation**2 + sigma**2)
        return mean + gain * (x_t - alpha * mean)

    family.denoise = lambda *_, **__: oracles.from_image(schedule, image)
    return family


def test_between_normal_images_it_is_the_linear_map_that_keeps_quantiles():
    """Both ODEs keep the order of a pixel's values, so that the result is m′ + s′ / s · (x − m)."""
    first, second = normal(-0.2, 0.25), normal(0.3, 0.1)
    x = np.clip(np.random.default_rng(0).normal(-0.2, 0.25, (6, *SPEC.shape)), -1, 1)
    levels, keys = SPEC.quantise(jnp.asarray(x, jnp.float32)), jax.random.split(jax.random.key(0), 6)
    source = types.SimpleNamespace(
        family=first, stated=lambda *_: {},
        inverted=lambda sampler, images, given: np.asarray(first.inverted({}, images, keys, None, sampler)),
    )  # fmt: skip
    errors = []
    for steps in (10, 80):
        sampler = Sampler('ddim', steps, 3.0)
        noise, evaluations = translating.inverted(source, sampler, levels, (), 0)
        drawn = second.sample({}, keys, {'noise': jnp.asarray(noise)}, Sampler('ddim', steps)).images
        errors.append(np.abs(SPEC.dequantise(drawn) - (0.3 + 0.4 * (SPEC.dequantise(levels) + 0.2))).max())
        assert evaluations == steps
    assert errors[1] < errors[0] / 4 and errors[1] < 0.05


@pytest.fixture
def picture(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 17, (8, 8)) * 255 / 16
    Image.fromarray(np.round(pixels).astype(np.uint8)).save(tmp_path / 'picture.png')
    return tmp_path / 'picture.png'


def edited(run, picture, out, *words):
    code = cli.main(['edit', str(run), '--input', str(picture), f'--out={out}', *words])
    return code, out


@pytest.mark.parametrize('family', ['diffusion', 'normalizing_flow'])
def test_from_a_model_to_itself_it_reconstructs(family, trained, picture, tmp_path):
    run = trained(family)
    sampler = [] if family == 'normalizing_flow' else ['--sampler=ddim:4']
    code, out = edited(run, picture, tmp_path / 'out', '--task=translate', f'--source={run}', *sampler)
    report = json.loads((out / 'edit.json').read_text())
    assert code == 0 and report['evaluations_per_image'] == (2 if family == 'normalizing_flow' else 8)
    if family == 'diffusion':
        again = edited(run, picture, tmp_path / 'again', '--task=reconstruct', '--sampler=ddim:4:start=inverted')[1]
        found, wanted = (np.asarray(Image.open(folder / 'picture.png')).astype(int) for folder in (out, again))
        assert np.abs(found - wanted).max() <= 16 and report['psnr'] > 10
    else:
        assert report['psnr'] > 30


@pytest.mark.parametrize(
    ('words', 'message'),
    [
        (('--task=translate',), 'needs something to translate between'),
        (('--task=translate', '--source={run}', '--count=2'), 'all translations of an image are equal'),
        (('--task=translate', '--source={run}', '--degrade'), 'degrades nothing'),
        (('--task=translate', '--source={run}', '--sampler=ancestral:4'), 'draws noise on its way'),
        (('--task=translate', '--source={run}', '--sampler=ddim:4:strength=0.5'), 'leave strength out'),
        (('--task=translate', '--source={run}x'), 'is not a run'),
        (('--task=vary', '--source={run}'), 'vary has no use for --source'),
        (('--task=translate', '--source-given=label=1'), '--source-given label=1: this run was trained without'),
    ],
)
def test_a_mistake_is_one_line_and_nothing_is_written(words, message, diffusion_run, picture, tmp_path, capsys):
    words = [word.format(run=diffusion_run) for word in words]
    code, out = edited(diffusion_run, picture, tmp_path / 'out', *words)
    told = capsys.readouterr().err.splitlines()
    assert code == 2 and len(told) == 1 and message in told[0] and not out.exists(), told


def test_models_without_an_inverse_and_of_other_noise_say_why(trained, picture, tmp_path, capsys):
    assert edited(trained('gan'), picture, tmp_path / 'out', '--task=translate', '--given=label=1')[0] == 2
    assert 'a map that has no inverse' in capsys.readouterr().err
    source = types.SimpleNamespace(family=types.SimpleNamespace(spec=SPEC, latent_shape=(64,)))
    other = types.SimpleNamespace(family=types.SimpleNamespace(spec=SPEC, latent_shape=(8,)))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(translating, 'Source', lambda run: other)
        with pytest.raises(UserError, match=r'noise of --source has the shape \(8,\)'):
            translating.encoder('run', source)

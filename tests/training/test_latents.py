"""Runs that model the latents of a borrowed first stage: trained, sampled, scored and shown."""

import json
import shutil

import numpy as np
import pytest
from PIL import Image

from genbench import cli
from genbench.evaluation import draw, harness
from genbench.training import runs
from genbench.training.loop import train
from genbench.training.metrics import read_rows


@pytest.fixture(scope='module')
def stage(tiny, tmp_path_factory):
    """Folder of a first stage; only to be read."""
    folder = tmp_path_factory.mktemp('runs') / 'stage'
    options = ('family.latent_channels=2', 'network.multipliers=(1,1)', 'train.num_steps=2')
    train(tiny('vae', *options), folder, quiet=True)
    return folder


def modelling(tiny, stage, *options):
    return tiny('flow_matching', f'family.first_stage={stage}', 'train.num_steps=2', *options)


@pytest.fixture(scope='module')
def latent_run(tiny, stage, tmp_path_factory):
    folder = tmp_path_factory.mktemp('runs') / 'latents'
    train(modelling(tiny, stage), folder, quiet=True)
    return folder


def test_the_checkpoint_has_the_scaling_of_the_first_batch_and_nothing_of_the_stage(latent_run):
    run = runs.open_run(latent_run)
    _, state = run.restore()
    assert set(state['aux']) == set(state['params']) == {'denoiser', 'scaling'}
    scaling = state['aux']['scaling']
    assert scaling['mean'].shape == scaling['scale'].shape == (2,) and (scaling['scale'] != 1).all()
    assert run.family.space.shape == (4, 4, 2)


def test_it_is_sampled_scored_and_shown(latent_run, tmp_path):
    draw.draw_to_file(latent_run, tmp_path / 'x.npz', count=3, sampler='euler:2', seed=0, given=())
    images = np.load(tmp_path / 'x.npz')['images']
    assert images.shape == (3, 8, 8, 1) and images.min() >= 0 and images.max() <= 16
    settings = ['evaluation.metrics=fd,likelihood,exploration', 'evaluation.samplers=euler:2']
    rows = harness.evaluate(latent_run, settings, quiet=True)
    found = {row['protocol']['method']: row for row in rows if row['metric'] == 'bits_per_dim'}
    assert set(found) == {'first_stage_ode_1', 'first_stage_vlb_continuous'}
    for row in found.values():
        assert row['protocol']['first_stage'] == 'vae' and row['protocol']['latent_draws'] == 1
        assert np.isfinite(row['value'])
    shown = json.loads((latent_run / 'exploration' / 'exploration.json').read_text())
    assert shown['shape'] == [8, 8, 1] and shown['interpolation']
    states = Image.open(latent_run / 'exploration' / 'generation_states.png')
    assert states.size == (8 * 8, 3 * 8)  # eight images, two steps and the start


def losses(folder):
    return [row['denoiser/loss'] for row in read_rows(folder / 'metrics.jsonl')]


def test_it_learns_the_same_from_posteriors_that_are_kept_and_from_micro_batches(tiny, stage, latent_run, tmp_path):
    train(modelling(tiny, stage, 'family.cache_latents=True', 'train.accumulate=2'), tmp_path, quiet=True)
    assert {file.stem for file in (tmp_path / 'prepared').glob('*.npy')} == {'latent_mean', 'latent_log_variance'}
    np.testing.assert_allclose(losses(latent_run), losses(tmp_path), rtol=1e-4)


def test_bad_first_stages_end_in_one_line(tiny, stage, latent_run, trained, config_file, tmp_path, capsys):
    def refused(*command):
        assert cli.main([*map(str, command)]) == 2
        (line,) = capsys.readouterr().err.splitlines()
        return line

    config = config_file(modelling(tiny, trained('gan')))
    line = refused('train', f'--config={config}', f'--workdir={tmp_path / "run"}')
    assert (
        'The first stage is a gan model, which has no encoder and decoder; use a run of vae, vq_vae, vq_gan or' in line
    )
    config = config_file(modelling(tiny, tmp_path / 'nowhere'))
    assert 'family.first_stage' in refused('train', f'--config={config}', f'--workdir={tmp_path / "run"}')
    copy = shutil.copytree(latent_run, tmp_path / 'copy')
    values = json.loads((copy / 'manifest.json').read_text())
    values['borrowed']['first_stage']['state_sha256'] = '0' * 64
    (copy / 'manifest.json').write_text(json.dumps(values))
    assert 'has changed since it was borrowed' in refused('sample', copy, '--out', tmp_path / 'x.png')

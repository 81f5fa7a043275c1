"""Scores while a run trains: small, repeatable, as an evaluation would have them, and without a trace in the state."""

import json
import shutil

import numpy as np
import pytest
from joined import finish, start

from genbench.errors import UserError
from genbench.evaluation import draw, harness, monitor
from genbench.evaluation.reference import RealSets
from genbench.training import runs
from genbench.training.checkpoint import Checkpoints
from genbench.training.loop import train
from genbench.training.metrics import read_rows
from genbench.training.observing import read_protocols

PIXELS = ('evaluation.features.name=pixels', 'checkpoint.every=2')
EVERY = ('train.evaluate_every=2', 'train.evaluate_samples=64')


def scores(folder, name='fd'):
    rows = read_rows(folder / 'metrics.jsonl')
    return {row['step']: row[f'evaluation/{name}'] for row in rows if f'evaluation/{name}' in row}


def frechet(x, y):
    """With covariances AAᵀ and BBᵀ the trace of the root is the nuclear norm of AᵀB; genbench's own has another way."""
    m, n = x.mean(0), y.mean(0)
    a, b = ((part - part.mean(0)) / np.sqrt(len(part) - 1) for part in (x, y))
    return np.square(m - n).sum() + np.square(a).sum() + np.square(b).sum() - 2 * np.linalg.norm(a @ b.T, 'nuc')


@pytest.fixture(scope='module')
def scored(tiny, tmp_path_factory):
    """A tiny run that was scored at steps 2 and 4; only to be read."""
    folder = tmp_path_factory.mktemp('scored') / 'vae'
    monitor.train(tiny('vae', *PIXELS, *EVERY, 'train.evaluate_images=0'), folder, quiet=True)
    return folder


def test_a_run_that_is_scored_has_the_state_of_one_that_is_not(scored, trained):
    plain, watched = (json.loads((folder / 'summary.json').read_text()) for folder in (trained('vae'), scored))
    assert watched['state_sha256'] == plain['state_sha256'] and watched['training_flops'] == plain['training_flops']
    assert sorted(scores(scored)) == [2, 4] and not scores(trained('vae'))


def test_a_resumed_run_has_the_scores_and_the_state_of_one_that_went_through(scored, tiny, tmp_path):
    folder = tmp_path / 'again'
    shutil.copytree(scored, folder)
    shutil.rmtree(folder / 'checkpoints' / '4')
    (folder / 'summary.json').unlink()
    config = tiny('vae', *PIXELS, *EVERY, 'train.evaluate_images=0')
    assert monitor.train(config, folder, quiet=True).summary['state_sha256'] == runs.open_run(scored).sha256(4)
    assert scores(folder) == scores(scored) and len(read_protocols(runs.Folder(folder))) == 1


def test_the_distance_is_that_of_the_samples_that_the_checkpoint_draws(scored, tmp_path):
    run = runs.open_run(scored)
    draw.draw_to_file(str(scored), str(tmp_path / 'x.npz'), count=64, sampler='', seed=0, given=(), step=2)
    real = RealSets(run.config, True)
    drawn = real.extract(np.load(tmp_path / 'x.npz')['images']).outputs['features']
    half = real.half(0).outputs['features']
    assert len(half) == 180 and scores(scored)[2] == pytest.approx(frechet(half, drawn), rel=1e-4)


def test_the_likelihood_is_that_of_the_first_images_of_the_split(tiny, tmp_path):
    config = tiny('gaussian', *PIXELS, 'train.evaluate_every=4', 'train.evaluate_samples=0', 'train.evaluate_images=24')
    monitor.train(config, tmp_path / 'run', quiet=True)
    harness.evaluate(tmp_path / 'run', ['evaluation.metrics=likelihood'], quiet=True)
    (kept,) = (tmp_path / 'run' / 'evaluation' / 'likelihood').glob('density_1-*.npz')
    nats = np.load(kept)['log_prob'][:24]
    assert scores(tmp_path / 'run', 'bits_per_dim') == {4: pytest.approx(-nats.mean() / 64 / np.log(2), rel=1e-5)}
    (noted,) = read_protocols(runs.Folder(tmp_path / 'run'))
    said = noted['protocol']['bits_per_dim']
    assert (said['method'], said['images'], said['average']) == ('density_1', 'the first 24', 'current')


@pytest.mark.slow
def test_two_processes_that_split_the_state_score_as_one(tiny, config_file, tmp_path):
    changes = (*PIXELS, 'train.evaluate_every=2', 'train.evaluate_samples=75', 'train.evaluate_images=25')
    config = tiny('gaussian', *changes, 'mesh.data=1', 'mesh.fsdp=-1')
    monitor.train(config, tmp_path / 'alone', quiet=True)
    words = ['-m', 'genbench', 'train', f'--config={config_file(config)}', f'--workdir={tmp_path}/pair']
    finish(start(words, devices=1, number=2))
    for name in ('fd', 'bits_per_dim'):
        found, wanted = (scores(tmp_path / folder, name) for folder in ('pair', 'alone'))
        assert list(found) == [2, 4] and found == pytest.approx(wanted, rel=2e-5), name
    noted = [read_protocols(runs.Folder(tmp_path / folder)) for folder in ('pair', 'alone')]
    assert noted[0] == noted[1]


def test_a_score_ranks_the_checkpoints(scored):
    held = runs.open_run(scored).folder.checkpoints
    assert set(Checkpoints(held).scores('evaluation/fd').values()) == {None}  # nobody asked for it


def test_the_best_checkpoint_by_a_score_stays(tiny, tmp_path):
    ranked = ('checkpoint.best_metric=evaluation/fd', 'checkpoint.keep_best=1', 'checkpoint.keep=1')
    names = ('gaussian', 'evaluation.features.name=pixels', 'train.evaluate_every=2', 'train.evaluate_images=0')
    config = tiny(*names, *ranked, 'checkpoint.every=2', 'train.num_steps=6', 'checkpoint.best_mode=max')
    monitor.train(config, tmp_path, quiet=True)
    found = scores(tmp_path)
    assert set(Checkpoints(tmp_path / 'checkpoints').steps()) == {max(found, key=found.get), 6}
    assert max(found, key=found.get) == 2  # moments of more images are better, so that the two are not one


@pytest.mark.parametrize(
    ('overrides', 'words'),
    [
        (
            ('checkpoint.best_metric=evaluation/fdd', 'checkpoint.keep_best=1'),
            'has the scores evaluation/fd, evaluation',
        ),
        (('checkpoint.best_metric=evaluation/fd', 'checkpoint.keep_best=1', 'checkpoint.every=3'), 'a multiple of'),
        (('train.evaluate_samples=0', 'train.evaluate_images=0'), 'has nothing to compute'),
        (('train.evaluate_sampler=ddim:5',), 'cannot use the sampler'),
        (('train.evaluate_split=nowhere',), 'nowhere'),
    ],
)
def test_what_cannot_be_scored_is_said_before_anything_is_written(tiny, tmp_path, overrides, words):
    with pytest.raises(UserError, match=words):
        monitor.train(tiny('gaussian', *PIXELS, 'train.evaluate_every=2', *overrides), tmp_path / 'run', quiet=True)
    assert not (tmp_path / 'run').exists()


def test_a_run_without_a_monitor_says_where_there_is_one(tiny, tmp_path):
    with pytest.raises(TypeError, match='genbench.evaluation.monitor.train'):
        train(tiny('gaussian', 'train.evaluate_every=2'), tmp_path / 'run', quiet=True)

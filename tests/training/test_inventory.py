"""`genbench checkpoint show` says what is kept and why, and finds what cannot be read."""

import os
import re

import pytest

from genbench import cli
from genbench.errors import UserError
from genbench.training import runs
from genbench.training.loop import train
from genbench.training.metrics import read_rows


@pytest.fixture(scope='module')
def run(tiny, tmp_path_factory):
    """Ten steps of a VAE with the newest, every fourth and the best checkpoint."""
    folder = tmp_path_factory.mktemp('runs') / 'vae'
    options = ('checkpoint.keep=1', 'checkpoint.keep_every=4', 'checkpoint.keep_best=1', 'checkpoint.best_mode=max')
    config = tiny('vae', 'train.num_steps=10', 'checkpoint.every=1', 'optimizer.learning_rate=0.02', *options)
    return folder, train(config, folder, quiet=True)


def shown(folder, capsys):
    assert cli.main(['checkpoint', 'show', str(folder)]) == 0
    return capsys.readouterr().out.splitlines()


def test_the_newest_the_best_and_every_fourth_are_kept(run, capsys):
    folder, _ = run
    losses = {row['step']: row['elbo/loss'] for row in read_rows(folder / 'metrics.jsonl')}
    worst = max(losses, key=lambda step: losses[step])
    lines = {int(line.split(':')[0]): line for line in shown(folder, capsys) if line[0].isdigit()}
    assert sorted(lines) == sorted({4, 8, 10, worst})
    assert 'kept (newest 1)' in lines[10] and 'kept (every 4)' in lines[8]
    assert 'best 1 by elbo/loss' in lines[worst]
    assert all(re.search(r': [\d,]+ bytes, ', line) for line in lines.values())


def test_hash_and_contents_are_shown(run, capsys):
    folder, outcome = run
    lines = shown(folder, capsys)
    assert f'readable, state_sha256 {outcome.summary["state_sha256"]}' in '\n'.join(lines)
    count = outcome.summary['parameters']['encoder']
    assert any(line.startswith(f'parameters encoder: {count:,} numbers') for line in lines)
    assert any(line.startswith('optimizer elbo: ') for line in lines)
    assert any(line.startswith('averages ema: ') for line in lines)


def test_what_cannot_be_read_is_found_and_left_where_it_is(tiny, tmp_path, capsys):
    train(tiny('gaussian', 'checkpoint.every=2'), tmp_path, quiet=True)
    for file in (tmp_path / 'checkpoints' / '2').rglob('*'):
        if file.is_file():
            os.truncate(file, file.stat().st_size // 2)
    lines = shown(tmp_path, capsys)
    assert 'CANNOT BE READ' in lines[0] and lines[0].startswith('2: ')
    assert 'readable, ' in lines[1] and lines[1].startswith('4: ')
    assert (tmp_path / 'checkpoints' / '2').is_dir()


def test_a_folder_without_a_run(tmp_path, capsys):
    assert cli.main(['checkpoint', 'show', str(tmp_path)]) == 2
    assert 'is not a run' in capsys.readouterr().err


def test_a_scalar_that_is_not_logged_is_named_at_the_first_save(tiny, tmp_path):
    config = tiny('vae', 'checkpoint.every=1', 'checkpoint.keep_best=1', 'checkpoint.best_metric=elbo/los')
    with pytest.raises(UserError, match="best_metric is 'elbo/los'; this run logs elbo/"):
        train(config, tmp_path, quiet=True)


@pytest.mark.parametrize(
    ('override', 'words'),
    [('checkpoint.best_mode=least', 'it should be min or max'), ('checkpoint.keep_best=-1', 'at least 0')],
)
def test_a_choice_that_does_not_exist(tiny, override, words):
    with pytest.raises(UserError, match=words):
        tiny('vae', override)


def test_how_checkpoints_are_kept_makes_no_other_run(tiny, tmp_path):
    train(tiny('gaussian'), tmp_path, quiet=True)
    config = tiny('gaussian', 'checkpoint.keep_every=2', 'checkpoint.keep_best=3')
    assert train(config, tmp_path, quiet=True).already
    assert runs.open_run(tmp_path).config.checkpoint.keep_best == 3

"""Checkpoints survive damage, say in words what does not fit, and never leave a run without one."""

import errno
import os
import shutil
import subprocess
import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from orbax.checkpoint import v1 as ocp

from genbench.errors import UserError
from genbench.training import state as states
from genbench.training.checkpoint import Checkpoints, DamagedError, Retention
from genbench.training.loop import train


def state_of(step, size=4):
    return {'step': jnp.asarray(step), 'params': {'w': jnp.arange(size) + 0.5 * step}}


def saved(folder, steps, retention=None, scores=None):
    """A folder of checkpoints of these steps, all on disk, and the hash of the last."""
    checkpoints = Checkpoints(folder, retention)
    for step in steps:
        digest = checkpoints.save(step, state_of(step), (scores or {}).get(step))
    checkpoints.wait()
    checkpoints.close()
    return digest


@pytest.fixture
def folder(tmp_path):
    return tmp_path / 'run' / 'checkpoints'


def data_files(checkpoint):
    return [path for path in checkpoint.rglob('*') if path.is_file()]


def truncate(path):
    os.truncate(path, path.stat().st_size // 2)


def truncate_everything(checkpoint):
    for path in data_files(checkpoint):
        truncate(path)


def truncate_the_largest_file(checkpoint):
    truncate(max(data_files(checkpoint), key=lambda path: path.stat().st_size))


def change_the_stored_hash(checkpoint, digest):
    (holder,) = [path for path in data_files(checkpoint) if digest.encode() in path.read_bytes()]
    holder.write_bytes(holder.read_bytes().replace(digest.encode(), b'0' * len(digest)))


def newest(folder):
    checkpoints = Checkpoints(folder)
    try:
        return checkpoints.restore_latest(lambda step: state_of(0))
    finally:
        checkpoints.close()


def test_a_state_comes_back_as_it_was_saved(folder):
    digest = saved(folder, [3])
    step, state = newest(folder)
    assert step == 3
    assert states.sha256(jax.device_get(states.flatten(state))) == digest
    np.testing.assert_array_equal(state['params']['w'], state_of(3)['params']['w'])


def test_a_folder_without_checkpoints_restores_nothing(folder):
    assert newest(folder) is None


@pytest.mark.parametrize('damage', [truncate_everything, truncate_the_largest_file])
def test_a_damaged_newest_checkpoint_yields_to_the_one_before(folder, damage):
    saved(folder, [1, 2])
    damage(folder / '2')
    left = sum(path.stat().st_size for path in data_files(folder / '2'))
    with pytest.warns(UserWarning, match='Checkpoint 2 is damaged and was moved to'):
        step, state = newest(folder)
    assert (step, int(state['step'])) == (1, 1)
    (aside,) = (folder.parent / 'damaged').iterdir()
    assert sum(path.stat().st_size for path in data_files(aside)) == left


def test_the_hash_is_stored_and_checked(folder):
    digest = saved(folder, [1])
    change_the_stored_hash(folder / '1', digest)
    checkpoints = Checkpoints(folder)
    with pytest.raises(DamagedError, match='hash'):
        checkpoints.restore(state_of(0), 1)
    checkpoints.close()


def test_damage_twice_at_one_step_keeps_both(folder):
    for _ in range(2):
        saved(folder, [1, 2])
        truncate_everything(folder / '2')
        with pytest.warns(UserWarning, match='damaged'):
            newest(folder)
        shutil.rmtree(folder)
    assert len(list((folder.parent / 'damaged').iterdir())) == 2


@pytest.mark.parametrize(
    ('other', 'words'),
    [
        (state_of(0, size=5), r'params/w has shape \(4,\) there, but \(5,\) in this config'),
        ({**state_of(0), 'extra': jnp.zeros(1)}, 'it lacks extra'),
        ({'step': jnp.zeros((), jnp.int32)}, 'it has params/w, which this config does not'),
    ],
)
def test_what_does_not_fit_is_said_in_words(folder, other, words):
    saved(folder, [1])
    checkpoints = Checkpoints(folder)
    with pytest.raises(UserError, match=words):
        checkpoints.restore_latest(lambda step: other)
    checkpoints.close()
    assert (folder / '1').is_dir()


LOSSES = {1: 0.5, 2: 0.1, 3: 0.9, 4: 0.2, 5: 0.7, 6: 0.6}


@pytest.mark.parametrize(
    ('retention', 'kept'),
    [
        (Retention(2), [5, 6]),
        (Retention(1, every=2), [2, 4, 6]),
        (Retention(1, best=2, metric='net/loss'), [2, 4, 6]),
        (Retention(1, best=2, metric='net/loss', mode='max'), [3, 5, 6]),
        (Retention(2, every=3, best=1, metric='net/loss'), [2, 3, 5, 6]),
        (Retention(1, best=1, metric='net/loss', begins=(0, 2, 4)), [2, 4, 6]),
        (Retention(1, best=1, metric='net/loss', begins=(0, 1, 4)), [1, 2, 6]),
    ],
)
def test_what_is_kept(folder, retention, kept):
    saved(folder, LOSSES, retention, LOSSES)
    checkpoints = Checkpoints(folder)
    assert checkpoints.steps() == kept
    checkpoints.close()


def test_training_goes_on_from_before_the_damage(tiny, tmp_path):
    short, full = (tiny('gaussian', 'checkpoint.every=2', f'train.num_steps={steps}') for steps in (4, 6))
    train(short, tmp_path / 'damaged', quiet=True)
    truncate_everything(tmp_path / 'damaged' / 'checkpoints' / '4')
    with pytest.warns(UserWarning, match='Checkpoint 4 is damaged'):
        resumed = train(full, tmp_path / 'damaged', quiet=True)
    unbroken = train(full, tmp_path / 'unbroken', quiet=True)
    assert resumed.summary['state_sha256'] == unbroken.summary['state_sha256']


@pytest.mark.parametrize(
    ('error', 'reason'),
    [
        (OSError(errno.ENOSPC, 'No space left on device'), 'the disk is full'),
        (ValueError('RESOURCE_EXHAUSTED: Error writing "d/x": No space left on device'), 'the disk is full'),
        (PermissionError(errno.EACCES, 'Permission denied'), 'the folder cannot be written'),
    ],
)
def test_a_disk_that_refuses_is_one_sentence(folder, monkeypatch, error, reason):
    saved(folder, [1])

    def refuse(*_, **__):
        raise error

    monkeypatch.setattr(ocp.training.Checkpointer, 'save_async', refuse)
    checkpoints = Checkpoints(folder)
    with pytest.raises(UserError, match=f'could be saved in .*: {reason}. Earlier checkpoints: 1.'):
        checkpoints.save(2, state_of(2))
    assert checkpoints.steps() == [1]
    checkpoints.close()


@pytest.fixture
def small_disk(tmp_path):
    """A folder on a file system of three megabytes."""
    disk = tmp_path / 'disk'
    disk.mkdir()
    mount = ['mount', '-t', 'tmpfs', '-o', 'size=3m', 'genbench-test', str(disk)]
    try:
        done = subprocess.run(mount, capture_output=True, text=True, check=False)
    except OSError as error:
        pytest.skip(f'there is no mount: {error}')
    if done.returncode:
        pytest.skip(f'a small file system cannot be mounted here: {done.stderr.strip()}')
    yield disk
    subprocess.run(['umount', '--lazy', str(disk)], check=True)


def noise(size):
    return {'w': jnp.asarray(np.random.default_rng(0).normal(size=size), jnp.float32)}


def test_a_full_disk_leaves_the_older_checkpoints(small_disk):
    checkpoints = Checkpoints(small_disk / 'checkpoints')
    checkpoints.save(1, noise(100))
    checkpoints.wait()
    with pytest.raises(UserError, match='the disk is full. Earlier checkpoints: 1.'):
        checkpoints.save(2, noise(2_000_000))
        checkpoints.wait()
    checkpoints.close()
    again = Checkpoints(small_disk / 'checkpoints')
    np.testing.assert_array_equal(again.restore(noise(100), 1)['w'], noise(100)['w'])
    again.close()


def test_a_run_on_a_full_disk_ends_in_one_sentence(small_disk, tiny):
    """The covariances of ten classes do not fit."""
    config = tiny(
        'gaussian', 'family.conditional=true', 'checkpoint.every=1', 'checkpoint.keep=100', 'train.num_steps=60'
    )
    with warnings.catch_warnings(), pytest.raises(UserError, match='the disk is full'):
        warnings.simplefilter('ignore')
        train(config, small_disk / 'run', quiet=True)
    assert Checkpoints(small_disk / 'run' / 'checkpoints').steps()


def test_a_disk_that_is_full_of_other_things_ends_a_run_in_one_sentence(small_disk, tiny):
    """There is room for the config and a few rows of metrics."""
    (small_disk / 'filler').write_bytes(b'0' * (3 * 2**20 - 16 * 4096))
    with pytest.raises(UserError, match='disk is full'):
        train(tiny('gaussian', 'train.num_steps=500'), small_disk / 'run', quiet=True)

"""What a run refuses before it writes anything, and what it leaves behind when it does."""

import fcntl
import json
import shutil

import pytest

from genbench.errors import UserError
from genbench.evaluation import draw
from genbench.training import runs
from genbench.training.loop import train


@pytest.mark.parametrize(('family', 'override', 'words'), [
    ('vae', 'family.decoder=logit', 'family.decoder'),
    ('diffusion', 'optimizer.name=adm', 'Did you mean adam'),
    ('diffusion', 'evaluation.samplers=hoin:3', 'There is no sampler'),
    ('flow_matching', 'family.time_sampler=logit', 'no time sampler'),
    ('gan', 'network.multipliers=1,1,1,1,1', 'divisible by 16'),
])  # fmt: skip
def test_a_misnamed_value_is_found_before_the_folder_is_made(tiny, tmp_path, family, override, words):
    with pytest.raises(UserError, match=words):
        train(tiny(family, override), tmp_path / 'run', quiet=True)
    assert not (tmp_path / 'run').exists()


@pytest.mark.parametrize(
    'key', ['train.log_every', 'checkpoint.every', 'evaluation.batch_size', 'evaluation.vlb_draws']
)
def test_a_count_below_one_is_refused(tiny, key):
    with pytest.raises(UserError, match=f'{key} is 0; it should be at least 1'):
        tiny('diffusion', f'{key}=0')


def test_a_complete_run_takes_up_another_evaluation(tiny, tmp_path):
    train(tiny('gaussian'), tmp_path, quiet=True)
    again = train(tiny('gaussian', 'evaluation.seed=5'), tmp_path, quiet=True)
    assert again.already
    assert json.loads((tmp_path / 'config.json').read_text())['evaluation']['seed'] == 5


def test_an_unfinished_teacher_is_refused(tiny, diffusion_copy, tmp_path):
    summary = json.loads((diffusion_copy / 'summary.json').read_text())
    (diffusion_copy / 'summary.json').write_text(json.dumps({**summary, 'complete': False}))
    with pytest.raises(UserError, match='is not finished'):
        train(tiny('consistency', f'family.teacher={diffusion_copy}'), tmp_path / 'student', quiet=True)


def test_a_student_is_sampled_without_its_teacher_and_not_trained(tiny, diffusion_copy, tmp_path):
    """`genbench checkpoint export` makes copies that are trained (test_borrowed.py)."""
    options = [f'family.teacher={diffusion_copy}', 'network.name=none']
    train(tiny('consistency', 'train.num_steps=1', *options), tmp_path / 'student', quiet=True)
    shutil.rmtree(diffusion_copy)
    draw.draw_to_file(tmp_path / 'student', tmp_path / 'x.npz', count=2, sampler='', seed=0, given=())
    with pytest.raises(UserError, match='family.teacher: the borrowed run is no longer in .*diffusion'):
        train(tiny('consistency', 'train.num_steps=2', *options), tmp_path / 'student', quiet=True)


def test_two_processes_do_not_train_in_one_folder(tiny, tmp_path):
    runs.claim(runs.Folder(tmp_path), tiny('gaussian'))
    with (tmp_path / '.lock').open('w') as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        with pytest.raises(UserError, match='Another process is training'):
            train(tiny('gaussian'), tmp_path, quiet=True)


def test_a_run_whose_checkpoints_are_all_damaged_says_so_and_keeps_them(tiny, tmp_path):
    train(tiny('gaussian', 'train.num_steps=2'), tmp_path, quiet=True)
    for file in (tmp_path / 'checkpoints').rglob('*'):
        if file.is_file():
            file.write_bytes(b'')
    with pytest.warns(UserWarning, match='damaged'), pytest.raises(UserError, match='No checkpoint .* can be read'):
        train(tiny('gaussian', 'train.num_steps=4'), tmp_path, quiet=True)
    assert list((tmp_path / 'damaged').iterdir())


def test_streamed_and_resident_data_train_the_same_run(tiny, tmp_path):
    """The order of images is a function of seed and step alone, however they reach the device."""
    ends = [
        train(tiny('vae', f'data.resident_bytes={size}'), tmp_path / str(size), quiet=True).summary['state_sha256']
        for size in (0, 10**9)
    ]
    assert ends[0] == ends[1]

"""The command line: every mistake is one line and status 2; an interrupted run goes on by the same command."""

import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from PIL import Image

from genbench import cli
from genbench import config as configs
from genbench.training.loop import train
from genbench.training.metrics import read_rows

pytestmark = pytest.mark.unoptimized


@pytest.fixture
def complaint(capsys):
    """`complaint(words)` → the one line that a mistaken command writes, without its prefix."""

    def run(*words):
        status = cli.main([str(word) for word in words])
        lines = capsys.readouterr().err.splitlines()
        assert status == 2, lines
        assert len(lines) == 1, lines
        prefix, _, message = lines[0].partition(' ')
        assert prefix == 'genbench:'
        return message

    return run


@pytest.fixture
def gaussian_file(tiny, config_file):
    return config_file(tiny('gaussian'))


def test_a_config_file_that_is_not_there(complaint, tmp_path):
    (tmp_path / 'diffusion.py').write_text('')
    message = complaint('train', f'--config={tmp_path}/difusion.py', f'--workdir={tmp_path}/run')
    assert f'no config file {tmp_path}/difusion.py' in message
    assert f'Did you mean {tmp_path}/diffusion.py?' in message


@pytest.mark.parametrize(
    ('text', 'words'),
    [
        ('def get_config(:\n', 'SyntaxError'),
        ('import nowhere_to_be_found\n', 'ModuleNotFoundError'),
        ('def get_config():\n    raise ValueError("one\\ntwo")\n', 'ValueError'),
        ('CONFIG = {}\n', 'does not define get_config()'),
        ('def get_config():\n    return 3\n', 'should return a ConfigDict'),
        ('def get_config():\n    return {"family": {"name": "vea"}}\n', "There is no family 'vea'"),
        ('def get_config():\n    return {"train": {}}\n', 'Set family.name'),
        ('def get_config():\n    return {"family": "gan"}\n', 'family'),
    ],
)
def test_a_config_file_that_is_wrong(complaint, tmp_path, text, words):
    (tmp_path / 'config.py').write_text(text)
    assert words in complaint('train', f'--config={tmp_path}/config.py', f'--workdir={tmp_path}/run')


@pytest.mark.parametrize(
    ('override', 'words'),
    [
        ('train.num_step=5', 'Did you mean train.num_steps'),
        ('train.num_steps=many', "train.num_steps expects an integer; got 'many'"),
        ('train.num_steps', 'has no value'),
        ('train.batch_size=0', 'train.batch_size is 0'),
        ('data.name=digit', "There is no data set 'digit' (data.name). Did you mean digits"),
    ],
)
def test_an_override_that_is_wrong(complaint, gaussian_file, tmp_path, override, words):
    command = ['train', f'--config={gaussian_file}', f'--workdir={tmp_path}/run', f'--config.{override}']
    assert words in complaint(*command)


@pytest.mark.parametrize(
    ('family', 'override', 'words'),
    [
        ('vae', 'family.decoder=poisson', "There is no decoder 'poisson' (family.decoder)"),
        ('vae', 'optimizer.name=adm', "There is no optimizer 'adm'"),
        ('diffusion', 'family.schedule=cosin', 'cosine'),
        ('diffusion', 'family.prediction=y', 'prediction'),
        ('diffusion', 'network.multipliers=1,2,2,2,2', 'divisible by 16'),
    ],
)
def test_a_choice_that_does_not_exist(complaint, tiny, config_file, tmp_path, family, override, words):
    config = config_file(tiny(family))
    assert words in complaint('train', f'--config={config}', f'--workdir={tmp_path}/run', f'--config.{override}')


def test_a_data_folder_that_is_not_there(complaint, gaussian_file, tmp_path):
    message = complaint('train', f'--config={gaussian_file}', f'--workdir={tmp_path}/run',
                        '--config.data.name=mnist', f'--config.data.data_dir={tmp_path}/nowhere')  # fmt: skip
    assert f'The data folder {tmp_path}/nowhere (data.data_dir) does not exist' in message


def test_data_that_is_not_prepared_names_the_command(complaint, gaussian_file, tmp_path):
    message = complaint('train', f'--config={gaussian_file}', f'--workdir={tmp_path}/run',
                        '--config.data.name=mnist', f'--config.data.data_dir={tmp_path}')  # fmt: skip
    assert f'genbench data prepare mnist --data_dir={tmp_path}' in message


@pytest.mark.parametrize(
    ('teacher', 'words'), [('', 'family.teacher is not a run'), ('nowhere', 'nowhere is not a run')]
)
def test_a_teacher_that_is_not_there(complaint, tiny, config_file, tmp_path, teacher, words):
    config = config_file(tiny('consistency', f'family.teacher={tmp_path / teacher if teacher else ""}'))
    assert words in complaint('train', f'--config={config}', f'--workdir={tmp_path}/run')


@pytest.mark.parametrize(
    ('lender', 'words'),
    [(('gaussian',), 'no path from noise to data'), (('diffusion', 'family.prediction=x'), "predicts 'x'")],
)
def test_a_teacher_that_does_not_fit(complaint, tiny, config_file, tmp_path, lender, words):
    train(tiny(*lender, 'train.num_steps=1'), tmp_path / 'teacher', quiet=True)
    config = config_file(tiny('consistency', f'family.teacher={tmp_path}/teacher'))
    assert words in complaint('train', f'--config={config}', f'--workdir={tmp_path}/run')


def test_a_workdir_of_another_config(complaint, tiny, config_file, diffusion_run):
    config = config_file(tiny('diffusion', 'optimizer.learning_rate=0.5'))
    message = complaint('train', f'--config={config}', f'--workdir={diffusion_run}')
    assert 'optimizer.learning_rate is 0.001 there, but 0.5 here' in message


@pytest.mark.parametrize('below', ['', '/run'])
def test_a_workdir_with_a_file_in_the_way(complaint, gaussian_file, tmp_path, below):
    (tmp_path / 'file').write_text('mine')
    assert 'cannot be written' in complaint('train', f'--config={gaussian_file}', f'--workdir={tmp_path}/file{below}')
    assert (tmp_path / 'file').read_text() == 'mine'


@pytest.mark.parametrize(
    ('words', 'message'),
    [
        (('evaluate', '{tmp}/none'), 'is not a run'),
        (('sample', '{tmp}/none', '--out={tmp}/x.png'), 'is not a run'),
        (('report', '{tmp}/none'), 'is neither a study'),
        (('run', '{tmp}/none.py', '--out={tmp}/out'), 'There is no study file'),
        (('config', 'diff', '{tmp}/none', '{tmp}/none'), 'no config file'),
        (('data', 'prepare', 'digit'), 'Did you mean digits'),
        (('data', 'list', '--config.train.seed=1'), 'takes no --config.KEY=VALUE'),
    ],
)
def test_what_is_not_there(complaint, tmp_path, words, message):
    assert message in complaint(*(word.format(tmp=tmp_path) for word in words))


@pytest.mark.parametrize(
    ('text', 'words'),
    [
        ('x = 1\n', 'does not define get_study()'),
        ('def get_study():\n    return 1\n', 'should return a Study'),
        ('def get_study(:\n', 'SyntaxError'),
        ('def get_study():\n    raise KeyError("lost")\n', 'KeyError'),
    ],
)
def test_a_study_that_is_wrong(complaint, tmp_path, text, words):
    (tmp_path / 'study.py').write_text(text)
    assert words in complaint('run', f'{tmp_path}/study.py', f'--out={tmp_path}/out')


@pytest.mark.parametrize(
    ('words', 'message'),
    [
        (('--out={tmp}/x.jpg',), 'should end in .png or .npz'),
        (('--out={tmp}/x.png', '--count=0'), 'at least 1'),
        (('--out={tmp}/x.png', '--sampler=dimm:3'), 'ddim'),
        (('--out={tmp}/x.png', '--given=label=3'), 'family.conditional'),
        (('--out={tmp}/x.png', '--caption=a seven'), '--given caption=a seven: this run was trained without'),
        (('--out={tmp}/file/x.png',), 'cannot be written'),
    ],
)
def test_samples_that_cannot_be_drawn(complaint, diffusion_run, tmp_path, words, message):
    (tmp_path / 'file').write_text('')
    assert message in complaint('sample', diffusion_run, *(word.format(tmp=tmp_path) for word in words))


def test_help_is_quick_and_imports_no_jax():
    code = (
        'import sys, time\n'
        'from genbench import cli\n'
        'try:\n    cli.main(["--help"])\nexcept SystemExit as end:\n    status = end.code\n'
        'heavy = {"jax", "flax", "numpy", "ml_collections", "tensorflow_datasets"} & set(sys.modules)\n'
        'print(status, sorted(heavy), time.process_time() < 1)\n'
    )
    done = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == '0 [] True'


def start(config, workdir):
    words = [sys.executable, '-m', 'genbench', 'train', f'--config={config}', f'--workdir={workdir}']
    return subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def wait_for_row(process, path):
    """Until the run has logged its first step."""
    deadline = time.monotonic() + 120
    while not read_rows(path) and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.01)
    assert process.poll() is None, process.communicate()


@pytest.mark.parametrize(
    ('words', 'message'),
    [
        (('train', '--confg=x.py'), 'does not understand --confg=x.py. Did you mean --config'),
        (('evaluate', 'x', 'y', 'z'), 'does not understand y z.'),
        (('trian',), "There is no verb 'trian'. Did you mean train?"),
        (('completion', 'fihs'), "There is no shell 'fihs'. Did you mean fish?"),
        (('data', 'shwo'), "There is no action 'shwo'. Did you mean show?"),
        (('run', 'x.py', '--out=y', '--launcher=slrum'), "There is no --launcher 'slrum'. Did you mean slurm?"),
        ((), 'the following arguments are required: VERB. See genbench --help.'),
        (('train', '--workdir'), 'expected one argument. See genbench train --help.'),
        (('train', '--workdir=x'), 'needs a config'),
        (('train', '--config=x.py'), 'needs a run folder'),
        (('train', '--workdir=x', '--config=x.py', '--profile=9:3'), 'write START:STOP'),
        (('train', '--workdir={tmp}/x', '--replay=3'), 'is not a run'),
        (('train', '--workdir=x', '--replay=3', '--config.train.seed=1'), 'remove --config.KEY=VALUE'),
        (('checkpoint', 'show', '{tmp}/x'), 'is not a run'),
    ],
)
def test_flags_that_are_wrong(complaint, tmp_path, words, message):
    said = complaint(*(word.format(tmp=tmp_path) for word in words))
    assert message in said or message[:1].upper() + message[1:] in said


@pytest.mark.parametrize('number', [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_run_is_saved_and_goes_on(tiny, config_file, tmp_path, number):
    steps = 3000
    config, run = config_file(tiny('gaussian', f'train.num_steps={steps}')), tmp_path / 'run'
    process = start(config, run)
    wait_for_row(process, run / 'metrics.jsonl')
    process.send_signal(number)
    out, err = process.communicate(timeout=120)
    assert process.returncode == cli.INTERRUPTED == 75, err
    assert 'Stopped at step' in out
    assert 'Traceback' not in err
    (saved,) = [int(path.name) for path in (run / 'checkpoints').iterdir() if path.name.isdigit()]
    assert 0 < saved < steps
    process = start(config, run)
    out, err = process.communicate(timeout=240)
    assert process.returncode == 0, err
    assert [row['step'] for row in read_rows(run / 'metrics.jsonl')] == list(range(1, steps + 1))


def test_a_complete_run_says_so(tiny, config_file, diffusion_run, capsys):
    config = config_file(tiny('diffusion', 'checkpoint.every=2'))
    assert cli.main(['train', f'--config={config}', f'--workdir={diffusion_run}']) == 0
    assert f'{diffusion_run} is complete: 4 steps' in capsys.readouterr().out


def test_train_and_evaluate_say_what_they_did(gaussian_file, tmp_path, capsys):
    assert cli.main(['train', f'--config={gaussian_file}', f'--workdir={tmp_path}/run']) == 0
    assert f'Next: genbench evaluate {tmp_path}/run' in capsys.readouterr().out
    evaluate = ['evaluate', f'{tmp_path}/run', '--config.evaluation.metrics=likelihood']
    assert cli.main(evaluate) == 0
    assert 'bits_per_dim (density_1)' in capsys.readouterr().out
    assert cli.main(evaluate) == 0
    assert 'already has all of these rows' in capsys.readouterr().out


def test_show_prints_every_key_and_the_hash(tiny, gaussian_file, capsys):
    assert cli.main(['config', 'show', f'--config={gaussian_file}', '--config.train.seed=7']) == 0
    lines = capsys.readouterr().out.splitlines()
    config = tiny('gaussian', 'train.seed=7')
    assert lines[:-1] == [f'{key} = {value!r}' for key, value in configs.flatten(config)]
    assert lines[-1] == f'# hash {configs.config_hash(config)}'


def test_an_override_may_have_its_value_as_the_next_word(gaussian_file, capsys, complaint):
    words = ['config', 'show', f'--config={gaussian_file}', '--config.optimizer.weight_decay']
    assert cli.main([*words, '1e-3', '--config.train.seed', '7']) == 0
    lines = capsys.readouterr().out.splitlines()
    assert 'train.seed = 7' in lines and 'optimizer.weight_decay = 0.001' in lines
    assert 'has no value' in complaint(*words)
    assert 'has no value' in complaint(*words, '--config.train.seed=7')


def test_diff_compares_files_and_runs(tiny, config_file, diffusion_run, capsys):
    other = config_file(tiny('diffusion', 'checkpoint.every=2', 'train.seed=3'))
    assert cli.main(['config', 'diff', str(diffusion_run), str(other)]) == 0
    assert capsys.readouterr().out == 'train.seed: 0 → 3\n'


def test_the_embedded_data_set_is_listed(capsys):
    assert cli.main(['data', 'list']) == 0
    assert any(line.split()[0] == 'digits' for line in capsys.readouterr().out.splitlines())


def test_samples_are_written_as_a_picture_and_as_an_array(diffusion_run, tmp_path):
    for name in ('a.png', 'a.npz', 'b.npz'):
        assert (
            cli.main(['sample', str(diffusion_run), f'--out={tmp_path}/{name}', '--count=7', '--sampler=ddim:2']) == 0
        )
    with Image.open(tmp_path / 'a.png') as picture:
        assert picture.mode == 'RGB'
    images = np.load(tmp_path / 'a.npz')['images']
    assert images.shape == (7, 8, 8, 1)
    assert images.dtype.kind in 'iu'
    assert 0 <= images.min() <= images.max() <= 16
    np.testing.assert_array_equal(images, np.load(tmp_path / 'b.npz')['images'])


def test_the_module_is_the_command():
    done = subprocess.run(
        [sys.executable, '-m', 'genbench', '--version'], capture_output=True, text=True, check=True, env=os.environ
    )
    assert done.stdout.startswith('genbench ')


def test_protocols_are_compared_row_by_row(diffusion_copy, capsys):
    words = ['evaluate', str(diffusion_copy), '--grid=steps=1,2', '--config.evaluation.metrics=fd']
    assert cli.main([*words, '--config.evaluation.num_samples=32', '--config.evaluation.features.name=pixels']) == 0
    capsys.readouterr()
    assert cli.main(['compare-protocols', f'{diffusion_copy}:1', f'{diffusion_copy}:2']) == 0
    out = capsys.readouterr().out
    assert 'steps: 1 → 2' in out and 'You may rank them' in out


@pytest.mark.parametrize('flag', ['--data_dir', '--data-dir'])
@pytest.mark.parametrize('verb', [('data', 'list'), ('data', 'prepare', 'mnist'), ('verify', '--all')])
def test_the_folder_of_data_has_one_flag_in_two_spellings(verb, flag, complaint, tmp_path):
    message = complaint(*verb, f'{flag}={tmp_path}', '--no-such-flag')
    assert 'understand --no-such-flag' in message  # the complaint names every flag that it does not understand

"""Trials as jobs of a real SLURM: one machine, started and stopped by the tests."""

import json
import subprocess

import pytest

from genbench import cli, startup
from genbench.errors import UserError
from genbench.studies import state
from genbench.studies.launchers import slurm, squeue
from genbench.training import mesh
from genbench.training.metrics import read_rows

LONG = ('train.num_steps=1500', 'evaluation.metrics=fd')
SHORT = ('evaluation.metrics=fd',)


def summary(folder):
    return json.loads((folder / 'summary.json').read_text())


def finish(process, seconds=270):
    """(exit status, what it printed to both)."""
    out, err = process.communicate(timeout=seconds)
    return process.returncode, out + err


@pytest.fixture
def clean(cluster):
    """The cluster, without jobs of other tests."""
    yield cluster
    cluster.ask('scancel', '--user=root')


@pytest.mark.slow
def test_an_array_with_a_requeued_trial_ends_as_if_it_had_not_been(
    clean, tiny, study_file, start, statuses, wait, wait_for_step, tmp_path
):
    trials = {
        'broken': (tiny('vae', 'train.log_every=10', *LONG), {}),
        'unbroken': (tiny('vae', 'train.log_every=20', *LONG), {}),
        'floor': (tiny('gaussian', *SHORT), {}),
        'last': (tiny('gaussian', 'train.seed=3', *SHORT), {'after': ('floor',)}),
    }
    out, words = tmp_path / 'out', ('--launcher=slurm', '--partition=main', '--time=10', '--cpus=1')
    command = ('run', study_file(trials), '--out', out, *words)
    assert finish(start(*command, '--no-wait'))[0] == 0
    broken = out / 'trials' / 'broken'
    number = state.read(broken)['job'].removeprefix('slurm:')
    assert number.endswith('_0') and state.read(out / 'trials' / 'floor')['job'] == f'slurm:{number[:-2]}_2'
    assert statuses(out)['last']['reason'].startswith('waits for the trials it builds on')
    waiting = start(*command)  # joins the jobs that are there
    wait_for_step(broken, 20, 200)
    clean.ask('scontrol', 'requeue', number)
    wait(lambda: state.read(broken)['state'] == 'preempted', 'the end of the first attempt')
    stopped = state.read(broken)['step']
    assert 20 <= stopped < 1500
    wait(lambda: clean.job(number).get('Restarts') == '1', 'the requeue')
    clean.ask('scontrol', 'update', f'jobid={number}', 'StartTime=now')  # SLURM may wait two minutes
    code, said = finish(waiting)
    assert code == 0, said
    assert {row['state'] for row in statuses(out).values()} == {'done'}
    assert clean.job(number)['Restarts'] == '1'
    assert [state.read(out / 'trials' / name)['attempts'] for name in ('broken', 'unbroken')] == [2, 1]
    steps = [row['step'] for row in read_rows(broken / 'metrics.jsonl')]
    assert steps == sorted(set(steps)) and set(range(10, 1501, 10)) <= set(steps)
    assert [row['step'] for row in read_rows(broken / 'starts.jsonl')] == [0, stopped]
    assert summary(broken)['state_sha256'] == summary(out / 'trials' / 'unbroken')['state_sha256']
    rows = [json.loads(line) for line in (broken / 'results.jsonl').read_text().splitlines()]
    keys = [(row['metric'], row['checkpoint_step'], row['config_hash'], row['protocol_hash']) for row in rows]
    assert rows and len(keys) == len(set(keys)) and (out / 'report.html').is_file()


@pytest.mark.slow
def test_a_job_whose_time_is_over_puts_itself_back_into_the_queue(clean, tiny, make_job, wait, wait_for_step, tmp_path):
    job = make_job('a', tiny('vae', 'train.log_every=10', *LONG))
    launcher = slurm.Slurm(tmp_path, slurm.Options({'time': '10'}, wait=False))
    assert launcher.launch([job]) is True
    number = job.status['job'].removeprefix('slurm:')
    wait_for_step(job.folder.path, 20, 200)
    clean.ask('scancel', '--signal=USR2', number)  # as SLURM does before the time is over
    wait(lambda: clean.job(number).get('Restarts') == '1', 'the requeue')
    assert job.status['state'] == 'preempted' and job.status['step'] >= 20


@pytest.mark.slow
def test_a_cancelled_job_is_marked_in_words(clean, tiny, make_job, wait, wait_for_step, tmp_path):
    job = make_job('a', tiny('vae', 'train.log_every=10', *LONG))
    slurm.Slurm(tmp_path, slurm.Options(wait=False)).launch([job])
    wait_for_step(job.folder.path, 20, 200)
    subprocess.run(['scancel', job.status['job'].removeprefix('slurm:')], check=True)
    launcher = slurm.Slurm(tmp_path)
    wait(lambda: launcher._settle(job, squeue.read(), 0), 'the end')
    assert job.status['state'] == 'failed'
    assert job.status['reason'].startswith('its job was cancelled; run the study again to continue from step ')


@pytest.mark.slow
def test_processes_of_one_trial_train_and_evaluate_together(clean, tiny, make_job, tmp_path):
    config = tiny('vae', 'train.num_steps=20', *SHORT)
    job = make_job('a', config)
    options = slurm.Options({'nodes': '1', 'ntasks-per-node': '2', 'cpus': '1'})
    assert slurm.Slurm(tmp_path, options).launch([job]) is False
    assert job.done, (job.status, (job.folder.path / 'log.txt').read_text())
    each = mesh.fitting(config, min(startup.cores(), startup.MOST_CPU_DEVICES))
    assert summary(job.folder.path)['devices'] == 2 * each
    assert {row['metric'] for row in read_rows(job.folder.results)} >= {'fd'}
    assert len(list((job.folder.path / 'evaluation').glob('samples/*/*.npz'))) == 2  # each keeps what it has drawn


@pytest.mark.slow
def test_a_trial_that_fails_cancels_what_builds_on_it(clean, tiny, make_job, tmp_path):
    jobs = [make_job('bad', tiny('vae', 'family.decoder=poisson')), make_job('next', tiny('gaussian'), after=('bad',))]
    assert slurm.Slurm(tmp_path).launch(jobs) is False
    assert jobs[0].status['state'] == 'failed' and 'poisson' in jobs[0].status['reason']
    assert (jobs[1].status['state'], jobs[1].status['reason']) == ('failed', 'it builds on bad, which failed')


@pytest.mark.slow
def test_a_job_that_never_starts_says_why(clean, tiny, study_file, start, statuses, tmp_path):
    out = tmp_path / 'out'
    command = ('run', study_file({'a': (tiny('gaussian', *SHORT), {})}), '--out', out, '--launcher=slurm')
    code, said = finish(start(*command, '--partition=closed', '--start-timeout=0.05'))
    assert code == 2, said
    assert 'did not start within 3 s and was cancelled: it waits for its partition, which is down' in said
    assert clean.ask('squeue', '--noheader', '--states=pending').strip() == ''
    assert statuses(out)['a']['state'] == 'failed'
    code, said = finish(start(*command, '--partition=nowhere'))
    assert code == 2 and 'SLURM rejected the jobs: invalid partition specified: nowhere' in said, said


def test_no_sbatch_on_the_path_is_one_line(tiny, study_file, monkeypatch, capsys, tmp_path):
    monkeypatch.setenv('PATH', str(tmp_path))
    file = study_file({'a': (tiny('gaussian'), {})})
    assert cli.main(['run', file, '--out', str(tmp_path / 'out'), '--launcher=slurm']) == 2
    assert 'needs sbatch and srun on the PATH' in capsys.readouterr().err
    assert not (tmp_path / 'out').exists()


@pytest.mark.parametrize(
    ('words', 'message'),
    [
        (['--partition=gpu'], '--partition is for a cluster; add --launcher=slurm'),
        (['--no-wait'], '--no-wait is for a cluster'),
        (['--slurm=mem'], "--slurm is 'mem'; write KEY=VALUE"),
    ],
)
def test_flags_that_do_not_fit_are_one_line(tiny, study_file, capsys, tmp_path, words, message):
    file = study_file({'a': (tiny('gaussian'), {})})
    assert cli.main(['run', file, '--out', str(tmp_path / 'out'), *words]) == 2
    assert message in capsys.readouterr().err


def test_a_number_that_is_none_is_told_before_anything_is_submitted():
    with pytest.raises(UserError, match="gpus of a SLURM job is 'two'"):
        slurm._check({'gpus': 'two'})


def test_a_cluster_that_does_not_answer_is_not_taken_for_an_empty_one(tiny, make_job, tmp_path, monkeypatch):
    monkeypatch.setattr(slurm.shutil, 'which', lambda name: f'/usr/bin/{name}')
    monkeypatch.setattr(squeue, 'read', lambda: None)
    job = make_job('a', tiny('gaussian', *SHORT))
    before = job.status
    with pytest.raises(UserError, match='does not answer'):
        slurm.Slurm(tmp_path).launch([job])
    assert job.status == before


@pytest.mark.slow
def test_a_family_outside_the_repository_goes_through_a_study_and_its_page(clean, start, tmp_path, monkeypatch):
    """The project of `genbench init`, submitted from a folder that knows nothing of it."""
    empty, project, out = (tmp_path / name for name in ('empty', 'outer', 'out'))
    empty.mkdir()
    monkeypatch.chdir(empty)
    assert finish(start('init', 'outer', '--out', project))[0] == 0
    study = project / 'experiments' / 'learning_rates.py'
    study.write_text(study.read_text().replace('seeds=(0, 1)', 'seeds=(0,)'))
    words = ('--launcher=slurm', '--partition=main', '--time=10', '--cpus=1', '--config.train.num_steps=20',
             '--config.evaluation.metrics=likelihood')  # fmt: skip
    code, said = finish(start('run', study, '--out', out, *words))
    assert code == 0 and '2 of 2 trials done' in said, said
    trials = [out / 'trials' / f'learning_rate={rate}' for rate in ('0.03', '0.003')]
    assert [state.read(trial)['job'].startswith('slurm:') for trial in trials] == [True, True]
    for trial in trials:
        manifest = json.loads((trial / 'manifest.json').read_text())
        assert manifest['family'] == 'outer' and list(manifest['modules']) == ['outer']
        rows = {row['metric']: row for row in read_rows(trial / 'results.jsonl')}
        assert rows['bits_per_dim']['kind'] == 'exact'
    page = (out / 'report.html').read_text()
    assert 'learning_rate=0.003' in page and 'Bits per dimension' in page and 'failed' not in said

"""Run what is missing of a study, several trials at a time, each in a process of its own."""

import json
import pathlib
import subprocess

from genbench import config as configs
from genbench.errors import UserError, explained_disk_errors
from genbench.studies import study as studies
from genbench.studies.job import Job
from genbench.studies.launchers.base import worker
from genbench.studies.launchers.local import Local
from genbench.training.files import write_atomically
from genbench.training.metrics import read_rows
from genbench.training.runs import Folder, commit


@explained_disk_errors()
def run(path: str, out: str, *, jobs: int = 0) -> bool:
    """Train and evaluate the trials of a study that are not done, then write its results and its page.

    Returns:
      True when everything is done, False when it was interrupted; the same call goes on from there.

    Raises:
      UserError: before anything starts, for a config that does not resolve; at the end, for trials that failed.
    """
    study, folder = studies.load(path), pathlib.Path(out)
    trials = folder / 'trials'
    try:
        trials.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f'The study folder {folder} cannot be written: {error.strerror}.') from None
    queue = [Job(trial, studies.resolve(trial, trials), Folder(trials / trial.name)) for trial in study.trials]
    for job in queue:
        job.folder.path.mkdir(exist_ok=True)
        if not job.done:
            write_atomically(job.wanted, configs.to_json(job.config))
    _describe(folder, study, path)
    if not (folder / 'real.jsonl').is_file() or not all(job.done for job in queue):
        _score_real(folder, queue)
    interrupted = Local(jobs).launch(queue)
    _collect(folder, queue)
    from genbench.report import page

    written = page.write(str(folder))
    if interrupted:
        print(f'Stopped and saved; the same command goes on from there. So far: {written}')
        return False
    failed = [job for job in queue if not job.done]
    if failed:
        first = failed[0]
        raise UserError(f'{len(failed)} of {len(queue)} trials failed; {first.trial.name}: {first.status["reason"]} '
                        f'(log: {first.folder.path / "log.txt"}). The page {written} shows the rest.')  # fmt: skip
    print(f'{len(queue)} trials done: {written}')
    return True


def _describe(folder: pathlib.Path, study: studies.Study, path: str) -> None:
    description = {
        'title': study.title,
        'claim': study.claim,
        'study': path,
        'trials': [trial.name for trial in study.trials],
        'command': f'genbench run {path} --out {folder}',
        'commit': commit(),
    }
    write_atomically(folder / 'study.json', json.dumps(description, indent=2) + '\n')


def _score_real(folder: pathlib.Path, queue: list[Job]) -> None:
    """The floor: test images scored as if they were samples, once for each data set of the study.

    In a process of its own: an accelerator belongs to the first process that asks for it, and trials come after.
    """
    command = worker('real', '', folder / 'real.jsonl', *[job.wanted for job in queue])
    done = subprocess.run(command, stdin=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, check=False)
    if done.returncode:
        raise UserError(f'Real images cannot be scored: {done.stderr.strip().splitlines()[-1]}')


def _collect(folder: pathlib.Path, queue: list[Job]) -> None:
    """results.jsonl of the study: the rows of all trials, each with its trial's name."""
    rows = [{'trial': 'real', **row} for row in read_rows(folder / 'real.jsonl')]
    for job in queue:
        rows += [{'trial': job.trial.name, **row} for row in read_rows(job.folder.results)]
    write_atomically(folder / 'results.jsonl', ''.join(json.dumps(row) + '\n' for row in rows))

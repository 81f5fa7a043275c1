"""Run the missing trials of a study, then collect all rows and write its page."""

import contextlib
import json
import pathlib
import shlex
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from genbench import mirror, startup
from genbench.errors import UserError, explained_disk_errors
from genbench.evaluation import results
from genbench.reading import check_entries, read_json_if_any
from genbench.studies import plan as plans
from genbench.studies import study as studies
from genbench.studies.launchers.base import Launcher
from genbench.studies.launchers.local import Local
from genbench.studies.plan import Plan, Planned
from genbench.studies.study import Study
from genbench.training.files import write_atomically
from genbench.training.installed import commit
from genbench.training.topologies import Target

FILES = ('study.json', 'results.jsonl', 'real.jsonl', 'budget.json', 'index.html', '.lock')  # the files of a study


@explained_disk_errors()
def run(
    path: str,
    out: str,
    overrides: Sequence[str] = (),
    *,
    jobs: int = 0,
    make_launcher: Callable[[Study, pathlib.Path], Launcher] | None = None,
    dry_run: bool = False,
    only: str = '',
    retry_failed: bool = False,
    limit: int = 0,
    rerun_changed: bool = False,
    target: Target | None = None,
) -> bool:
    """Train and evaluate the unfinished trials of a study, then write its results and its page.

    Args:
      overrides: 'key=value' for every trial, applied after its own.
      jobs: trials at a time on this machine, if no launcher is given; 0 for as many as fit.
      make_launcher: a function from the study and its folder to the launcher.
      dry_run: print what would run, and leave the folder unchanged.
      target: devices that this machine lacks. A dry run also compiles the chosen trials for them.
      only, retry_failed, limit: run fewer trials (`plan.Plan.select`).
      rerun_changed: run finished trials again if their code has changed. The old ones are set aside.

    Returns:
      True if everything chosen is done. False if it was interrupted; the same call then continues.

    Raises:
      UserError: before anything starts, if the study cannot be run; at the end, if trials failed.
    """
    study, folder = studies.load(path, overrides), pathlib.Path(out)
    check_folder(folder, path)
    launcher = make_launcher(study, folder) if make_launcher else Local(jobs, len(study.trials))
    plan = plans.make(study, folder, cores=_cores_each(study, jobs), rerun_changed=rerun_changed)
    chosen = plan.select(only, retry_failed, limit)
    if dry_run:
        from genbench.studies import preview

        print('\n'.join(preview.lines(plan, chosen)))
        if target is not None:
            print('\n'.join(['', *preview.elsewhere(plan, chosen, target)]))
        return True
    try:
        (folder / 'trials').mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f'The study folder {folder} cannot be written: {error.strerror}.') from None
    with _alone(folder):
        for line in plans.remarks(plan, chosen):
            print(f'genbench: {line}', file=sys.stderr, flush=True)
        plans.begin(plan, chosen)
        _describe(plan, path, overrides)
        return _work(plan, chosen, launcher)


@contextlib.contextmanager
def _alone(folder: pathlib.Path) -> Iterator[None]:
    """Hold a study's folder for this command. Raise a UserError if another command is working there."""
    import fcntl

    with (folder / '.lock').open('w') as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UserError(f'Another genbench run is working in {folder}; see genbench status {folder}') from None
        except OSError:  # the file system has no locks, but trials still lock their own folders
            pass
        yield


def _work(plan: Plan, chosen: Sequence[Planned], launcher: Launcher) -> bool:
    folder = plan.folder
    floor = _floor(plan) if chosen or not (folder / 'real.jsonl').is_file() else []
    queue = [plans.job(one) for one in chosen]
    from genbench.report import collect as records
    from genbench.report import page, summary

    try:
        interrupted = launcher.launch(queue, floor)
    finally:  # collect and show finished trials, whatever went wrong
        collect(plan)
        written = mirror.named(str(page.write(str(folder))))
        for line in summary.lines(records.read(folder)):
            print(line)
    if interrupted:
        print(f'{launcher.interruption} Results so far: {written}')
        return False
    failed = [job for job in queue if not job.done]
    if failed:
        first = failed[0]
        raise UserError(f'{len(failed)} of {len(plan.trials)} trials failed. {first.name}: {first.status["reason"]} '
                        f'(log: {first.folder.path / "log.txt"}). The page {written} shows the rest.')  # fmt: skip
    done = sum(plans.job(one).done for one in plan.trials)
    rest = f'; {len(plan.trials) - done} were not selected' if done < len(plan.trials) else ''
    print(f'{done} of {len(plan.trials)} trials done{rest}: {written}')
    return True


def _cores_each(study: Study, jobs: int) -> int:
    """Processors that each trial gets on this machine while others run."""
    return max(1, startup.cores() // min(len(study.trials), jobs or startup.cores()))


def check_folder(folder: pathlib.Path, path: str) -> None:
    """Refuse a folder that belongs to another study or to a run."""
    check_entries(folder, FILES, ('trials',))
    if (folder / 'manifest.json').is_file():
        raise UserError(f'{folder} is a run, not a study; choose another --out.')
    found = read_json_if_any(folder / 'study.json', {'study': str}, 'Delete it; this command will write it again.')
    there = found['study'] if found else path
    if pathlib.Path(there).stem != pathlib.Path(path).stem:
        raise UserError(f'{folder} has the study {there}, not {path}; choose another --out.')


def _describe(plan: Plan, path: str, overrides: Sequence[str]) -> None:
    study = plan.study
    out = mirror.named(str(plan.folder))
    words = ['genbench', 'run', path, '--out', out, *(f'--config.{text}' for text in overrides)]
    description = {
        'title': study.title,
        'claim': study.claim,
        'study': path,
        'trials': [one.name for one in plan.trials],
        'variants': {one.name: one.trial.variant for one in plan.trials},
        'tests': [test.values() for test in study.tests],
        'baseline': study.baseline,
        'figures': list(study.figures),
        'budget': study.budget.values() if study.budget else None,
        'matched': {one.name: one.matched for one in plan.trials if one.matched},
        'command': shlex.join(words),
        'commit': commit(),
    }
    write_atomically(plan.folder / 'study.json', json.dumps(description, indent=2) + '\n')


def _floor(plan: Plan) -> list[str]:
    """Arguments of the worker that scores test images as if they were samples, once per data set of the study."""
    wanted = [path for one in plan.trials if (path := plans.job(one).wanted).is_file()]
    return ['real', '', *(str(path.absolute()) for path in (plan.folder / 'real.jsonl', *wanted))]


def collect(plan: Plan) -> None:
    """Write the study's results.jsonl: the rows of all trials, each with its trial and what sets that apart."""
    name, settings = plan.folder.resolve().name, plan.settings()
    bound: dict[str, Any] = {'study': name, 'seed': None, 'trial_id': '', 'settings': {}}
    rows = [
        _row(row, {**bound, 'trial': row['family'], 'variant': row['family']})
        for row in results.read(plan.folder / 'real.jsonl')
    ]
    for one in plan.trials:
        if one.state == plans.CHANGED and not plans.is_prepared(one):
            continue  # the folder still has another trial
        own = {
            'study': name,
            'trial': one.name,
            'variant': one.trial.variant,
            'seed': one.config.train.seed,
            'trial_id': one.identity.trial_id,
            'settings': settings[one.name],
        }
        rows += [_row(row, own) for row in results.read(one.folder.results)]
    write_atomically(plan.folder / 'results.jsonl', ''.join(json.dumps(row) + '\n' for row in rows))


def _row(row: dict[str, Any], own: dict[str, Any]) -> dict[str, Any]:
    return {**own, **row, **own}  # own keys come first and win: a row has the seed of its samples

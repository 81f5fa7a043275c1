"""What the verbs run, status, results, baselines and verify print."""

import argparse
import functools
import pathlib
from collections.abc import Sequence
from typing import TYPE_CHECKING

from genbench.errors import INTERRUPTED, UserError, explained_disk_errors

if TYPE_CHECKING:
    from genbench.studies.launchers.base import Launcher
    from genbench.studies.study import Study


def run(given: argparse.Namespace, overrides: Sequence[str]) -> int:
    from genbench.studies import runner
    from genbench.training import topologies

    if given.limit < 0 or given.jobs < 0 or given.start_timeout < 0:
        raise UserError('--limit, --jobs and --start-timeout should be at least 0, the default, which means no limit.')
    target = topologies.asked(given)
    done = runner.run(given.study, given.out, overrides, jobs=given.jobs,
                      make_launcher=functools.partial(_launcher, given), dry_run=given.dry_run,
                      only=given.only, retry_failed=given.retry_failed, limit=given.limit,
                      rerun_changed=given.rerun_changed, target=target)  # fmt: skip
    return 0 if done or given.no_wait else INTERRUPTED


def _launcher(given: argparse.Namespace, study: 'Study', folder: pathlib.Path) -> 'Launcher':
    from genbench.studies.launchers import local, slurm

    flags = {key: getattr(given, key) for key in slurm.KEYS if getattr(given, key) is not None}
    flags |= slurm.parse(given.slurm)
    if given.launcher == 'slurm':
        if given.jobs:
            raise UserError('--jobs is for this machine; on SLURM, the cluster decides how many trials run at once.')
        resources = {**study.slurm, **flags}
        return slurm.Slurm(folder, slurm.Options(resources, not given.no_wait, given.start_timeout * 60))
    if flags or given.no_wait or given.start_timeout:
        named = [*flags, *(['no-wait'] if given.no_wait else []), *(['start-timeout'] if given.start_timeout else [])]
        raise UserError(f'--{named[0]} is for a cluster; add --launcher=slurm.')
    return local.Local(given.jobs, len(study.trials))


def status(given: argparse.Namespace) -> int:
    from genbench.studies import status

    if given.json:
        print(status.as_json(given.folder))
    else:
        status.show(given.folder)
    return 0


@explained_disk_errors()
def results(given: argparse.Namespace) -> int:
    from genbench.studies import formats, tables

    suffix = pathlib.Path(given.out).suffix
    name = given.format or formats.SUFFIXES.get(suffix, 'table')
    table = tables.build(given.folders, where=given.where, metrics=[part for part in given.metric.split(',') if part],
                         pivot=given.pivot, baseline=given.baseline, across=given.across_protocols)  # fmt: skip
    written = formats.FORMATS[name](table)
    if not given.out:
        print(written.rstrip('\n'))
        return 0
    from genbench.training.files import write_atomically  # numpy

    write_atomically(pathlib.Path(given.out), written.rstrip('\n') + '\n')
    print(f'{given.out}: {len(table.lines)} lines')
    return 0


def baselines(given: argparse.Namespace) -> int:
    from genbench.studies import ledger

    if given.row:
        if given.where or given.markdown:
            raise UserError('genbench baselines takes a row, or --where and --markdown; not both.')
        for line in ledger.details(ledger.get(given.row)):
            print(line)
        return 0
    rows = ledger.rows()
    listed = ledger.select([ledger.describe(row) for row in rows], given.where)
    if given.markdown:
        from genbench.studies import reproductions

        chosen = {row['id'] for row in listed}
        print(reproductions.page([row for row in rows if row.id in chosen]), end='')
        return 0
    for line in ledger.lines(listed):
        print(line)
    return 0


@explained_disk_errors()
def verify(given: argparse.Namespace) -> int:
    from genbench.studies import ledger

    if bool(given.row) == given.all:
        both = ', and not both' if given.row else ''
        raise UserError(f'genbench verify takes a row that genbench baselines lists, or --all{both}.')
    if given.all:
        return _verify_all(given)
    if given.go_on or given.max_minutes:
        raise UserError(f'{"--continue" if given.go_on else "--max-minutes"} goes with --all; genbench verify ROW '
                        'always goes on with its run.')  # fmt: skip
    row = ledger.get(given.row)
    if given.run and given.workdir:
        raise UserError('genbench verify takes --run, a finished run, or --workdir, where to train; not both.')
    _ = row.path  # fail first if there is no recipe
    from genbench import startup

    startup.prepare()
    from genbench.studies import checks
    from genbench.studies import verify as verification

    if given.check:
        return 0 if checks.check_and_say(row, print) else 1
    comparison = verification.compare(row, run=given.run, workdir=given.workdir, data_dir=given.data_dir)
    if comparison is None:
        print(f'Stopped and saved. Repeat genbench verify {row.id} to continue.')
        return INTERRUPTED
    for line in comparison.lines():
        print(line)
    if given.record:
        print(f'recorded in {verification.record(comparison)}')
    return 0 if comparison.within else 1


def _verify_all(given: argparse.Namespace) -> int:
    if given.run or given.workdir or given.check:
        raise UserError('--all trains each row in runs/baselines/ROW; it takes no --run, --workdir or --check.')
    if not 0 < given.max_minutes < float('inf'):
        raise UserError('--all needs --max-minutes=N, the minutes that all runs may take together, above 0.')
    from genbench.studies import ledger, verify_all

    say = functools.partial(print, flush=True)  # before what the processes print
    entries = verify_all.run(
        ledger.rows(), given.max_minutes, say, go_on=given.go_on, record=given.record, data_dir=given.data_dir
    )
    return verify_all.status(entries)

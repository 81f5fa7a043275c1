"""Runs that lend to others beside the common way: before they are trained, to samplers, and as copies that go with the
borrower."""

import dataclasses
import pathlib
import shutil
from collections.abc import Mapping, Sequence

from genbench import config as configs
from genbench import families
from genbench.config import Config
from genbench.data import opening
from genbench.data.spec import DataSpec
from genbench.errors import UserError, explained_disk_errors
from genbench.families.base import Sampler
from genbench.training import runs
from genbench.training.runs import Loan
from genbench.training.state import Blueprint

LEFT = ('borrowed', 'damaged', 'events', 'profile', '.lock')  # of the folder of an exported run


def promise(config: Config, spec: DataSpec, loans: Mapping[str, Loan] | None = None) -> Loan:
    """A run that is not trained yet, by its shapes alone; `loans` are those that it builds on in turn."""
    loans = loans or {}
    description = {
        'config': configs.plain(config),
        'data': dataclasses.asdict(spec),
        'step': config.train.num_steps,
        'borrowed': {name: loan.description for name, loan in loans.items()},
    }
    (lender,) = runs.describe({'': description}).values()
    shapes = Blueprint(lender.family).shapes
    lent = {name: loan.state for name, loan in loans.items()}
    return Loan(description, {'params': shapes['params'], 'aux': shapes['aux'], 'lent': lent})


def promised(config: Config, lent: Mapping[str, Config]) -> dict[str, Loan]:
    """What a config builds on, by its shapes: of the configs that are given, else of the runs that it names."""
    loans = {}
    for name, text in configs.borrowed(config).items():
        path = configs.split_run(text)[0]
        lender = lent.get(name) or runs.open_run(path, what=f'family.{name}').config
        loans[name] = promise(lender, opening.spec(lender.data), promised(lender, {}))
    return loans


def guided(run: runs.Run, samplers: Sequence[Sampler]) -> tuple[runs.Run, list[Sampler]]:
    """The run with what guides lend to its samplers, and these samplers with each guide by what it is: HASH@AVERAGE.

    Raises:
      UserError: a guide is not there, is not finished, cannot be read, or does not fit.
    """
    loans: dict[str, Loan] = {}
    names: dict[str, str] = {}
    for text in dict.fromkeys(getattr(sampler.options, 'guide', '') for sampler in samplers):
        if text:
            loan = runs.lend('guide', *configs.split_run(text))
            names[text] = f'{loan.description["state_sha256"][:12]}@{loan.description["average"]}'
            loans[names[text]] = loan
    if not loans:
        return run, list(samplers)
    lenders = runs.describe({name: loan.description for name, loan in loans.items()})
    for text, name in names.items():
        try:
            run.family.check_guide(lenders[name].family)  # type: ignore[attr-defined]
        except UserError as error:
            raise UserError(f'guide: {configs.split_run(text)[0]} cannot guide this run: {error}') from None
    family = families.get(run.family.name)(run.config, run.family.spec, {**run.family.borrowed, **lenders})
    return dataclasses.replace(run, family=family, guides=loans), [
        dataclasses.replace(one, options=dataclasses.replace(one.options, guide=names[text]))
        if (text := getattr(one.options, 'guide', '')) else one
        for one in samplers
    ]  # fmt: skip


@explained_disk_errors()
def export(workdir: str, out: str) -> list[str]:
    """Copy a run with the runs that it has borrowed, so that it goes on and is evaluated without them.

    They lie in the folder `borrowed` of the copy under the family's names for them, each with the one checkpoint that
    is lent and with what it has borrowed in turn, unless only its own training needs that.

    Returns:
      A line for each run that was copied.

    Raises:
      UserError: there is no run, a run that it borrowed is not there any more or has changed, or `out` exists.
    """
    run, target = runs.open_run(workdir), pathlib.Path(out)
    if target.exists():
        raise UserError(f'{out} (--out) exists; name a new folder.')
    if run.folder.path.resolve() in target.resolve().parents:
        raise UserError(f'{out} (--out) lies in the run itself; name a folder outside of it.')
    if not run.folder.checkpoints.is_dir():
        raise UserError(f'{workdir} has no checkpoint yet; train it first.')
    runs.borrow(run.config, run.folder)  # whether all are there, can be read, and are what they were
    partial = target.with_name(f'{target.name}.part')
    shutil.rmtree(partial, ignore_errors=True)
    shutil.copytree(run.folder.path, partial, ignore=lambda folder, _: LEFT if folder == str(run.folder.path) else ())
    lines = [f'{workdir}: all of it', *_copy_lenders(run, partial)]
    partial.rename(target)
    return lines


def _copy_lenders(run: runs.Run, target: pathlib.Path, leave: Sequence[str] = ()) -> list[str]:
    lines = []
    wanted = {name: text for name, text in configs.borrowed(run.config).items() if name not in leave}
    for name, text in wanted.items():
        known, lender = run.manifest['borrowed'][name], runs.open_run(runs.place(name, text, run.folder)[0])
        step, copy = str(known['step']), target / 'borrowed' / name
        (copy / 'checkpoints').mkdir(parents=True)
        for file in (lender.folder.config, lender.folder.manifest, lender.folder.summary):
            shutil.copy(file, copy)
        shutil.copytree(lender.folder.checkpoints / step, copy / 'checkpoints' / step)
        if known['average'].startswith('power:'):
            shutil.copytree(lender.folder.snapshots, copy / 'snapshots')
        lines += [f'{lender.folder.path}: checkpoint {step}, borrowed as {name}']
        lines += _copy_lenders(lender, copy, lender.family.only_to_train)
    return lines

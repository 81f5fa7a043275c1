"""Less common ways of lending a run to another: before it is trained, as a guide for samplers, and as a copy that goes
with the borrower.
"""

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
from genbench.families import texts
from genbench.families.base import Sampler
from genbench.training import encoders, runs
from genbench.training.runs import Loan
from genbench.training.state import Blueprint

LEFT = ('borrowed', 'damaged', 'events', 'profile', '.lock')  # an exported run does not contain these


def promise(config: Config, spec: DataSpec, loans: Mapping[str, Loan] | None = None) -> Loan:
    """A run that is not trained yet, known by its shapes alone. `loans` are the runs that it builds on in turn."""
    loans = loans or {}
    description = {
        'config': configs.plain(config),
        'data': dataclasses.asdict(spec),
        'step': config.train.num_steps,
        'borrowed': {name: loan.description for name, loan in loans.items()},
    }
    (lender,) = runs.describe({'': description}).values()
    shapes = Blueprint(lender.family).shapes
    needed = {name: loan.state for name, loan in loans.items() if name not in lender.family.only_to_train}
    return Loan(description, {'params': shapes['params'], 'aux': shapes['aux'], 'lent': needed})


def promised(config: Config, lent: Mapping[str, Config]) -> dict[str, Loan]:
    """The runs that a config builds on, by their shapes: from the given configs, or else from what the config names,
    which is a run or the config of one.

    Args:
      lent: configs of these runs by the family's names for them, and of the runs that they build on by folder.
    """
    loans, deeper = {}, {path: one for path, one in lent.items() if '/' in path}
    for name, text in configs.borrowed(config).items():
        if name == texts.NAME:
            loans[name] = Loan(*encoders.promise(text, config.family.text_skip))
            continue
        path = configs.split_run(text)[0]
        lender = lent.get(name) or lent.get(path) or _config_of(f'family.{name}', path)
        loans[name] = promise(lender, opening.spec(lender.data), promised(lender, deeper))
    return loans


def _config_of(what: str, path: str) -> Config:
    return configs.load(path) if path.endswith('.py') else runs.open_run(path, what=what).config


def borrow_or_promise(config: Config) -> dict[str, Loan]:
    """The runs that a config builds on. Where it names a config file in place of a run, the shapes of that run.

    Raises:
      UserError: as for `runs.borrow`, or such a file cannot be read.
    """
    planned = [name for name, text in configs.borrowed(config).items() if configs.split_run(text)[0].endswith('.py')]
    loans = runs.borrow(config, leave=planned)
    return loans | {name: loan for name, loan in promised(config, {}).items() if name in planned} if planned else loans


def guided(run: runs.Run, samplers: Sequence[Sampler]) -> tuple[runs.Run, list[Sampler]]:
    """The run with everything that guides lend to its samplers. The samplers then name each guide as HASH@AVERAGE.

    Raises:
      UserError: a guide is missing, unfinished, unreadable or unsuitable.
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
    """Copy a run together with the runs that it borrowed, so that it can continue and be evaluated without them.

    The copies are in the folder `borrowed`, under the family's names for them. Each holds the one checkpoint that is
    lent and the runs that it borrowed in turn, except those that only its own training needs.

    Returns:
      A line for each run that was copied.

    Raises:
      UserError: there is no run, a run that it borrowed is missing or has changed, or `out` exists.
    """
    run, target = runs.open_run(workdir), pathlib.Path(out)
    if target.exists():
        raise UserError(f'{out} (--out) exists; choose a new folder.')
    if run.folder.path.resolve() in target.resolve().parents:
        raise UserError(f'{out} (--out) is inside the run; choose a folder outside it.')
    if not run.folder.checkpoints.is_dir():
        raise UserError(f'{workdir} has no checkpoint yet; train it first.')
    runs.borrow(run.config, run.folder)  # checks that all of them exist, are readable and unchanged
    partial = target.with_name(f'{target.name}.part')
    shutil.rmtree(partial, ignore_errors=True)
    shutil.copytree(run.folder.path, partial, ignore=lambda folder, _: LEFT if folder == str(run.folder.path) else ())
    lines = [f'{workdir}: everything', *_copy_lenders(run, partial)]
    partial.rename(target)
    return lines


def _copy_lenders(run: runs.Run, target: pathlib.Path, leave: Sequence[str] = ()) -> list[str]:
    lines = []
    wanted = {name: text for name, text in configs.borrowed(run.config).items() if name not in leave}
    for name, text in wanted.items():
        if name == texts.NAME:
            file = encoders.found(text, run.folder.path)
            (target / 'borrowed' / name).mkdir(parents=True)
            shutil.copy(file, target / 'borrowed' / name)
            lines += [f'{file}: the weights, borrowed as {name}']
            continue
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

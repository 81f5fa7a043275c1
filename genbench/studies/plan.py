"""What a study has to do: its trials, resolved and matched to their budget, and the state of each in its folder."""

import dataclasses
import fnmatch
import json
import pathlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from genbench import config as configs
from genbench import families
from genbench.config import Config
from genbench.data import opening
from genbench.errors import UserError, did_you_mean
from genbench.evaluation import bounds, further, grid
from genbench.families import stages
from genbench.reading import check_entries, read_json_if_any
from genbench.studies import budget as budgets
from genbench.studies import costs, identity, state
from genbench.studies import study as studies
from genbench.studies.identity import Identity
from genbench.studies.job import Job
from genbench.studies.launchers import squeue
from genbench.studies.study import Study, Trial
from genbench.training import lending, runs
from genbench.training.files import write_atomically
from genbench.training.runs import Folder

# The states of a trial, and what genbench does about each.
MISSING = 'missing'  # train and evaluate
UNFINISHED = 'unfinished'  # continue
FAILED = 'failed'  # continue
UNSCORED = 'to evaluate'  # trained, but the evaluation is incomplete: evaluate what is missing
CHANGED = 'changed'  # the config (or the code, with --rerun-changed) changed: move aside and run again
DONE = 'done'  # keep


RECORD = {'values': {str: int}, 'matched': {'steps': int, 'training_flops?': float}}  # of budget.json
FILES = ('trial.json', 'status.json', 'log.txt')  # the files of a trial besides those of a run


@dataclasses.dataclass
class Planned:
    """A trial of a plan.

    Attributes:
      matched: the steps and other quantities that its budget led to; {} without a budget.
      identity: what its folder should hold; for a finished trial, what it does hold.
      code_changed: its training began with other code than the installed one.
    """

    trial: Trial
    config: Config
    folder: Folder
    matched: dict[str, Any]
    lent: dict[str, str]  # the family's name for a run it builds on → a trial of the study
    identity: Identity = Identity('', '', '')
    state: str = MISSING
    code_changed: bool = False

    @property
    def name(self) -> str:
        return self.trial.name


@dataclasses.dataclass(frozen=True)
class Plan:
    """The trials of a study in its folder, each after the trials it builds on."""

    study: Study
    folder: pathlib.Path
    trials: Sequence[Planned]
    records: Mapping[str, Any]  # the records of budget.json

    @property
    def by_name(self) -> dict[str, Planned]:
        return {planned.name: planned for planned in self.trials}

    def select(self, only: str = '', retry_failed: bool = False, limit: int = 0) -> list[Planned]:
        """Choose the trials to run: all that are not done, or fewer, together with the trials they build on.

        Args:
          only: names or patterns of trials or variants, joined by commas.
          retry_failed: only those that failed.
          limit: at most this many, in order; 0 for all.

        Raises:
          UserError: a pattern matches no trial.
        """
        patterns = [pattern for pattern in only.split(',') if pattern]
        for pattern in patterns:
            if not any(_fits(planned, pattern) for planned in self.trials):
                known = sorted({name for planned in self.trials for name in (planned.name, planned.trial.variant)})
                raise UserError(f'--only {pattern} matches no trial of the study. {did_you_mean(pattern, known)}')
        chosen: dict[str, Planned] = {}
        for planned in self.trials:
            fits = not patterns or any(_fits(planned, pattern) for pattern in patterns)
            if fits and planned.state != DONE and (not retry_failed or planned.state == FAILED):
                needed = {one.name: one for one in self._with_needs(planned)}
                if not limit or len(chosen | needed) <= limit:
                    chosen |= needed
        return list(chosen.values())

    def _with_needs(self, planned: Planned) -> Iterable[Planned]:
        for name in planned.trial.after:
            if self.by_name[name].state != DONE:
                yield from self._with_needs(self.by_name[name])
        yield planned

    def settings(self) -> dict[str, dict[str, Any]]:
        """{trial: {key: value}} for the keys in which variants differ: keys that all of them have, and overrides."""
        flat = {planned.name: dict(configs.flatten(planned.config)) for planned in self.trials}
        overridden = {text.partition('=')[0] for planned in self.trials for text in planned.trial.overrides}
        lent = {f'family.{name}' for planned in self.trials for name in planned.lent}
        keys = dict.fromkeys(key for values in flat.values() for key in values)
        apart = []
        for key in keys:
            values = [repr(flat_values[key]) for flat_values in flat.values() if key in flat_values]
            shared = len(values) == len(flat) and not key.startswith('evaluation.')
            if (shared or key in overridden) and (len(set(values)) > 1 or len(values) < len(flat)):
                apart.append(key)
        apart = [key for key in apart if key not in lent and key != 'train.seed']
        return {name: {key: values[key] for key in apart if key in values} for name, values in flat.items()}


def _fits(planned: Planned, pattern: str) -> bool:
    return any(fnmatch.fnmatchcase(name, pattern) for name in (planned.name, planned.trial.variant))


def make(study: Study, folder: pathlib.Path, *, cores: int = 1, rerun_changed: bool = False) -> Plan:
    """Make the plan of a study. Nothing is written to its folder.

    Args:
      cores: processors that a trial will have. Budgets of seconds need it.
      rerun_changed: set aside finished trials whose code has changed since.

    Raises:
      UserError: a config or key does not exist, a trial occurs twice, it is clear already that a trial's model
        cannot be measured as its evaluation says, or a budget cannot be kept.
    """
    planned = [_resolved(trial, folder / 'trials') for trial in study.trials]
    _check_different(planned)
    by_name = {one.name: one for one in planned}
    for one in planned:
        _check_evaluation(one, _lent(one, by_name))
    path = folder / 'budget.json'
    advice = 'Delete it; genbench will measure the costs of the trials again.'
    records = read_json_if_any(path, {str: RECORD}, advice) or {}
    if study.budget is not None:
        _match(study.budget, planned, records, cores)
        _check_different(planned)
    known: dict[str, str] = {}
    for one in planned:
        _compare(one, known, rerun_changed)
        known[one.name] = one.identity.training
    return Plan(study, folder, planned, records)


def _resolved(trial: Trial, trials: pathlib.Path) -> Planned:
    config = studies.resolve(trial, trials)
    family = families.get(config.family.name)
    paths = {name: pathlib.Path(configs.split_run(text)[0]) for name, text in configs.borrowed(config).items()}
    lent = {name: path.name for name, path in paths.items() if path.parent == trials}
    try:
        grid.check(trial.grid, family)
    except UserError as error:
        raise UserError(f'Trial {trial.name!r}: {error}') from None
    return Planned(trial, config, Folder(trials / trial.name), {}, lent)


def _check_different(planned: Sequence[Planned]) -> None:
    seen: dict[str, str] = {}
    for one in planned:
        same = seen.setdefault(configs.digest([configs.plain(one.config), list(one.trial.grid)]), one.name)
        if same != one.name:
            raise UserError(f'Trials {same!r} and {one.name!r} are the same trial: their configs do not differ.')


def _check_evaluation(one: Planned, lent: Mapping[str, Config]) -> None:
    """Refuse metrics that the trial's model cannot be measured with. This needs its data set to be known here."""
    config = one.config
    if not further.asked(config.evaluation.metrics):
        return
    try:
        spec = opening.spec(config.data)
    except UserError:  # as the trial will say
        return
    try:
        loans = lending.promised(config, lent)
        borrowed = runs.describe({name: loan.description for name, loan in loans.items()})
        family = stages.after(families.get(config.family.name)(config, spec, borrowed), config.train.num_steps)
        cells = grid.cells(one.trial.grid, family, config.evaluation)
        further.check(family, config.evaluation, [cell.sampler for cell in cells])
    except UserError as error:
        raise UserError(f'Trial {one.name!r}: {error}') from None


def _match(budget: budgets.Budget, planned: Sequence[Planned], records: dict[str, Any], cores: int) -> None:
    """Give every trial its budget, as recorded earlier or from its cost. Trials come after those they build on."""
    for one in planned:
        if budget.with_borrowed and one.trial.matched and len(one.lent) < len(configs.borrowed(one.config)):
            raise UserError(f'Trial {one.name!r} borrows a run that is no trial of the study, so the budget cannot '
                            'count it (with_borrowed). Make it a trial.')  # fmt: skip
    by_name = {one.name: one for one in planned}
    waiting = list(planned)
    while waiting:
        ready = [one for one in waiting if not any(by_name[name] in waiting for name in one.lent.values())]
        waiting = [one for one in waiting if one not in ready]
        lent = {one.name: _lent(one, by_name) for one in ready}
        keys = {one.name: _budget_key(budget, one, lent[one.name]) for one in ready}
        new = [one for one in ready if keys[one.name] not in records]
        requests = [_request(budget, one, lent[one.name], cores) for one in new]
        answers = costs.estimate([request for request in requests if request is not None])
        for one, request in zip(new, requests, strict=True):
            cost = answers.pop(0) if request is not None else None
            if isinstance(cost, str):
                raise UserError(f'Trial {one.name!r}: {cost}')
            borrowed = sum(by_name[name].matched.get('training_flops', 0.0) for name in _all_lent(one, by_name))
            records[keys[one.name]] = _record(budget, one, cost, borrowed)
        for one in ready:
            found = records[keys[one.name]]
            one.config = budgets.apply(one.config, found['values'])
            one.matched = dict(found['matched'])
            spent = {name: by_name[name].matched.get('training_flops') for name in one.lent.values()}
            if spent:
                one.matched['builds_on'] = spent


def _all_lent(one: Planned, by_name: Mapping[str, Planned]) -> set[str]:
    """The trials that this one builds on, and those that they build on."""
    own = set(one.lent.values())
    return own.union(*(_all_lent(by_name[name], by_name) for name in own))


def _lent(one: Planned, by_name: Mapping[str, Planned]) -> dict[str, Config]:
    """Configs of the trials that a trial builds on, by the family's names, and of those that they need, by folder."""
    found = {name: by_name[trial].config for name, trial in one.lent.items()}
    for lender in (by_name[trial] for trial in _all_lent(one, by_name)):
        texts = configs.borrowed(lender.config)
        found |= {configs.split_run(texts[name])[0]: by_name[trial].config for name, trial in lender.lent.items()}
    return found


def _budget_key(budget: budgets.Budget, one: Planned, lent: Mapping[str, Config]) -> str:
    """A key that all seeds share, so that they get the same number of steps."""

    def values(config: Config) -> dict[str, Any]:
        return {key: value for key, value in configs.identity(config).items() if key != 'train.seed'}

    own = {key: value for key, value in values(one.config).items() if key.partition('.')[2] not in one.lent}
    return configs.digest([budget.values(), one.trial.matched, own, {name: values(c) for name, c in lent.items()}])


def _request(budget: budgets.Budget, one: Planned, lent: Mapping[str, Config], cores: int) -> costs.Request | None:
    if not budget.needs_costs(one.config):
        return None
    return budget.request(one.config, lent, cores) if one.trial.matched else costs.Request(one.config, lent)


def _record(budget: budgets.Budget, one: Planned, cost: costs.Cost | None, borrowed: float) -> dict[str, Any]:
    if one.trial.matched:
        values, matched = budgets.match(budget, one.name, one.config, cost, borrowed)
    else:
        values, matched = {}, {'by': 'not matched', 'steps': one.config.train.num_steps}
    if cost is not None:
        matched |= {'training_flops': cost.flops(matched['steps']), 'parameters': cost.parameters}
    return {'values': values, 'matched': matched}


def _compare(one: Planned, known: Mapping[str, str], rerun_changed: bool) -> None:
    """Set the identity and the state of a trial from the contents of its folder."""
    one.identity = identity.of(one.config, one.trial.grid, known)
    one.folder.check()
    check_entries(one.folder.path, FILES, ())
    found = identity.found(one.folder.path, known)
    if found is None:
        return
    status = state.read(one.folder.path)
    stands = status['state']
    one.code_changed = bool(found.code) and found.code != one.identity.code
    if found.training != one.identity.training:
        one.state = CHANGED if one.folder.manifest.is_file() else MISSING
    elif stands == 'done':
        one.state = DONE if found.same_config == one.identity.same_config else UNSCORED
        if rerun_changed and found.code != one.identity.code:
            one.state = CHANGED
        else:
            one.identity = dataclasses.replace(one.identity, code=found.code)
    elif stands == 'failed':
        one.state = FAILED
    else:
        one.state = UNFINISHED if one.folder.manifest.is_file() else MISSING
        same = found.same_config == one.identity.same_config
        if same and status['job'] and stands in ('queued', 'running', 'preempted'):
            one.identity = found  # a process is or was working on it, with the code at its start


def begin(plan: Plan, chosen: Sequence[Planned]) -> None:
    """Record what was matched, and prepare the folders of the trials that are to run."""
    if plan.records:
        write_atomically(plan.folder / 'budget.json', json.dumps(plan.records, indent=2) + '\n')
    for one in chosen:
        folder = one.folder.path
        if not is_prepared(one):
            _check_idle(one)
        if one.state == CHANGED:
            set_aside(folder)
        folder.mkdir(parents=True, exist_ok=True)
        write_atomically(job(one).wanted, configs.to_json(one.config))
        if not is_prepared(one):  # otherwise keep its status: a process may be working on it; its launcher knows
            state.queue(folder, num_steps=one.config.train.num_steps, trial_id=one.identity.trial_id)
            _sign(one)
    for one in plan.trials:
        if one.state == DONE and not is_prepared(one):  # from an older format
            _sign(one)


def _check_idle(one: Planned) -> None:
    """Refuse to restart a trial while a job of the cluster is still working on it."""
    status = state.read(one.folder.path)
    if status['job'].startswith('slurm:') and status['state'] in ('queued', 'running', 'preempted'):
        number = status['job'].removeprefix('slurm:')
        if squeue.holds((squeue.read() or {}).get(number)):
            raise UserError(f'SLURM job {number} is running trial {one.name!r} with another config or evaluation; '
                            f'wait for it, or stop it with: scancel {number}')  # fmt: skip


def _sign(one: Planned) -> None:
    identity.write(one.folder.path, one.identity, variant=one.trial.variant, seed=one.config.train.seed,
                   grid=list(one.trial.grid))  # fmt: skip


def job(one: Planned) -> Job:
    """The trial in the form that launchers take."""
    return Job(one.trial, one.config, one.folder, one.identity.trial_id)


def is_prepared(one: Planned) -> bool:
    """Whether the trial's folder was begun under exactly this identity."""
    return identity.read(one.folder.path).get('trial_id') == one.identity.trial_id


def set_aside(folder: pathlib.Path) -> pathlib.Path:
    """Rename a trial's folder to NAME.old-ID, and return the new path.

    Raises:
      UserError: a process is training there.
    """
    with runs.lock(Folder(folder)):
        pass
    old = identity.read(folder).get('trial_id') or 'unknown'
    number, aside = 1, folder.with_name(f'{folder.name}.old-{old}')
    while aside.exists():
        number += 1
        aside = folder.with_name(f'{folder.name}.old-{old}-{number}')
    folder.rename(aside)
    return aside


def remarks(plan: Plan, chosen: Sequence[Planned]) -> list[str]:
    """What a user should know before the trials start, one line each."""
    found = []
    changed = [one.name for one in plan.trials if one.state == CHANGED and one in chosen]
    if changed:
        found.append(f'{_named(changed)} changed; the old results are kept as NAME.old-ID.')
    kept = [one.name for one in plan.trials if one.code_changed and one.state in (DONE, UNSCORED)]
    if kept:
        found.append(f'{_named(kept)} finished with other code and will be kept; --rerun-changed repeats them.')
    resumed = [one.name for one in chosen if one.code_changed and one.state in (UNFINISHED, FAILED)]
    if resumed:
        found.append(f'{_named(resumed)} started with other code and will continue with this code.')
    return found + without_bound(plan)


def without_bound(plan: Plan) -> list[str]:
    """Metrics that will have no row of held-out real images for comparison, one line each."""
    found: list[str] = []
    for one in plan.trials:
        try:
            found += bounds.lacking(one.config)
        except UserError:  # the data set is missing, as its trials will say
            continue
    return list(dict.fromkeys(found))


def _named(names: Sequence[str]) -> str:
    shown = ', '.join(names[:3]) + (', …' if len(names) > 3 else '')
    return f'{len(names)} {"trial" if len(names) == 1 else "trials"} ({shown})'

"""What the verbs config, checkpoint, init, edit, watermark, export and import print."""

import argparse
import json
from collections.abc import Sequence
from typing import Any

from genbench import shipped
from genbench.errors import UserError


def config(given: argparse.Namespace, overrides: Sequence[str]) -> int:
    if given.action == 'list':
        print('\n'.join(shipped.listing()))
        return 0
    if given.action == 'copy':
        print(shipped.copy(given.name, given.out))
        return 0
    from genbench import config

    if given.action == 'show':
        if bool(given.name) == bool(given.config):
            raise UserError('genbench config show needs exactly one config: CONFIG or --config=CONFIG.')
        resolved = config.load(given.name or given.config, overrides)
        for key, value in config.flatten(resolved):
            print(f'{key} = {value!r}')
        print(f'# hash {config.config_hash(resolved)}')
        return 0
    for key, (left, right) in config.difference(config.locate(given.left), config.locate(given.right)).items():
        print(f'{key}: {left!r} → {right!r}')
    return 0


def forecast(resolved: Any, target: Any, as_json: bool) -> int:
    """Print what a config needs on devices that this machine lacks."""
    from genbench.training import forecast

    return _say(forecast.ask(resolved, target), as_json)


def forecast_evaluation(given: argparse.Namespace, overrides: Sequence[str], target: Any) -> int:
    """Print the same for the programs that sample from a run and score with it."""
    from genbench.evaluation import forecast

    return _say(forecast.ask(given.workdir, overrides, given.step, given.grid, target), given.json)


def _say(report: Any, as_json: bool) -> int:
    from genbench.training import forecast

    print(json.dumps(report, indent=2) if as_json else '\n'.join(forecast.lines(report)))
    return 0


def init(given: argparse.Namespace, _: Sequence[str]) -> int:
    from genbench import projects

    print('\n'.join(projects.create(given.name, given.out)))
    print(f'Next: cd {given.out or given.name} and read README.md.')
    return 0


def edit(given: argparse.Namespace, _: Sequence[str]) -> int:
    from genbench import startup

    startup.prepare()
    from genbench.evaluation import editing

    asked = {field: value for field, value in vars(given).items() if field not in ('verb', 'workdir', 'input')}
    print('\n'.join(editing.edit(given.workdir, editing.Request(inputs=given.input, **asked))))
    return 0


def watermark(given: argparse.Namespace, _: Sequence[str]) -> int:
    from genbench import startup

    startup.prepare()
    from genbench.evaluation import marking

    left_out = ('verb', 'action', 'workdir', 'input')
    asked = {field: value for field, value in vars(given).items() if field not in left_out}
    if given.action == 'embed':
        lines = marking.embed(given.workdir, marking.Embedding(**asked))
    else:
        lines = marking.detect(given.workdir, marking.Detection(inputs=given.input, **asked))
    print('\n'.join(lines))
    return 0


def export(given: argparse.Namespace, _: Sequence[str]) -> int:
    from genbench import startup

    startup.prepare()
    from genbench.exchange.export import export

    lines = export(
        given.workdir, given.out, given.format, average=given.average, step=given.step, licence=given.licence
    )
    print('\n'.join(lines))
    return 0


def import_weights(given: argparse.Namespace, overrides: Sequence[str]) -> int:
    from genbench import config, startup

    resolved = config.load(given.config, overrides)
    startup.prepare()
    from genbench.exchange.published import import_weights as of_weights

    print('\n'.join(of_weights(given.source, resolved, given.workdir)))
    return 0


def checkpoint(given: argparse.Namespace, _: Sequence[str]) -> int:
    from genbench import startup

    startup.prepare()
    from genbench.training import inventory, lending

    export = given.action == 'export'
    for line in lending.export(given.workdir, given.out) if export else inventory.show(given.workdir):
        print(line, flush=True)
    return 0

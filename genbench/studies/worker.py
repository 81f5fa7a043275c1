"""The processes of a study: one trial (train, evaluate, say how it went), or the floor of real images."""

import json
import os
import pathlib
import sys
import traceback

from genbench import config as configs
from genbench import startup
from genbench.errors import INTERRUPTED, UserError
from genbench.training.files import write_atomically


def main(job: str, cores: str, *arguments: str) -> int:
    """`trial CORES WANTED FOLDER` or `real CORES RESULTS WANTED…`; a job of its own process holds the devices.

    Args:
      cores: processors to run on, joined by commas; '' for all.
    """
    if cores:
        os.sched_setaffinity(0, {int(core) for core in cores.split(',')})
    startup.prepare()
    return _real(*arguments) if job == 'real' else _trial(*arguments)


def _real(results: str, *wanted: str) -> int:
    from genbench.evaluation import harness

    resolved = [configs.from_json(pathlib.Path(path).read_text()) for path in wanted]
    try:
        harness.score_real(resolved, pathlib.Path(results))
    except UserError as error:
        print(error, file=sys.stderr, flush=True)
        return 2
    return 0


def _trial(wanted: str, workdir: str) -> int:
    """Exit status as of the command line: 0 done, 2 a mistake of the user, 75 stopped and saved."""
    folder = pathlib.Path(workdir)
    config = configs.from_json(pathlib.Path(wanted).read_text())
    try:
        status = _work(config, folder)
    except UserError as error:
        print(f'genbench: {error}', file=sys.stderr, flush=True)
        return _say(folder, 'failed', 2, str(error))
    except KeyboardInterrupt:
        return _say(folder, 'interrupted', INTERRUPTED)
    except Exception as error:
        traceback.print_exc()
        return _say(folder, 'failed', 1, f'{type(error).__name__}: {error}')
    return _say(folder, 'done' if status == 0 else 'interrupted', status)


def _work(config, folder: pathlib.Path) -> int:
    from genbench.evaluation import harness
    from genbench.training.loop import train

    _say(folder, 'training', 0)
    if not train(config, folder).complete:
        return INTERRUPTED
    _say(folder, 'evaluating', 0)
    harness.evaluate(folder)
    return 0


def _say(folder: pathlib.Path, state: str, status: int, reason: str = '') -> int:
    write_atomically(folder / 'status.json', json.dumps({'state': state, 'reason': reason}) + '\n')
    return status


if __name__ == '__main__':
    sys.exit(main(*sys.argv[1:]))

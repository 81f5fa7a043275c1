"""The command line: verbs that parse, call and print. Heavy imports wait until a verb needs them."""

import argparse
import os
import sys
from collections.abc import Sequence

from genbench import __version__
from genbench.errors import INTERRUPTED, UserError

DESCRIPTION = """Generative families under one trainer and one evaluation harness.

  genbench run experiments/STUDY.py --out runs/STUDY
  genbench train --config=configs/DATASET/FAMILY.py --config.optimizer.learning_rate=1e-3 --workdir=runs/NAME
  genbench evaluate runs/NAME --config.evaluation.samplers=ddim:10,heun:25
"""
OVERRIDES = 'Any --config.KEY=VALUE replaces a key of the config, for example --config.train.num_steps=1e3.'


def parser() -> argparse.ArgumentParser:
    main = argparse.ArgumentParser(
        prog='genbench',
        description=DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    main.add_argument('--version', action='version', version=f'genbench {__version__}')
    verbs = main.add_subparsers(dest='verb', required=True, metavar='VERB')

    def verb(name: str, text: str, parent=verbs, epilog: str = '') -> argparse.ArgumentParser:
        return parent.add_parser(name, help=text, description=text, epilog=epilog, allow_abbrev=False)

    train = verb('train', 'Train one config, or go on with its run.', epilog=OVERRIDES)
    train.add_argument('--config', required=True, help='a config file, configs/DATASET/FAMILY.py')
    train.add_argument('--workdir', required=True, help='the folder of the run')

    evaluate = verb('evaluate', 'Score a run and add the rows to its results.jsonl.', epilog=OVERRIDES)
    evaluate.add_argument('workdir', help='the folder of a run')
    evaluate.add_argument('--step', type=int, help='a checkpoint; by default the newest')

    sample = verb('sample', 'Draw images from a run.', epilog=OVERRIDES)
    sample.add_argument('workdir', help='the folder of a run')
    sample.add_argument('--out', required=True, help='a .png (one grid) or .npz (integer images) file')
    sample.add_argument('--count', type=int, default=100, help='how many images (100)')
    sample.add_argument('--sampler', default='', help="NAME:STEPS or NAME:STEPS:GUIDANCE; by default the family's")
    sample.add_argument('--seed', type=int, default=0)
    sample.add_argument('--label', type=int, help='for a conditional family; by default the labels in turn')

    run = verb('run', 'Run a study from experiments/: train, evaluate and report what is missing.')
    run.add_argument('study', help='a Python file that defines get_study()')
    run.add_argument('--out', required=True, help='the folder of the study')
    run.add_argument('--jobs', type=int, default=0, help='trials at a time; by default one a core on CPU, else 1')

    report = verb('report', 'Write the page of a study again from its results.')
    report.add_argument('folder', help='the --out folder of a study')

    config = verb('config', 'Look at configs.').add_subparsers(dest='action', required=True, metavar='ACTION')
    show = verb('show', 'Print a config with every default filled in.', config, OVERRIDES)
    show.add_argument('--config', required=True)
    diff = verb('diff', 'Print the keys in which two configs differ.', config)
    diff.add_argument('left', help='a config file or a run folder')
    diff.add_argument('right', help='a config file or a run folder')

    data = verb('data', 'Look at data sets, and prepare them.').add_subparsers(
        dest='action', required=True, metavar='ACTION'
    )
    listing = verb('list', 'Print the data sets that are prepared, or all names TFDS knows.', data)
    listing.add_argument('--all', action='store_true', help='every name, prepared or not')
    listing.add_argument('--data_dir', default='')
    prepare = verb('prepare', 'Write the array_record files of a data set.', data)
    prepare.add_argument('name')
    prepare.add_argument('--data_dir', default='')
    return main


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one verb. Exit status: 0 done, 2 a mistake of the user, 75 stopped and saved."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    overrides = [word[len('--config.') :] for word in words if word.startswith('--config.')]
    given = parser().parse_args([word for word in words if not word.startswith('--config.')])
    if overrides and given.verb not in ('train', 'evaluate', 'sample') and getattr(given, 'action', '') != 'show':
        return _complain(f'genbench {given.verb} takes no --config.KEY=VALUE.')
    try:
        return VERBS[given.verb](given, overrides)
    except UserError as error:
        return _complain(str(error))
    except BrokenPipeError:  # the reader of our output has left
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except KeyboardInterrupt:
        print('genbench: interrupted', file=sys.stderr)
        return INTERRUPTED


def _complain(message: str) -> int:
    print('genbench:', ' '.join(message.split()), file=sys.stderr)
    return 2


def _train(given: argparse.Namespace, overrides: Sequence[str]) -> int:
    from genbench import config, startup

    resolved = config.load(given.config, overrides)
    startup.prepare()
    from genbench.training.loop import train

    outcome = train(resolved, given.workdir)
    summary = outcome.summary
    if outcome.already:
        print(f'{given.workdir} is complete: {summary["step"]} steps, {summary["training_seconds"]:.0f} s.')
        return 0
    if not outcome.complete:
        print(f'Stopped at step {summary["step"]}, saved in {given.workdir}; the same command goes on from there.')
        return INTERRUPTED
    print(f'{given.workdir}: {summary["step"]} steps in {summary["training_seconds"]:.0f} s, '
          f'{summary["images_per_second"]:.0f} images/s. Next: genbench evaluate {given.workdir}')  # fmt: skip
    return 0


def _evaluate(given: argparse.Namespace, overrides: Sequence[str]) -> int:
    from genbench import startup

    startup.prepare()
    from genbench.evaluation import harness, table

    rows = harness.evaluate(given.workdir, overrides, step=given.step)
    print(table.text(rows) if rows else f'{given.workdir}/results.jsonl has all of it already.')
    return 0


def _sample(given: argparse.Namespace, overrides: Sequence[str]) -> int:
    from genbench import startup

    startup.prepare()
    from genbench.evaluation import draw

    draw.draw_to_file(given.workdir, given.out, count=given.count, sampler=given.sampler, seed=given.seed,
                      label=given.label, overrides=overrides)  # fmt: skip
    print(f'{given.count} images in {given.out}')
    return 0


def _run(given: argparse.Namespace, _: Sequence[str]) -> int:
    from genbench.studies import runner

    return 0 if runner.run(given.study, given.out, jobs=given.jobs) else INTERRUPTED


def _report(given: argparse.Namespace, _: Sequence[str]) -> int:
    from genbench.report import page

    print(page.write(given.folder))
    return 0


def _config(given: argparse.Namespace, overrides: Sequence[str]) -> int:
    from genbench import config

    if given.action == 'show':
        resolved = config.load(given.config, overrides)
        for key, value in config.flatten(resolved):
            print(f'{key} = {value!r}')
        print(f'# hash {config.config_hash(resolved)}')
        return 0
    for key, (left, right) in config.difference(config.locate(given.left), config.locate(given.right)).items():
        print(f'{key}: {left!r} → {right!r}')
    return 0


def _data(given: argparse.Namespace, _: Sequence[str]) -> int:
    from genbench.data import sources

    if given.action == 'prepare':
        print(sources.prepare(given.name, given.data_dir))
        return 0
    for line in sources.names() if given.all else sources.prepared(given.data_dir):
        print(line)
    return 0


VERBS = {
    'train': _train,
    'evaluate': _evaluate,
    'sample': _sample,
    'run': _run,
    'report': _report,
    'config': _config,
    'data': _data,
}

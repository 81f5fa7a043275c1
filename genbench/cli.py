"""The command line: verbs that parse, call and print. Heavy imports wait until a verb needs them."""

import argparse
import contextlib
import functools
import os
import sys
import time
from collections.abc import Iterator, Sequence
from typing import Any

from genbench import __version__, commands, flags, mirror, remote
from genbench.errors import INTERRUPTED, UserError, did_you_mean, explained_disk_errors
from genbench.overrides import joined
from genbench.ranges import check_arguments

BEGAN = time.monotonic()
DESCRIPTION = """Generative families under one trainer and one evaluation harness.

  genbench run experiments/STUDY.py --out runs/STUDY
  genbench train --config=configs/DATASET/FAMILY.py --config.optimizer.learning_rate=1e-3 --workdir=runs/NAME
  genbench evaluate runs/NAME --config.evaluation.samplers=ddim:10,heun:25
"""
METRICS = """A and B are folders of images; .npy or .npz arrays of uint8 images (N, H, W, C) or of features (N, D);
data sets as tfds:NAME:SPLIT or folder:DIR:SPLIT; folders of runs; or moments. Moments are either saved by
"genbench metrics moments IMAGES --out FILE.npz" or published by others (mu, sigma)."""
OVERRIDES = '--config.KEY=VALUE sets any key of the config, for example --config.train.num_steps=1e3.'


def parser() -> argparse.ArgumentParser:
    main = flags.Parser(
        prog='genbench',
        description=DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    main.add_argument('--version', action='version', version=f'genbench {__version__}')
    verbs = main.add_subparsers(dest='verb', required=True, metavar='VERB')

    def verb(name: str, text: str, parent=verbs, epilog: str = '') -> argparse.ArgumentParser:
        return parent.add_parser(name, help=text, description=text, epilog=epilog, allow_abbrev=False)

    train = verb('train', 'Train one config, or resume its run.', epilog=OVERRIDES)
    train.add_argument('--config', help='a config file, or the name of a shipped one: DATASET/FAMILY')
    train.add_argument('--workdir', help='the run folder')
    train.add_argument('--dry-run', action='store_true', help='print the mesh, the placement of every array, '
                       'memory and FLOPs, without training')  # fmt: skip
    train.add_argument('--debug', action='store_true', help='check shapes, and stop at the operation that makes the '
                       'first NaN (slow)')  # fmt: skip
    train.add_argument('--profile', metavar='START:STOP', default='', help='trace these steps and write the trace to '
                       'WORKDIR/profile, for TensorBoard, XProf or Perfetto')  # fmt: skip
    train.add_argument('--replay', type=int, metavar='STEP', help='repeat this step of a run, report which arrays are '
                       'not finite, and write nothing (needs no --config)')  # fmt: skip
    flags.topology(train)
    flags.processes(train)

    evaluate = verb('evaluate', 'Score a run and append the rows to its results.jsonl.', epilog=OVERRIDES)
    evaluate.add_argument('workdir', help='the run folder')
    evaluate.add_argument('--step', type=int, help='the checkpoint to use (default: the newest)')
    evaluate.add_argument(
        '--grid', action='append', default=[], metavar='KEY=VALUE,VALUE',
        help='evaluate every combination of these: sampler, nfe or steps, guidance or other options, average, seed',
    )  # fmt: skip
    evaluate.add_argument('--dry-run', action='store_true', help='compile the sampling and scoring programs for '
                          '--topology, without running them')  # fmt: skip
    flags.processes(evaluate)
    flags.topology(evaluate)

    metrics = verb('metrics', 'Compare two sets of images, whether genbench made them or not.', epilog=METRICS)
    flags.metrics(metrics)
    flags.processes(metrics)

    compared = verb('compare-protocols', 'Show how the protocols of two result rows differ.')
    for side in ('left', 'right'):
        compared.add_argument(side, metavar='ROW', help='PATH:LINE or PATH:METRIC; PATH is a results.jsonl, a run or '
                              'study folder, or a JSON file of genbench metrics')  # fmt: skip

    sample = verb('sample', 'Sample images from a run.', epilog=OVERRIDES)
    sample.add_argument('workdir', help='the run folder')
    sample.add_argument('--out', required=True, help='a .png file (one grid) or .npz file (integer images)')
    sample.add_argument('--count', type=int, default=100, help='number of images (default: 100)')
    sample.add_argument('--sampler', default='', help="NAME:STEPS or NAME:STEPS:KEY=VALUE,… (default: the family's)")
    sample.add_argument('--seed', type=int, default=0, help='seed of the samples (default: 0)')
    sample.add_argument('--step', type=int, help='the checkpoint to use (default: the newest)')
    sample.add_argument('--given', action='append', default=[], metavar='KIND=VALUE',
                        help='a condition, such as label=3 or caption="a bold seven" (repeatable)')  # fmt: skip
    sample.add_argument('--caption', metavar='TEXT', help='short for --given caption=TEXT')
    flags.processes(sample)

    flags.edit(verb('edit', 'Edit images with a run: inpaint, super-resolve, vary and others.'))
    marks = verb('watermark', 'Mark the noise that images are drawn from, and detect the mark.').add_subparsers(
        dest='action', required=True, metavar='ACTION'
    )
    flags.watermark(lambda name, text: verb(name, text, marks))
    flags.run(verb('run', 'Run a study: train and evaluate what is missing, then report.', epilog=OVERRIDES))
    flags.status(verb('status', 'Show the state of the trials of a study, also while they run or from another '
                 'machine.'))  # fmt: skip

    flags.report(verb('report', 'Write the report page of a study or a run, or one page for several.'))

    about = 'Compare result rows across studies and runs: mean ± sd over seeds.'
    flags.results(verb('results', about, epilog=flags.RESULTS))
    about = 'List published numbers and how far genbench has reproduced each.'
    flags.baselines(verb('baselines', about, epilog=flags.BASELINES))
    about = 'Run the recipe of a published number, or evaluate a finished run, and compare the results.'
    flags.verify(verb('verify', about, epilog=flags.VERIFY))

    flags.export(verb('export', 'Export the weights of a run for other programs, with a model card.'))
    flags.imported(verb('import', 'Turn published weights (diffusers, EDM, score SDE) into a run.', epilog=OVERRIDES))
    flags.init(verb('init', 'Start your own project: a family, a config, a study and a test.'))
    about = 'Show and compare configs; list and copy the shipped ones.'
    config = verbs.add_parser(
        'config', aliases=['configs'], help=about, description=about, allow_abbrev=False
    ).add_subparsers(dest='action', required=True, metavar='ACTION')
    flags.config(lambda name, text, epilog='': verb(name, text, config, epilog), OVERRIDES)

    checkpoint = verb('checkpoint', 'List the checkpoints of a run, or copy the run.').add_subparsers(
        dest='action', required=True, metavar='ACTION'
    )
    flags.checkpoint(lambda name, text: verb(name, text, checkpoint))

    data = verb('data', 'List, prepare and show data sets.').add_subparsers(
        dest='action', required=True, metavar='ACTION'
    )
    flags.data(lambda name, text: verb(name, text, data))

    flags.completion(verb('completion', 'Print a script that completes verbs, flags and config keys in a shell.'))
    return main


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one verb. Exit status: 0 for success, 2 for a mistake by the user, 75 if it was stopped and saved."""
    words = joined(sys.argv[1:] if arguments is None else arguments)
    overrides = [word[len('--config.') :] for word in words if word.startswith('--config.')]
    try:
        given = _parse([word for word in words if not word.startswith('--config.')])
        shows_config = given.verb in ('config', 'configs') and given.action == 'show'
        if overrides and given.verb not in ('train', 'evaluate', 'sample', 'run', 'import') and not shows_config:
            raise UserError(f'genbench {given.verb} takes no --config.KEY=VALUE.')
        check_arguments(vars(given))
        with explained_disk_errors():
            if given.verb in JOINED:
                return VERBS[given.verb](given, overrides)
            action = f' {given.action}' if given.verb == 'data' else ''
            with remote.staged(given.verb + action, vars(given)):
                return VERBS[given.verb](given, overrides)
    except UserError as error:
        return _complain(mirror.named(str(error)))
    except BrokenPipeError:  # whoever read our output has gone
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except KeyboardInterrupt:
        print('genbench: interrupted', file=sys.stderr)
        return INTERRUPTED


def _parse(words: Sequence[str]) -> argparse.Namespace:
    main = parser()
    given, unknown = main.parse_known_args(words)
    if unknown:
        known = [flag for flag in _flags(main, given.verb) if flag.startswith('--')]
        hint = did_you_mean(unknown[0].partition('=')[0], known) if unknown[0].startswith('-') else ''
        raise UserError(f'genbench {given.verb} does not understand {" ".join(unknown)}. {hint}')
    return given


def _flags(main: argparse.ArgumentParser, verb: str) -> list[str]:
    (verbs,) = [action.choices for action in main._actions if isinstance(action, argparse._SubParsersAction)]
    return list(verbs[verb]._option_string_actions)


def _complain(message: str) -> int:
    print('genbench:', ' '.join(message.split()), file=sys.stderr)
    return 2


def _train(given: argparse.Namespace, overrides: Sequence[str]) -> int:
    from genbench import config, startup

    if not given.workdir and not given.dry_run:
        raise UserError('genbench train needs a run folder: --workdir=DIR.')
    if given.replay is not None:
        with remote.staged('replay', vars(given)):
            return _replay(given, overrides)
    if not given.config:
        raise UserError('genbench train needs a config: --config=CONFIG.')
    profile = _span(given.profile)
    resolved = config.load(given.config, overrides)
    from genbench.training import topologies

    if target := topologies.asked(given):
        return commands.forecast(resolved, target, given.json)
    from genbench.training import mesh

    startup.prepare(functools.partial(mesh.fitting, resolved))
    with _joined(given) as processes:
        if not given.dry_run:
            return _train_run(resolved, given, profile)
        from genbench.training import dry_run

        lines = dry_run.describe(resolved)
        if processes.is_first():
            print('\n'.join(lines))
        return 0


def _train_run(resolved: Any, given: argparse.Namespace, profile: tuple[int, int] | None) -> int:
    from genbench.evaluation.monitor import train
    from genbench.training import processes

    outcome = train(resolved, given.workdir, debug=given.debug, profile=profile, began=BEGAN)
    summary, workdir = outcome.summary, mirror.named(given.workdir)
    if not processes.is_first():
        return 0 if outcome.complete else INTERRUPTED
    if outcome.already:
        print(f'{workdir} is complete: {summary["step"]} steps in {summary["training_seconds"]:.0f} s.')
        return 0
    if not outcome.complete:
        print(f'Stopped at step {summary["step"]} and saved to {workdir}. Repeat the command to continue.')
        return INTERRUPTED
    print(f'{workdir}: {summary["step"]} steps in {summary["training_seconds"]:.0f} s, '
          f'{summary["images_per_second"]:.0f} images/s, {_used(summary)}. '
          f'Next: genbench evaluate {workdir}')  # fmt: skip
    return 0


@contextlib.contextmanager
def _joined(given: argparse.Namespace) -> Iterator[Any]:
    """Join the processes of the flags or of the SLURM step, and fetch remote files. Yields the module `processes`."""
    from genbench.training import processes

    processes.connect(given.coordinator, given.num_processes, given.process_id, detect=given.distributed)
    if given.verb != 'train':
        processes.answer_sigterm()
    with remote.staged(given.verb, vars(given), processes.from_first, processes.all_agree):
        yield processes


def _used(summary: dict[str, Any]) -> str:
    share = f'{summary["goodput"]:.0%} of the time spent in steps'
    if summary['mfu'] is None:
        return f'{share} (no MFU: the peak of {summary["device"]} is unknown)'
    return f'{share}, MFU {summary["mfu"]:.1%}'


def _span(text: str) -> tuple[int, int] | None:
    """Parse START:STOP."""
    if not text:
        return None
    start, _, stop = text.partition(':')
    if not (start.isdigit() and stop.isdigit() and int(start) < int(stop)):
        raise UserError(f'--profile is {text!r}; write START:STOP, for example 100:110.')
    return int(start), int(stop)


def _replay(given: argparse.Namespace, overrides: Sequence[str]) -> int:
    from genbench import startup

    if overrides:
        raise UserError('--replay uses the config of the run; remove --config.KEY=VALUE.')
    startup.prepare()
    from genbench.training import replay

    for line in replay.replay(given.workdir, given.replay):
        print(line, flush=True)
    return 0


def _evaluate(given: argparse.Namespace, overrides: Sequence[str]) -> int:
    from genbench import startup
    from genbench.training import topologies

    if target := topologies.asked(given, needed=True):
        with remote.staged('evaluate', vars(given)):
            return commands.forecast_evaluation(given, overrides, target)
    startup.prepare()
    with _joined(given) as processes:
        from genbench.evaluation import harness, table

        rows = harness.evaluate(given.workdir, overrides, step=given.step, cells=given.grid)
        if processes.is_first():
            told = f'{mirror.named(given.workdir)}/results.jsonl already has all of these rows.'
            print(table.text(rows) if rows else told)
    return 0


def _metrics(given: argparse.Namespace, _: Sequence[str]) -> int:
    from genbench import startup

    startup.prepare()
    with _joined(given):
        from genbench.evaluation import commands

        return commands.metrics(given)


def _compare_protocols(given: argparse.Namespace, _: Sequence[str]) -> int:
    from genbench.evaluation import protocol

    verdict, different = protocol.compare(protocol.read_row(given.left), protocol.read_row(given.right))
    for key, (left, right) in different.items():
        print(f'{key}: {left!r} → {right!r}')
    print(verdict)
    return 0


def _sample(given: argparse.Namespace, overrides: Sequence[str]) -> int:
    from genbench import startup

    startup.prepare()
    with _joined(given) as processes:
        from genbench.evaluation import draw

        draw.draw_to_file(given.workdir, given.out, count=given.count, sampler=given.sampler, seed=given.seed,
                          given=flags.with_caption(given), overrides=overrides, step=given.step)  # fmt: skip
        if processes.is_first():
            print(f'{given.count} images written to {mirror.named(given.out)}')
    return 0


def _report(given: argparse.Namespace, _: Sequence[str]) -> int:
    from genbench.report import page

    path = page.write(*given.folders, out=given.out, across=given.across_protocols)
    print(mirror.named(str(path)))
    if given.figures:
        from genbench.report import papers

        chosen = [name for name in given.models.split(',') if name]
        paper = papers.Paper.of(given.figure_size, given.font, given.font_size)
        written = papers.write(*given.folders, into=path.parent / 'figures', paper=paper, models=chosen)
        print(f'{len(written)} files written to {written[0].parent}')
    return 0


def _study(given: argparse.Namespace, overrides: Sequence[str]) -> int:
    from genbench.studies import commands

    if given.verb == 'run':
        return commands.run(given, overrides)
    return getattr(commands, given.verb)(given)


def _data(given: argparse.Namespace, _: Sequence[str]) -> int:
    from genbench.data import opening, sources

    if given.action == 'list':
        found = sources.names() if given.all else sources.prepared(given.data_dir) + opening.prepared(given.data_dir)
        print('\n'.join(found))
        return 0
    from genbench.data import recipe, showing

    name = opening.named(given.name, given.data_dir, recipe.of(given))
    if given.action == 'prepare':
        folder, lines = opening.prepare(name, given.processes, showing.counter())
        print('\n'.join([folder, *lines]))
    else:
        print('\n'.join(showing.show(name, given.split, given.out)))
    return 0


def _completion(given: argparse.Namespace, _: Sequence[str]) -> int:
    from genbench import completion

    print(completion.script(given.shell, parser()), end='')
    return 0


JOINED = ('train', 'evaluate', 'sample', 'metrics')  # verbs of several processes, the first of which moves files
VERBS = {
    'train': _train,
    'evaluate': _evaluate,
    'metrics': _metrics,
    'compare-protocols': _compare_protocols,
    'sample': _sample,
    'edit': commands.edit,
    'watermark': commands.watermark,
    'run': _study,
    'status': _study,
    'report': _report,
    'results': _study,
    'baselines': _study,
    'verify': _study,
    'init': commands.init,
    'export': commands.export,
    'import': commands.import_weights,
    'config': commands.config,
    'configs': commands.config,
    'checkpoint': commands.checkpoint,
    'data': _data,
    'completion': _completion,
}

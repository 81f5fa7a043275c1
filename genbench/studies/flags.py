"""Flags of the verbs that look at many results; light, for every start of the command line reads them."""

import argparse

RESULTS = """Keys are those of a row (metric, value, n, family, dataset, trial, variant, seed, sampler, nfe, kind, …),
protocol.KEY (or only KEY: steps, guidance, average, method, …) and settings.KEY, a config key."""
BASELINES = 'Keys: id, model, paper, data, metric, value, kind, nfe, confirmed, config, status.'
VERIFY = 'Exit status: 0 within the tolerance, or every check passed; 1 not; 2 a mistake; 75 stopped and saved.'


def results(parser: argparse.ArgumentParser) -> None:
    parser.add_argument('folders', nargs='+', metavar='DIR', help='studies, runs, or folders that hold some')
    _where(parser, "'metric=fd,kd nfe<=50 variant=lr*'")
    parser.add_argument('--metric', default='', help='metrics, joined by commas')
    parser.add_argument('--pivot', default='', metavar='ROWS:COLUMNS', help='keys, for example variant,sampler:metric')
    parser.add_argument('--baseline', default='', metavar='VARIANT', help='add differences to it, paired by seed')
    parser.add_argument(
        '--across-protocols', action='store_true', help='differences to what was not measured alike'
    )
    parser.add_argument('--format', choices=('table', 'csv', 'md', 'latex'), help='else as --out ends, else table')
    parser.add_argument('--out', default='', help='a file to write')


def baselines(parser: argparse.ArgumentParser) -> None:
    _where(parser, "'data=cifar10 metric=fid status=reproduced'")


def verify(parser: argparse.ArgumentParser) -> None:
    parser.add_argument('row', metavar='ROW', help='an id that genbench baselines lists')
    parser.add_argument('--run', default='', metavar='WORKDIR', help='a finished run to evaluate, in place of training')
    parser.add_argument('--workdir', default='', help='where to train (runs/baselines/ROW); it goes on there')
    parser.add_argument('--data-dir', default='', help='where the data set is prepared')
    parser.add_argument('--check', action='store_true', help='only what is cheap: the config resolves, the parameter '
                        'count is the published one, one step runs')  # fmt: skip
    parser.add_argument('--record', action='store_true', help='keep the result as evidence in docs/baselines')


def _where(parser: argparse.ArgumentParser, example: str) -> None:
    parser.add_argument('--where', action='append', default=[], metavar='CONDITIONS',
                        help=f'which rows, for example {example}; = != < <= > >=')  # fmt: skip

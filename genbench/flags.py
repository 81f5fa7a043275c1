"""The parser, and the flags of verbs that have many. Every start of the command line imports this, so it is light."""

import argparse
from collections.abc import Callable
from typing import Any, NoReturn

from genbench.errors import UserError, did_you_mean

RESULTS = """Keys are those of a row (metric, value, n, family, dataset, trial, variant, seed, sampler, nfe, kind, …),
protocol.KEY (or only KEY: steps, guidance, average, method, …) and settings.KEY, a config key."""
BASELINES = 'Keys: id, model, paper, data, metric, value, kind, nfe, confirmed, config, status, outdated.'
COMPLETION = """To turn it on:
  bash  genbench completion bash > ~/.local/share/bash-completion/completions/genbench
  zsh   genbench completion zsh > ~/.zfunc/_genbench  (~/.zshrc: fpath+=~/.zfunc before compinit)
  fish  genbench completion fish > ~/.config/fish/completions/genbench.fish"""
VERIFY = 'Exit status: 0 within the tolerance, or every check passed; 1 not; 2 a mistake; 75 stopped and saved.'


class Parser(argparse.ArgumentParser):
    """Reports what is wrong in one line, like every other mistake."""

    def error(self, message: str) -> NoReturn:
        raise UserError(f'{message[:1].upper()}{message[1:]}. See {self.prog} --help.')

    def _check_value(self, action: argparse.Action, value: Any) -> None:
        if action.choices is not None and value not in action.choices:
            what = '/'.join(action.option_strings) or str(action.metavar or action.dest).lower()
            raise UserError(f'No {what} is called {value!r}. {did_you_mean(value, action.choices)}')


def config(verb: Callable[..., argparse.ArgumentParser], epilog: str) -> None:
    """Add the actions of `genbench config`. `verb` adds one action."""
    show = verb('show', 'Print a config with every default filled in.', epilog)
    show.add_argument('name', nargs='?', default='', metavar='CONFIG', help='a config file, or the name of one '
                      'that ships')  # fmt: skip
    show.add_argument('--config', default='', help='the same')
    diff = verb('diff', 'Print the keys in which two configs differ.')
    diff.add_argument('left', help='a config file, the name of one that ships, or a run folder')
    diff.add_argument('right', help='the same')
    verb('list', 'Print the configs, studies and guides that ship with genbench.')
    copied = verb('copy', 'Copy a config, study or guide that ships, to change it.')
    copied.add_argument('name', help='as genbench config list prints it')
    copied.add_argument('--out', default='', help='a new file; by default under the path that it ships in')


def processes(parser: argparse.ArgumentParser) -> None:
    """Flags that join the processes of one run or evaluation."""
    told = 'Start the same command once a process; all reach the same folders.'
    joined = parser.add_argument_group('several processes', told)
    joined.add_argument('--coordinator', default='', metavar='HOST:PORT', help='where process 0 listens')
    joined.add_argument('--num-processes', type=int, metavar='N')
    joined.add_argument('--process-id', type=int, metavar='I', help='0 … N − 1')
    joined.add_argument('--distributed', action='store_true',
                        help='ask the cluster for these (TPU pod, Open MPI, …; a SLURM step is noticed)')  # fmt: skip


def topology(parser: argparse.ArgumentParser, report: bool = True) -> None:
    """Flags that name devices this machine lacks. `report` adds --json."""
    group = parser.add_argument_group('compiled for devices that are not there', 'With --dry-run.')
    group.add_argument('--topology', default='', metavar='NAME', help='TPU chips, such as v5e:4x8 or v5p:2x2x1, or '
                       'GPUs, such as h100:8: memory, exchanges, FLOPs and a roofline estimate')  # fmt: skip
    group.add_argument('--slices', type=int, default=1, metavar='N', help='TPU slices of that topology (1)')
    if report:
        group.add_argument('--json', action='store_true', help='print all of it for programs')


def export(parser: argparse.ArgumentParser) -> None:
    parser.add_argument('workdir', help='the folder of a run')
    parser.add_argument('--out', required=True, help='a new folder')
    parser.add_argument('--format', default='safetensors', choices=('safetensors', 'diffusers'), help='safetensors '
                        'holds every run; diffusers is the layout of its UNet2DModel')  # fmt: skip
    parser.add_argument('--average', default='', help='of the parameters; by default the one that is evaluated')
    parser.add_argument('--step', type=int, help='a checkpoint; by default the newest')
    parser.add_argument('--licence', default='', metavar='NAME', help='of the weights, such as cc-by-4.0')


def imported(parser: argparse.ArgumentParser) -> None:
    parser.add_argument('source', help='a folder of diffusers, with config.json and weights, or with a folder '
                        'unet; or a checkpoint, .pkl of EDM or .pth of score SDE')  # fmt: skip
    parser.add_argument('--config', required=True, help='the config of the run: a file, or a name such as '
                        'cifar10/diffusion')  # fmt: skip
    parser.add_argument('--workdir', required=True, help='the folder of the run, a new one')


def init(parser: argparse.ArgumentParser) -> None:
    parser.add_argument('name', metavar='NAME', help='of the family and its module, such as my_family')
    parser.add_argument('--out', default='', help='a new folder; by default NAME')


def checkpoint(verb: Callable[[str, str], argparse.ArgumentParser]) -> None:
    """Add the actions of `genbench checkpoint`. `verb` adds one action."""
    held = verb('show', 'Print which checkpoints a run keeps and why, and whether each can be read.')
    held.add_argument('workdir', help='the folder of a run')
    whole = verb('export', 'Copy a run with those that it borrowed, which it then does without.')
    whole.add_argument('workdir', help='the folder of a run')
    whole.add_argument('--out', required=True, help='a new folder')


def run(parser: argparse.ArgumentParser) -> None:
    parser.add_argument('study', help='a Python file that defines get_study(), or the name of a study that ships')
    parser.add_argument('--out', required=True, help='the folder of the study')
    parser.add_argument('--dry-run', action='store_true', help='print the trials, what sets them apart and what they '
                        'cost')  # fmt: skip
    parser.add_argument('--only', default='', metavar='GLOB,GLOB', help='these trials or variants, and what they build '
                        'on')  # fmt: skip
    parser.add_argument('--retry-failed', action='store_true', help='only the trials that failed')
    parser.add_argument('--limit', type=int, default=0, help='at most so many trials')
    parser.add_argument('--rerun-changed', action='store_true', help='run finished trials anew, the old ones kept '
                        'aside, if the code has changed since')  # fmt: skip
    topology(parser, report=False)
    where = parser.add_argument_group('where trials run')
    where.add_argument('--launcher', default='local', choices=('local', 'slurm'), help='this machine, or a cluster')
    where.add_argument('--jobs', type=int, default=0, help='trials at a time on this machine; by default one an '
                       'accelerator, or one a core on CPU')  # fmt: skip
    slurm = parser.add_argument_group('on SLURM', 'In place of what the study says; of each trial.')
    slurm.add_argument('--partition')
    slurm.add_argument('--time', help='minutes, or [DAYS-]HOURS:MINUTES:SECONDS')
    slurm.add_argument('--nodes', help='more than one are joined by jax.distributed')
    slurm.add_argument('--gpus', help='on each node')
    slurm.add_argument('--cpus', help='of each task')
    slurm.add_argument('--account')
    slurm.add_argument('--slurm', action='append', default=[], metavar='KEY=VALUE',
                       help='any long option of sbatch, such as mem=32G; may be repeated')  # fmt: skip
    slurm.add_argument('--no-wait', action='store_true', help='submit only; the same command later waits and collects')
    slurm.add_argument('--start-timeout', type=float, default=0.0, metavar='MINUTES',
                       help='give up on a job that has not started by then; 0: wait for ever')  # fmt: skip


def status(parser: argparse.ArgumentParser) -> None:
    parser.add_argument('folder', metavar='DIR', help='the --out folder of a study')
    parser.add_argument('--json', action='store_true', help='for programs')


def report(parser: argparse.ArgumentParser) -> None:
    parser.add_argument('folders', nargs='+', metavar='DIR', help='the --out folder of a study, or the folder of a run')
    parser.add_argument('--out', default='', help='the file; by default report.html in DIR, or beside several')
    parser.add_argument('--across-protocols', action='store_true', help='rank numbers that were not measured alike too')
    parser.add_argument('--figures', action='store_true', help='also write the figures as PNG and PDF to figures/')
    parser.add_argument('--figure-size', default='', metavar='WIDTHxHEIGHT', help='of a figure, in points (420x280)')
    parser.add_argument('--font', default='', help='of the figures, one that is installed')
    parser.add_argument('--font-size', type=float, default=12.0, help='of the figures, in points (12)')
    parser.add_argument('--models', default='', metavar='NAME,NAME', help='the models in the figures; all without')


def results(parser: argparse.ArgumentParser) -> None:
    parser.add_argument('folders', nargs='+', metavar='DIR', help='studies, runs, or folders that hold some')
    _where(parser, "'metric=fd,kd nfe<=50 variant=lr*'")
    parser.add_argument('--metric', default='', help='metrics, joined by commas')
    parser.add_argument('--pivot', default='', metavar='ROWS:COLUMNS', help='keys, for example variant,sampler:metric')
    parser.add_argument('--baseline', default='', metavar='VARIANT', help='add differences to it, paired by seed')
    parser.add_argument('--across-protocols', action='store_true', help='differences to what was not measured alike')
    parser.add_argument('--format', choices=('table', 'csv', 'md', 'latex'), help='else as --out ends, else table')
    parser.add_argument('--out', default='', help='a file to write')


def baselines(parser: argparse.ArgumentParser) -> None:
    _where(parser, "'data=cifar10 metric=fid status=reproduced'")
    parser.add_argument('--markdown', action='store_true', help='the rows with a recipe as the page '
                        'docs/reproductions/README.md')  # fmt: skip


def verify(parser: argparse.ArgumentParser) -> None:
    parser.add_argument('row', metavar='ROW', nargs='?', default='', help='an id that genbench baselines lists')
    parser.add_argument('--all', action='store_true', help='in place of ROW: every recipe that fits into --max-minutes '
                        'and is not reproduced by this code, the shortest first')  # fmt: skip
    parser.add_argument('--max-minutes', type=float, default=0.0, metavar='N', help='for --all: minutes in all; what '
                        'is not done by then is stopped and saved')  # fmt: skip
    parser.add_argument('--continue', dest='go_on', action='store_true', help='for --all: go on with unfinished runs '
                        'first, also if they do not fit')  # fmt: skip
    parser.add_argument('--run', default='', metavar='WORKDIR', help='a finished run to evaluate, in place of training')
    parser.add_argument('--workdir', default='', help='where to train (runs/baselines/ROW); it goes on there')
    parser.add_argument('--data-dir', default='', help='where the data set is prepared')
    parser.add_argument('--check', action='store_true', help='only what is cheap: the config resolves, the parameter '
                        'count is the published one, one step runs')  # fmt: skip
    parser.add_argument('--record', action='store_true', help='keep the result as evidence in docs/baselines')


def _where(parser: argparse.ArgumentParser, example: str) -> None:
    parser.add_argument('--where', action='append', default=[], metavar='CONDITIONS',
                        help=f'which rows, for example {example}; = != < <= > >=')  # fmt: skip


def metrics(parser: argparse.ArgumentParser) -> None:
    parser.add_argument('a', metavar='A', help='the samples; or the word "moments"')
    parser.add_argument('b', metavar='B', nargs='+', help='the reference, after further samples; or, after "moments", '
                        'the images')  # fmt: skip
    parser.add_argument('--metrics', help='fid, kid, sfid, fid_infinity, mind, pr, dc, is, c2st, memorisation, fld, '
                        'vendi, swd; fd and kd with other features (fid,kid,pr,dc,is or fd,kd,pr,dc)')  # fmt: skip
    parser.add_argument('--features', default='', help='inception (the default), dinov2-vitb14, dinov2-vitl14, '
                        'clip-vitb32, clip-vitl14, vgg16, classifier:DATASET, pixels, or FILE.py:FUNCTION of your own; '
                        'of arrays of features and of moments, what to call their network')  # fmt: skip
    parser.add_argument('--convention', default='', help='of the inception: ttur (default), pytorch-fid or clean')
    parser.add_argument('--weights', default='', help='a FILE of weights, or FILE::KEY; by default the published one')
    parser.add_argument('--weights-sha256', default='', help='of a file that is not the published one')
    parser.add_argument('--held-out', default='', help='held-out real images, for c2st, memorisation, fld')
    parser.add_argument('--json', default='', help='write the rows with their protocol to this file')
    parser.add_argument('--out', default='', help='of "moments": the .npz file')
    parser.add_argument('--sets', type=int, default=1, help='score this many disjoint parts of A: mean ± sd (1)')
    parser.add_argument('--seed', type=int, default=0, help='of the parts, and of samples drawn from a run (0)')
    parser.add_argument('--batch-size', type=int, default=64)
    parser.add_argument('--data-dir', default='', help='where tfds:NAME:SPLIT is prepared')
    parser.add_argument('--skip-unreadable', action='store_true', help='leave out image files that cannot be read')
    parser.add_argument('--sampler', default='', help='of a run: NAME:STEPS or NAME:STEPS:KEY=VALUE,…')
    parser.add_argument('--num-samples', type=int, default=0, help='of a run; by default what its config says')
    parser.add_argument('--no-cache', action='store_true', help='compute features anew, and keep none')
    chosen = parser.add_argument_group('parameters of the metrics', 'They are part of the protocol.')
    chosen.add_argument('--kid-subsets', type=int, default=100, help='of kid and kd (100)')
    chosen.add_argument('--kid-subset-size', type=int, default=1000, help='images in one (1000)')
    chosen.add_argument('--pr-neighbours', type=int, default=3, help='k of precision and recall (3)')
    chosen.add_argument('--dc-neighbours', type=int, default=5, help='k of density and coverage (5)')
    chosen.add_argument('--slices', type=int, default=1000, help='directions of swd and mind (1000)')
    chosen.add_argument('--is-splits', type=int, default=10, help='of the inception score (10)')
    recipe(parser, 'how folder:DIR:SPLIT and hf:NAME:SPLIT are prepared')
    parser.add_argument('--average', default='', help='of a run: which average of the parameters')
    parser.add_argument('--step', type=int, help='of a run: a checkpoint; by default the newest')


def completion(parser: argparse.ArgumentParser) -> None:
    parser.add_argument('shell', choices=('bash', 'zsh', 'fish'))
    parser.formatter_class, parser.epilog = argparse.RawDescriptionHelpFormatter, COMPLETION


def data(verb: Callable[[str, str], argparse.ArgumentParser]) -> None:
    """Add the actions of `genbench data`. `verb` adds one action."""
    listing = verb('list', 'Print the data sets that are prepared, or all names TFDS knows.')
    listing.add_argument('--all', action='store_true', help='every name, prepared or not')
    listing.add_argument('--data_dir', default='')
    prepare = verb('prepare', 'Write the array_record files of a data set, once.')
    _recipe(prepare)
    prepare.add_argument('--processes', type=int, default=0, help='by default one a core')
    shown = verb('show', 'Write a sheet of images as PNG, and print the sizes of the splits.')
    _recipe(shown)
    shown.add_argument('--split', default='train', help='a split or a slice of one, such as train[:1000]')
    shown.add_argument('--out', default='', metavar='FILE.png', help='by default named like the set')


def _recipe(parser: argparse.ArgumentParser) -> None:
    """Flags that say how a data set is prepared, named as in `data.recipe.Recipe`."""
    parser.add_argument('name', help='folder:DIR, hf:NAME, or the name of a set of TFDS')
    parser.add_argument('--data_dir', default='', help='where it is prepared; by default the cache, and of TFDS its '
                        'own folder')  # fmt: skip
    recipe(parser, 'how images are prepared')


def recipe(parser: argparse.ArgumentParser, title: str) -> None:
    """The keys of a recipe as flags."""
    same = parser.add_argument_group(title, 'As the keys data.size, data.crop, … of a config.')
    same.add_argument('--size', type=_whole_numbers, default=(), metavar='SIDE or HEIGHT,WIDTH')
    same.add_argument('--crop', default='center', help='center, stretch, adm or edm (center)')
    same.add_argument('--resize', default='', help='the filter: lanczos, bicubic, bilinear, hamming, box or nearest; '
                      "by default the crop's own, else lanczos")  # fmt: skip
    same.add_argument('--upscale', action='store_true', help='enlarge smaller images, which are else left out')
    same.add_argument('--channels', type=int, default=0, help='1: grey, 3: colour; by default as the images are')
    same.add_argument('--labels', default='', help='a field that holds them, or none; by default class folders')
    same.add_argument('--test-share', type=float, default=0.1, help='where no folder says what is test (0.1)')


def _whole_numbers(text: str) -> tuple[int, ...]:
    try:
        return tuple(int(part) for part in text.split(','))
    except ValueError:
        raise argparse.ArgumentTypeError(f'{text!r} is no size; write 64, or HEIGHT,WIDTH') from None

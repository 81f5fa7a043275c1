"""The parser, and the flags of verbs that have many. Every start of the command line imports this, so it is light."""

import argparse
from collections.abc import Callable
from typing import Any, NoReturn

from genbench.errors import UserError, did_you_mean

RESULTS = """Keys come from a row (metric, value, n, family, dataset, trial, variant, seed, sampler, nfe, kind, …), its
protocol (protocol.KEY, or just KEY: steps, guidance, average, method, …) and its config (settings.KEY)."""
BASELINES = 'Keys: id, model, paper, data, metric, value, kind, nfe, confirmed, config, status, outdated.'
COMPLETION = """To enable completion:
  bash  genbench completion bash > ~/.local/share/bash-completion/completions/genbench
  zsh   genbench completion zsh > ~/.zfunc/_genbench  (~/.zshrc: fpath+=~/.zfunc before compinit)
  fish  genbench completion fish > ~/.config/fish/completions/genbench.fish"""
VERIFY = 'Exit status: 0 if the number is within the tolerance or all checks pass, else 1; 2: a mistake; 75: stopped.'


class Parser(argparse.ArgumentParser):
    """Reports what is wrong in one line, like every other mistake."""

    def error(self, message: str) -> NoReturn:
        raise UserError(f'{message[:1].upper()}{message[1:]}. See {self.prog} --help.')

    def _check_value(self, action: argparse.Action, value: Any) -> None:
        if action.choices is not None and value not in action.choices:
            what = '/'.join(action.option_strings) or str(action.metavar or action.dest).lower()
            raise UserError(f'There is no {what} {value!r}. {did_you_mean(value, action.choices)}')


DATA_DIR = ('--data_dir', '--data-dir')  # both spellings, since verbs once differed


def config(verb: Callable[..., argparse.ArgumentParser], epilog: str) -> None:
    """Add the actions of `genbench config`. `verb` adds one action."""
    show = verb('show', 'Print a config with all its defaults.', epilog)
    show.add_argument('name', nargs='?', default='', metavar='CONFIG', help='a config file, or the name of a '
                      'shipped one')  # fmt: skip
    show.add_argument('--config', default='', help='the same')
    diff = verb('diff', 'Print the keys that differ between two configs.')
    diff.add_argument('left', help='a config file, the name of a shipped one, or a run folder')
    diff.add_argument('right', help='the same')
    verb('list', 'Print the configs, studies and guides that ship with genbench.')
    copied = verb('copy', 'Copy a shipped config, study or guide, so that you can edit it.')
    copied.add_argument('name', help='a name that genbench config list prints')
    copied.add_argument('--out', default='', help='a new file (default: the shipped path, in this folder)')


def processes(parser: argparse.ArgumentParser) -> None:
    """Flags that join the processes of one run or evaluation."""
    told = 'Start the same command in every process. All must see the same folders.'
    joined = parser.add_argument_group('several processes', told)
    joined.add_argument('--coordinator', default='', metavar='HOST:PORT', help='the address at which process 0 listens')
    joined.add_argument('--num-processes', type=int, metavar='N', help='number of processes')
    joined.add_argument('--process-id', type=int, metavar='I', help='number of this process, 0 … N − 1')
    joined.add_argument('--distributed', action='store_true',
                        help='take these from the cluster (TPU pod, Open MPI, …); SLURM needs no flag')  # fmt: skip


def with_caption(given: argparse.Namespace) -> list[str]:
    """What --given and --caption say together, as KIND=VALUE.

    Raises:
      UserError: both give a caption.
    """
    if given.caption is None:
        return given.given
    if any(text.partition('=')[0] == 'caption' for text in given.given):
        raise UserError('--caption and --given caption=… say the same; use one of them.')
    return [*given.given, f'caption={given.caption}']


def topology(parser: argparse.ArgumentParser, report: bool = True) -> None:
    """Flags that name devices this machine lacks. `report` adds --json."""
    group = parser.add_argument_group('compiling for absent devices', 'Only with --dry-run.')
    group.add_argument('--topology', default='', metavar='NAME', help='TPUs, such as v5e:4x8 or v5p:2x2x1, or '
                       'GPUs, such as h100:8; prints memory, communication, FLOPs and a roofline')  # fmt: skip
    group.add_argument('--slices', type=int, default=1, metavar='N', help='number of TPU slices of that topology '
                       '(default: 1)')  # fmt: skip
    if report:
        group.add_argument('--json', action='store_true', help='print everything as JSON')


def edit(parser: argparse.ArgumentParser) -> None:
    parser.add_argument('workdir', help='the run folder')
    parser.add_argument('--task', required=True, help='inpaint, outpaint, super-resolve, colourise, deblur, denoise, '
                        'dejpeg, vary, reconstruct or translate')  # fmt: skip
    parser.add_argument('--input', required=True, nargs='+', metavar='FILE', help='image files, folders of them, or '
                        'tfds:NAME:SPLIT')  # fmt: skip
    parser.add_argument('--out', required=True, help='a new folder for the results, grid.png and edit.json')
    parser.add_argument('--problem', default='', help='what hides the image, such as half, box40, pool4, blur1.5 or '
                        'jpeg10 (default: that of the task)')  # fmt: skip
    parser.add_argument('--mask', default='', metavar='FILE', help='for inpaint and outpaint: a picture that is white '
                        'where the image is kept')  # fmt: skip
    parser.add_argument('--degrade', action='store_true', help='take whole images, degrade them first, and compare the '
                        'results with them')  # fmt: skip
    parser.add_argument('--sampler', default='', help="NAME:STEPS or NAME:STEPS:KEY=VALUE,… (default: the task's)")
    parser.add_argument('--count', type=int, default=1, help='number of results for each image (default: 1)')
    parser.add_argument('--seed', type=int, default=0, help='seed of the samples (default: 0)')
    parser.add_argument('--given', action='append', default=[], metavar='KIND=VALUE', help='a condition of all results '
                        '(repeatable)')  # fmt: skip
    parser.add_argument('--source', default='', metavar='RUN', help='for translate: the run that turns the inputs into '
                        'noise (default: the same run)')  # fmt: skip
    parser.add_argument('--source-given', action='append', default=[], metavar='KIND=VALUE', help='for translate: a '
                        'condition of all inputs (repeatable)')  # fmt: skip
    parser.add_argument('--resize', action='store_true', help='change images of another size to the size needed')
    parser.add_argument('--step', type=int, help='the checkpoint to use (default: the newest)')
    parser.add_argument(*DATA_DIR, default='', help='the folder of prepared data sets, for tfds:NAME:SPLIT')


def watermark(verb: Callable[[str, str], argparse.ArgumentParser]) -> None:
    """Add the actions of `genbench watermark`. `verb` adds one action."""
    marked = verb('embed', 'Draw images from marked noise, and the same images without the mark.')
    marked.add_argument('workdir', help='the run folder')
    marked.add_argument('--out', required=True, help='a new folder for the folders marked and unmarked, grid.png, '
                        'key.json and embed.json')  # fmt: skip
    marked.add_argument('--method', default='tree_ring', help='tree_ring (the default) or gaussian_shading')
    marked.add_argument('--count', type=int, default=100, help='number of images (default: 100)')
    marked.add_argument('--radius', type=int, default=0, help='of tree_ring: the largest frequency of the pattern in '
                        'periods per picture (default: 10/64 of the side, and at least 2)')  # fmt: skip
    marked.add_argument('--message', default='', help='of gaussian_shading: zeros and ones (default: drawn)')
    marked.add_argument('--bits', type=int, default=0, help='of gaussian_shading: the length of a drawn message '
                        '(default: 256, or as many as there are values)')  # fmt: skip
    marked.add_argument('--pads', type=int, default=0, help='of gaussian_shading: the number of pads; images '
                        'with the same pad look alike (default: one for each image)')  # fmt: skip
    marked.add_argument('--secret', default='', metavar='TEXT', help='what the pattern, the message and the pads are '
                        'made from (default: drawn). Image i of each call with the same text has the same pad, '
                        'whatever the --seed')  # fmt: skip
    found = verb('detect', 'Look for the mark of a key in images, also after attacks.')
    found.add_argument('workdir', help='the run folder that the images were drawn from')
    found.add_argument('--key', required=True, metavar='FILE', help='the key.json of genbench watermark embed')
    found.add_argument('--input', required=True, nargs='+', metavar='FILE', help='image files, folders of them, or '
                       'tfds:NAME:SPLIT')  # fmt: skip
    found.add_argument('--unmarked', default=[], nargs='+', metavar='FILE', help='the same without a mark, for the '
                       'rate of false alarms, AUC and, of 100 or more, TPR at 1%% FPR')  # fmt: skip
    found.add_argument('--out', required=True, help='a new folder for detect.json and, with attacks, grid.png')
    found.add_argument('--attacks', default='', metavar='NAME,NAME', help='resize, crop, noise, blur, jpeg, '
                       'regenerate, each also with a number, such as jpeg10')  # fmt: skip
    found.add_argument('--regenerator', default='', metavar='RUN', help='the run that regenerates (default: the same)')
    found.add_argument('--resize', action='store_true', help='change images of another size to the size needed')
    found.add_argument(*DATA_DIR, default='', help='the folder of prepared data sets, for tfds:NAME:SPLIT')
    for one in (marked, found):
        one.add_argument('--sampler', default='', help='NAME:STEPS; detection only takes the number of steps from it '
                         '(default: ddim:50, or that of the key)')  # fmt: skip
        one.add_argument('--seed', type=int, default=0, help='seed of the samples or of the attacks (default: 0)')
        one.add_argument('--given', action='append', default=[], metavar='KIND=VALUE', help='a condition of all images '
                         '(repeatable)')  # fmt: skip
        one.add_argument('--step', type=int, help='the checkpoint to use (default: the newest)')


def export(parser: argparse.ArgumentParser) -> None:
    parser.add_argument('workdir', help='the run folder')
    parser.add_argument('--out', required=True, help='a new folder')
    parser.add_argument('--format', default='safetensors', choices=('safetensors', 'diffusers'), help='safetensors '
                        'works for every run; diffusers writes a U-Net or DiT in the layout of diffusers')  # fmt: skip
    parser.add_argument('--average', default='', help='the average of the parameters (default: evaluation.average)')
    parser.add_argument('--step', type=int, help='the checkpoint to export (default: the newest)')
    parser.add_argument('--licence', default='', metavar='NAME', help='the licence of the weights, such as cc-by-4.0')


def imported(parser: argparse.ArgumentParser) -> None:
    parser.add_argument('source', help='a diffusers folder (config.json and weights, or a subfolder '
                        'unet), a .pkl checkpoint of EDM, or a .pth checkpoint of score SDE')  # fmt: skip
    parser.add_argument('--config', required=True, help='the config of the new run: a file, or a name such as '
                        'cifar10/diffusion')  # fmt: skip
    parser.add_argument('--workdir', required=True, help='the new run folder')


def init(parser: argparse.ArgumentParser) -> None:
    parser.add_argument('name', metavar='NAME', help='the name of the family and its module, such as my_family')
    parser.add_argument('--out', default='', help='a new folder (default: NAME)')


def checkpoint(verb: Callable[[str, str], argparse.ArgumentParser]) -> None:
    """Add the actions of `genbench checkpoint`. `verb` adds one action."""
    held = verb('show', 'List the checkpoints of a run, why each is kept, and whether it can be read.')
    held.add_argument('workdir', help='the run folder')
    whole = verb('export', 'Copy a run together with the runs that it borrows from.')
    whole.add_argument('workdir', help='the run folder')
    whole.add_argument('--out', required=True, help='a new folder')


def run(parser: argparse.ArgumentParser) -> None:
    parser.add_argument('study', help='a Python file that defines get_study(), or the name of a shipped study')
    parser.add_argument('--out', required=True, help='the study folder')
    parser.add_argument('--dry-run', action='store_true', help='print the trials, how they differ and what they '
                        'cost')  # fmt: skip
    parser.add_argument('--only', default='', metavar='GLOB,GLOB', help='run only these trials or variants, and those '
                        'that they build on')  # fmt: skip
    parser.add_argument('--retry-failed', action='store_true', help='run only the trials that failed')
    parser.add_argument('--limit', type=int, default=0, help='run at most this many trials')
    parser.add_argument('--rerun-changed', action='store_true', help='repeat finished trials if the code has changed '
                        'since, and keep the old ones')  # fmt: skip
    topology(parser, report=False)
    where = parser.add_argument_group('where trials run')
    where.add_argument('--launcher', default='local', choices=('local', 'slurm'), help='local: this machine; slurm: a '
                       'cluster')  # fmt: skip
    where.add_argument('--jobs', type=int, default=0, help='parallel trials on this machine (default: one per '
                       'accelerator, or one per core on CPU)')  # fmt: skip
    slurm = parser.add_argument_group('on SLURM', 'These override the resources that the study gives to each trial.')
    slurm.add_argument('--partition', help='the partition')
    slurm.add_argument('--time', help='minutes, or [DAYS-]HOURS:MINUTES:SECONDS')
    slurm.add_argument('--nodes', help='nodes per trial; jax.distributed joins them')
    slurm.add_argument('--gpus', help='GPUs per node')
    slurm.add_argument('--cpus', help='CPUs per task')
    slurm.add_argument('--account', help='the account to charge')
    slurm.add_argument('--slurm', action='append', default=[], metavar='KEY=VALUE',
                       help='any long option of sbatch, such as mem=32G (repeatable)')  # fmt: skip
    slurm.add_argument('--no-wait', action='store_true', help='submit only; repeat the command later to wait and '
                       'collect')  # fmt: skip
    slurm.add_argument('--start-timeout', type=float, default=0.0, metavar='MINUTES',
                       help='give up on a job that has not started by then (0: wait forever)')  # fmt: skip


def status(parser: argparse.ArgumentParser) -> None:
    parser.add_argument('folder', metavar='DIR', help='the study folder')
    parser.add_argument('--json', action='store_true', help='print JSON')


def report(parser: argparse.ArgumentParser) -> None:
    parser.add_argument('folders', nargs='+', metavar='DIR', help='a study folder or a run folder')
    parser.add_argument('--out', default='', help='the file (default: report.html in DIR, or in the folder that holds '
                        'several DIRs)')  # fmt: skip
    parser.add_argument('--across-protocols', action='store_true', help='also rank numbers that were not measured in '
                        'the same way')  # fmt: skip
    parser.add_argument('--figures', action='store_true', help='also write the figures as PNG and PDF to figures/')
    parser.add_argument('--figure-size', default='', metavar='WIDTHxHEIGHT', help='size of a figure in points '
                        '(default: 420x280)')  # fmt: skip
    parser.add_argument('--font', default='', help='an installed font for the figures')
    parser.add_argument('--font-size', type=float, default=12.0, help='font size of the figures in points (default: '
                        '12)')  # fmt: skip
    parser.add_argument('--models', default='', metavar='NAME,NAME', help='the models in the figures (default: all)')


def results(parser: argparse.ArgumentParser) -> None:
    parser.add_argument('folders', nargs='+', metavar='DIR', help='studies, runs, or folders that contain them')
    _where(parser, "'metric=fd,kd nfe<=50 variant=lr*'")
    parser.add_argument('--metric', default='', help='metrics, separated by commas')
    parser.add_argument('--pivot', default='', metavar='ROWS:COLUMNS', help='keys of rows and columns, for example '
                        'variant,sampler:metric')  # fmt: skip
    parser.add_argument('--baseline', default='', metavar='VARIANT', help='add the differences to this variant, '
                        'paired by seed')  # fmt: skip
    parser.add_argument('--across-protocols', action='store_true', help='allow differences between numbers that were '
                        'not measured in the same way')  # fmt: skip
    parser.add_argument('--format', choices=('table', 'csv', 'md', 'latex'), help='default: the suffix of --out, or '
                        'table')  # fmt: skip
    parser.add_argument('--out', default='', help='the file to write')


def baselines(parser: argparse.ArgumentParser) -> None:
    parser.add_argument('row', metavar='ROW', nargs='?', default='', help='say all that is known of this row')
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
    parser.add_argument('--run', default='', metavar='WORKDIR', help='evaluate this finished run instead of training')
    parser.add_argument('--workdir', default='', help='where to train, or resume training (default: '
                        'runs/baselines/ROW)')  # fmt: skip
    parser.add_argument(*DATA_DIR, default='', help='the folder of prepared data sets')
    parser.add_argument('--check', action='store_true', help='cheap checks only: the config resolves, the parameter '
                        'count matches the published one, one step runs')  # fmt: skip
    parser.add_argument('--record', action='store_true', help='save the result as evidence in docs/baselines')


def _where(parser: argparse.ArgumentParser, example: str) -> None:
    parser.add_argument('--where', action='append', default=[], metavar='CONDITIONS',
                        help=f'select rows, for example {example}; operators: = != < <= > >=')  # fmt: skip


def metrics(parser: argparse.ArgumentParser) -> None:
    parser.add_argument('a', metavar='A', help='the samples, or the word "moments"')
    parser.add_argument('b', metavar='B', nargs='+', help='more samples, then the reference; after "moments": '
                        'the images')  # fmt: skip
    parser.add_argument('--metrics', help='fid, kid, sfid, fid_infinity, mind, pr, dc, is, c2st, memorisation, fld, '
                        'vendi, swd; or fd and kd, with other features (default: fid,kid,pr,dc,is or '
                        'fd,kd,pr,dc)')  # fmt: skip
    parser.add_argument('--features', default='', help='inception (the default), dinov2-vitb14, dinov2-vitl14, '
                        'clip-vitb32, clip-vitl14, vgg16, classifier:DATASET, pixels, or your own FILE.py:FUNCTION; '
                        'for arrays of features and moments, a name for their network')  # fmt: skip
    parser.add_argument('--convention', default='', help='how images are prepared for inception: ttur (default), '
                        'pytorch-fid or clean')  # fmt: skip
    parser.add_argument('--weights', default='', help='a weights FILE, or FILE::KEY (default: the published one)')
    parser.add_argument('--weights-sha256', default='', help='the hash of a --weights file other than the published '
                        'one')  # fmt: skip
    parser.add_argument('--held-out', default='', help='held-out real images, for c2st, memorisation, fld')
    parser.add_argument('--json', default='', help='write the rows and their protocol to this file')
    parser.add_argument('--out', default='', help='after "moments": the .npz file to write')
    parser.add_argument('--sets', type=int, default=1, help='split A into this many disjoint sets; report mean ± sd '
                        '(default: 1)')  # fmt: skip
    parser.add_argument('--seed', type=int, default=0, help='seed of the sets, and of samples from a run (default: 0)')
    parser.add_argument('--batch-size', type=int, default=64, help='images in a batch (default: 64)')
    parser.add_argument(*DATA_DIR, default='', help='the folder of prepared data sets, for tfds:NAME:SPLIT')
    parser.add_argument('--skip-unreadable', action='store_true', help='skip image files that cannot be read')
    parser.add_argument('--sampler', default='', help='for a run: NAME:STEPS or NAME:STEPS:KEY=VALUE,…')
    parser.add_argument('--num-samples', type=int, default=0, help='for a run: number of samples (default: '
                        'evaluation.num_samples)')  # fmt: skip
    parser.add_argument('--no-cache', action='store_true', help='neither read nor write cached features')
    chosen = parser.add_argument_group('parameters of the metrics', 'These are part of the protocol.')
    chosen.add_argument('--kid-subsets', type=int, default=100, help='subsets for kid and kd (default: 100)')
    chosen.add_argument('--kid-subset-size', type=int, default=1000, help='images per subset (default: 1000)')
    chosen.add_argument('--pr-neighbours', type=int, default=3, help='k for precision and recall (default: 3)')
    chosen.add_argument('--dc-neighbours', type=int, default=5, help='k for density and coverage (default: 5)')
    chosen.add_argument('--slices', type=int, default=1000, help='directions for swd and mind (default: 1000)')
    chosen.add_argument('--is-splits', type=int, default=10, help='splits for the inception score (default: 10)')
    recipe(parser, 'preparation of folder:DIR:SPLIT and hf:NAME:SPLIT')
    parser.add_argument('--average', default='', help='for a run: the average of the parameters')
    parser.add_argument('--step', type=int, help='for a run: the checkpoint (default: the newest)')


def completion(parser: argparse.ArgumentParser) -> None:
    parser.add_argument('shell', choices=('bash', 'zsh', 'fish'), help='the shell')
    parser.formatter_class, parser.epilog = argparse.RawDescriptionHelpFormatter, COMPLETION


def data(verb: Callable[[str, str], argparse.ArgumentParser]) -> None:
    """Add the actions of `genbench data`. `verb` adds one action."""
    listing = verb('list', 'List the prepared data sets.')
    listing.add_argument('--all', action='store_true', help='list every name that TFDS knows')
    listing.add_argument(*DATA_DIR, default='', help='the folder of prepared data sets')
    prepare = verb('prepare', 'Convert a data set to array_record files, once.')
    _recipe(prepare)
    prepare.add_argument('--processes', type=int, default=0, help='number of processes (default: one per core)')
    shown = verb('show', 'Write a contact sheet as PNG, and print the sizes of the splits.')
    _recipe(shown)
    shown.add_argument('--split', default='train', help='a split, or a slice of one such as train[:1000]')
    shown.add_argument('--out', default='', metavar='FILE.png', help='the file to write (default: the name of the set)')


def _recipe(parser: argparse.ArgumentParser) -> None:
    """Flags that say how a data set is prepared, named as in `data.recipe.Recipe`."""
    parser.add_argument('name', help='folder:DIR, hf:NAME, or the name of a TFDS data set')
    parser.add_argument(*DATA_DIR, default='', help='prepared data sets (default: the cache; for TFDS, its '
                        'own folder)')  # fmt: skip
    recipe(parser, 'preparation of the images')


def recipe(parser: argparse.ArgumentParser, title: str) -> None:
    """The keys of a recipe as flags."""
    same = parser.add_argument_group(title, 'The same as the config keys data.size, data.crop, …')
    same.add_argument(
        '--size', type=_whole_numbers, default=(), metavar='SIZE', help='SIDE of squares, or HEIGHT,WIDTH'
    )
    same.add_argument('--crop', default='center', help='center, stretch, adm or edm (default: center)')
    same.add_argument('--resize', default='', help='the filter: lanczos, bicubic, bilinear, hamming, box or nearest '
                      "(default: the filter of adm or edm, lanczos for other crops)")  # fmt: skip
    same.add_argument('--upscale', action='store_true', help='enlarge images that are too small, instead of skipping '
                      'them')  # fmt: skip
    same.add_argument('--channels', type=int, default=0, help='1 for grey, 3 for colour (default: that of the images)')
    same.add_argument('--labels', default='', help='the field with the labels, or none (default: class folders)')
    same.add_argument('--test-share', type=float, default=0.1, help='the share of test images if there is no test '
                      'folder (default: 0.1)')  # fmt: skip


def _whole_numbers(text: str) -> tuple[int, ...]:
    try:
        return tuple(int(part) for part in text.split(','))
    except ValueError:
        raise argparse.ArgumentTypeError(f'{text!r} is not a size; write 64, or HEIGHT,WIDTH') from None

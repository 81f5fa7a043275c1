"""Everything worth measuring on the day an accelerator is at hand, in order of value.

    python benchmarks/accelerator.py --minutes 25 --data DATA_DIR
    python benchmarks/accelerator.py --smoke        # every step in its smallest size, on any machine

Each step runs in a process of its own with a time limit. benchmarks/results/accelerator-DEVICE.md is written again
after each step, so that a run that is cut short leaves the results of all steps that ended. Where PyTorch is
installed, it runs the same steps beside genbench. The step 'cifar10' needs DATA_DIR, a folder of TFDS with CIFAR-10,
and goes on where an earlier run in `--workdir` stopped.
"""

import argparse
import dataclasses
import importlib.util
import json
import os
import pathlib
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parent
sys.path[:0] = [str(HERE)]

import turns  # noqa: E402

GENBENCH = [sys.executable, '-m', 'genbench']
DIGITS = ROOT / 'configs/digits/diffusion.py'
ENVIRONMENT = {**os.environ, 'PYTHONPATH': os.pathsep.join([str(ROOT), os.environ.get('PYTHONPATH', '')])}
# Two processes take turns on one device, so neither may take all of its memory.
SHARED = {'XLA_PYTHON_CLIENT_MEM_FRACTION': '0.45'}


@dataclasses.dataclass
class Machine:
    """What every step knows: how long it may last, where it writes, and what there is."""

    given: argparse.Namespace
    scratch: pathlib.Path
    ends: float  # on time.monotonic's clock

    @property
    def smoke(self) -> bool:
        return self.given.smoke

    @property
    def peer(self) -> list[str]:
        return [f'--peer={"torch" if importlib.util.find_spec("torch") else "none"}']

    def left(self) -> float:
        return self.ends - time.monotonic()

    def run(self, command: list, **env: str) -> None:
        """Run it to its end, or to the end of the step's time."""
        subprocess.run(
            [*map(str, command)], cwd=ROOT, env={**ENVIRONMENT, **env}, timeout=max(self.left(), 1), check=True
        )

    def train(self, workdir: pathlib.Path, config: pathlib.Path, **values: object) -> dict:
        """The summary of a run of `genbench train`."""
        self.run(training(workdir, config, values))
        return json.loads((workdir / 'summary.json').read_text())


def training(workdir: pathlib.Path, config: pathlib.Path, values: dict) -> list[str]:
    """The command, with `section__key` for a key of the config."""
    changes = [f'--config.{key.replace("__", ".")}={value}' for key, value in values.items()]
    return [*GENBENCH, 'train', f'--config={config}', f'--workdir={workdir}', *changes]


def rows(workdir: pathlib.Path, name: str) -> list[dict]:
    return [json.loads(line) for line in (workdir / name).read_text().splitlines()]


def table(head: str, *cells: tuple) -> list[str]:
    ruled = ['|'.join(['', *[' --- '] * (head.count('|') + 1), ''])]
    return [f'| {head} |', *ruled, *(f'| {" | ".join(map(str, row))} |' for row in cells)]


def resume(machine: Machine) -> list[str]:
    """A run killed by SIGKILL and resumed ends in the state of the run that was never killed."""
    steps = 40 if machine.smoke else 400
    values = {'train__num_steps': steps, 'checkpoint__every': steps // 4, 'evaluation__samplers': '("ddim:2",)'}
    whole = machine.train(machine.scratch / 'whole', DIGITS, **values)
    workdir = machine.scratch / 'killed'
    process = subprocess.Popen(training(workdir, DIGITS, values), cwd=ROOT, env=ENVIRONMENT)
    first = workdir / 'checkpoints' / str(steps // 4)
    while not first.is_dir() and process.poll() is None and machine.left() > 0:
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    stopped = max((int(path.name) for path in first.parent.iterdir() if path.name.isdigit()), default=0)
    again = machine.train(workdir, DIGITS, **values)
    same = 'the same' if whole['state_sha256'] == again['state_sha256'] else 'NOT the same'
    return table(
        'run | state_sha256 | first step',
        ('never killed', whole['state_sha256'][:16], f'{whole["first_step_seconds"]:.1f} s'),
        (f'killed after the checkpoint of step {stopped} of {steps}, resumed', again['state_sha256'][:16],
         f'{again["first_step_seconds"]:.1f} s'),
    ) + ['', f'The states are {same}.']  # fmt: skip


def compared(script: str, cases: str, *options: str) -> Callable[[Machine], list[str]]:
    """A step that runs another benchmark, whose table becomes the section."""

    def step(machine: Machine) -> list[str]:
        """Medians in turns with PyTorch; a ratio above 1 means that genbench is faster."""
        found = []
        for case in ['digits'] if machine.smoke else cases.split(','):
            out = machine.scratch / f'{script}-{case}.md'
            small = ['--rounds=2', '--steps=2', '--no-compile'] if machine.smoke else list(options)
            out.unlink(missing_ok=True)
            try:
                machine.run(
                    [sys.executable, HERE / script, *machine.peer, f'--case={case}', *small, f'--out={out}'], **SHARED
                )
            except (subprocess.SubprocessError, OSError) as error:
                found.append(f'{case}: {told(error)}')
                continue
            lines = [line for line in out.read_text().splitlines() if line.startswith('|')]
            found[:0] = [] if any(line.startswith('|') for line in found) else lines[:2]
            found += lines[2:]
        return found

    return step


def calls(machine: Machine) -> list[str]:
    """Training with this many steps in one call of the device."""
    found = []
    for number in (1, 8, 32):
        steps = 64 if machine.smoke else 4096
        workdir = machine.scratch / f'calls{number}'
        done = machine.train(workdir, DIGITS, train__num_steps=steps, train__steps_per_call=number,
                             train__log_every=steps // 4, checkpoint__every=steps)  # fmt: skip
        last = rows(workdir, 'metrics.jsonl')[-1]
        found.append((number, f'{1e3 * last["speed/step_seconds"]:.2f}', f'{done["first_step_seconds"]:.1f}'))
    return table('steps in a call | ms a step, digits U-Net, batch 128 | first step, s', *found)


def inception(machine: Machine) -> list[str]:
    """Features of the 2015 Inception network with random weights; speed does not depend on them."""
    if not importlib.util.find_spec('torch_fidelity'):
        return ['Not run: the reference, torch-fidelity, is not installed.']
    out = machine.scratch / 'inception.md'
    sizes = ['--batches=8', '--images=8', '--repeats=2'] if machine.smoke else ['--batches=64,256', '--images=1024']
    machine.run([sys.executable, HERE / 'inception.py', *sizes, f'--out={out}'], **SHARED)
    return [line for line in out.read_text().splitlines() if line.startswith('|')]


def tests(machine: Machine) -> list[str]:
    """Tests of networks and solvers on this device."""
    log = machine.scratch / 'tests.log'
    files = ['tests/networks/test_networks.py'] if machine.smoke else ['tests/networks', 'tests/interpolants']
    command = [
        sys.executable,
        '-m',
        'pytest',
        *files,
        '-o',
        'addopts=--import-mode=importlib',
        '-q',
        '-p',
        'no:cacheprovider',
    ]
    with log.open('w') as out:
        ended = subprocess.run(command, cwd=ROOT, stdout=out, stderr=subprocess.STDOUT, timeout=max(machine.left(), 1))
    lines = log.read_text().splitlines()
    failed = [f'- `{line[:300]}`' for line in lines if line.startswith(('FAILED', 'ERROR'))]
    return [f'`{" ".join(files)}`: {lines[-1]} (exit status {ended.returncode}).', '', *failed]


def cifar10(machine: Machine) -> list[str]:
    """Flow matching with DDPM's U-Net in bfloat16, for the time that is left, then its scores."""
    given = machine.given
    if not given.data:
        return ['Not run: it needs `--data`.']
    workdir = pathlib.Path(given.workdir or machine.scratch) / 'cifar10_flow_matching'
    config = ROOT / 'configs/cifar10/flow_matching.py'
    values = {
        'data__data_dir': given.data, 'network__dtype': 'bfloat16', 'train__batch_size': 512,
        'optimizer__learning_rate': 5e-4, 'optimizer__schedule': 'cosine', 'optimizer__warmup_steps': 500,
        'train__ema_decay': 0.9995, 'train__ema_warmup': True, 'train__log_every': 200, 'train__sample_every': 0,
        'checkpoint__every': 1000, 'network__dropout': 0.1, 'evaluation__batch_size': 1000,
        'evaluation__samplers': '("heun:10","euler:100")', 'evaluation__num_samples': 10000,
        'evaluation__metrics': '("fd","fd_train","kd","precision","recall","likelihood","speed")',
        'evaluation__sets': 1,
    }  # fmt: skip
    if machine.smoke:
        values |= {'train__num_steps': 4, 'train__batch_size': 8, 'network__channels': 32, 'checkpoint__every': 4,
                   'evaluation__samplers': '("heun:2",)', 'evaluation__num_samples': 16, 'evaluation__refine_images': 0,
                   'evaluation__ode__num_steps': 2, 'evaluation__classifier__num_steps': 5}  # fmt: skip
    elif not (workdir / 'config.json').is_file():
        pilot = machine.scratch / 'pilot'
        machine.train(pilot, config, **{**values, 'train__num_steps': 200, 'train__log_every': 50})
        step = rows(pilot, 'metrics.jsonl')[-1]['speed/step_seconds']
        values['train__num_steps'] = max(int(60 * given.train_minutes / step) // 1000, 1) * 1000
    else:
        values['train__num_steps'] = json.loads((workdir / 'config.json').read_text())['train']['num_steps']
    done = machine.train(workdir, config, **values)
    machine.run([*GENBENCH, 'evaluate', workdir])
    found = [
        (row['metric'], row.get('sampler', '') or '', f'{row["value"]:.4g}') for row in rows(workdir, 'results.jsonl')
    ]
    return [
        f'{done["step"]:,} steps of batch 512, {done["training_seconds"] / 60:.1f} minutes of training, '
        f'{done["images_per_second"]:,.0f} images/s, MFU {done["mfu"] or 0:.1%}.', '',
        *table('metric | sampler | value', *found),
    ]  # fmt: skip


STEPS: dict[str, tuple[float, Callable[[Machine], list[str]]]] = {  # name: (most minutes, step), in order of value
    'resume': (3, resume),
    'train_step': (6, compared('train_step.py', 'cifar10,dit,dit_b', '--rounds=5', '--steps=20')),
    'sampling': (5, compared('sampling.py', 'cifar10,dit', '--rounds=3', '--steps=50', '--no-compile')),
    'calls': (2, calls),
    'inception': (2, inception),
    'tests': (4, tests),
    'cifar10': (15, cifar10),
}


def told(error: Exception) -> str:
    if isinstance(error, subprocess.TimeoutExpired):
        return 'cut: its time was over.'
    return f'failed: {str(error).splitlines()[0][:300]}'


def device() -> str:
    """What jax calls the device, asked of a process that ends, so that none of its memory stays taken."""
    found = subprocess.run([sys.executable, '-c', 'import jax; print(jax.devices()[0].device_kind)'], text=True,
                           capture_output=True, check=True, cwd=ROOT)  # fmt: skip
    return found.stdout.strip().splitlines()[-1]


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--minutes', type=float, default=25, help='for all steps together (25)')
    parser.add_argument('--train-minutes', type=float, default=8, help='of training in the step cifar10 (8)')
    parser.add_argument('--steps', default=','.join(STEPS), help=f'of {", ".join(STEPS)}; several with commas')
    parser.add_argument('--data', default='', help='a folder of TFDS that holds CIFAR-10')
    parser.add_argument(
        '--workdir', default='', help='keeps the run of the step cifar10; a later start goes on with it'
    )
    parser.add_argument('--smoke', action='store_true', help='every step in its smallest size')
    parser.add_argument('--out', default='', help='the Markdown file (benchmarks/results/accelerator-DEVICE.md)')
    given = parser.parse_args()
    unknown = set(given.steps.split(',')) - set(STEPS)
    if unknown:
        parser.error(f'no step is called {", ".join(sorted(unknown))}; there are {", ".join(STEPS)}')
    return given


def main() -> None:
    given, name = parse(), device()
    slug = re.sub('[^a-z0-9]+', '-', name.lower()).strip('-')
    out = given.out or str(HERE / 'results' / f'accelerator-{slug}.md')
    libraries = ('jax', 'jaxlib', 'flax', *(('torch',) if importlib.util.find_spec('torch') else ()))
    lines = [f'# {name}', '', turns.machine(libraries), '']
    ends = time.monotonic() + 60 * given.minutes
    with tempfile.TemporaryDirectory() as folder:
        for step in given.steps.split(','):
            minutes, function = STEPS[step]
            began = time.monotonic()
            scratch = pathlib.Path(folder) / step
            scratch.mkdir()
            machine = Machine(given, scratch, min(ends, began + 60 * minutes))
            try:
                section = function(machine) if machine.left() > 0 else ['Not run: no time was left.']
            except (subprocess.SubprocessError, OSError, KeyError, ValueError) as error:
                section = [told(error)]
            seconds = time.monotonic() - began
            lines += [f'## {step}', '', f'{function.__doc__} This step took {seconds:.0f} s.', '', *section, '']
            print('\n'.join(lines[-len(section) - 5 :]), flush=True)
            turns.write(out, lines[:-1])


if __name__ == '__main__':
    main()

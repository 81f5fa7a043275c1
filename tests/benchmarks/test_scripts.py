"""The benchmarks run with today's trainer, in their smallest size and without PyTorch."""

import pathlib
import subprocess
import sys

import pytest

BENCHMARKS = pathlib.Path(__file__).resolve().parents[2] / 'benchmarks'
STEP = ('train_step.py', '--peer=none', '--case=digits', '--batch=8', '--rounds=1', '--steps=1', '--cpu-devices=1',
        '--pieces')  # fmt: skip
SMALL = ('train.batch_size=4', 'network.depth=1', 'network.width=24', 'network.heads=2', 'network.patch=8')
DIT = ('--config=configs/cifar10/diffusion_dit.py', '--devices=1,2', *(f'--config.{key}' for key in SMALL))
SCALING = ('scaling.py', *DIT)


@pytest.mark.parametrize(
    ('script', 'options', 'told'),
    [(STEP[0], STEP[1:], '| digits | 8 | float32 | genbench |'), (SCALING[0], SCALING[1:], '| 2 | ')],
)
def test_a_benchmark_writes_its_table(script, options, told, tmp_path):
    out = tmp_path / 'table.md'
    command = [sys.executable, str(BENCHMARKS / script), *options, f'--out={out}']
    done = subprocess.run(command, cwd=BENCHMARKS.parent, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    assert told in out.read_text()
    assert ('matrix products' in out.read_text()) == ('--pieces' in options)

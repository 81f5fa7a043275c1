"""Sampling by DDIM with 50 steps: genbench against PyTorch with the same network and batch, in turns.

    pip install torch==2.13.0
    python benchmarks/sampling.py --peer torch --out benchmarks/results/sampling-cpu.md

Cases and agreement are those of train_step.py; `--steps` is the number of DDIM steps. A measurement is one batch, from
noise to integer images on the host.
"""

from train_step import parse, table

if __name__ == '__main__':
    table('Sampling a batch by DDIM', 'ms a batch', parse(__doc__, steps=50), sampling=True)

"""Speed and memory of the distances, beside the formulas that other tools use, in one run on one machine.

    python benchmarks/distances.py --out=benchmarks/results/distances-cpu.md

The two sides take turns, and a ratio is that of neighbours in time. Every measurement of neighbour scores is a process
of its own, whose peak memory counts everything, the float32 feature arrays too. On a machine with other work, take
OPENBLAS_NUM_THREADS=1 and read the processor time: threads that wait for each other on busy cores say little.
"""

import argparse
import importlib.metadata
import json
import os
import pathlib
import platform
import resource
import subprocess
import sys
import time

import numpy as np
import scipy.linalg

from genbench.evaluation import frechet_distance, manifold_scores, moments

FRECHET = {
    'genbench': frechet_distance,
    'scipy sqrtm': lambda mu1, sigma1, mu2, sigma2: (
        np.sum((mu1 - mu2) ** 2) + np.trace(sigma1 + sigma2) - 2 * np.trace(scipy.linalg.sqrtm(sigma1 @ sigma2)).real
    ),
    'eigenvalues of the product': lambda mu1, sigma1, mu2, sigma2: (
        np.sum((mu1 - mu2) ** 2)
        + np.trace(sigma1 + sigma2)
        - 2 * np.sqrt(np.linalg.eigvals(sigma1 @ sigma2).astype(complex)).real.sum()
    ),
}


def features(n: int, d: int, seed: int) -> np.ndarray:
    """Non-negative float32 features of falling variance, drawn without a float64 array of their size."""
    draw = np.random.default_rng(seed)
    mixing = np.random.default_rng(0).standard_normal((d, d), np.float32) / np.sqrt(np.arange(1, d + 1))[:, None]
    return np.abs((1 + 0.02 * seed) * draw.standard_normal((n, d), np.float32) @ mixing.astype(np.float32))


def whole_matrices(real: np.ndarray, fake: np.ndarray) -> dict[str, float]:
    """The four scores from three whole distance matrices."""
    from sklearn.metrics import pairwise_distances

    across = pairwise_distances(real, fake)
    near = [np.partition(pairwise_distances(points), (3, 5), axis=1)[:, [3, 5]] for points in (real, fake)]
    inside = across < near[0][:, 1:]
    return {
        'precision': float((across <= near[0][:, :1]).any(0).mean()),
        'recall': float((across <= near[1][:, 0]).any(1).mean()),
        'density': float(inside.sum() / (5 * len(fake))),
        'coverage': float(inside.any(1).mean()),
    }


MANIFOLD = {'genbench': manifold_scores, 'whole matrices': whole_matrices}


def measure(function, *args) -> dict:
    """The value, wall-clock and processor seconds."""
    began, cpu = time.perf_counter(), time.process_time()
    value = function(*args)
    return {'value': value, 'seconds': time.perf_counter() - began, 'cpu': time.process_time() - cpu}


def measure_manifold(side: str, n: int, d: int) -> dict:
    """Scores, seconds and peak memory of this process."""
    real, fake = features(n, d, 1), features(n, d, 2)
    found = measure(MANIFOLD[side], real, fake)
    return {**found, 'gigabytes': resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6}  # kB on Linux


def in_a_process(side: str, n: int, d: int) -> dict:
    command = [sys.executable, __file__, f'--measure={side}', f'--n={n}', f'--d={d}']
    root = pathlib.Path(__file__).resolve().parents[1]
    path = os.pathsep.join(filter(None, (str(root), os.environ.get('PYTHONPATH'))))
    done = subprocess.run(command, capture_output=True, text=True, check=True, env={**os.environ, 'PYTHONPATH': path})
    return json.loads(done.stdout)


def spread(values) -> str:
    """Median (least to greatest)."""
    return f'{np.median(values):.3g} ({min(values):.3g} to {max(values):.3g})'


HEADER = ['| formula | seconds | CPU seconds | time over genbench | CPU time over genbench |', '|---|---|---|---|---|']


def columns(side: str, rounds: list[dict]) -> str:
    mine, own = [found[side] for found in rounds], [found['genbench'] for found in rounds]
    cells = [side] + [spread([found[key] for found in mine]) for key in ('seconds', 'cpu')]
    for key in ('seconds', 'cpu'):
        cells.append(spread([found[key] / other[key] for found, other in zip(mine, own, strict=True)]))
    return f'| {" | ".join(cells)} |'


def report_frechet(d: int, repeats: int) -> list[str]:
    stats = [part for seed in (1, 2) for part in moments(features(2 * d, d, seed))]
    rounds = [{side: measure(function, *stats) for side, function in FRECHET.items()} for _ in range(repeats)]
    lines = [f'Fréchet distance of {d}-d moments, {repeats} rounds', '', HEADER[0] + ' relative difference |']
    lines.append(HEADER[1] + '---|')
    for side in FRECHET:
        difference = abs(rounds[0][side]['value'] / rounds[0]['genbench']['value'] - 1)
        lines.append(f'{columns(side, rounds)} {difference:.1e} |')
    return lines


def report_manifold(n: int, d: int, repeats: int) -> list[str]:
    rounds = [{side: in_a_process(side, n, d) for side in MANIFOLD} for _ in range(repeats)]
    lines = ['', f'Precision, recall, density and coverage of {n:,} against {n:,} in {d}-d, {repeats} rounds', '']
    lines += [HEADER[0] + ' peak memory, GB | scores |', HEADER[1] + '---|---|']
    for side in MANIFOLD:
        peak = max(found[side]['gigabytes'] for found in rounds)
        scores = ', '.join(f'{value:.4f}' for value in rounds[0][side]['value'].values())
        lines.append(f'{columns(side, rounds)} {peak:.2f} | {scores} |')
    return lines


def machine() -> str:
    """Processor, cores and versions."""
    info = pathlib.Path('/proc/cpuinfo')
    names = [line.split(':')[1].strip() for line in info.read_text().splitlines() if line.startswith('model name')]
    versions = ', '.join(f'{name} {importlib.metadata.version(name)}' for name in ('numpy', 'scipy', 'scikit-learn'))
    threads = os.environ.get('OPENBLAS_NUM_THREADS', 'all')
    cores = f'{len(os.sched_getaffinity(0))} cores, BLAS threads: {threads}'
    return f'{names[0]}, {cores}; Python {platform.python_version()}, {versions}'


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--n', type=int, default=10_000, help='images a set, for the neighbour scores')
    parser.add_argument('--d', type=int, default=2048, help='features')
    parser.add_argument('--repeats', type=int, default=3)
    parser.add_argument('--out', help='markdown file')
    parser.add_argument('--measure', choices=MANIFOLD, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.measure:
        print(json.dumps(measure_manifold(args.measure, args.n, args.d)))
        return
    load = os.getloadavg()[0]
    lines = ['# Distances', '', machine() + '. Median (least to greatest).']
    lines += [f'Other work on the machine when this began: load average {load:.1f}.', '']
    lines += report_frechet(args.d, args.repeats) + report_manifold(args.n, args.d, args.repeats)
    text = '\n'.join(lines) + '\n'
    print(text)
    if args.out:
        pathlib.Path(args.out).write_text(text)


if __name__ == '__main__':
    main()

"""A training step: genbench against PyTorch with the same network, batch and optimizer, in turns on the same machine.

    pip install torch==2.13.0
    python benchmarks/train_step.py --peer torch --out benchmarks/results/train_step-cpu.md

Cases are the digits U-Net, DDPM's 35.7M-parameter U-Net for CIFAR-10 and DiT-S/2. Both sides hold random images on the
device, draw times and noise, take one step of Adam with clipping and an average of the weights. Before anything is
timed, parameters must be as many, and with the same values output and gradient must agree. Compilation is not timed.
On CPU both compute in float32 with a small batch for the large networks; on accelerators in bfloat16.
"""

import argparse
import pathlib
import statistics
import sys

import numpy as np

HERE = pathlib.Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent)]

import turns  # noqa: E402
from cases import CASES, Genbench, GenbenchSampler  # noqa: E402

MINE = 'genbench'


def torch_side(*arguments):
    import peers

    return peers.Torch(*arguments)


def torch_sampler(*arguments):
    import peers

    return peers.TorchSampler(*arguments)


def agree(mine, theirs, told) -> str:
    """Raise unless both networks have as many parameters and compute the same; says how near they are."""
    params, rng = mine.scrambled(), np.random.Generator(np.random.Philox(2))
    number = sum(value.size for value in params.values())
    assert number == theirs.count(), f'{number} parameters against {theirs.count()}'
    x, t = rng.normal(size=(4, *told['shape'])).astype(np.float32), rng.random(4).astype(np.float32)
    found, wanted = np.array(mine.check(params, x, t)), np.array(theirs.check(params, x, t))
    error = float(np.abs(found / wanted - 1).max())
    assert error < (1e-3 if told['platform'] == 'cpu' else 5e-2), f'output and gradient: {found} against {wanted}'
    return f'{number:,} parameters, output and gradient within {error:.0e}'


def compare(name: str, given: argparse.Namespace, sampling: bool) -> list[str]:
    """Rows of the table for one case."""
    mine_class, torch_class = (GenbenchSampler, torch_sampler) if sampling else (Genbench, torch_side)
    with turns.together({MINE: (mine_class, name, given.batch, given.dtype, given.cpu_devices)}) as first:
        told = first[MINE].describe()
        builders = {'PyTorch eager': (torch_class, told, False)} if given.peer == 'torch' else {}
        if given.compile and given.peer == 'torch':
            builders['PyTorch compiled'] = (torch_class, told, True)
        with turns.together(builders) as others:
            said = agree(first[MINE], others['PyTorch eager'], told) if others else ''
            found = turns.measure({**first, **others}, given.rounds, given.steps)
    print(f'{name}: batch {told["batch"]}, {told["network"]["dtype"]}, {said}', flush=True)
    ratios, rows = turns.ratios(found, MINE), []
    for side, seconds in found.items():
        middle = statistics.median(seconds)
        peak = told['peak'] and told['flops'] and not sampling
        mfu = f'{told["flops"] / middle / told["peak"]:.1%}' if peak else '–'
        cells = (
            name, told['batch'], told['network']['dtype'], side, f'{1e3 * middle:.1f}',
            f'{1e3 * min(seconds):.1f}–{1e3 * max(seconds):.1f}', ratios.get(side, '1'), mfu,
        )  # fmt: skip
        rows.append(f'| {" | ".join(map(str, cells))} |')
        print(rows[-1], flush=True)
    return rows


def pieces(name: str, given: argparse.Namespace) -> list[str]:
    """Where the time of genbench's step goes on CPU, as a line."""
    with turns.together({MINE: (Genbench, name, given.batch, given.dtype, given.cpu_devices)}) as sides:
        sides[MINE].run(1)
        found = sides[MINE].pieces()
    whole = sum(found.values())
    said = ', '.join(f'{kind} {taken / whole:.0%}' for kind, taken in found.items() if taken > whole / 200)
    print(line := f'{name}: {whole:.0f} ms on all devices together: {said}.', flush=True)
    return ['', line]


def parse(description: str, steps: int) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--peer', default='torch', choices=('torch', 'none'), help='whom to compare with (torch)')
    parser.add_argument('--case', default='digits,cifar10,dit', help=f'of {", ".join(CASES)}; several with commas')
    parser.add_argument('--batch', type=int, default=0, help='images in a batch; 0: what suits the device')
    parser.add_argument('--dtype', default='', help="float32 or bfloat16; '': what suits the device")
    parser.add_argument('--cpu-devices', type=int, default=0, help='that genbench splits the batch over on CPU; '
                        '0: one a core, as its commands do')  # fmt: skip
    parser.add_argument('--steps', type=int, default=steps, help=f'in one measurement ({steps})')
    parser.add_argument('--rounds', type=int, default=9, help='measurements of each side (9)')
    parser.add_argument('--no-compile', dest='compile', action='store_false', help='leave torch.compile out')
    parser.add_argument('--pieces', action='store_true', help='also say what a step spends its time on (CPU)')
    parser.add_argument('--out', default='', help='write the table to this Markdown file')
    given = parser.parse_args()
    unknown = set(given.case.split(',')) - set(CASES)
    if unknown:
        parser.error(f'no case is called {", ".join(sorted(unknown))}; there are {", ".join(CASES)}')
    if given.peer == 'torch':
        import peers

        if given.compile and not peers.can_compile():
            print('torch.compile is left out: there is no C++ compiler.', flush=True)
            given.compile = False
    return given


def table(title: str, unit: str, given: argparse.Namespace, sampling: bool) -> None:
    """Measure every case, print, and write the file."""
    libraries = ('jax', 'jaxlib', 'flax', *(('torch',) if given.peer == 'torch' else ()))
    lines = [
        f'# {title}', '',
        f'{turns.machine(libraries)} {given.rounds} measurements in turns of {given.steps} steps each; medians and '
        'ranges. The ratio is the side\'s time over genbench\'s, of neighbouring measurements: above 1, genbench is '
        'faster.', '',
        f'| case | batch | type | side | {unit} | range | ratio (range) | MFU |', '|---|---|---|---|---|---|---|---|',
    ]  # fmt: skip
    print('\n'.join(lines), flush=True)
    for name in given.case.split(','):
        lines += compare(name, given, sampling)
    if given.pieces and not sampling:
        for name in given.case.split(','):
            lines += pieces(name, given)
    if not given.compile and given.peer == 'torch':
        lines += ['', 'torch.compile was left out.']
    turns.write(given.out, lines)


if __name__ == '__main__':
    table('A training step', 'ms a step', parse(__doc__, steps=5), sampling=False)

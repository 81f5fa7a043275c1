"""What splitting a run over more devices saves in memory, and what the devices then tell each other in a step.

    python benchmarks/scaling.py --out=benchmarks/results/scaling.md
    python benchmarks/scaling.py --axis=data --config.network.channels=32

The devices are simulated on the CPU: bytes and collectives are those of the compiled programs, times would mean
nothing. CPU programs sum gradients everywhere and cut (all-reduce) where GPUs and TPUs scatter the sums
(reduce-scatter). The images are random and have CIFAR-10's shape. Without --bytes-only each program is compiled,
which takes minutes for large networks.
"""

import argparse
import collections
import math
import os
import pathlib
import platform
import re
import sys
from collections.abc import Sequence
from typing import Any

MOST = 8
os.environ['JAX_PLATFORMS'], os.environ['JAX_NUM_CPU_DEVICES'] = 'cpu', str(MOST)

import jax  # noqa: E402
import numpy as np  # noqa: E402

from genbench import config as configs  # noqa: E402
from genbench import families  # noqa: E402
from genbench.data import pipeline  # noqa: E402
from genbench.data.sources import Arrays  # noqa: E402
from genbench.data.spec import DataSpec  # noqa: E402
from genbench.training import mesh as meshes  # noqa: E402
from genbench.training import placement  # noqa: E402
from genbench.training import state as states  # noqa: E402
from genbench.training.step import Constants, active_updates, make_step  # noqa: E402

PARTS = {'parameters': 'params', 'optimizer': 'opt', 'averages': 'averages'}
COLLECTIVES = ('all-gather', 'all-reduce', 'reduce-scatter', 'all-to-all', 'collective-permute')
ARRAY = re.compile(r'(\w+)\[([\d,]*)\]')
SIZES = {'f64': 8, 's64': 8, 'f32': 4, 's32': 4, 'u32': 4, 'bf16': 2, 'f16': 2, 'pred': 1, 's8': 1, 'u8': 1}


def collectives(program: str) -> dict[str, tuple[int, int]]:
    """{collective: (how many, bytes of their results on one device)} in the text of a compiled program."""
    found: dict[str, list[int]] = collections.defaultdict(list)
    for results, kind in re.findall(rf'= (.+?) ({"|".join(COLLECTIVES)})(?:-start)?\(', program):
        arrays = [(dtype, map(int, filter(None, shape.split(',')))) for dtype, shape in ARRAY.findall(results)]
        found[kind].append(sum(SIZES.get(dtype, 4) * math.prod(shape) for dtype, shape in arrays))
    return {kind: (len(sizes), sum(sizes)) for kind, sizes in found.items()}


def measure(config: Any, axis: str, number: int, compiled: bool) -> dict[str, Any]:
    """Bytes that one of `number` devices keeps, and the collectives of the step."""
    sizes = {'data': 1, 'fsdp': 1, 'tensor': 1, axis: number}
    mesh = meshes.make_mesh(sizes, jax.devices()[:number])
    family = families.get(config.family.name)(config, DataSpec('cifar10', (32, 32, 3), 256, 10))
    blueprint = states.Blueprint(family)
    placed = placement.abstract_state(blueprint, mesh)
    row: dict[str, Any] = {word: placement.bytes_per_device(placed[key]) for word, key in PARTS.items()}
    if not compiled:
        return row
    images = np.zeros((config.train.batch_size, 32, 32, 3), np.uint8)
    arrays = Arrays(images, np.zeros(len(images), np.int32))
    feed = pipeline.ResidentFeed(
        arrays, pipeline.Order(len(images), 0), config.train.batch_size, meshes.split_batch(mesh)
    )
    program = make_step(blueprint, feed, jax.random.key(0), placement.shardings(placed), {})
    constants = Constants(meshes.put(feed.constants, meshes.replicated(mesh)), {})
    step = program.trace(placed, constants, feed.inputs(0), active_updates(blueprint, 0)).lower().compile()
    row['temporary'] = step.memory_analysis().temp_size_in_bytes
    return row | {'collectives': collectives(step.as_text())}


def report(name: str, config: Any, axis: str, numbers: Sequence[int], compiled: bool) -> list[str]:
    """Markdown lines."""
    rows = {number: measure(config, axis, number, compiled) for number in numbers}
    first = rows[numbers[0]]
    words = [word for word in first if word != 'collectives']
    lines = [
        f'# {name} over the axis {axis}, batch {config.train.batch_size}', '',
        f'Simulated CPU devices; jax {jax.__version__}, Python {platform.python_version()}, {platform.machine()}. '
        'MB on each device, and in brackets the share of what one device keeps alone.', '',
        f'| devices | {" | ".join(words)} |', f'|---{"|---" * len(words)}|',
    ]  # fmt: skip
    for number, row in rows.items():
        cells = [f'{row[word] / 1e6:.2f} ({row[word] / first[word]:.4f})' for word in words]
        lines.append(f'| {number} | {" | ".join(cells)} |')
    if compiled:
        lines += ['', 'Collectives in one compiled step: how many, and MB of their results on each device.', '',
                  f'| devices | {" | ".join(COLLECTIVES)} |', f'|---{"|---" * len(COLLECTIVES)}|']  # fmt: skip
        for number, row in rows.items():
            cells = [row['collectives'].get(kind, (0, 0)) for kind in COLLECTIVES]
            lines.append(f'| {number} | {" | ".join(f"{many} ({size / 1e6:.2f})" for many, size in cells)} |')
    return lines


def main(words: Sequence[str]) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--config', default='configs/cifar10/diffusion.py')
    parser.add_argument('--axis', choices=meshes.AXES, default='fsdp')
    parser.add_argument('--devices', default='1,2,4,8', help=f'device counts, at most {MOST}')
    parser.add_argument('--bytes-only', action='store_true', help='compile nothing')
    parser.add_argument('--out', help='markdown file')
    overrides = [word.removeprefix('--config.') for word in words if word.startswith('--config.')]
    args = parser.parse_args([word for word in words if not word.startswith('--config.')])
    config = configs.load(args.config, overrides)
    name = ' '.join([args.config, *overrides])
    lines = report(name, config, args.axis, [int(n) for n in args.devices.split(',')], not args.bytes_only)
    text = '\n'.join(lines) + '\n'
    print(text)
    if args.out:
        pathlib.Path(args.out).write_text(text)


if __name__ == '__main__':
    main(sys.argv[1:])

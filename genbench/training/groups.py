"""The devices that a collective of a compiled program joins: axes of the mesh, and machines that it connects."""

import itertools
import math
import re
from collections.abc import Mapping, Sequence

import numpy as np


def axes(rest: str, mesh: Mapping[str, int]) -> tuple[str, int]:
    """(axes of the mesh that a collective runs along, number of devices in one of its groups)."""
    shape, names = tuple(mesh.values()), tuple(mesh)
    places = np.arange(math.prod(shape)).reshape(shape)
    split = [axis for axis, length in enumerate(shape) if length > 1]
    subsets = [chosen for count in range(len(split) + 1) for chosen in itertools.combinations(split, count)]
    if moved := _pairs(rest):
        away = {axis for pair in moved for axis in split
                if np.unravel_index(pair[0], shape)[axis] != np.unravel_index(pair[1], shape)[axis]}  # fmt: skip
        return '+'.join(names[axis] for axis in sorted(away)), math.prod(shape[axis] for axis in away)
    found = groups(rest, places.size)
    ways = len(found[0])
    wanted = {frozenset(group) for group in found}
    for chosen in subsets:
        along = np.moveaxis(places, chosen, range(len(shape) - len(chosen), len(shape)))
        along = along.reshape(-1, math.prod(shape[axis] for axis in chosen))
        if {frozenset(map(int, group)) for group in along} == wanted:
            return '+'.join(names[axis] for axis in chosen), ways
    return 'other', ways


def share_between(rest: str, count: int, machine: int, alone: bool = False) -> float:
    """The share of an array that each device sends to other machines in the best exchange.

    A group of m devices in each of n machines combines within the machines first, so that (n − 1) / n of the array
    leave each machine, through the network of m devices. The devices of a machine have consecutive numbers.

    Args:
      count: number of devices in the program.
      machine: number of devices in a machine; 0 if there is only one machine.
      alone: every device sends its own array, as in an all-to-all.
    """
    if not machine:
        return 0.0
    if pairs := _pairs(rest):
        return float(any(one // machine != other // machine for one, other in pairs))
    group = groups(rest, count)[0]
    reached = len({device // machine for device in group})
    return (1 - 1 / reached) * (1 if alone else reached / len(group))


def _pairs(rest: str) -> list[tuple[int, ...]]:
    """(sender, receiver) of a collective-permute; empty for other collectives."""
    found = re.search(r'source_target_pairs=\{(.*?\})\}', rest)
    return [tuple(map(int, pair.split(','))) for pair in re.findall(r'\{([\d,]+)\}?', found.group(1))] if found else []


def groups(rest: str, count: int) -> Sequence[Sequence[int]]:
    """The groups of devices of a collective, in any of the three notations that XLA uses."""
    order = r'(?:, device_ids=\(\[([\d,]+)\](?:T\(([\d,]+)\))?\))?'
    if found := re.search(rf'replica_groups=mesh\[([^\]]*)\]{order} \{{([^}}]*)\}}', rest):
        sides = {name: int(length) for name, length in re.findall(r"'([\w.]+)'=(\d+)", found.group(1))}
        numbers = np.arange(math.prod(sides.values()))
        if found.group(2):
            numbers = _iota(found.group(2), found.group(3))
        numbers = numbers.reshape(tuple(sides.values()))
        chosen = [list(sides).index(name) for name in re.findall(r"'([\w.]+)'", found.group(4))]
        moved = np.moveaxis(numbers, chosen, range(numbers.ndim - len(chosen), numbers.ndim))
        return moved.reshape(-1, math.prod(numbers.shape[axis] for axis in chosen)).tolist()
    if found := re.search(r'replica_groups=\[([\d,]+)\]<=\[([\d,]+)\](?:T\(([\d,]+)\))?', rest):
        shape = [int(side) for side in found.group(1).split(',')]
        return _iota(found.group(2), found.group(3)).reshape(shape).tolist()
    if found := re.search(r'replica_groups=\{(\{.*?\})\}', rest):
        return [[int(one) for one in group.split(',')] for group in re.findall(r'\{([\d,]+)\}', found.group(1))]
    return [list(range(count))]


def _iota(sides: str, order: str | None) -> np.ndarray:
    shape = [int(side) for side in sides.split(',')]
    numbers = np.arange(math.prod(shape)).reshape(shape)
    return numbers.transpose([int(axis) for axis in order.split(',')]) if order else numbers

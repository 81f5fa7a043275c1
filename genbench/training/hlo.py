"""What the text of a compiled program reveals: traffic between devices, and traffic through their memory."""

import collections
import dataclasses
import math
import re
from collections.abc import Iterator, Mapping

from genbench.training import groups

COLLECTIVES = ('all-gather', 'all-reduce', 'reduce-scatter', 'all-to-all', 'collective-permute', 'ragged-all-to-all')
_BITS = {'pred': 8, 's4': 4, 'u4': 4, 'bf16': 16, 'c64': 64, 'c128': 128, 'token': 0, 'opaque': 0}
_SHAPE = re.compile(r'([a-z]+\d*[a-z0-9]*)\[([\d,]*)\](\{[^}]*\})?')
_HEAD = re.compile(r'^(ENTRY )?%?([\w.-]+) \(.*\{$')
_CALLED = re.compile(r'(calls|to_apply|body|condition)=%?([\w.-]+)')
_BRANCHES = re.compile(r'branch_computations=\{([^}]*)\}')
_TWO_BRANCHES = re.compile(r'(?:true|false)_computation=%?([\w.-]+)')
_BETWEEN = re.compile(r'_xla_megascale_transfer_type="(\w+)"')
_FREE = (
    'parameter', 'constant', 'tuple', 'get-tuple-element', 'bitcast', 'after-all', 'partition-id', 'replica-id',
    'opt-barrier', 'while', 'call', 'conditional', 'iota',
)  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Instruction:
    """One line: its result, the operation, the names it reads, and the remaining text."""

    name: str
    result: str
    operation: str
    operands: tuple[str, ...]
    rest: str

    @property
    def target(self) -> str:
        """The library function that it calls; '' if it calls none."""
        found = re.search(r'custom_call_target="([^"]+)"', self.rest)
        return found.group(1) if found else ''


@dataclasses.dataclass(frozen=True)
class Collective:
    """Collectives of one kind along the same axes of the mesh.

    Attributes:
      axes: axes of the mesh, joined by '+'; 'other' if the groups do not follow its axes; 'slices' between slices.
      count: how many run in one execution of the program. Arrays that a device sends together count once.
      bytes: size of the whole arrays on one device: the output of an all-gather, the input of a reduce-scatter.
      sent: bytes that one device sends around a ring.
      crossing: those of them that leave its slice or machine. All its devices share what a group sends to others.
    """

    kind: str
    axes: str
    count: int
    bytes: int
    sent: float
    crossing: float


class Program:
    """A compiled program, read from its text.

    Of a conditional, only the costliest branch counts. For `collectives` it is the branch in which a device sends the
    most, and for `bytes_moved` the one that moves the most. Neither number is then below that of a real execution.

    Args:
      text: of the optimised module, `compiled.as_text()`.
      trips: how often to count a loop whose length the text does not give.
    """

    def __init__(self, text: str, trips: int = 1):
        self._computations: dict[str, list[Instruction]] = {}
        self._entry, self._alias = '', _aliases(text)
        partitions = re.search(r'num_partitions=(\d+)', text[: text.find('\n')])
        self._devices = int(partitions.group(1)) if partitions else 0
        current: list[Instruction] = []
        for line in text.splitlines():
            if head := _HEAD.match(line):
                current = self._computations.setdefault(head.group(2), [])
                self._entry = head.group(2) if head.group(1) else self._entry
            elif ' = ' in line and line.startswith(' '):
                current.append(_instruction(line))
        self._trips, self._order = trips, self._ordered()
        self._inside = {  # what fusions and reductions call
            name for lines in self._computations.values() for one in lines
            for kind, name in _CALLED.findall(one.rest)
            if one.operation == 'fusion' or (kind == 'to_apply' and one.operation != 'call')
        }  # fmt: skip
        self._results = {
            name: {one.name: one.result for one in lines} for name, lines in self._computations.items()
        }  # fmt: skip

    @property
    def arguments(self) -> dict[int, int]:
        """Bytes of each argument on a device, without the padding of layouts."""
        return {number: size(result) for number, result in self._parameters.items()}

    @property
    def _parameters(self) -> dict[int, str]:
        return {
            int(one.rest.split(')')[0]): one.result
            for one in self._computations[self._entry] if one.operation == 'parameter'
        }  # fmt: skip

    @property
    def aliased(self) -> int:
        """Bytes of the arguments whose memory results reuse. TPUs take thousands of arguments as a single tuple."""
        arrays = {number: _SHAPE.findall(result) for number, result in self._parameters.items()}
        return sum(_bytes(*arrays[number][int(place or 0)][:2]) for number, place in self._alias)

    @property
    def products(self) -> dict[str, int]:
        """The number of matrix products, convolutions and fused attentions, by the type of their inputs."""
        found: collections.Counter[str] = collections.Counter()
        for name in self._order:
            for one in self._computations[name]:
                target = one.target
                gpu = target.startswith(('__cublas', '__cudnn'))
                if one.operation in ('dot', 'convolution') or gpu:
                    read = _SHAPE.match(self._results[name].get(one.operands[0], ''))
                    fused = 'fused attention in ' if 'fmha' in target else ''
                    found[fused + (read.group(1) if read else 'unknown')] += 1
        return dict(sorted(found.items()))

    @property
    def conditionals(self) -> int:
        """The number of conditionals in the program. Those in a loop count once."""
        return sum(bool(self._branches(one)) for name in self._order for one in self._computations[name])

    def collectives(self, mesh: Mapping[str, int], machine: int = 0) -> list[Collective]:
        """Communication between devices, by kind and axes of the mesh. Devices are numbered in mesh order.

        A program for several slices is that of one of them, which lie along the first axis of the mesh. Between slices,
        the host exchanges arrays.

        Args:
          machine: number of devices in a machine, if exchanges between machines take another way; 0 if they do not.
        """
        found = list(self._exchanges(mesh, machine))
        sends: dict[str, float] = collections.defaultdict(float)
        for name, one in found:
            sends[name] += one.sent
        runs = self._runs(sends)
        totals: dict[tuple[str, str], list[float]] = collections.defaultdict(lambda: [0, 0, 0.0, 0.0])
        for name, one in found:
            for index, amount in enumerate((one.count, one.bytes, one.sent, one.crossing)):
                totals[one.kind, one.axes][index] += amount * runs[name]
        return [
            Collective(kind, axes, int(count), int(whole), sent, crossing)
            for (kind, axes), (count, whole, sent, crossing) in sorted(totals.items()) if axes and count
        ]  # fmt: skip

    def _exchanges(self, mesh: Mapping[str, int], machine: int) -> Iterator[tuple[str, Collective]]:
        """Each collective once, with the name of its computation."""
        seen: set[str] = set()
        size_of_mesh, (first, *_) = math.prod(mesh.values()), mesh
        slices = size_of_mesh // self._devices if 0 < self._devices < size_of_mesh else 1
        mesh = {**mesh, first: mesh[first] // slices}
        for name in self._order:
            for one in self._computations[name]:
                if between := _BETWEEN.search(one.rest) if one.operation == 'recv' else None:
                    kind, whole = between.group(1).lower().replace('_', '-'), _first(one.result)
                    sent = whole * (2 if kind == 'all-reduce' else 1) * (1 - 1 / slices)
                    yield name, Collective(kind, 'slices', 1, whole, sent, sent)
                kind = one.operation.removesuffix('-start')
                if kind not in COLLECTIVES:
                    continue
                fused = kind == 'all-reduce' and name.startswith('all-reduce-scatter')
                kind = 'reduce-scatter' if fused else kind
                # A TPU's compiler spreads one collective over the fusions that it overlaps with. Elsewhere, programs
                # that were written for each device and scatters reuse a channel for different collectives.
                if name in self._inside and not fused:
                    channel = re.search(r'channel_id=(\d+)', one.rest)
                    mark = f'{kind} {channel.group(1)}' if channel else f'{name} {one.name}'
                    if mark in seen:
                        continue
                    seen.add(mark)
                axes, ways = groups.axes(one.rest, mesh)
                whole = _whole(one) * (ways if kind == 'reduce-scatter' and not fused else 1)
                times = {'all-reduce': 2, 'collective-permute': ways / max(ways - 1, 1)}.get(kind, 1)
                share = groups.share_between(one.rest, math.prod(mesh.values()), machine, alone='all-to-all' in kind)
                crossing = whole * (2 if kind == 'all-reduce' else 1) * share
                yield name, Collective(kind, axes, 1, whole, whole * times * (ways - 1) / max(ways, 1), crossing)

    @property
    def bytes_moved(self) -> int:
        """Bytes that instructions read and write in a device's memory. A fusion counts once, a loop by its length.

        A TPU's vector memory does not count. For an array that is only sliced, the slices count instead of the array.
        """
        moved = {
            name: sum(self._moved(one, name) for one in self._computations[name])
            for name in self._order if name not in self._inside
        }  # fmt: skip
        runs = self._runs(moved)
        return sum(runs[name] * amount for name, amount in moved.items())

    def _moved(self, one: Instruction, computation: str) -> int:
        if one.operation in _FREE or one.operation.endswith(('-done', '-update')):
            return 0
        results = self._results[computation]
        read = [size(results.get(name, ''), apart=True) for name in one.operands]
        if one.operation in ('dynamic-slice', 'slice', 'gather'):
            read = [size(one.result, apart=True)]
        elif one.operation == 'fusion':
            called = next((name for kind, name in _CALLED.findall(one.rest) if kind == 'calls'), '')
            cuts = self._cuts(called)
            read = [min(number, cuts.get(index, number)) for index, number in enumerate(read)]
        written = size(one.result, apart=True)
        if one.operation.endswith('-start'):  # its result includes the operands, except for a sum
            return written * (2 if one.operation == 'all-reduce-start' else 1)
        return written + sum(read)

    def _cuts(self, computation: str) -> dict[int, int]:
        """{parameter: bytes sliced from it} for the parameters that are only sliced."""
        lines = self._computations.get(computation, [])
        found = {}
        for one in lines:
            if one.operation == 'parameter':
                users = [user for user in lines if one.name in user.operands]
                if users and all(
                    user.operation in ('dynamic-slice', 'gather') and user.operands[0] == one.name for user in users
                ):
                    found[int(one.rest.split(')')[0])] = sum(size(user.result) for user in users)
        return found

    def _runs(self, own: Mapping[str, float]) -> Mapping[str, int]:
        """How often each computation runs in one execution of the program that takes the costliest branches.

        Args:
          own: cost of each computation, without those that it calls.
        """
        whole: dict[str, float] = {}
        for name in reversed(self._order):
            whole[name] = own.get(name, 0) + sum(
                self._length(one) * sum(whole[called] for called in self._taken(one, whole))
                for one in self._computations[name]
            )  # fmt: skip
        runs = collections.Counter({self._entry: 1})
        for name in self._order:
            for one in self._computations[name]:
                for called in self._taken(one, whole):
                    runs[called] += runs[name] * self._length(one)
        return runs

    def _length(self, one: Instruction) -> int:
        """How often an instruction runs what it calls."""
        known = re.search(r'"known_trip_count":\{"n":"(\d+)"', one.rest)
        return (int(known.group(1)) if known else self._trips) if one.operation == 'while' else 1

    def _taken(self, one: Instruction, costs: Mapping[str, float]) -> list[str]:
        """The computations that an instruction calls; of several branches, the costliest."""
        branches = self._branches(one)
        rest = [name for name in self._called(one) if name not in branches]
        return [max(branches, key=costs.__getitem__), *rest] if branches else rest

    def _ordered(self) -> list[str]:
        """Computations, callers first."""
        order: list[str] = []
        done: set[str] = set()
        waiting = [(self._entry, False)]
        while waiting:
            name, left = waiting.pop()
            if left:
                order.append(name)
            elif name not in done:
                done.add(name)
                waiting.append((name, True))
                waiting += [(called, False) for one in self._computations.get(name, ()) for called in self._called(one)]
        return [name for name in reversed(order) if name in self._computations]

    def _called(self, one: Instruction) -> list[str]:
        named = [*self._branches(one), *(name for _, name in _CALLED.findall(one.rest))]
        for listed in re.findall(r'called_computations=\{([^}]*)\}', one.rest):
            named += _names(listed)
        return [name for name in named if name in self._computations]

    def _branches(self, one: Instruction) -> list[str]:
        if one.operation != 'conditional':
            return []
        listed = _BRANCHES.search(one.rest)
        return _names(listed.group(1)) if listed else _TWO_BRANCHES.findall(one.rest)


def _names(listed: str) -> list[str]:
    return [name.strip().lstrip('%') for name in listed.split(',')]


def _aliases(text: str) -> list[tuple[int, str]]:
    """Numbers of the arguments whose memory results reuse, each with its place in a tuple ('' for an array)."""
    head = text[: text.find('\n')]
    found = re.findall(r'\{[\d, ]*\}: \((\d+), \{([\d, ]*)\}, (?:may|must)-alias\)', head)
    return [(int(number), place) for number, place in found]


def _instruction(line: str) -> Instruction:
    name, _, rest = line.strip().removeprefix('ROOT ').partition(' = ')
    if rest.startswith('('):
        depth = 0
        for end, letter in enumerate(rest):  # noqa: B007
            depth += (letter == '(') - (letter == ')')
            if not depth:
                break
        result, rest = rest[: end + 1], rest[end + 1 :].lstrip()
    else:
        result, _, rest = rest.partition(' ')
    operation, _, rest = rest.partition('(')
    inside = rest.partition(')')[0]
    operands = tuple(re.findall(r'%([\w.-]+)', inside))
    return Instruction(name.lstrip('%'), result, operation, operands, rest)


def size(result: str, apart: bool = False) -> int:
    """Bytes of an array or a tuple of arrays. `apart` leaves out arrays in a separate memory space ('S(1)')."""
    return sum(
        _bytes(kind, sides)
        for kind, sides, layout in _SHAPE.findall(result)
        if not (apart and re.search(r'S\([1-9]\d*\)', layout))
    )


def _bytes(kind: str, sides: str) -> int:
    return math.prod(int(side) for side in sides.split(',') if side) * _bits(kind) // 8


def _bits(kind: str) -> int:
    if kind in _BITS:
        return _BITS[kind]
    digits = re.match(r'[a-z]+(\d+)', kind)
    return int(digits.group(1)) if digits else 0


def _whole(one: Instruction) -> int:
    """Bytes of a collective's output. In the result of a '-start' instruction, the operands come first."""
    parts = _SHAPE.findall(one.result)
    if one.operation in ('all-gather-start', 'collective-permute-start', 'all-to-all-start', 'reduce-scatter-start'):
        count = len(one.operands)
        parts = parts[count : 2 * count]
    return sum(size(f'{kind}[{sides}]') for kind, sides, _ in parts)


def _first(result: str) -> int:
    """Bytes of the first array of a tuple."""
    found = _SHAPE.search(result)
    return size(found.group(0)) if found else 0

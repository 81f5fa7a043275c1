"""Pickles read as data: numbers, text, lists, dictionaries and torch's tensors. Nothing in them is imported or called.

A pickle is a program for a stack machine. This one carries out only what builds plain values; where a program asks for
a function or class of its own, an `Unknown` stands in its place, so that what lies beside it can still be read. Memory
is bounded by what was read: the memo is a dictionary, and a string is no longer than the bytes that are there.
"""

import dataclasses
import io
import mmap
import pickletools
from collections.abc import Callable
from typing import Any, cast

LONGEST = 4_000_000  # operations; torch writes about thirty per tensor


@dataclasses.dataclass(frozen=True)
class Global:
    """A function or class that a pickle names; it is never looked up."""

    module: str
    name: str

    def __str__(self) -> str:
        return f'{self.module}.{self.name}'


@dataclasses.dataclass(frozen=True, eq=False)
class Unknown:
    """What the call of a `Global` would have made."""

    made_by: str

    def __str__(self) -> str:
        return self.made_by


@dataclasses.dataclass(eq=False)
class Built:
    """What a call stands for whose attributes are wanted: `state`, as the pickle sets them afterwards."""

    state: Any = None


Call = Callable[..., Any]
SCALARS = (str, bytes, int, float, type(None))  # the types of dictionary keys, and bool, which is an int
_PUSHED = {
    'INT', 'BININT', 'BININT1', 'BININT2', 'LONG', 'LONG1', 'LONG4', 'FLOAT', 'BINFLOAT', 'STRING', 'BINSTRING',
    'SHORT_BINSTRING', 'UNICODE', 'SHORT_BINUNICODE', 'BINUNICODE', 'BINUNICODE8', 'BINBYTES', 'SHORT_BINBYTES',
    'BINBYTES8', 'BYTEARRAY8',
}  # fmt: skip
_CONSTANTS: dict[str, Any] = {'NONE': None, 'NEWTRUE': True, 'NEWFALSE': False, 'EMPTY_TUPLE': ()}
_SHORT_TUPLES = {'TUPLE1': 1, 'TUPLE2': 2, 'TUPLE3': 3}


def load(
    stream: bytes | mmap.mmap | io.BytesIO, calls: dict[tuple[str, str], Call], persistent: Callable[[Any], Any]
) -> Any:
    """The value of the pickle that begins here; a stream is left behind its end.

    Args:
      calls: what stands for the functions that a pickle may name, by module and name.
      persistent: identity → the object that a persistent identity stands for.

    Raises:
      ValueError: this is no pickle, a damaged or an endless one, or it uses an operation that torch does not write.
    """
    machine, source = _Machine(calls, persistent), cast(Any, stream)  # a memory map reads like a file
    try:
        for count, (operation, argument, _) in enumerate(pickletools.genops(source)):
            if count == LONGEST:
                raise ValueError(f'its pickle has more than {LONGEST:,} operations')
            machine.do(operation.name, argument)
        return machine.stack.pop()
    except IndexError:
        raise ValueError('its pickle takes a value from an empty stack') from None


class _Machine:
    def __init__(self, calls: dict[tuple[str, str], Call], persistent: Callable[[Any], Any]):
        self.stack: list[Any] = []
        self._below: list[list[Any]] = []  # the stacks below the marks
        self._memo: dict[int, Any] = {}
        self._calls, self._persistent = calls, persistent

    def do(self, name: str, argument: Any) -> None:
        if name in _PUSHED:
            self.push(argument)
        elif name in _CONSTANTS:
            self.push(_CONSTANTS[name])
        elif name in _SHORT_TUPLES:
            self.push(tuple(self.pop(_SHORT_TUPLES[name])))
        elif name in _OPERATIONS:
            _OPERATIONS[name](self, argument)
        else:
            raise ValueError(f'its pickle uses the operation {name}')

    def push(self, value: Any) -> None:
        self.stack.append(value)

    def pop(self, count: int) -> list[Any]:
        if len(self.stack) < count:
            raise IndexError
        values = self.stack[-count:]
        del self.stack[-count:]
        return values

    def mark(self) -> None:
        self._below.append(self.stack)
        self.stack = []

    def since_mark(self) -> list[Any]:
        values, self.stack = self.stack, self._below.pop()
        return values

    def put(self, index: int) -> None:
        self._memo[index] = self.stack[-1]

    def memoize(self) -> None:
        self.put(len(self._memo))

    def get(self, index: int) -> None:
        if index not in self._memo:
            raise ValueError('its pickle reads a memo that it never wrote')
        self.push(self._memo[index])

    def extend(self, values: list[Any]) -> None:
        if isinstance(self.stack[-1], list):  # items that are added to an Unknown are ignored
            self.stack[-1].extend(values)

    def update(self, values: list[Any]) -> None:
        if isinstance(self.stack[-1], dict):
            self.stack[-1].update(_alternating(values))

    def name(self, module: Any, name: Any) -> None:
        if not (isinstance(module, str) and isinstance(name, str)):
            raise ValueError('its pickle names a module by something that is not text')
        self.push(Global(module, name))

    def call(self, function: Any, arguments: Any, *_: Any) -> None:
        known = self._calls.get((function.module, function.name)) if isinstance(function, Global) else None
        if known is not None and isinstance(arguments, tuple):
            self.push(known(*arguments))
        else:
            self.push(Unknown(str(function) if isinstance(function, Global) else 'a function of its own'))

    def build(self, state: Any) -> None:
        if isinstance(self.stack[-1], Built):  # for others, the attributes besides the values
            self.stack[-1].state = state

    def identify(self) -> None:
        self.push(self._persistent(self.stack.pop()))


def _alternating(values: list[Any]) -> dict[Any, Any]:
    if len(values) % 2:
        raise ValueError('its pickle has a key without a value')
    return _dict(zip(values[::2], values[1::2], strict=True))


def _dict(pairs: Any) -> dict[Any, Any]:
    """Only plain keys are hashed: the hash of nested tuples can take for ever."""
    return {key if isinstance(key, SCALARS) else Unknown('a key'): value for key, value in pairs}


def ordered_dict(pairs: Any = ()) -> dict[Any, Any]:
    """What stands for `collections.OrderedDict`."""
    if not isinstance(pairs, list | tuple) or not all(isinstance(pair, list | tuple) and len(pair) == 2
                                                      for pair in pairs):  # fmt: skip
        raise ValueError('its pickle makes a dictionary from something that is not pairs')
    return _dict(pairs)


_OPERATIONS: dict[str, Callable[[_Machine, Any], object]] = {
    'PROTO': lambda m, _: None, 'FRAME': lambda m, _: None, 'STOP': lambda m, _: None,
    'MARK': lambda m, _: m.mark(), 'POP': lambda m, _: m.stack.pop(), 'POP_MARK': lambda m, _: m.since_mark(),
    'DUP': lambda m, _: m.push(m.stack[-1]),
    'PUT': _Machine.put, 'BINPUT': _Machine.put, 'LONG_BINPUT': _Machine.put,
    'MEMOIZE': lambda m, _: m.memoize(),
    'GET': _Machine.get, 'BINGET': _Machine.get, 'LONG_BINGET': _Machine.get,
    'TUPLE': lambda m, _: m.push(tuple(m.since_mark())),
    'EMPTY_LIST': lambda m, _: m.push([]), 'LIST': lambda m, _: m.push(m.since_mark()),
    'APPEND': lambda m, _: m.extend(m.pop(1)), 'APPENDS': lambda m, _: m.extend(m.since_mark()),
    'EMPTY_DICT': lambda m, _: m.push({}), 'DICT': lambda m, _: m.push(_alternating(m.since_mark())),
    'SETITEM': lambda m, _: m.update(m.pop(2)), 'SETITEMS': lambda m, _: m.update(m.since_mark()),
    'EMPTY_SET': lambda m, _: m.push([]), 'ADDITEMS': lambda m, _: m.extend(m.since_mark()),
    'FROZENSET': lambda m, _: m.push(m.since_mark()),
    'GLOBAL': lambda m, text: m.name(*text.split(' ', 1)), 'STACK_GLOBAL': lambda m, _: m.name(*m.pop(2)),
    'REDUCE': lambda m, _: m.call(*m.pop(2)), 'NEWOBJ': lambda m, _: m.call(*m.pop(2)),
    'NEWOBJ_EX': lambda m, _: m.call(*m.pop(3)),
    'BUILD': lambda m, _: m.build(m.stack.pop()),
    'BINPERSID': lambda m, _: m.identify(),
}  # fmt: skip

"""The allowed values of config keys. They are stated next to the defaults and checked when a config is resolved."""

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from genbench.errors import UserError, did_you_mean

LARGEST = 2**31 - 1  # the largest count: steps, sizes and indices are 32-bit on devices
LARGEST_FLOAT = 3e38  # of a 32-bit float
LONGEST_NAME, LONGEST_PATH = 240, 3800  # in bytes; the system allows 255 and 4,096, and the files inside need the rest
_SHOWN = 60  # how many characters of a value a message shows
# Command-line arguments that are paths.
_PATHS = ('a', 'b', 'config', 'data_dir', 'folder', 'folders', 'held_out', 'input', 'json', 'key', 'left', 'mask',
          'out', 'regenerator', 'right', 'run', 'study', 'unmarked', 'weights', 'workdir')  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Range:
    """The allowed values of one key. Without limits: any finite number, or any text.

    Attributes:
      low, high: limits of a number, inclusive unless `above` or `below` is set.
      also: further allowed values, such as −1 for 'the rest'.
      names: the texts to choose from; () for any text.
      path: whether the text names a file or a folder.
      items: for a tuple, the type of its items; None if the items of the default show it.
      each: for a tuple, the range of every item, or one range per position.
      fewest: for a tuple, the minimum number of items.
    """

    low: float = -math.inf
    high: float = math.inf
    above: bool = False
    below: bool = False
    also: tuple[float, ...] = ()
    names: tuple[str, ...] = ()
    path: bool = False
    items: type | None = None
    each: 'Range | tuple[Range, ...] | None' = None
    fewest: int = 0

    def check(self, key: str, value: Any) -> None:
        """Raise a UserError that names the key and says what it may hold."""
        if isinstance(value, tuple):
            self._check_items(key, value)
        elif isinstance(value, str):
            self._check_text(key, value)
        elif isinstance(value, int | float) and not isinstance(value, bool):
            self._check_number(key, value)

    def _check_number(self, key: str, value: float) -> None:
        if value in self.also:
            return
        if isinstance(value, float) and not abs(value) <= LARGEST_FLOAT:
            raise UserError(f'{key} is {value}; it should be finite and at most {LARGEST_FLOAT}.')
        too_low = value <= self.low if self.above else value < self.low
        too_high = value >= self.high if self.below else value > self.high
        if too_low or too_high:
            raise UserError(f'{key} is {shown(value)}; it should be {self.words}.')

    @property
    def words(self) -> str:
        """The range in words, such as 'at least 0 and below 1'."""
        low = f'{"above" if self.above else "at least"} {self.low}' if self.low > -math.inf else ''
        high = f'{"below" if self.below else "at most"} {self.high}' if self.high < math.inf else ''
        if self.high == LARGEST and self.low > -math.inf:
            high = f'at most {LARGEST:,}'
        return ' or '.join([' and '.join(filter(None, (low, high))), *map(str, self.also)])

    def _check_text(self, key: str, value: str) -> None:
        if self.names and value not in self.names:
            raise UserError(f'{key} is {shown(value)}; it should be {" or ".join(self.names)}. '
                            f'{did_you_mean(value, self.names)}')  # fmt: skip
        if self.path:
            check_path(value, key)
        else:
            check_text(value, key)

    def _check_items(self, key: str, value: tuple[Any, ...]) -> None:
        if len(value) < self.fewest:
            raise UserError(f'{key} is empty; it needs at least {self.fewest}.')
        ranges: Sequence[Range] = self.each if isinstance(self.each, tuple) else (self.each or ANY,) * len(value)
        if len(ranges) != len(value):
            raise UserError(f'{key} is {shown(value)}; it needs {len(ranges)} values.')
        for item, one in zip(value, ranges, strict=True):
            one.check(f'A value of {key}', item)


ANY = Range()
COUNT = Range(1, LARGEST)
STEPS = Range(1, 2**24)  # steps of a chain or a solver, which are counted in 32-bit floats
COUNT_OR_NONE = Range(0, LARGEST)  # 0 means none, or that genbench chooses
SEED = Range(0, 2**32 - 1)  # jax keeps 32 bits, so a larger seed would equal a smaller one
SHARE = Range(0, 1, below=True)
PROBABILITY = Range(0, 1)
POSITIVE = Range(0, above=True)
NOT_NEGATIVE = Range(0)
PATH = Range(path=True)
TEXTS = Range(items=str)


def one_of(*names: str) -> Range:
    return Range(names=names)


def each(item: Range | tuple[Range, ...], kind: type | None = None, fewest: int = 0) -> Range:
    """A tuple of items in this range. `kind` is their type if the default is empty."""
    return Range(each=item, items=kind, fewest=fewest)


def check_arguments(given: Mapping[str, Any]) -> None:
    """Raise a UserError for a command-line argument (text, path or number) that no verb can use."""
    for name, value in given.items():
        for one in value if isinstance(value, list) else [value]:
            if isinstance(one, str):
                (check_path if name in _PATHS else check_text)(one, name)
            elif isinstance(one, int | float) and not isinstance(one, bool):
                (SEED if name == 'seed' else COUNT_OR_NONE).check(f'--{name.replace("_", "-")}', one)


def check_text(value: str, what: str) -> None:
    """Raise a UserError for a text that no file or terminal can hold."""
    if '\0' in value:
        raise UserError(f'{what} contains a NUL character; remove it.')
    try:
        value.encode()
    except UnicodeEncodeError:
        raise UserError(f'{what} is {shown(value)}, which is not valid UTF-8.') from None


def check_path(value: str, what: str) -> str:
    """Return the path. Raise a UserError if it is too long for the system."""
    check_text(value, what)
    longest = max((len(part.encode()) for part in value.split('/')), default=0)
    if longest > LONGEST_NAME or len(value.encode()) > LONGEST_PATH:
        raise UserError(
            f'{what} is too long: a path may have {LONGEST_PATH} bytes, and each name in it {LONGEST_NAME}. '
            f'It begins with {value[:_SHOWN]!r}.'
        )
    return value


def shown(value: Any) -> str:
    """A value for a message, shortened if long. Works for values that cannot be printed, such as huge integers."""
    return _shortened(lambda: repr(value), type(value).__name__)


def said(error: BaseException) -> str:
    """The type and message of an error from code that is not ours."""
    words = _shortened(lambda: ' '.join(str(error).split()), '', 200)
    return ': '.join(filter(None, (type(error).__name__, words)))


def _shortened(text: Callable[[], str], otherwise: str, most: int = _SHOWN) -> str:
    try:
        found = text()
    except Exception:  # the value's own code failed, or an integer has too many digits
        return f'a {otherwise} that cannot be printed' if otherwise else ''
    return found if len(found) <= most else f'{found[:most]}…'

"""Captions as numbers that networks take: hashes of words, the bytes of UTF-8, or tokens. 0 is padding.

The condition is written `caption` for words, `caption:bytesN` for at most N bytes, and `caption:bytesN:cut` for the
first N bytes of any caption. `caption:tokensN:FILE` and `caption:tokensN:FILE:cut` do the same with the tokens of a
published tokenizer.json.
"""

import dataclasses
import functools
import hashlib
import pathlib
import zlib
from collections.abc import Iterable
from typing import Any

import numpy as np

from genbench.errors import UserError

WORDS, VOCABULARY = 16, 4096  # the most words in a caption, and the number of word ids
LONGEST = 4096  # bytes
KEY = 'family.conditions'


@dataclasses.dataclass(frozen=True)
class Bytes:
    """The bytes of a caption, each as 1 + its value, filled up with zeros.

    Attributes:
      length: the most bytes in a caption.
      cut: whether the bytes after these are left out. Otherwise longer captions are refused.
    """

    length: int
    cut: bool

    size, nothing = 257, ()

    def numbers(self, texts: Iterable[str | bytes]) -> np.ndarray:
        """The numbers (n, length) of these captions.

        Raises:
          UserError: a caption is too long.
        """
        rows = [np.zeros((0, self.length), np.int32)]
        for text in texts:
            spelt = text if isinstance(text, bytes) else str(text).encode('utf-8', 'surrogatepass')
            if len(spelt) > self.length and not self.cut:
                raise UserError(
                    f'The caption {_start(spelt)} has {len(spelt)} bytes, and this model takes {self.length}. Shorten '
                    'it, or train with a larger N in caption:bytesN (family.conditions), or with '
                    f'caption:bytes{self.length}:cut, which cuts captions.'
                )
            row = np.zeros((1, self.length), np.int32)
            row[0, : len(spelt)] = 1 + np.frombuffer(spelt[: self.length], np.uint8).astype(np.int32)
            rows.append(row)
        return np.concatenate(rows)

    def number(self, text: str) -> np.ndarray:
        """The numbers (1, length) of a caption that a user wrote. Errors as in `numbers`."""
        return self.numbers([text])


@dataclasses.dataclass(frozen=True)
class Words:
    """The words of a caption, each as a hash, filled up with zeros. Words after the first 16 are left out."""

    length: int = WORDS

    size, nothing = VOCABULARY, ()

    def numbers(self, texts: Iterable[str | bytes]) -> np.ndarray:
        """The numbers (n, length) of these captions."""
        return words(texts)

    def number(self, text: str) -> np.ndarray:
        """The numbers (1, length) of a caption that a user wrote.

        Raises:
          UserError: it has too many words.
        """
        if (count := len(text.split())) > WORDS:
            spelt = _start(text.encode('utf-8', 'surrogatepass'))
            raise UserError(f'The caption {spelt} has {count} words, and this model takes {WORDS}; shorten it.')
        return words([text])


@dataclasses.dataclass(frozen=True)
class Tokens:
    """The tokens of a published tokenizer, each as 1 + its id, filled up with zeros.

    Attributes:
      length: the most tokens of a caption, with those that the tokenizer puts before and after it.
      path: its tokenizer.json.
      cut: whether the tokens after these are left out, except for the last. Otherwise longer captions are refused.
    """

    length: int
    path: str
    cut: bool

    @property
    def size(self) -> int:
        return 1 + tokenizer(self.path).get_vocab_size()

    @property
    def sha256(self) -> str:
        """The hash of the tokenizer.json, as it is on disk now."""
        return hashlib.sha256(_checked(self.path, KEY).read_bytes()).hexdigest()

    @property
    def nothing(self) -> tuple[int, ...]:
        """The numbers of the empty caption."""
        return tuple(self.number('')[0].tolist())

    def numbers(self, texts: Iterable[str | bytes]) -> np.ndarray:
        """The numbers (n, length) of these captions.

        Raises:
          UserError: a caption is too long, or there is no such tokenizer.
        """
        rows, known = [np.zeros((0, self.length), np.int32)], tokenizer(self.path)
        for text in texts:
            ids = known.encode(text.decode('utf-8', 'replace') if isinstance(text, bytes) else str(text)).ids
            if len(ids) > self.length and not self.cut:
                spelt = text if isinstance(text, bytes) else str(text).encode('utf-8', 'surrogatepass')
                raise UserError(f'The caption {_start(spelt)} has {len(ids)} tokens, and this model takes '
                                f'{self.length}. Shorten it, or train with :cut after the file in caption:tokensN:FILE '
                                '(family.conditions), which cuts captions.')  # fmt: skip
            ids = [*ids[: self.length - 1], ids[-1]] if len(ids) > self.length else ids
            rows.append(np.asarray([[1 + one for one in ids] + [0] * (self.length - len(ids))], np.int32))
        return np.concatenate(rows)

    def number(self, text: str) -> np.ndarray:
        """The numbers (1, length) of a caption that a user wrote. Errors as in `numbers`."""
        return self.numbers([text])


@functools.lru_cache(maxsize=8)
def tokenizer(path: str, key: str = KEY) -> Any:
    """The tokenizer of a tokenizer.json, which neither cuts nor fills up texts.

    Args:
      key: of the config that names it, for messages.

    Raises:
      UserError: it is not such a file, or the package tokenizers is not installed.
    """
    _checked(path, key)
    try:
        import tokenizers
    except ImportError:
        raise UserError('Token ids of captions need the package tokenizers: pip install genbench[text].') from None
    try:
        found = tokenizers.Tokenizer.from_file(path)
    except Exception as error:  # the package raises nothing more specific
        raise UserError(f'{path} ({key}) is not a tokenizer.json ({str(error)[:80]}).') from None
    found.no_truncation()
    found.no_padding()
    return found


def _checked(path: str, key: str) -> pathlib.Path:
    if not pathlib.Path(path).is_file():
        raise UserError(f'The tokenizer {path} ({key}) is not a file.')
    return pathlib.Path(path)


def reading(way: str) -> Words | Bytes | Tokens:
    """How captions become numbers, from what follows `caption:` in a config; '' stands for words.

    Raises:
      UserError: there is no such way.
    """
    if not way:
        return Words()
    if way.startswith('tokens'):
        return _tokens(way)
    kind, colon, last = way.partition(':')
    number = kind.removeprefix('bytes')
    if number == kind or not number.isdecimal() or not 1 <= int(number) <= LONGEST or colon + last not in ('', ':cut'):
        raise UserError(f'family.conditions has caption:{way}; write caption for words, or caption:bytesN or '
                        f'caption:bytesN:cut with N from 1 to {LONGEST} for bytes.')  # fmt: skip
    return Bytes(int(number), bool(last))


def _tokens(way: str) -> Tokens:
    kind, _, rest = way.partition(':')
    path, number = rest.removesuffix(':cut'), kind.removeprefix('tokens')
    if not path or not number.isdecimal() or not 2 <= int(number) <= LONGEST:
        raise UserError(f'family.conditions has caption:{way}; write caption:tokensN:FILE or caption:tokensN:FILE:cut, '
                        f'with N from 2 to {LONGEST} and the path of a tokenizer.json.')  # fmt: skip
    return Tokens(int(number), path, rest != path)


def words(texts: Iterable[str | bytes]) -> np.ndarray:
    """The numbers (n, WORDS) of the words in each text: a hash of each word, and 0 after the last word.

    Two words share a number with probability 1 / VOCABULARY.
    """
    found = np.zeros((0, WORDS), np.int32)
    rows = [found]
    for text in texts:
        spelt = (text.decode('utf-8', 'replace') if isinstance(text, bytes) else str(text)).lower().split()[:WORDS]
        numbers = [1 + zlib.crc32(word.encode()) % (VOCABULARY - 1) for word in spelt]
        rows.append(np.asarray([numbers + [0] * (WORDS - len(numbers))], np.int32))
    return np.concatenate(rows)


def _start(spelt: bytes) -> str:
    text = ' '.join(spelt.decode('utf-8', 'replace').split())
    return repr(text if len(text) <= 40 else f'{text[:39]}…')

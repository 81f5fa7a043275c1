"""Published weights: where they are, and how they get here.

A file is taken from the path a user names, or from the cache, into which it is fetched once from its published
address. `networks.weights` reads it, and its functions can be called from here too.
"""

import dataclasses
import hashlib
import os
import pathlib
import urllib.error
import urllib.request
from typing import IO

from genbench.data.sources import cache_dir
from genbench.errors import UserError, explained_disk_errors
from genbench.networks.weights import Weights, hash_of, parse
from genbench.networks.weights import abstract as abstract
from genbench.networks.weights import by_path as by_path
from genbench.networks.weights import checked as checked
from genbench.networks.weights import fill as fill
from genbench.networks.weights import filled as filled
from genbench.networks.weights import read_safetensors as read_safetensors
from genbench.training.metrics import Progress

MEBIBYTE = 2**20
FILE = 'evaluation.features.weights or --weights'  # where a user gives a file: in a config, or to genbench metrics
HASH = 'evaluation.features.weights_sha256 or --weights-sha256'


@dataclasses.dataclass(frozen=True)
class Published:
    """A file of weights that somebody publishes.

    Attributes:
      also: names under which others publish the same file.
      file: its name in the cache, where that of the address says too little.
    """

    title: str
    address: str
    sha256: str
    also: tuple[str, ...] = ()
    file: str = ''

    @property
    def path(self) -> pathlib.Path:
        """Where the cache keeps it."""
        return cache_dir() / 'weights' / (self.file or self.address.rpartition('/')[2])

    @property
    def here(self) -> pathlib.Path | None:
        """Where it is already: in the cache, or whole in torch's hub cache, where other tools have put it."""
        if self.path.is_file():
            return self.path
        home = os.environ.get('TORCH_HOME') or pathlib.Path(
            os.environ.get('XDG_CACHE_HOME') or pathlib.Path.home() / '.cache', 'torch'
        )
        places = [pathlib.Path(home, 'hub', 'checkpoints', name) for name in (self.path.name, *self.also)]
        return next((place for place in places if place.is_file() and hash_of(place, FILE) == self.sha256), None)


def find(published: Published, path: str = '', sha256: str = '', *, quiet: bool = False) -> Weights:
    """The user's file, or the published one, which is fetched into the cache when it is not there.

    Args:
      path: the user's file, or FILE::KEY for a state dict that lies beside other values; '' for the published one.
      sha256: what the user's file must have; '' when it must be the published one.

    Raises:
      UserError: no such file, another hash, or no way to fetch it; the message says what to do.
    """
    if not path:
        if sha256 and sha256.lower() != published.sha256:
            raise UserError(f'{HASH} is the hash of a file; also give the file with {FILE}.')
        if published.here is None:
            fetch(published, quiet=quiet)
    file, key = parse(path) if path else (published.here or published.path, ())
    expected, found = sha256.lower() or published.sha256, hash_of(file, FILE)
    if found != expected:
        whose = HASH if sha256 else published.title
        remedy = f'To use other weights, set {HASH} to {found}.'
        if not path:
            remedy = 'Delete it, and genbench will fetch it again.'
        elif sha256:
            remedy = 'Correct one of them.'
        raise UserError(f'{file} has the sha256 {found}, but {whose} has {expected}. {remedy}')
    return Weights(file, found, found == published.sha256 and not key, key)


@explained_disk_errors()
def fetch(published: Published, *, quiet: bool = False) -> None:
    """Download a file into the cache, all of it or nothing."""
    published.path.parent.mkdir(parents=True, exist_ok=True)
    partial = published.path.with_name(f'.{published.path.name}.{os.getpid()}')
    try:
        with partial.open('wb') as file:
            found = _download(published, file, quiet)
        if found != published.sha256:
            raise UserError(f'{published.address} gave a file with the sha256 {found}, not {published.sha256}. Fetch '
                            f'{published.title} elsewhere and put it at {published.path}.')  # fmt: skip
        os.replace(partial, published.path)
    finally:
        partial.unlink(missing_ok=True)


def _download(published: Published, file: IO[bytes], quiet: bool) -> str:
    """Write what the address gives to an open file, and return its hash."""
    digest, done = hashlib.sha256(), 0
    try:
        with urllib.request.urlopen(published.address, timeout=30) as answer:
            total = -(-int(answer.headers.get('Content-Length') or 0) // MEBIBYTE)
            progress = Progress(f'fetch {published.path.name}', 0, total, 'MiB', quiet=quiet)
            while block := answer.read(MEBIBYTE):
                file.write(block)
                digest.update(block)
                done += len(block)
                progress.update(done // MEBIBYTE)
            progress.close()
    except (urllib.error.URLError, ConnectionError, TimeoutError) as error:
        reason = getattr(error, 'reason', None) or error
        raise UserError(f'{published.title} cannot be fetched ({reason}). Put {published.address} (sha256 '
                        f'{published.sha256}) at {published.path}, or give it with {FILE}.') from None  # fmt: skip
    return digest.hexdigest()

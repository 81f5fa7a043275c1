"""A folder or file in an object store and its local copy: fetched, sent, and held by one process at a time.

While a command works, a thread sends the changes every SECONDS, each file as one whole object. A checkpoint is sent
only once it is complete on disk. It goes after the log, and its marker goes last. A reader ignores checkpoints without
a marker, so wherever sending stops, the store holds a run that can continue.

Whoever works in a folder holds a lock: an object that is created only if it does not exist, and renewed regularly.
"""

import contextlib
import hashlib
import json
import os
import pathlib
import re
import shutil
import socket
import sys
import threading
import time
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from genbench.errors import Busy, UserError

SECONDS = float(os.environ.get('GENBENCH_REMOTE_SECONDS') or 30)
LEASE = 600.0  # seconds without renewal after which a lock has expired
LOCK, WRITER, MARKER = '.genbench-lock', '.genbench-writer', 'commit_success.txt'
TOKEN = '.token'  # lets processes see whether they share a local copy
WORK, READ, LIGHT, OUT = 'work', 'read', 'light', 'out'  # change, read all or what pages show, write something new
_CHECKPOINT = re.compile(r'(?:.*/)?checkpoints/\d+(?=/)')
_HEAVY = re.compile(r'(?:.*/)?(?:checkpoints|snapshots|prepared|evaluation|profile|damaged)/')  # that no page shows
_names: dict[str, str] = {}  # {local folder: the address that it stands for}


def named(text: str) -> str:
    """A message in which addresses replace the local folders that stand for them."""
    for folder, address in _names.items():
        text = text.replace(folder, address)
    return text


def root() -> pathlib.Path:
    """The folder of the local copies: GENBENCH_STAGING, or the cache."""
    cache = os.environ.get('XDG_CACHE_HOME') or pathlib.Path.home() / '.cache'
    return pathlib.Path(os.environ.get('GENBENCH_STAGING') or pathlib.Path(cache) / 'genbench' / 'remote')


class Mirror:
    """The local copy of a folder or file in an object store, and what is known about both.

    Names are relative to the parent folder, so that anything a verb writes next to its file is included.

    Attributes:
      path: the local path that stands for the address.
      base: its parent folder, used for this address and use alone.
    """

    def __init__(self, address: str, use: str):
        self.address, self.use = address.rstrip('/'), use
        around, _, name = self.address.rpartition('/')
        if not around.partition('://')[2]:
            raise UserError(f'{address!r} names a bucket; name a folder in it.')
        copy = WORK if use == WORK else READ if use in (READ, LIGHT) else OUT  # readers do not touch the other copies
        self.base = root() / hashlib.sha256(f'{copy} {self.address}'.encode()).hexdigest()[:12]
        self.path, self._around = self.base / name, around
        self._known_path = self.base / '.mirror.json'
        self._known: dict[str, Any] = {}  # {name: [size, time of change, key of the object]} when both were last equal
        self._over, self._trouble, self._beaten = threading.Event(), '', 0.0

    @contextlib.contextmanager
    def open(self, optional: bool = False) -> Iterator[None]:
        """Fetch what exists. Inside the context, send changes if the use is WORK or OUT."""
        with self._explained('reached'):
            self._connect()
            if self.use == OUT:
                shutil.rmtree(self.base, ignore_errors=True)
                self._fs.pipe_file(self._at(LOCK), b'')  # fail now, not after hours of work, if the store is read-only
                self._fs.rm_file(self._at(LOCK))
            if self.use == WORK:
                self._take()
            self.base.mkdir(parents=True, exist_ok=True)
        try:
            if self.use != OUT:
                with self._explained('read'):
                    self._fetch(optional)
            _names[str(self.path)] = self.address
            if self.use != WORK:
                _names[str(self.base)] = self._around
            if self.use != WORK:
                yield
                if self.use == OUT:
                    with self._explained('written'):
                        self._send()
                return
            print(f'genbench: {self.address} is mirrored from {self.path}', file=sys.stderr, flush=True)
            thread = threading.Thread(target=self._keep_sending, daemon=True)
            thread.start()
            try:
                yield
            except BaseException as problem:  # this is the error that the user should see
                self._stop(thread)
                try:
                    self._send()
                except Exception as error:
                    problem.add_note(f'{self.address} lacks what was done last ({_reason(error)}).')
                raise
            self._stop(thread)
            with self._explained('written'):
                self._send()
        finally:
            if self.use == WORK:
                with contextlib.suppress(Exception):
                    self._release()

    @property
    def is_fetched(self) -> bool:
        """Whether this process has already fetched it."""
        return str(self.path) in _names

    def holds(self, token: bytes) -> bool:
        """Whether this copy was marked with the token."""
        with contextlib.suppress(FileNotFoundError):
            return (self.base / TOKEN).read_bytes() == token
        return False

    def _connect(self) -> None:
        import fsspec

        self._fs, self._root = fsspec.core.url_to_fs(self._around, use_listings_cache=False)

    def _at(self, name: str) -> str:
        return f'{self._root}/{name}'

    def _objects(self) -> dict[str, str]:
        """{name: a key that changes with the contents} for the objects that a reader should fetch."""
        self._fs.invalidate_cache()
        found = self._fs.find(f'{self._root}/{self.path.name}', detail=True)
        keys = {path.removeprefix(f'{self._root}/'): _key(facts) for path, facts in found.items()}
        light = {name for name in keys if self.use == LIGHT and _HEAVY.match(name)}
        return {name: keys[name] for name in _whole(keys) - light if '/.' not in f'/{name}'}

    def _files(self) -> dict[str, list[int]]:
        """{name: size and time of change} for the files that belong in the store."""
        found = {}
        for path in self.base.rglob('*'):
            name = path.relative_to(self.base).as_posix()
            if '/.' in f'/{name}' or 'orbax-checkpoint-tmp' in name:  # locks, and files still being written
                continue
            with contextlib.suppress(FileNotFoundError):
                facts = path.stat()
                if path.is_file():
                    found[name] = [facts.st_size, facts.st_mtime_ns]
        return {name: found[name] for name in _whole(found)}

    def _fetch(self, optional: bool) -> None:
        """Make the copy equal to the store, unless this copy was the last to write there and is therefore newer."""
        with contextlib.suppress(FileNotFoundError, ValueError):
            self._known = json.loads(self._known_path.read_text())
        there, here = self._objects(), self._files()
        if not there and not optional and self.use in (READ, LIGHT):
            raise FileNotFoundError('there is nothing of that name')
        moved = {name for name, (*_, key) in self._known.items() if there.get(name) != key}
        if self.use == WORK:
            if self._was_last():
                self._known = {name: facts for name, facts in self._known.items() if name not in moved}
                return
            if any(self._known.get(name, [])[:2] != facts for name, facts in here.items()):
                self._set_aside()
                moved = set()
            self._become_last()
        for name in moved - there.keys():
            (self.base / name).unlink(missing_ok=True)
            self._known.pop(name, None)
        for name, key in there.items():
            if self._known.get(name, [None])[-1] != key or not (self.base / name).is_file():
                self._get(name, key)
        self._note()

    def _was_last(self) -> bool:
        """Whether this copy was the last to write to the store."""
        with contextlib.suppress(FileNotFoundError):
            return self._fs.cat_file(self._at(f'{self.path.name}/{WRITER}')) == (self.base / WRITER).read_bytes()
        return False

    def _become_last(self) -> None:
        own = os.urandom(16).hex().encode()
        (self.base / WRITER).write_bytes(own)
        self._fs.pipe_file(self._at(f'{self.path.name}/{WRITER}'), own)

    def _set_aside(self) -> None:
        """Keep what was never sent from here, because the store has meanwhile been changed elsewhere."""
        aside = self.base.with_name(f'{self.base.name}-unsent-{int(time.time())}')
        self.base.rename(aside)
        self.base.mkdir()
        self._known = {}
        print(f'genbench: warning: {self.address} has gone on elsewhere; what was not sent from here is kept in '
              f'{aside}', file=sys.stderr, flush=True)  # fmt: skip

    def _get(self, name: str, key: str) -> None:
        path = self.base / name
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_name(f'.{path.name}.{os.getpid()}')
        self._fs.get_file(self._at(name), str(partial))
        os.replace(partial, path)
        facts = path.stat()
        self._known[name] = [facts.st_size, facts.st_mtime_ns, key]

    def _send(self) -> None:
        """Make the store equal to the copy: send logs, then checkpoints with their markers last, then delete."""
        if self.use == WORK:
            self._renew()
        here = self._files()
        changed = [name for name, facts in here.items() if self._known.get(name, [])[:2] != facts]
        for name in sorted(changed, key=_order):
            try:
                self._fs.put_file(str(self.base / name), self._at(name))
            except FileNotFoundError:
                if (self.base / name).is_file():
                    raise
                return  # deleted meanwhile with the rest of an old checkpoint; the next round will see that
        if changed:
            there = self._objects()
            self._known |= {name: [*here[name], there[name]] for name in changed if name in there}
            self._note()
        gone = [name for name in self._known if name not in here]
        for name in sorted(gone, key=_order, reverse=True):  # markers first
            with contextlib.suppress(FileNotFoundError):
                self._fs.rm_file(self._at(name))
            del self._known[name]
        if gone:
            self._note()

    def _note(self) -> None:
        partial = self._known_path.with_name(f'.mirror.{os.getpid()}')
        partial.write_text(json.dumps(self._known))
        os.replace(partial, self._known_path)

    def _keep_sending(self) -> None:
        while not self._over.wait(SECONDS):
            try:
                self._send()
                self._trouble = ''
            except Exception as error:
                if not self._trouble:
                    self._trouble = _reason(error)
                    print(f'genbench: warning: {self.address} cannot be written now ({self._trouble}); work goes on, '
                          'and what is missing is sent later.', file=sys.stderr, flush=True)  # fmt: skip

    def _stop(self, thread: threading.Thread) -> None:
        self._over.set()
        thread.join()

    def _take(self) -> None:
        """Take the lock, or report who holds it."""
        self._own = {'host': socket.gethostname(), 'pid': os.getpid(), 'since': time.time()}
        for _ in range(2):
            with contextlib.suppress(FileExistsError):
                self._fs.pipe_file(self._lock, self._lock_text(), mode='create')
                return
            held = self._holder()
            if held and not _is_left(held):
                raise Busy(f'{self.address} is in use by process {held["pid"]} on {held["host"]}; wait for it or stop '
                           f'it. If it is gone, delete {self.address}/{LOCK}.')  # fmt: skip
            with contextlib.suppress(FileNotFoundError):
                self._fs.rm_file(self._lock)
        raise Busy(f'{self.address} has just been taken by another process.')

    @property
    def _lock(self) -> str:
        return self._at(f'{self.path.name}/{LOCK}')

    def _lock_text(self) -> bytes:
        self._beaten = time.time()
        return json.dumps({**self._own, 'renewed': self._beaten}).encode()

    def _holder(self) -> dict[str, Any] | None:
        with contextlib.suppress(FileNotFoundError, ValueError):
            return json.loads(self._fs.cat_file(self._lock))
        return None

    def _renew(self) -> None:
        if time.time() - self._beaten < LEASE / 10:
            return
        held = self._holder()
        if held and held['since'] != self._own['since']:
            raise Busy(f'process {held["pid"]} on {held["host"]} has taken it over')
        self._fs.pipe_file(self._lock, self._lock_text())

    def _release(self) -> None:
        held = self._holder()
        if held and held['since'] == self._own['since']:
            self._fs.rm_file(self._lock)

    @contextlib.contextmanager
    def _explained(self, what: str) -> Iterator[None]:
        """Turn any error of a store into one line. Stores have no common exception type."""
        try:
            yield
        except UserError as error:
            raise type(error)(f'{self.address} cannot be {what}: {error}.') if what == 'written' else error from None
        except Exception as error:
            kept = f' All of it is in {self.base}, and the same command sends it.' if what == 'written' else ''
            raise UserError(f'{self.address} cannot be {what}: {_reason(error)}.{kept}') from error


def _key(facts: Mapping[str, Any]) -> str:
    found = facts.get('ETag') or facts.get('etag') or facts.get('created') or facts.get('mtime')
    return f'{facts.get("size")} {found}'


def _whole(names: Iterable[str]) -> set[str]:
    """The names, without those in checkpoints that lack their marker."""
    names = set(names)
    steps = {name: match[0] for name in names if (match := _CHECKPOINT.match(name))}
    return {name for name in names if name not in steps or f'{steps[name]}/{MARKER}' in names}


def _order(name: str) -> tuple[int, bool, int, str]:
    """Sort key for sending: checkpoints last and one at a time, each with the marker of the whole checkpoint last."""
    match = _CHECKPOINT.match(name)
    step = int(match[0].rpartition('/')[2]) if match else -1
    return step, name.endswith(f'/{MARKER}'), -name.count('/'), name


def _is_left(held: Mapping[str, Any]) -> bool:
    """Whether a lock was abandoned: its process is gone, or it was not renewed for a long time."""
    if held['host'] == socket.gethostname():
        try:
            os.kill(held['pid'], 0)
        except ProcessLookupError:
            return True
        except PermissionError:
            return False
    return time.time() - held['renewed'] > LEASE


def _reason(error: BaseException) -> str:
    kind, text = type(error).__name__, ' '.join(str(error).split())[:200]
    if isinstance(error, ImportError):
        return f"{text}; install it with: pip install 'genbench[remote]'"
    if 'credential' in f'{kind} {text}'.lower():
        return ('there are no credentials; set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or for gs:// run '
                'gcloud auth application-default login')  # fmt: skip
    if isinstance(error, PermissionError):
        return f'permission is denied ({text})'
    if isinstance(error, FileNotFoundError):
        return text if text == 'there is nothing of that name' else f'there is no such bucket or object ({text})'
    return text.rstrip('.') or kind

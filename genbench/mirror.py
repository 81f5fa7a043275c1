"""A folder or file in an object store and its local copy: fetched, sent, and held by one process at a time.

While a command works, a thread sends the changes every SECONDS, each file as one whole object. A checkpoint is sent
only once it is complete on disk. It goes after the log, and its marker goes last. A reader ignores checkpoints without
a marker, so wherever sending stops, the store holds a run that can continue.

Whoever works in a folder holds its lock, see `genbench.lease`, and has left its mark, WRITER, in the store and in the
local copy. Without all three nothing is sent or deleted.
"""

import contextlib
import hashlib
import json
import os
import pathlib
import re
import shutil
import sys
import threading
import time
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from genbench.copies import MARKER, belongs, below, beside, facts_of, order, raise_if_there, step_of, whole
from genbench.errors import UserError
from genbench.lease import Lease, probe

WRITER = '.genbench-writer'
BATCH = 8  # how many files a killed download may lose
TOKEN = '.token'  # lets processes see whether they share a local copy
WORK, READ, LIGHT, OUT = 'work', 'read', 'light', 'out'  # change, read all, read what pages show, write anew
_HEAVY = re.compile(r'(?:.*/)?(?:checkpoints|snapshots|prepared|evaluation|profile|damaged)/')  # no page shows these
_UNSENT = [0, 0, '']  # marks a file that is being sent: the store may have none, part or all of it
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


def seconds() -> float:
    """Seconds between two rounds of sending: GENBENCH_REMOTE_SECONDS, or 30. Raises a UserError if it is no time."""
    text = os.environ.get('GENBENCH_REMOTE_SECONDS') or '30'
    with contextlib.suppress(ValueError):
        if 0 < float(text) <= threading.TIMEOUT_MAX:
            return float(text)
    raise UserError(f'GENBENCH_REMOTE_SECONDS is {text!r}; set it to a number of seconds above 0.')


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
        self.base = root() / hashlib.sha256(f'{use} {self.address}'.encode()).hexdigest()[:12]
        self.path, self._around = self.base / name, around
        self._known_path = self.base / '.mirror.json'
        self._known: dict[str, Any] = {}  # {name: [size, time of change, key of the object]} when both were last equal
        self._lease: Lease | None = None
        self._writer = b''
        self._over, self._seconds = threading.Event(), 0.0

    @contextlib.contextmanager
    def open(self, optional: bool = False) -> Iterator[None]:
        """Fetch what exists. Inside the context, send changes if the use is WORK or OUT."""
        try:
            with self._explained('reached'):
                self._seconds = seconds()
                self._connect()
                if self.use == OUT:
                    shutil.rmtree(self.base, ignore_errors=True)
                    probe(self._fs, self._root)  # fail now, not after hours of work, if the store is read-only
                if self.use == WORK:
                    self._lease = Lease(self._fs, self._at(self.path.name), self.address)
                    self._lease.take()
                self.base.mkdir(parents=True, exist_ok=True)
            if self.use != OUT:
                with self._explained('read'):
                    self._fetch(optional)
            _names[str(self.path)] = self.address
            if self.use == WORK:
                with self._sent_meanwhile():
                    yield
            else:
                _names[str(self.base)] = self._around
                yield
            if self.use in (WORK, OUT):
                with self._explained('written'):
                    self._send()
        finally:
            if self._lease:
                with contextlib.suppress(Exception):
                    self._lease.release()

    @contextlib.contextmanager
    def _sent_meanwhile(self) -> Iterator[None]:
        """Send changes from a thread. If the work fails, send what it leaves; its error is the one that matters."""
        print(f'genbench: {self.address} is mirrored from {self.path}', file=sys.stderr, flush=True)
        thread = threading.Thread(target=self._keep_sending, daemon=True)
        thread.start()
        try:
            yield
        except BaseException:
            self._stop(thread)
            try:
                self._send()
            except Exception as error:
                _warn(f'the latest work has not reached {self.address} ({_reason(error)}). It is in {self.base}.')
            raise
        self._stop(thread)

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
        return {name: keys[name] for name in whole(keys) - light if '/.' not in f'/{name}'}

    def _files(self) -> dict[str, list[int]]:
        """{name: size and time of change} for the files that belong in the store."""
        found = {}
        for folder, inner, files in os.walk(self.base, onerror=raise_if_there):
            inner[:] = filter(belongs, inner)
            for path in (pathlib.Path(folder, name) for name in files if belongs(name)):
                if facts := facts_of(path):
                    found[path.relative_to(self.base).as_posix()] = facts
        return {name: found[name] for name in whole(found)}

    def _fetch(self, optional: bool) -> None:
        """Make the copy equal to the store. If this copy was the last to write there, only fetch what it lacks."""
        with contextlib.suppress(FileNotFoundError, ValueError):
            self._known = json.loads(self._known_path.read_text())
        there = self._objects()
        if not there and not optional and self.use in (READ, LIGHT):
            raise FileNotFoundError('nothing has that name')
        is_newer = self.use == WORK and self._was_last()
        for attempt in range(3):
            try:
                self._update(there, is_newer)
                break
            except FileNotFoundError:  # whoever works there has deleted it since we listed it
                if attempt == 2:
                    raise
                there = self._objects()
        if self.use == WORK and not is_newer:
            self._become_last()

    def _update(self, there: Mapping[str, str], is_newer: bool) -> None:
        moved = {name for name, (*_, key) in self._known.items() if there.get(name) != key}
        if is_newer:
            self._known = {name: facts for name, facts in self._known.items() if name not in moved or facts == _UNSENT}
            self._get({name: key for name, key in there.items()
                       if self._known.get(name) != _UNSENT and not (self.base / name).is_file()})  # fmt: skip
            return
        if self.use == WORK and any(self._known.get(name, [])[:2] != facts for name, facts in self._files().items()):
            self._set_aside()
            moved = set()
        for name in moved - there.keys():
            (self.base / name).unlink(missing_ok=True)
            self._known.pop(name, None)
        self._get({name: key for name, key in there.items()
                   if self._known.get(name) != [*(facts_of(self.base / name) or ()), key]})  # fmt: skip

    def _was_last(self) -> bool:
        """Whether this copy was the last to write to the store."""
        with contextlib.suppress(FileNotFoundError):
            self._writer = (self.base / WRITER).read_bytes()
            return self._fs.cat_file(self._at(f'{self.path.name}/{WRITER}')) == self._writer
        return False

    def _become_last(self) -> None:
        """Only once all is fetched: who was last need not fetch. The store first, so that both agree or are unequal."""
        self._writer = os.urandom(16).hex().encode()
        self._fs.pipe_file(self._at(f'{self.path.name}/{WRITER}'), self._writer)
        (self.base / WRITER).write_bytes(self._writer)

    def _set_aside(self) -> None:
        """Keep what was never sent from here, because the store has meanwhile been changed elsewhere."""
        aside = self.base.with_name(f'{self.base.name}-unsent-{int(time.time())}')
        self.base.rename(aside)
        self.base.mkdir()
        self._known = {}
        _warn(f'{self.address} was continued elsewhere; unsent files from here are kept in {aside}')

    def _get(self, keys: Mapping[str, str]) -> None:
        """Fetch objects. Files get their names once they are noted, so no killed download looks like unsent work."""
        got: list[tuple[pathlib.Path, pathlib.Path]] = []

        def keep() -> None:
            self._note()
            for partial, path in got:
                os.replace(partial, path)
            got.clear()

        try:
            for name, key in keys.items():
                path = self.base / name
                path.parent.mkdir(parents=True, exist_ok=True)
                partial = beside(path)
                try:
                    self._fs.get_file(self._at(name), str(partial))
                except BaseException:
                    partial.unlink(missing_ok=True)
                    raise
                self._known[name] = [*(facts_of(partial) or ()), key]
                got.append((partial, path))
                if len(got) >= BATCH:
                    keep()
        finally:
            keep()

    def _send(self) -> None:
        """Make the store equal to the copy: send logs, then checkpoints with their markers last, then delete."""
        self._verify()
        here = self._files()
        changed = [name for name, facts in here.items() if self._known.get(name, [])[:2] != facts]
        if changed:
            self._known |= dict.fromkeys(changed, _UNSENT)
            self._note()
            sent = self._put(sorted(changed, key=order), here)
            there = self._objects()
            self._known |= {name: [*here[name], there[name]] for name in sent if name in there}
            self._note()
        gone = [name for name in self._known if name not in here]
        for name in sorted(gone, key=order, reverse=True):  # markers first
            self._check_copy()
            with contextlib.suppress(FileNotFoundError):
                self._fs.rm_file(self._at(name))
            del self._known[name]
        if gone:
            self._note()

    def _put(self, names: Iterable[str], here: Mapping[str, list[int]]) -> list[str]:
        """Send files. Returns those sent: not the rest of a checkpoint that is deleted meanwhile."""
        sent, left = [], set()
        for name in names:
            if (step := step_of(name)) and step in left:
                continue
            self._check_copy()
            if step and name == f'{step}/{MARKER}' and below(self._files(), step) != below(here, step):
                continue
            try:
                self._fs.put_file(str(self.base / name), self._at(name))
                sent.append(name)
            except FileNotFoundError:
                if (self.base / name).is_file():
                    raise
                left.add(step)
        return sent

    def _verify(self) -> None:
        """Raise a UserError, now and ever after, unless the lock and the last mark in the store are this copy's."""
        if self._lease:
            self._lease.verify()
            self._check_copy()
            with contextlib.suppress(FileNotFoundError):
                if self._fs.cat_file(self._at(f'{self.path.name}/{WRITER}')) == self._writer:
                    return
            self._lease.lose('another process has written to it')

    def _check_copy(self) -> None:
        """Raise a UserError if the lock was lost, or if this copy is being removed: the store is to keep its files."""
        if self._lease:
            self._lease.check()
            with contextlib.suppress(FileNotFoundError):
                if (self.base / WRITER).read_bytes() == self._writer and (self.path.exists() or not self._known):
                    return
            self._lease.lose('its local copy was removed')

    def _note(self) -> None:
        partial = beside(self._known_path)
        partial.write_text(json.dumps(self._known))
        os.replace(partial, self._known_path)

    def _keep_sending(self) -> None:
        trouble = ''
        while not self._over.wait(self._seconds):
            try:
                self._send()
                trouble = ''
            except Exception as error:
                if self._lease and self._lease.lost:
                    return _warn(f'genbench stops sending to {self.address}: {self._lease.lost}.')
                if not trouble:
                    trouble = _reason(error)
                    _warn(f'{self.address} cannot be written now ({trouble}). Work continues, and genbench will '
                          'send the rest later.')  # fmt: skip

    def _stop(self, thread: threading.Thread) -> None:
        self._over.set()
        thread.join()

    @contextlib.contextmanager
    def _explained(self, what: str) -> Iterator[None]:
        """Turn any error of a store into one line. Stores have no common exception type."""
        try:
            yield
        except UserError as error:
            if what != 'written':
                raise
            kept = f'The unsent files are in {self.base}.'
            raise UserError(f'{self.address} cannot be written: {error}. {kept}') from None
        except Exception as error:
            sends = '; repeat the command to send it' if self.use == WORK else '; copy it from there'
            kept = f' Everything is in {self.base}{sends}.' if what == 'written' else ''
            raise UserError(f'{self.address} cannot be {what}: {_reason(error)}.{kept}') from error


def _key(facts: Mapping[str, Any]) -> str:
    found = facts.get('ETag') or facts.get('etag') or facts.get('created') or facts.get('mtime')
    return f'{facts.get("size")} {found}'


def _warn(text: str) -> None:
    print(f'genbench: warning: {text}', file=sys.stderr, flush=True)


def _reason(error: BaseException) -> str:
    kind, text = type(error).__name__, ' '.join(str(error).split())[:200]
    if isinstance(error, ImportError):
        return f"{text}; install it with pip install 'genbench[remote]'"
    if 'credential' in f'{kind} {text}'.lower():
        return ('there are no credentials; set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or for gs:// run '
                'gcloud auth application-default login')  # fmt: skip
    if isinstance(error, PermissionError):
        return f'permission is denied ({text})'
    if isinstance(error, FileNotFoundError):
        return text if text == 'nothing has that name' else f'there is no such bucket or object ({text})'
    return text.rstrip('.') or kind

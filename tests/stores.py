"""Runs in a store in memory: what tests write there, and what they find."""

import fsspec

from genbench import mirror as mirrors

MARKER = mirrors.MARKER


def mirror(use=mirrors.WORK):
    return mirrors.Mirror('memory://bucket/run', use)


def write(folder, *names, text='x'):
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)


def checkpoint(folder, step):
    write(folder, *(f'checkpoints/{step}/{name}' for name in ('state/a', 'state/b', f'state/{MARKER}', MARKER)))


def names(folder):
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob('*') if path.is_file())


def mirror_of(monkeypatch, put):
    monkeypatch.setattr(type(fsspec.filesystem('memory')), 'put_file', put)

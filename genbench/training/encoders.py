"""Lending the weights of a published text encoder, which are a file and not a run."""

import pathlib
from collections.abc import Mapping
from typing import Any

from genbench.errors import UserError
from genbench.families import texts
from genbench.networks import weights
from genbench.training.state import Blueprint, State

KEY = f'family.{texts.NAME}'


def encoder(entry: Mapping[str, Any]) -> texts.Encoder:
    """The encoder that a manifest's entry describes."""
    return texts.Encoder(entry['config'][texts.NAME], entry['config']['skip'])


def found(text: str, folder: pathlib.Path | None) -> pathlib.Path:
    """The file of ARCHITECTURE:FILE, or its copy in the folder of an exported run."""
    copy = folder / 'borrowed' / texts.NAME if folder is not None else None
    return (
        next(copy.iterdir()) if copy is not None and copy.is_dir() else pathlib.Path(texts.parse(text)[1]).expanduser()
    )


def lend(
    text: str, skip: int, folder: pathlib.Path | None, known: Mapping[str, Any] | None = None
) -> tuple[dict[str, Any], State]:
    """The manifest's entry of an encoder, and its weights on the host.

    Args:
      text: ARCHITECTURE:FILE.
      folder: of the run that borrows.
      known: the entry of an earlier loan, whose hash the file must still have.

    Raises:
      UserError: the file is missing, is of another network, or has changed.
    """
    kind, path = texts.parse(text)[0], found(text, folder)
    digest = weights.hash_of(path, KEY)
    if known and known['state_sha256'] != digest:
        raise UserError(f'{KEY}: {path} has changed since it was borrowed: its sha256 is {digest[:12]}, and was '
                        f'{known["state_sha256"][:12]}. Restore it, or train again in another --workdir.')  # fmt: skip
    entry = described(kind, skip, str(path), digest)
    one = encoder(entry)
    _, empty = weights.abstract(lambda: one.architecture.make(skip))
    shapes = {name: leaf.shape for name, leaf in weights.by_path(empty).items()}
    held = weights.checked(weights.Weights(path, digest, published=False), shapes, beside=one.architecture.unused)
    return entry, {'params': {'encoder': weights.fill(empty, held.__getitem__)}, 'aux': {'encoder': {}}, 'lent': {}}


def promise(text: str, skip: int) -> tuple[dict[str, Any], State]:
    """The same by shapes alone, without the file."""
    kind, name = texts.parse(text)
    entry = described(kind, skip, name, '')
    shapes = Blueprint(encoder(entry)).shapes
    return entry, {'params': shapes['params'], 'aux': shapes['aux'], 'lent': {}}


def described(kind: str, skip: int, path: str, digest: str) -> dict[str, Any]:
    return {
        'run': path, 'config': {texts.NAME: kind, 'skip': skip}, 'step': 0, 'average': 'current',
        'state_sha256': digest, 'borrowed': {},
    }  # fmt: skip

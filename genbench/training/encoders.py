"""Lending the weights of a published text encoder, which are a file and not a run."""

import pathlib
from collections.abc import Mapping
from typing import Any

from genbench.data import captions, conditions
from genbench.errors import UserError
from genbench.families import texts
from genbench.networks import weights
from genbench.training.state import Blueprint, State

KEY = f'family.{texts.NAME}'
TOKENIZER = 'tokenizer_sha256'  # in the manifest's entry


def encoder(entry: Mapping[str, Any]) -> texts.Encoder:
    """The encoder that a manifest's entry describes."""
    return texts.Encoder(entry['config'][texts.NAME], entry['config']['skip'])


def found(text: str, folder: pathlib.Path | None) -> pathlib.Path:
    """The file of ARCHITECTURE:FILE, or its copy, of the same name, in the folder of an exported run."""
    file = pathlib.Path(texts.parse(text)[1]).expanduser()
    copies = folder / 'borrowed' / texts.NAME if folder is not None else None
    return copies / file.name if copies is not None and copies.is_dir() else file


def lend(
    options: Any, folder: pathlib.Path | None, known: Mapping[str, Any] | None = None
) -> tuple[dict[str, Any], State]:
    """The manifest's entry of an encoder, and its weights on the host.

    Args:
      options: the section `family` of the config of the run that borrows.
      folder: of that run.
      known: the entry of an earlier loan. The files of the weights and of the tokenizer must still have its hashes.

    Raises:
      UserError: a file is missing, is of another network, or has changed.
    """
    text, skip = options[texts.NAME], options.text_skip
    kind, path = texts.parse(text)[0], found(text, folder)
    digest, known = weights.hash_of(path, KEY), known or {}
    _check_unchanged(KEY, path, digest, known.get('state_sha256'))
    entry = described(kind, skip, str(path), digest)
    if reader := _tokenizer(options):
        entry[TOKENIZER] = reader.sha256
        _check_unchanged(captions.KEY, reader.path, reader.sha256, known.get(TOKENIZER))
    one = encoder(entry)
    _, empty = weights.abstract(lambda: one.architecture.make(skip))
    shapes = {name: leaf.shape for name, leaf in weights.by_path(empty).items()}
    held = weights.checked(weights.Weights(path, digest, published=False), shapes, beside=one.architecture.unused)
    return entry, {'params': {'encoder': weights.fill(empty, held.__getitem__)}, 'aux': {'encoder': {}}, 'lent': {}}


def _tokenizer(options: Any) -> captions.Tokens | None:
    """What reads the captions, if they are tokens."""
    ways = (name.partition(':') for name in conditions.named(options))
    readers = (captions.reading(way) for kind, _, way in ways if kind == texts.CAPTION)
    return next((reader for reader in readers if isinstance(reader, captions.Tokens)), None)


def _check_unchanged(key: str, path: pathlib.Path | str, digest: str, before: str | None) -> None:
    if before and before != digest:
        raise UserError(f'{key}: {path} has changed since it was borrowed: its sha256 is {digest[:12]}, and was '
                        f'{before[:12]}. Restore it, or train again in another --workdir.')  # fmt: skip


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

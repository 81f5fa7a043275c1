"""Open data sets by their names in configs: TFDS's `NAME` or `tfds:NAME`, `folder:DIR`, `hf:NAME`, each with a recipe.

A TFDS set without a recipe is read from TFDS's own folder. `genbench data prepare` prepares every other set once, in
`data.data_dir` or the cache; it is then read like a TFDS set. A prepared set records the files that it was made from,
so that changes to them are noticed.
"""

import dataclasses
import functools
import hashlib
import json
import os
import pathlib
import zlib
from typing import Any

from genbench import reading, remote
from genbench.data import contents, folders, preparing, sources
from genbench.data import recipe as recipes
from genbench.data.contents import Contents
from genbench.data.recipe import Recipe
from genbench.data.spec import DataSpec
from genbench.errors import Unprepared, UserError, explained_disk_errors

KINDS = ('tfds', 'folder', 'hf')
PREPARED = {'recipe': dict, 'content': str, 'files': str, 'source': str, 'origin': str}  # the keys of a metadata.json


@dataclasses.dataclass(frozen=True)
class Name:
    """The data set that `data.name`, `data.data_dir` and the recipe name together.

    Attributes:
      kind: one of KINDS.
      rest: a name or a folder.
      data_dir: '' for the default.
    """

    kind: str
    rest: str
    data_dir: str
    recipe: Recipe

    @property
    def text(self) -> str:
        """The name as written on the command line."""
        return self.rest if self.kind == 'tfds' else f'{self.kind}:{self.rest}'

    @property
    def plain(self) -> bool:
        """Whether it is an unchanged TFDS set."""
        return self.kind == 'tfds' and dataclasses.replace(self.recipe, test_share=Recipe.test_share) == Recipe()

    @property
    def title(self) -> str:
        """The name of the data set in results, such as 'photos-64-center-lanczos'."""
        base = os.path.basename(os.path.realpath(self.rest)) if os.path.isdir(self.rest) else self.rest.strip('/')
        return '-'.join(filter(None, (contents.slug(base.rpartition('/')[2]), self.recipe.name)))

    @property
    def folder(self) -> pathlib.Path:
        """The folder in which it is prepared. A remote folder is fetched."""
        name = f'{self.title}-{self.recipe.digest}'
        if self.data_dir and self.kind != 'tfds':
            return remote.data_dir(self.data_dir, name) / name
        else:
            if self.kind == 'folder' or (self.kind == 'hf' and os.path.isdir(self.rest)):
                origin = os.path.realpath(self.rest)
            else:
                origin = f'{self.rest} {os.path.realpath(self.data_dir) if self.data_dir else ""}'
            digest = hashlib.sha256(f'{self.kind} {origin}'.encode('utf-8', 'surrogateescape')).hexdigest()[:12]
            root = sources.cache_dir() / 'prepared' / digest
        return root / name

    @property
    def command(self) -> str:
        """The command that prepares it."""
        where = f' --data_dir={self.data_dir}' if self.data_dir else ''
        return f'genbench data prepare {self.text}{self.recipe.flags}{where}'


def named(name: str, data_dir: str = '', recipe: Recipe | None = None) -> Name:
    """Split a name into its parts.

    Raises:
      UserError: nothing follows the kind.
    """
    kind, colon, rest = name.partition(':')
    if not colon or kind not in KINDS:
        kind, rest = 'tfds', name
    if not rest:
        raise UserError(f'{name!r} (data.name) is incomplete; write {kind}:{"DIR" if kind == "folder" else "NAME"}.')
    if kind != 'tfds':
        rest = os.path.expanduser(rest)
    return Name(kind, rest, data_dir, recipe or Recipe())


def of_config(data: Any) -> Name:
    """The data set that the section `data` of a config names."""
    return named(data.name, data.data_dir, recipes.of(data))


def open_data(data: Any) -> Any:
    """The TFDS builder of the prepared set that the section `data` of a config names.

    Raises:
      UserError: there is no such set, it is not prepared, or its source has changed since.
    """
    return open_named(of_config(data))


def lacking(data: Any) -> str:
    """Why the set that the section `data` of a config names cannot be read here: it is not prepared; '' if it can.

    Raises:
      UserError: there is no such set, or it is damaged or has changed.
    """
    try:
        open_data(data)
    except Unprepared as error:
        return str(error)
    return ''


def open_named(name: Name) -> Any:
    if name.plain:
        return sources.open_builder(name.rest, name.data_dir)
    known = _known(name)
    if known is None:
        if name.kind == 'folder' and not os.path.isdir(name.rest):
            raise Unprepared(f'There is no folder {name.rest}. Put images there, then run: {name.command}')
        raise Unprepared(f'{name.text} is not prepared{" by this recipe" if name.kind == "tfds" else ""}. '
                        f'Run: {name.command}')  # fmt: skip
    if change := _change(name, known):
        raise UserError(f'{name.text} has changed since it was prepared: {change}. Prepare it again: {name.command}')
    return sources.open_folder(name.title, name.folder)


def spec(data: Any, guess: bool = False) -> DataSpec:
    """The specification of the set that the section `data` of a config names. TFDS sets need not be prepared.

    Args:
      guess: also give one of a folder or a set of Hugging Face that is not prepared, by its `data.size`. Its images
        then count as colour images without labels, unless `data.channels` is 1.

    Raises:
      UserError: the set is not prepared, and the shape of its images is not known.
    """
    name = of_config(data)
    if name.plain:
        return sources.spec_by_name(name.rest, name.data_dir)
    if name.kind == 'tfds' and _known(name) is None and name.recipe.shape:
        found = sources.spec_by_name(name.rest, name.data_dir, name.recipe.shape)
        return dataclasses.replace(found, name=name.title)
    if guess and name.kind != 'tfds' and _known(name) is None and name.recipe.shape:
        return DataSpec(name.title, (*name.recipe.shape, name.recipe.channels or 3), levels=256)
    return sources.spec_of(open_named(name))


@explained_disk_errors()
def prepare(name: Name, processes: int = 0, say: preparing.Say = lambda _: None) -> tuple[str, list[str]]:
    """Prepare a set that is unprepared or whose source has changed. Return its folder and a report on its images.

    Raises:
      UserError: there is no such set, or no image is left.
    """
    name.recipe.check()
    if name.plain:
        return sources.prepare(name.rest, name.data_dir), []
    known = _known(name)
    if known is not None and not _change(name, known):
        return str(name.folder), list(known.get('report', ()))
    source, origin = _source(name)
    listed = _listed(name.kind, origin)
    metadata = {'files': _digest(listed), 'source': name.text, 'origin': origin}
    lines = preparing.prepare(source, name.recipe, name.folder, metadata, name=name.title, listed=listed,
                              processes=processes, say=say)  # fmt: skip
    return str(name.folder), lines


def prepared(data_dir: str = '') -> list[str]:
    """'name  folder' for each set that was prepared with a recipe."""
    root = pathlib.Path(data_dir) if data_dir else sources.cache_dir() / 'prepared'
    found = []
    for file in sorted(root.glob('*/metadata.json' if data_dir else '*/*/metadata.json')):
        known = reading.read_json_if_any(file, dict) or {}
        if 'recipe' in known:
            flags = Recipe(**{**known['recipe'], 'size': tuple(known['recipe']['size'])}).flags
            found.append(f'{known["source"]}{flags}  {file.parent}')
    return found


def _source(name: Name) -> tuple[Contents, str]:
    """The contents to prepare and their folder, which is '' if there is none."""
    if name.kind == 'folder':
        return folders.open_folder(name.rest, name.recipe), os.path.realpath(name.rest)
    if name.kind == 'hf':
        from genbench.data import hugging_face

        return hugging_face.open_set(name.rest, name.recipe)
    from genbench.data import resized

    return resized.open_set(name.rest, name.data_dir, name.recipe)


def _known(name: Name) -> dict[str, Any] | None:
    """The metadata of a prepared set; None if it is not prepared."""
    advice = f'Prepare it again: {name.command}'
    return reading.read_json_if_any(name.folder / 'metadata.json', PREPARED, advice)


def _listed(kind: str, origin: str) -> list[folders.File]:
    """The files that the data depend on."""
    if not origin:
        return []
    found = folders.files(pathlib.Path(origin))
    return sorted((one for one in found if kind != 'folder' or folders.matters(one.name)), key=lambda one: one.name)


def _digest(listed: list[folders.File]) -> str:
    return hashlib.sha256(json.dumps([dataclasses.astuple(one) for one in listed]).encode()).hexdigest()[:16]


def _change(name: Name, known: dict[str, Any]) -> str:
    """What has changed in the files that a set was prepared from, such as '2 new, 1 gone'; '' if nothing has.

    If only a file's time has changed, its bytes decide. A folder that is gone counts as unchanged, since a prepared set
    does not need it.
    """
    origin = os.path.realpath(name.rest) if name.kind == 'folder' else known['origin']
    if not origin or not os.path.isdir(origin):
        return ''
    now = {one.name: one for one in _listed(name.kind, origin)}
    if _digest(list(now.values())) == known['files']:
        return ''
    listed = reading.read_json(name.folder / 'files.json', [list], f'Prepare it again: {name.command}')
    then = {one[0]: folders.File(*one) for one in listed}
    sums = functools.cache(lambda: reading.read_json(name.folder / 'sums.json', dict))
    changed = [one for one, file in now.items() if one in then and file.size != then[one].size]
    touched = [one for one, file in now.items() if one in then and file.size == then[one].size and file != then[one]]
    changed += [one for one in touched if not _same(pathlib.Path(origin, one), sums().get(one))]
    counts = {'new': len(now.keys() - then.keys()), 'gone': len(then.keys() - now.keys()), 'changed': len(changed)}
    return ', '.join(f'{number:,} {what}' for what, number in counts.items() if number)


def _same(path: pathlib.Path, checksum: int | None) -> bool:
    return checksum is not None and path.is_file() and zlib.crc32(path.read_bytes()) == checksum

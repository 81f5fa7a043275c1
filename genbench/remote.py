"""Let commands that expect local folders use folders in an object store, s3://BUCKET/… and gs://BUCKET/….

Growing logs, mapped arrays and checkpoints need real files (Orbax 0.12 cannot write to s3://). A command therefore
works in a local copy, which replaces the address among its arguments, and a `Mirror` keeps the two in step.
"""

import contextlib
import os
import pathlib
from collections.abc import Callable, Iterator
from typing import Any

from genbench.errors import UserError
from genbench.mirror import LIGHT, OUT, READ, TOKEN, WORK, Mirror, root

SCHEMES = ('gs', 's3')
DATA = 'data'  # a use: folders that are fetched when a data set is opened
USES = {  # how each verb uses its arguments
    'train': {'workdir': WORK},
    'replay': {'workdir': READ},
    'evaluate': {'workdir': WORK},
    'sample': {'workdir': READ, 'out': OUT},
    'edit': {'workdir': READ, 'input': READ, 'mask': READ, 'source': READ, 'out': OUT, 'data_dir': DATA},
    'watermark': {'workdir': READ, 'key': READ, 'input': READ, 'unmarked': READ, 'regenerator': READ, 'out': OUT,
                  'data_dir': DATA},
    'metrics': {'a': READ, 'b': READ, 'held_out': READ, 'json': OUT, 'out': OUT, 'data_dir': DATA},
    'run': {'out': WORK},
    'status': {'folder': LIGHT},
    'report': {'folders': LIGHT, 'out': OUT},
    'results': {'folders': LIGHT, 'out': OUT},
    'export': {'workdir': READ, 'out': OUT},
    'import': {'workdir': OUT},
    'checkpoint': {'workdir': READ, 'out': OUT},
    'data prepare': {'data_dir': OUT},
    'data show': {'data_dir': DATA, 'out': OUT},
    'verify': {'data_dir': DATA},
}  # fmt: skip
DRY = {'train': DATA, 'evaluate': READ, 'run': LIGHT}  # dry runs change nothing, and train's reads no run
_PATHS = {name for uses in USES.values() for name in uses}


def is_remote(address: Any) -> bool:
    """Whether an argument is an address in an object store."""
    return isinstance(address, str) and address.startswith(tuple(f'{scheme}://' for scheme in SCHEMES))


@contextlib.contextmanager
def staged(
    verb: str, arguments: dict[str, Any], from_first: Callable[[Callable[[], bytes]], bytes] = lambda make: make(),
    all_agree: Callable[[bool], bool] = bool,
) -> Iterator[None]:  # fmt: skip
    """Replace the addresses among a verb's arguments by local folders, and send what the verb changes in them.

    Args:
      verb: including its action, if it has one.
      arguments: the verb's arguments by name, as texts or lists of texts. They are changed in place.
      from_first, all_agree: for joined processes, see `training.processes`. The first process fetches and sends.

    Raises:
      UserError: an address cannot be reached, another command is working there, or changes could not be sent.
    """
    mirrors: list[Mirror] = []
    is_dry = bool(arguments.get('dry_run'))
    if verb == 'report' and not arguments['out'] and is_remote(first := arguments['folders'][0]):
        arguments['out'] = f'{first.rstrip("/")}/report.html'  # a folder that is only read receives nothing
    for name, value in arguments.items():
        every = value if isinstance(value, list) else [value]
        found = [one for one in every if is_remote(one)]
        if name in _PATHS and (unknown := [one for one in every if '://' in str(one) and one not in found]):
            known = ' or '.join(f'{scheme}://' for scheme in SCHEMES)
            raise UserError(f'genbench cannot reach {unknown[0]!r}; use a local path, or {known} and '
                            'BUCKET/FOLDER.')  # fmt: skip
        use = USES.get(verb, {}).get(name, '')
        if found and not use:
            raise UserError(f'genbench {verb} cannot use an object store for {name}; give a local path.')
        use = DRY.get(verb, use) if is_dry else use
        opened = {one: Mirror(one, use) for one in found if use != DATA}
        mirrors += opened.values()
        if isinstance(value, list):
            arguments[name] = [str(opened[one].path) if one in opened else one for one in value]
        elif opened:
            arguments[name] = str(opened[value].path)
    with contextlib.ExitStack() as held:

        def fetch() -> bytes:
            token = os.urandom(16)
            for mirror in mirrors:
                held.enter_context(mirror.open(optional=is_dry and verb == 'run'))  # the study may not have started
                (mirror.base / TOKEN).write_bytes(token)
            return token

        if mirrors:
            token = from_first(fetch)
            if not all_agree(all(mirror.holds(token) for mirror in mirrors)):
                raise UserError(f'Not every process sees {root()}, where the first process keeps its copy of '
                                f'{mirrors[0].address}; set GENBENCH_STAGING to a shared folder.')  # fmt: skip
        yield


@contextlib.contextmanager
def mirrored(address: str, use: str = WORK) -> Iterator[pathlib.Path]:
    """For Python: yields the local folder that stands for an address. Changes in it are sent, unless `use` is READ."""
    mirror = Mirror(address, use)
    with mirror.open():
        yield mirror.path


def check_local(folder: pathlib.Path) -> None:
    """Raise a UserError for an address that no local folder has replaced."""
    text = str(folder).replace(':/', '://', 1)
    if is_remote(text):
        raise UserError(f'{text} is in an object store, which only the command line opens directly. In Python, use '
                        f'`with genbench.remote.mirrored({text!r}) as folder`.')  # fmt: skip


def data_dir(address: str, name: str) -> pathlib.Path:
    """The local folder for `data.data_dir`. A remote folder is fetched with its data set `name`, if it has one."""
    if not is_remote(address):
        return pathlib.Path(address).expanduser()
    mirror = Mirror(f'{address.rstrip("/")}/{name}', READ)
    if not mirror.is_fetched:
        with mirror.open(optional=True):
            pass
    return mirror.base

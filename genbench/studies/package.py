"""The code of this package, as a hash that tells whether two numbers come from the same one."""

import functools
import hashlib
import pathlib

# Parts of the package that do not affect any number of a trial.
_APART = ('cli.py', 'commands.py', 'flags.py', '__main__.py', 'errors.py', 'ranges.py', 'reading.py', 'startup.py',
          'shipped.py', 'projects.py', 'api.py', 'exchange', 'project', 'share', 'report', 'studies')  # fmt: skip


@functools.cache
def sources() -> bytes:
    """The package's sources, each after its name, except the parts that only start, show or collect."""
    package, found = pathlib.Path(__file__).parents[1], b''
    for path in sorted(package.rglob('*.py')):
        name = path.relative_to(package)
        if name.parts[0] not in _APART:
            found += f'{name}\0'.encode() + path.read_bytes() + b'\0'
    return found


@functools.cache
def code() -> str:
    """The hash of a trial's code when it uses no module of the user's own."""
    return hashlib.sha256(sources()).hexdigest()[:12]

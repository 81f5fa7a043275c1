"""The code of this package, as a hash that tells whether two numbers come from the same one."""

import functools
import hashlib
import pathlib

# Parts of the package that do not affect any number of a trial.
_APART = ('cli.py', 'commands.py', 'flags.py', '__main__.py', 'errors.py', 'ranges.py', 'reading.py', 'startup.py',
          'shipped.py', 'projects.py', 'api.py', 'exchange', 'project', 'share', 'report', 'studies')  # fmt: skip


def sources() -> bytes:
    """The package's sources, each after its name, except the parts that only start, show or collect."""
    package = pathlib.Path(__file__).parents[1]
    names = [path.relative_to(package) for path in sorted(package.rglob('*.py'))]
    return b''.join(
        f'{name}\0'.encode() + (package / name).read_bytes() + b'\0' for name in names if name.parts[0] not in _APART
    )


@functools.cache
def code() -> str:
    """The hash of a trial's code when it uses no module of the user's own."""
    return hashlib.sha256(sources()).hexdigest()[:12]

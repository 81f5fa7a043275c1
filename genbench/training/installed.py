"""What is installed: library versions, and the commit of these sources."""

import pathlib
import subprocess
import sys
from importlib import metadata

LIBRARIES = ('genbench', 'jax', 'jaxlib', 'flax', 'optax', 'orbax-checkpoint', 'numpy', 'tensorflow-datasets', 'grain')


def commit() -> str:
    """Git commit of the installed sources, followed by '+' if they have been changed; '' outside a checkout."""
    here = pathlib.Path(__file__).parent

    def git(*words: str) -> str:
        done = subprocess.run(['git', '-C', str(here), *words], capture_output=True, text=True, check=False)
        return done.stdout.strip() if done.returncode == 0 else ''

    try:
        head = git('rev-parse', 'HEAD')
        return head + ('+' if head and git('status', '--porcelain', '--', str(here.parent)) else '')
    except OSError:
        return ''


def versions() -> dict[str, str]:
    found = {'python': sys.version.split()[0]}
    for name in LIBRARIES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            found[name] = 'not installed'
    return found

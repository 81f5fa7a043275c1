"""A store in memory in the place of an object store."""

import fsspec
import pytest

from genbench import lease as leases
from genbench import remote


@pytest.fixture
def store(monkeypatch, tmp_path):
    """A store in memory, reached as memory://; `store(name)` is to be on another machine."""
    memory = fsspec.filesystem('memory')
    memory.store.clear()
    monkeypatch.setattr(leases, 'SETTLE', 0.0)
    monkeypatch.setattr(remote, 'SCHEMES', ('memory',))

    def move(machine):
        monkeypatch.setenv('GENBENCH_STAGING', str(tmp_path / machine))
        return memory

    move('here')
    return move

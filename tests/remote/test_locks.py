"""Who may work in a folder of an object store."""

import datetime
import json

import pytest
from stores import mirror, mirror_of, write

from genbench import lease as leases
from genbench import mirror as mirrors
from genbench.errors import Busy, UserError


@pytest.mark.parametrize('change, age, taken', [
    ({}, 0, False), ({'pid': 2**22 + 1}, 0, True), ({'place': 'other', 'pid': 2**22 + 1}, 0, False),
    ({'place': 'other'}, 601, True), ({'place': 'other', 'renewed': 0.0}, 599, False),
])  # fmt: skip
def test_one_works_in_a_folder_and_what_a_dead_one_left_is_taken(change, age, taken, store):
    """The age of a lock is that on the store's clock, whatever the holder's clock said."""
    memory = store('here')
    with mirror().open():
        held = json.loads(memory.cat_file('/bucket/run/' + leases.LOCK))
    assert not memory.exists('/bucket/run/' + leases.LOCK)
    memory.pipe_file('/bucket/run/' + leases.LOCK, json.dumps({**held, **change}).encode())
    memory.store['/bucket/run/' + leases.LOCK].modified -= datetime.timedelta(seconds=age)
    if taken:
        with mirror().open():
            pass
    else:
        with pytest.raises(Busy, match='is in use by process'), mirror().open():
            pass


def test_writing_next_to_a_run_leaves_its_lock(store):
    memory = store('here')
    with mirror().open():
        held = memory.cat_file('/bucket/run/' + leases.LOCK)
        with mirrors.Mirror('memory://bucket/run/report.html', mirrors.OUT).open():
            assert memory.cat_file('/bucket/run/' + leases.LOCK) == held
    assert not [path for path in memory.store if 'probe' in path]


def take_over(memory):
    memory.pipe_file('/bucket/run/' + leases.LOCK, b'{"id": "other", "pid": 7, "host": "other"}')


def write_as_another(memory):
    memory.pipe_file('/bucket/run/' + mirrors.WRITER, b'other')


@pytest.mark.parametrize('happens, reason', [
    (take_over, 'process 7 on other took it over'),
    (lambda memory: memory.rm_file('/bucket/run/' + leases.LOCK), 'its lock was removed'),
    (write_as_another, 'another process has written to it'),
])  # fmt: skip
def test_who_lost_the_folder_never_sends_again(happens, reason, store, monkeypatch, capsys):
    monkeypatch.setenv('GENBENCH_REMOTE_SECONDS', '0.01')
    memory = store('here')
    with pytest.raises(UserError, match=f'cannot be written: {reason}. The unsent files are in'), mirror().open():
        happens(memory)
        kept = {path: memory.cat_file(path) for path in (*memory.store,)}
        write(mirror().path, 'log.txt')
        mirrors.time.sleep(0.2)
    assert {path: memory.cat_file(path) for path in memory.store if path != '/bucket/run/' + leases.LOCK} == {
        path: text for path, text in kept.items() if path != '/bucket/run/' + leases.LOCK}  # fmt: skip
    assert capsys.readouterr().err.count(reason) == 1


def test_a_lock_is_renewed_however_long_sending_takes_and_its_loss_stops_a_round(store, monkeypatch):
    monkeypatch.setattr(leases, 'LEASE', 0.1)
    memory, put, sent = store('here'), type(store('here')).put_file, []

    def slow(self, local, to, **rest):
        sent.append(to)
        mirrors.time.sleep(0.15)
        renewed.append(json.loads(memory.cat_file('/bucket/run/' + leases.LOCK))['renewed'])
        take_over(memory)
        mirrors.time.sleep(0.15)

    renewed = []
    mirror_of(monkeypatch, slow)
    with pytest.raises(UserError, match='process 7 on other took it over'), mirror().open():
        began = mirrors.time.time()
        write(mirror().path, 'a', 'b')
    assert len(sent) == 1 and renewed[0] > began + 0.05
    mirror_of(monkeypatch, put)


def take_over_anew(memory):
    memory.pipe_file('/bucket/run/' + leases.LOCK, json.dumps({'id': str(mirrors.time.time_ns())}).encode())
    return True


def test_of_two_that_take_an_abandoned_lock_one_gets_it(store, monkeypatch):
    memory = store('here')
    lock = '/bucket/run/' + leases.LOCK
    monkeypatch.setattr(leases.time, 'sleep', lambda seconds: take_over(memory))  # after we have created ours
    with pytest.raises(Busy, match='was just taken'), mirror().open():
        pass
    assert b'other' in memory.cat_file(lock)
    removed = []
    monkeypatch.setattr(leases.Lease, '_is_left', lambda self, held: take_over_anew(memory))
    monkeypatch.setattr(type(memory), 'rm_file', lambda self, path: removed.append(path))
    with pytest.raises(Busy), mirror().open():
        pass
    assert lock not in removed

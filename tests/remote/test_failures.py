"""What a failure on the way to an object store leaves there and here."""

import json
import shutil

import fsspec
import pytest
from stores import MARKER, checkpoint, mirror, mirror_of, names, write

from genbench import mirror as mirrors
from genbench.errors import UserError


def test_a_store_that_fails_within_a_checkpoint_leaves_the_one_before(store, monkeypatch, capsys):
    memory, put = store('here'), type(store('here')).put_file

    def failing(self, local, to, **rest):
        if to.endswith('checkpoints/4/state/b'):
            raise OSError('the line is cut')
        put(self, local, to, **rest)

    told = (
        r'memory://bucket/run cannot be written: the line is cut\. Everything is in .*; repeat the command to send it'
    )
    with mirror().open():
        checkpoint(mirror().path, 2)
    with pytest.raises(UserError, match=told), mirror().open():
        mirror_of(monkeypatch, failing)
        checkpoint(mirror().path, 4)
        write(mirror().path, 'metrics.jsonl', text='of step 4')
    assert memory.exists('/bucket/run/checkpoints/4/state/a')  # half of it is there
    store('there')
    with mirror(mirrors.READ).open():
        assert {name.split('/')[1] for name in names(mirror(mirrors.READ).path) if '/' in name} == {'2'}
    store('here')
    mirror_of(monkeypatch, put)
    with mirror().open():  # the same command, later
        assert (mirror().path / 'checkpoints' / '4' / MARKER).is_file()
    store('there')
    with mirror().open():
        assert (mirror().path / 'checkpoints' / '4' / MARKER).is_file()


def interrupt(monkeypatch, method, after, at_the_end=lambda: None):
    """Let a method of the store be stopped by Ctrl-C at a call."""
    calls, original = [], getattr(type(fsspec.filesystem('memory')), method)

    def interrupted(self, *given, **rest):
        calls.append(given)
        if len(calls) > after:
            at_the_end()
            raise KeyboardInterrupt
        return original(self, *given, **rest)

    monkeypatch.setattr(type(fsspec.filesystem('memory')), method, interrupted)
    return calls


def test_an_interrupted_download_harms_no_run_and_goes_on(store, monkeypatch):
    many = [f'part{number:02}' for number in range(20)]
    with mirror().open():
        write(mirror().path, *many)
        write(mirror().path, 'metrics.jsonl', text='of the store')
    memory = store('there')
    with monkeypatch.context() as patch:
        noted = []  # what a process that is killed there leaves
        interrupt(patch, 'get_file', 12, lambda: noted.extend(json.loads((mirror().base / '.mirror.json').read_text())))
        with pytest.raises(KeyboardInterrupt), mirror().open():
            pass
    assert (
        len(noted) == mirrors.BATCH
        and len(names(mirror().path)) == 12
        and not (mirror().base / mirrors.WRITER).exists()
    )
    with monkeypatch.context() as patch:
        calls = interrupt(patch, 'get_file', after=99)
        with mirror().open():
            assert names(mirror().path) == ['metrics.jsonl', *many]
        assert len(calls) == 21 - 12
    assert memory.cat_file('/bucket/run/metrics.jsonl') == b'of the store'
    assert not list(mirror().base.parent.glob('*-unsent-*'))


def test_a_removed_copy_empties_no_store_and_is_fetched_again(store, monkeypatch):
    memory = store('here')
    with mirror().open():
        write(mirror().path, 'a', 'b')
    with pytest.raises(UserError, match='its local copy was removed'), mirror().open():
        shutil.rmtree(mirror().base)
    assert memory.exists('/bucket/run/a') and memory.exists('/bucket/run/b')
    with mirror().open():
        pass
    remove = type(memory).rm_file
    with monkeypatch.context() as patch, pytest.raises(UserError, match='copy was removed'), mirror().open():
        patch.setattr(type(memory), 'rm_file', lambda *given: shutil.rmtree(mirror().base, True) or remove(*given))
        for name in names(mirror().path):  # the copy is removed while two files of it are being deleted
            (mirror().path / name).unlink()
    assert len([path for path in ('a', 'b') if memory.exists(f'/bucket/run/{path}')]) == 1
    memory.pipe_file('/bucket/run/a', b'x')
    memory.pipe_file('/bucket/run/b', b'x')
    with mirror().open():
        pass
    (mirror().path / 'a').unlink()  # between two commands
    with mirror().open():
        assert names(mirror().path) == ['a', 'b']


def test_what_cannot_be_listed_has_not_been_deleted(store, monkeypatch):
    def failing(folder, onerror):
        onerror(PermissionError('no'))
        return iter(())

    with pytest.raises(UserError, match='permission is denied'), mirror().open():
        write(mirror().path, 'a')
        monkeypatch.setattr(mirrors.os, 'walk', failing)


def test_a_checkpoint_deleted_while_it_is_sent_delays_no_other_and_leaves_nothing(store, monkeypatch):
    memory, put, order = store('here'), type(store('here')).put_file, []

    def deleting(self, local, to, **rest):
        order.append(to.partition('checkpoints/')[2])
        if to.endswith('checkpoints/4/state/b'):
            shutil.rmtree(mirror().path / 'checkpoints' / '4')
        if to.endswith('checkpoints/3/' + 'state/' + MARKER):  # all but the marker has been sent
            (mirror().path / 'checkpoints' / '3' / 'state' / 'a').unlink()
        put(self, local, to, **rest)

    with mirror().open():
        for step in (2, 3, 4, 5):
            checkpoint(mirror().path, step)
        write(mirror().path, 'log.txt')
        mirror_of(monkeypatch, deleting)
    assert [step[0] for step in order if step] == ['5'] * 4 + ['4'] * 2 + ['3'] * 3 + ['2'] * 4
    assert memory.exists(f'/bucket/run/checkpoints/2/{MARKER}')
    assert not memory.exists(f'/bucket/run/checkpoints/3/{MARKER}')
    assert memory.exists('/bucket/run/checkpoints/4/state/a')
    mirror_of(monkeypatch, put)
    with mirror().open():
        pass
    assert not memory.find('/bucket/run/checkpoints/4')


def test_what_an_output_or_a_failed_command_could_not_send_is_told(store, monkeypatch, capsys):
    put = type(store('here')).put_file

    def failing(self, local, to, **rest):
        raise OSError('the line is cut')

    mirror_of(monkeypatch, failing)
    out = mirror(mirrors.OUT)
    with pytest.raises(UserError, match=r'Everything is in .*; copy it from there\.$'), out.open():
        write(out.path, 'a')
    with pytest.raises(ValueError, match='of the work'), mirror().open():
        write(mirror().path, 'a')
        raise ValueError('of the work')
    assert 'the latest work has not reached memory://bucket/run (the line is cut)' in capsys.readouterr().err
    mirror_of(monkeypatch, put)

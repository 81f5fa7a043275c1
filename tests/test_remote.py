"""Folders in an object store: what is sent and fetched, who may work there, and what a failure leaves."""

import datetime
import json
import pathlib
import shutil

import fsspec
import numpy as np
import pytest
from PIL import Image

import genbench
from genbench import cli, copies, remote
from genbench import lease as leases
from genbench import mirror as mirrors
from genbench.errors import Busy, UserError

MARKER = mirrors.MARKER


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


def mirror(use=mirrors.WORK):
    return mirrors.Mirror('memory://bucket/run', use)


def write(folder, *names, text='x'):
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)


def checkpoint(folder, step):
    write(folder, *(f'checkpoints/{step}/{name}' for name in ('state/a', 'state/b', f'state/{MARKER}', MARKER)))


def names(folder):
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob('*') if path.is_file())


def test_what_one_machine_writes_another_one_finds(store):
    with mirror().open():
        write(mirror().path, 'metrics.jsonl', 'samples/a.png', '.partial', 'checkpoints/3.orbax-checkpoint-tmp/x')
        checkpoint(mirror().path, 2)
        write(mirror().path, 'checkpoints/4/state/a')  # not complete
    store('there')
    with mirror().open():
        assert names(mirror().path) == ['checkpoints/2/' + MARKER, 'checkpoints/2/state/a', 'checkpoints/2/state/b',
                                        f'checkpoints/2/state/{MARKER}', 'metrics.jsonl', 'samples/a.png']  # fmt: skip
        (mirror().path / 'samples' / 'a.png').unlink()
        write(mirror().path, 'metrics.jsonl', text='longer')
    store('here')
    with mirror().open():
        assert not (mirror().path / 'samples' / 'a.png').exists()
        assert (mirror().path / 'metrics.jsonl').read_text() == 'longer'


def test_pages_are_made_without_checkpoints(store):
    with mirror().open():
        write(mirror().path, 'results.jsonl', 'trials/a/results.jsonl', 'trials/a/evaluation/samples/x.npz')
        checkpoint(mirror().path / 'trials' / 'a', 2)
    with mirror(mirrors.LIGHT).open():
        assert names(mirror(mirrors.LIGHT).path) == ['results.jsonl', 'trials/a/results.jsonl']


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


def mirror_of(monkeypatch, put):
    monkeypatch.setattr(type(fsspec.filesystem('memory')), 'put_file', put)


def test_sending_goes_on_while_work_does_and_trouble_is_said_once(store, monkeypatch, capsys):
    memory, put, failed = store('here'), type(store('here')).put_file, []

    def failing(self, local, to, **rest):
        if len(failed) < 3:
            failed.append(to)
            raise OSError('busy')
        put(self, local, to, **rest)

    monkeypatch.setenv('GENBENCH_REMOTE_SECONDS', '0.01')
    mirror_of(monkeypatch, failing)
    with mirror().open():
        write(mirror().path, 'log.txt')
        for _ in range(500):
            if memory.exists('/bucket/run/log.txt'):
                break
            mirrors.time.sleep(0.01)
        assert memory.exists('/bucket/run/log.txt')
    assert capsys.readouterr().err.count('cannot be written now (busy)') == 1


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


def test_what_was_not_sent_is_kept_aside_where_another_machine_went_on(store, capsys):
    with mirror().open():
        write(mirror().path, 'metrics.jsonl', text='1')
    write(mirror().path, 'metrics.jsonl', text='1 2')  # by a process that was killed
    with mirror(mirrors.READ).open():
        pass
    store('there')
    with mirror().open():
        write(mirror().path, 'metrics.jsonl', text='1 2 3')
    here = store('here') and mirror()
    with here.open():
        assert (here.path / 'metrics.jsonl').read_text() == '1 2 3'
    (aside,) = here.base.parent.glob(f'{here.base.name}-unsent-*')
    assert (aside / 'run' / 'metrics.jsonl').read_text() == '1 2' and str(aside) in capsys.readouterr().err


def test_what_was_not_sent_is_sent_by_the_next_command(store):
    with mirror().open():
        write(mirror().path, 'metrics.jsonl', text='1')
    write(mirror().path, 'metrics.jsonl', text='1 2')  # by a process that was killed
    with mirror().open():
        assert (mirror().path / 'metrics.jsonl').read_text() == '1 2'
    assert store('here').cat_file('/bucket/run/metrics.jsonl') == b'1 2'


def test_a_data_set_is_prepared_into_a_store_and_read_from_it_elsewhere(store, tmp_path, capsys):
    for number, name in enumerate(('train/cat', 'train/dog', 'test/dog')):
        path = tmp_path / 'photos' / name / f'{number}.png'
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((8, 8), 40 * number, np.uint8)).save(path)
    words = [f'folder:{tmp_path}/photos', '--data_dir=memory://bucket/data', '--size=8']
    assert cli.main(['data', 'prepare', *words, '--processes=1']) == 0
    store('there')
    assert cli.main(['data', 'show', *words, f'--out={tmp_path}/shown.png']) == 0
    assert 'cat' in capsys.readouterr().out
    assert cli.main(['data', 'show', words[0], '--data_dir=memory://bucket/none', '--size=8']) == 2
    assert 'data prepare' in capsys.readouterr().err


@pytest.mark.parametrize('shared', [True, False])
def test_processes_work_in_one_copy_or_not_at_all(shared, store):
    store('here')
    arguments = {'workdir': 'memory://bucket/run'}
    with remote.staged('train', arguments):
        write(mirror().path, 'config.json')
        token = (mirror().base / mirrors.TOKEN).read_bytes()
        if not shared:
            store('another machine')
        verdicts, own = [], {'workdir': 'memory://bucket/run'}
        joined = remote.staged('train', own, lambda fetch: token, lambda seen: verdicts.append(seen) or seen)
        if shared:
            with joined:
                assert own == arguments and (mirror().path / 'config.json').is_file()
        else:
            with pytest.raises(UserError, match='set GENBENCH_STAGING to a shared folder'), joined:
                pass
        assert verdicts == [shared]
        store('here')


def test_python_works_in_a_mirrored_folder_and_not_at_an_address(store):
    with remote.mirrored('memory://bucket/run') as folder:
        write(folder, 'config.json')
    assert store('here').exists('/bucket/run/config.json')
    with pytest.raises(UserError, match='In Python, use `with genbench.remote.mirrored'):
        genbench.load_run('memory://bucket/run')


@pytest.mark.parametrize('words, message', [
    (['report', 's4://bucket/run'], "genbench cannot reach 's4://bucket/run'"),
    (['init', 'my_family', '--out=memory://bucket/new'], 'cannot use an object store for out'),
    (['status', 'memory://bucket/none'], 'memory://bucket/none cannot be read: nothing has that name'),
    (['report', 'memory://bucket'], 'names a bucket; name a folder in it'),
])  # fmt: skip
def test_an_address_that_is_none_is_one_line(words, message, store, capsys):
    assert cli.main(words) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert message in line


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


def take_over_anew(memory):
    memory.pipe_file('/bucket/run/' + leases.LOCK, json.dumps({'id': str(mirrors.time.time_ns())}).encode())
    return True


def test_pages_take_no_checkpoints_from_readers(store):
    with mirror().open():
        checkpoint(mirror().path, 2)
        write(mirror().path, 'log.txt')
    with mirror(mirrors.READ).open():
        with mirror(mirrors.LIGHT).open():
            pass
        assert (mirror(mirrors.READ).path / 'checkpoints' / '2' / MARKER).is_file()


@pytest.mark.parametrize('verb, name, begun', [
    ('train', 'workdir', False), ('evaluate', 'workdir', True), ('run', 'out', True), ('run', 'out', False),
])  # fmt: skip
def test_a_dry_run_writes_nothing_to_a_store(verb, name, begun, store):
    memory = store('here')
    if begun:
        with mirror().open():
            write(mirror().path, 'config.json')
    before = {path: memory.cat_file(path) for path in memory.store}
    given = {name: 'memory://bucket/run', 'dry_run': True}
    with remote.staged(verb, given):
        assert begun == (pathlib.Path(given[name]) / 'config.json').is_file()
        assert {path: memory.cat_file(path) for path in memory.store} == before
    assert {path: memory.cat_file(path) for path in memory.store} == before


def test_a_dry_evaluation_reads_a_local_copy(store, monkeypatch):
    store('here')
    with mirror().open():
        write(mirror().path, 'config.json')
    seen = []
    monkeypatch.setattr(cli.commands, 'forecast_evaluation', lambda given, *rest: seen.append(given.workdir) or 0)
    monkeypatch.setattr('genbench.training.topologies.asked', lambda *given, **rest: 'a target')
    assert cli.main(['evaluate', 'memory://bucket/run', '--dry-run', '--topology=v5e:2x2']) == 0
    assert seen == [str(mirror(mirrors.READ).path)]


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


def test_files_still_being_written_never_share_a_name(tmp_path):
    assert copies.beside(tmp_path / 'a') != copies.beside(tmp_path / 'a')


@pytest.mark.parametrize('text', ['30s', '0', '-1', 'nan', 'inf'])
def test_a_wrong_interval_is_one_line_where_it_is_used(text, store, monkeypatch):
    monkeypatch.setenv('GENBENCH_REMOTE_SECONDS', text)
    with pytest.raises(UserError, match='GENBENCH_REMOTE_SECONDS is'), mirror().open():
        pass
    with pytest.raises(SystemExit, match='0'):
        cli.main(['--version'])


def test_a_reader_lists_again_when_a_file_goes_before_it_is_fetched(store, monkeypatch):
    memory, get = store('here'), type(store('here')).get_file
    with mirror().open():
        write(mirror().path, 'a', 'b', 'c')

    def going(self, path, local, **rest):
        if path.endswith(('a', 'b')):
            memory.rm_file(path)
        get(self, path, local, **rest)

    monkeypatch.setattr(type(memory), 'get_file', going)
    with mirror(mirrors.READ).open():
        assert names(mirror(mirrors.READ).path) == ['c']

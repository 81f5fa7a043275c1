"""What is sent to an object store and fetched from it, and what a reader takes."""

import pytest
from stores import MARKER, checkpoint, mirror, mirror_of, names, write

from genbench import cli, copies
from genbench import mirror as mirrors
from genbench.errors import UserError


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


def test_pages_take_no_checkpoints_from_readers(store):
    with mirror().open():
        checkpoint(mirror().path, 2)
        write(mirror().path, 'log.txt')
    with mirror(mirrors.READ).open():
        with mirror(mirrors.LIGHT).open():
            pass
        assert (mirror(mirrors.READ).path / 'checkpoints' / '2' / MARKER).is_file()


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


def test_files_still_being_written_never_share_a_name(tmp_path):
    assert copies.beside(tmp_path / 'a') != copies.beside(tmp_path / 'a')


@pytest.mark.parametrize('text', ['30s', '0', '-1', 'nan', 'inf'])
def test_a_wrong_interval_is_one_line_where_it_is_used(text, store, monkeypatch):
    monkeypatch.setenv('GENBENCH_REMOTE_SECONDS', text)
    with pytest.raises(UserError, match='GENBENCH_REMOTE_SECONDS is'), mirror().open():
        pass
    with pytest.raises(SystemExit, match='0'):
        cli.main(['--version'])

"""Commands and Python that are given addresses of an object store."""

import pathlib

import numpy as np
import pytest
from PIL import Image
from stores import mirror, write

import genbench
from genbench import cli, remote
from genbench import mirror as mirrors
from genbench.errors import UserError


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

"""Bad input ends in one line and status 2: no traceback, no hang, nothing written, and no nonsense accepted.

A few hundred cases always run, here and in test_bad_values.py. `GENBENCH_BAD_INPUTS=all` runs every file with every
damage under every command that reads it, which takes a while.
"""

import contextlib
import json
import os
import pathlib
import re
import shutil
import signal
import zlib

import pytest

from genbench import cli
from genbench import config as configs
from genbench.errors import UserError

ALL = os.environ.get('GENBENCH_BAD_INPUTS') == 'all'
SECONDS = 60  # of one case before it counts as hanging; most take milliseconds


NOTES = ('genbench: warning:', 'genbench: ignored the half-written')  # beside the one line of an error


class Hangs(BaseException):
    """Raised in a case that takes too long; nothing may catch it."""


@contextlib.contextmanager
def limited():
    def stop(*_):
        raise Hangs

    before = signal.signal(signal.SIGALRM, stop)
    signal.alarm(SECONDS)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def some(cases, share):
    """All cases, or each with this chance by its own name, so that the choice stays the same."""
    return [case for case in cases if ALL or zlib.crc32(repr(case).encode()) % 1000 < 1000 * share]


def run(capsys, *words):
    """(status, lines on stderr) of a command, which may not raise or hang."""
    capsys.readouterr()
    with limited():
        status = cli.main([str(word) for word in words])
    lines = [line for line in capsys.readouterr().err.splitlines() if not line.startswith(NOTES)]
    assert status in (0, 2), lines
    if status == 2:
        assert len(lines) == 1 and lines[0].startswith('genbench: '), lines
    return status, lines


SCRIPTS = {
    'exit': 'exit()', 'exit-0': 'import sys; sys.exit(0)', 'generator-exit': 'raise GeneratorExit',
    'own': 'class Own(BaseException):\n    pass\nraise Own', 'unprintable': (
        'class Own(Exception):\n    def __str__(self):\n        raise ValueError\nraise Own'),
    'recursion': 'def f():\n    f()\nf()', 'null': 'x = "\\0"\n\0', 'latin': '# \xe9', 'stop': 'raise StopIteration',
}  # fmt: skip
INSIDE = {
    'exit': 'raise SystemExit', 'generator-exit': 'raise GeneratorExit', 'holds-itself': (
        'd = {"family": {"name": "gaussian"}}; d["train"] = d; return d'),
    'list-holds-itself': 'l = []; l.append(l); return {"family": {"name": "gaussian"}, "train": {"extra_decays": l}}',
    'huge': 'return {"family": {"name": "gaussian"}, "optimizer": {"learning_rate": 10**5000}}',
    'huge-int': 'return {"family": {"name": "gaussian"}, "train": {"num_steps": 10**5000}}',
    'nan': 'return {"family": {"name": "gaussian"}, "optimizer": {"learning_rate": float("nan")}}',
    'keys': 'return {1: {2: 3}}', 'none': 'return None', 'object': 'return {"family": object()}',
    'placeholder': ('from ml_collections import config_dict as c; '
                    'return c.ConfigDict({"family": {"name": c.required_placeholder(str)}})'),
}  # fmt: skip


@pytest.mark.parametrize('verb', ['config', 'study'])
@pytest.mark.parametrize('name', [*SCRIPTS, *(f'inside-{name}' for name in INSIDE)])
def test_a_script_that_does_anything_is_one_line(verb, name, tmp_path, capsys):
    function = 'get_config' if verb == 'config' else 'get_study'
    inside = INSIDE.get(name.removeprefix('inside-'))
    text = SCRIPTS.get(name) or f'def {function}():\n    {inside}\n'
    (tmp_path / 'script.py').write_bytes(text.encode('latin-1'))
    words = {
        'config': ('config', 'show', f'--config={tmp_path}/script.py'),
        'study': ('run', f'{tmp_path}/script.py', f'--out={tmp_path}/out'),
    }[verb]
    assert run(capsys, *words)[0] == 2
    assert not (tmp_path / 'out').exists()


LONG = ('x' * 300, 'x/' * 3000, 'a\0b', '\udcff')
WITH_PATHS = [
    ('config', 'show', '--config={}'), ('config', 'diff', '{}', '{}'), ('evaluate', '{}'), ('checkpoint', 'show', '{}'),
    ('sample', '{}', '--out=x.png'), ('status', '{}'), ('report', '{}'), ('results', '{}'), ('run', '{}', '--out=out'),
    ('compare-protocols', '{}:1', '{}:1'), ('data', 'list', '--data_dir={}'), ('train', '--replay=1', '--workdir={}'),
]  # fmt: skip


@pytest.mark.parametrize('words', WITH_PATHS, ids=lambda words: words[0])
def test_a_path_for_which_the_system_has_no_room(words, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for path in LONG:
        assert run(capsys, *(word.replace('{}', path) for word in words))[0] == 2
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize('name', ['a[1]', 'b*', 'c?', 'd\\e'])
def test_a_run_folder_that_would_be_read_as_a_pattern(name, tiny, config_file, tmp_path, capsys):
    words = ('train', f'--config={config_file(tiny("gaussian"))}', f'--workdir={tmp_path / name}')
    assert run(capsys, *words)[0] == 2
    assert not (tmp_path / name).exists()


@pytest.mark.parametrize(
    'address', ['nowhere.invalid:1234', 'host', ':1', 'localhost:', 'localhost:0', 'localhost:99999', 'a b:1', '.:1']
)
def test_a_coordinator_that_cannot_be_reached(address, tiny, config_file, tmp_path, capsys):
    words = ('train', f'--config={config_file(tiny("gaussian"))}', f'--workdir={tmp_path}/run')
    joined = (f'--coordinator={address}', '--num-processes=2', '--process-id=1')
    assert run(capsys, *words, *joined)[0] == 2


def test_a_name_server_that_does_not_answer_is_not_waited_for(monkeypatch):
    import time

    from genbench.training import processes

    monkeypatch.setattr(processes, 'RESOLVE_SECONDS', 0.1)
    monkeypatch.setattr(processes.socket, 'getaddrinfo', lambda *_, **__: time.sleep(30) or [])
    began = time.monotonic()
    with pytest.raises(UserError, match="host 'node1' of --coordinator is not known"):
        processes.check_coordinator('node1:1234')
    assert time.monotonic() - began < 5


# Files.


def deep(brackets):
    return b'[' * brackets + b']' * brackets


CONTENTS = {
    'empty': b'', 'space': b' \n', 'null': b'null\n', 'list': b'[]\n', 'number': b'3\n', 'text': b'"a"\n',
    'true': b'true\n', 'object': b'{}\n', 'lists': b'[[{}], 1]\n', 'deep': deep(100_000), 'less-deep': deep(500),
    'huge': b'9' * 5000, 'nan': b'NaN\n', 'bytes': bytes(range(128, 256)), 'zeros': bytes(64),
    'utf-16': '{"a": 1}'.encode('utf-16'), 'binary': b'\x93NUMPY\x01\x00', 'python': b"{'a': 1}",
}  # fmt: skip
KINDS = ('folder', 'pipe', 'loop', 'dangling', 'gone')
SPOILT = (None, [], {}, 3, -1, 'x', 1e400, float('nan'), 10**400, True, [[None]], {'a': None})
CHANGES = ('truncated', *(f'values-{index}' for index in range(len(SPOILT))), 'no-keys')


def spoil(path, damage):
    """Do this damage to a file; what it held is the start of some."""
    data = path.read_bytes() if path.is_file() else b'{}'
    shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
    if damage in CONTENTS:
        path.write_bytes(CONTENTS[damage])
    elif damage == 'folder':
        path.mkdir()
    elif damage == 'pipe':
        os.mkfifo(path)
    elif damage == 'loop':
        path.symlink_to(path)
    elif damage == 'dangling':
        path.symlink_to(path.with_name('moved away'))
    elif damage == 'truncated':
        path.write_bytes(data[: len(data) // 2])
    elif damage != 'gone':
        path.write_bytes(changed(data, damage))


def changed(data, damage):
    """The objects of a JSON or JSONL file with every value replaced, or without their first keys."""
    try:
        objects = [json.loads(line) for line in data.splitlines()]
    except ValueError:
        try:
            objects = [json.loads(data)]
        except ValueError:
            return data[::-1]
    if damage == 'no-keys':
        return b''.join(json.dumps(dict(list(one.items())[2:])).encode() + b'\n' for one in objects)
    value = SPOILT[int(damage.partition('-')[2])]
    return b''.join(json.dumps(dict.fromkeys(one, value)).encode() + b'\n' for one in objects)


def listing(folder):
    """What lies in a folder: {path: contents or kind}."""
    found = {}
    for path in sorted(folder.rglob('*')):
        regular = path.is_file() and not path.is_symlink()
        found[str(path.relative_to(folder))] = path.read_bytes() if regular else path.lstat().st_mode
    return found


@pytest.fixture(scope='session')
def template(tmp_path_factory, diffusion_run, tiny):
    """A folder with a run that has results, and a study of one trial that is a copy of it; only to be read."""
    folder = tmp_path_factory.mktemp('template')
    copied = pathlib.Path(shutil.copytree(diffusion_run, folder / 'run'))
    words = ['evaluate', str(copied), '--config.evaluation.metrics=fd,exploration',
             '--config.evaluation.features.name=pixels', '--config.evaluation.num_samples=8',
             '--grid=steps=2']  # fmt: skip
    assert cli.main(words) == 0
    shutil.rmtree(copied / 'evaluation')
    (folder / 'config.py').write_text(f'def get_config():\n    return {configs.plain(tiny("diffusion"))!r}\n')
    (folder / 'study.py').write_text(
        'from genbench.studies.study import Study, Trial\n\n\ndef get_study():\n'
        f"    return Study('t', 'c', (Trial('a', {str(folder / 'config.py')!r}),))\n"
    )
    trial = folder / 'study' / 'trials' / 'a'
    shutil.copytree(copied, trial)
    shutil.copy(copied / 'results.jsonl', folder / 'study' / 'results.jsonl')
    (trial / 'status.json').write_text(json.dumps({'state': 'done', 'step': 4, 'num_steps': 4, 'reason': ''}))
    ids = {'trial_id': 'x', 'training': 'y', 'evaluation': 'z', 'code': 'w', 'grid': ['steps=2']}
    (trial / 'trial.json').write_text(json.dumps(ids))
    (folder / 'study' / 'real.jsonl').write_text('')
    (folder / 'study' / 'budget.json').write_text(json.dumps({'k': {'values': {}, 'matched': {'steps': 4}}}))
    about = {'title': 't', 'claim': 'c', 'study': 'study.py', 'trials': ['a'], 'variants': {'a': 'a'}, 'baseline': '',
             'figures': [], 'budget': None, 'matched': {}, 'command': '', 'commit': ''}  # fmt: skip
    (folder / 'study' / 'study.json').write_text(json.dumps(about))
    return folder


TRAIN = ('train', '--config={}/config.py', '--workdir={}/run')
EVALUATE = ('evaluate', '{}/run', '--config.evaluation.metrics=speed')
OPEN = ('evaluate', '{}/run', '--grid=nothing=1')  # reads the run, and then stops at its words
DIFF, SHOW = ('config', 'diff', '{}/run', '{}/run'), ('checkpoint', 'show', '{}/run')
ROWS, RESULTS = ('compare-protocols', '{}/run:1', '{}/run:1'), ('results', '{}/run')
STATUS, REPORT = ('status', '{}/study'), ('report', '{}/study')
STUDY, AGAIN = ('results', '{}/study'), ('run', '{}/study.py', '--out={}/study', '--only=x')
OF_RUN = {
    'config.json': (DIFF, OPEN, TRAIN, EVALUATE, RESULTS), 'manifest.json': (OPEN, SHOW, TRAIN),
    'summary.json': (TRAIN,), 'metrics.jsonl': (EVALUATE,), 'results.jsonl': (ROWS, RESULTS, EVALUATE),
    'starts.jsonl': (TRAIN,), 'nonfinite.json': (TRAIN,), 'trackers.json': (TRAIN,), '.lock': (TRAIN,),
    'checkpoints': (OPEN, SHOW, EVALUATE), 'samples': (TRAIN, OPEN), 'exploration': (OPEN,),
    'checkpoints/4': (SHOW, EVALUATE),
}  # fmt: skip
OF_STUDY = {
    'study.json': (STATUS, REPORT, STUDY, AGAIN), 'results.jsonl': (REPORT, STUDY), 'budget.json': (AGAIN,),
    'real.jsonl': (AGAIN,), 'trials': (STATUS, REPORT), 'index.html': (REPORT,),
    'trials/a/status.json': (STATUS, REPORT, AGAIN), 'trials/a/trial.json': (REPORT, AGAIN),
    'trials/a/config.json': (REPORT, AGAIN, STUDY), 'trials/a/manifest.json': (REPORT, AGAIN),
    'trials/a/summary.json': (REPORT,), 'trials/a/metrics.jsonl': (REPORT, STATUS), 'trials/a/log.txt': (AGAIN,),
    'trials/a/exploration/exploration.json': (REPORT,),
}  # fmt: skip
DAMAGES = (*CONTENTS, *KINDS, *CHANGES)
FILES = [(f'{place}/{name}', damage, words) for place, files in (('run', OF_RUN), ('study', OF_STUDY))
         for name, readers in files.items() for words in readers for damage in DAMAGES]  # fmt: skip
SLOW = (SHOW, EVALUATE)  # they restore and compile
# Readers that need the file: nothing but its own contents will do.
NEEDED = {('run/config.json', DIFF), ('run/manifest.json', OPEN), ('study/study.json', STATUS)}


def check_file(template, tmp_path, capsys, name, damage, words):
    folder = tmp_path / 'case'
    shutil.copytree(template, folder, symlinks=True)
    spoil(folder / name, damage)
    before = listing(folder)
    status, lines = run(capsys, *(word.replace('{}', str(folder)) for word in words))
    assert not any(word in line for line in lines for word in ('Error:', 'NoneType', 'Errno')), lines
    assert not any(re.match(r'genbench: \d+ ', line) for line in lines), lines  # a descriptor in the place of a name
    if (name, words) in NEEDED and damage != 'no-keys':  # which leaves those that are needed
        assert status == 2
    if status == 2:
        after = listing(folder)
        assert {path: after.get(path) for path in before} == before, 'something was lost'
        assert after.keys() - before.keys() <= {'run/.lock'}, 'something was written'


@pytest.mark.parametrize(
    'case',
    some([case for case in FILES if case[2] not in SLOW], 0.12)
    + some([case for case in FILES if case[2] in SLOW], 0.01),
    ids=lambda case: f'{case[0]}-{case[1]}-{case[2][0]}',
)
def test_a_file_that_is_not_what_it_should_be(case, template, tmp_path, capsys):
    check_file(template, tmp_path, capsys, *case)


INSIDE_CHECKPOINT = ('_CHECKPOINT_METADATA', 'commit_success.txt', 'state', 'state/_METADATA', 'state/manifest.ocdbt',
                     'state/ocdbt.process_0', 'state/d', 'state/commit_success.txt')  # fmt: skip
ORBAX = [(f'run/checkpoints/{step}/{name}', damage, words) for step in (2, 4) for name in INSIDE_CHECKPOINT
         for damage in DAMAGES for words in (SHOW, EVALUATE)]  # fmt: skip


@pytest.mark.parametrize('case', some(ORBAX, 0.005), ids=lambda case: f'{case[0]}-{case[1]}-{case[2][0]}')
def test_a_checkpoint_that_is_damaged(case, template, tmp_path, capsys):
    check_file(template, tmp_path, capsys, *case)

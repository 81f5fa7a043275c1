"""Runs in buckets of servers on this machine: trained, killed, resumed elsewhere, evaluated and shown."""

import contextlib
import json
import socket
import subprocess
import sys
from http import HTTPStatus

import fsspec
import pytest

from genbench import cli
from genbench import lease as leases
from genbench import mirror as mirrors
from genbench.errors import Busy

CHANGES = ['--config.train.num_steps=6', '--config.checkpoint.every=2', '--config.train.batch_size=32',
           '--config.train.log_every=1', '--config.evaluation.num_samples=20', '--config.evaluation.metrics=fd,speed',
           '--config.evaluation.features.name=pixels', '--config.evaluation.sets=1']  # fmt: skip


def training(workdir):
    return ['train', '--config=digits/gaussian', f'--workdir={workdir}', *CHANGES]


KILLED = """
import os, sys
import fsspec
from genbench import cli, mirror as mirrors
from genbench.training.loop import Training
save = Training._save
def save_and_die(self, step, state, log):
    save(self, step, state, log)
    if step == 4:
        self.checkpoints.wait()
        while not open_store().exists('bucket/runs/x/checkpoints/4/commit_success.txt'):
            mirrors.time.sleep(0.05)
        os._exit(9)
def open_store():
    scheme = sys.argv[3].partition('=')[2].partition(':')[0]
    return fsspec.filesystem(scheme, skip_instance_cache=True, use_listings_cache=False)
Training._save = save_and_die
sys.exit(cli.main(sys.argv[1:]))
"""


def needed(*packages):
    for package in packages:
        pytest.importorskip(package, reason=f"{package} is not installed: pip install 'genbench[test-remote]'")


@contextlib.contextmanager
def s3(monkeypatch):
    """A server of Amazon's protocol on this machine, with one bucket."""
    needed('s3fs', 'moto', 'flask_cors')
    from moto.server import ThreadedMotoServer

    running = ThreadedMotoServer(ip_address='127.0.0.1', port=0, verbose=False)
    running.start()
    _, port = running.get_host_and_port()
    for name, value in {
        'AWS_ENDPOINT_URL': f'http://127.0.0.1:{port}', 'AWS_ACCESS_KEY_ID': 'key', 'AWS_SECRET_ACCESS_KEY': 'secret',
        'AWS_DEFAULT_REGION': 'us-east-1', 'AWS_EC2_METADATA_DISABLED': 'true',
    }.items():  # fmt: skip
        monkeypatch.setenv(name, value)
    import s3fs

    s3fs.S3FileSystem.clear_instance_cache()
    s3fs.S3FileSystem().makedirs('bucket', exist_ok=True)  # moto keeps what another server of this process held
    yield
    running.stop()
    s3fs.S3FileSystem.clear_instance_cache()


@contextlib.contextmanager
def gs(monkeypatch):
    """A server of Google's protocol on this machine, with one bucket."""
    needed('gcsfs', 'gcp_storage_emulator')
    from gcp_storage_emulator.exceptions import NotFound
    from gcp_storage_emulator.handlers import objects
    from gcp_storage_emulator.server import create_server

    upload = objects._multipart_upload

    def conditional(request, response, storage):  # this server ignores the condition that locks need
        with contextlib.suppress(NotFound):
            if request.query.get('ifGenerationMatch') == ['0']:
                storage.get_file_obj(request.params['bucket_name'], request.data['meta']['name'])
                response.status = HTTPStatus.PRECONDITION_FAILED
                return
        upload(request, response, storage)

    monkeypatch.setattr(objects, '_multipart_upload', conditional)
    with socket.socket() as free:
        free.bind(('127.0.0.1', 0))
        port = free.getsockname()[1]
    running = create_server('127.0.0.1', port, in_memory=True, default_bucket='bucket')
    running.start()
    monkeypatch.setenv('STORAGE_EMULATOR_HOST', f'http://127.0.0.1:{port}')
    monkeypatch.setenv('GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT', 'false')  # it would ask Google what kind of bucket this is
    import gcsfs

    gcsfs.GCSFileSystem.clear_instance_cache()
    yield
    running.stop()
    gcsfs.GCSFileSystem.clear_instance_cache()


@pytest.fixture
def server(request, monkeypatch, tmp_path):
    """(address of a bucket, function): an object store on this machine; `function(name)` is to be on another machine
    and returns the store.
    """
    scheme = request.param

    def move(machine):
        monkeypatch.setenv('GENBENCH_STAGING', str(tmp_path / machine))
        return fsspec.filesystem(scheme, skip_instance_cache=True, use_listings_cache=False)

    monkeypatch.setenv('GENBENCH_REMOTE_SECONDS', '0.2')
    monkeypatch.setenv('GENBENCH_STAGING', str(tmp_path / 'here'))
    with {'s3': s3, 'gs': gs}[scheme](monkeypatch):
        yield f'{scheme}://bucket', move


@pytest.mark.slow
@pytest.mark.parametrize('server', ['s3', 'gs'], indirect=True)
def test_a_run_in_a_bucket_is_killed_goes_on_elsewhere_and_is_evaluated_and_shown(server, tmp_path, capsys):
    bucket, move = server
    words = training(f'{bucket}/runs/x')
    assert cli.main(training(tmp_path / 'whole')) == 0
    killed = subprocess.run([sys.executable, '-c', KILLED, *words], capture_output=True, text=True)
    assert killed.returncode == 9, killed.stderr
    store = move('there')
    assert store.exists('bucket/runs/x/checkpoints/4/commit_success.txt')
    assert not store.exists('bucket/runs/x/summary.json')

    assert cli.main(words) == 0
    assert f'{bucket}/runs/x: 6 steps' in capsys.readouterr().out
    ended = json.loads(store.cat_file('bucket/runs/x/summary.json'))
    assert ended['state_sha256'] == json.loads((tmp_path / 'whole' / 'summary.json').read_text())['state_sha256']
    starts = [json.loads(line) for line in store.cat_file('bucket/runs/x/starts.jsonl').splitlines()]
    assert [row['step'] for row in starts] == [0, 4]

    move('elsewhere')
    assert cli.main(['evaluate', f'{bucket}/runs/x']) == 0
    assert cli.main(['sample', f'{bucket}/runs/x', '--count=4', f'--out={bucket}/pictures/x.png']) == 0
    for flags, page in ([], f'{bucket}/runs/x/report.html'), ([f'--out={bucket}/x.html'], f'{bucket}/x.html'):
        assert cli.main(['report', f'{bucket}/runs/x', *flags]) == 0
        assert capsys.readouterr().out.splitlines()[-1] == page
        assert b'gaussian' in store.cat_file(page)
    rows = [json.loads(line) for line in store.cat_file('bucket/runs/x/results.jsonl').splitlines()]
    assert {'fd', 'sampling_images_per_second'} <= {row['metric'] for row in rows}
    assert store.cat_file('bucket/pictures/x.png')[:4] == b'\x89PNG'
    assert not store.exists('bucket/runs/x/' + leases.LOCK)


@pytest.mark.parametrize('server', ['gs'], indirect=True)
def test_only_one_command_works_in_a_folder_of_googles_store(server, monkeypatch, capsys):
    bucket, move = server
    monkeypatch.setattr(leases, 'SETTLE', 0.0)
    with mirrors.Mirror(f'{bucket}/runs/x', mirrors.WORK).open():
        move('there')
        with pytest.raises(Busy, match='is in use by process'), mirrors.Mirror(f'{bucket}/runs/x', mirrors.WORK).open():
            pass
    assert cli.main(training('gs://none/runs/x')) == 2
    assert 'gs://none/runs/x cannot be reached: there is no such bucket' in capsys.readouterr().err


@pytest.mark.parametrize('server', ['s3'], indirect=True)
def test_no_bucket_and_no_credentials_are_one_line(server, monkeypatch, capsys, tmp_path):
    import s3fs

    assert cli.main(training('s3://none/runs/x')) == 2
    assert 's3://none/runs/x cannot be reached: there is no such bucket' in capsys.readouterr().err
    for name in ('AWS_ACCESS_KEY_ID', 'AWS_SECRET_ACCESS_KEY'):
        monkeypatch.delenv(name)
    monkeypatch.setenv('HOME', str(tmp_path))
    s3fs.S3FileSystem.clear_instance_cache()
    assert cli.main(training('s3://bucket/runs/x')) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert 's3://bucket/runs/x cannot be reached: there are no credentials; set AWS_ACCESS_KEY_ID' in line

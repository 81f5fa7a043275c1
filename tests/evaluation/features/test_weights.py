"""Files of weights: the right one, whole, from the cache, a path or an address; or one sentence that helps."""

import functools
import hashlib
import http.server
import os
import threading

import ml_dtypes
import numpy as np
import pytest

from genbench.errors import UserError
from genbench.evaluation.features import weights
from genbench.evaluation.features.weights import Published

CONTENT = np.random.Generator(np.random.Philox(5)).bytes(3 * 2**20 + 17)
SHA256 = hashlib.sha256(CONTENT).hexdigest()
OFFLINE = 'http://127.0.0.1:9/network.pth'  # the port "discard", where nobody listens


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path / 'cache'))
    return tmp_path / 'cache' / 'genbench' / 'weights'


@pytest.fixture
def address(tmp_path):
    """Serves network.pth, and counts how often it is asked for it."""
    (tmp_path / 'served').mkdir()
    (tmp_path / 'served' / 'network.pth').write_bytes(CONTENT)
    asked = []

    class Handler(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *words):
            asked.append(words)

    handler = functools.partial(Handler, directory=str(tmp_path / 'served'))
    with http.server.ThreadingHTTPServer(('127.0.0.1', 0), handler) as server:
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        yield f'http://127.0.0.1:{server.server_port}/network.pth', asked
        server.shutdown()


def test_published_weights_are_fetched_once(address, cache):
    published = Published('a network', address[0], SHA256)
    first, second = (weights.find(published, quiet=True) for _ in range(2))
    assert first == second == weights.Weights(cache / 'network.pth', SHA256, True)
    assert [file.name for file in cache.iterdir()] == ['network.pth']
    assert (cache / 'network.pth').read_bytes() == CONTENT
    assert len(address[1]) == 1


def test_progress_is_said_and_can_be_silent(address, capsys):
    weights.fetch(Published('a network', address[0], SHA256))
    assert 'fetch network.pth: MiB' in capsys.readouterr().err
    weights.fetch(Published('a network', address[0], SHA256), quiet=True)
    assert capsys.readouterr().err == ''


def test_an_address_that_gives_something_else_leaves_nothing(address, cache):
    with pytest.raises(
        UserError, match=f'gave a file with the sha256 {SHA256}, not 0000.*put it at {cache}/network.pth'
    ):
        weights.find(Published('a network', address[0], '0' * 64), quiet=True)
    assert list(cache.iterdir()) == []


@pytest.mark.parametrize('address', [OFFLINE, 'http://no-such-host.invalid/network.pth'])
def test_offline_the_sentence_says_address_hash_and_place(cache, address):
    with pytest.raises(UserError) as raised:
        weights.find(Published('a network', address, SHA256), quiet=True)
    (line,) = str(raised.value).splitlines()
    assert line.startswith('a network cannot be fetched (')
    for part in (address, SHA256, str(cache / 'network.pth'), 'evaluation.features.weights'):
        assert part in line
    assert list(cache.iterdir()) == []


def test_a_file_put_into_the_cache_by_hand_is_used(cache):
    cache.mkdir(parents=True)
    (cache / 'network.pth').write_bytes(CONTENT)
    assert weights.find(Published('a network', OFFLINE, SHA256)).published


def test_a_damaged_file_in_the_cache_is_said(cache):
    cache.mkdir(parents=True)
    (cache / 'network.pth').write_bytes(CONTENT[:-1])
    with pytest.raises(UserError, match=rf'network.pth has the sha256 \w+, but a network has {SHA256}. Delete it'):
        weights.find(Published('a network', OFFLINE, SHA256))


def test_a_users_file_needs_its_hash_said_unless_it_is_the_published_one(tmp_path):
    mine, other = tmp_path / 'mine.pth', tmp_path / 'other.pth'
    mine.write_bytes(CONTENT)
    other.write_bytes(b'other')
    digest, published = hashlib.sha256(b'other').hexdigest(), Published('a network', OFFLINE, SHA256)
    assert weights.find(published, str(mine)).published
    assert weights.find(published, str(other), digest) == weights.Weights(other, digest, False)
    with pytest.raises(UserError, match=f'but a network has {SHA256}.*weights_sha256 or --weights-sha256 to {digest}'):
        weights.find(published, str(other))
    with pytest.raises(UserError, match=f'has the sha256 {digest}, but evaluation.*has {"1" * 64}'):
        weights.find(published, str(other), '1' * 64)
    with pytest.raises(UserError, match='gone.pth .*features.weights or --weights. cannot be read: No such file'):
        weights.find(published, str(tmp_path / 'gone.pth'))
    with pytest.raises(UserError, match='also give the file with evaluation.features.weights or --weights'):
        weights.find(published, '', digest)


def test_safetensors_are_read(tmp_path):
    """A file written by the format's description: length, header, values."""
    values = np.array([1.5, -2.0, 3.0], ml_dtypes.bfloat16)
    header = b'{"__metadata__":{"a":"b"},"x":{"dtype":"F32","shape":[2,1],"data_offsets":[6,14]},'
    header += b'"y":{"dtype":"BF16","shape":[3],"data_offsets":[0,6]},'
    header += b'"n":{"dtype":"I64","shape":[],"data_offsets":[14,22]}}  '
    path = tmp_path / 'a.safetensors'
    tail = np.array([0.25, 7.0], '<f4').tobytes() + np.array(-1, '<i8').tobytes()
    path.write_bytes(len(header).to_bytes(8, 'little') + header + values.tobytes() + tail)
    found = weights.read_safetensors(path)
    np.testing.assert_array_equal(found['x'], np.array([[0.25], [7.0]], np.float32))
    np.testing.assert_array_equal(found['y'], values)
    assert (found['n'].shape, int(found['n'])) == ((), -1)


@pytest.mark.parametrize('share', [0, 0.02, 0.5, 0.99])
def test_half_a_safetensors_file_is_one_sentence(tmp_path, safetensors, share):
    path = tmp_path / 'a.safetensors'
    safetensors(path, {'x': np.ones((5, 5), np.float32), 'y': np.ones(3, np.float32)})
    whole = path.read_bytes()
    path.write_bytes(whole[: int(len(whole) * share)])
    with pytest.raises(UserError, match='a.safetensors is not a safetensors file, or is damaged'):
        weights.read_safetensors(path)


@pytest.mark.parametrize(
    ('change', 'words'),
    [
        ({'layer.bias': None}, 'a.safetensors has no tensor layer.bias'),
        ({'layer.weight': np.zeros((2, 4))}, r'has the shape \(2, 4\), but this network needs \(4, 2\)'),
        ({'head.weight': np.zeros(3)}, 'a.safetensors has head.weight, which this network does not have'),
    ],
)
def test_tensors_of_another_network_are_one_sentence(tmp_path, safetensors, change, words):
    tensors = {'layer.weight': np.ones((4, 2)), 'layer.bias': np.ones(4), 'layer.count': np.ones(())}
    path, shapes = tmp_path / 'a.safetensors', {'layer.weight': (4, 2), 'layer.bias': (4,)}
    as_float = {name: value.astype(np.float32) for name, value in tensors.items()}
    file = weights.Weights(path, safetensors(path, as_float), False)
    assert weights.checked(file, shapes, unused=('count',)).keys() == shapes.keys()
    changed = {name: np.float32(value) for name, value in {**tensors, **change}.items() if value is not None}
    safetensors(path, changed)
    with pytest.raises(UserError, match=words):
        weights.checked(file, shapes, unused=('count',))


def test_a_key_names_a_part_of_a_file(tmp_path):
    file = tmp_path / 'a.pth'
    file.write_bytes(CONTENT)
    published = Published('a network', OFFLINE, SHA256)
    found = weights.find(published, f'{file}::model::ema', SHA256)
    assert (found.path, found.key, found.published) == (file, ('model', 'ema'), False)
    assert found.identity == f'{SHA256}::model::ema' and weights.find(published, str(file)).identity == SHA256
    named = tmp_path / 'b::c.pth'
    named.write_bytes(CONTENT)
    assert (weights.find(published, str(named)).path, weights.find(published, str(named)).key) == (named, ())
    with pytest.raises(UserError, match='is a safetensors file, which has no ::ema'):
        weights.Weights(tmp_path / 'a.safetensors', SHA256, False, ('ema',)).tensors()


@pytest.mark.parametrize('make', [lambda path: path.mkdir(), os.mkfifo, lambda path: path.symlink_to('/dev/zero')])
def test_weights_are_a_file(tmp_path, make):
    make(tmp_path / 'a.pth')
    with pytest.raises(UserError, match='a.pth .* are not a file'):
        weights.find(Published('a network', OFFLINE, SHA256), str(tmp_path / 'a.pth'))


def test_a_loop_of_links_is_one_sentence(tmp_path):
    (tmp_path / 'a.pth').symlink_to('a.pth')
    with pytest.raises(UserError, match='a.pth .* cannot be read'):
        weights.find(Published('a network', OFFLINE, SHA256), str(tmp_path / 'a.pth'))


@pytest.mark.parametrize(
    'header',
    [
        b'{"x":{"dtype":"F32","shape":[-1],"data_offsets":[0,8]}}',
        b'{"x":{"dtype":"F32","shape":[2],"data_offsets":[-8,0]}}',
        b'{"x":{"dtype":"F32","shape":[1],"data_offsets":[0,8]}}',
        b'{"x":{"dtype":"F32","shape":[2],"data_offsets":[4,12]}}',
        b'{"x":{"dtype":"F32","shape":[99999999999,99999999999],"data_offsets":[0,39999999999200000000004]}}',
        b'{"x":{"dtype":"F99","shape":[2],"data_offsets":[0,8]}}',
        b'{"x":{"dtype":"F32","shape":2,"data_offsets":[0,8]}}',
        b'{"x":null}',
        b'{"x":' + b'[' * 100_000,
        b'[]',
        b'null',
    ],
)
def test_a_header_that_cannot_be_is_one_sentence(tmp_path, header):
    path = tmp_path / 'a.safetensors'
    path.write_bytes(len(header).to_bytes(8, 'little') + header + bytes(8))
    with pytest.raises(UserError, match='a.safetensors is not a safetensors file, or is damaged') as raised:
        weights.read_safetensors(path)
    assert len(str(raised.value).splitlines()) == 1

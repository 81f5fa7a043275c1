"""Files of torch without torch: both layouts, views and types; and nothing in them is run."""

import io
import os
import pathlib
import pickle
import re
import struct
import time
import tracemalloc
import zipfile

import ml_dtypes
import numpy as np
import pytest

from genbench.errors import UserError
from genbench.networks import torch_file, weights

HERE = pathlib.Path(__file__).parent
SHARED = np.arange(24, dtype=np.float32)
WANTED = {  # what `tensors` of record_inception.py makes
    'transposed': SHARED[:6].reshape(2, 3).T,
    'tail': SHARED[20:],
    'columns': SHARED.reshape(4, 6)[:, 1::2],
    'parameter': np.array([0.5, -2.0], np.float32),
    'count': np.array(7),
    'double': np.array([1 / 3]),
    'half': np.array([0.1, 65504.0], np.float16),
    'brain': np.array([0.1, 3e38], ml_dtypes.bfloat16),
    'bytes': np.array([[0, 255]], np.uint8),
    'true': np.array([True, False]),
    'short': np.array([-3], np.int16),
    'empty': np.zeros((0, 3), np.float32),
}


@pytest.mark.parametrize('layout', ['zip', 'stream'])
def test_what_torch_wrote_is_read(layout):
    found = torch_file.read(HERE / f'tensors_{layout}.pth')
    assert list(found) == list(WANTED)
    for name, value in WANTED.items():
        assert found[name].dtype == value.dtype, name
        np.testing.assert_array_equal(found[name], value)


class Call:
    """Pickles as a call of a function."""

    def __init__(self, function, *arguments):
        self.function, self.arguments = function, arguments

    def __reduce__(self):
        return self.function, self.arguments


class Global:
    """Stands for a name of a module in `write`."""

    def __init__(self, module, name):
        self.module, self.name = module, name


class Pickler(pickle._Pickler):
    """Writes `Global`s as the names they stand for, and tuples that begin with 'storage' as torch's storages."""

    def persistent_id(self, value):
        return value if isinstance(value, tuple) and value[:1] == ('storage',) else None

    def save_name(self, value):
        self.write(b'c' + f'{value.module}\n{value.name}\n'.encode())

    dispatch = {**pickle._Pickler.dispatch, Global: save_name}


class Tensor:
    """Pickles as torch's tensors do: a view of a storage of `values` float32 numbers."""

    def __init__(self, values, offset, shape, stride):
        self.parts = (
            ('storage', Global('torch', 'FloatStorage'), '0', 'cpu', values),
            offset,
            shape,
            stride,
            False,
            {},
        )


def save_tensor(pickler, value):
    pickler.save(Global('torch._utils', '_rebuild_tensor_v2'))
    pickler.save(value.parts)
    pickler.write(pickle.REDUCE)


Pickler.dispatch[Tensor] = save_tensor


def write(path, layout, value, data=b'', packed=zipfile.ZIP_STORED):
    """A file of either layout that holds `value`, or is described by bytes of pickle, and storage 0 with `data`."""
    if not isinstance(value, bytes):
        with io.BytesIO() as written:
            Pickler(written, 2).dump(value)
            value = written.getvalue()
    with path.open('wb') as file:
        if layout == 'zip':
            with zipfile.ZipFile(file, 'w', packed) as archive:
                archive.writestr('archive/data.pkl', value)
                archive.writestr('archive/data/0', data)
            return path
        for part in (torch_file.MAGIC, torch_file.PROTOCOL, {'little_endian': True}):
            pickle.dump(part, file, 2)
        file.write(value)
        pickle.dump(['0'], file, 2)
        file.write((len(data) // 4).to_bytes(8, 'little') + data)
    return path


@pytest.mark.parametrize('layout', ['zip', 'stream'])
def test_a_file_written_by_hand_is_read(tmp_path, layout):
    path = write(tmp_path / 'a.pth', layout, {'x': Tensor(6, 1, (2, 2), (3, 1))}, SHARED[:6].tobytes())
    np.testing.assert_array_equal(torch_file.read(path)['x'], [[1, 2], [4, 5]])


@pytest.mark.parametrize('layout', ['zip', 'stream'])
@pytest.mark.parametrize(
    ('function', 'name'),
    [(os.system, f'{os.name}.system'), (eval, r'(builtins|__builtin__)\.eval'), (getattr, r'\w+\.getattr')],
)
def test_nothing_that_is_pickled_is_run(tmp_path, layout, function, name):
    ran = tmp_path / 'ran'
    command = f'touch {ran}' if function is os.system else f'__import__("pathlib").Path({str(ran)!r}).touch()'
    path = write(tmp_path / 'bad.pth', layout, {'weight': Call(function, command)})
    with pytest.raises(UserError, match=rf'{re.escape(str(path))} needs {name}, which is not a tensor'):
        torch_file.read(path)
    assert not ran.exists()


@pytest.mark.parametrize('layout', ['zip', 'stream'])
@pytest.mark.parametrize(
    'value',
    [
        {'x': Tensor(6, 0, (7,), (1,))},
        {'x': Tensor(6, 5, (2,), (1,))},
        {'x': Tensor(6, 0, (2, 2), (5, 1))},
        {'x': Tensor(6, -1, (2,), (1,))},
        {'x': Tensor(6, 3, (2,), (-1,))},
        {'x': Tensor(6, 0, (10**12,), (0,))},
        {'x': Tensor(6, 0, (2, 2), (1,))},
        {'x': Tensor(7, 0, (2,), (1,))},
        {'x': 3.5},
        [Tensor(6, 0, (6,), (1,))],
    ],
    ids=['long', 'late', 'wide', 'before', 'back', 'repeated', 'ragged', 'size', 'number', 'list'],
)
def test_what_is_no_tensor_inside_its_storage_is_refused(tmp_path, layout, value):
    path = write(tmp_path / 'bad.pth', layout, value, SHARED[:6].tobytes())
    with pytest.raises(UserError, match='is not a torch file of tensors, or is damaged'):
        torch_file.read(path)


@pytest.mark.parametrize('layout', ['zip', 'stream'])
@pytest.mark.parametrize('share', [0, 0.01, 0.5, 0.97])
def test_half_a_file_is_one_sentence(tmp_path, layout, share):
    whole = (HERE / f'tensors_{layout}.pth').read_bytes()
    path = tmp_path / 'half.pth'
    path.write_bytes(whole[: int(len(whole) * share)])
    with pytest.raises(UserError, match='damaged') as raised:
        torch_file.read(path)
    assert len(str(raised.value).splitlines()) == 1


def test_a_file_that_is_not_there_is_said(tmp_path):
    with pytest.raises(UserError, match='gone.pth cannot be read: No such file'):
        torch_file.read(tmp_path / 'gone.pth')


NESTED = {
    'epoch': 90, 'best_prec1': 93.6, 'args': Call(getattr, 'lr', 'x'), 'optimizer': {0: Call(set, [1])},
    'state_dict': {'w': Tensor(6, 0, (2, 3), (3, 1))}, 'more': {'ema': {'w': Tensor(6, 2, (2,), (1,))}},
}  # fmt: skip


@pytest.mark.parametrize('layout', ['zip', 'stream'])
def test_a_state_dict_beside_other_values_is_read_by_its_key(tmp_path, layout):
    path = write(tmp_path / 'a.pth', layout, NESTED, SHARED[:6].tobytes())
    np.testing.assert_array_equal(torch_file.read(path, ('state_dict',))['w'], [[0, 1, 2], [3, 4, 5]])
    np.testing.assert_array_equal(torch_file.read(path, ('more', 'ema'))['w'], [2, 3])


@pytest.mark.parametrize(
    ('key', 'words'),
    [
        ((), 'a.pth has several dictionaries of tensors; choose one, for example FILE::state_dict'),
        (('more',), 'for example FILE::more::ema'),
        (('model',), 'has nothing under model; it has: epoch, best_prec1, args, optimizer, state_dict'),
        (('state_dict', 'w'), 'it is a Tensor, neither a tensor nor'),
        (('epoch', 'w'), 'has nothing under epoch::w; it has: int'),
        (('optimizer',), 'needs builtins.set, which is not a tensor'),
    ],
)
def test_a_key_that_is_missing_or_wrong_is_answered_with_those_that_are_there(tmp_path, key, words):
    path = write(tmp_path / 'a.pth', 'zip', NESTED, SHARED[:6].tobytes())
    with pytest.raises(UserError, match=words.replace('builtins', '(builtins|__builtin__)')):
        torch_file.read(path, key)


@pytest.mark.parametrize('layout', ['zip', 'stream'])
def test_a_storage_is_read_once_whatever_looks_at_it(tmp_path, layout, monkeypatch):
    values = {str(i): Tensor(1000, i, (2, 3), (3, 1)) for i in range(472)}
    path, made = write(tmp_path / 'a.pth', layout, values, bytes(4000)), []
    monkeypatch.setattr(torch_file.np, 'frombuffer', lambda *words: made.append(1) or np.ndarray(1000, np.float32))
    found = torch_file.read(path)
    assert (len(found), len(made)) == (472, 1)
    assert np.shares_memory(found['0'], found['1'])


def dictionary(key):
    return b'\x80\x02}' + key + b'K\x00s.'


HOSTILE = {
    'a memo of a thousand million places': b'\x80\x02}r' + struct.pack('<I', 2**30) + b'.',
    'a text longer than the file': dictionary(b'X' + struct.pack('<I', 2**32 - 2) + b'abc'),
    'bytes longer than the file': dictionary(b'\x8e' + struct.pack('<Q', 2**40) + b'abc'),
    'a frame longer than the file': b'\x80\x04\x95' + struct.pack('<Q', 2**40) + b'N.',
    'a number with as many digits': dictionary(b'\x8b' + struct.pack('<i', 2**31 - 1) + b'\x01'),
    'tuples of tuples as a key': dictionary(b')' + b'2\x86' * 64),
    'tuples in tuples as a key': dictionary(b')' + b'\x85' * 50_000),
    'lists in lists': b'\x80\x02' + b']' * 20_000 + b'a' * 19_999 + b'.',
    'a list in itself': b'\x80\x02](q\x00h\x00e.',
    'a value from an empty stack': b'\x80\x020.',
    'a mark that was never set': b'\x80\x02u.',
    'no end': b'\x80\x02}',
    'a call of nothing': b'\x80\x02N)R.',
    'a list as a dictionary': b'\x80\x02ccollections\nOrderedDict\nK\x01\x85R.',
    'a tensor of nothing': dictionary(b'ctorch._utils\n_rebuild_tensor_v2\n)R'),
    'a storage that is a number': dictionary(b'K\x07Q'),
}


@pytest.mark.parametrize('layout', ['zip', 'stream'])
@pytest.mark.parametrize('name', HOSTILE)
def test_a_small_file_costs_little_and_is_one_sentence(tmp_path, layout, name):
    path = write(tmp_path / 'bad.pth', layout, HOSTILE[name])
    refused(lambda: torch_file.read(path), most=2**26)


def refused(read, words=None, most=2**23):
    """That this is refused in one line, at once, and with few bytes of memory."""
    began = time.process_time()
    tracemalloc.start()
    try:
        with pytest.raises(UserError, match=words) as raised:
            read()
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert len(str(raised.value).splitlines()) == 1 and len(str(raised.value)) < 1000
    assert peak < most
    assert time.process_time() - began < 10


PACKED = 2**24  # numbers: 64 MiB that pack into 64 KiB


@pytest.mark.parametrize(
    'value',
    [
        {'x': Tensor(PACKED, 0, (2,), (1,)), 'y': Tensor(PACKED, 2, (2,), (1,))},
        {'x': Tensor(PACKED, PACKED - 1, (1,), (1,))},
        {'x': Tensor(PACKED, 0, (2,), (PACKED - 1,))},
    ],
    ids=['first', 'last', 'both ends'],
)
def test_what_is_larger_than_its_tensors_is_not_unpacked(tmp_path, value):
    path = write(tmp_path / 'bad.pth', 'zip', value, bytes(4 * PACKED), zipfile.ZIP_DEFLATED)
    assert path.stat().st_size < 2**17
    refused(lambda: torch_file.read(path), 'storage 0 would unpack to 67108864 bytes, but its tensors use only')


def test_tensors_of_another_network_are_not_unpacked(tmp_path):
    value = {'x': Tensor(PACKED, 0, (PACKED,), (1,))}
    path = write(tmp_path / 'bad.pth', 'zip', value, bytes(4 * PACKED), zipfile.ZIP_DEFLATED)
    for shapes, words in (({'x': (3,)}, 'but this network needs'), ({'y': (PACKED,)}, 'has no tensor y')):
        refused(lambda shapes=shapes: weights.checked(weights.Weights(path, '', False), shapes), words)
    assert torch_file.read(path)['x'].nbytes == 4 * PACKED


def test_a_description_that_unpacks_to_much_is_not_unpacked(tmp_path):
    path = write(tmp_path / 'bad.pth', 'zip', b'N' * (torch_file.PICKLE_BYTES + 1), b'', zipfile.ZIP_DEFLATED)
    refused(lambda: torch_file.read(path), 'its data.pkl is too large for a pickle')


def test_a_storage_that_is_said_to_be_larger_than_the_file_is_not_made(tmp_path):
    value = {'x': Tensor(2**40, 0, (2**40,), (1,))}
    for layout in ('zip', 'stream'):
        path = write(tmp_path / 'bad.pth', layout, value, bytes(8))
        refused(lambda path=path: torch_file.read(path), 'storage 0 has')


def test_a_pickle_that_goes_on_is_left(tmp_path, monkeypatch):
    monkeypatch.setattr(torch_file.pickled, 'LONGEST', 1000)
    path = write(tmp_path / 'bad.pth', 'stream', b'\x80\x02' + b'N0' * 1000 + b'}.')
    refused(lambda: torch_file.read(path), 'its pickle has more than 1,000 operations')

"""Files of torch without torch: both layouts, views and types; and nothing in them is run."""

import os
import pathlib
import pickle
import re
import zipfile

import ml_dtypes
import numpy as np
import pytest

from genbench.errors import UserError
from genbench.evaluation.features import torch_file

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


def write(path, layout, value, data=b''):
    """A file of either layout that holds `value`, and storage 0 with `data`."""
    with path.open('wb') as file:
        if layout == 'zip':
            with zipfile.ZipFile(file, 'w') as archive:
                with archive.open('archive/data.pkl', 'w') as member:
                    Pickler(member, 2).dump(value)
                archive.writestr('archive/data/0', data)
            return path
        for part in (torch_file.MAGIC, torch_file.PROTOCOL, {'little_endian': True}):
            pickle.dump(part, file, 2)
        Pickler(file, 2).dump(value)
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
    with pytest.raises(UserError, match=rf'{re.escape(str(path))} asks for {name}, which is more than tensors'):
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
    with pytest.raises(UserError, match='is no file of tensors that torch wrote, or is damaged'):
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

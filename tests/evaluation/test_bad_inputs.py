"""Inputs of `genbench metrics` that are damaged, hostile or nonsense: one line, status 2, at once, little memory."""

import io
import json
import os
import struct
import time
import tracemalloc
import zipfile
import zlib

import numpy as np
import pytest
from PIL import Image

from genbench import cli
from genbench.evaluation import standalone
from genbench.evaluation.features import network

DRAWN = np.random.default_rng(0).integers(0, 256, (12, 4, 4, 3), np.uint8)
MU, SIGMA = np.zeros(48), np.eye(48)


@pytest.fixture
def never(monkeypatch):
    """Nothing is opened that costs: mistakes in addresses are said before."""
    monkeypatch.setattr(standalone, 'open_network', lambda options: pytest.fail('too late'))


def refused(words, capsys, *said, most=2**25):
    """That these words of a command line end with status 2, one line, in seconds and in little memory."""
    began = time.process_time()
    tracemalloc.start()
    try:
        assert cli.main([str(word) for word in words]) == 2
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    (line,) = [line for line in capsys.readouterr().err.splitlines() if 'image ' not in line]
    assert line.startswith('genbench: ') and len(line) < 10_000
    for word in said:
        assert word in line, line
    assert peak < most
    assert time.process_time() - began < 20


def png(width, height):
    """A picture of so many pixels, in a few bytes that say so."""

    def chunk(kind, data):
        return struct.pack('>I', len(data)) + kind + data + struct.pack('>I', zlib.crc32(kind + data))

    header = chunk(b'IHDR', struct.pack('>IIBBBBB', width, height, 8, 2, 0, 0, 0))
    return b'\x89PNG\r\n\x1a\n' + header + chunk(b'IDAT', zlib.compress(bytes(1000))) + chunk(b'IEND', b'')


BAD_IMAGES = {
    'a bomb': lambda path: path.write_bytes(png(2**17, 2**17)),
    'a large picture of another size': lambda path: path.write_bytes(png(10_000, 10_000)),
    'a pipe': os.mkfifo,
    'a link to itself': lambda path: path.symlink_to(path),
    'a link to nothing': lambda path: path.symlink_to('nowhere'),
    'an endless file': lambda path: path.symlink_to('/dev/zero'),
    'an empty file': lambda path: path.write_bytes(b''),
    'text': lambda path: path.write_text('text'),
}


def folder(path):
    path.mkdir()
    for index, image in enumerate(DRAWN):
        Image.fromarray(image).save(path / f'{index:02d}.png')
    return path


@pytest.mark.parametrize('name', BAD_IMAGES)
def test_a_bad_image_in_a_folder_is_named(tmp_path, capsys, name):
    BAD_IMAGES[name](folder(tmp_path / 'a') / 'x.png')
    np.save(tmp_path / 'b.npy', DRAWN)
    refused(['metrics', tmp_path / 'a', tmp_path / 'b.npy', '--features=pixels', '--metrics=fd'], capsys, 'x.png')


@pytest.mark.parametrize('name', [name for name in BAD_IMAGES if 'another size' not in name])
def test_a_bad_image_may_be_left_out(tmp_path, capsys, name):
    BAD_IMAGES[name](folder(tmp_path / 'a') / 'x.png')
    np.save(tmp_path / 'b.npy', DRAWN)
    words = ['metrics', tmp_path / 'a', tmp_path / 'b.npy', '--features=pixels', '--metrics=fd', '--skip-unreadable']
    assert cli.main([str(word) for word in words]) == 0
    assert float(capsys.readouterr().out.splitlines()[1].split()[1]) < 1e-6


def saved(function, **values):
    with io.BytesIO() as file:
        function(file, **values)
        return file.getvalue()


def npy(shape, kind='|u1', data=b'', version=b'\x01\x00'):
    header = f"{{'descr': {kind!r}, 'fortran_order': False, 'shape': {shape}, }}".encode()
    return b'\x93NUMPY' + version + struct.pack('<H', len(header)) + header + data


def archive(members, packed=zipfile.ZIP_DEFLATED):
    with io.BytesIO() as file:
        with zipfile.ZipFile(file, 'w', packed) as written:
            for name, data in members.items():
                written.writestr(name, data)
        return file.getvalue()


WHOLE = saved(np.savez_compressed, images=DRAWN)
LEVELS = np.arange(16, dtype=np.int64).reshape(4, 2, 2, 1)
BAD_ARRAYS = {
    'empty.npy': b'',
    'text.npy': b'text',
    'half.npy': saved(np.save, arr=DRAWN)[:300],
    'larger than the file.npy': npy((10**12, 4, 4, 3)),
    'larger than memory.npy': npy((10**30, 4, 4, 3)),
    'of negative size.npy': npy((-1, 4, 4, 3), data=bytes(96)),
    'of no size.npy': npy((2, 0, 4, 3)),
    'with a header that has no end.npy': npy((1, 4, 4, 3))[:60] + b'(' * 60,
    'of another version.npy': npy((1, 4, 4, 3), version=b'\x09\x00', data=bytes(48)),
    'of objects.npy': saved(np.save, arr=np.full((2, 4, 4, 3), None)),
    'of text.npy': saved(np.save, arr=np.full((2, 4, 4, 3), 'a')),
    'of truths.npy': saved(np.save, arr=np.full((2, 4, 4, 3), True)),
    'of complex numbers.npy': saved(np.save, arr=DRAWN + 1j),
    'of dates.npy': saved(np.save, arr=np.zeros((2, 4, 4, 3), 'M8[s]')),
    'of records.npy': saved(np.save, arr=np.zeros((2, 4, 4, 3), [('a', 'u1')])),
    'of infinities.npy': saved(np.save, arr=np.full((2, 4, 4, 3), np.inf)),
    'of large values.npy': saved(np.save, arr=np.full((2, 4, 4, 3), 1e300)),
    'empty.npz': b'',
    'half.npz': WHOLE[: len(WHOLE) // 2],
    'of nothing.npz': archive({}),
    'of text.npz': archive({'images': b'text'}),
    'damaged.npz': WHOLE[:200] + bytes(20) + WHOLE[220:],
    'larger than it says.npz': archive({'images.npy': npy((10**12, 4, 4, 3))}),
    'smaller than it says.npz': archive({'images.npy': npy((1, 4, 4, 3), data=bytes(2**26))}),
    'of objects.npz': saved(np.savez, images=np.full((2, 4, 4, 3), None)),
    'above its levels.npz': saved(np.savez, images=LEVELS, levels=15),
    'below its levels.npz': saved(np.savez, images=LEVELS - 1, levels=17),
    'between its levels.npz': saved(np.savez, images=LEVELS + 0.5, levels=17),
    'of one level.npz': saved(np.savez, images=LEVELS, levels=1),
    'of negative levels.npz': saved(np.savez, images=LEVELS, levels=-17),
    'of many levels.npz': saved(np.savez, images=LEVELS, levels=[17, 17]),
    'of no levels.npz': saved(np.savez, images=LEVELS, levels='many'),
}


@pytest.mark.parametrize('place', [0, 1])
@pytest.mark.parametrize('name', BAD_ARRAYS)
def test_a_bad_array_is_named_before_anything_is_opened(tmp_path, capsys, never, name, place):
    (tmp_path / name).write_bytes(BAD_ARRAYS[name])
    np.save(tmp_path / 'good.npy', DRAWN)
    addresses = [tmp_path / 'good.npy', tmp_path / 'good.npy']
    addresses[place] = tmp_path / name
    refused(['metrics', *addresses, '--features=pixels', '--metrics=fd'], capsys, name)


def text(**protocol):
    return json.dumps({'reference': {'n': 12}, 'features': {'features': 'pixels'}, **protocol})


def tilted(x):
    sigma = SIGMA.copy()
    sigma[0, 1] = x
    return sigma


BAD_MOMENTS = {
    'a mean that is not finite': {'mu': MU + np.nan},
    'a covariance that is not finite': {'sigma': SIGMA + np.inf},
    'a mean that is too large': {'mu': MU + 1e150},
    'a covariance that is too large': {'sigma': SIGMA * 1e150},
    'a negative covariance': {'sigma': -SIGMA},
    'one negative variance': {'sigma': np.diag([-1.0] + [1.0] * 47)},
    'a covariance that is not symmetric': {'sigma': tilted(0.5)},
    'a correlation of two': {'sigma': tilted(2) + tilted(2).T - SIGMA},
    'correlations that cannot be': {'sigma': 1.5 * SIGMA - np.full((48, 48), 0.5)},
    'matrices for means': {'mu': SIGMA},
    'a covariance of another size': {'sigma': np.eye(47)},
    'numbers': {'mu': 0.0, 'sigma': 1.0},
    'nothing': {'mu': np.zeros(0), 'sigma': np.zeros((0, 0))},
    'complex numbers': {'mu': MU + 0j},
    'text': {'mu': np.full(48, 'a')},
    'objects': {'mu': np.full(48, None)},
    'a negative number of images': {'n': -5},
    'no images': {'n': 0},
    'one image': {'n': 1},
    'half an image': {'n': 12.5},
    'no number of images': {'n': np.nan},
    'several numbers of images': {'n': [12, 12]},
    'a protocol that is no JSON': {'protocol': 'text'},
    'a protocol that is null': {'protocol': 'null'},
    'a protocol that is a list': {'protocol': '[1]'},
    'a protocol that is a number': {'protocol': 7},
    'a protocol without parts': {'protocol': '{}'},
    'a protocol of other parts': {'protocol': text(reference=None)},
    'a protocol about nothing': {'protocol': text(features={})},
    'a deep protocol': {'protocol': '[' * 100_000},
    'a protocol in a protocol': {'protocol': text(reference=json.loads('{"a":' * 300 + '1' + '}' * 300))},
}


@pytest.mark.parametrize('name', BAD_MOMENTS)
def test_moments_that_no_images_have_are_refused_before_anything_is_opened(tmp_path, capsys, never, name):
    np.savez(tmp_path / 'b.npz', **{'mu': MU, 'sigma': SIGMA, 'n': 12, **BAD_MOMENTS[name]})
    np.save(tmp_path / 'a.npy', DRAWN)
    refused(['metrics', tmp_path / 'a.npy', tmp_path / 'b.npz', '--features=pixels', '--metrics=fd'], capsys, 'b.npz')


def test_damaged_moments_are_one_line(tmp_path, capsys, never):
    whole = saved(np.savez_compressed, mu=MU, sigma=np.random.default_rng(0).normal(size=(48, 48)))
    np.save(tmp_path / 'a.npy', DRAWN)
    for damaged in (whole[:500], whole[:600] + bytes(200) + whole[800:], b'PK', b''):
        (tmp_path / 'b.npz').write_bytes(damaged)
        refused(['metrics', tmp_path / 'a.npy', tmp_path / 'b.npz', '--metrics=fd'], capsys, 'b.npz')


def loop(path):
    path.symlink_to(path)
    return path


def pipe(path):
    os.mkfifo(path)
    return path


BAD_ADDRESSES = {
    'a typo': lambda path: path / 'nowhere',
    'nothing': lambda path: '',
    'a name that is too long': lambda path: path / ('x' * 5000),
    'a loop': lambda path: loop(path / 'loop.npy'),
    'a pipe': lambda path: pipe(path / 'pipe.npy'),
    'another pipe': lambda path: pipe(path / 'pipe.npz'),
    'an endless file': lambda path: '/dev/zero',
    'an empty folder': lambda path: path,
    'a split that is not there': lambda path: 'tfds:digits:tset',
    'an empty split': lambda path: 'tfds:digits:test[:0]',
}


@pytest.mark.parametrize('place', [0, 1, 2])
@pytest.mark.parametrize('name', BAD_ADDRESSES)
def test_every_address_is_checked_before_anything_is_opened(tmp_path, capsys, never, name, place):
    good = tmp_path / 'good'
    good.mkdir()
    np.save(good / 'good.npy', DRAWN)
    bad = tmp_path / 'bad'
    bad.mkdir()
    addresses = [good / 'good.npy'] * 3
    addresses[place] = BAD_ADDRESSES[name](bad)
    words = [
        'metrics',
        *addresses[:2],
        f'--held-out={addresses[2]}',
        '--metrics=c2st' if addresses[2] else '--metrics=',
    ]
    refused(words, capsys)


@pytest.mark.parametrize(
    ('flags', 'said'),
    [
        (['--metrics='], 'There are no metrics to compute'),
        (['--metrics=,'], 'There are no metrics to compute'),
        (['--metrics=fd', '--sets=20'], '12 images are too few for 20 sets'),
        (['--metrics=fd', '--seed=-1'], '--seed is -1'),
        (['--metrics=fd', f'--seed={2**70}'], '--seed is'),
        (['--metrics=fd', f'--batch-size={10**12}'], '--batch-size is'),
        (['--metrics=fd', '--json=' + 'x' * 5000], 'json is too long'),
    ],
)
def test_flags_that_make_no_sense_are_refused(tmp_path, capsys, never, flags, said):
    np.save(tmp_path / 'a.npy', DRAWN)
    refused(['metrics', tmp_path / 'a.npy', tmp_path / 'a.npy', *flags], capsys, said)


def test_colour_images_are_no_input_of_a_grey_classifier(tmp_path, capsys, monkeypatch):
    grey = network.make('classifier', lambda params, x: {'features': x}, (), {}, batch_size=4, shape=(4, 4, 1))
    monkeypatch.setattr(standalone, 'open_network', lambda options: grey)
    np.save(tmp_path / 'a.npy', DRAWN)
    words = ['metrics', tmp_path / 'a.npy', tmp_path / 'a.npy', '--metrics=fd']
    refused(words, capsys, 'needs images of 4×4×1 (height, width, channels); these are 4×4×3')


def test_data_list_of_no_folder_is_refused(tmp_path, capsys):
    (tmp_path / 'file').write_text('')
    for path in (tmp_path / 'nowhere', tmp_path / 'file', loop(tmp_path / 'loop')):
        refused(['data', 'list', f'--data_dir={path}'], capsys, 'is not a folder')

"""genbench export: weights read back by the rules of the format, a card that tells all, and nothing half-done."""

import json
import struct

import jax
import numpy as np
import pytest

from genbench import cli
from genbench.errors import UserError
from genbench.exchange import export, safetensors
from genbench.training import runs
from genbench.training.state import flatten

TYPES = {'F32': np.float32, 'U32': np.uint32, 'I32': np.int32}


def read(path):
    """(arrays, metadata) of a file, by the description of the format alone."""
    data = path.read_bytes()
    (length,) = struct.unpack('<Q', data[:8])
    header, body = json.loads(data[8 : 8 + length]), data[8 + length :]
    metadata = header.pop('__metadata__')
    spans = sorted(entry['data_offsets'] for entry in header.values())
    ends = [0, *(end for _, end in spans)]
    assert [begin for begin, _ in spans] == ends[:-1] and ends[-1] == len(body)  # no gaps, nothing left over
    arrays = {
        name: np.frombuffer(body[slice(*entry['data_offsets'])], TYPES[entry['dtype']]).reshape(entry['shape'])
        for name, entry in header.items()
    }
    return arrays, metadata


@pytest.mark.parametrize('average', ['ema', 'current'])
def test_weights_come_back_bit_for_bit(diffusion_run, average, tmp_path, capsys):
    out = tmp_path / 'out'
    words = ['export', str(diffusion_run), '--out', str(out), '--average', average, '--step', '2']
    assert cli.main(words) == 0
    arrays, metadata = read(out / 'model.safetensors')
    run = runs.open_run(diffusion_run)
    step, state = run.restore(2)
    wanted = flatten(jax.device_get(run.networks(step, state, average)[1]['params']))
    assert set(arrays) == {name.replace('/', '.') for name in wanted}
    for name, value in wanted.items():
        np.testing.assert_array_equal(arrays[name.replace('/', '.')], value)
    assert metadata == {'format': 'flax'}
    assert sorted(path.name for path in out.iterdir()) == [
        'README.md', 'config.json', 'model.safetensors', 'results.jsonl',
    ]  # fmt: skip
    assert f'{out}/model.safetensors' in capsys.readouterr().out


def test_the_card_says_data_training_results_and_licence(diffusion_copy, tmp_path):
    evaluate = ['evaluate', str(diffusion_copy), '--config.evaluation.metrics=speed']
    assert cli.main(evaluate) == 0
    out = tmp_path / 'out'
    assert cli.main(['export', str(diffusion_copy), '--out', str(out), '--licence', 'cc-by-4.0']) == 0
    card, run = (out / 'README.md').read_text(), runs.open_run(diffusion_copy)
    front = dict(line.split(': ', 1) for line in card.split('---')[1].strip().splitlines())
    assert json.loads(front['license']) == 'cc-by-4.0' and json.loads(front['datasets']) == ['digits']
    assert '8×8×1' in card and '17 levels' in card and run.sha256(4) in card and 'the average ema' in card
    rows = [json.loads(line) for line in (out / 'results.jsonl').read_text().splitlines()]
    assert rows and all(f'| {row["metric"]} |' in card and row['protocol_hash'] in card for row in rows)
    assert 'The licence of these weights is cc-by-4.0.' in card
    assert json.loads((out / 'config.json').read_text()) == json.loads(run.folder.config.read_text())


def test_what_is_borrowed_for_samples_goes_along():
    lent = {'params': {'decoder': {'bias': np.ones(2)}}, 'aux': {'decoder': {'mean': np.ones(3)}}}
    state = {'params': {'denoiser': {'bias': np.ones(1)}}, 'aux': {}, 'lent': {'first_stage': lent}}
    assert {name: value.shape for name, value in export.named(state)} == {
        'denoiser.bias': (1,),
        'borrowed.first_stage.decoder.bias': (2,),
        'borrowed.first_stage.decoder.mean': (3,),
    }


@pytest.mark.parametrize(
    ('family', 'more', 'words'),
    [
        ('gan', ('--format=diffusers',), 'has one network, but this run has'),
        ('gaussian', ('--format=diffusers',), 'it is neither a unet nor a dit. Use --format=safetensors'),
        ('diffusion', ('--average=emma',), "--average is 'emma'; this run has"),
        ('diffusion', ('--step=3',), 'has no checkpoint 3'),
        ('diffusion', ('--format=onnx',), 'There is no --format'),
        (None, (), 'is not a run'),
    ],
)
def test_what_cannot_be_exported_is_one_line_and_leaves_nothing(family, more, words, trained, tmp_path, capsys):
    run = trained(family) if family else tmp_path
    capsys.readouterr()
    assert cli.main(['export', str(run), '--out', str(tmp_path / 'out'), *more]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert words in line
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_exists_stays_as_it_is(diffusion_run, tmp_path, capsys):
    (tmp_path / 'mine').write_text('mine')
    assert cli.main(['export', str(diffusion_run), '--out', str(tmp_path)]) == 2
    assert 'exists; choose a new folder' in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ['mine']


@pytest.mark.parametrize('linked', [False, True])
def test_the_folder_of_the_run_itself_is_no_place_for_an_export(linked, diffusion_run, tmp_path, capsys):
    (tmp_path / 'link').symlink_to(diffusion_run)
    out = (tmp_path / 'link' if linked else diffusion_run / 'checkpoints') / 'weights'
    before = sorted(diffusion_run.rglob('*'))
    assert cli.main(['export', str(diffusion_run), '--out', str(out)]) == 2
    assert 'is inside the run' in capsys.readouterr().err
    assert sorted(diffusion_run.rglob('*')) == before


def test_a_type_that_the_format_does_not_know_is_refused():
    with pytest.raises(UserError, match='a is an array of complex64'):
        safetensors.encode({'a': np.zeros(2, np.complex64)}, {})

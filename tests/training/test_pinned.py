"""One step of every family, pinned: loss and gradient norm of each update as they were when they were recorded."""

import json
import pathlib

import pytest
import shipped

from genbench.training.loop import Training, train
from genbench.training.metrics import read_rows

pytestmark = pytest.mark.unoptimized
PINS = pathlib.Path(__file__).with_name('pins')  # on a CPU, float32; jax 0.10 and 0.12 agree to seven digits
ADVICE = (
    'The first step of {family} gives {found}. If the family is new, or its loss, networks, initialisation, data order '
    'or keys were changed on purpose, record these numbers with\n  pytest tests/training/test_pinned.py -k {family} '
    '--pin\nand say so in the commit; otherwise something broke.'
)


@pytest.mark.parametrize('family', shipped.NAMES)
def test_the_first_step_is_what_it_was(tiny, tmp_path, on_loans, family, request, monkeypatch):
    config = tiny(family, 'train.num_steps=1', *on_loans(family))
    monkeypatch.setattr(Training, '_save_samples', lambda *_: None)  # no pin needs the program of a sampler
    train(config, tmp_path, quiet=True)
    (row,) = read_rows(tmp_path / 'metrics.jsonl')
    found = {name: value for name, value in row.items() if name.endswith(('/loss', '/gradient_norm', '/images'))}
    path = PINS / f'{family}.json'
    if request.config.getoption('pin'):
        path.write_text(json.dumps({name: float(f'{value:.6g}') for name, value in found.items()}, indent=2) + '\n')
    pinned = json.loads(path.read_text()) if path.exists() else {}
    assert found == pytest.approx(pinned, rel=1e-3), ADVICE.format(family=family, found=found)

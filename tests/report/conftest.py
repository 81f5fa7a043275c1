"""A study's folder made by hand: two variants with three seeds each, one trial that failed, pictures of two models."""

import json

import numpy as np
import pytest
from PIL import Image

from genbench.evaluation.results import KEYS

SEEDS = (0, 1, 2)
STEPS = 4
DENOISING = {
    'schedule': 'straight', 'kept': [0, 1, 2, 3, 4], 'times': [1.0, 0.75, 0.5, 0.25, 0.0],
    'alpha': [0.0, 0.25, 0.5, 0.75, 1.0], 'sigma': [1.0, 0.75, 0.5, 0.25, 0.0],
    'log_snr': [None, -2.197, 0.0, 2.197, None], 'reconstructions': [2],
}  # fmt: skip


def row(trial, metric, value, **more):
    """A complete result row of a trial called VARIANT-SEED."""
    protocol = {'sampler': 'direct', 'steps': 1, 'nfe': 1, 'guidance': 0.0, 'average': 'ema', 'num_samples': 64,
                'noise': 'evaluation.seed and train.seed'}  # fmt: skip
    protocol |= more.pop('protocol', {})
    filled = {'metric': metric, 'value': value, 'kind': 'distance', 'n': 64, 'sampler': protocol['sampler'],
              'nfe': protocol['nfe'], 'checkpoint_step': 10, 'protocol': protocol}  # fmt: skip
    return {'trial': trial, **dict.fromkeys(KEYS), **filled, **more}


def write_json(path, values):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(values))


def write_lines(path, rows):
    path.write_text(''.join(json.dumps(row) + '\n' for row in rows))


def picture(path, rows, columns, value):
    """A grey PNG of 4×4 cells; the cell of row r is as bright as value + 20 r."""
    path.parent.mkdir(parents=True, exist_ok=True)
    levels = np.repeat(np.arange(rows, dtype=np.uint8) * 20 + value, 4)
    Image.fromarray(np.tile(levels[:, None], (1, 4 * columns))).save(path)


def trial(folder, name, seed, *, state='done', rate=1e-3, skipped=0):
    path = folder / 'trials' / name
    config = {'train': {'seed': seed}, 'optimizer': {'learning_rate': rate}, 'evaluation': {'num_samples': 64}}
    write_json(path / 'config.json', config)
    failed = {'reason': 'It ran out of numbers.', 'last_lines': ['step 7', 'no more numbers']}
    write_json(path / 'status.json', {'state': state, 'reason': '', **(failed if state == 'failed' else {})})
    summary = {'step': 10, 'goodput': 0.75, 'config_hash': 'c0ffee', 'state_sha256': 'abcdef' * 8, 'step_seconds': 0.1}
    write_json(path / 'summary.json', summary)
    manifest = {'devices': ['cpu:cpu'], 'commit': '', 'versions': {'python': '3.11'}}
    write_json(path / 'manifest.json', manifest)
    steps = (2, 4, 6, 8, 10)
    counts = [{'step': step, 'net/loss': 1 / step, 'skipped/total': skipped * (step > 4)} for step in steps]
    write_lines(path / 'metrics.jsonl', counts)
    picture(path / 'samples' / 'direct_1.png', 10, 10, 40)
    for step in (5, 10):
        picture(path / 'samples' / f'step_{step:07d}.png', 10, 10, 40)


def explored(folder, name, value):
    """An exploration/ of a model with steps."""
    path = folder / 'trials' / name / 'exploration'
    values = {'sampler': 'ddim', 'steps': STEPS, 'shape': [4, 4, 1], 'images': 8, 'denoising': DENOISING,
              'interpolation': {'rows': 4, 'columns': 8},
              'neighbours': {'distances': [[1.0, 2.0, 3.0]] * 8}}  # fmt: skip
    write_json(path / 'exploration.json', values)
    for part, rows in (('generation', STEPS + 1), ('reconstruction_2', 3)):
        picture(path / f'{part}_states.png', rows, 8, value)
        picture(path / f'{part}_predictions.png', rows - 1, 8, value + 100)
    for part in ('targets', 'interpolation', 'neighbours'):
        picture(path / f'{part}.png', 1, 8, 200)


@pytest.fixture(scope='session')
def make_study():
    """`make_study(folder)` → the folder, filled."""

    def make(folder):
        rows = [row('held-out real images', 'fd', 1.25, sampler=None, nfe=None)]
        for variant, distance, rate in (('wide', 2.0, 1e-3), ('narrow', 20.0, 2e-3)):
            for seed in SEEDS:
                name = f'{variant}-{seed}'
                broken = variant == 'narrow' and seed == 2
                trial(folder, name, seed, state='failed' if broken else 'done', rate=rate, skipped=2 * (seed == 1))
                if broken:
                    continue
                ode = {'method': 'ode_1', 'split': 'test'}
                rows += [
                    row(name, 'fd', distance + seed),
                    row(name, 'fd', 10 * distance, protocol={'sampler': 'ddim', 'steps': STEPS, 'nfe': STEPS}),
                    row(name, 'precision', 0.5 + seed / 10, kind='score'),
                    row(name, 'bits_per_dim', distance, kind='estimate', std_err=0.1, protocol=ode),
                    row(name, 'training_flops', 1e9 * distance, kind='cost'),
                    row(name, 'training_seconds', 30.0, kind='cost'),
                    row(name, 'sampling_images_per_second', 500.0, kind='cost'),
                ]
        explored(folder, 'wide-0', 10)
        explored(folder, 'narrow-0', 60)
        write_lines(folder / 'results.jsonl', rows)
        names = [f'{variant}-{seed}' for variant in ('wide', 'narrow') for seed in SEEDS]
        variants = {name: name.rsplit('-', 1)[0] for name in names}
        description = {'title': 'Wide and narrow', 'claim': 'Wide is nearer.', 'command': 'genbench run s.py --out d',
                       'commit': 'c0ffee', 'trials': names, 'variants': variants, 'baseline': 'wide'}  # fmt: skip
        write_json(folder / 'study.json', description)
        return folder

    return make

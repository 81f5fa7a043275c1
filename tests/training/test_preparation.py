"""Data that a family prepares of its own: made once, joined to the rows they were made of, and checked when used."""

import json
import pickle
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from genbench import rng
from genbench.data import sources
from genbench.errors import UserError
from genbench.families.base import Family, Samples, Update, register
from genbench.training import dry_run, lending, preparation, runs
from genbench.training.loop import train
from genbench.training.metrics import read_rows
from genbench.training.prepared import prepare
from genbench.training.replay import replay
from genbench.training.state import flatten


class Level(nnx.Module):
    def __init__(self):
        self.level = nnx.Param(jnp.zeros(()))


@register('lamp')
class Lamp(Family):
    """Its level follows the mean of the images."""

    def networks(self, rngs):
        return {'level': Level()}

    @property
    def updates(self):
        return (Update('level', ('level',), self.loss),)

    def loss(self, networks, batch, key, step):
        loss = jnp.square(networks['level'].level[...] - batch['image'].mean())
        return loss, {'loss': loss}

    def sample(self, networks, keys, given, sampler):
        return Samples(jnp.zeros((len(keys), *self.spec.shape), jnp.int32), 1)


@register('steward')
class Steward(Lamp):
    """It keeps sums of images, noise, and the level that another run lends; its loss says whether they are these."""

    @classmethod
    def defaults(cls):
        return {'family': {'conditional': False, 'conditions': (), 'lamp': ''}}

    @classmethod
    def borrows(cls, config):
        return {'lamp': config.family.lamp} if config.family.lamp else {}

    def prepare(self, networks, rows):
        lent = [networks.borrowed(name)['level'].level[...] for name in self.borrowed]
        level = jnp.full(len(rows['image']), sum(lent))
        sums = rows['image'].sum((1, 2, 3)).astype(jnp.int16)
        return {'sum': sums, 'dark': rng.normal(rows['key'], 'dark', (2, 3)).astype(jnp.float16), 'lent': level}

    def loss(self, networks, batch, key, step):
        loss, scalars = super().loss(networks, batch, key, step)
        off = jnp.abs(batch['sum'] - batch['image'].sum((1, 2, 3))).max()
        return loss, scalars | {'off': off, 'dark': batch['dark'].mean(), 'lent': batch['lent'].mean()}


STREAMED = 'data.resident_bytes=0'


@pytest.fixture
def small_chunks(monkeypatch):
    monkeypatch.setattr(preparation, 'CHUNK', 1)  # a chunk is a batch


class Written(list):
    """First rows of the chunks that were written; at the one numbered `stop`, the process is interrupted."""

    stop = -1


@pytest.fixture
def written(monkeypatch):
    append, found = preparation.Store._append, Written()

    def counted(store, values, first, manifest):
        if len(found) == found.stop:
            raise KeyboardInterrupt
        found.append(first)
        append(store, values, first, manifest)

    monkeypatch.setattr(preparation.Store, '_append', counted)
    return found


def again(config, folder):
    """Take the last two steps back, and do them once more."""
    shutil.rmtree(folder / 'checkpoints' / '4')
    (folder / 'summary.json').unlink()
    return train(config, folder, quiet=True).summary['state_sha256']


def arrays(folder):
    return {name: np.load(folder / 'prepared' / f'{name}.npy') for name in ('sum', 'dark', 'lent')}


def test_prepared_arrays_stand_beside_the_rows_that_they_were_made_of(tiny, digits, tmp_path):
    train(tiny('lamp'), tmp_path / 'lamp', quiet=True)
    _, state = runs.open_run(tmp_path / 'lamp').restore()
    level, said = float(state['averages']['ema']['level']['level']), {}
    for name, option in (('resident', 'train.seed=0'), ('streamed', STREAMED)):
        folder = tmp_path / name
        train(tiny('steward', f'family.lamp={tmp_path / "lamp"}', option), folder, quiet=True)
        rows = read_rows(folder / 'metrics.jsonl')
        assert len(rows) == 4 and all(row['level/off'] == 0 for row in rows)
        assert [row['level/lent'] for row in rows] == pytest.approx([level] * 4, rel=1e-5)
        said[name] = [{key: row[key] for key in ('level/loss', 'level/dark')} for row in rows]
        assert not [one for one in flatten(runs.open_run(folder).restore()[1]) if 'dark' in one]  # nor in checkpoints
    assert said['resident'] == said['streamed']
    found, images = arrays(folder), digits[1].images
    np.testing.assert_array_equal(found['sum'], images.sum((1, 2, 3)))
    assert found['sum'].dtype == np.int16 and found['dark'].dtype == np.float16
    for row in (0, 31, 32, len(images) - 1):  # a key for each row, whatever batch it was in
        key = rng.numbered(rng.root(0, 'preparation'), row)
        np.testing.assert_array_equal(found['dark'][row], rng.normal(key[None], 'dark', (2, 3))[0].astype(np.float16))


def test_an_interrupted_preparation_goes_on_and_a_finished_one_is_not_done_again(tiny, tmp_path, small_chunks, written):
    config, found = tiny('steward', 'checkpoint.every=2'), written
    whole = train(config, tmp_path / 'whole', quiet=True).summary['state_sha256']
    starts, total = list(found), len(found)
    assert total == -(-sources.count(sources.open_builder('digits'), 'train') // 32) and starts[:2] == [0, 32]
    found.clear()
    found.stop = 3
    with pytest.raises(KeyboardInterrupt):
        train(config, tmp_path / 'run', quiet=True)
    found.stop = -1
    (tmp_path / 'run' / 'prepared' / 'sum.npy').open('ab').write(b'torn')  # as a write that was cut off leaves it
    with pytest.raises(UserError, match=r'has only 96 of the \d+ rows that this run needs; genbench train prepares'):
        _ = prepare(config, folder=runs.Folder(tmp_path / 'run')).feed
    found.clear()
    assert train(config, tmp_path / 'run', quiet=True).summary['state_sha256'] == whole
    assert found == starts[3:]
    for name, values in arrays(tmp_path / 'whole').items():
        np.testing.assert_array_equal(values, arrays(tmp_path / 'run')[name])
    found.clear()
    assert again(config, tmp_path / 'run') == whole
    list(replay(tmp_path / 'run', 3))
    lending.export(str(tmp_path / 'run'), str(tmp_path / 'copy'))
    assert again(config, tmp_path / 'copy') == whole
    assert not found


def test_what_was_prepared_of_something_else_or_is_damaged_is_refused(tiny, tmp_path):
    config, folder = tiny('steward', 'checkpoint.every=2'), tmp_path / 'run'
    train(config, folder, quiet=True)
    manifest = json.loads((folder / 'prepared' / 'manifest.json').read_text())
    manifest['made_of']['borrowed'] = {'lamp': '01ab'}
    (folder / 'prepared' / 'manifest.json').write_text(json.dumps(manifest))
    other = r'prepared was prepared for another run \(made_of: .*01ab.* there, .* here\). Delete .*prepared, and'
    with pytest.raises(UserError, match=other):
        again(config, folder)
    shutil.rmtree(folder / 'prepared')
    with pytest.raises(UserError, match='has only 0 of '):
        list(replay(folder, 1))
    train(config, folder, quiet=True)  # makes them anew
    with (folder / 'prepared' / 'dark.npy').open('r+b') as file:
        file.seek(-5, 2)
        file.write(b'!')
    for use in (lambda: again(config, tmp_path / 'copy'), lambda: list(replay(tmp_path / 'copy', 3))):
        shutil.rmtree(tmp_path / 'copy', ignore_errors=True)
        shutil.copytree(folder, tmp_path / 'copy')
        with pytest.raises(
            UserError, match=r'dark.npy is damaged. Delete .*prepared, and training will prepare the data ag'
        ):
            use()
    with pytest.raises(UserError, match='would change images from which this run prepares data'):
        train(tiny('steward', 'data.flip=True'), tmp_path / 'flipped', quiet=True)


def test_a_dry_run_knows_the_shapes_and_computes_nothing(tiny, monkeypatch):
    monkeypatch.setattr(preparation, 'compute_in', None)
    for option in ('train.seed=0', STREAMED):
        lines = dry_run.describe(tiny('steward', option))
        assert any(line.startswith('compiled step of level') for line in lines)
    ready = prepare(tiny('steward'))
    assert ready.shapes == {
        'sum': jax.ShapeDtypeStruct((), jnp.int16), 'dark': jax.ShapeDtypeStruct((2, 3), jnp.float16),
        'lent': jax.ShapeDtypeStruct((), jnp.int32),
    }  # fmt: skip
    assert ready.places.feed['dark'].shape == (ready.feed.taken.order.size, 2, 3)
    assert prepare(tiny('steward'), on_noise=True).feed.constants['dark'].shape == (32, 2, 3)


def test_its_operations_are_part_of_what_training_took(tiny, tmp_path):
    train(tiny('steward'), tmp_path / 'run', quiet=True)
    spent = json.loads((tmp_path / 'run' / 'prepared' / 'manifest.json').read_text())['flops']
    flops = [row['train/flops'] for row in read_rows(tmp_path / 'run' / 'metrics.jsonl')]
    assert flops[0] - (flops[1] - flops[0]) >= spent > 0
    ready = prepare(tiny('steward'))
    assert prepare(tiny('steward'), on_noise=True).preparing(ready.feed.taken.order.size) == spent


def test_an_array_on_its_way_to_another_process_is_mapped_there(tmp_path):
    np.save(tmp_path / 'x.npy', np.arange(100_000.0))
    stored = preparation.Stored(tmp_path / 'x.npy')
    assert len(pickle.dumps(stored)) < 1000 and pickle.loads(pickle.dumps(stored))[[3, 7]].tolist() == [3, 7]

"""Prepared sets: what is in them, how a preparation goes on, and how changes of its files are noticed."""

import json
import os
import pathlib
import shlex
import shutil

import jax
import numpy as np
import pytest
from data import pictures
from PIL import Image

from genbench import cli
from genbench import config as configs
from genbench.data import captions, opening, preparing, shards, sources
from genbench.data.recipe import Recipe
from genbench.data.spec import TEXT
from genbench.errors import UserError
from genbench.training.loop import train
from genbench.training.prepared import prepare

EIGHT = Recipe(size=(8,))


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    """200 pictures of all modes; only to be read."""
    return pictures.mixed(tmp_path_factory.mktemp('own') / 'my pictures', 200)


@pytest.fixture(scope='module')
def data_dir(folder, tmp_path_factory):
    """Where they are prepared at 8×8."""
    where = tmp_path_factory.mktemp('prepared')
    opening.prepare(opening.named(f'folder:{folder}', str(where), EIGHT), processes=1)
    return where


@pytest.fixture
def few(tmp_path):
    """Forty pictures that a test may change."""
    return pictures.mixed(tmp_path / 'few', 40)


def named(folder, where, recipe=EIGHT):
    return opening.named(f'folder:{folder}', str(where), recipe)


def prepared(folder, where, recipe=EIGHT):
    """(path, report)"""
    path, lines = opening.prepare(named(folder, where, recipe), processes=1)
    return pathlib.Path(path), '\n'.join(lines)


def records(builder):
    """Every row by the number in its caption."""
    found = [row for split in builder.info.splits for row in builder.as_data_source(split)]
    return {int(row['caption'].split()[-1]): row for row in found}


def test_every_picture_is_there_with_its_label_and_caption(folder, data_dir):
    builder = opening.open_named(named(folder, data_dir))
    found = records(builder)
    assert sorted(found) == list(range(200))
    assert [found[number]['label'] for number in range(6)] == [0, 1, 2, 0, 1, 2]
    assert builder.info.features['label'].names == ['discs', 'squares', 'кресты']
    for number in (0, 1, 2, 3, 4, 5, 24):  # RGB and grey
        (path,) = folder.glob(f'*/{number:05d}.png')
        picture = Image.open(path).convert('RGB')
        side, (left, top) = min(picture.size), ((length - min(picture.size)) // 2 for length in picture.size)
        part = picture.crop((left, top, left + side, top + side)).resize((8, 8), Image.Resampling.LANCZOS)
        np.testing.assert_array_equal(found[number]['image'], np.asarray(part))


def test_a_prepared_set_is_one_like_others(folder, data_dir):
    builder = opening.open_named(named(folder, data_dir))
    spec = sources.spec_of(builder)
    assert (spec.name, spec.shape, spec.levels, spec.classes) == ('my_pictures-8-center-lanczos', (8, 8, 3), 256, 3)
    assert spec.fields == (('caption', TEXT),) and len(spec.content) == 12
    arrays = sources.load(builder, 'train[:20]', ('caption',))
    assert arrays.images.shape == (20, 8, 8, 3) and arrays.fields['caption'].shape == (20, 16)
    assert sources.count(builder, 'train') + sources.count(builder, 'test') == 200


def test_what_became_of_the_files_is_told(folder, data_dir):
    report = json.loads((named(folder, data_dir).folder / 'metadata.json').read_text())['report']
    text = '\n'.join(report)
    for part in ('of 8×8', 'crop center, filter lanczos', '3 classes: discs, squares, кресты', 'notes.txt',
                 'unreadable: 1 (discs/broken.png: ', 'caption (text)', 'repeated in three channels',
                 'composited on white', 'from 16 to 8 bits', 'from CMYK', 'from a palette'):  # fmt: skip
        assert part in text


def test_processes_do_not_change_what_is_written(folder, data_dir, tmp_path, monkeypatch):
    monkeypatch.setattr(preparing, 'ROWS', 30)
    monkeypatch.setattr(preparing, 'LOOKED_AT', 50)
    opening.prepare(named(folder, tmp_path), processes=2)
    one, two = (opening.open_named(named(folder, where)) for where in (data_dir, tmp_path))
    assert two.info.splits['train'].num_shards > one.info.splits['train'].num_shards == 1
    for split in ('train', 'test'):
        left, right = (sources.load(builder, split).columns() for builder in (one, two))
        for name in left:
            np.testing.assert_array_equal(left[name], right[name])
    assert sources.spec_of(one) == sources.spec_of(two)
    assert sources.spec_of(one).content == sources.spec_of(two).content


def test_a_preparation_that_was_stopped_goes_on(few, tmp_path, monkeypatch):
    monkeypatch.setattr(preparing, 'ROWS', 8)
    decoded, examples = [], shards._example

    def example(plan, row, counts):
        decoded.append(row.name)
        if len(decoded) == 20:
            raise KeyboardInterrupt
        return examples(plan, row, counts)

    monkeypatch.setattr(shards, '_example', example)
    with pytest.raises(KeyboardInterrupt):
        prepared(few, tmp_path / 'there')
    with pytest.raises(UserError, match='is not prepared'):
        opening.open_named(named(few, tmp_path / 'there'))
    path, _ = prepared(few, tmp_path / 'there')
    again = decoded[20:]
    assert len(again) == 41 - 16 and not set(again) & set(decoded[:16])
    assert sorted(records(opening.open_named(named(few, tmp_path / 'there')))) == list(range(40))
    assert not [file.name for file in path.parent.iterdir() if file.name not in (path.name, f'.{path.name}.lock')]


def test_preparing_twice_does_nothing(few, tmp_path, monkeypatch):
    first = prepared(few, tmp_path / 'there')
    monkeypatch.setattr(preparing, 'prepare', None)
    assert prepared(few, tmp_path / 'there') == first


# Changes.


def rewritten(path):
    """Another content of the same length at the same name."""
    data = bytearray(path.read_bytes())
    data[-20] ^= 1
    path.write_bytes(bytes(data))


@pytest.mark.parametrize(
    ('change', 'said'),
    [
        (lambda folder: pictures.save(folder / 'discs' / 'more', 7), '1 new'),
        (lambda folder: (folder / 'discs' / '00000.png').unlink(), '1 gone'),
        (lambda folder: pictures.save(folder / 'discs' / '00000', 0, 'RGB', (9, 9)), '1 changed'),
        (lambda folder: rewritten(folder / 'discs' / '00000.png'), '1 changed'),
        (lambda folder: (folder / 'captions.csv').write_text('file_name,caption\n'), '1 changed'),
        (lambda folder: shutil.move(folder / 'discs' / '00000.png', folder / 'discs' / 'x.png'), '1 new, 1 gone'),
    ],
)
def test_a_change_of_the_files_is_one_line(few, tmp_path, change, said):
    prepared(few, tmp_path / 'there')
    content = sources.spec_of(opening.open_named(named(few, tmp_path / 'there'))).content
    change(few)
    with pytest.raises(UserError, match=f'has changed since it was prepared: {said}. .* genbench data prepare folder:'):
        opening.open_named(named(few, tmp_path / 'there'))
    prepared(few, tmp_path / 'there')
    assert sources.spec_of(opening.open_named(named(few, tmp_path / 'there'))).content != content


def test_what_does_not_change_the_images_is_no_change(few, tmp_path):
    prepared(few, tmp_path / 'there')
    (few / 'discs' / '00000.png').touch()
    (few / 'more.txt').write_text('not an image')
    opening.open_named(named(few, tmp_path / 'there'))
    few.rename(tmp_path / 'moved')
    with pytest.raises(UserError, match='There is no folder'):
        opening.prepare(named(tmp_path / 'nowhere', tmp_path / 'there'))
    opening.open_named(named(few, tmp_path / 'there'))  # without its folder


# What is refused.


def test_images_of_several_sizes_need_one_that_is_stated(few, tmp_path):
    with pytest.raises(UserError, match='have .* sizes .*--size=64'):
        prepared(few, tmp_path / 'there', Recipe())
    assert not [file for file in (tmp_path / 'there').iterdir() if not file.name.startswith('.')]


def test_images_of_one_size_keep_it(tmp_path):
    for number in range(30):
        pictures.save(tmp_path / 'own' / f'{number}', number, 'L', (6, 10))
    prepared(tmp_path / 'own', tmp_path / 'there', Recipe())
    spec = sources.spec_of(opening.open_named(named(tmp_path / 'own', tmp_path / 'there', Recipe())))
    assert (spec.name, spec.shape, spec.classes) == ('own', (6, 10, 1), 0)


def test_smaller_images_are_left_out_and_counted_unless_they_may_be_enlarged(few, tmp_path):
    sizes = [min(Image.open(path).size) for path in few.rglob('0*.*')]
    _, report = prepared(few, tmp_path / 'there', Recipe(size=(40,)))
    small = sum(side < 40 for side in sizes)
    assert f'smaller than 40×40, skipped (--upscale enlarges them): {small} (' in report
    builder = opening.open_named(named(few, tmp_path / 'there', Recipe(size=(40,))))
    assert len(records(builder)) == 40 - small
    with pytest.raises(UserError, match="'train' of few has no usable images .smaller than 61×61: 40.*--upscale"):
        prepared(few, tmp_path / 'there', Recipe(size=(61,)))
    large = Recipe(size=(61,), upscale=True)
    assert prepared(few, tmp_path / 'there', large)
    assert len(records(opening.open_named(named(few, tmp_path / 'there', large)))) == 40


def test_a_folder_of_broken_files_is_refused(tmp_path):
    (tmp_path / 'own').mkdir()
    for number in range(40):
        (tmp_path / 'own' / f'{number}.png').write_bytes(b'broken')
    with pytest.raises(UserError, match='None of the 40 images of own can be read .unreadable: 40') as found:
        prepared(tmp_path / 'own', tmp_path / 'there')
    assert '\n' not in str(found.value)


def test_a_set_that_is_not_prepared_names_the_command(few, tiny):
    config = tiny('flow_matching', f'data.name=folder:{few}', 'data.size=8,12', 'data.resize=box')
    with pytest.raises(UserError, match=f'Run: genbench data prepare folder:{few} --size=8,12 --resize=box$'):
        opening.open_data(config.data)
    with pytest.raises(UserError, match="'folder:' .data.name. is incomplete; write folder:DIR"):
        opening.named('folder:')


@pytest.mark.parametrize('name', ['metadata.json', 'dataset_info.json', 'features.json'])
@pytest.mark.parametrize('content', [b'', b'{', b'[]', b'{}', b'\xff', None])
def test_damaged_files_are_one_line(few, tmp_path, name, content):
    path, _ = prepared(few, tmp_path / 'there')
    (path / name).unlink()
    if content is None:
        os.mkfifo(path / name)
    else:
        (path / name).write_bytes(content)
    with pytest.raises(UserError, match='few') as found:
        sources.spec_of(opening.open_named(named(few, tmp_path / 'there')))
    assert '\n' not in str(found.value)


# Sets of TFDS.


def test_a_set_of_tfds_is_brought_to_a_size_once(folder, tmp_path):
    original = Recipe(size=(20, 18), channels=3)
    path, _ = prepared(folder, tmp_path / 'there', original)
    home = tmp_path / 'tfds' / 'faces' / '1.0.0'
    shutil.copytree(path, home)
    info = json.loads((home / 'dataset_info.json').read_text())
    (home / 'dataset_info.json').write_text(json.dumps({**info, 'name': 'faces'}))
    config = configs.resolve({'family': {'name': 'gaussian'}, 'data': {
        'name': 'tfds:faces', 'data_dir': str(tmp_path / 'tfds'), 'size': 9, 'crop': 'edm'}})  # fmt: skip
    with pytest.raises(UserError, match='faces is not prepared by this recipe. Run: genbench data prepare faces '
                       f'--size=9 --crop=edm --data_dir={tmp_path}/tfds'):  # fmt: skip
        opening.open_data(config.data)
    opening.prepare(opening.of_config(config.data), processes=1)
    large, small = sources.open_builder('faces', str(tmp_path / 'tfds')), opening.open_data(config.data)
    assert sources.spec_of(small).name == 'faces-9-edm-lanczos'
    assert {one: info.num_examples for one, info in small.info.splits.items()} == {
        one: info.num_examples for one, info in large.info.splits.items()
    }
    before, after = records(large), records(small)
    assert before.keys() == after.keys()
    for number, row in before.items():
        wanted = Image.fromarray(row['image'][1:19]).resize((9, 9), Image.Resampling.LANCZOS)
        np.testing.assert_array_equal(after[number]['image'], wanted)
        assert after[number]['label'] == row['label']


def test_pixels_that_are_no_bytes_are_not_resized():
    with pytest.raises(UserError, match='digits have 17 levels'):
        opening.prepare(opening.named('digits', recipe=Recipe(size=(4,))), processes=1)


def test_a_set_of_hugging_face_is_prepared_like_a_folder(tmp_path):
    datasets = pytest.importorskip('datasets', reason='needs the extra hf')
    images = [Image.fromarray(pictures.drawn(number, (12, 16))) for number in range(60)]
    features = datasets.Features(
        {'picture': datasets.Image(), 'kind': datasets.ClassLabel(names=['x', 'y']), 'text': datasets.Value('string')}
    )
    rows = {'picture': images, 'kind': [n % 2 for n in range(60)], 'text': [f'number {n}' for n in range(60)]}
    datasets.Dataset.from_dict(rows, features=features).save_to_disk(tmp_path / 'set')
    name = opening.named(f'hf:{tmp_path / "set"}', str(tmp_path / 'there'), Recipe(size=(12,)))
    opening.prepare(name, processes=1)
    found = records(opening.open_named(name))
    assert sorted(found) == list(range(60))
    for number, row in found.items():
        np.testing.assert_array_equal(row['image'], np.asarray(images[number])[:, 2:14])
        assert row['label'] == number % 2


# All the way.


def test_own_images_are_prepared_shown_trained_on_and_scored(folder, data_dir, tmp_path, config_file, capsys):
    own = ['--size=8', f'--data_dir={data_dir}']
    assert cli.main(['data', 'prepare', f'folder:{folder}', *own]) == 0
    assert 'unreadable: 1' in capsys.readouterr().out
    assert cli.main(['data', 'show', f'folder:{folder}', *own, f'--out={tmp_path / "sheet.png"}']) == 0
    said = capsys.readouterr().out
    assert 'my_pictures-8-center-lanczos: 8×8, 3 channels' in said and 'кресты' in said and 'a picture, number' in said
    with Image.open(tmp_path / 'sheet.png') as sheet:
        assert sheet.size == (12 * 68 + 4, 3 * 68 + 4)
    assert cli.main(['data', 'list', f'--data_dir={data_dir}']) == 0
    assert f'folder:{folder} --size=8' in capsys.readouterr().out
    path = config_file(configs.resolve({
        'data': {'name': f'folder:{folder}', 'size': 8, 'data_dir': str(data_dir)},
        'family': {'name': 'gaussian'},
        'train': {'num_steps': 2, 'batch_size': 16},
        'evaluation': {'num_samples': 16, 'sets': 1, 'metrics': ('fd',), 'features': {'name': 'pixels'}},
    }))  # fmt: skip
    run = str(tmp_path / 'run')
    assert cli.main(['train', f'--config={path}', f'--workdir={run}']) == 0
    assert cli.main(['evaluate', run]) == 0
    rows = [json.loads(line) for line in (tmp_path / 'run' / 'results.jsonl').read_text().splitlines()]
    assert {row['dataset'] for row in rows} == {'my_pictures-8-center-lanczos'}
    assert all(np.isfinite(row['value']) for row in rows if row['metric'] == 'fd')


def test_captions_of_a_table_are_what_a_model_is_told(folder, data_dir, tiny):
    own = (f'data.name=folder:{folder}', f'data.data_dir={data_dir}', 'data.size=8', 'family.conditions=caption')
    ready = prepare(tiny('flow_matching', *own))
    rows = ready.feed.rows(np.arange(5))
    texts = [row['caption'] for row in ready.builder.as_data_source('train')][:5]
    told = ready.family.given({**rows, 'key': jax.random.split(jax.random.key(0), 5)})
    np.testing.assert_array_equal(told['caption'], captions.words(texts))
    assert told['caption'][:, :4].all()


def test_a_run_does_not_go_on_with_other_images(few, tmp_path, tiny):
    own = (f'data.name=folder:{few}', f'data.data_dir={tmp_path / "there"}', 'data.size=8', 'train.batch_size=8')
    prepared(few, tmp_path / 'there')
    train(tiny('gaussian', *own, 'train.num_steps=1'), tmp_path / 'run', quiet=True)
    (few / 'discs' / '00000.png').unlink()
    prepared(few, tmp_path / 'there')
    with pytest.raises(UserError, match='was trained on other images: few-8-center-lanczos has been prepared again'):
        train(tiny('gaussian', *own, 'train.num_steps=2'), tmp_path / 'run', quiet=True)


STUDY = """
from genbench.studies.study import Study, Trial


def get_study():
    return Study(title='Own images', claim='', trials=(Trial('fitted', {config!r}),))
"""


@pytest.mark.slow
def test_five_thousand_mixed_images_take_three_commands(tmp_path, config_file):
    """Prepared; trained on, evaluated and reported by a study; and looked up."""
    folder = pictures.mixed(tmp_path / 'pictures', 5000)
    path = config_file(configs.resolve({
        'data': {'name': f'folder:{folder}', 'size': 16},
        'family': {'name': 'gaussian'},
        'train': {'num_steps': 40, 'batch_size': 128},
        'evaluation': {'metrics': ('fd', 'likelihood'), 'num_samples': 64, 'sets': 1,
                       'classifier': {'num_steps': 20, 'channels': 8}},
    }))  # fmt: skip
    study = tmp_path / 'study.py'
    study.write_text(STUDY.format(config=str(path)))
    for command in (
        f'data prepare folder:{folder} --size=16', f'run {study} --out {tmp_path / "out"}',
        f'results {tmp_path / "out"} --metric=fd --format=csv --out={tmp_path / "fd.csv"}',
    ):  # fmt: skip
        assert cli.main(shlex.split(command)) == 0
    assert 'fitted,fd' in (tmp_path / 'fd.csv').read_text()
    assert 'pictures-16-center-lanczos' in (tmp_path / 'out' / 'report.html').read_text()

"""Folders of images: splits, labels and further fields from names and tables alone."""

import os
import pathlib

import numpy as np
import pytest

from genbench.data import contents, folders
from genbench.data.recipe import Recipe
from genbench.errors import UserError


@pytest.fixture
def made(tmp_path):
    """`made('a/1.png', …, table='…')` → a folder of such (empty) files."""

    def make(*names, **texts):
        for name in names:
            path = tmp_path / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch()
        for name, text in texts.items():
            (tmp_path / name.replace('__', '/').replace('_csv', '.csv').replace('_jsonl', '.jsonl')).write_text(text)
        return str(tmp_path)

    return make


def opened(folder, **recipe):
    return folders.open_folder(folder, Recipe(**recipe))


def rows(source):
    return {row.name: row for inside in source.splits.values() for row in inside}


MANY = [f'{number:03d}.png' for number in range(200)]


def test_the_hash_of_a_name_decides_what_is_test(made):
    source = opened(made(*MANY), test_share=0.3)
    assert set(source.splits) == {'train', 'test'} and len(rows(source)) == 200
    assert pytest.approx(len(source.splits['test']), abs=20) == 0.3 * 200  # three standard deviations


def test_images_stay_in_their_split_and_order_when_others_come(made):
    before = opened(made(*MANY[:150])).splits
    after = opened(made(*MANY)).splits
    for split, inside in before.items():
        names = [row.name for row in inside]
        assert [row.name for row in after[split] if row.name in names] == names != sorted(names)


def test_a_name_has_one_hash_however_its_accents_are_encoded():
    for share in np.linspace(0.1, 0.9, 9):
        assert contents.is_test('caf\u00e9.png', share) == contents.is_test('cafe\u0301.png', share)


def test_class_folders_are_labels_and_keep_their_names(made):
    source = opened(made(*(f'{top}/{name}' for top in ('зима', 'a b', '夏') for name in MANY[:30])))
    assert source.classes == ['a b', 'зима', '夏'] and not source.notes[:-1]
    assert {row.label for name, row in rows(source).items() if name.startswith('夏/')} == {2}
    assert all(row.label == source.classes.index(name.split('/')[0]) for name, row in rows(source).items())


def test_folders_of_splits_are_splits_and_classes_lie_below_them(made):
    source = opened(made('train/x/1.png', 'train/y/deep/2.png', 'test/y/3.png', 'val/x/4.png'))
    named = {split: [(row.name, row.label) for row in inside] for split, inside in source.splits.items()}
    assert {split: sorted(inside) for split, inside in named.items()} == {
        'train': [('train/x/1.png', 0), ('train/y/deep/2.png', 1)],
        'test': [('test/y/3.png', 1)],
        'val': [('val/x/4.png', 0)],
    }


def test_a_lonely_train_folder_is_split_by_hash(made):
    source = opened(made(*(f'train/{top}/{name}' for top in 'xy' for name in MANY[:40])))
    assert source.classes == ['x', 'y'] and set(source.splits) == {'train', 'test'}


@pytest.mark.parametrize(
    ('names', 'why'),
    [
        ([f'x/{name}' for name in MANY], 'all images are in one folder, x'),
        (
            [*(f'{top}/{name}' for top in 'xy' for name in MANY), 'z.png'],
            'no labels, because these images are in no class folder: z.png',
        ),
    ],
)
def test_where_folders_are_no_classes_it_is_said(made, names, why):
    source = opened(made(*names))
    assert source.classes == [] and any(why in note for note in source.notes)


def test_labels_can_be_left_out_or_come_from_a_table(made):
    table = 'file_name,kind\n' + '\n'.join(f'{name},{"new" if int(name[:3]) % 2 else "old"}' for name in MANY)
    folder = made(*MANY, metadata_csv=table)
    source = opened(folder, labels='kind')
    assert source.classes == ['new', 'old'] and 'kind' not in source.fields
    assert all(row.label == (int(name[:3]) + 1) % 2 for name, row in rows(source).items())
    assert opened(folder, labels='none').classes == []
    with pytest.raises(UserError, match="200 images have no text or integer field 'colour'"):
        opened(folder, labels='colour')


def test_tables_bring_fields_of_texts_and_numbers(made):
    lines = [
        f'{{"file_name": "{name}", "text": "ein Bär {name}", "age": {int(name[:3])}, "odd": {name[2]!r:.1}1}}'
        for name in MANY
    ]
    lines = [line.replace("'1", '1') for line in lines]
    captions = 'filename,weight\n' + '\n'.join(f'{name},{int(name[:3]) / 2}' for name in MANY)
    source = opened(made(*MANY, metadata_jsonl='\n'.join(lines), captions_csv=captions))
    assert source.fields == {'age': 'int64', 'caption': 'text', 'odd': 'int64', 'weight': 'float32'}
    assert rows(source)['007.png'].fields == {'age': 7, 'caption': 'ein Bär 007.png', 'odd': 1, 'weight': 3.5}


def test_what_tables_lack_is_said(made):
    table = '{"file_name": "000.png", "text": "first", "age": 1}\n{"file_name": "gone.png", "text": "none"}\n'
    source = opened(made(*MANY, metadata_jsonl=table))
    assert source.fields == {'caption': 'text'}
    assert rows(source)['001.png'].fields == {'caption': ''} and rows(source)['000.png'].fields == {'caption': 'first'}
    said = ' '.join(source.notes)
    assert 'gone.png' in said and 'images with an empty caption: 199' in said and 'field age left out' in said


def test_tables_below_splits_name_files_there(made):
    source = opened(
        made('train/1.png', 'test/2.png', train__metadata_csv='file_name,caption\n1.png,one\n',
             test__metadata_csv='file_name,caption\n2.png,two\n')
    )  # fmt: skip
    assert {row.name: row.fields['caption'] for row in rows(source).values()} == {
        'train/1.png': 'one',
        'test/2.png': 'two',
    }


@pytest.mark.parametrize(
    ('name', 'text', 'why'),
    [
        ('metadata_jsonl', '{"file_name": "1.png"\n', 'metadata.jsonl:1 is not a valid row: it is not JSON'),
        ('metadata_jsonl', '\n[1]\n', 'metadata.jsonl:2 is not a valid row'),
        ('metadata_jsonl', '{"caption": "x"}', 'metadata.jsonl:1 names no file'),
        ('captions_csv', 'a,b\n1.png,x\n', 'captions.csv:2 names no file'),
        ('captions_csv', 'file_name,caption\n1.png\n', 'captions.csv:2 has a different number of values'),
        ('captions_csv', 'file_name,caption\n1.png,a,b\n', 'captions.csv:2 has a different number of values'),
    ],
)
def test_damaged_tables_are_named_by_line(made, name, text, why):
    with pytest.raises(UserError, match=why) as found:
        opened(made(*MANY, **{name: text}))
    assert '\n' not in str(found.value)


def test_files_of_all_sorts_are_not_read_and_said(made, tmp_path):
    folder = made(*MANY, 'a.txt', 'b.mp4', 'Thumbs.db', '.hidden.png', '__MACOSX/c.png', '.git/d.png')
    os.symlink(tmp_path, tmp_path / 'loop')
    os.symlink(tmp_path / 'nowhere', tmp_path / 'dangling.jpg')
    source = opened(folder)
    assert len(rows(source)) == 201 and 'dangling.jpg' in rows(source)
    assert source.notes[0] == 'files that are not images: Thumbs.db, a.txt, b.mp4'


@pytest.mark.parametrize(
    ('names', 'recipe', 'why'),
    [
        ([], {}, 'has no image files; it has nothing'),
        (['a.txt', 'b.csv'], {}, 'it has a.txt, b.csv'),
        (['train/1.png', '2.png', 'test/3.png'], {}, 'images in no split: 2.png'),
        (['test/1.png', 'val/2.png'], {}, 'has test/, val/ but no train/'),
        (['1.png', '2.png'], {'test_share': 1e-9}, "leaves none of 2 images in 'test'"),
        (['1.png', '2.png'], {'test_share': 1 - 1e-9}, "leaves none of 2 images in 'train'"),
    ],
)
def test_folders_that_are_no_data_set_are_refused(made, names, recipe, why):
    with pytest.raises(UserError, match=why) as found:
        opened(made(*names), **recipe)
    assert '\n' not in str(found.value)


def test_a_folder_that_is_not_there_is_named(tmp_path):
    with pytest.raises(UserError, match='There is no folder .*nowhere'):
        opened(str(tmp_path / 'nowhere'))


def test_names_that_are_no_unicode_are_told(tmp_path):
    name = os.fsdecode(b'caf\xe9.png')
    (tmp_path / name).touch()
    assert pathlib.Path(tmp_path, name).exists()
    with pytest.raises(UserError) as found:
        opened(str(tmp_path), test_share=1 - 1e-9)
    str(found.value).encode()
    assert folders.told([name]) == 'caf?.png'

"""`genbench watermark`: what it writes, and the one line for every mistake."""

import json
import shutil

import numpy as np
import pytest
from PIL import Image

from genbench import cli, config, families
from genbench.data.spec import DataSpec
from genbench.errors import UserError
from genbench.evaluation import marking
from genbench.evaluation.draw import Source
from genbench.evaluation.watermarks import GaussianShading

SMALL, SPEC = '--sampler=ddim:2', DataSpec('images', (8, 8, 1), levels=17)


@pytest.fixture(scope='module')
def embedded(diffusion_run, tmp_path_factory):
    """`embedded(method)` → the folder of six images of the tiny diffusion run; only to be read."""
    folder = tmp_path_factory.mktemp('embedded')

    def images(method):
        if not (folder / method).exists():
            words = ['watermark', 'embed', str(diffusion_run), f'--method={method}', '--count=6', '--secret=a']
            assert cli.main([*words, '--seed=3', f'--out={folder}/{method}', SMALL]) == 0
        return folder / method

    return images


@pytest.fixture(scope='module')
def source(diffusion_run):
    return Source(str(diffusion_run))


def pixels(folder):
    return np.stack([np.asarray(Image.open(file)).astype(int) for file in sorted(folder.iterdir())])


def test_the_unmarked_images_are_the_samples_of_the_run_and_the_marked_ones_are_not(embedded, source):
    folder = embedded('tree_ring')
    written = sorted(path.name for path in folder.iterdir())
    assert written == ['embed.json', 'grid.png', 'key.json', 'marked', 'unmarked']
    drawn = source.draw(6, 'ddim:2', 3, []).images[..., 0]
    np.testing.assert_array_equal(pixels(folder / 'unmarked'), np.round(drawn * 255 / 16))
    assert (pixels(folder / 'unmarked') != pixels(folder / 'marked')).any((1, 2)).all()
    assert json.loads((folder / 'embed.json').read_text())['evaluations_per_image'] == 2
    key = json.loads((folder / 'key.json').read_text())
    assert (key['method'], key['radius'], key['sampler'], key['shape']) == ('tree_ring', 2, 'ddim:2', [8, 8, 1])


@pytest.mark.parametrize('method', ['tree_ring', 'gaussian_shading'])
def test_what_detection_writes(method, embedded, diffusion_run, tmp_path, capsys):
    folder = embedded(method)
    words = ['watermark', 'detect', str(diffusion_run), f'--key={folder}/key.json', '--input', f'{folder}/marked',
             '--unmarked', f'{folder}/unmarked', '--attacks=jpeg80,regenerate50', f'--out={tmp_path}/out']  # fmt: skip
    assert cli.main(words) == 0
    told = capsys.readouterr().out.splitlines()[-3:]
    assert [line.partition(':')[0] for line in told] == ['none', 'jpeg80', 'regenerate50'] and 'AUC' in told[0]
    report = json.loads((tmp_path / 'out' / 'detect.json').read_text())
    names = ['detected', 'false_alarms', 'auc']  # no TPR at 1% FPR of six images
    if method == 'gaussian_shading':
        names += ['bit_accuracy', 'unmarked_bit_accuracy']
        assert report['chance'] == pytest.approx(0.5 + 1.2672 / 16, abs=1e-3)  # the largest of six normals, 64 bits
    for found in report['attacks'].values():
        assert list(found) == names and all({*one} == {'value', 'low', 'high'} for one in found.values())
    detected = [image['p_value'] <= 0.01 for image in report['images']]
    assert detected == [image['detected'] for image in report['images']]
    assert report['attacks']['none']['detected']['value'] == pytest.approx(np.mean(detected))
    assert [image['name'] for image in report['images']] == [f'{number:04d}' for number in range(6)]
    assert len(report['images'][0].get('message', '0' * 64)) == 64 and (tmp_path / 'out' / 'grid.png').exists()


EMBED = [
    ({'method': 'tree_rings'}, 'There is no watermark.*Did you mean tree_ring'),
    ({'bits': 8}, 'tree_ring has no use for --bits'),
    ({'radius': 4}, 'radii from 1 to 3'),
    ({'method': 'gaussian_shading', 'message': '012'}, 'write zeros and ones'),
    ({'method': 'gaussian_shading', 'radius': 2}, 'gaussian_shading has no use for --radius'),
    ({'sampler': 'ancestral:2'}, 'draws noise on its way; use ddim'),
    ({'sampler': 'ddim:2:temperature=0.9'}, 'leave the option temperature out'),
    ({'sampler': 'ddmi:2'}, 'Did you mean'),
]


@pytest.mark.parametrize(('flags', 'message'), EMBED)
def test_flags_that_make_no_sense(flags, message):
    family = families.get('diffusion')(config.resolve({'family': {'name': 'diffusion'}}), SPEC)
    asked = marking.Embedding('', **flags)
    with pytest.raises(UserError, match=message):
        assert marking.chosen(family, asked.sampler) and marking.mark_of(family, asked)


def test_a_mistake_in_embedding_is_one_line(diffusion_run, tmp_path, capsys):
    words = ['embed', str(diffusion_run), f'--out={tmp_path}/out']
    complain([*words, '--radius=4'], tmp_path, capsys, 'radii from 1 to 3')
    complain([*words, '--count=0'], tmp_path, capsys, 'at least 1')


def test_a_run_that_cannot_be_inverted_says_why(trained, tmp_path, capsys):
    complain(['embed', str(trained('gan')), f'--out={tmp_path}/out'], tmp_path, capsys, 'makes images from latents')


@pytest.mark.parametrize(
    ('name', 'options', 'sampler', 'why'),
    [
        ('mean_flow', {}, '', 'jumps along it'),
        ('autoregressive', {}, '', 'from pixels or codes'),
        ('noised_flow', {}, '', 'use direct'),
        ('flow_matching', {'source': 'ring'}, '', 'points of a plane'),
        ('noised_flow', {}, 'direct', None),
        ('diffusion', {}, 'heun:4', None),
        ('diffusion', {}, 'heun:4:churn=9', 'draws noise on its way'),
    ],
)
def test_why_noise_cannot_be_found(name, options, sampler, why):
    plane = 'source' in options
    spec = DataSpec('points', (1, 2, 1), levels=65536) if plane else SPEC
    family = families.get(name)(config.resolve({'family': {'name': name, **options}}), spec)
    if why is None:
        assert marking.chosen(family, sampler).name in sampler
        return
    with pytest.raises(UserError, match=why):
        marking.chosen(family, sampler)


@pytest.mark.parametrize(
    ('name', 'content', 'message'),
    [('broken.png', b'no picture', '1 of 7 images'), ('large.png', (9, 9), 'Add --resize to change its size'),
     ('', b'', 'There is no file')],
)  # fmt: skip
def test_inputs_that_cannot_be_read(name, content, message, embedded, diffusion_run, tmp_path, capsys):
    folder = tmp_path / 'in'
    if name:
        shutil.copytree(embedded('tree_ring') / 'marked', folder)
        if isinstance(content, bytes):
            (folder / name).write_bytes(content)
        else:
            Image.fromarray(np.zeros(content, np.uint8)).save(folder / name)
    words = [f'--key={embedded("tree_ring")}/key.json', '--input', str(folder), f'--out={tmp_path}/out']
    complain(['detect', str(diffusion_run), *words], tmp_path, capsys, message)


@pytest.mark.parametrize(
    ('change', 'message'),
    [
        ({'run': {'config_hash': 'f' * 12, 'step': 4, 'state_sha256': '', 'average': 'ema'}}, 'belongs to another run'),
        ({'method': 'ring'}, 'does not know'),
        ({'format': 2}, 'does not know'),
        ({'shape': [28, 28, 1]}, 'does not fit'),
        ({'secret': 3}, 'genbench watermark embed wrote'),
        ({'radius': 0}, 'has no radius; use the file as'),
        ({'radius': 9}, 'was changed. The radius is 9; .* radii from 1 to 3'),
        ({'method': 'gaussian_shading', 'message': '01'}, 'has no pads; use the file as'),
        ({'method': 'gaussian_shading', 'message': '01', 'pads': 0}, 'has no pads; use the file as'),
        ({'method': 'gaussian_shading', 'message': '01', 'pads': -1}, 'There are -1 pads; .* from 1 to 4194304'),
        ({'method': 'gaussian_shading', 'message': '', 'pads': 1}, 'has no message; use the file as'),
        ({'method': 'gaussian_shading', 'message': 'abc', 'pads': 1}, "The message is 'abc'; write zeros and ones"),
        (None, 'There is no file'),
    ],
)
def test_a_key_that_does_not_fit(change, message, embedded, source, tmp_path):
    key = json.loads((embedded('tree_ring') / 'key.json').read_text())
    if change is not None:
        (tmp_path / 'key.json').write_text(json.dumps({**key, **change}))
    with pytest.raises(UserError, match=message):
        marking.read_key(str(tmp_path / 'key.json'), source)


def test_a_folder_in_place_of_the_key(embedded, source):
    folder = embedded('tree_ring')
    with pytest.raises(UserError, match=f'is a folder; use --key={folder}/key.json'):
        marking.read_key(str(folder), source)


@pytest.mark.parametrize('count', [99, 100])
def test_power_needs_a_hundred_unmarked_images(count):
    mark, draw = GaussianShading(SPEC.shape, 'a', bits=8), np.random.default_rng(0)
    found = marking.summary(*(mark.tested(draw.standard_normal((n, *SPEC.shape))) for n in (5, count)))
    assert ('tpr' in found) == (count >= 100) and 'auc' in found


def test_a_key_of_another_step_names_the_step(embedded, diffusion_run, tmp_path, capsys):
    folder = embedded('tree_ring')
    words = [f'--key={folder}/key.json', '--input', f'{folder}/marked', f'--out={tmp_path}/out', '--step=2']
    complain(['detect', str(diffusion_run), *words], tmp_path, capsys, 'its step is 4, and that of this run 2')


def test_regeneration_by_the_last_step_changes_little_and_the_seed_decides_what(source):
    images = np.random.default_rng(0).integers(0, 17, (6, 8, 8, 1))
    one, other = (marking._regenerated(source, images, 2, seed) for seed in (0, 1))
    assert 0 < np.abs(one - images).mean() < 2 and (one != other).any()


@pytest.mark.parametrize(('words', 'message'), [
    (('--attacks=jpeg,bluur',), 'Did you mean blur'),
    (('--regenerator={run}',), 'no use without --attacks=regenerate'),
    (('--attacks=regenerate', '--regenerator={gan}'), 'follows no path from noise to images'),
])  # fmt: skip
def test_attacks_that_cannot_be_made(words, message, embedded, diffusion_run, trained, tmp_path, capsys):
    folder = embedded('tree_ring')
    words = [word.format(run=diffusion_run, gan=trained('gan')) for word in words]
    words = [f'--key={folder}/key.json', '--input', f'{folder}/marked', f'--out={tmp_path}/out', *words]
    complain(['detect', str(diffusion_run), *words], tmp_path, capsys, message)


def complain(words, folder, capsys, *messages):
    assert cli.main(['watermark', *words]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1 and all(message in lines[0] for message in messages), lines
    assert not (folder / 'out').exists() and not [*folder.glob('.out*')]

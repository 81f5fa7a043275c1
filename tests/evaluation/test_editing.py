"""`genbench edit`: what it writes, and the one line for every mistake."""

import dataclasses
import json

import numpy as np
import pytest
from PIL import Image

from genbench import cli, config, families
from genbench.data.spec import DataSpec
from genbench.errors import UserError
from genbench.evaluation import editing, editing_inputs

SMALL = 'ancestral:2:posterior=ddnm'


@pytest.fixture
def pictures(tmp_path):
    """A folder of two grey images of 8×8 pixels."""
    folder = tmp_path / 'in'
    folder.mkdir()
    for number in range(2):
        pixels = np.random.default_rng(number).integers(0, 17, (8, 8)) * 255 / 16
        Image.fromarray(np.round(pixels).astype(np.uint8)).save(folder / f'image{number}.png')
    return folder


def read(path):
    return np.asarray(Image.open(path)).astype(int)


def test_an_inpainted_image_keeps_what_the_mask_shows(diffusion_run, pictures, tmp_path, capsys):
    mask = np.zeros((8, 8), np.uint8)
    mask[:, :3] = 255
    Image.fromarray(mask).save(tmp_path / 'mask.png')
    words = ['edit', str(diffusion_run), '--task=inpaint', '--input', str(pictures), f'--mask={tmp_path}/mask.png',
             f'--out={tmp_path}/out', f'--sampler={SMALL}', '--count=2', '--degrade']  # fmt: skip
    assert cli.main(words) == 0 and '4 images written' in capsys.readouterr().out
    written = sorted(path.name for path in (tmp_path / 'out').iterdir())
    assert written == ['edit.json', 'grid.png', 'image0-1.png', 'image0-2.png', 'image1-1.png', 'image1-2.png']
    for name in ('image0', 'image1'):
        one, other, given = (read(path) for path in (tmp_path / 'out' / f'{name}-1.png', tmp_path / 'out' /
                                                     f'{name}-2.png', pictures / f'{name}.png'))  # fmt: skip
        np.testing.assert_array_equal(one[:, :3], given[:, :3])
        assert (one[:, 3:] != given[:, 3:]).any() and (one != other).any()
    report = json.loads((tmp_path / 'out' / 'edit.json').read_text())
    assert (
        report['evaluations_per_image'] == 2 and report['misfit'] < 1e-6 and not report['gradients_through_the_network']
    )
    assert report['sampler_options'] == {'problem': 'mask', 'posterior': 'ddnm'} and 0 < report['psnr'] < 99


@dataclasses.dataclass
class Asked:
    inputs: tuple[str, ...]
    resize: bool = False
    data_dir: str = ''


def test_a_folder_of_results_is_read_without_its_grid(pictures):
    Image.fromarray(np.zeros((16, 24), np.uint8)).save(pictures / 'grid.png')
    asked, spec = Asked((str(pictures),)), DataSpec('images', (8, 8, 1), levels=17)
    with pytest.raises(UserError, match='grid.png'):
        editing_inputs.read(asked, spec)  # the grid of somebody else is an image like any other
    (pictures / 'edit.json').write_text('{}')
    names, found = editing_inputs.read(asked, spec)
    assert names == ['image0', 'image1'] and found.shape == (2, 8, 8, 1)


def test_a_small_image_is_enlarged(diffusion_run, pictures, tmp_path):
    (tmp_path / 'out.part').mkdir()  # a folder of the user's, which stays
    Image.fromarray(read(pictures / 'image0.png')[::2, ::2].astype(np.uint8)).save(tmp_path / 'small.png')
    words = ['edit', str(diffusion_run), '--task=super-resolve', '--input', str(tmp_path / 'small.png'),
             f'--out={tmp_path}/out', f'--sampler={SMALL}']  # fmt: skip
    assert cli.main(words) == 0
    found, small = read(tmp_path / 'out' / 'small.png'), read(tmp_path / 'small.png')
    assert found.shape == (8, 8) and 'psnr' not in json.loads((tmp_path / 'out' / 'edit.json').read_text())
    means = found.reshape(4, 2, 4, 2).mean((1, 3))
    assert np.abs(means - small).max() < 70  # where clipping to black and white leaves it
    assert {path.name for path in tmp_path.iterdir()} >= {'out', 'out.part'} and not [*tmp_path.glob('.out*')]


def test_a_failure_leaves_no_folder(tmp_path, monkeypatch):
    monkeypatch.setattr(editing, '_fill', lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        editing._write(tmp_path / 'out', None, None, None, {})
    assert not [*tmp_path.iterdir()]


def told(task, name='diffusion', **flags):
    """The sampler of a task with these flags."""
    family = families.get(name)(config.resolve({'family': {'name': name}}), DataSpec('images', (8, 8, 1), levels=17))
    return editing.chosen(family, editing.Request(task, (), '', **flags))


@pytest.mark.parametrize(
    ('name', 'text', 'wanted'),
    [('diffusion', 'ancestral:50', ('ancestral', 'ddnm', 3)), ('diffusion', 'ddim:5', ('ddim', 'ddnm', 3)),
     ('diffusion', 'ddim:5:posterior=pigdm', ('ddim', 'pigdm', 1)),
     ('diffusion', 'ddim:5:resample=2', ('ddim', 'ddnm', 2)),
     ('shortcut', '', ('flow_map', 'replacement', 3)),
     ('consistency_training', '', ('multistep_consistency', 'ddnm', 3))],
)  # fmt: skip
def test_what_a_sampler_leaves_out_comes_from_the_task(name, text, wanted):
    chosen = told('inpaint', name, sampler=text)
    assert (chosen.name, chosen.options.posterior, chosen.options.resample) == wanted


@pytest.mark.parametrize(
    ('text', 'noise'), [('', 0.036), ('ddim:2', 0.036), ('ddim:2:noise=0.01', 0.036), ('ddim:2:noise=0.3', 0.3)]
)
def test_files_have_at_least_the_noise_of_rounding(text, noise):
    """17 levels are 1/8 apart, and a uniform error of that width has the deviation 1/8 / √12 = 0.036."""
    for degrade in (False, True):
        assert told('deblur', sampler=text, degrade=degrade).options.noise == pytest.approx(noise, abs=1e-3)
    assert told('inpaint').options.noise == 0 and told('denoise', sampler='ddim:2').options.noise == 0.2


@pytest.mark.parametrize(
    ('task', 'flags', 'message'),
    [
        ('inpaint', {'problem': 'haff'}, '--problem is haff.*Did you mean half'),
        ('super-resolve', {'problem': 'pool99'}, '--problem is pool99.*pool with a number from 2 to 64'),
        ('inpaint', {'problem': 'mask'}, 'add --mask=FILE'),
        ('vary', {'problem': 'half'}, 'starts at the input.*in --problem out'),
        ('vary', {'degrade': True}, 'degrades nothing; leave out --degrade'),
        ('inpaint', {'problem': 'half', 'mask': 'x.png'}, '--problem and --mask both say'),
        ('inpaint', {'sampler': 'ddim:2:problem=half', 'mask': 'x.png'}, '--mask and --sampler both say'),
        ('deblur', {'mask': 'x.png'}, 'has no use for --mask'),
        ('colourise', {}, 'are grey'),
    ],
)
def test_flags_that_do_not_go_together(task, flags, message):
    with pytest.raises(UserError, match=message):
        told(task, **flags)


WRONG = [
    (('--task=inpant',), 'There is no task', 'Did you mean inpaint'),
    (('--task=inpaint', '--mask={tmp}/missing.png'), 'There is no file', 'missing.png'),
    (('--task=inpaint', '--mask={tmp}/large.png'), 'has 9×9 pixels', ''),
    (('--task=inpaint', '--count=0'), 'at least 1', ''),
    (('--task=super-resolve',), 'whole images and degrades them first', ''),
    (('--task=inpaint', '--given=label=3'), 'this run was trained without conditions; train with', ''),
]  # fmt: skip


@pytest.mark.parametrize(('words', 'message', 'hint'), WRONG)
def test_a_mistake_is_one_line_and_nothing_is_written(words, message, hint, diffusion_run, pictures, tmp_path, capsys):
    Image.fromarray(np.zeros((9, 9), np.uint8)).save(tmp_path / 'large.png')
    complain(diffusion_run, pictures, tmp_path, capsys, words, message, hint)


@pytest.mark.parametrize(
    ('name', 'content', 'message'),
    [('broken.png', b'no picture', '1 of 3 images'), ('large.png', (9, 9), 'Add --resize to change its size')],
)
def test_a_folder_with_a_file_that_does_not_fit(name, content, message, diffusion_run, pictures, tmp_path, capsys):
    if isinstance(content, bytes):
        (pictures / name).write_bytes(content)
    else:
        Image.fromarray(np.zeros(content, np.uint8)).save(pictures / name)
    complain(diffusion_run, pictures, tmp_path, capsys, ('--task=inpaint',), message)


def complain(run, inputs, folder, capsys, words, *messages):
    words = [word.format(tmp=folder) for word in words]
    assert cli.main(['edit', str(run), '--input', str(inputs), f'--out={folder}/out', *words]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1 and all(message in lines[0] for message in messages), lines
    assert not list(folder.glob('out*'))


def test_a_missing_file_is_said_to_be_missing():
    with pytest.raises(UserError, match='There is no file absent.png'):
        editing_inputs.read(editing.Request('inpaint', ('absent.png',), ''), DataSpec('images', (8, 8, 1), levels=17))


def test_a_family_without_a_path_says_why(trained, pictures, tmp_path, capsys):
    complain(
        trained('gan'), pictures, tmp_path, capsys, ('--task=inpaint',), 'follows a path from noise', 'from latents'
    )


def test_the_help_names_every_task():
    text = next(action.help for action in _actions() if '--task' in action.option_strings)
    assert all(name in text for name in editing.TASKS)


def _actions():
    (verbs,) = [action.choices for action in cli.parser()._actions if action.dest == 'verb']
    return verbs['edit']._actions

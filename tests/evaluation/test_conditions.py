"""Conditions in evaluation and on the command line, seen through a family whose images are what it is told."""

import re
import shutil

import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image
from untrained import Untrained

from genbench import cli
from genbench.errors import UserError
from genbench.evaluation import harness, obedience, samples
from genbench.families.base import Likelihood, Samples, register
from genbench.training.loop import train
from genbench.training.metrics import read_rows


@register('echo')
class Echo(Untrained):
    """It shows the low resolution that it is told, and gives each image the nats of its distance to it."""

    def sample(self, networks, keys, given, sampler):
        return Samples(self.spec.quantise(given['low_resolution']), 1)

    def log_prob(self, networks, images, given, keys):
        nats = -jnp.abs(self.spec.dequantise(images) - given['low_resolution']).sum((1, 2, 3))
        return {'log_prob': nats, 'again': nats, 'off': nats}

    @property
    def likelihoods(self):
        return (Likelihood('distance', 'estimate', self.log_prob, {}, errors=('off',)),)


@pytest.fixture(scope='module')
def echo_run(tiny, tmp_path_factory):
    folder = tmp_path_factory.mktemp('echo') / 'run'
    train(tiny('echo', 'train.num_steps=1', 'family.conditions=low_resolution:4,caption'), folder, quiet=True)
    return folder


@pytest.fixture
def echo_copy(echo_run, tmp_path):
    return shutil.copytree(echo_run, tmp_path / 'echo')


def shrunk(images):
    """Integer images (n, 8, 8, 1) averaged over squares of four, as levels and as reals."""
    centres = ((2 * images.astype(float) + 1) / 17 - 1)[..., 0]
    small = np.stack([np.asarray(Image.fromarray(one.astype(np.float32)).resize((2, 2), Image.BOX)) for one in centres])
    real = np.kron(small, np.ones((4, 4)))[..., None]
    return np.clip(np.floor((real + 1) * 17 / 2), 0, 16).astype(int), real


def kept_samples(folder):
    files = sorted(folder.glob('evaluation/**/samples/*/*.npz'))
    return np.concatenate([np.load(file)['images'] for file in files])


@pytest.mark.parametrize('ways', [((64, 64),), ((50, 64), (64, 17)), ((64, 13),)], ids=str)
def test_the_rows_of_a_shard_are_drawn_from_train_by_its_number(ways, echo_copy, digits, monkeypatch):
    """Whatever the batch, and wherever an earlier start had stopped."""
    monkeypatch.setattr(samples, 'SHARD', 40)
    for count, batch in ways:
        words = [f'evaluation.num_samples={count}', f'evaluation.batch_size={batch}', 'evaluation.metrics=fd']
        harness.evaluate(echo_copy, words, quiet=True)
    rows = []
    for shard, count in ((0, 40), (1, 24)):
        draw = np.random.Generator(np.random.Philox(np.random.SeedSequence([0, 0, shard])))
        rows.append(draw.integers(0, 1437, 40)[:count])
    wanted, real = shrunk(digits[1].images[np.concatenate(rows)])
    sharp = np.abs((real + 1) * 17 / 2 % 1 - 0.5) < 0.49  # what rounding cannot carry into the next level
    found = kept_samples(echo_copy)
    assert found.shape == wanted.shape and sharp.mean() > 0.9
    np.testing.assert_array_equal(found[sharp], wanted[sharp])


def test_samples_are_compared_with_the_pictures_they_were_drawn_for(echo_copy, digits, monkeypatch):
    """By hand on what is stored, over the border of two shards. The samples show their low resolutions, to a level."""
    monkeypatch.setattr(samples, 'SHARD', 40)
    monkeypatch.setattr(obedience, 'SHARD', 40)
    words = ['evaluation.num_samples=64', 'evaluation.metrics=condition_distance']
    (row,) = harness.evaluate(echo_copy, words, quiet=True)
    rows = []
    for shard in (0, 1):
        draw = np.random.Generator(np.random.Philox(np.random.SeedSequence([0, 0, shard])))
        rows.append(draw.integers(0, 1437, 40))
    seen, asked = shrunk(kept_samples(echo_copy))[1], shrunk(digits[1].images[np.concatenate(rows)])[1]
    others = np.concatenate([np.roll(asked[:40], -1, 0), np.roll(asked[40:], -1, 0)])
    own, other = (np.sqrt(np.square(seen - part[:64]).mean((1, 2, 3))) for part in (asked, others))
    assert row['value'] == pytest.approx(own.mean(), rel=1e-4) and 0 < row['value'] < 1 / 17
    assert row['details']['others'] == pytest.approx(other.mean(), rel=1e-4) and other.mean() > 0.2
    assert row['protocol']['condition'] == 'low_resolution' and row['n'] == 64
    assert row['std_err'] == pytest.approx(own.std(ddof=1) / 8, rel=1e-3)
    assert not harness.evaluate(echo_copy, words, quiet=True)


def test_a_model_without_pictures_cannot_be_compared_with_them(diffusion_run):
    with pytest.raises(UserError, match='condition_distance compares .* this model is given none'):
        harness.evaluate(diffusion_run, ['evaluation.metrics=condition_distance'], quiet=True)


def test_the_likelihood_tells_each_image_its_own_row(echo_copy, digits):
    """Parts that are errors are reported by the root of their mean square, and others by their mean."""
    harness.evaluate(echo_copy, ['evaluation.metrics=likelihood', 'evaluation.batch_size=100'], quiet=True)
    (row,) = [row for row in read_rows(echo_copy / 'results.jsonl') if row['metric'] == 'bits_per_dim']
    images = digits[2].images
    distance = np.abs((2 * images.astype(float) + 1) / 17 - 1 - shrunk(images)[1]).sum((1, 2, 3))
    assert row['value'] == pytest.approx(distance.mean() / (64 * np.log(2)), rel=1e-5)
    assert row['details']['again'] == pytest.approx(row['value'])
    assert row['details']['off'] == pytest.approx(np.sqrt(np.mean(distance**2)) / (64 * np.log(2)), rel=1e-5)
    assert row['n'] == 360 and row['protocol']['given_from'] == "each image's own row"


def test_a_protocol_names_the_conditions_and_where_their_rows_come_from(echo_copy, tiny, tmp_path):
    harness.evaluate(echo_copy, ['evaluation.metrics=fd'], quiet=True)
    told = [row['protocol'] for row in read_rows(echo_copy / 'results.jsonl') if row['metric'] == 'fd']
    assert {(*one['given'], one['given_from']) for one in told} == {
        ('low_resolution:4', 'caption', 'rows of train at random')
    }
    train(tiny('gaussian', 'train.num_steps=1'), tmp_path / 'gaussian', quiet=True)
    for row in harness.evaluate(tmp_path / 'gaussian', ['evaluation.metrics=fd,likelihood'], quiet=True):
        if row['metric'] in ('fd', 'bits_per_dim'):
            assert row['protocol']['given'] == 'nothing' and 'given_from' not in row['protocol']


def sampled(folder, out, *words):
    assert cli.main(['sample', str(folder), f'--out={out}', *words]) == 0
    return np.load(out)


def test_samples_are_given_what_the_command_says(echo_run, digits, tmp_path, capsys):
    """A picture of an image of the data, and a caption beside it; all images share them."""
    image = digits[2].images[7]
    Image.fromarray(np.round(image[..., 0] * (255 / 16)).astype(np.uint8)).save(tmp_path / 'seven.png')
    words = ('--count=5', f'--given=low_resolution={tmp_path}/seven.png', '--given', 'caption=a bold = sign')
    found = sampled(echo_run, tmp_path / 'x.npz', *words)
    np.testing.assert_array_equal(found['images'], np.repeat(shrunk(image[None])[0], 5, axis=0))
    assert found['given_low_resolution'].shape == (5, 8, 8, 1) and found['given_caption'].shape == (5, 16)
    assert (found['given_caption'] > 0).sum(1).tolist() == [4] * 5


def test_without_words_samples_are_given_the_first_rows_of_train(echo_run, digits, tmp_path, capsys):
    found = sampled(echo_run, tmp_path / 'x.npz', '--count=12')
    np.testing.assert_allclose(found['given_low_resolution'], shrunk(digits[1].images[:12])[1], atol=1e-6)


def test_a_caption_is_short_for_a_condition(echo_run, tmp_path, capsys):
    picture = ('--count=2', f'--given=low_resolution={tmp_path}/seven.png')
    Image.fromarray(np.full((8, 8), 255, np.uint8)).save(tmp_path / 'seven.png')
    short = sampled(echo_run, tmp_path / 'x.npz', *picture, '--caption', 'a = sign, twice')
    long = sampled(echo_run, tmp_path / 'y.npz', *picture, '--given=caption=a = sign, twice')
    np.testing.assert_array_equal(short['given_caption'], long['given_caption'])
    assert cli.main(['sample', str(echo_run), f'--out={tmp_path}/z.png', '--caption=a', '--given=caption=b']) == 2
    (line,) = capsys.readouterr().err.splitlines()[-1:]
    assert '--caption and --given caption=… say the same; use one of them' in line and not (tmp_path / 'z.png').exists()


@pytest.mark.parametrize(
    ('words', 'why'),
    [
        (('label=3',), 'this run takes low_resolution, caption'),
        (('caption',), 'should be KIND=VALUE'),
        (('=3',), 'this run takes'),
        (('caption=a', 'caption=b'), 'each kind once'),
        (('low_resolution=nowhere.png',), 'nowhere.png cannot be read as a picture'),
        (('low_resolution=',), 'cannot be read as a picture'),
        (('low_resolution={tmp}/small.png',), 'has 4×8 pixels; the images of digits have 8×8'),
    ],
)
def test_what_cannot_be_given_is_refused_in_one_line(words, why, echo_run, tmp_path, capsys):
    Image.fromarray(np.zeros((8, 4), np.uint8)).save(tmp_path / 'small.png')
    given = [f'--given={word.format(tmp=tmp_path)}' for word in words]
    assert cli.main(['sample', str(echo_run), f'--out={tmp_path}/x.png', *given]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert why in line and not (tmp_path / 'x.png').exists()


@pytest.mark.parametrize(
    ('family', 'conditions', 'why'),
    [
        ('diffusion', 'captions', "There is no condition 'captions'.*Did you mean caption"),
        ('diffusion', 'grey', 'grey needs colour images'),
        ('diffusion', 'low_resolution:3', 'sides divisible by 3'),
        ('diffusion', 'caption,caption', 'names caption twice'),
        ('vae', 'caption', 'This network cannot take the condition caption'),
        ('gan', 'low_resolution:4', 'This network cannot take the condition low_resolution'),
        ('normalizing_flow', 'masked', 'This network cannot take the condition masked'),
        ('gaussian', 'caption', 'This network cannot take the condition caption'),
    ],
)
def test_a_condition_that_data_or_network_do_not_have_is_refused_before_anything_is_written(
    family, conditions, why, tiny, config_file, tmp_path, capsys
):
    path = config_file(tiny(family))
    words = ['train', f'--config={path}', f'--workdir={tmp_path}/run', f'--config.family.conditions={conditions}']
    assert cli.main(words) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert re.search(why, line) and not (tmp_path / 'run').exists()

"""Configs: typed overrides with suggestions, snapshots that come back, and files that hold only what differs."""

import pathlib

import pytest

from genbench import config as configs
from genbench.errors import UserError

ROOT = pathlib.Path(__file__).resolve().parents[1]
FILES = sorted(ROOT.glob('configs/*/*.py'))
NAMES = ('data.name', 'family.name', 'network.name')  # they say what a config is, be it a default or not

needs_files = pytest.mark.parametrize('path', FILES, ids=lambda path: f'{path.parent.name}/{path.stem}')


def read_again(config, tmp_path):
    (tmp_path / 'config.json').write_text(configs.to_json(config))
    return configs.read(tmp_path / 'config.json')


def resolve(*overrides, **sections):
    return configs.resolve({'family': {'name': 'diffusion'}, **sections}, overrides)


@pytest.mark.parametrize(
    ('override', 'suggestion'),
    [
        ('train.num_step=5', 'train.num_steps'),
        ('trian.num_steps=5', 'train.num_steps'),
        ('learning_rate=1', 'optimizer.learning_rate'),
        ('family.schedul=linear', 'family.schedule'),
        ('network.channel=8', 'network.channels'),
        ('optimizer.lr=1', 'optimizer.learning_rate'),
        ('train.lr=1', 'optimizer.learning_rate'),
        ('train.bs=1', 'train.batch_size'),
    ],
)
def test_an_unknown_key_brings_the_nearest(override, suggestion):
    with pytest.raises(UserError, match=f'no config key.*Did you mean .*{suggestion}'):
        resolve(override)


def test_a_wrong_section_brings_the_right_one_alone():
    with pytest.raises(UserError, match=r'Did you mean train\.num_steps\?$'):
        resolve('trian.num_steps=5')


@pytest.mark.parametrize(
    ('overrides', 'sections', 'words'),
    [
        (('network.name=dit',), {'network': {'multipliers': (1, 1)}}, "network.name is 'dit', but network.multipliers "
         'belongs to unet, ncsnpp, adm, edm2, autoencoder, resnet, r3gan, dcgan, sngan, stylegan2, stylegan3, '
         'progressive, couplings; dit has network.depth'),
        (('family.critic_steps=2',), {}, "family.name is 'diffusion', but family.critic_steps belongs to gan"),
    ],
)  # fmt: skip
def test_a_key_of_another_network_or_family_is_called_so(overrides, sections, words):
    with pytest.raises(UserError) as raised:
        resolve(*overrides, **sections)
    assert words in str(raised.value)


@pytest.mark.parametrize('name', ['difusion', 'vea', ''])
def test_an_unknown_family_brings_the_known_ones(name):
    with pytest.raises(UserError, match='Did you mean|Choose from: |known names'):
        configs.resolve({'family': {'name': name}})


def test_an_unknown_network_brings_the_nearest():
    with pytest.raises(UserError, match="There is no network 'unit'.*unet"):
        resolve('network.name=unit')


@pytest.mark.parametrize(
    ('override', 'expected'),
    [
        ('train.num_steps=many', 'an integer'),
        ('train.num_steps=1.5', 'an integer'),
        ('train.num_steps=True', 'an integer'),
        ('optimizer.learning_rate=fast', 'a float'),
        ('data.flip=maybe', 'true or false'),
        ('network.multipliers=(1,"2")', 'a tuple of int'),
    ],
)
def test_a_wrong_type_names_the_expected_one(override, expected):
    with pytest.raises(UserError, match=f'{override.split("=")[0]} expects {expected}'):
        resolve(override)


@pytest.mark.parametrize('value', [3, None, ('a',)])
def test_types_in_a_file_are_checked_too(value):
    with pytest.raises(UserError, match='optimizer.name expects a string'):
        resolve(optimizer={'name': value})


@pytest.mark.parametrize(
    ('override', 'value'),
    [
        ('train.num_steps=1e3', 1000),
        ('optimizer.learning_rate=1', 1.0),
        ('data.flip=true', True),
        ('data.flip=0', False),
        ('family.schedule=linear', 'linear'),
        ('network.multipliers=1,2,2', (1, 2, 2)),
        ('network.multipliers=(1,)', (1,)),
        ('network.multipliers=3', (3,)),
        ('evaluation.samplers=ddim:10,heun:25', ('ddim:10', 'heun:25')),
        ('evaluation.samplers=ddim:10', ('ddim:10',)),
        ('evaluation.samplers=()', ()),
        ('evaluation.metrics=fd', ('fd',)),
        ('data.data_dir=/a=b', '/a=b'),
    ],
)
def test_an_override_becomes_the_type_of_its_key(override, value):
    found = dict(configs.flatten(resolve(override)))[override.split('=')[0]]
    assert found == value
    assert type(found) is type(value)


@pytest.mark.parametrize(('override', 'words'), [('train.num_steps', 'has no value'), ('train=5', 'is a section')])
def test_what_is_no_override_is_said(override, words):
    with pytest.raises(UserError, match=words):
        resolve(override)


def test_overrides_win_over_the_file_and_the_file_over_the_family():
    assert configs.resolve({'family': {'name': 'gan'}}).optimizer.b1 == 0.0
    given = {'family': {'name': 'gan'}, 'optimizer': {'b1': 0.5}}
    assert configs.resolve(given).optimizer.b1 == 0.5
    assert configs.resolve(given, ['optimizer.b1=0.7']).optimizer.b1 == 0.7


def test_a_resolved_config_is_locked():
    with pytest.raises((AttributeError, KeyError)):
        resolve().train.num_step = 5


def test_a_snapshot_comes_back_as_it_was(tmp_path):
    config = resolve('evaluation.samplers=ddim:10', 'network.multipliers=1,2', 'optimizer.learning_rate=3e-4')
    again = read_again(config, tmp_path)
    assert configs.difference(config, again) == {}
    assert configs.config_hash(config) == configs.config_hash(again)


@pytest.mark.parametrize(
    'override',
    ['evaluation.num_samples=5', 'evaluation.ode.num_steps=5', 'data.data_dir=/elsewhere', 'checkpoint.every=7',
     'train.log_every=3'],
)  # fmt: skip
def test_the_hash_ignores_what_does_not_change_the_experiment(override):
    assert configs.config_hash(resolve(override)) == configs.config_hash(resolve())


@pytest.mark.parametrize('override', ['train.seed=1', 'data.name=mnist', 'family.prediction=x', 'train.num_steps=7'])
def test_the_hash_sees_what_changes_the_experiment(override):
    assert configs.config_hash(resolve(override)) != configs.config_hash(resolve())


# As they shipped on 27 November 2026. A key that is added later belongs in `config._LATER` or `_LATER_OF`.
HASHES = {
    'digits/autoregressive': '0f176e1d46fe',
    'digits/consistency': 'bed2ce373f77',
    'digits/continuous_consistency': '40426a2ee802',
    'digits/control': 'da8148862a4d',
    'digits/described': '7124073d037e',
    'digits/diffusion': 'e1b0697f95ec',
    'digits/flow_matching': '8eb0c0ff73e8',
    'digits/gan': 'f111a6a50c3a',
    'digits/inductive_moment_matching': '00fc66c2d5b2',
    'digits/kl_autoencoder': 'fb84f96d307a',
    'digits/latent_diffusion': 'cbdb3dc4f2eb',
    'digits/mean_flow': '0a4dc151c5b8',
    'digits/normalizing_flow': '8ce9e2b07ed7',
    'digits/reflow': 'fdf905f8ce2b',
    'digits/vae': '88f46d6d4e07',
    'digits/vq_gan': 'fa77257e6e8f',
}


@pytest.mark.parametrize('name', HASHES)
def test_keys_that_were_added_later_leave_the_hashes_of_older_runs(name):
    assert configs.config_hash(configs.load(name)) == HASHES[name]


def test_a_difference_holds_both_values_and_keys_of_one_side():
    left, right = resolve('train.seed=1'), configs.resolve({'family': {'name': 'vae'}})
    found = configs.difference(left, right)
    assert found['train.seed'] == (1, 0)
    assert found['family.latent'] == (None, 16)
    assert 'train.batch_size' not in found


def test_there_are_configs():
    assert FILES


@needs_files
def test_a_shipped_config_resolves_and_comes_back(path, tmp_path):
    config = configs.load(str(path))
    assert configs.difference(config, read_again(config, tmp_path)) == {}


@needs_files
def test_a_shipped_config_holds_only_what_differs_from_the_defaults(path):
    given = dict(configs.flatten(configs.read_file(str(path))))
    named = {key: {'name': given[f'{key}.name']} for key in ('family', 'network') if f'{key}.name' in given}
    defaults = dict(configs.flatten(configs.resolve(named)))
    assert [key for key, value in given.items() if key not in NAMES and defaults[key] == value] == []


@needs_files
def test_a_shipped_config_says_its_command(path):
    first_lines = path.read_text().split('"""')[1]
    assert f'genbench train --config={path.relative_to(ROOT)} --workdir=runs/' in first_lines


@needs_files
def test_a_shipped_config_says_in_what_it_differs_from_its_paper(path):
    words = path.read_text().split('"""')[1]
    assert any(start in words for start in ('Differs from the paper: ', 'As in the paper', 'No paper to differ from'))

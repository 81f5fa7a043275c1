"""Values that no key can hold are refused when a config is resolved; `GENBENCH_BAD_INPUTS=all` tries all of them."""

import os
import zlib

import pytest
import shipped

from genbench import config as configs
from genbench import families, networks, ranges
from genbench.errors import UserError
from genbench.evaluation import grid

ALL = os.environ.get('GENBENCH_BAD_INPUTS') == 'all'


def some(cases, share):
    """All cases, or each with this chance by its own name, so that the choice stays the same."""
    return [case for case in cases if ALL or zlib.crc32(repr(case).encode()) % 1000 < 1000 * share]


def combinations():
    """(family, network) of everything that ships."""
    for family in shipped.NAMES:
        own = families.get(family).defaults().get('network', {}).get('name', 'none')
        others = ('unet', 'dit') if own in ('unet', 'dit') else (own,)
        yield from ((family, network) for network in others)


def resolved(family, network, *overrides):
    return configs.resolve({'family': {'name': family}, 'network': {'name': network}}, overrides)


def keys():
    """{key: (family, network, default)}, each key once unless all are wanted."""
    found = {}
    for family, network in combinations():
        for key, value in configs.flatten(resolved(family, network)):
            found.setdefault((key, family, network) if ALL else key, (key, family, network, value))
    return list(found.values())


UNREADABLE = (
    '',
    'many',
    '{[]: 1}',
    '[' * 5000,
    '(' * 90 + ')' * 90,
    '-' * 9000 + '1',
    '1+',
    '{}',
    'None',
    '[[1]]',
    'a\0b',
)
NO_NUMBERS = (
    'nan',
    'inf',
    '-inf',
    '1e999',
    '1e300',
    '-7',
    '-7.5',
    '9' * 5000,
    '1' + '0' * 400,
    '0x' + 'f' * 5000,
    'True',
)
NO_TEXTS = ('a\0b', '\udcff')


def bad_values(key, default):
    number = type(default) in (int, float)
    items = {type(item) for item in default} if isinstance(default, tuple) else set()
    if number:
        return [*UNREADABLE, *NO_NUMBERS]
    if isinstance(default, bool):
        return [*UNREADABLE, *NO_NUMBERS[:-1], '2']
    if items <= {int, float} and items:
        return [*UNREADABLE[1:], *NO_NUMBERS]
    return [*NO_TEXTS, *((f'{value},' for value in ('1.5', 'None', '[1]')) if isinstance(default, tuple) else ())]


VALUES = [(family, network, f'{key}={value}') for key, family, network, default in keys()
          for value in bad_values(key, default)]  # fmt: skip


def named(case):
    return '-'.join(str(part)[:40].encode('ascii', 'backslashreplace').decode() for part in case)


@pytest.mark.parametrize('case', some(VALUES, 0.15), ids=named)
def test_a_value_that_no_key_can_hold_is_refused(case):
    family, network, override = case
    with pytest.raises(UserError) as caught:
        resolved(family, network, override)
    assert len(str(caught.value)) < 600


@pytest.mark.parametrize(
    'override',
    ['optimizer.learning_rate=-1', 'optimizer.learning_rate=0', 'optimizer.b1=2', 'optimizer.b2=1',
     'train.ema_decay=1.5', 'train.ema_decay=1', 'optimizer.clip_norm=-3', 'network.dropout=-1', 'network.dropout=1',
     'family.num_timesteps=0', 'family.num_timesteps=2147483647', 'optimizer.learning_rate=1e30',
     'evaluation.ais.num_images=-1', 'evaluation.ais.num_images=1',
     'evaluation.num_samples=1', 'evaluation.metrics=()', 'evaluation.samplers=1,2', 'train.seed=-1',
     f'train.seed={2**32}', f'evaluation.seed={2**64}', 'train.num_steps=3000000000', 'train.extra_decays=2',
     'train.power_widths=0.5', 'evaluation.ode.tolerance=0', 'mesh.data=0', 'family.condition_dropout=1.1',
     'network.multipliers=()', 'network.channels=0', 'network.time_scale=0', 'family.learned_variance=-0.1',
     'checkpoint.best_mode=most', 'network.groups=0', 'optimizer.weight_decay=-0.1', 'data.workers=-1',
     f'data.data_dir={"x" * 300}', f'data.data_dir={"x/" * 3000}'],
    ids=lambda text: text[:40],
)  # fmt: skip
def test_nonsense_is_refused(override):
    with pytest.raises(UserError):
        resolved('diffusion', 'unet', override)


NUMBERS = ('nan', 'inf', '-1', '1e300', '1e999', '9' * 30, '9' * 5000, '', 'many', '0x10', '²')
WORDS = [
    *(f'sampler={name}:{value}' for name in ('ancestral', 'ddim', 'heun', 'dpmpp_2m') for value in NUMBERS if value),
    *(f'sampler={name}:4:{key}={value}' for name, key in (
        ('ddim', 'eta'), ('ddim', 'temperature'), ('ddim', 'strength'), ('ddim', 'resample'), ('ddim', 'interval'),
        ('ddim', 'spacing'), ('ddim', 'threshold'), ('heun', 'churn'), ('heun', 's_noise'), ('ancestral', 'variance'))
      for value in NUMBERS),
    *(f'sampler=ddim:4:spacing=rho{value}' for value in (*NUMBERS, '0', '1e-300')),
    *(f'{key}={value}' for key in ('nfe', 'steps', 'seed', 'guidance', 'eta', 'temperature') for value in NUMBERS
      if (key, value) != ('guidance', '-1')),
]  # fmt: skip


@pytest.mark.parametrize('word', WORDS, ids=lambda word: ascii(word)[1:40])
def test_words_of_a_grid_that_no_sampler_can_follow_are_refused(word):
    with pytest.raises(UserError) as caught:
        grid.check([word], families.get('diffusion'))
    assert len(str(caught.value)) < 600


def test_a_budget_takes_the_most_steps_that_it_pays_for(tiny):
    from genbench.data import sources

    family = families.get('flow_matching')(tiny('flow_matching'), sources.spec_by_name('digits', ''))
    (cell,) = grid.cells(
        ['sampler=heun', 'nfe=16000000'], family, family.config.evaluation
    )  # by one it would take hours
    assert cell.sampler.num_steps == 8_000_000
    assert [grid.cells(['sampler=heun', f'nfe={budget}'], family, family.config.evaluation)[0].sampler.num_steps
            for budget in range(1, 8)] == [1, 1, 2, 2, 3, 3, 4]  # fmt: skip


def test_two_seeds_that_jax_would_take_for_one_are_not_both_accepted():
    import jax

    same = [jax.random.key_data(jax.random.key(seed)).tolist() for seed in (5, 2**32 + 5)]
    assert same[0] == same[1]
    resolved('diffusion', 'unet', f'train.seed={2**32 - 1}')
    with pytest.raises(UserError, match='train.seed is 4294967301; it should be at least 0 and at most 4294967295'):
        resolved('diffusion', 'unet', f'train.seed={2**32 + 5}')


@pytest.mark.parametrize(('family', 'network'), list(combinations()))
def test_every_number_states_its_range(family, network):
    """For a new key: add it to `RANGES` beside the defaults in config.py or the network's file, or to the family's
    `ranges`; a tuple that is empty by default says the type of its items there."""
    stated = configs.limits(families.get(family), network)
    for key, value in configs.flatten(resolved(family, network)):
        holds_numbers = isinstance(value, tuple) and (not value or type(value[0]) in (int, float))
        if (type(value) in (int, float) or holds_numbers) and key not in stated:
            pytest.fail(f'{key} states no range; see the docstring of this test')
        if value == ():
            assert stated[key].items is not None, f'{key} does not say the type of its items'
        stated.get(key, ranges.ANY).check(key, value)  # the default itself is fine


def test_a_range_is_of_a_key_that_exists():
    known = {key for family, network in combinations() for key, _ in configs.flatten(resolved(family, network))}
    stated = {key for family, network in combinations() for key in configs.limits(families.get(family), network)}
    assert stated <= known
    assert {name for name in networks.DEFAULTS if networks.ranges(name)} == {*networks.DEFAULTS} - {'none'}


def test_a_family_without_ranges_still_works():
    class Plain(families.get('gaussian')):
        @classmethod
        def defaults(cls):
            return {'family': {'conditional': False, 'strength': 2.0}, 'network': {'name': 'none'}}

    from genbench.families import base, registry

    base.register('plain')(Plain)
    try:
        assert configs.resolve({'family': {'name': 'plain'}}, ['family.strength=-3']).family.strength == -3.0
        with pytest.raises(UserError, match='finite'):
            configs.resolve({'family': {'name': 'plain'}}, ['family.strength=nan'])
    finally:
        del registry._REGISTRY['plain']

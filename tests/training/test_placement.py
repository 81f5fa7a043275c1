"""Where the arrays of a state lie on a mesh of several devices, by rules and in bytes."""

import pathlib

import jax
import pytest
from jax.sharding import AbstractMesh, AxisType, PartitionSpec

from genbench import config as configs
from genbench import families
from genbench.data.spec import DataSpec
from genbench.errors import UserError
from genbench.training import mesh as meshes
from genbench.training import placement
from genbench.training.state import Blueprint, flatten

ROOT = pathlib.Path(__file__).parents[2]


def mesh(data=1, fsdp=1, tensor=1):
    return AbstractMesh((data, fsdp, tensor), meshes.AXES, axis_types=(AxisType.Auto,) * 3)


@pytest.fixture(scope='module')
def cifar():
    """Shapes of the training state of the DDPM U-Net for CIFAR-10."""
    config = configs.load(str(ROOT / 'configs/cifar10/diffusion.py'))
    family = families.get('diffusion')(config, DataSpec('cifar10', (32, 32, 3), 256, 10))
    return placement.abstract_state(Blueprint(family))


@pytest.mark.parametrize('devices', [1, 2, 4, 8])
@pytest.mark.parametrize('part', ['params', 'opt', 'averages'])
def test_bytes_per_device_fall_as_one_over_fsdp(cifar, devices, part):
    whole = sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(cifar[part]))
    held = placement.bytes_per_device(placement.of_state(cifar, mesh(fsdp=devices))[part])
    assert 35.7e6 * 4 * (2 if part == 'opt' else 1) == pytest.approx(whole, rel=2e-3)
    assert held == pytest.approx(whole / devices, rel=0.05)


def test_optimizer_state_and_averages_lie_like_their_parameters(cifar):
    named = flatten(placement.of_state(cifar, mesh(2, 2, 2)))
    parameters = {name.removeprefix('params/'): leaf for name, leaf in named.items() if name.startswith('params/')}
    others = [name for name in named if not name.startswith('params/')]
    followers = {name: path for name in others for path in parameters if name.endswith(f'/{path}')}
    assert len(followers) == 3 * len(parameters)  # two moments and an average
    for name, path in followers.items():
        assert named[name].sharding.spec == parameters[path].sharding.spec
    rest = [named[name] for name in others if name not in followers]
    assert all(leaf.sharding.spec == PartitionSpec() for leaf in rest)


@pytest.mark.parametrize(
    'path, shape, expected',
    [
        ('net/conv/kernel', (3, 3, 128, 256), (None, None, None, 'fsdp')),
        ('net/conv/kernel', (3, 3, 256, 128), (None, None, 'fsdp')),
        ('net/conv/kernel', (3, 3, 130, 128), (None, None, None, 'fsdp')),  # four do not divide 130
        ('net/conv/kernel', (3, 3, 127, 129), ()),
        ('net/norm/scale', (512,), ()),  # small
        ('net/table/embedding', (4096,), ('fsdp',)),
        ('net/attention/inputs/kernel', (256, 768), ('fsdp', 'tensor')),
        ('net/attention/output/kernel', (256, 256), ('tensor', 'fsdp')),
        ('net/blocks/0/mlp/hidden/kernel', (256, 1024), ('fsdp', 'tensor')),
        ('net/blocks/0/mlp/output/kernel', (1024, 256), ('tensor', 'fsdp')),
        ('net/inattention/inputs/kernel', (256, 512), (None, 'fsdp')),  # another word
        ('net/attention/inputs/kernel', (256, 771), ('fsdp',)),  # two do not divide 771
    ],
)
def test_default_rules(path, shape, expected):
    assert placement.spec(path, shape, mesh(fsdp=4, tensor=2)) == PartitionSpec(*expected)


def test_axes_of_one_device_are_not_named():
    assert placement.spec('net/attention/inputs/kernel', (256, 768), mesh(data=8)) == PartitionSpec()


def test_rules_of_the_config_come_first():
    rules = placement.parse_rules(('conv/kernel$=- - fsdp tensor', 'norm/='))
    where = mesh(fsdp=2, tensor=2)
    assert placement.spec('net/conv/kernel', (3, 3, 8, 8), where, rules) == PartitionSpec(None, None, 'fsdp', 'tensor')
    assert placement.spec('net/norm/scale', (4096,), where, rules) == PartitionSpec()
    with pytest.raises(UserError, match=r'cannot split net/conv/kernel, which has the shape \(3, 3, 8, 7\)'):
        placement.spec('net/conv/kernel', (3, 3, 8, 7), where, rules)


@pytest.mark.parametrize('text', ['kernel', 'kernel=data', 'kernel=fsdp fsdp', '(=fsdp'])
def test_a_rule_that_is_none_is_one_line(text):
    with pytest.raises(UserError, match=r'mesh\.rules') as caught:
        placement.parse_rules((text,))
    assert '\n' not in str(caught.value)


def test_the_rest_of_the_devices_and_sizes_that_do_not_fit():
    count = jax.device_count()
    assert dict(meshes.make_mesh().shape) == {'data': count, 'fsdp': 1, 'tensor': 1}
    assert dict(meshes.make_mesh({'data': 1, 'fsdp': -1}).shape) == {'data': 1, 'fsdp': count, 'tensor': 1}
    with pytest.raises(UserError, match='its product should be the number of devices'):
        meshes.make_mesh({'data': 1, 'fsdp': 7 * count})
    with pytest.raises(UserError, match='its product should be the number of devices'):
        meshes.make_mesh({'data': -1, 'fsdp': 7 * count})
    for sizes in ({'data': -1, 'fsdp': -1}, {'data': 0}):
        with pytest.raises(UserError, match='one may be -1'):
            meshes.make_mesh(sizes)

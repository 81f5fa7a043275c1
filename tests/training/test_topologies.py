"""`--dry-run --topology`: programs compiled for accelerators that are not there."""

import collections
import functools
import json
import math
from importlib import metadata

import jax
import pytest
from jax.sharding import AbstractMesh, AxisType

from genbench import cli, families, flops
from genbench import config as configs
from genbench.data import sources
from genbench.errors import UserError
from genbench.families import stages
from genbench.training import compiled, dry_run, forecast, placement, prepared, topologies
from genbench.training import mesh as meshes
from genbench.training.state import Blueprint, flatten

WORKING = [  # on which libtpu 0.0.42 compiles without a TPU
    ('v2:2x2', 1, 8), ('v3:2x2', 1, 8), ('v4:2x2x1', 1, 4), ('v5p:2x2x1', 1, 4), ('v5e:1x1', 1, 1), ('v5e:2x2', 1, 4),
    ('v5e:2x4', 1, 8), ('v6e:2x4', 1, 8), ('tpu7x:2x2x1', 1, 8), ('v5e:4x4', 2, 32), ('h100:8', 1, 8), ('h200:8', 1, 8),
    ('a100:8', 1, 8), ('h100:16', 1, 16),
]  # fmt: skip


def target(name, slices=1):
    """The devices, or a skip that says what is not installed."""
    found = topologies.parse(name, slices)
    try:
        topologies.check_installed(found)
    except UserError as error:
        pytest.skip(str(error))
    return found


@functools.lru_cache
def asked(name, config, *overrides):
    """The report of a config on a topology; one process a question."""
    return forecast.ask(configs.resolve(configs.plain(json.loads(config)), overrides), target(name), advise=False)


def dit(*overrides):
    """A small DiT on digits."""
    network = {'name': 'dit', 'depth': 2, 'width': 128, 'heads': 2, 'dtype': 'bfloat16'}
    values = {'family': {'name': 'diffusion'}, 'network': network, 'train': {'batch_size': 32}}
    return configs.resolve(values, overrides)


def expected_state(config, devices):
    """Bytes of the state on one device by the rules of placement, on a mesh without devices."""
    sizes = tuple(devices if config.mesh[axis] == -1 else config.mesh[axis] for axis in meshes.AXES)
    mesh = AbstractMesh(sizes, meshes.AXES, axis_types=(AxisType.Auto,) * 3)
    family = families.get(config.family.name)(config, sources.spec_by_name('digits', ''))
    return placement.bytes_per_device(placement.of_state(placement.abstract_state(Blueprint(family)), mesh))


@pytest.mark.parametrize('name', ['v5e:2x2', 'h100:4'])
def test_memory_exchanges_and_donation_of_a_step(name, tiny, digits):
    config = tiny('gaussian')
    report = asked(name, json.dumps(configs.plain(config)))
    (program,) = report['programs']
    state = expected_state(config, 4)
    images, numbers = digits[1].images.nbytes, 4 * 32 // 4  # neither labels nor random bits are used
    assert program['memory']['arrays'] == state + images + numbers
    assert program['memory']['aliased'] == program['state'] == state
    assert report['fits'] and program['memory']['peak'] < program['memory']['limit']
    sums = sum(one['bytes'] for one in program['collectives'] if one['kind'] == 'all-reduce' and one['axes'] == 'data')
    assert sums == pytest.approx(4 * (64 + 64 * 64), rel=0.01)  # the sums of x and of x xᵀ
    assert {one['kind'] for one in program['collectives']} == {'all-reduce'}
    assert {device.platform for device in jax.devices()} == {'cpu'}


@pytest.mark.slow
@pytest.mark.parametrize('name', ['v5e:2x2', 'h100:4'])
def test_fsdp_gathers_parameters_once_and_scatters_gradients(name):
    config = dit('mesh.data=1', 'mesh.fsdp=4')
    (program,) = asked(name, json.dumps(configs.plain(config)))['programs']
    state = expected_state(config, 4)
    assert program['memory']['aliased'] == state
    exchanged = {one['kind']: one['bytes'] for one in program['collectives']}
    assert {one['axes'] for one in program['collectives']} == {'fsdp'}
    assert exchanged.keys() <= {'all-gather', 'all-reduce', 'reduce-scatter', 'collective-permute'}
    parameters = state  # four arrays as large as the parameters, each a quarter of them
    family = families.get('diffusion')(config, sources.spec_by_name('digits', ''))
    shapes = flatten(Blueprint(family).shapes['params'])
    split = {path: leaf.size for path, leaf in shapes.items() if leaf.size >= placement.SMALL}
    gathered = sum(size * (4 if 'conditioning/' in path else 2) for path, size in split.items())  # each once
    assert exchanged['all-gather'] == gathered if name == 'h100:4' else exchanged['all-gather'] <= gathered
    scattered = exchanged['reduce-scatter'] + 4 * exchanged.get('collective-permute', 0)
    assert exchanged['all-reduce'] < 0.1 * parameters < scattered
    joint = 2 * 128 * 3 * 128  # bytes of a kernel of queries, keys and values
    assert name != 'h100:4' or exchanged['all-reduce'] < joint
    products = program['products']
    assert products['bf16'] > 3 * products.get('f32', 0)
    assert ('fused attention in bf16' in products) == (name == 'h100:4')


@pytest.mark.slow
@pytest.mark.parametrize(
    'name, options', [('gan', ()), ('style_gan', ('family.penalty_every=1', 'family.path_length_weight=0'))]
)
def test_a_gan_moves_parameters_and_gradients_but_no_images(name, options, tiny):
    config = tiny(name, 'network.channels=16', 'network.latent=64', 'mesh.data=2', 'mesh.fsdp=2', *options)
    (program,) = asked('h100:4', json.dumps(configs.plain(config)))['programs']
    exchanged = collections.Counter()
    for one in program['collectives']:
        exchanged[one['kind']] += one['bytes']
    family = families.get(name)(config, sources.spec_by_name('digits', ''))
    parameters = sum(4 * leaf.size for leaf in flatten(Blueprint(family).shapes['params']).values())
    assert exchanged.keys() <= {'all-gather', 'all-reduce', 'reduce-scatter'}
    assert exchanged['all-gather'] <= 2 * parameters  # the discriminator's before and after its own update


@pytest.mark.slow
def test_tensor_parallelism_moves_kernels_but_no_batch_of_queries():
    config = dit('network.depth=1', 'network.patch=1', 'mesh.data=1', 'mesh.tensor=2')
    (program,) = asked('h100:2', json.dumps(configs.plain(config)))['programs']
    gathered = sum(one['bytes'] for one in program['collectives'] if one['kind'] == 'all-gather')
    batch, tokens, width, bytes_each = 32, 64, 128, 2
    assert gathered < batch * tokens * 3 * width * bytes_each  # of one layer's queries, keys and values


@pytest.mark.slow
@pytest.mark.parametrize('name, slices, devices', WORKING)
def test_every_topology_compiles_the_u_net_of_digits(name, slices, devices, tiny):
    report = forecast.ask(tiny('diffusion'), target(name, slices), advise=False)
    (program,) = report['programs']
    assert (report['devices'], report['fits']) == (devices, True)
    axes = {one['axes'] for one in program['collectives']}
    assert axes <= {'data', 'slices'} and ('slices' in axes) == (slices > 1)
    assert program['compile_seconds'] < 60


@pytest.mark.slow
def test_what_does_not_fit_is_told_with_what_would():
    config = dit('network.depth=1', 'network.width=64', 'network.patch=1', 'train.batch_size=4194304')
    report = forecast.ask(config, target('v5e:2x2'))
    assert not report['fits'] and report['programs'][0]['over'] > 0
    changes = [one['overrides'] for one in report['advice']]
    assert any(text.startswith('train.batch_size=') for overrides in changes for text in overrides)
    assert 'does not fit' in '\n'.join(forecast.lines(report))


@pytest.mark.slow
def test_the_programs_of_an_evaluation(trained, capsys):
    target('v5e:2x2')
    assert cli.main(['evaluate', str(trained('gaussian')), '--dry-run', '--topology=v5e:2x2', '--json']) == 0
    report = json.loads(capsys.readouterr().out)
    sampled, scored = report['programs']
    assert sampled['program'].endswith('256 images') and scored['program'].endswith('256 images')
    assert [one['kind'] for one in sampled['collectives']] == ['all-gather']
    assert sampled['collectives'][0]['bytes'] == 4 * 256 * 64  # all images, as integers, on every device


@pytest.mark.slow
def test_a_study_has_a_line_a_trial(tmp_path, capsys):
    target('v5e:2x2')
    (tmp_path / 'study.py').write_text(
        'from genbench.studies.study import Study, Trial\n\n\ndef get_study():\n'
        "    trials = [Trial('plain', 'digits/gaussian', {'train.batch_size': 32})]\n"
        "    return Study('Two seeds', 'None.', trials, seeds=(0, 1))\n"
    )
    command = ['run', str(tmp_path / 'study.py'), f'--out={tmp_path}/out', '--dry-run', '--topology=v5e:2x2']
    assert cli.main(command) == 0
    first, second = capsys.readouterr().out.splitlines()[-2:]
    assert 'fits, peak' in first and first.split('  ')[-1] == second.split('  ')[-1]
    assert not (tmp_path / 'out').exists()


def test_operations_of_dit_s_are_those_of_the_closed_form():
    config = configs.load(
        'configs/cifar10/diffusion_dit.py',
        ['train.batch_size=8', 'family.learned_variance=0.0', 'evaluation.samplers=ddim:50'],
    )
    ready = prepared.prepare(config, mesh=meshes.make_mesh(devices=jax.devices()[:1]), on_noise=True)
    ((_, traced, _),) = dry_run.traced_steps(ready, stages.spans(ready.family)[0])
    tokens, width, depth, pixels = 256, 384, 12, 2 * 2 * 3
    block = tokens * 12 * width**2 + 2 * tokens**2 * width + 6 * width**2  # qkv, output, perceptron; attention; adaLN
    ends = tokens * 2 * pixels * width + 256 * width + width**2 + 2 * width**2
    forwards = 2 * (depth * block + ends)
    assert flops.count(traced.jaxpr) == pytest.approx(3 * forwards * 8, rel=0.03)


def test_a_name_that_is_none_lists_those_that_are_known(tiny, config_file, capsys):
    command = ['train', f'--config={config_file(tiny("gaussian"))}', '--dry-run']
    for flag, told in [
        ('--topology=v9:2x2', 'Examples: v2:2x2, v3:2x2, v4:2x2x1, v5p:2x2x1, v5e:4x8'),
        ('--topology=v5e', 'has no size'),
        ('--topology=h100:12', 'use a multiple of 8'),
        ('--slices=2', '--slices needs --topology=NAME'),
        ('--json', '--json needs --topology=NAME'),
    ]:
        assert cli.main([*command, flag]) == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert told in line
    assert cli.main([*command[:2], '--workdir=run', '--topology=v5e:2x2']) == 2
    assert 'add --dry-run' in capsys.readouterr().err


def test_a_mesh_that_does_not_multiply_is_one_line(tiny):
    with pytest.raises(UserError, match='its product should be the number of devices, 4'):
        forecast.ask(tiny('gaussian', 'mesh.data=1', 'mesh.fsdp=3'), target('v5e:2x2'))


@pytest.mark.parametrize('versions, told', [
    ({}, r"Run: pip install 'genbench\[topology-tpu\]'"),
    ({'libtpu': '0.0.1'}, 'but 0.0.1 is installed'),
])  # fmt: skip
def test_a_compiler_that_is_missing_or_of_another_version_is_one_line(versions, told, monkeypatch):
    real = metadata.version

    def version(package):
        if package != 'libtpu':
            return real(package)
        if package not in versions:
            raise metadata.PackageNotFoundError(package)
        return versions[package]

    monkeypatch.setattr(metadata, 'version', version)
    with pytest.raises(UserError, match=told):
        topologies.check_installed(topologies.parse('v5e:2x2'))


def test_programs_on_a_gpu_may_use_the_share_of_its_memory_that_jax_takes(monkeypatch):
    monkeypatch.delenv('XLA_CLIENT_MEM_FRACTION', raising=False)
    monkeypatch.delenv('XLA_PYTHON_CLIENT_MEM_FRACTION', raising=False)
    assert topologies.KINDS['h100'].available == 63_707_234_304  # three quarters of its 84,942,979,072
    monkeypatch.setenv('XLA_PYTHON_CLIENT_MEM_FRACTION', '0.9')
    assert topologies.KINDS['h100'].available == int(0.9 * topologies.KINDS['h100'].memory)
    assert topologies.KINDS['v5e'].available == topologies.KINDS['v5e'].memory


def test_what_the_compiler_says_of_too_little_memory():
    gib = 2**30
    told = (
        'RESOURCE_EXHAUSTED: Ran out of memory on HBM, the total memory required for HLO temporaries (435.73G) exceeds'
    )
    assert compiled.too_large(told) == int(435.73 * gib)
    assert compiled.too_large('Ran out of memory in memory space hbm. Used 18.50G of 15.75G hbm.') == int(18.5 * gib)
    assert compiled.too_large('RESOURCE_EXHAUSTED') is None


def test_what_is_tried_when_it_does_not_fit():
    config = dit()
    tried = [[' '.join(change) for change in changes] for changes in forecast._candidates(config, 8)]
    assert tried == [
        ['mesh.data=1 mesh.fsdp=8'], ['network.remat=blocks'], ['mesh.data=1 mesh.fsdp=8 network.remat=blocks'],
        ['train.accumulate=2', 'train.accumulate=4'], ['train.batch_size=16', 'train.batch_size=8'],
    ]  # fmt: skip


def test_slices_lie_along_the_axis_of_the_data():
    class Device:
        def __init__(self, number):
            self.id = self.process_index = number
            self.slice_index, self.platform, self.device_kind = number // 4, 'tpu', 'TPU v5 lite'
            self.coords, self.core_on_chip = (number % 2, number % 4 // 2, 0), 0

    devices = [Device(number) for number in range(8)]
    placed = meshes._over_slices((2, 4, 1), meshes._slices(devices), devices)
    assert [{device.slice_index for device in row.flat} for row in placed] == [{0}, {1}]
    with pytest.raises(UserError, match='number of slices, 2, should divide'):
        meshes._over_slices((1, 8, 1), 2, devices)
    assert math.prod(placed.shape) == 8

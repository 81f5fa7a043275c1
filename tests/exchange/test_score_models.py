"""Checkpoints of EDM and score SDE as files: read as data, and refused with the reason where they do not fit."""

import io
import pickle
import zipfile

import numpy as np
import pytest

from genbench import config as configs
from genbench import families
from genbench.data.spec import DataSpec
from genbench.errors import UserError
from genbench.exchange import persistent, score_models, song
from genbench.networks import torch_file
from genbench.training import state as states

SMALL = {'name': 'ncsnpp', 'channels': 4, 'multipliers': (1,), 'blocks': 1}


def family_of(path='edm', network=SMALL, size=8):
    prediction = 'preconditioned' if path == 'edm' else 'noise'
    values = {'family': {'name': 'diffusion', 'schedule': path, 'prediction': prediction}, 'network': network}
    return families.get('diffusion')(configs.resolve(values), DataSpec('images', (size, size, 1), 256))


class Call:
    """Pickles as a call of a function that is known by its name only."""

    def __init__(self, module, name, *arguments):
        self.module, self.name, self.arguments = module, name, arguments


class Pickler(pickle._Pickler):
    storages = None  # of a file of torch: where values of tensors go, by key

    def persistent_id(self, value):
        return value if isinstance(value, tuple) and value[:1] == ('storage',) else None

    def save_call(self, value):
        self.write(f'c{value.module}\n{value.name}\n'.encode())
        if value.arguments:
            self.save(value.arguments)
            self.write(pickle.REDUCE)

    def save_tensor(self, values):
        values = np.asarray(values, np.float32)
        if self.storages is None:
            storage = Call('torch.storage', '_load_from_bytes', lone_storage(values))
        else:
            key = str(len(self.storages))
            self.storages[key] = values.tobytes()
            storage = ('storage', Call('torch', 'FloatStorage'), key, 'cpu', values.size)
        strides = tuple(step // 4 for step in np.ascontiguousarray(values).strides)
        self.save_call(Call('torch._utils', '_rebuild_tensor_v2', storage, 0, values.shape, strides, False, {}))

    dispatch = {**pickle._Pickler.dispatch, Call: save_call, np.ndarray: save_tensor}


def lone_storage(values):
    """The bytes of a storage that torch saved by itself in the layout before 1.6."""
    file = io.BytesIO()
    for one in (torch_file.MAGIC, torch_file.PROTOCOL, {'little_endian': True}):
        pickle.dump(one, file, 2)
    Pickler(file, 2).dump(('storage', Call('torch', 'FloatStorage'), '7', 'cpu', values.size, None))
    pickle.dump(['7'], file, 2)
    return file.getvalue() + values.size.to_bytes(8, 'little') + values.tobytes()


def module(kind, parameters=(), modules=(), **options):
    """As NVIDIA's persistent classes are pickled: with the source of the class."""
    state = {'_parameters': dict(parameters), '_buffers': {}, '_modules': dict(modules), **options}
    meta = {'type': 'class', 'version': 6, 'module_src': 'raise SystemExit', 'class_name': kind, 'state': state}
    return Call('torch_utils.persistence', '_reconstruct_persistent_obj', meta)


def edm(path, held):
    with path.open('wb') as file:
        Pickler(file, 4).dump(held)
    return path


def score_sde(path, model, averages):
    body = io.BytesIO()
    pickler = Pickler(body, 2)
    pickler.storages = {}
    pickler.dump({'model': model, 'ema': {'decay': 0.999, 'shadow_params': averages}, 'step': 8})
    with zipfile.ZipFile(path, 'w') as archive:
        archive.writestr('archive/data.pkl', body.getvalue())
        for key, values in pickler.storages.items():
            archive.writestr(f'archive/data/{key}', values)
    return path


OPTIONS = {'img_resolution': 8, 'sigma_data': 0.5}


def precond(kind):
    return {'ema': module('EDMPrecond', modules={'model': module(kind)}, **OPTIONS)}


def test_a_pickle_of_edm_is_read_and_its_code_is_not_run(tmp_path):
    weight, bias, deep = np.arange(6.0).reshape(2, 3), np.array([1.0, -1.0]), np.array([7.0])
    inner = module('SongUNet', {'bias': bias, 'none': None}, {'deep': module('Linear', {'weight': deep})})
    held = {
        'ema': module('EDMPrecond', {'weight': weight}, {'model': inner}, **OPTIONS),
        'loss_fn': Call('os', 'system', 'x'),
    }
    network = persistent.read(edm(tmp_path / 'a.pkl', held))
    assert (network.kind, network.model, network.options) == ('EDMPrecond', 'SongUNet', OPTIONS)
    assert sorted(network.arrays) == ['model.bias', 'model.deep.weight', 'weight']
    for name, value in (('weight', weight), ('model.bias', bias), ('model.deep.weight', deep)):
        np.testing.assert_array_equal(network.arrays[name], value)


@pytest.mark.parametrize(
    ('held', 'family', 'words'),
    [
        ({'ema': module('EDMPrecond', **OPTIONS)}, {'path': 'vp'}, 'trained with family.schedule=edm and family.pred'),
        ({'ema': module('VPPrecond')}, {}, 'trained with family.schedule=vp and family.prediction=noise; this config'),
        ({'ema': module('EDMPrecond', **OPTIONS)}, {'size': 4}, 'img_resolution = 8, but here it is 4'),
        ({'ema': module('iDDPMPrecond')}, {}, 'has iDDPMPrecond, which genbench cannot use'),
        (precond('DhariwalUNet'), {}, 'has the network adm'),
        (precond('SongUNet'), {}, 'map_layer0.weight is missing'),
        ({'G_ema': module('Generator')}, {}, "has no network under 'ema'"),
        ({'ema': Call('os', 'system', 'true')}, {}, "has no network under 'ema'"),
        ({'ema': Call('torch.storage', '_load_from_bytes', 3)}, {}, 'a storage that is not bytes'),
        ({'ema': module('EDMPrecond', **OPTIONS)}, {'network': {'name': 'unet'}}, 'should be ncsnpp or adm, not unet'),
        (
            {'ema': module('EDMPrecond', **OPTIONS)}, {'network': {**SMALL, 'time_scale': 16.0}},
            'network.time_scale is 16, but published networks have 1000',
        ),
    ],
)  # fmt: skip
def test_a_pickle_that_does_not_fit_is_refused_with_the_reason(held, family, words, tmp_path):
    with pytest.raises(UserError, match=words):
        score_models.variables(edm(tmp_path / 'a.pkl', held), family_of(**family))


def test_names_that_no_network_has_are_refused(tmp_path):
    """A short pickle may name one long text at every depth, and so ask for gigabytes of dotted names."""
    inner, name = module('Linear'), 'a' * 300
    for _ in range(3):
        inner = module('Sequential', modules=[(name, inner)])
    with pytest.raises(UserError, match='impossible names'):
        persistent.read(edm(tmp_path / 'deep.pkl', {'ema': inner}))


def test_a_damaged_file_or_another_is_said(tmp_path):
    path = edm(tmp_path / 'a.pkl', {'ema': module('EDMPrecond', **OPTIONS)})
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(UserError, match='is not a pickle of a network, or is damaged'):
        score_models.variables(path, family_of())
    with pytest.raises(UserError, match='should be a folder of diffusers, a .pkl of EDM or a .pth of score SDE'):
        score_models.variables(tmp_path / 'a.ckpt', family_of())


def names_of_score_sde(family):
    """{name: array} of the checkpoint whose import is 0, 1, 2, …: every array has its own number everywhere."""
    shapes = states.flatten(states.Blueprint(family).shapes['params']['denoiser'])
    found, module = {}, iter(range(100))

    def put(number, name, *shape):
        found[f'all_modules.{number}.{name}'] = np.full(shape, float(len(found)), np.float32)

    def block(inputs, outputs):
        number = next(module)
        for name, shape in (('GroupNorm_0.weight', (inputs,)), ('GroupNorm_0.bias', (inputs,)),
                            ('Conv_0.weight', (outputs, inputs, 3, 3)), ('Conv_0.bias', (outputs,)),
                            ('Dense_0.weight', (outputs, 16)), ('Dense_0.bias', (outputs,)),
                            ('GroupNorm_1.weight', (outputs,)), ('GroupNorm_1.bias', (outputs,)),
                            ('Conv_1.weight', (outputs, outputs, 3, 3)), ('Conv_1.bias', (outputs,))):  # fmt: skip
            put(number, name, *shape)
        if inputs != outputs:
            put(number, 'Conv_2.weight', outputs, inputs, 1, 1)
            put(number, 'Conv_2.bias', outputs)

    for inputs in (4, 16):
        number = next(module)
        put(number, 'weight', 16, inputs)
        put(number, 'bias', 16)
    number = next(module)
    put(number, 'weight', 4, 1, 3, 3)
    put(number, 'bias', 4)
    block(4, 4)
    block(4, 4)
    number = next(module)
    put(number, 'GroupNorm_0.weight', 4)
    put(number, 'GroupNorm_0.bias', 4)
    for index in range(4):
        put(number, f'NIN_{index}.W', 4, 4)
        put(number, f'NIN_{index}.b', 4)
    block(4, 4)
    block(8, 4)
    block(8, 4)
    number = next(module)
    put(number, 'weight', 4)
    put(number, 'bias', 4)
    number = next(module)
    put(number, 'weight', 1, 4, 3, 3)
    put(number, 'bias', 1)
    assert sum(value.size for value in found.values()) == sum(int(np.prod(leaf.shape)) for leaf in shapes.values())
    return found


def test_a_checkpoint_of_score_sde_gives_its_averages_and_not_its_last_step(tmp_path):
    family = family_of('vp')
    averages = names_of_score_sde(family)
    model = {'module.sigmas': np.ones(3)} | {f'module.{name}': 0 * value - 1 for name, value in averages.items()}
    found = score_models.variables(score_sde(tmp_path / 'a.pth', model, list(averages.values())), family)
    wanted = song.parameters(song.renamed(averages, family.config.network, 8), family.config.network, 8, False)
    assert set(found) == set(wanted) and min(value.min() for value in found.values()) == 0
    for name, value in wanted.items():
        np.testing.assert_array_equal(found[name], value)
    path = score_sde(tmp_path / 'b.pth', model, list(averages.values())[:-1])
    with pytest.raises(UserError, match='has averages of other parameters than its model'):
        score_models.variables(path, family)
    with pytest.raises(UserError, match='family.schedule=vp or subvp or ve and family.prediction=noise'):
        score_models.variables(path, family_of('edm'))


def test_no_array_of_a_file_is_left_over_and_filters_are_the_configs():
    config, found = family_of('vp').config.network, names_of_score_sde(family_of('vp'))
    found = song.renamed(found, config, 8)
    with pytest.raises(UserError, match='nothing here uses map_augment.bias'):
        song.parameters({**found, 'map_augment.bias': np.zeros(3)}, config, 8, False)
    with pytest.raises(UserError, match='resample_filter is not network.taps, 1-1'):
        song.parameters({**found, 'enc.x.resample_filter': np.ones((1, 1, 4, 4)) / 16}, config, 8, False)

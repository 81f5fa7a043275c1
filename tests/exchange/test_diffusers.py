"""The U-Net in diffusers' layout, against what diffusers itself computed with it (record_diffusers.py says how)."""

import json
import pathlib

import formula
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import genbench
from genbench import cli
from genbench import config as configs
from genbench.data.conditions import Form
from genbench.errors import UserError
from genbench.exchange import diffusers, published, safetensors
from genbench.interpolants import schedules
from genbench.networks.dit import DiT
from genbench.networks.unet import UNet
from genbench.training.loop import train

HERE = pathlib.Path(__file__).parent


@pytest.fixture(scope='module')
def network():
    return formula.network()


def test_names_and_shapes_are_those_of_diffusers(recorded, network):
    assert str(recorded['origin']).startswith(f'diffusers {diffusers.VERSION}')
    found = diffusers.weights(network[2], network[0], one_late=False)
    assert {name: list(value.shape) for name, value in found.items()} == json.loads(str(recorded['shapes']))


def test_diffusers_computes_what_genbench_computes(recorded, network):
    """Its step n is the time n / 1000, or (n + 1) / 1000 where the export is for a scheduler of DDPM."""
    x, steps, labels = formula.inputs().values()
    twice = {'label': jnp.asarray(np.tile(labels, 2))}
    times = jnp.asarray(np.concatenate([steps, steps + 1]) / 1000.0)
    found = nnx.jit(network[1])(jnp.tile(x, (2, 1, 1, 1)), times, twice)
    wanted = np.concatenate([recorded['same'], recorded['late']])
    assert np.std(wanted) > 0.1 and np.abs(recorded['same'] - recorded['late']).max() > 0.01
    np.testing.assert_allclose(found, wanted, rtol=1e-3, atol=2e-4)


def test_the_scheduler_has_the_noise_of_the_path(recorded):
    linear = schedules.get('linear')
    settings = diffusers.scheduler(linear, 'noise', 1000.0, True)
    betas = np.linspace(settings['beta_start'], settings['beta_end'], settings['num_train_timesteps'])
    np.testing.assert_allclose(np.cumprod(1 - betas), recorded['alphas_cumprod'], rtol=1e-4)
    alphas = linear.alpha(jnp.arange(1, 1001) / 1000)
    np.testing.assert_allclose(np.square(alphas), recorded['alphas_cumprod'], rtol=1e-4, atol=1e-7)
    for other in (('cosine', 'noise', 1000.0), ('linear', 'velocity', 1000.0), ('linear', 'noise', 100.0)):
        assert diffusers.scheduler(schedules.get(other[0]), *other[1:], True) is None
    assert diffusers.scheduler(None, 'noise', 1000.0, True) is None


def built(forms, **options):
    values = {'family': {'name': 'diffusion'}, 'network': {'name': 'unet', **formula.OPTIONS, **options}}
    config = configs.resolve(values).network
    keys = {key: value for key, value in config.items() if key != 'name'}
    return config, nnx.eval_shape(lambda: UNet(8, 1, forms, rngs=nnx.Rngs(0), **keys))


@pytest.mark.parametrize(
    ('forms', 'options', 'words'),
    [
        ({'grey': Form('image', (8, 8, 1), 0)}, {}, 'takes only a class as a condition, but this run has grey'),
        ({}, {'groups': 16}, 'normalisations have 8 and 16 groups'),
        ({}, {'multipliers': (2, 2)}, 'network.multipliers begins with 2'),
        ({}, {'attention': (4, 8)}, 'attention has 2 heads at several widths'),
    ],
)
def test_what_the_layout_cannot_hold_is_said(forms, options, words):
    config, module = built(forms, **options)
    with pytest.raises(UserError, match=words):
        diffusers.check(config, 'denoiser', module, forms)


def test_what_it_can_hold_passes_and_another_network_does_not(network):
    config, module = built({})
    diffusers.check(config, 'denoiser', module, {})
    options = {'patch': 2, 'depth': 1, 'width': 32, 'heads': 1, 'expansion': 4}
    dit = nnx.eval_shape(lambda: DiT((8, 8, 1), {}, rngs=nnx.Rngs(0), **options))
    with pytest.raises(UserError, match='it is neither a unet nor a dit. Use --format=safetensors'):
        diffusers.check(config, 'denoiser', dit, {})


@pytest.mark.parametrize('late', [False, True])
def test_weights_come_back_from_the_layout(network, late):
    config, _, params = network
    found = diffusers.weights(params, config, late)
    back = published.parameters(found, params, config, late)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6), back, params)
    for change, words in (
        (lambda held: held.pop('conv_out.bias'), 'conv_out.bias has the shape none there'),
        (
            lambda held: held.update({'conv_in.weight': np.zeros((8, 3, 3, 3))}),
            r'conv_in.weight .*\(8, 3, 3, 3\) there',
        ),
        (
            lambda held: held.update({'extra.bias': np.zeros(3)}),
            r'extra.bias has the shape \(3,\) there, but none here',
        ),
    ):
        held = dict(found)
        change(held)
        with pytest.raises(UserError, match=words):
            published.parameters(held, params, config, late)


@pytest.fixture(scope='module')
def ddpm(tiny, tmp_path_factory):
    """(config file, run, its export) of a chain of DDPM."""
    folder = tmp_path_factory.mktemp('ddpm')
    config = tiny('diffusion', 'family.schedule=linear', 'family.prediction=noise', 'train.num_steps=1')
    train(config, folder / 'run', quiet=True)
    (folder / 'config.py').write_text(f'def get_config():\n    return {configs.plain(config)!r}\n')
    assert cli.main(['export', str(folder / 'run'), '--out', str(folder / 'out'), '--format=diffusers']) == 0
    return folder / 'config.py', folder / 'run', folder / 'out'


def test_a_chain_of_ddpm_is_a_pipeline_of_diffusers(ddpm):
    out = ddpm[2]
    index = json.loads((out / 'model_index.json').read_text())
    assert index['unet'] == ['diffusers', 'UNet2DModel'] and index['_class_name'] == 'DDPMPipeline'
    assert json.loads((out / 'scheduler' / 'scheduler_config.json').read_text())['prediction_type'] == 'epsilon'
    assert json.loads((out / 'unet' / 'config.json').read_text())['sample_size'] == 8
    assert 'step n is step n + 1 in genbench' in (out / 'README.md').read_text()


def test_an_export_is_imported_as_a_run(ddpm, tmp_path, capsys):
    """Read back, it draws the same images; another network leaves nothing behind."""
    file, run, out = ddpm
    back = tmp_path / 'back'
    command = ['import', str(out), f'--config={file}', f'--workdir={back}']
    assert cli.main([*command, '--config.network.groups=4']) == 2
    assert 'norm_num_groups is 8 there, but 4 here' in capsys.readouterr().err and not back.exists()
    assert cli.main(command) == 0
    images = [genbench.load_run(one).sample(8, 'ddim:3') for one in (run, back)]
    np.testing.assert_array_equal(*images)
    imported = json.loads((back / 'manifest.json').read_text())['imported']
    assert imported['file'] == str(out / 'unet' / 'diffusion_pytorch_model.safetensors')
    assert genbench.evaluate(back, {'evaluation.metrics': ('speed',)})
    capsys.readouterr()
    assert cli.main(['train', f'--config={file}', f'--workdir={back}']) == 0
    assert 'is complete' in capsys.readouterr().out
    assert cli.main(['import', str(tmp_path), f'--config={file}', f'--workdir={tmp_path}/x']) == 2
    assert 'has no config.json with' in capsys.readouterr().err


def test_the_cifar10_config_is_ddpms_network_in_the_words_of_diffusers(tmp_path):
    """Appendix B of Ho et al. 2020, with the conventions in the config.json of google/ddpm-cat-256, of the same
    conversion; and the names that attention had in those files."""
    config = configs.load('cifar10/diffusion').network
    options = {key: value for key, value in config.items() if key != 'name'}
    module = nnx.eval_shape(lambda: UNet(32, 3, {}, rngs=nnx.Rngs(0), **options))
    settings = diffusers.settings(config, module, 32, 3, 0)
    wanted = {
        'block_out_channels': [128, 256, 256, 256], 'layers_per_block': 2, 'attention_head_dim': None,
        'down_block_types': ['DownBlock2D', 'AttnDownBlock2D', 'DownBlock2D', 'DownBlock2D'],
        'up_block_types': ['UpBlock2D', 'UpBlock2D', 'AttnUpBlock2D', 'UpBlock2D'], 'norm_eps': 1e-6,
        'downsample_padding': 0, 'flip_sin_to_cos': False, 'freq_shift': 1, 'norm_num_groups': 32,
    }  # fmt: skip
    assert {key: settings[key] for key in wanted} == wanted
    old = {'mid_block.attentions.0.proj_attn.weight': np.zeros(1), 'mid_block.attentions.0.key.bias': np.zeros(1)}
    (tmp_path / 'a.safetensors').write_bytes(safetensors.encode(old, {}))
    assert sorted(published._read(tmp_path / 'a.safetensors')) == [
        'mid_block.attentions.0.to_k.bias', 'mid_block.attentions.0.to_out.0.weight',
    ]  # fmt: skip

"""The DiT in diffusers' layout, against what diffusers itself computed with it (record_diffusers.py says how)."""

import json
import pathlib
import types

import formula
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from genbench import config as configs
from genbench import families
from genbench.data.conditions import Form
from genbench.data.spec import DataSpec
from genbench.errors import UserError
from genbench.exchange import diffusers, diffusers_dit, export
from genbench.interpolants import schedules
from genbench.networks.dit import DiT
from genbench.training import state as states

HERE = pathlib.Path(__file__).parent


@pytest.fixture(scope='module')
def network():
    return formula.transformer()


def test_names_and_shapes_are_those_of_diffusers(recorded, network):
    found = diffusers_dit.weights(network[2], network[0], one_late=False)
    assert {name: list(value.shape) for name, value in found.items()} == json.loads(str(recorded['dit_shapes']))


def test_diffusers_computes_what_genbench_computes(recorded, network):
    """Its step n is the time n / 1000, or (n + 1) / 1000 where the export is for a scheduler of DDPM."""
    x, steps, labels = formula.inputs().values()
    twice = {'label': jnp.asarray(np.tile(labels, 2))}
    times = jnp.asarray(np.concatenate([steps, steps + 1]) / 1000.0)
    found = nnx.jit(network[1])(jnp.tile(x, (2, 1, 1, 1)), times, twice)
    wanted = np.concatenate([recorded['dit_same'], recorded['dit_late']])
    assert np.std(wanted) > 0.1 and np.abs(recorded['dit_same'] - recorded['dit_late']).max() > 0.01
    np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=2e-4)


def test_without_conditions_the_one_class_of_the_layout_says_nothing():
    config, module, params = formula.transformer({})
    diffusers_dit.check(config, 'denoiser', module, {})
    assert diffusers_dit.settings(config, module, formula.SIZE, 1, 0)['num_embeds_ada_norm'] == 1
    name = 'transformer_blocks.1.norm1.emb.class_embedder.embedding_table.weight'
    np.testing.assert_array_equal(diffusers_dit.weights(params, config, False)[name], np.zeros((2, 16)))


@pytest.mark.parametrize(
    ('shape', 'options', 'forms', 'words'),
    [
        ((8, 4, 1), {}, {}, 'its images are not square'),
        ((8, 8, 1), {'expansion': 2}, {}, 'network.expansion is 2, but DiTTransformer2DModel always has 4'),
        ((8, 8, 1), {'second_time': True}, {}, 'it takes two times'),
        (
            (8, 8, 1),
            {},
            {'grey': Form('image', (8, 8, 1), 0)},
            'takes only a class as a condition, but this run has grey',
        ),
    ],
)
def test_what_the_layout_cannot_hold_is_said(shape, options, forms, words, network):
    config = network[0].copy_and_resolve_references()
    keys = {'patch': 2, 'depth': 1, 'width': 16, 'heads': 2, **options}
    module = nnx.eval_shape(lambda: DiT(shape, forms, rngs=nnx.Rngs(0), **keys))
    with config.unlocked():
        config.expansion = keys.get('expansion', 4)
    with pytest.raises(UserError, match=words):
        diffusers_dit.check(config, 'denoiser', module, forms)


def test_a_learned_variance_is_the_schedulers_too():
    linear = schedules.get('linear')
    kinds = [diffusers.scheduler(linear, 'noise', 1000.0, True, one)['variance_type'] for one in (False, True)]
    assert kinds == ['fixed_large', 'learned_range']


def test_a_run_with_a_dit_is_exported_with_the_lines_that_load_it():
    small = {'name': 'dit', 'depth': 1, 'width': 16, 'heads': 2}
    family = {'name': 'diffusion', 'schedule': 'linear', 'prediction': 'noise', 'learned_variance': 0.001}
    config = configs.resolve({'family': family, 'network': small})
    blueprint = states.Blueprint(families.get('diffusion')(config, DataSpec('digits', (8, 8, 1), 17)))
    state = jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), blueprint.shapes)
    files, lines, library = export.FORMATS['diffusers'](types.SimpleNamespace(config=config), blueprint, state)
    assert sorted(files) == [
        'scheduler/scheduler_config.json', 'transformer/config.json', 'transformer/diffusion_pytorch_model.safetensors',
    ]  # fmt: skip
    assert json.loads(files['transformer/config.json'])['out_channels'] == 2
    assert json.loads(files['scheduler/scheduler_config.json'])['variance_type'] == 'learned_range'
    assert set(diffusers_dit.FREQUENCIES) <= {*lines} and 'zeros as `class_labels`' in ' '.join(lines)
    assert library == 'diffusers'

"""Networks with parameters from a formula, and inputs: the same for genbench and whoever else computes with them."""

import jax
import numpy as np
from flax import nnx

from genbench import config as configs
from genbench.data.conditions import Form
from genbench.networks.dit import DiT
from genbench.networks.unet import UNet

SIZE, CLASSES = 8, 3
OPTIONS = {'channels': 8, 'multipliers': (1, 2), 'blocks': 2, 'attention': (4,), 'heads': 2, 'groups': 4}


def network():
    """(section of the config, module, its parameters as nested dicts)."""
    values = {'family': {'name': 'diffusion'}, 'network': {'name': 'unet', **OPTIONS}}
    config = configs.resolve(values).network
    options = {key: value for key, value in config.items() if key != 'name'}
    forms = {'label': Form('classes', (), CLASSES)}
    module = nnx.eval_shape(lambda: UNet(SIZE, 1, forms, rngs=nnx.Rngs(0), **options))
    return config, *_filled(module)


def transformer(forms=None):
    """The same of a DiT, which predicts variances too."""
    values = {'family': {'name': 'diffusion'}, 'network': {'name': 'dit', 'depth': 2, 'width': 16, 'heads': 2}}
    config = configs.resolve(values).network
    options = {key: value for key, value in config.items() if key != 'name'}
    forms = {'label': Form('classes', (), CLASSES)} if forms is None else forms
    return config, *_filled(nnx.eval_shape(lambda: DiT((SIZE, SIZE, 1), forms, outputs=2, rngs=nnx.Rngs(0), **options)))


def _filled(module):
    state = nnx.state(module, nnx.Param)
    leaves, structure = jax.tree.flatten(state)
    filled = [_formula(index, leaf.shape) for index, leaf in enumerate(leaves)]
    nnx.update(module, jax.tree.unflatten(structure, filled))
    return module, nnx.to_pure_dict(nnx.state(module, nnx.Param))


def _formula(index, shape):
    scale = 0.5 if len(shape) == 1 else 1.5 / np.sqrt(np.prod(shape[:-1]))
    wave = np.sin(np.arange(np.prod(shape)) * (0.7 + 0.013 * index) + index)
    return (scale * wave + (len(shape) == 1)).reshape(shape).astype(np.float32)


def inputs():
    """Images (4, height, width, 1), whole steps of 1000, and classes, the last of which is none."""
    x = np.cos(np.arange(4 * SIZE * SIZE) * 0.37).reshape(4, SIZE, SIZE, 1).astype(np.float32)
    return {'x': x, 'steps': np.array([0, 7, 333, 999]), 'labels': np.array([0, 1, 2, CLASSES])}

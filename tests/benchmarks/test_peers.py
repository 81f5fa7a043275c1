"""The PyTorch networks of the benchmarks compute what genbench's do."""

import importlib.util
import pathlib

import jax
import numpy as np
import pytest
from flax import nnx
from ml_collections import ConfigDict

from genbench import networks
from genbench.data.spec import DataSpec
from genbench.training.state import flatten

torch = pytest.importorskip('torch', reason='PyTorch is not installed')
ROOT = pathlib.Path(__file__).resolve().parents[2]

UNET = {'channels': 8, 'multipliers': (1, 2), 'blocks': 2, 'attention': (4,), 'heads': 2, 'groups': 4}
DIT = {'depth': 2, 'width': 16, 'heads': 2, 'patch': 2}


@pytest.fixture(scope='module')
def peers():
    spec = importlib.util.spec_from_file_location('peers', ROOT / 'benchmarks' / 'peers.py')
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize(('name', 'options'), [('unet', UNET), ('dit', DIT)])
def test_a_peer_with_the_same_parameters_has_the_same_output(peers, name, options):
    shape, config = (8, 8, 3), ConfigDict({**networks.defaults(name), **options})
    rng = np.random.default_rng(0)
    abstract = nnx.eval_shape(lambda: networks.denoiser(config, DataSpec('images', shape, 256), 0, nnx.Rngs(0)))
    definition, params, rest = nnx.split(abstract, nnx.Param, ...)
    params = jax.tree.map(lambda leaf: (0.2 * rng.normal(size=leaf.shape)).astype(np.float32), params)
    x, t = rng.normal(size=(2, *shape)).astype(np.float32), np.array([0.2, 0.7], np.float32)
    wanted = jax.jit(lambda params: nnx.merge(definition, params, rest)(x, t))(params)

    peer = {'unet': peers.UNet, 'dit': peers.DiT}[name](shape, dict(config))
    peers.load(peer, flatten(nnx.to_pure_dict(params)))
    with torch.inference_mode():
        found = peer(torch.from_numpy(np.ascontiguousarray(x.transpose(0, 3, 1, 2))), torch.from_numpy(t))
    np.testing.assert_allclose(found.numpy().transpose(0, 2, 3, 1), wanted, rtol=1e-3, atol=1e-3 * np.abs(wanted).max())

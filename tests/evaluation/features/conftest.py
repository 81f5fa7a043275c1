"""The recorder of references, files of weights, and small networks."""

import hashlib
import importlib.util
import json
import pathlib

import numpy as np
import pytest
from flax import nnx

from genbench.evaluation.features import dinov2, weights
from genbench.networks.vision_transformer import VisionTransformer

HERE = pathlib.Path(__file__).parent


@pytest.fixture(scope='session')
def recorder():
    """The module record_inception.py, which says how images and weights of the recording are made."""
    spec = importlib.util.spec_from_file_location('record_inception', HERE / 'record_inception.py')
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope='session')
def recorded():
    """What reference tools computed, by name."""
    return dict(np.load(HERE / 'inception.npz'))


def write_safetensors(path, tensors):
    """Write float32 tensors by the format's description, and return the file's SHA-256."""
    header, begin = {'__metadata__': {'format': 'test'}}, 0
    for name, value in tensors.items():
        header[name] = {'dtype': 'F32', 'shape': list(value.shape), 'data_offsets': [begin, begin + value.nbytes]}
        begin += value.nbytes
    text = json.dumps(header).encode()
    data = (
        len(text).to_bytes(8, 'little') + text + b''.join(value.astype('<f4').tobytes() for value in tensors.values())
    )
    path.write_bytes(data)
    return hashlib.sha256(data).hexdigest()


@pytest.fixture(scope='session')
def safetensors():
    return write_safetensors


def vit_shapes(architecture):
    """Names and shapes of the parameters of a vision transformer."""
    options = {name: getattr(architecture, name) for name in ('size', 'depth', 'heads', 'patch', 'positions')}
    state = nnx.split(nnx.eval_shape(lambda: VisionTransformer(**options)))[1]
    return {path: leaf.shape for path, leaf in weights.by_path(nnx.to_pure_dict(state)).items()}


@pytest.fixture(scope='session')
def vit_shapes_of():
    return vit_shapes


@pytest.fixture(scope='session')
def tiny_vit(recorder, tmp_path_factory):
    """(architecture, tensors, file, SHA-256) of two blocks with three heads, and position embeddings to be resized."""
    published = weights.Published('tiny', 'https://nowhere/tiny.pth', '0' * 64)
    architecture = dinov2.Architecture(published, 12, 2, 3, positions=5)
    tensors = recorder.seeded_weights({**vit_shapes(architecture), 'mask_token': (1, 12)})
    path = tmp_path_factory.mktemp('weights') / 'tiny.safetensors'
    return architecture, tensors, str(path), write_safetensors(path, tensors)

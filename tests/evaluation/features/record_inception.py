"""Record what the reference tools compute, for tests that run without them. Writes inception.npz and the .pth files.

    pip install torch==2.13.0 pillow numpy
    pip install --no-deps torch-fidelity==0.4.0 pytorch-fid==0.3.0 clean-fid==0.1.35
    python tests/evaluation/features/record_inception.py

The published weights are not needed: both sides fill the network with the same random ones, by `seeded_weights`.
torchvision is not needed either: pytorch-fid inherits the constructors of its Inception blocks from it, and torch-
fidelity has the same ones. Tests import `seeded_weights` and `images` from here, so only numpy is imported above.
"""

import copy
import math
import pathlib
import sys
import unittest.mock
from collections.abc import Mapping

import numpy as np

HERE = pathlib.Path(__file__).parent
KINDS = {'32x32': (32, 32, 3), '28x28 grey': (28, 28, 1), '299x299': (299, 299, 3)}
CONVENTIONS = ('ttur', 'pytorch-fid', 'clean')
LENGTHS = (28, 32, 96, 256, 299, 330, 500)  # of the columns of pixels whose resizing is recorded
FEATURES_STEP, LOGITS_STEP, SPATIAL_STEP = 4, 16, 16  # of what is kept, so that the recording stays small


def seeded_weights(shapes: Mapping[str, tuple[int, ...]]) -> dict[str, np.ndarray]:
    """Random tensors of these names and shapes that keep activations near one (He et al. 2015)."""
    draw = np.random.Generator(np.random.Philox(0))
    found = {}
    for name in sorted(shapes):
        values = draw.standard_normal(shapes[name], np.float32)
        if len(shapes[name]) > 1:
            values *= np.float32(math.sqrt(2 / math.prod(shapes[name][1:])))
        elif name.endswith('running_var'):
            values = np.float32(0.5) + np.abs(values)
        elif name.endswith(('.weight', '.gamma')):  # of a normalisation
            values = np.float32(1) + values * np.float32(0.2)
        else:
            values *= np.float32(0.1)
        found[name] = values
    return found


def images(kind: str) -> np.ndarray:
    """Two uint8 images with edges, saturated areas and noise."""
    height, width, channels = KINDS[kind]
    draw = np.random.Generator(np.random.Philox(1))
    coarse = draw.uniform(-40, 295, (2, 5, 5, channels))
    blocks = coarse[:, np.arange(height) * 5 // height][:, :, np.arange(width) * 5 // width]
    return np.clip(blocks + draw.normal(0, 12, (2, height, width, channels)), 0, 255).astype(np.uint8)


def column(length: int) -> np.ndarray:
    """An image whose rows are noise, and all of whose columns are the same."""
    values = np.random.Generator(np.random.Philox(3)).integers(0, 256, (length, 1, 1), dtype=np.uint8)
    return np.broadcast_to(values, (length, 8, 3))


def resized(torch, convention: str, image: np.ndarray) -> np.ndarray:
    """The first column of an image of 299×299 pixels in 0 … 255, as a convention's tool resizes it."""
    if convention == 'clean':
        from cleanfid import resize

        return resize.build_resizer('clean')(image)[:, 0, 0]
    planes = _planes(torch, image[None]).float()
    if convention == 'pytorch-fid':
        return torch.nn.functional.interpolate(planes, (299, 299), mode='bilinear')[0, 0, :, 0].numpy()
    from torch_fidelity import interpolate_compat_tensorflow as fidelity

    return fidelity.interpolate_bilinear_2d_like_tensorflow1x(planes, (299, 299), align_corners=False)[
        0, 0, :, 0
    ].numpy()


def tensors(torch):
    """A state dict with views, parameters, several types and an empty tensor."""
    shared = torch.arange(24, dtype=torch.float32)
    return {
        'transposed': shared[:6].reshape(2, 3).t(), 'tail': shared[20:], 'columns': shared.reshape(4, 6)[:, 1::2],
        'parameter': torch.nn.Parameter(torch.tensor([0.5, -2.0])), 'count': torch.tensor(7),
        'double': torch.tensor([1 / 3], dtype=torch.float64), 'half': torch.tensor([0.1, 65504.0]).half(),
        'brain': torch.tensor([0.1, 3e38]).bfloat16(), 'bytes': torch.tensor([[0, 255]], dtype=torch.uint8),
        'true': torch.tensor([True, False]), 'short': torch.tensor([-3], dtype=torch.int16),
        'empty': torch.zeros(0, 3),
    }  # fmt: skip


def reference_networks(torch):
    """torch-fidelity's extractor and pytorch-fid's network, both with the seeded weights."""
    for part in ('', '.models', '.models.inception', '.transforms', '.transforms.functional', '.datasets'):
        sys.modules.setdefault(f'torchvision{part}', unittest.mock.MagicMock())
    from torch_fidelity import feature_extractor_inceptionv3 as fidelity

    kind, replace = fidelity.FeatureExtractorInceptionV3, unittest.mock.patch.object
    with replace(kind, 'load_state_dict', lambda *_: None), replace(torch, 'load', lambda *_, **__: {}):
        extractor = kind('inception-v3-compat', ['2048', 'logits_unbiased'], feature_extractor_weights_path='none')
    shapes = {name: tuple(value.shape) for name, value in extractor.state_dict().items() if value.ndim}
    state = {name: torch.from_numpy(value) for name, value in seeded_weights(shapes).items()}
    extractor.load_state_dict(state, strict=False)

    models = sys.modules['torchvision'].models
    sys.modules['torchvision'].__version__ = '0.20.0'
    models.inception_v3 = lambda **_: _like_torchvision(extractor)
    models.inception.InceptionA, models.inception.InceptionC = fidelity.InceptionA, fidelity.InceptionC
    models.inception.InceptionE = fidelity.InceptionE_1
    from pytorch_fid import inception

    with replace(inception, 'load_state_dict_from_url', lambda *_, **__: state):
        return extractor, inception.InceptionV3([3]).eval()


def _like_torchvision(extractor):
    """The extractor's layers, whose blocks pytorch-fid replaces by its own before it loads the weights."""
    network = copy.deepcopy(extractor)
    load = network.load_state_dict
    network.load_state_dict = lambda state: load(state, strict=False)
    return network


def reference_outputs(torch, extractor, network, convention: str, pixels: np.ndarray) -> dict[str, np.ndarray]:
    """pool3, and but for pytorch-fid the unbiased logits and the layer of sFID, as a convention's tool has them."""
    rgb = np.broadcast_to(pixels, (*pixels.shape[:3], 3))
    if convention == 'pytorch-fid':
        with torch.no_grad():
            return {'features': network(_planes(torch, rgb) / 255)[0].flatten(1).numpy()}
    if convention == 'clean':
        from cleanfid import resize

        rgb = np.stack([resize.build_resizer('clean')(image) for image in rgb])
    spatial = []
    hook = extractor.Mixed_6d.branch1x1.register_forward_hook(lambda *call: spatial.append(call[-1]))
    any_type = unittest.mock.patch.object(sys.modules[type(extractor).__module__], 'vassert', lambda *_: None)
    with any_type:  # clean-fid resizes before the network and gives it floats; those of 299×299 are not resized again
        features, logits = extractor(_planes(torch, rgb))
    hook.remove()
    layer = spatial[0][:, :7].permute(0, 2, 3, 1).flatten(1)
    return {'features': features.numpy(), 'logits': logits.numpy(), 'spatial': layer.numpy()}


def _planes(torch, rgb: np.ndarray):
    return torch.from_numpy(np.ascontiguousarray(rgb.transpose(0, 3, 1, 2)))


def main() -> None:
    import torch

    extractor, network = reference_networks(torch)
    steps = {'features': FEATURES_STEP, 'logits': LOGITS_STEP, 'spatial': SPATIAL_STEP}
    kept = {}
    for convention in CONVENTIONS:
        for kind in KINDS:
            found = reference_outputs(torch, extractor, network, convention, images(kind))
            for output, values in found.items():
                kept[f'{convention}/{kind}/{output}'] = values[:, :: steps[output]]
        for length in LENGTHS:
            kept[f'{convention}/column {length}'] = resized(torch, convention, column(length))
    grid = np.random.Generator(np.random.Philox(2)).standard_normal((1, 2, 37, 37), np.float32)
    scale = (16 + 0.1) / 37
    kept['positions'] = torch.nn.functional.interpolate(
        torch.from_numpy(grid), scale_factor=(scale, scale), mode='bicubic'
    ).numpy()  # as DINOv2's interpolate_pos_encoding
    np.savez_compressed(HERE / 'inception.npz', **kept)
    torch.save(tensors(torch), HERE / 'tensors_zip.pth')
    torch.save(tensors(torch), HERE / 'tensors_stream.pth', _use_new_zipfile_serialization=False)


if __name__ == '__main__':
    main()

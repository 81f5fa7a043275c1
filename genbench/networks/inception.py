"""The Inception of 2015-12-05 whose features FID is defined on (Szegedy et al. 2016; Heusel et al. 2017).

It differs from torchvision's: average pools exclude the padding, Mixed_7c pools by the maximum, there is no auxiliary
head, and there are 1008 classes. Modules carry the names of the published weights. Batch normalisation, whose epsilon
is 1e-3, is folded into the convolutions when the weights are read (see `folded`).
"""

import functools
from collections.abc import Mapping

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

Array = jax.Array

SIZE = 299  # side of the input images
FEATURES, CLASSES = 2048, 1008
SPATIAL_CHANNELS = 7  # of Mixed_6d.branch1x1, the node mixed_6/conv of the original graph, in sFID (Nash et al. 2021)
EPSILON = 1e-3


class Convolution(nnx.Module):
    """Convolution, batch normalisation and ReLU: x (batch, height, width, inputs) → (…, outputs).

    Padding keeps the size, unless the convolution is `valid`.
    """

    def __init__(
        self, inputs: int, outputs: int, kernel: tuple[int, int] = (1, 1), *, stride: int = 1, valid: bool = False
    ):
        self.kernel = nnx.Param(jnp.zeros((*kernel, inputs, outputs)))
        self.bias = nnx.Param(jnp.zeros(outputs))
        self.stride, self.valid = stride, valid

    def __call__(self, x: Array) -> Array:
        kernel = self.kernel[...]
        if kernel.shape[:2] == (1, 1):
            return nnx.relu(x @ kernel[0, 0] + self.bias[...])
        height, width = kernel.shape[:2]
        # XLA's CPU convolution is two to four times as fast with padding as without. A valid convolution
        # therefore computes an extra row and cuts it off. With stride 2 and odd heights there is no extra row.
        padding = ((0, 1), (0, 0)) if self.valid else ((height // 2,) * 2, (width // 2,) * 2)
        y = jax.lax.conv_general_dilated(
            x, kernel, (self.stride, self.stride), padding, dimension_numbers=('NHWC', 'HWIO', 'NHWC')
        )
        return nnx.relu((y[:, :-1] if self.valid and self.stride == 1 else y) + self.bias[...])


class MixedA(nnx.Module):
    """35×35 → 35×35 with 224 + `pooled` channels."""

    def __init__(self, inputs: int, pooled: int):
        self.branch1x1 = Convolution(inputs, 64)
        self.branch5x5_1 = Convolution(inputs, 48)
        self.branch5x5_2 = Convolution(48, 64, (5, 5))
        self.branch3x3dbl_1 = Convolution(inputs, 64)
        self.branch3x3dbl_2 = Convolution(64, 96, (3, 3))
        self.branch3x3dbl_3 = Convolution(96, 96, (3, 3))
        self.branch_pool = Convolution(inputs, pooled)

    def __call__(self, x: Array) -> Array:
        double = self.branch3x3dbl_3(self.branch3x3dbl_2(self.branch3x3dbl_1(x)))
        return _join(
            self.branch1x1(x), self.branch5x5_2(self.branch5x5_1(x)), double, self.branch_pool(average_pool(x))
        )


class MixedB(nnx.Module):
    """35×35 → 17×17 with 480 more channels."""

    def __init__(self, inputs: int):
        self.branch3x3 = Convolution(inputs, 384, (3, 3), stride=2, valid=True)
        self.branch3x3dbl_1 = Convolution(inputs, 64)
        self.branch3x3dbl_2 = Convolution(64, 96, (3, 3))
        self.branch3x3dbl_3 = Convolution(96, 96, (3, 3), stride=2, valid=True)

    def __call__(self, x: Array) -> Array:
        double = self.branch3x3dbl_3(self.branch3x3dbl_2(self.branch3x3dbl_1(x)))
        return _join(self.branch3x3(x), double, max_pool(x, stride=2))


class MixedC(nnx.Module):
    """17×17 → 17×17 with 768 channels. Its 1×7 and 7×1 convolutions have `inner` channels."""

    def __init__(self, inputs: int, inner: int):
        self.branch1x1 = Convolution(inputs, 192)
        self.branch7x7_1 = Convolution(inputs, inner)
        self.branch7x7_2 = Convolution(inner, inner, (1, 7))
        self.branch7x7_3 = Convolution(inner, 192, (7, 1))
        self.branch7x7dbl_1 = Convolution(inputs, inner)
        self.branch7x7dbl_2 = Convolution(inner, inner, (7, 1))
        self.branch7x7dbl_3 = Convolution(inner, inner, (1, 7))
        self.branch7x7dbl_4 = Convolution(inner, inner, (7, 1))
        self.branch7x7dbl_5 = Convolution(inner, 192, (1, 7))
        self.branch_pool = Convolution(inputs, 192)

    def __call__(self, x: Array) -> Array:
        single = self.branch7x7_3(self.branch7x7_2(self.branch7x7_1(x)))
        double = self.branch7x7dbl_3(self.branch7x7dbl_2(self.branch7x7dbl_1(x)))
        double = self.branch7x7dbl_5(self.branch7x7dbl_4(double))
        return _join(self.branch1x1(x), single, double, self.branch_pool(average_pool(x)))


class MixedD(nnx.Module):
    """17×17 → 8×8 with 512 more channels."""

    def __init__(self, inputs: int):
        self.branch3x3_1 = Convolution(inputs, 192)
        self.branch3x3_2 = Convolution(192, 320, (3, 3), stride=2, valid=True)
        self.branch7x7x3_1 = Convolution(inputs, 192)
        self.branch7x7x3_2 = Convolution(192, 192, (1, 7))
        self.branch7x7x3_3 = Convolution(192, 192, (7, 1))
        self.branch7x7x3_4 = Convolution(192, 192, (3, 3), stride=2, valid=True)

    def __call__(self, x: Array) -> Array:
        seven = self.branch7x7x3_4(self.branch7x7x3_3(self.branch7x7x3_2(self.branch7x7x3_1(x))))
        return _join(self.branch3x3_2(self.branch3x3_1(x)), seven, max_pool(x, stride=2))


class MixedE(nnx.Module):
    """8×8 → 8×8 with 2048 channels. With `largest`, it pools by the maximum."""

    def __init__(self, inputs: int, *, largest: bool):
        self.branch1x1 = Convolution(inputs, 320)
        self.branch3x3_1 = Convolution(inputs, 384)
        self.branch3x3_2a = Convolution(384, 384, (1, 3))
        self.branch3x3_2b = Convolution(384, 384, (3, 1))
        self.branch3x3dbl_1 = Convolution(inputs, 448)
        self.branch3x3dbl_2 = Convolution(448, 384, (3, 3))
        self.branch3x3dbl_3a = Convolution(384, 384, (1, 3))
        self.branch3x3dbl_3b = Convolution(384, 384, (3, 1))
        self.branch_pool = Convolution(inputs, 192)
        self.largest = largest

    def __call__(self, x: Array) -> Array:
        single, double = self.branch3x3_1(x), self.branch3x3dbl_2(self.branch3x3dbl_1(x))
        return _join(
            self.branch1x1(x), self.branch3x3_2a(single), self.branch3x3_2b(single), self.branch3x3dbl_3a(double),
            self.branch3x3dbl_3b(double), self.branch_pool(max_pool(x, pad=1) if self.largest else average_pool(x)),
        )  # fmt: skip


class Inception(nnx.Module):
    """Scaled images (batch, 299, 299, 3) → the inputs of metrics, by name. Under jit, unused parts are not computed.

    features: the mean over the last 8×8 pixels, pool3 (batch, 2048).
    spatial: seven channels of a layer with 17×17 pixels, for sFID (batch, 2023).
    logits: the logits of 1008 classes, without the bias, for the Inception score (batch, 1008).
    """

    def __init__(self) -> None:
        self.Conv2d_1a_3x3 = Convolution(3, 32, (3, 3), stride=2, valid=True)
        self.Conv2d_2a_3x3 = Convolution(32, 32, (3, 3), valid=True)
        self.Conv2d_2b_3x3 = Convolution(32, 64, (3, 3))
        self.Conv2d_3b_1x1 = Convolution(64, 80)
        self.Conv2d_4a_3x3 = Convolution(80, 192, (3, 3), valid=True)
        self.Mixed_5b, self.Mixed_5c, self.Mixed_5d = MixedA(192, 32), MixedA(256, 64), MixedA(288, 64)
        self.Mixed_6a = MixedB(288)
        self.Mixed_6b, self.Mixed_6c = MixedC(768, 128), MixedC(768, 160)
        self.Mixed_6d, self.Mixed_6e = MixedC(768, 160), MixedC(768, 192)
        self.Mixed_7a = MixedD(768)
        self.Mixed_7b, self.Mixed_7c = MixedE(1280, largest=False), MixedE(2048, largest=True)
        self.fc = nnx.Param(jnp.zeros((CLASSES, FEATURES)))

    def __call__(self, x: Array) -> dict[str, Array]:
        x = max_pool(self.Conv2d_2b_3x3(self.Conv2d_2a_3x3(self.Conv2d_1a_3x3(x))), stride=2)
        x = max_pool(self.Conv2d_4a_3x3(self.Conv2d_3b_1x1(x)), stride=2)
        x = self.Mixed_5d(self.Mixed_5c(self.Mixed_5b(x)))
        x = self.Mixed_6c(self.Mixed_6b(self.Mixed_6a(x)))
        spatial = self.Mixed_6d.branch1x1(x)[..., :SPATIAL_CHANNELS]
        x = self.Mixed_6e(self.Mixed_6d(x))
        x = self.Mixed_7c(self.Mixed_7b(self.Mixed_7a(x)))
        features = x.mean((1, 2))
        logits = features @ self.fc[...].T
        return {'features': features, 'spatial': spatial.reshape(len(x), -1), 'logits': logits}


def max_pool(x: Array, *, stride: int = 1, pad: int = 0) -> Array:
    """The maximum over 3×3 pixels, written with slices, which XLA computes faster on CPU than windows."""
    if pad:
        x = jnp.pad(x, ((0, 0), (pad, pad), (pad, pad), (0, 0)), constant_values=-jnp.inf)
    for axis in (1, 2):
        x = functools.reduce(jnp.maximum, _thirds(x, axis, stride))
    return x


def average_pool(x: Array) -> Array:
    """The mean over those of 3×3 pixels that are inside the image."""
    counts = [np.minimum(np.minimum(np.arange(n) + 2, n + 1 - np.arange(n)), 3) for n in x.shape[1:3]]
    x = jnp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
    for axis in (1, 2):
        x = functools.reduce(jnp.add, _thirds(x, axis, 1))
    return x / np.multiply.outer(*counts).astype(np.float32)[:, :, None]


def _thirds(x: Array, axis: int, stride: int) -> list[Array]:
    """The first, second and third pixel of every window of three along an axis."""
    end = (x.shape[axis] - 3) // stride * stride + 1
    return [jax.lax.slice_in_dim(x, first, first + end, stride, axis) for first in range(3)]


def _join(*branches: Array) -> Array:
    return jnp.concatenate(branches, axis=-1)


def published_shapes(params: Mapping[str, jax.ShapeDtypeStruct]) -> dict[str, tuple[int, ...]]:
    """Names and shapes of the published weights, given the parameters of an Inception by dotted path."""
    shapes: dict[str, tuple[int, ...]] = {}
    for path, leaf in params.items():
        module, _, name = path.rpartition('.')
        if name == 'kernel':
            height, width, inputs, outputs = leaf.shape
            shapes[f'{module}.conv.weight'] = (outputs, inputs, height, width)
            shapes |= {f'{module}.bn.{part}': (outputs,) for part in ('weight', 'bias', 'running_mean', 'running_var')}
    return {**shapes, 'fc.weight': (CLASSES, FEATURES), 'fc.bias': (CLASSES,)}


def folded(path: str, tensors: Mapping[str, np.ndarray]) -> np.ndarray:
    """The parameter at a dotted path, from the published weights with γ / √(σ² + ε) and the means folded in."""
    module, _, name = path.rpartition('.')
    if not module:
        return tensors['fc.weight']
    gamma, beta, mean, variance = (
        tensors[f'{module}.bn.{part}'].astype(np.float64) for part in ('weight', 'bias', 'running_mean', 'running_var')
    )
    scale = gamma / np.sqrt(variance + EPSILON)
    value = beta - mean * scale if name == 'bias' else tensors[f'{module}.conv.weight'].transpose(2, 3, 1, 0) * scale
    return value.astype(np.float32)

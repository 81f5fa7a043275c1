"""LPIPS: the perceptual distance of images, version 0.1 on VGG16.

R. Zhang, P. Isola, A. Efros, E. Shechtman, O. Wang, The Unreasonable Effectiveness of Deep Features as a Perceptual
Metric, 2018, and the weights of its package, lpips.
"""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from genbench.networks import vgg, weights
from genbench.networks.vgg import Frozen

Array = jax.Array

TITLE = 'LPIPS 0.1, VGG16'
VGG_SHA256 = '397923af8e79cdbb6a7127f12361acd7a2f83e06b05044ddf496e83de57a5bf0'  # vgg16-397923af.pth of torchvision
LINEAR_SHA256 = 'a78928a0af1e5f0fcb1f3b9e8f8c3a2a5a3de244d830ad5c1feddc79b8432868'  # weights/v0.1/vgg.pth of lpips
SHIFT, SCALE = (-0.030, -0.088, -0.188), (0.458, 0.448, 0.450)  # normalises images in [−1, 1]
EPSILON = 1e-10  # added to the length of a feature
SMALLEST = 16  # side of the images; the last stage sees such an image as one pixel


class LPIPS(nnx.Module):
    """Pairs of images in [−1, 1] (batch, height, width, 1 or 3), at least 16 pixels a side → distances (batch,).

    It is zero for equal images (Zhang et al. 2018, equation 1). A fresh one holds zeros until it is `filled`. Its
    weights are no parameters: they are stored with a run, and no optimizer changes them.
    """

    def __init__(self, stages: Sequence[tuple[int, int]] = vgg.STAGES):
        self.convolutions = vgg.Convolutions(stages)
        self.linear = nnx.List([Frozen(jnp.zeros(channels)) for channels, _ in stages])

    def __call__(self, x: Array, y: Array) -> Array:
        shift, scale = np.asarray(SHIFT, np.float32), np.asarray(SCALE, np.float32)
        seen = [self.convolutions.activations((images - shift) / scale) for images in (x, y)]
        parts = [
            (jnp.square(_unit(one) - _unit(other)) @ weight[...]).mean((1, 2))
            for one, other, weight in zip(*seen, self.linear, strict=True)
        ]
        return jnp.stack(parts).sum(0)


def read(
    convolutions: weights.Weights, linear: weights.Weights, stages: Sequence[tuple[int, int]] = vgg.STAGES
) -> dict[str, np.ndarray]:
    """The weights of an `LPIPS` by the dotted paths of its variables.

    Args:
      convolutions: torchvision's VGG16, of which the classifier is left out.
      linear: the linear layers of the package lpips.

    Raises:
      UserError: a file is of another network.
    """
    shapes = shapes_of(stages)
    own = {path: shape for path, shape in shapes.items() if path.startswith('convolutions.')}
    names = {path: path.removeprefix('convolutions.') for path in own}
    found = weights.checked(convolutions, {names[path]: own[path] for path in own}, beside=('classifier.',))
    layers = {f'linear.{index}': f'lin{index}.model.1.weight' for index in range(len(stages))}
    held = weights.checked(linear, {name: (1, *shapes[path], 1, 1) for path, name in layers.items()})
    return {
        **{path: found[name] for path, name in names.items()},
        **{path: held[name].reshape(-1) for path, name in layers.items()},
    }


def shapes_of(stages: Sequence[tuple[int, int]] = vgg.STAGES) -> dict[str, tuple[int, ...]]:
    """The shapes of an `LPIPS`'s weights by their dotted paths."""
    tree = weights.abstract(lambda: LPIPS(stages))[1]
    return {path: leaf.shape for path, leaf in weights.by_path(tree).items()}


def _unit(x: Array) -> Array:
    """Features (…, channels) of length one; zeros as they are, with a gradient of zero."""
    squared = jnp.square(x).sum(-1, keepdims=True)
    return x / (jnp.sqrt(jnp.where(squared > 0, squared, 1.0)) + EPSILON)

"""VGG16 with torchvision's weights: the features of its second hidden layer, and LPIPS on its convolutions."""

import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from genbench.errors import UserError
from genbench.evaluation.features import dinov2, network, weights
from genbench.evaluation.features.network import FeatureNetwork
from genbench.networks import perceptual, vgg
from genbench.networks.perceptual import SMALLEST

PUBLISHED = weights.Published(
    'VGG16', 'https://download.pytorch.org/models/vgg16-397923af.pth',
    perceptual.VGG_SHA256,
)  # fmt: skip
LINEAR = weights.Published(
    'the linear layers of LPIPS 0.1 for VGG16',
    'https://github.com/richzhang/PerceptualSimilarity/raw/master/lpips/weights/v0.1/vgg.pth',
    perceptual.LINEAR_SHA256, file='lpips-v0.1-vgg.pth',
)  # fmt: skip


def open_network(
    convention: str = 'dgm-eval', path: str = '', sha256: str = '', *, batch_size: int = 64, quiet: bool = False,
    stages: Sequence[tuple[int, int]] = vgg.STAGES, hidden: int = vgg.HIDDEN,
) -> FeatureNetwork:  # fmt: skip
    """VGG16 on images that are prepared as DINOv2's are, with the weights of a file or the published ones.

    Raises:
      UserError: the weights are not there, have another hash, or are of another network.
    """
    file = weights.find(PUBLISHED, path, sha256, quiet=quiet)
    definition, params = weights.filled(lambda: vgg.VGG16(dinov2.SIZE, stages, hidden), file, beside=('classifier.6.',))

    def apply(params: Any, images: jax.Array) -> dict[str, jax.Array]:
        return {'features': nnx.merge(definition, params)(dinov2.scaled(images, convention))}

    protocol = {
        'weights': file.identity, 'convention': convention, 'resize': dinov2.CONVENTIONS[convention],
        'input': '(x / 255 − ImageNet mean) / ImageNet deviation', 'layer': 'second hidden one, after ReLU',
        'dimensions': hidden,
    }  # fmt: skip
    return network.make(
        'vgg16', apply, params, protocol, batch_size=network.small_on_cpu(batch_size),
        alone=functools.partial(dinov2.alone, convention=convention), rounds=convention == 'dgm-eval',
    )  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Perceptual:
    """LPIPS (Zhang et al. 2018, equation 1), version 0.1 on VGG16: 0 for equal images, larger for less similar ones.

    Attributes:
      protocol: the files of weights.
      apply: (parameters, x, y) → distances (n,) of images (n, height, width, 1 or 3) in [−1, 1], at least 16 pixels a
        side; a function to compile.
    """

    protocol: dict[str, Any]
    params: Any
    apply: Callable[[Any, jax.Array, jax.Array], jax.Array]

    def __call__(self, x: np.ndarray, y: np.ndarray) -> np.ndarray:
        """Distances (n,) of two sets of integer images in 0 … 255, (n, height, width, 1 or 3), pair by pair.

        Raises:
          UserError: the sets differ in shape, or are not images of at least 16 pixels a side.
        """
        if x.shape != y.shape or x.ndim != 4 or x.shape[-1] not in (1, 3) or min(x.shape[1:3]) < SMALLEST:
            raise UserError('LPIPS compares pairs of images: two arrays of the shape (n, height, width, 1 or 3) with '
                            f'at least {SMALLEST} pixels a side. These are {x.shape} and {y.shape}.')  # fmt: skip
        pair = (jnp.asarray(images, jnp.float32) / 127.5 - 1 for images in (x, y))
        return np.asarray(self._program(self.params, *pair))

    @functools.cached_property
    def _program(self) -> Callable[..., jax.Array]:
        return jax.jit(self.apply)


def open_distance(
    path: str = '', sha256: str = '', linear: str = '', linear_sha256: str = '', *, quiet: bool = False
) -> Perceptual:
    """LPIPS with the weights of files, or the published ones, which are fetched once.

    Args:
      path: torchvision's VGG16.
      linear: `vgg.pth` of the package lpips, which has it in `weights/v0.1`.

    Raises:
      UserError: weights are not there, have another hash, or are of another network.
    """
    file = weights.find(PUBLISHED, path, sha256, quiet=quiet)
    added = weights.find(LINEAR, linear, linear_sha256, quiet=quiet)
    definition, empty = weights.abstract(perceptual.LPIPS)
    params = weights.fill(empty, perceptual.read(file, added).__getitem__)

    def apply(params: Any, x: jax.Array, y: jax.Array) -> jax.Array:
        with jax.default_matmul_precision('highest'):
            return nnx.merge(definition, params)(x, y)

    protocol = {'distance': perceptual.TITLE, 'vgg': file.identity, 'linear': added.identity}
    return Perceptual(protocol, params, apply)

"""DINOv2's class token (Oquab et al. 2023) under the conventions of dgm-eval (Stein et al. 2023)."""

import dataclasses
import functools
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from genbench.evaluation.features import network, resize, weights
from genbench.evaluation.features.network import FeatureNetwork
from genbench.networks.vision_transformer import VisionTransformer

SIZE = 224  # side of the input images
MEAN, DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of ImageNet
OFFSET = 0.1  # DINOv2 adds it to the number of patches when it computes the scale of the position embedding


@dataclasses.dataclass(frozen=True)
class Architecture:
    """One published network; its position embedding was learned on images of `positions` × `positions` patches."""

    published: weights.Published
    size: int
    depth: int
    heads: int
    patch: int = 14
    positions: int = 37


def _published(name: str, sha256: str) -> weights.Published:
    address = f'https://dl.fbaipublicfiles.com/dinov2/{name}/{name}_pretrain.pth'
    return weights.Published(f'DINOv2 {name.rpartition("_")[2]}', address, sha256)


ARCHITECTURES = {
    'dinov2-vitb14': Architecture(
        _published('dinov2_vitb14', '0b8b82f85de91b424aded121c7e1dcc2b7bc6d0adeea651bf73a13307fad8c73'), 768, 12, 12
    ),
    'dinov2-vitl14': Architecture(
        _published('dinov2_vitl14', 'd5383ea8f4877b2472eb973e0fd72d557c7da5d3611bd527ceeb1d7162cbf428'), 1024, 24, 16
    ),
}
CONVENTIONS = {
    'dgm-eval': 'Pillow bicubic to 224×224, rounded to 0 … 255',
    'clean': 'Pillow bicubic in float32 to 224×224, cut to 0 … 255',
}


def scaled(images: jax.Array, convention: str) -> jax.Array:
    """Integer images (n, height, width, 1 or 3) in 0 … 255 → the network's input (n, 224, 224, 3)."""
    rows, columns = (resize.pillow_bicubic(length, SIZE) for length in images.shape[1:3])
    if convention == 'dgm-eval':
        x = resize.resample_8bit(images, rows, columns).astype(jnp.float32)
    else:
        x = jnp.clip(resize.resample(images.astype(jnp.float32), rows, columns), 0, 255)
    return (x / 255 - np.asarray(MEAN, np.float32)) / np.asarray(DEVIATION, np.float32)


def alone(image: np.ndarray, convention: str) -> np.ndarray:
    """An image (height, width, channels) in 0 … 255 at the size of the input; `scaled` leaves it as it is."""
    rows, columns = (resize.pillow_bicubic(length, SIZE) for length in image.shape[:2])
    if convention == 'dgm-eval':
        return np.asarray(resize.resample_8bit(jnp.asarray(image[None]), rows, columns)[0]).astype(np.uint8)
    found = np.einsum('yh,xw,hwc->yxc', rows, columns, image.astype(np.float32), optimize=True)
    return np.clip(found, 0, 255).astype(np.float32)


def fitted_positions(embedding: np.ndarray, patches: int) -> np.ndarray:
    """A learned position embedding (1, 1 + m², d) for another number of patches along a side: (1, 1 + patches², d)."""
    _, tokens, size = embedding.shape
    side = math.isqrt(tokens - 1)
    if side == patches:
        return embedding
    matrix = resize.torch_bicubic(side, patches, (patches + OFFSET) / side)
    grid = embedding[0, 1:].reshape(side, side, size).astype(np.float64)
    grid = np.einsum('yh,xw,hwc->yxc', matrix, matrix, grid, optimize=True).reshape(1, patches**2, size)
    return np.concatenate([embedding[:, :1], grid.astype(np.float32)], axis=1)


def open_network(
    name: str = 'dinov2-vitb14', convention: str = 'dgm-eval', path: str = '', sha256: str = '',
    *, batch_size: int = 64, quiet: bool = False, architecture: Architecture | None = None,
) -> FeatureNetwork:  # fmt: skip
    """A published DINOv2 under a convention, with the weights of a file or the published ones.

    Raises:
      UserError: the weights are not there, have another hash, or are of another network.
    """
    chosen = architecture or ARCHITECTURES[name]
    file = weights.find(chosen.published, path, sha256, quiet=quiet)
    options = {'size': chosen.size, 'depth': chosen.depth, 'heads': chosen.heads, 'patch': chosen.patch}
    stored = nnx.eval_shape(lambda: VisionTransformer(**options, positions=chosen.positions))
    shapes = {path: leaf.shape for path, leaf in weights.by_path(nnx.to_pure_dict(nnx.split(stored)[1])).items()}
    tensors = weights.checked(file, shapes, unused=('mask_token',))
    patches = SIZE // chosen.patch
    tensors['pos_embed'] = fitted_positions(tensors['pos_embed'], patches)
    definition, state = nnx.split(nnx.eval_shape(lambda: VisionTransformer(**options, positions=patches)))
    params = weights.fill(nnx.to_pure_dict(state), tensors.__getitem__)

    def apply(params: Any, images: jax.Array) -> dict[str, jax.Array]:
        return {'features': nnx.merge(definition, params)(scaled(images, convention))}

    protocol = {
        'weights': file.identity, 'convention': convention, 'resize': CONVENTIONS[convention],
        'input': '(x / 255 − ImageNet mean) / ImageNet deviation', 'dimensions': chosen.size,
    }  # fmt: skip
    return network.make(
        name, apply, params, protocol, batch_size=network.small_on_cpu(batch_size),
        alone=functools.partial(alone, convention=convention), rounds=convention == 'dgm-eval',
    )  # fmt: skip

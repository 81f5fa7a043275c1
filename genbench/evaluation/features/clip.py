"""CLIP's image embeddings (Radford et al. 2021), of images that are prepared as CLIP prepares them.

The Fréchet distance in these features, with the published weights, is what papers call CLIP-FD.
"""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from genbench.evaluation.features import network, resize, weights
from genbench.evaluation.features.network import FeatureNetwork
from genbench.networks.clip import ImageEncoder

SIZE = 224  # side of the input images
MEAN, DEVIATION = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
BESIDE = ('text_model.', 'text_projection.', 'logit_scale')  # what the files contain besides the image tower


@dataclasses.dataclass(frozen=True)
class Architecture:
    """One published network."""

    published: weights.Published
    size: int
    depth: int
    heads: int
    patch: int
    embedding: int
    image: int = SIZE


def _published(title: str, name: str, revision: str, file: str, sha256: str) -> weights.Published:
    address = f'https://huggingface.co/openai/{name}/resolve/{revision}/{file}'
    return weights.Published(f'CLIP {title}', address, sha256, file=f'{name}.{file.rpartition(".")[2]}')


ARCHITECTURES = {
    'clip-vitb32': Architecture(
        _published(
            'ViT-B/32', 'clip-vit-base-patch32', '3d74acf9a28c67741b2f4f2ea7635f0aaf6f0268', 'pytorch_model.bin',
            'a63082132ba4f97a80bea76823f544493bffa8082296d62d71581a4feff1576f',
        ), 768, 12, 12, 32, 512,
    ),
    'clip-vitl14': Architecture(
        _published(
            'ViT-L/14', 'clip-vit-large-patch14', '32bd64288804d66eefd0ccbe215aa642df71cc41', 'model.safetensors',
            'a2bf730a0c7debf160f7a6b50b3aaf3703e7e88ac73de7a314903141db026dcb',
        ), 1024, 24, 16, 14, 768,
    ),
}  # fmt: skip


def _matrices(shape: tuple[int, ...], size: int) -> tuple[np.ndarray, np.ndarray]:
    """Of rows and of columns of images (height, width): the shorter side to `size`, the longer one cut to its middle.

    The length of the longer side is cut to a whole number, and the place of the middle is rounded to the even one.
    """
    shorter, found = min(shape), []
    for length in shape:
        longer = size * length // shorter
        begin = round((longer - size) / 2)
        found.append(resize.pillow_bicubic(length, longer)[begin : begin + size])
    return found[0], found[1]


def scaled(images: jax.Array, size: int = SIZE) -> jax.Array:
    """Integer images (n, height, width, 1 or 3) in 0 … 255 → the network's input (n, size, size, 3)."""
    x = resize.resample_8bit(images, *_matrices(images.shape[1:3], size)).astype(jnp.float32)
    return (x / 255 - np.asarray(MEAN, np.float32)) / np.asarray(DEVIATION, np.float32)


def alone(image: np.ndarray) -> np.ndarray:
    """An image (height, width, channels) in 0 … 255 at the size of the input; `scaled` leaves it as it is."""
    return np.asarray(resize.resample_8bit(jnp.asarray(image[None]), *_matrices(image.shape[:2], SIZE))[0], np.uint8)


def open_network(
    name: str = 'clip-vitb32', path: str = '', sha256: str = '', *, batch_size: int = 64, quiet: bool = False,
    architecture: Architecture | None = None,
) -> FeatureNetwork:  # fmt: skip
    """A published CLIP, with the weights of a file or the published ones; the file may hold its text tower, too.

    Raises:
      UserError: the weights are not there, have another hash, or are of another network.
    """
    chosen = architecture or ARCHITECTURES[name]
    file = weights.find(chosen.published, path, sha256, quiet=quiet)
    options = {key: getattr(chosen, key) for key in ('size', 'depth', 'heads', 'patch', 'embedding', 'image')}
    definition, params = weights.filled(lambda: ImageEncoder(**options), file, unused=('position_ids',), beside=BESIDE)

    def apply(params: Any, images: jax.Array) -> dict[str, jax.Array]:
        return {'features': nnx.merge(definition, params)(scaled(images, chosen.image))}

    protocol = {
        'weights': file.identity, 'resize': f'Pillow bicubic, shorter side to {chosen.image}, middle cut out',
        'input': '(x / 255 − CLIP mean) / CLIP deviation', 'dimensions': chosen.embedding,
    }  # fmt: skip
    size = network.small_on_cpu(batch_size)
    return network.make(name, apply, params, protocol, batch_size=size, alone=alone, rounds=True)

"""The Inception that FID is defined on, with its published weights, under the conventions in use."""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from genbench.evaluation.features import network, resize, weights
from genbench.evaluation.features.network import FeatureNetwork
from genbench.networks import inception as networks

# Converted from the graph of 2015-12-05. pytorch-fid publishes the same file under another name.
PUBLISHED = weights.Published(
    'the Inception of 2015-12-05',
    'https://github.com/toshas/torch-fidelity/releases/download/v0.2.0/weights-inception-2015-12-05-6726825d.pth',
    '6726825d0af5f729cebd5821db510b11b1cfad8faad88a03f1befd49fb9129b2',
    ('pt_inception-2015-12-05-6726825d.pth',),
)
OUTPUTS = ('features', 'spatial', 'logits')


@dataclasses.dataclass(frozen=True)
class Convention:
    """How integer images become the network's input: a rule of resizing, perhaps a cut to 0 … 255, and a scaling."""

    rule: Callable[[int, int], np.ndarray]
    resize: str  # the rule in words
    cut: bool
    scale: Callable[[jax.Array], jax.Array]
    input: str  # the scaling in words


CONVENTIONS = {
    'ttur': Convention(resize.tf1_bilinear, 'TF1 bilinear', False, lambda x: (x - 128) / 128, '(x − 128) / 128'),
    'pytorch-fid': Convention(
        resize.half_pixel_bilinear, 'half-pixel bilinear', False, lambda x: x / 127.5 - 1, 'x / 127.5 − 1'
    ),
    'clean': Convention(
        resize.pillow_bicubic, 'Pillow bicubic in float32, cut to 0 … 255', True, lambda x: (x - 128) / 128,
        '(x − 128) / 128',
    ),
}  # fmt: skip


def scaled(images: jax.Array, convention: str) -> jax.Array:
    """Integer images (n, height, width, 1 or 3) in 0 … 255 → the network's input (n, 299, 299, 3)."""
    chosen = CONVENTIONS[convention]
    rows, columns = (chosen.rule(length, networks.SIZE) for length in images.shape[1:3])
    x = resize.resample(images.astype(jnp.float32), rows, columns)
    x = chosen.scale(jnp.clip(x, 0, 255) if chosen.cut else x)
    return jnp.broadcast_to(x, (*x.shape[:3], 3))


def alone(image: np.ndarray, convention: str) -> np.ndarray:
    """An image (height, width, channels) in 0 … 255 at the size of the input, float32; `scaled` leaves it as it is."""
    chosen = CONVENTIONS[convention]
    rows, columns = (chosen.rule(length, networks.SIZE) for length in image.shape[:2])
    found = np.einsum('yh,xw,hwc->yxc', rows, columns, image.astype(np.float32), optimize=True).astype(np.float32)
    return np.clip(found, 0, 255) if chosen.cut else found


def load(file: weights.Weights) -> tuple[Any, Any]:
    """(definition, parameters) of the network with the weights of a file; a UserError when they are not its own."""
    definition, state = nnx.split(nnx.eval_shape(networks.Inception))
    abstract = nnx.to_pure_dict(state)
    shapes = networks.published_shapes(weights.by_path(abstract))
    tensors = weights.checked(file, shapes, unused=('num_batches_tracked',))
    return definition, weights.fill(abstract, functools.partial(networks.folded, tensors=tensors))


def open_network(
    convention: str = 'ttur', path: str = '', sha256: str = '', *, batch_size: int = 64, quiet: bool = False
) -> FeatureNetwork:
    """The network of 2015 under a convention, with the weights of a file or the published ones.

    Raises:
      UserError: the weights are not there, have another hash, or are of another network.
    """
    file = weights.find(PUBLISHED, path, sha256, quiet=quiet)
    definition, params = load(file)

    def apply(params: Any, images: jax.Array) -> dict[str, jax.Array]:
        return nnx.merge(definition, params)(scaled(images, convention))

    chosen = CONVENTIONS[convention]
    protocol = {
        'weights': file.identity, 'convention': convention, 'resize': f'{chosen.resize} to 299×299',
        'input': chosen.input, 'dimensions': networks.FEATURES, 'spatial': 'first 7 channels of Mixed_6d.branch1x1',
        'logits': 'without bias',
    }  # fmt: skip
    return network.make(
        'inception', apply, params, protocol, batch_size=network.small_on_cpu(batch_size), outputs=OUTPUTS,
        published=file.published, alone=functools.partial(alone, convention=convention),
    )  # fmt: skip

"""What every feature network is: images to named arrays, and what a number that was made with them depends on."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import numpy as np

from genbench.errors import UserError
from genbench.training import sampling

Apply = Callable[[Any, jax.Array], Mapping[str, jax.Array]]  # (parameters, integer images) → outputs by name


@dataclasses.dataclass(frozen=True)
class FeatureNetwork:
    """Integer images → features, on all devices of this process.

    Attributes:
      name: one of `features.NAMES`, or 'classifier-<data set>-<hash>'.
      protocol: everything of the network that a number depends on.
      outputs: of 'features', 'spatial' and 'logits'; 'features' is always there.
      levels: images are integers in [0, levels).
      published: whether this is the Inception of 2015 with its published weights, so that metrics may be called FID.
      accuracy: of a trained classifier, on the train images it was fitted to.
      shape: of the images it reads; None for a network that reads any.
      alone: one image (height, width, 1 or 3) of 256 levels → the same at the size of the network's input, so that
        images of several sizes make a batch; None for a network that does not resize.
      rounds: whether it rounds images that are no integers, so that it does not see small changes of them.
    """

    name: str
    protocol: Mapping[str, Any]
    outputs: tuple[str, ...]
    levels: int
    published: bool
    _batch_size: int
    _params: Any
    _program: Callable[..., dict[str, jax.Array]]
    accuracy: float | None = None
    shape: tuple[int, ...] | None = None
    alone: Callable[[np.ndarray], np.ndarray] | None = None
    rounds: bool = False

    @property
    def weights(self) -> str:
        """Hash of the weights, or '' when there are none."""
        return self.protocol.get('weights', '')

    @property
    def params(self) -> Any:
        return self._params

    def traced(self, params: Any, images: jax.Array) -> jax.Array:
        """Features (n, d) of images (n, height, width, 1 or 3), real values in [0, levels), inside another program."""
        return self._program(params, images, ('features',))['features']

    def __call__(self, images: np.ndarray) -> np.ndarray:
        """Features (n, d) of integer images (n, height, width, channels)."""
        return self.extract(images)['features']

    def extract(
        self,
        images: np.ndarray,
        outputs: Sequence[str] = ('features',),
        progress: Callable[[int], None] | None = None,
    ) -> dict[str, np.ndarray]:
        """The wanted outputs, each (n, d) float32, of integer images (n, height, width, 1 or 3), whatever n.

        Batches are of one size, the last one padded with copies that are cut off again, so that images of one shape
        compile once. `progress` hears how many images are done.

        Raises:
          UserError: no images, not of one or three channels, or not of the shape that the network reads.
        """
        if images.ndim != 4 or not len(images) or images.shape[-1] not in (1, 3):
            raise UserError(f'The images have the shape {images.shape}; {self.name} needs at least one, with the shape '
                            '(n, height, width, 1 or 3).')  # fmt: skip
        self.check_shape(images.shape[1:])
        if images.dtype.kind not in ('iu' if self.alone is None else 'iuf'):
            raise TypeError(f'images are integers in [0, {self.levels}), not {images.dtype}')
        size, count = sampling.whole_batches(self._batch_size), len(images)
        images = images if images.dtype in (np.uint8, np.float32) else images.astype(np.int32)
        found: list[dict[str, np.ndarray]] = []
        running: dict[str, jax.Array] = {}
        for start in range(0, count, size):
            indices = np.resize(np.arange(start, min(start + size, count)), size)
            batch = sampling.split_over_devices(images[indices])
            before, running = running, self._program(self._params, batch, tuple(outputs))
            found += [jax.device_get(before)] if before else []  # while the device works on the next one
            if progress is not None:
                progress(min(start + size, count))
        found.append(jax.device_get(running))
        return {name: np.concatenate([part[name] for part in found])[:count] for name in outputs}

    def check_shape(self, shape: tuple[int, ...]) -> None:
        """Refuse images of a shape (height, width, channels) that the network was not made for."""
        if self.shape not in (None, tuple(shape)):
            read, given = ('×'.join(map(str, sizes)) for sizes in (self.shape or (), shape))
            raise UserError(f'{self.name} needs images of {read} (height, width, channels); these are {given}.')


def make(
    name: str,
    apply: Apply,
    params: Any,
    protocol: Mapping[str, Any],
    *,
    batch_size: int,
    outputs: tuple[str, ...] = ('features',),
    levels: int = 256,
    published: bool = False,
    accuracy: float | None = None,
    shape: tuple[int, ...] | None = None,
    alone: Callable[[np.ndarray], np.ndarray] | None = None,
    rounds: bool = False,
) -> FeatureNetwork:
    """A feature network of a function, compiled for the outputs asked of it, with its parameters on all devices."""

    def program(params: Any, images: jax.Array, wanted: tuple[str, ...]) -> dict[str, jax.Array]:
        with jax.default_matmul_precision('highest'):
            found = apply(params, images)
        return {name: found[name] for name in wanted}

    return FeatureNetwork(
        name, {'features': name, **protocol, 'precision': 'float32'}, outputs, levels, published, batch_size,
        sampling.replicate(params), jax.jit(program, static_argnums=2), accuracy,
        shape, alone, rounds,
    )  # fmt: skip


def known_by_name(
    name: str, protocol: Mapping[str, Any], outputs: tuple[str, ...] = ('features',), published: bool = False
) -> FeatureNetwork:
    """A network that is known by its features or their moments alone, and computes nothing here."""

    def absent(*_: Any) -> dict[str, jax.Array]:
        raise TypeError(f'the network {name} is not available here')

    return FeatureNetwork(name, {'features': name, **protocol}, outputs, 256, published, 1, (), absent)


def small_on_cpu(batch_size: int, largest: int = 8) -> int:
    """The batch of a large network: on CPU few images a device, whose activations stay in the cache."""
    return min(batch_size, largest * jax.local_device_count()) if jax.default_backend() == 'cpu' else batch_size

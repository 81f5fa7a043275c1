"""What annealed importance sampling asks of a family with latents: p(x | z)."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import jax

Array = jax.Array


@dataclasses.dataclass(frozen=True)
class LatentModel:
    """p(x | z) with z ~ N(0, I): all that is needed to estimate log p(x) without an encoder.

    Attributes:
      latent_shape: of one z.
      observe: (integer images, one key an image) → x, what p(x | z) is a distribution of: the images as they are, or a
        point in each image's bins.
      log_likelihood: (z (batch, …), x (batch, …)) → log p(x | z) in nats, (batch,); a density is multiplied by the
        widths of the bins.
      draw: (z, one key each) → x from p(x | z).
      protocol: what p(x | z) and `observe` depend on beside the checkpoint.
    """

    latent_shape: tuple[int, ...]
    observe: Callable[[Array, Array], Array]
    log_likelihood: Callable[[Array, Array], Array]
    draw: Callable[[Array, Array], Array]
    protocol: Mapping[str, Any]

"""The model p(x | z) that annealed importance sampling needs from a family with latents."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import jax

Array = jax.Array


@dataclasses.dataclass(frozen=True)
class LatentModel:
    """p(x | z) with z ~ N(0, I): all that is needed to estimate log p(x) without an encoder.

    Attributes:
      latent_shape: the shape of one z.
      observe: (integer images, one key per image) → x, the variable of p(x | z): either the images unchanged or a point
        in each image's bins.
      log_likelihood: (z (batch, …), x (batch, …)) → log p(x | z) in nats, (batch,). A density is multiplied by the
        widths of the bins.
      draw: (z, one key per z) → x from p(x | z).
      protocol: everything besides the checkpoint that p(x | z) and `observe` depend on.
    """

    latent_shape: tuple[int, ...]
    observe: Callable[[Array, Array], Array]
    log_likelihood: Callable[[Array, Array], Array]
    draw: Callable[[Array, Array], Array]
    protocol: Mapping[str, Any]

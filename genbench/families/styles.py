"""What can be done with the styles w of a finished generator: truncation, mixing, and edits along directions.

T. Karras, S. Laine, T. Aila, A Style-Based Generator Architecture for GANs, 2019 (truncation, mixing); Y. Shen,
B. Zhou, Closed-Form Factorization of Latent Semantics in GANs, 2021 (directions).
"""

import dataclasses
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
from flax import nnx

from genbench.interpolants.options import Options, number, option, read_count
from genbench.ranges import Range

Array = jax.Array


@dataclasses.dataclass(frozen=True)
class StyleOptions(Options):
    """Attributes:
    truncation: ψ, the factor of a w's distance from the mean of all w (Karras et al. 2019, appendix B).
    crossover: the first place whose style is that of another z (section 3.1); 0: all places share one style.
    shift: how far every w moves along a direction, which has length 1.
    direction: the number of the direction, from 1 on. The first changes the layers' styles most.
    """

    temperature: ClassVar[float] = 1.0  # no other has an effect, because the mapping network normalises z
    truncation: float = number(1.0, Range(0, 10))
    crossover: int = option(0, read_count)
    shift: float = number(0.0, Range(-1000, 1000))
    direction: int = option(1, read_count, 'shift')


def direction(generator: nnx.Module, number: int) -> Array:
    """The direction (features,) of this number: the eigenvector of Σ AᵀA whose eigenvalue is the number-th largest.

    A are the linear maps from w to the styles of the layers (Shen & Zhou 2021, equation 4). The sign makes the
    component with the largest magnitude positive.
    """
    maps: list[Any] = [value[...] for path, value in nnx.to_flat_state(nnx.state(generator, nnx.Param))
                       if path[-2:] == ('styles', 'kernel')]  # fmt: skip
    _, vectors = jnp.linalg.eigh(sum((one @ one.T for one in maps), jnp.zeros(())))
    found = vectors[:, -number]
    return found * jnp.sign(found[jnp.abs(found).argmax()])

"""Layers whose Lipschitz constant is bounded, and a residual branch of them.

R. T. Q. Chen, J. Behrmann, D. Duvenaud, J.-H. Jacobsen, Residual Flows for Invertible Generative Modeling, 2019, and
its official code; J. Behrmann et al., Invertible Residual Networks, 2019.
"""

from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from genbench import flops
from genbench.networks import layers
from genbench.networks.initialisers import kernel_as_pytorch, uniform
from genbench.networks.spectral import Singular, unit

Array = jax.Array

TOLERANCE = 1e-4  # relative change at the end of the power method
LEAST, MOST, USUAL = 2, 200, 5  # numbers of its iterations
MIXED = 0.01  # length of the fixed vector that is mixed into its start
SLOPE = 1.1  # an upper bound of the slope of x σ(β x), whatever β is


class Conv(nnx.Module):
    """A convolution whose norm, as a map of whole images of a given shape, is at most about `bound`.

    The norm is induced by the Euclidean norms of inputs and outputs. It is estimated by the power method with the
    convolution and its transpose, and divides the kernel only where it exceeds the bound (section 3.3 and the code). A
    convolution of single pixels has the norm of its matrix.

    Args:
      shape: height, width and channels of the inputs.
    """

    def __init__(self, shape: tuple[int, int, int], outputs: int, *, kernel: int = 3, bound: float, rngs: nnx.Rngs):
        *sides, inputs = shape
        self.bound, limit = bound, (kernel**2 * inputs) ** -0.5
        self.kernel = nnx.Param(kernel_as_pytorch()(rngs.params(), (kernel, kernel, inputs, outputs)))
        self.bias = nnx.Param(uniform(limit)(rngs.params(), (outputs,)))
        seen = (1, 1) if kernel == 1 else sides
        self.right = Singular(unit(jax.random.normal(rngs.params(), (1, *seen, inputs))))

    def bounded(self, refine: bool) -> Array:
        """The kernel, divided by its norm over the bound if the norm is larger. Gradients pass through the norm.

        Args:
          refine: keep the singular vector, from which the next call starts.
        """
        kernel = self.kernel[...]
        right = top_singular_vector(jax.lax.stop_gradient(kernel), self.right[...])
        if refine:
            self.right[...] = right
        left = jax.lax.stop_gradient(unit(layers.convolve(right, kernel)))
        norm = jnp.vdot(left, layers.convolve(right, kernel))
        return kernel / jnp.maximum(1.0, norm / self.bound)


def top_singular_vector(kernel: Array, start: Array) -> Array:
    """About the right singular vector (1, height, width, inputs) of a convolution with the largest singular value.

    The method starts near `start`, but not on it: a singular vector whose value has grown would be found too late from
    a start that is orthogonal to it.
    """

    def apply(vector: Array) -> Array:
        return layers.convolve(vector, kernel)

    transpose = jax.linear_transpose(apply, start)

    def step(state: Any) -> Any:
        right, norm, _, count = state
        image = apply(right)
        (back,) = transpose(image)
        return unit(back), jnp.linalg.norm(image), norm, count + 1

    def moves(state: Any) -> Array:
        _, norm, before, count = state
        return (count < LEAST) | ((count < MOST) & (jnp.abs(norm - before) > TOLERANCE * norm))

    near = unit(start + MIXED * unit(jax.random.normal(jax.random.key(0), start.shape)))

    with flops.expected_trips(USUAL):
        return jax.lax.while_loop(moves, step, (near, jnp.array(1.0), jnp.array(0.0), 0))[0]


class Residual(nnx.Module):
    """g(x) of a block x + g(x): windows of 3×3, 1×1 and 3×3 with LipSwish before each of them (section 3.4).

    LipSwish is x σ(softplus(β) x) / 1.1. Its slope is at most one, so the Lipschitz constant of g is below `bound`³.

    Args:
      shape: of x.
      side: of the outer windows.
      first: the first convolution sees x itself.
    """

    def __init__(
        self, shape: tuple[int, int, int], width: int, *, side: int = 3, first: bool = False, bound: float,
        rngs: nnx.Rngs,
    ):  # fmt: skip
        rows, columns, channels = shape
        sizes = [(channels, width, side), (width, width, 1), (width, channels, side)]
        self.convs = nnx.List([
            Conv((rows, columns, before), after, kernel=kernel, bound=bound, rngs=rngs)
            for before, after, kernel in sizes
        ])  # fmt: skip
        self.first, count = first, len(sizes) - first
        self.betas = nnx.List([nnx.Param(jnp.full((), 0.5)) for _ in range(count)])

    def values(self, refine: bool) -> list[tuple[Array, Array, Array | None]]:
        """What `apply` needs: for each convolution its bounded kernel, its bias, and β of the activation before it."""
        betas = [None] * self.first + [nnx.softplus(beta[...]) for beta in self.betas]
        return [(conv.bounded(refine), conv.bias[...], beta) for conv, beta in zip(self.convs, betas, strict=True)]

    @staticmethod
    def apply(values: list[tuple[Array, Array, Array | None]], x: Array) -> Array:
        for kernel, bias, beta in values:
            x = x if beta is None else x * nnx.sigmoid(beta * x) / SLOPE
            x = layers.convolve(x, kernel) + bias
        return x

"""Residual Flow: invertible residual blocks x + g(x), where the Lipschitz constant of g is below one.

R. T. Q. Chen, J. Behrmann, D. Duvenaud, J.-H. Jacobsen, Residual Flows for Invertible Generative Modeling, 2019, and
its official code, from which the order of layers, the initialisation and the numbers of terms come.

The log-determinants are estimates of infinite variance (`log_determinants`), except for images of few values in
evaluation, whose Jacobians are small. A block has no inverse in closed form; x = y − g(x) is iterated.
"""

import math
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from genbench import rng
from genbench.data.conditions import Form, Given
from genbench.errors import UserError
from genbench.networks import log_determinants
from genbench.networks.invertible import Logit, Normalisation, squeeze, unsqueeze
from genbench.networks.lipschitz import Residual
from genbench.ranges import COUNT, COUNT_OR_NONE, Range, each

Array = jax.Array

DEFAULTS = {
    'channels': 64,  # of the convolutions inside a block
    'blocks': (4, 4),  # residual blocks at each scale; images are halved between scales
    'dense_blocks': 2,  # blocks of linear layers after the last scale
    'dense_width': 64,  # of the linear layers inside a block
    'bound': 0.98,  # of the norm of each layer
    'margin': 0.05,  # α of the logits, as in `couplings`
    'training_terms': 2,  # terms of the log-determinant's series that are always summed in training, before drawn ones
    'evaluation_terms': 20,  # the same in evaluation
    'exact_dims': 64,  # evaluation uses the determinant of the Jacobian for images of at most this many values
    'inverse_steps': 100,  # iterations x ← y − g(x) of each block in sampling
}
RANGES = {
    'channels': COUNT,
    'blocks': each(COUNT, fewest=1),
    'dense_blocks': COUNT_OR_NONE,
    'dense_width': COUNT,
    'bound': Range(0, 1, above=True, below=True),
    'margin': Range(0, 0.5, above=True, below=True),
    'training_terms': COUNT,
    'evaluation_terms': COUNT,
    'exact_dims': COUNT_OR_NONE,
    'inverse_steps': COUNT,
}
LEAST = 0.2  # variance of a channel in the first batch that its normalisation assumes at least, as in the code
LONGEST = 5  # how far the longest of a batch's series usually goes beyond its certain terms


class Block(nnx.Module):
    """x + g(x), then a normalisation of every channel (figure 5).

    Args:
      shape: of x.
      dense: the layers of g are linear maps of whole images, and every value is normalised on its own.
    """

    def __init__(
        self, shape: tuple[int, int, int], width: int, *, first: bool, dense: bool, bound: float, rngs: nnx.Rngs
    ):
        self.shape = (1, 1, math.prod(shape)) if dense else shape
        self.residual = Residual(self.shape, width, side=1 if dense else 3, first=first, bound=bound, rngs=rngs)
        self.normalisation = Normalisation(self.shape[2])

    def __call__(self, x: Array, how: Any, *, refine: bool, fit: bool) -> tuple[Array, Array]:
        """y and log |det| of x (batch, height, width, channels).

        Args:
          how: (g, its parameters, x) → g(x) and log |det (I + dg/dx)|, one of `log_determinants`.
        """
        before, x = x.shape, x.reshape(len(x), *self.shape)
        moved, log_det = how(self.residual.apply, self.residual.values(refine), x)
        x = x + moved
        if fit:
            self.normalisation.fit(x, LEAST)
        x, change = self.normalisation(x)
        return x.reshape(before), log_det + change

    def inverse(self, y: Array, steps: int) -> Array:
        before, values = y.shape, self.residual.values(False)
        y = self.normalisation.inverse(y.reshape(len(y), *self.shape))
        x = jax.lax.fori_loop(0, steps, lambda _, x: y - self.residual.apply(values, x), y)
        return x.reshape(before)


class Flow(nnx.Module):
    """Images in [−1, 1] (batch, *shape) ↔ vectors (batch, dims), normal after training.

    Calls have the form of those to `couplings.Flow`, with one more argument. Conditions are refused: the paper has
    none.

    Raises:
      UserError: the images cannot be halved that often, or there are conditions.
    """

    def __init__(
        self, shape: tuple[int, int, int], forms: Mapping[str, Form], *, channels: int, blocks: tuple[int, ...],
        dense_blocks: int, dense_width: int, bound: float, margin: float, training_terms: int, evaluation_terms: int,
        exact_dims: int, inverse_steps: int, rngs: nnx.Rngs,
    ):  # fmt: skip
        rows, columns, depth = shape
        factor = 2 ** (len(blocks) - 1)
        if rows % factor or columns % factor:
            raise UserError(f'A residual flow of {len(blocks)} scales (network.blocks) needs images whose height and '
                            f'width are divisible by {factor}; these have {rows}×{columns}.')  # fmt: skip
        if forms:
            raise UserError('network.name=residual_flow takes no conditions; use couplings, real_nvp or tarflow.')
        self.terms, self.steps = (training_terms, evaluation_terms), inverse_steps
        self.logit, self.start = Logit(margin), Normalisation(depth)
        self.exact = math.prod(shape) <= exact_dims
        self.shapes = [(rows >> scale, columns >> scale, depth * 4**scale) for scale in range(len(blocks))]
        options: dict[str, Any] = {'bound': bound, 'rngs': rngs}
        self.scales = nnx.List([
            nnx.List([
                Block(shape, channels, first=not (scale or index), dense=False, **options) for index in range(count)
            ])
            for scale, (shape, count) in enumerate(zip(self.shapes, blocks, strict=True))
        ])  # fmt: skip
        self.dense = nnx.List([
            Block(self.shapes[-1], dense_width, first=False, dense=True, **options) for _ in range(dense_blocks)
        ])  # fmt: skip

    def __call__(
        self, x: Array, given: Given = None, key: Array | None = None, fit: bool = False, keys: Array | None = None
    ) -> tuple[Array, Array]:
        """Map images to vectors and log |det| (batch,), or its estimate.

        Args:
          key: in training, the key for the numbers of terms.
          fit: initialise the normalisations on x, which should be a whole batch. The log-determinant is then left out.
          keys: one key per image for the noise of the estimates and, in evaluation, for the numbers of terms.
        """
        x, log_det = self.logit(x)
        if fit:
            self.start.fit(x, LEAST)
        x, change = self.start(x)
        log_det, number = log_det + change, 0
        for scale, blocks in enumerate([*self.scales, self.dense]):
            x = squeeze(x) if 0 < scale < len(self.scales) else x
            for block in blocks:
                how = self._how(number, key, fit, keys)
                x, change = block(x, how, refine=fit or key is not None, fit=fit)
                log_det, number = log_det + change, number + 1
        return x.reshape(len(x), -1), log_det

    def _how(self, number: int, key: Array | None, fit: bool, keys: Array | None) -> Any:
        """How to get the log-determinant of block `number`."""
        if fit:
            return lambda g, values, x: (g(values, x), jnp.zeros(len(x)))
        if key is None and self.exact:
            return log_determinants.by_jacobian
        if keys is None:
            raise ValueError('The log-determinant of a residual flow is estimated, which needs one key per image.')
        if key is None:
            drawn = [rng.uniform(keys, f'{name} of block {number}') for name in ('terms', 'further terms')]
        else:
            own = jax.random.fold_in(key, number)
            drawn = [jax.random.uniform(one) for one in (own, jax.random.fold_in(own, 1))]
        counts, certain = log_determinants.poisson(*drawn), self.terms[key is None]
        usual = certain + (LONGEST if key is None else log_determinants.RATE)

        def how(g: Any, values: Any, x: Array) -> tuple[Array, Array]:
            noise = rng.normal(keys, f'noise of block {number}', x.shape[1:])
            return log_determinants.estimate(g, values, x, noise, counts, certain, usual)

        return how

    def inverse(self, z: Array, given: Given = None) -> Array:
        """Map vectors back to images."""
        x = z.reshape(len(z), *self.shapes[-1])
        for scale, blocks in reversed(list(enumerate([*self.scales, self.dense]))):
            for block in reversed(blocks):
                x = block.inverse(x, self.steps)
            x = unsqueeze(x) if 0 < scale < len(self.scales) else x
        return self.logit.inverse(self.start.inverse(x))


def estimated(config: Any, shape: tuple[int, int, int]) -> dict[str, Any]:
    """How evaluation estimates the log-determinants for images of this shape, for the protocol; {} if it does not."""
    if math.prod(shape) <= config.exact_dims:
        return {}
    return {'log_determinant': 'estimated', 'certain_terms': config.evaluation_terms,
            'further_terms': f'Poisson({log_determinants.RATE:g})'}  # fmt: skip

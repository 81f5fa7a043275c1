"""Jet: affine couplings of patches, whose shifts and scales come from vision transformers.

A. Kolesnikov, A. S. Pinto, M. Tschannen, Jet: A Modern Transformer-Based Normalizing Flow, 2024, and its official code,
from which the order of the couplings and the initialisation come. The published network of ImageNet 64×64 has 32
couplings of depth 2 and width 512: 209.3M numbers there, of which 2.2M are permutations.
"""

import math
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from genbench.data.conditions import Form, Given
from genbench.errors import UserError
from genbench.networks import layers
from genbench.networks.invertible import squeeze, unsqueeze
from genbench.networks.pixel_transformer import Block
from genbench.ranges import COUNT

Array = jax.Array

DEFAULTS = {
    'patch': 2,  # pixels along a side of a patch; each patch is a token
    'couplings': 10,  # every fifth splits the tokens; the others split the values of each token
    'depth': 1,  # layers of the transformer in each coupling
    'width': 64,
    'heads': 4,
    'expansion': 4,  # width of the hidden layer of an MLP, in units of `width`
    'dtype': 'float32',  # type of the transformers, or 'bfloat16'; the transformed values are always float32
    'remat': 'none',  # or 'blocks', 'dots': recompute couplings for the gradient instead of keeping their activations
}
RANGES = {key: COUNT for key in ('patch', 'couplings', 'depth', 'width', 'heads', 'expansion')}
EVERY = 5  # couplings from one that splits tokens to the next
SCALE = 2.0  # of a coupling at most; a fresh coupling is the identity


def halves_of_tokens(rows: int, columns: int, number: int) -> np.ndarray:
    """The order of tokens whose first half stays: fields of a checkerboard, then columns, then rows; each then swaps.

    Args:
      number: of the coupling among those that split tokens.
    """
    row, column = np.indices((rows, columns))
    odd = (row + column, column, row)[number // 2 % 3] % 2
    return np.argsort((odd.ravel() + number) % 2, kind='stable')


class Coupling(nnx.Module):
    """y_a = x_a, y_b = (x_b + t(x_a)) · 2 σ(s(x_a)) for two halves of x (batch, tokens, size).

    The halves are tokens, or the values of each token. Half of the tokens become twice as many of half the size, so
    that both kinds have the same network.

    Args:
      order: of the tokens or of the values; the first half stays.
      of_tokens: whether the tokens are split.
    """

    def __init__(
        self, tokens: int, size: int, forms: Mapping[str, Form], order: np.ndarray, *, of_tokens: bool, width: int,
        heads: int, depth: int, expansion: int, dtype: str, rngs: nnx.Rngs,
    ):  # fmt: skip
        self.axis, self.order, self.dtype = 1 if of_tokens else 2, tuple(map(int, order)), layers.compute_dtype(dtype)
        self.inputs = layers.Linear(size // 2, width, rngs=rngs)
        self.places = nnx.Param(nnx.initializers.normal(width**-0.5)(rngs.params(), (tokens, width)))
        self.classes = layers.Classes(forms, width, rngs=rngs)
        self.blocks = nnx.List([
            Block(width, heads, expansion, depth, 0.0, causal=False, glorot=True, rngs=rngs) for _ in range(depth)
        ])  # fmt: skip
        self.norm = nnx.LayerNorm(width, rngs=rngs)
        self.output = layers.Linear(width, size, kernel_init=layers.zeros, rngs=rngs)

    def _split(self, x: Array) -> tuple[Array, Array]:
        kept, moved = jnp.split(jnp.take(x, np.array(self.order), axis=self.axis), 2, axis=self.axis)
        shape = (len(x), x.shape[1], x.shape[2] // 2)
        return kept.reshape(shape), moved.reshape(shape)

    def _join(self, kept: Array, moved: Array) -> Array:
        if self.axis == 1:
            kept, moved = (half.reshape(len(half), half.shape[1] // 2, -1) for half in (kept, moved))
        return jnp.take(jnp.concatenate([kept, moved], axis=self.axis), np.argsort(self.order), axis=self.axis)

    def _affine(self, kept: Array, given: Given) -> tuple[Array, Array]:
        """t, and the logit of half the scale."""
        h, classes = self.inputs(kept) + self.places[...], self.classes(given)
        h = (h if classes is None else h + classes[:, None]).astype(self.dtype)
        for block in self.blocks:
            h = block(h, None)
        shift, logit = jnp.split(self.output(self.norm(h)).astype(jnp.float32), 2, axis=-1)
        return shift, logit

    def __call__(self, x: Array, given: Given = None) -> tuple[Array, Array]:
        kept, moved = self._split(x)
        shift, logit = self._affine(kept, given)
        log_det = (nnx.log_sigmoid(logit) + math.log(SCALE)).sum((1, 2))
        return self._join(kept, (moved + shift) * SCALE * nnx.sigmoid(logit)), log_det

    def inverse(self, y: Array, given: Given = None) -> Array:
        kept, moved = self._split(y)
        shift, logit = self._affine(kept, given)
        return self._join(kept, moved / (SCALE * nnx.sigmoid(logit)) - shift)


class Flow(nnx.Module):
    """Images (batch, *shape) ↔ vectors (batch, dims), normal after training. A fresh flow only reorders values.

    Calls have the form of those to `couplings.Flow`. Pixels are not turned into logits. Classes, which the paper does
    not have, are added to the tokens of every coupling.

    Raises:
      UserError: the patches do not tile the images, their rows, columns or values cannot be halved, or the heads do
        not divide the width.
    """

    def __init__(
        self, shape: tuple[int, int, int], forms: Mapping[str, Form], *, patch: int, couplings: int, width: int,
        heads: int, remat: str, rngs: nnx.Rngs, **options: Any,
    ):  # fmt: skip
        rows, columns, size = shape[0] // patch, shape[1] // patch, shape[2] * patch**2
        if shape[0] % (2 * patch) or shape[1] % (2 * patch):
            raise UserError(f'Patches of {patch} pixels (network.patch) do not tile images of {shape[0]}×{shape[1]} in '
                            'an even number of rows and columns.')  # fmt: skip
        if size % 2:
            raise UserError(f'Patches of {patch} pixels (network.patch) have {size} values, which cannot be halved; '
                            'use an even network.patch.')  # fmt: skip
        if width % heads:
            raise UserError(f'network.width is {width}; it should be divisible by network.heads ({heads}).')
        self.shape, self.patch, self.remat = shape, patch, layers.check_remat(remat)
        options |= {'width': width, 'heads': heads, 'rngs': rngs}

        def coupling(number: int) -> Coupling:
            spatial = number % EVERY == EVERY - 1
            order = (
                halves_of_tokens(rows, columns, number // EVERY) if spatial
                else np.random.default_rng([size, number]).permutation(size)
            )  # fmt: skip
            return Coupling(rows * columns, size, forms, order, of_tokens=spatial, **options)

        self.couplings = nnx.List([coupling(number) for number in range(couplings)])

    def __call__(
        self, x: Array, given: Given = None, key: Array | None = None, fit: bool = False
    ) -> tuple[Array, Array]:
        """Map images to vectors and log |det| (batch,); `key` and `fit` have no effect."""
        x = squeeze(x, self.patch)
        x, log_det = x.reshape(len(x), -1, x.shape[-1]), jnp.zeros(len(x))
        for coupling in self.couplings:
            x, change = layers.rematerialise(self.remat, lambda x, one=coupling: one(x, given))(x)
            log_det += change
        return x.reshape(len(x), -1), log_det

    def inverse(self, z: Array, given: Given = None) -> Array:
        """Map vectors back to images."""
        rows, columns, channels = self.shape
        x = z.reshape(len(z), -1, channels * self.patch**2)
        for coupling in reversed(self.couplings):
            x = coupling.inverse(x, given)
        return unsqueeze(x.reshape(len(z), rows // self.patch, columns // self.patch, -1), self.patch)

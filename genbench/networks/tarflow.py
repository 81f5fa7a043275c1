"""TarFlow: autoregressive flows over patches, whose shifts and scales come from causal transformers.

S. Zhai et al., Normalizing Flows are Capable Generative Models, 2024 (TarFlow), and its official code, from which the
initialisation, the class that stands for no class and the schedule of guidance come. The published network of
ImageNet 64×64 has patch 2, width 768, 12 heads, and 8 blocks of 8 layers: 460.1M parameters.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx

from genbench.data.conditions import Form, Given, check_classes, told
from genbench.errors import UserError
from genbench.networks import layers
from genbench.networks.initialisers import linear_as_pytorch
from genbench.networks.invertible import squeeze, unsqueeze
from genbench.networks.pixel_transformer import Block
from genbench.ranges import COUNT

Array = jax.Array

DEFAULTS = {
    'patch': 2,  # pixels along a side of a patch; each patch is a token
    'blocks': 4,  # autoregressive flows, whose orders alternate
    'depth': 2,  # layers of the transformer in each block
    'width': 64,
    'heads': 4,
    'expansion': 4,  # width of the hidden layer of an MLP, in units of `width`
    'dtype': 'float32',  # type of the transformers, or 'bfloat16'; the transformed values are always float32
    'remat': 'none',  # or 'blocks', 'dots': recompute layers for the gradient instead of keeping their activations
}
RANGES = {'patch': COUNT, 'blocks': COUNT, 'depth': COUNT, 'width': COUNT, 'heads': COUNT, 'expansion': COUNT}
SMALL = nnx.initializers.normal(0.01)  # for the vectors of places and classes


class Guidance(NamedTuple):
    """Classifier-free guidance of the inverse: (1 + w) times the shift and log-scale, less w times those of no class.

    Attributes:
      weight: w.
      rising: w grows linearly from the first token to the last one, as in the official evaluation.
    """

    weight: float = 0.0
    rising: bool = True


class Autoregression(nnx.Module):
    """z_i = (x_i − μ(x_<i)) exp(−α(x_<i)) over tokens x (batch, tokens, size); the first token does not change.

    Args:
      flipped: the tokens come in reverse.
    """

    def __init__(
        self, tokens: int, size: int, forms: Mapping[str, Form], *, width: int, heads: int, depth: int,
        expansion: int, flipped: bool, dtype: str, remat: str, rngs: nnx.Rngs,
    ):  # fmt: skip
        self.flipped, self.remat, self.dtype = flipped, remat, layers.compute_dtype(dtype)
        self.forms, self.shape = tuple(forms.items()), (tokens, heads, width // heads)
        self.inputs = linear_as_pytorch(size, width, rngs)
        self.places = nnx.Param(SMALL(rngs.params(), (tokens, width)))
        self.classes = nnx.Dict(
            {name: nnx.Param(SMALL(rngs.params(), (form.size, width))) for name, form in self.forms}
        )
        self.blocks = nnx.List([
            Block(width, heads, expansion, depth, 0.0, as_pytorch=True, rngs=rngs) for _ in range(depth)
        ])  # fmt: skip
        self.output = linear_as_pytorch(width, 2 * size, rngs, kernel_init=layers.zeros)

    def _condition(self, given: Given, count: int) -> Array | float:
        """The vectors of the classes (batch, 1, width); the mean of all stands for no class."""
        found: Array | float = 0.0
        for name, form in self.forms:
            known = self.classes[name][...]
            rows = jnp.concatenate([known, known.mean(0, keepdims=True)])
            found = found + rows[told(given, name, form, count).astype(jnp.int32)][:, None]
        return found

    def _ordered(self, x: Array) -> Array:
        """Tokens in the order of the flow, or back in their own."""
        return x[..., ::-1, :] if self.flipped else x

    def _after(self, h: Array) -> tuple[Array, Array]:
        """α and μ of the next tokens."""
        log_scale, shift = jnp.split(self.output(h).astype(jnp.float32), 2, axis=-1)
        return log_scale, shift

    def __call__(self, x: Array, given: Given) -> tuple[Array, Array]:
        x = self._ordered(x)
        h = self.inputs(x) + self._ordered(self.places[...]) + self._condition(given, len(x))
        h = h.astype(self.dtype)
        for block in self.blocks:
            h = layers.rematerialise(self.remat, lambda h, block=block: block(h, None))(h)
        log_scale, shift = (jnp.pad(one[:, :-1], ((0, 0), (1, 0), (0, 0))) for one in self._after(h))
        return self._ordered((x - shift) * jnp.exp(-log_scale)), -log_scale.sum((1, 2))

    def inverse(self, z: Array, given: Given, guidance: Guidance) -> Array:
        """x, token by token; the keys and values of earlier tokens are kept."""
        z, places, last = self._ordered(z), self._ordered(self.places[...]), self.shape[0] - 1
        conditions = [self._condition(one, len(z)) for one in ((given, None) if guidance.weight else (given,))]

        def step(x: Array, number: Array, condition: Array | float, kept: list[Array]) -> Any:
            token = jax.lax.dynamic_slice_in_dim(x, number, 1, axis=1)
            h, after = (self.inputs(token) + places[number] + condition).astype(self.dtype), []
            for block, mine in zip(self.blocks, kept, strict=True):
                h, mine = block.step(h, number, mine)
                after.append(mine)
            return self._after(h), after

        def fill(number: Array, state: Any) -> Any:
            x, kept = state
            found = [step(x, number, one, mine) for one, mine in zip(conditions, kept, strict=True)]
            log_scale, shift = found[0][0]
            if guidance.weight:
                weight = guidance.weight * ((number + 1) / last if guidance.rising else 1.0)
                log_scale, shift = (
                    one + weight * (one - other) for one, other in zip(found[0][0], found[1][0], strict=True)
                )
            value = jax.lax.dynamic_slice_in_dim(z, number + 1, 1, axis=1) * jnp.exp(log_scale) + shift
            return jax.lax.dynamic_update_slice_in_dim(x, value, number + 1, axis=1), [one[1] for one in found]

        tokens, heads, size = self.shape
        empty = [jnp.zeros((len(z), tokens, 2, heads, size), self.dtype) for _ in self.blocks]
        x, _ = jax.lax.fori_loop(0, last, fill, (z, [empty for _ in conditions]))
        return self._ordered(x)


class Flow(nnx.Module):
    """Images (batch, *shape) ↔ vectors (batch, dims), normal after training. A fresh flow is nearly the identity.

    Calls have the form of those to `couplings.Flow`. Pixels are not turned into logits.

    Raises:
      UserError: the patches do not tile the images, or the heads do not divide the width.
    """

    def __init__(
        self, shape: tuple[int, int, int], forms: Mapping[str, Form], *, patch: int, blocks: int, width: int,
        heads: int, remat: str, rngs: nnx.Rngs, **options: Any,
    ):  # fmt: skip
        rows, columns, channels = shape
        if rows % patch or columns % patch:
            raise UserError(f'Patches of {patch} pixels (network.patch) do not tile images of {rows}×{columns}.')
        if width % heads:
            raise UserError(f'network.width is {width}; it should be divisible by network.heads ({heads}).')
        check_classes(forms)
        self.shape, self.patch, tokens = shape, patch, rows * columns // patch**2
        options |= {'width': width, 'heads': heads, 'remat': layers.check_remat(remat), 'rngs': rngs}
        self.flows = nnx.List([
            Autoregression(tokens, channels * patch**2, forms, flipped=index % 2 == 1, **options)
            for index in range(blocks)
        ])  # fmt: skip

    def _tokens(self, x: Array) -> Array:
        x = squeeze(x, self.patch)
        return x.reshape(len(x), -1, x.shape[-1])

    def __call__(
        self, x: Array, given: Given = None, key: Array | None = None, fit: bool = False
    ) -> tuple[Array, Array]:
        """Map images to vectors and log |det| (batch,); `key` and `fit` have no effect."""
        x, log_det = self._tokens(x), jnp.zeros(len(x))
        for flow in self.flows:
            x, change = flow(x, given)
            log_det += change
        return x.reshape(len(x), -1), log_det

    def inverse(self, z: Array, given: Given = None, guidance: Guidance = Guidance()) -> Array:  # noqa: B008
        """Map vectors back to images."""
        rows, columns, channels = self.shape
        x = z.reshape(len(z), -1, channels * self.patch**2)
        for flow in reversed(self.flows):
            x = flow.inverse(x, given, guidance)
        return unsqueeze(x.reshape(len(z), rows // self.patch, columns // self.patch, -1), self.patch)

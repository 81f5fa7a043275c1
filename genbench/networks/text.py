"""Readers of captions, which are trained along with a network: a table of vectors, or a transformer.

The transformer follows A. Nichol et al., GLIDE, 2022 (section 4.1 and the official code): attention in all directions,
padding with a vector of its own, blocks of the network attend to the features of all places, and the feature of the
last place is added to the embedding of time. It reads whatever tokens the condition has: words, or bytes.
"""

from collections.abc import Mapping

import jax
from flax import nnx

from genbench.data.conditions import Form, Given
from genbench.errors import UserError
from genbench.networks import layers
from genbench.networks.transformer import Attention, Perceptron, normalise
from genbench.ranges import COUNT, Range

Array = jax.Array

DEFAULTS = {
    'text_depth': 0,  # blocks of a transformer that reads captions; 0: a table with a vector for each token
    'text_width': 0,  # width of the vectors; 0: the network's own choice
    'text_heads': 4,
}
RANGES = {'text_depth': Range(0, 1000), 'text_width': Range(0, 100_000), 'text_heads': COUNT}
EXPANSION = 4  # width of the hidden layer of a perceptron, in units of `text_width`


class Block(nnx.Module):
    """Residual attention and perceptron, each with a norm before it."""

    def __init__(self, width: int, heads: int, *, rngs: nnx.Rngs):
        self.attention = Attention(width, heads, rngs=rngs)
        self.mlp = Perceptron(width, EXPANSION * width, rngs=rngs)

    def __call__(self, x: Array) -> Array:
        x = x + self.attention(normalise(x))
        return x + self.mlp(normalise(x))


class Reader(layers.Words):
    """A transformer over the tokens of all captions, one after the other.

    Args:
      width: of the features, (batch, length, width).
      outputs: the size of what a zero-initialised layer makes of the last feature; 0: the feature itself.
    """

    def __init__(self, forms: Mapping[str, Form], width: int, *, depth: int, heads: int, outputs: int, rngs: nnx.Rngs):
        if width % heads:
            raise UserError(f'Captions have features of width {width} (network.text_width), which network.text_heads '
                            f'({heads}) should divide.')  # fmt: skip
        super().__init__(forms, width, rngs=rngs)
        self.blocks = nnx.List([Block(width, heads, rngs=rngs) for _ in range(depth)])
        self.pooled = layers.Linear(width, outputs, kernel_init=layers.zeros, rngs=rngs) if outputs else None

    def read(self, given: Given, count: int) -> tuple[Array | None, Array | None]:
        x = self(given, count)
        assert x is not None, 'a reader has captions to read'
        for block in self.blocks:
            x = block(x)
        x = normalise(x)
        return x, x[:, -1] if self.pooled is None else self.pooled(x[:, -1])


def reader(
    forms: Mapping[str, Form], own: int, outputs: int, *,
    text_depth: int = 0, text_width: int = 0, text_heads: int = 4, rngs: nnx.Rngs,
) -> layers.Words:  # fmt: skip
    """The table or transformer that `text_depth` asks for; see `Reader`.

    Args:
      own: the width of the vectors if `text_width` is 0.
    """
    width = wide(forms, own, text_width)
    if not text_depth or not width:
        return layers.Words(forms, width, rngs=rngs)
    return Reader(forms, width, depth=text_depth, heads=text_heads, outputs=outputs, rngs=rngs)


def wide(forms: Mapping[str, Form], own: int, text_width: int = 0, **others: int) -> int:
    """The width of the vectors of captions, from the same keys; 0 without captions."""
    return (text_width or own) if any(form.type in layers.READ for form in forms.values()) else 0

"""Frozen text encoders: published networks that read captions, and whose features a family's network attends to.

A file of weights is borrowed as a run is: the encoder is neither trained nor averaged nor part of checkpoints, and the
manifest records the hash of the file. A run names it as ARCHITECTURE:FILE in `family.text_encoder`.
"""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from genbench.data.conditions import Form, Given, told
from genbench.errors import UserError, did_you_mean
from genbench.families.base import Array, Average, Family, Networks, Update
from genbench.networks import clip, t5

NAME = 'text_encoder'  # of the loan, and of its key in configs
CAPTION, WHOLE = 'caption', 'caption_whole'  # the conditions that networks get: features of tokens and of whole texts


@dataclasses.dataclass(frozen=True)
class Architecture:
    """A published encoder.

    Attributes:
      make: (skip) → the module, ids (batch, length) → features (batch, length, size) and (batch, size).
      size: of the features.
      vocabulary: the number of token ids.
      depth: the number of blocks. Those of a T5 cannot be left out.
      padding: the id that fills up texts.
      length: the most tokens of a text; 0: any number.
      unused: what names of tensors begin with that a file may hold beside.
    """

    make: Callable[[int], nnx.Module]
    size: int
    vocabulary: int
    depth: int
    padding: int
    length: int = 0
    unused: tuple[str, ...] = ()


def of_clip(
    size: int, depth: int, heads: int, vocabulary: int = clip.VOCABULARY, length: int = clip.LENGTH
) -> Architecture:
    """A text tower of CLIP. The end token has the last id, and fills up texts."""
    end = vocabulary - 1

    def make(skip: int) -> nnx.Module:
        return clip.TextEncoder(vocabulary=vocabulary, size=size, depth=depth, heads=heads, length=length, end=end,
                                skip=skip)  # fmt: skip

    beside = (
        'vision_model.',
        'visual_projection.',
        'text_projection.',
        'logit_scale',
        'text_model.embeddings.position_ids',
    )
    return Architecture(make, size, vocabulary, depth, end, length, beside)


def of_t5(size: int, depth: int, heads: int, hidden: int, vocabulary: int = 32_128, inner: int = 0) -> Architecture:
    """An encoder of T5 1.1, whose heads have 64 numbers each unless `inner` says otherwise."""

    def make(skip: int) -> nnx.Module:
        return t5.TextEncoder(vocabulary=vocabulary, size=size, depth=depth, heads=heads, inner=inner or 64 * heads,
                              hidden=hidden)  # fmt: skip

    beside = ('decoder.', 'lm_head.', 'encoder.embed_tokens.')
    return Architecture(make, size, vocabulary, depth, 0, unused=beside)


ARCHITECTURES = {
    **{name: of_clip(**sizes) for name, sizes in clip.TEXTS.items()},
    't5-v1_1-small': of_t5(512, 8, 6, 1024),
    't5-v1_1-base': of_t5(768, 12, 12, 2048),
    't5-v1_1-large': of_t5(1024, 24, 16, 2816),
    't5-v1_1-xl': of_t5(2048, 24, 32, 5120),
    't5-v1_1-xxl': of_t5(4096, 24, 64, 10_240),
}


def parse(text: str) -> tuple[str, str]:
    """ARCHITECTURE:FILE as both. Raise a UserError if there is no such architecture."""
    kind, _, path = text.partition(':')
    if kind not in ARCHITECTURES or not path:
        hint = 'Give the file after a colon.' if kind in ARCHITECTURES else did_you_mean(kind, ARCHITECTURES)
        raise UserError(f'family.text_encoder is {text!r}, but should be ARCHITECTURE:FILE. {hint}')
    return kind, path


class Encoder(Family):
    """A published text encoder as a family whose only network, 'encoder', is never trained.

    Args:
      kind: one of `ARCHITECTURES`.
      skip: how many last blocks of a CLIP the features of tokens leave out.

    Raises:
      UserError: a T5 cannot leave out blocks, or the CLIP has too few.
    """

    name = NAME

    def __init__(self, kind: str, skip: int):
        self.kind, self.skip, self.borrowed, self.config = kind, skip, {}, None
        self.architecture = ARCHITECTURES[kind]
        if skip and (skip >= self.architecture.depth or not self.architecture.length):
            raise UserError(f'family.text_skip is {skip}; it should be 0 for a T5, and less than the number of blocks '
                            'for a CLIP.')  # fmt: skip

    def networks(self, rngs: nnx.Rngs) -> dict[str, nnx.Module]:
        return {'encoder': self.architecture.make(self.skip)}

    @property
    def averages(self) -> tuple[Average, ...]:
        return ()

    @property
    def updates(self) -> tuple[Update, ...]:
        return ()


class Texts:
    """What a family's network is told of captions that a frozen encoder reads.

    Args:
      form: of the captions, as token ids.

    Raises:
      UserError: the captions are not tokens of this encoder, are longer than it takes, or have no end that it knows.
    """

    def __init__(self, encoder: Encoder, forms: Mapping[str, Form]):
        form, kind = forms.get(CAPTION), encoder.architecture
        if form is None or not form.nothing:
            raise UserError('family.text_encoder reads token ids: add caption:tokensN:FILE to family.conditions, with '
                            'the tokenizer.json that is published with the encoder.')  # fmt: skip
        if form.size - 1 > kind.vocabulary:
            raise UserError(f'The tokenizer has {form.size - 1} tokens, but {encoder.kind} knows {kind.vocabulary}. '
                            'Give the tokenizer.json that is published with it.')  # fmt: skip
        if kind.length and form.shape[0] > kind.length:
            raise UserError(f'family.conditions has captions of {form.shape[0]} tokens, but {encoder.kind} takes '
                            f'{kind.length}; write caption:tokens{kind.length}:FILE.')  # fmt: skip
        if kind.length and 1 + kind.padding not in form.nothing:
            raise UserError(f'The tokenizer does not end captions with the token {kind.padding}, as {encoder.kind} '
                            'needs. Give the tokenizer.json that is published with it.')  # fmt: skip
        self._form, self._kind = form, kind

    def forms(self, forms: Mapping[str, Form]) -> dict[str, Form]:
        """The conditions that the network is built for."""
        size = self._kind.size
        return {**forms, CAPTION: Form('features', (*self._form.shape, size)), WHOLE: Form('vector', (size,))}

    def told(self, networks: Networks, given: Given, count: int) -> Given:
        """`given` with features in place of token ids. Without captions, those of the empty one."""
        if given is not None and WHOLE in given:
            return given
        alone = given is None or CAPTION not in given
        ids = told(given, CAPTION, self._form, 1 if alone else count)
        ids = jnp.where(ids > 0, ids - 1, self._kind.padding)
        found = jax.lax.stop_gradient(networks.borrowed(NAME)['encoder'](ids))
        tokens, whole = (jnp.broadcast_to(one, (count, *one.shape[1:])) for one in found)
        return {**(given or {}), CAPTION: tokens, WHOLE: whole}

    def reading(self, network: Callable[..., Array], networks: Networks) -> Callable[..., Array]:
        """A network (x, t, given) that gets features, as one that takes token ids."""

        def read(x: Array, t: Array, given: Given = None, **options: Any) -> Array:
            return network(x, t, self.told(networks, given, len(x)), **options)

        return read

"""Families of integers: those of the pixels, or the codes of a borrowed first stage.

A. van den Oord, O. Vinyals, K. Kavukcuoglu, Neural Discrete Representation Learning, 2017 (VQ-VAE, section 3.3: priors
over codes).
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

from genbench import rng
from genbench.data.spec import DataSpec
from genbench.errors import UserError
from genbench.families.base import Array, Borrowed, Family, Networks
from genbench.families.spaces import FirstStage
from genbench.ranges import PATH


@dataclasses.dataclass(frozen=True)
class Levels:
    """The integer images themselves.

    Attributes:
      spec: the shape and the number of levels of what is modelled.
    """

    spec: DataSpec

    kind = 'exact'  # of the likelihood of an image that log p(x) gives
    name = 'levels'

    @property
    def depth(self) -> int:
        """The number of channels of `vectors`."""
        return self.spec.shape[2]

    def encode(self, networks: Networks, images: Array) -> Array:
        """The integers x of images, (batch, *spec.shape)."""
        return images

    def decode(self, networks: Networks, x: Array) -> Array:
        """Integer images from x."""
        return x

    def vectors(self, networks: Networks, x: Array) -> Array:
        """x as real numbers for a network, (batch, height, width, depth)."""
        return self.spec.encode(x)

    def log_rest(self, networks: Networks, x: Array, images: Array, keys: Array) -> Array | float:
        """log p(image | x) in nats, (batch,)."""
        return 0.0

    def method(self, name: str) -> str:
        """The name of a likelihood."""
        return name

    @property
    def protocol(self) -> dict[str, Any]:
        """What else a likelihood depends on."""
        return {}


@dataclasses.dataclass(frozen=True)
class Codes(Levels):
    """The codes of the borrowed run `tokeniser`. log p(x) + log p(image | x) is a lower bound on log p(image)."""

    stage: FirstStage

    kind = 'lower_bound'
    name = 'codes'

    @property
    def depth(self) -> int:
        return self.stage.code_shape[2]

    def encode(self, networks: Networks, images: Array) -> Array:
        return self.stage.codes(networks.borrowed('tokeniser'), images)[..., None]

    def decode(self, networks: Networks, x: Array) -> Array:
        lent = networks.borrowed('tokeniser')
        return self.stage.decode(lent, self.stage.vectors(lent, x[..., 0]))

    def vectors(self, networks: Networks, x: Array) -> Array:
        return self.stage.vectors(networks.borrowed('tokeniser'), x[..., 0])

    def log_rest(self, networks: Networks, x: Array, images: Array, keys: Array) -> Array:
        return self.stage.log_of_image(networks.borrowed('tokeniser'), x[..., 0], images, rng.named(keys, 'observed'))

    def method(self, name: str) -> str:
        return f'first_stage_{name}'

    @property
    def protocol(self) -> dict[str, Any]:
        return {'first_stage': self.stage.name}


class Discrete(Family):
    """A family whose `integers` are the levels of the pixels or, with `family.tokeniser`, codes."""

    ranges = {'tokeniser': PATH}

    @classmethod
    def defaults(cls) -> dict[str, Any]:
        # The run, RUN or RUN@AVERAGE, of a first stage whose codes are modelled; '': the pixels.
        return {'family': {**super().defaults()['family'], 'tokeniser': ''}}

    @classmethod
    def borrows(cls, config: Any) -> dict[str, str]:
        run = config.family.get('tokeniser')
        return {**super().borrows(config), **({'tokeniser': run} if run else {})}

    def __init__(self, config: Any, spec: DataSpec, borrowed: Mapping[str, Borrowed] | None = None):
        super().__init__(config, spec, borrowed)
        self.integers = _codes(self.borrowed['tokeniser'].family, spec) if config.family.tokeniser else Levels(spec)


def _codes(stage: Family, spec: DataSpec) -> Codes:
    """The space of a stage's codes. A UserError says why the stage cannot serve."""
    said = f'family.tokeniser is a {stage.name} model'
    if not isinstance(stage, FirstStage) or not stage.num_codes:
        raise UserError(f'{said}, which has no codes; use a run of vq_vae or vq_gan.')
    if (stage.spec.shape, stage.spec.levels) != (spec.shape, spec.levels):
        raise UserError(f'The tokeniser was trained on {stage.spec}, but this run trains on {spec}.')
    if stage.conditional:
        raise UserError(f'{said} with the conditions {", ".join(stage.conditions)}; use one without conditions.')
    height, width = stage.code_shape[:2]
    name = f'the codes of {stage.name}'
    return Codes(dataclasses.replace(spec, name=name, shape=(height, width, 1), levels=stage.num_codes), stage)

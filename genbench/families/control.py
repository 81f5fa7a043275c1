"""Control of a frozen base: an added network steers the base with pictures that it was not trained on.

L. Zhang, A. Rao, M. Agrawala, Adding Conditional Control to Text-to-Image Diffusion Models, 2023 (ControlNet), for a
U-Net. J. Chen et al., PixArt-δ: Fast and Controllable Image Generation with Latent Consistency Models, 2024
(ControlNet-Transformer), for a DiT.
"""

import copy
from collections.abc import Callable, Mapping
from typing import Any

from flax import nnx

from genbench import networks as modules
from genbench.data.conditions import Form, Given
from genbench.errors import UserError
from genbench.families.base import Array, Family, Networks

SHARED = (
    'family.first_stage',
    'family.schedule',
    'family.prediction',
    'family.dequantisation',
    'family.learned_variance',
    'network',
)


class Control:
    """Adds the conditions that the borrowed run 'base' does not know to the base's states, as residuals.

    These are the states at the skip connections of a U-Net, or after the first blocks of a DiT.

    Attributes:
      scale: the factor of the residuals, which samplers may change.

    Raises:
      UserError: the base has other data or is of another kind, or it builds on runs itself; its path, outputs or
        network differ from the family's config; or a condition that the base does not know is not a picture.
    """

    name = 'control'  # the name of the only trained network
    scale = 1.0

    def __init__(self, family: Any):
        self.base: Any = family.borrowed['base'].family
        self.blocks = family.config.family.control_blocks
        _check_base(self.base, family)
        known = self.base.forms
        self.pictures: Mapping[str, Form] = {name: form for name, form in family.forms.items() if name not in known}
        if not self.pictures:
            raise UserError('family.base has nothing to control it: add a picture to family.conditions that the '
                            'base was not trained with, such as edges.')  # fmt: skip
        for name, form in family.forms.items():
            if known.get(name, form) != form or (name in self.pictures and form.type != 'image'):
                raise UserError(f'The condition {name} comes as {form.type}, but only pictures can control a base; '
                                'train the base with it.')  # fmt: skip

    def network(self, rngs: nnx.Rngs) -> nnx.Module:
        base = self.base
        return modules.control(base.config.network, base.spec, base.forms, self.pictures, rngs, self.blocks)

    def scaled(self, scale: float) -> 'Control':
        """The same control with another factor of the residuals."""
        other = copy.copy(self)
        other.scale = scale
        return other

    def initialise(self, networks: Networks) -> None:
        """The control starts as a copy of the base's first half, or of its first blocks."""
        networks[self.name].begin_as(networks.borrowed('base')[self.base.main_network])

    def denoiser(self, networks: Networks) -> Callable[..., Array]:
        """The base with the control's residuals added, as a network (x_t, t, given)."""
        base, control = networks.borrowed('base')[self.base.main_network], networks[self.name]

        def controlled(x: Array, t: Array, given: Given = None, key: Array | None = None) -> Array:
            known = {name: (given or {})[name] for name in self.base.forms if name in (given or {})} or None
            residuals = control(x, t, given, key)
            if self.scale != 1:
                residuals = [self.scale * one for one in residuals]
            return base(x, t, known, residuals=residuals)

        return controlled


def _check_base(base: Any, family: Family) -> None:
    if base.spec != family.spec:
        raise UserError(f'The base was trained on {base.spec}, but this run trains on {family.spec}.')
    if getattr(base, 'kind', '') != 'denoiser' or base.borrowed:
        more = ' that builds on other runs' if base.borrowed else ''
        raise UserError(f'The base is a {base.name} run{more}; use a diffusion or flow_matching run that stands alone.')
    for key in SHARED:
        section, _, name = key.partition('.')
        theirs, ours = (one.config[section].get(name) if name else one.config[section] for one in (base, family))
        if theirs != ours:
            raise UserError(f'The {key} of the base differs from this config: {_first(theirs, ours)}. '
                            'Make them the same.')  # fmt: skip


def _first(theirs: Any, ours: Any) -> str:
    """Describe the first difference."""
    if not hasattr(theirs, 'items'):
        return f'{theirs!r}, not {ours!r}'
    name = next(name for name in {**theirs, **ours} if theirs.get(name) != ours.get(name))
    return f'{name} is {theirs.get(name)!r} there, but {ours.get(name)!r} here'

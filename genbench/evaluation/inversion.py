"""Samplers whose noise can be found again from an image, as watermarks and translation need it."""

from genbench.families.base import Family, Sampler
from genbench.training import samplers

USUAL = 'ddim:50'  # the sampler if nobody says, for families that have it (as in the papers of the watermarks)


def usual(family: Family) -> str:
    """The text of the sampler if nobody says."""
    name, _, steps = USUAL.partition(':')
    if name in family.samplers and not family.why_not(int(steps)):
        return USUAL
    first = samplers.default(family)
    return f'{first.name}:{int(first.num_steps)}'


def chosen(family: Family, text: str) -> tuple[Sampler, str]:
    """The sampler of this text, or the usual one, and why the noise of its images cannot be found; '' if it can."""
    sampler = samplers.parse(text or usual(family), family)
    if family.spec.is_plane:
        return sampler, 'it models points of a plane, and not pictures'
    return sampler, family.why_no_inverse(sampler)

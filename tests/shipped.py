"""The families that ship, the sizes of their networks in tests, and what to lend to those that build on other runs."""

import itertools

from genbench import config as configs
from genbench import families, networks
from genbench.errors import UserError
from genbench.families.base import Borrowed

NAMES = [name for name in families.names() if families.get(name).__module__.startswith('genbench.')]
SIZES = {'channels': 8, 'multipliers': (1,), 'width': 32, 'depth': 1}
# Diffusion whose steps are drawn by the size of their losses, from the second update on.
BY_IMPORTANCE = ('family.weight=vlb', 'family.learned_variance=1', 'family.time_sampler=importance',
                 'family.num_timesteps=2')  # fmt: skip


def network(name, **sizes):
    """The keys among `sizes` that the family's own network has."""
    own = networks.defaults(families.get(name).defaults().get('network', {}).get('name', 'none'))
    return {key: value for key, value in sizes.items() if key in own}


def borrows(name):
    """Names of the runs that a family builds on."""
    return list(families.get(name).borrows(configs.resolve({'family': {'name': name}})))


def lenders(name, resolve, spec):
    """{the family's name for a run that it builds on: a family that builds on none, and that it takes there}.

    Args:
      resolve: name of a family → its config.
    """
    cls, wanted = families.get(name), borrows(name)
    alone = [other for other in NAMES if not borrows(other)]
    for chosen in itertools.product(alone, repeat=len(wanted)):
        lent = dict(zip(wanted, chosen, strict=True))
        try:
            runs = {key: Borrowed(families.get(lender)(resolve(lender), spec)) for key, lender in lent.items()}
            cls(resolve(name), spec, runs)
        except UserError:
            continue
        return lent
    raise AssertionError(f'{name} takes no family that ships as {", ".join(wanted)}.')

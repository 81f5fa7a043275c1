"""Constraints that the parameters of some modules must meet when training begins and after every update."""

from flax import nnx


class Constrained(nnx.Module):
    """A module with a constraint, which the trainer calls after each update of a network that contains the module."""

    def constrain(self) -> None:
        """Move the parameters to values that are allowed, in place."""
        raise NotImplementedError


def within(network: nnx.Module) -> list[Constrained]:
    """The modules with a constraint inside a network."""
    return [module for _, module in nnx.iter_modules(network) if isinstance(module, Constrained)]

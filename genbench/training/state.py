"""The training state: nested dicts of arrays, and the modules they form when bound to a family's structure.

step      updates done so far, int32
params    {network: parameters}
aux       {network: every other variable}
opt       {update: optimizer state}
averages  {average: {network: parameters}}
skipped   updates skipped because of a non-finite loss or gradient: {'total', 'in_a_row'}

What borrowed runs lend is not part of the state. It is passed separately as {run: {'params', 'aux', 'lent'}}, where
'lent' holds the runs that they borrow in turn.
"""

import dataclasses
import functools
import hashlib
from collections.abc import Mapping
from typing import Any, cast

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx

from genbench import rng
from genbench.families import stages
from genbench.families.base import Average, Family, Networks, Update
from genbench.networks import constraints
from genbench.settings import DEFAULTS
from genbench.training import optimizer

State = dict[str, Any]
Tree = Any


class Blueprint:
    """A family's networks without their arrays. It binds states to modules, and takes modules apart again."""

    def __init__(self, family: Family):
        self.family = family
        abstract = nnx.eval_shape(lambda: family.networks(rng.for_networks(0)))
        self._definitions = {name: _split(module)[0] for name, module in abstract.items()}
        self._constrained = {name for name, module in abstract.items() if constraints.within(module)}
        self._shapes = self.params(abstract), self.aux(abstract)
        self.averages: tuple[Average, ...] = family.averages

    @functools.cached_property
    def _lenders(self) -> dict[str, 'Blueprint']:
        return {name: Blueprint(borrowed.family) for name, borrowed in self.family.borrowed.items()}

    def bind(self, params: Tree, aux: Tree, averages: Tree | None = None, lent: Tree | None = None) -> Networks:
        """Modules that hold these arrays."""

        def merge(name, params):
            return nnx.merge(self._definitions[name], params, aux[name])

        modules = {name: merge(name, params[name]) for name in self._definitions}
        averaged = {
            average: {name: merge(name, values) for name, values in networks.items()}
            for average, networks in (averages or {}).items()
        }
        return Networks(modules, averaged, self._borrowed(lent or {}))

    def constrained(self, params: Tree, aux: Tree) -> dict[str, Tree]:
        """These networks' parameters after the constraints of the modules inside them (`networks.constraints`)."""

        def moved(name: str) -> Tree:
            network = nnx.merge(self._definitions[name], params[name], aux[name])
            for module in constraints.within(network):
                module.constrain()
            return _split(network)[1]

        return {name: moved(name) if name in self._constrained else values for name, values in params.items()}

    def bind_state(self, state: State) -> Networks:
        """Modules that hold a state, or its parts 'params' and 'aux', together with what is 'lent' if present."""
        return self.bind(state['params'], state['aux'], state.get('averages'), state.get('lent'))

    def lenders(self, lent: Tree) -> Networks:
        """Only what borrowed runs lend, without modules of its own."""
        return Networks({}, borrowed=self._borrowed(lent))

    def _borrowed(self, lent: Tree) -> dict[str, Networks]:
        return {name: self._lenders[name].bind_state(state) for name, state in lent.items()}

    def params(self, networks: Mapping[str, Any]) -> Tree:
        return {name: _split(networks[name])[1] for name in self._definitions}

    def aux(self, networks: Mapping[str, Any]) -> Tree:
        return {name: _split(networks[name])[2] for name in self._definitions}

    def options(self, update: Update) -> dict[str, Any]:
        """`config.optimizer` as this update has it."""
        return {**self.family.config.optimizer, **(update.optimizer or {})}

    @functools.cached_property
    def optimizers(self) -> dict[str, optax.GradientTransformation]:
        """One for each update that has one. Its learning rate follows the number of steps on which the update ran."""
        config, span = self.family.config, self.family.span
        steps = config.train.num_steps if span is None else max(span.stop - span.first, 1)
        usual = {**DEFAULTS['optimizer'], **self.family.defaults().get('optimizer', {})}
        return {
            update.name: optimizer.build(self.options(update), -(-steps // update.every), usual)
            for update in self.family.updates
            if update.optimizer is not None
        }

    def initial_state(
        self, key: jax.Array, batch: Any, lent: Mapping[str, Tree], previous: Networks | None = None
    ) -> State:
        """Fresh networks, or those carried over from an earlier stage. Call it under `jax.jit`."""
        fresh = self.family.networks(rng.for_networks(rng.named(key, 'networks')))
        networks = Networks(fresh, borrowed=self._borrowed(lent))
        if previous is None:
            own = rng.named(key, 'batch')
            keys = rng.of_images(rng.named(own, 'images'), 0, len(batch['image']))
            self.family.initialise(networks, {**batch, 'key': keys}, rng.named(own, 'rest'))
        else:
            self.family.carry(previous, networks)
        state = self.fresh_state(self.params(networks), self.aux(networks))
        return state if previous is None else {**state, 'averages': self._carried(previous, state['averages'])}

    def _carried(self, previous: Networks, fresh: Tree) -> Tree:
        """Averages: carried over from the stage before, or fresh if they begin in this stage."""
        assert self.family.span is not None
        first = self.family.span.first
        return {
            average: {
                name: fresh[average][name] if began == first else _split(previous.averaged(average)[name])[1]
                for name, began in networks.items()
            }
            for average, networks in self.began.items()
        }

    @functools.cached_property
    def began(self) -> dict[str, dict[str, int]]:
        """{average: {network: the step at which this average of it began}}.

        An average continues through consecutive stages while its definition and the shapes of the network's variables
        stay the same. It began with the first of these stages.
        """
        span = self.family.span
        first = span.first if span is not None else 0
        if span is None or not first:
            return {average.name: dict.fromkeys(average.networks, 0) for average in self.averages}
        before = Blueprint(span.whole.at(stages.span_at(span.whole, first - 1).stage.name))
        alike = {name for name in self._definitions if self._shapes_of(name) == before._shapes_of(name)}
        known = {dataclasses.replace(one, networks=()): before.began[one.name] for one in before.averages}

        def steps(average: Average) -> dict[str, int]:
            earlier = known.get(dataclasses.replace(average, networks=()), {})
            return {name: earlier.get(name, first) if name in alike else first for name in average.networks}

        return {average.name: steps(average) for average in self.averages}

    def _shapes_of(self, network: str) -> Any:
        """Shapes and types of all variables of a network; None if this stage does not have it."""
        return flatten([part[network] for part in self._shapes]) if network in self._definitions else None

    @functools.cached_property
    def shapes(self) -> State:
        """Shapes and types of the state. Nothing is computed."""
        return cast(State, jax.eval_shape(self.fresh_state, *self._shapes))

    @functools.cached_property
    def lent_shapes(self) -> Tree:
        """Shapes and types of what borrowed runs lend. No run is read."""
        return {
            name: {**{part: lender.shapes[part] for part in ('params', 'aux')}, 'lent': lender.lent_shapes}
            for name, lender in self._lenders.items()
        }

    def fresh_state(self, params: Tree, aux: Tree) -> State:
        """The state of these networks before the first update."""
        return {
            'step': jnp.zeros((), jnp.int32),
            'params': params,
            'aux': aux,
            'opt': {
                update.name: self.optimizers[update.name].init({name: params[name] for name in update.networks})
                for update in self.family.updates
                if update.optimizer is not None
            },
            'averages': {
                average.name: {name: jax.tree.map(jnp.copy, params[name]) for name in average.networks}
                for average in self.averages
            },
            'skipped': {'total': jnp.zeros((), jnp.int32), 'in_a_row': jnp.zeros((), jnp.int32)},
        }


@functools.lru_cache(maxsize=32)
def blueprint(family: Family, stage: str) -> Blueprint:
    """The blueprint of a family in one of its stages, built once."""
    return Blueprint(family.at(stage))


def _split(module: nnx.Module) -> tuple[Any, Tree, Tree]:
    parts: Any = nnx.split(module, nnx.Param, ...)
    return parts[0], nnx.to_pure_dict(parts[1]), nnx.to_pure_dict(parts[2])


def flatten(state: Tree) -> dict[str, Any]:
    """{'params/denoiser/conv_in/kernel': array, …} in canonical order."""
    leaves, _ = jax.tree_util.tree_flatten_with_path(state)
    named = {jax.tree_util.keystr(path, simple=True, separator='/'): leaf for path, leaf in leaves}
    return dict(sorted(named.items()))


def unflatten(named: Mapping[str, Any], like: Tree) -> Tree:
    """Inverse of `flatten`, for a state with the structure of `like`."""
    leaves, structure = jax.tree_util.tree_flatten_with_path(like)
    ordered = [named[jax.tree_util.keystr(path, simple=True, separator='/')] for path, _ in leaves]
    return jax.tree.unflatten(structure, ordered)


def whole(array: Any) -> np.ndarray:
    """The values of an array, however it is split. With several processes, all of them must call this."""
    if isinstance(array, jax.Array) and not (array.is_fully_addressable or array.is_fully_replicated):
        from jax.experimental import multihost_utils

        return np.asarray(multihost_utils.process_allgather(array, tiled=True))
    return np.asarray(array)


def sha256(named: Mapping[str, Any]) -> str:
    """Hash of the names, types, shapes and bytes of a flat state. It does not depend on how the arrays are split."""
    digest = hashlib.sha256()
    for name in sorted(named):
        value = whole(named[name])
        digest.update(f'{name} {value.dtype} {value.shape}\n'.encode())
        digest.update(np.ascontiguousarray(value).tobytes())
    return digest.hexdigest()


def count(params: Tree) -> int:
    """The number of scalars in a tree."""
    return sum(int(np.prod(leaf.shape)) for leaf in jax.tree.leaves(params))

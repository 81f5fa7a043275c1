"""Where the arrays of a training state lie on the mesh: rules by parameter path.

The axis 'tensor' splits the kernels of attention and MLPs: the first of a pair by its outputs and the second by its
inputs, so that each pair needs only one sum between devices (Shoeybi et al. 2019, Megatron-LM, section 3). The axis
'fsdp' splits the largest dimension that it divides. A step gathers each parameter before use (Rajbhandari et al. 2020,
ZeRO).
"""

import re
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from genbench.errors import UserError
from genbench.training import mesh as meshes
from genbench.training.state import Blueprint, State, flatten, unflatten

Tree = Any

SMALL = 1024  # every device has a copy of smaller arrays
TENSOR_RULES = (  # path → the dimension of a kernel that 'tensor' splits; the first match wins
    (r'(^|/)(attention|attn)/(inputs|qkv|query|key|value)/kernel$', -1),
    (r'(^|/)(attention|attn)/(output|out|proj)/kernel$', -2),
    (r'(^|/)(mlp|perceptron)/(inputs|hidden|gate|up|fc1)/kernel$', -1),
    (r'(^|/)(mlp|perceptron)/(output|out|down|fc2)/kernel$', -2),
)
_WORDS = {'fsdp': 'fsdp', 'tensor': 'tensor', '-': None}
Rules = tuple[tuple[str, tuple[str | None, ...]], ...]


def parse_rules(texts: Sequence[str]) -> Rules:
    """Parse 'PATTERN=AXIS AXIS …' from the config key `mesh.rules`: fsdp, tensor or - for each dimension.

    Raises:
      UserError: the text is not a rule. The message says why.
    """
    rules = []
    for text in texts:
        pattern, equals, axes = text.rpartition('=')
        words = axes.split()
        try:
            re.compile(pattern)
        except re.error as error:
            raise UserError(f'The pattern of the rule {text!r} (mesh.rules) cannot be read: {error}.') from None
        named = [word for word in words if word != '-']
        if not equals or any(word not in _WORDS for word in words) or len(set(named)) < len(named):
            raise UserError(f"The rule {text!r} (mesh.rules) should be 'PATTERN=AXIS AXIS …': fsdp and tensor at most "
                            'once each and - for a dimension that is not split.')  # fmt: skip
        rules.append((pattern, tuple(_WORDS[word] for word in words)))
    return tuple(rules)


def spec(path: str, shape: Sequence[int], mesh: Mesh, rules: Rules = ()) -> PartitionSpec:
    """How to split the parameter at 'network/…/kernel'.

    Args:
      rules: from the config. The first whose pattern occurs in the path applies; without one, the defaults do.

    Raises:
      UserError: a rule from the config does not suit the shape.
    """
    for pattern, chosen in rules:
        if re.search(pattern, path):
            ways = [mesh.shape[axis] if axis else 1 for axis in chosen]
            if len(chosen) > len(shape) or any(size % way for size, way in zip(shape, ways, strict=False)):
                raise UserError(f'mesh.rules: {pattern!r} cannot split {path}, which has the shape {tuple(shape)}.')
            return _spec(chosen, mesh)
    axes: list[str | None] = [None] * len(shape)
    if np.prod(shape) < SMALL:
        return PartitionSpec()
    for pattern, dimension in TENSOR_RULES:
        if re.search(pattern, path) and len(shape) >= 2:
            if shape[dimension] % mesh.shape['tensor'] == 0:
                axes[dimension] = 'tensor'
            break
    free = [size if axis is None or mesh.shape[axis] == 1 else 0 for size, axis in zip(shape, axes, strict=True)]
    divisible = [size if size % mesh.shape['fsdp'] == 0 else 0 for size in free]
    if mesh.shape['fsdp'] > 1 and max(divisible):
        axes[int(np.argmax(divisible))] = 'fsdp'
    return _spec(axes, mesh)


def _spec(axes: Sequence[str | None], mesh: Mesh) -> PartitionSpec:
    """Drop axes with one device and trailing unsplit dimensions, so that equal placements compare equal."""
    kept = [axis if axis and mesh.shape[axis] > 1 else None for axis in axes]
    while kept and kept[-1] is None:
        kept.pop()
    return PartitionSpec(*kept)


def of_state(shapes: Tree, mesh: Mesh, rules: Rules = ()) -> Tree:
    """Give each shape and type of a state its sharding.

    Parameters and auxiliary variables follow the rules. An array of optimizer state or of an average lies like the
    parameter whose path ends its own, if their shapes agree. Everything else is replicated on every device.
    """
    named = flatten(shapes)
    specs, known = {}, {}
    for name, leaf in named.items():
        kind, _, path = name.partition('/')
        if kind in ('params', 'aux'):
            specs[name] = spec(path, leaf.shape, mesh, rules)
        if kind == 'params':
            known[path] = (leaf.shape, specs[name])
    for name, leaf in named.items():
        if name not in specs:
            specs[name] = _like_parameter(name, leaf.shape, known)
    placed = {
        name: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=NamedSharding(mesh, specs[name]))
        for name, leaf in named.items()
    }
    return unflatten(placed, shapes)


def of_lent(shapes: Tree, mesh: Mesh, rules: Rules = ()) -> Tree:
    """The same for what borrowed runs lend, at 'run/params/network/…/kernel'."""

    def place(name: str, leaf: Any) -> jax.ShapeDtypeStruct:
        sharding = NamedSharding(mesh, spec(name, leaf.shape, mesh, rules))
        return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding)

    return unflatten({name: place(name, leaf) for name, leaf in flatten(shapes).items()}, shapes)


def _like_parameter(name: str, shape: Sequence[int], known: Mapping[str, tuple]) -> PartitionSpec:
    rest = name
    while rest:
        _, _, rest = rest.partition('/')
        if rest in known:
            parameter, found = known[rest]
            return found if tuple(parameter) == tuple(shape) else PartitionSpec()
    return PartitionSpec()


def shardings(placed: Tree) -> Tree:
    """The shardings of a tree of arrays, or of shapes with placements."""
    return jax.tree.map(lambda leaf: leaf.sharding, placed)


def gather(tree: Tree, places: Tree, types: Tree) -> Tree:
    """Parameters as a loss uses them: no longer split over 'fsdp'. Their gradients are split again.

    Left to itself, the compiler also moves activations, and it moves parameters twice.

    Args:
      types: the type in which each parameter travels; its gradient has its own.
    """
    return jax.tree.map(_gather, tree, places, types)


def _gather(leaf: jax.Array, place: NamedSharding, dtype: Any) -> jax.Array:
    if 'fsdp' not in place.spec:
        return leaf
    whole = NamedSharding(place.mesh, PartitionSpec(*(None if axis == 'fsdp' else axis for axis in place.spec)))
    own = leaf.dtype

    @jax.custom_vjp
    def moved(x: jax.Array) -> jax.Array:
        cast = jax.lax.with_sharding_constraint(x.astype(dtype), place)
        return jax.lax.with_sharding_constraint(cast, whole)

    def back(_: None, g: jax.Array) -> tuple[jax.Array]:
        return (jax.lax.with_sharding_constraint(g.astype(own), place),)

    moved.defvjp(lambda x: (moved(x), None), back)
    return moved(leaf)


def bytes_per_device(placed: Tree) -> int:
    """Bytes that one device holds of a tree of arrays, or of shapes with placements."""
    return sum(leaf_bytes(leaf) for leaf in jax.tree.leaves(placed))


def leaf_bytes(leaf: Any) -> int:
    """Bytes that one device holds of an array."""
    return int(np.prod(leaf.sharding.shard_shape(leaf.shape))) * leaf.dtype.itemsize


def abstract_state(blueprint: Blueprint, mesh: Mesh | None = None) -> State:
    """Shapes, types and placements of the state on a mesh. Nothing is computed.

    Without a mesh, every device gets the whole state.
    """
    rules = parse_rules(blueprint.family.config.mesh.rules)
    return of_state(blueprint.shapes, mesh or meshes.make_mesh(), rules if mesh else ())

"""One training step, the same for any family: every update in order, then the averages."""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple, cast

import jax
import jax.numpy as jnp
import optax

from genbench import rng
from genbench.data import conditions, pipeline
from genbench.errors import UserError
from genbench.families.base import Average, Scalars, Update
from genbench.networks import splitting
from genbench.training import averages, placement, precision
from genbench.training import mesh as meshes
from genbench.training.state import Blueprint, State, Tree


class Constants(NamedTuple):
    """What steps read but do not change: `constants` of the feed, and what borrowed runs lend (`training.state`)."""

    feed: Any
    lent: Tree


class Step:
    """A compiled training step: (state, constants, inputs, active updates) → (state, scalars). It donates the state.

    The key of the run is an argument of the program, not a part of it. Runs that differ only in their seed therefore
    share the compiled program, also through the cache on disk.
    """

    def __init__(self, program: Any, root: jax.Array):
        self._program, self.root = program, root

    def __call__(self, state: State, constants: Constants, inputs: Any, active: tuple[str, ...]) -> Any:
        return self._program(self.root, state, constants, inputs, active)

    def trace(self, state: State, constants: Constants, inputs: Any, active: tuple[str, ...]) -> Any:
        """The traced step. It compiles to a function of (root, state, constants, inputs); `jaxpr` shows it."""
        return self._program.trace(self.root, state, constants, inputs, active)


def make_step(blueprint: Blueprint, feed: pipeline.Feed, root: jax.Array, places: State, lent: Tree) -> Step:
    """The step of a stage. Given a list of inputs, it makes that many steps alike and returns a list of scalars.

    Args:
      root: key of the training run. The key of each step is derived from it by the step's number.
      places: shardings of the state (`placement.of_state`). Batches are split over the same mesh.
      lent: shardings of what borrowed runs lend.
    """
    mesh = places['step'].mesh
    if blueprint.family.config.train.accumulate > 1:
        check_splits(blueprint, feed)

    def call(root: jax.Array, state: State, constants: Constants, inputs: Any, active: tuple[str, ...]) -> Any:
        step = _step(blueprint, feed, root, {**places, 'lent': lent})
        if not isinstance(inputs, list):
            return step(state, constants, inputs, active)
        stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *inputs)
        state, scalars = jax.lax.scan(lambda state, one: step(state, constants, one, active), state, stacked)
        return state, [jax.tree.map(lambda leaf, i=i: leaf[i], scalars) for i in range(len(inputs))]

    whole = meshes.replicated(mesh)
    program = jax.jit(call, donate_argnums=1, static_argnums=4, out_shardings=(places, whole))
    return Step(program, meshes.put(root, whole))


def _step(blueprint: Blueprint, feed: pipeline.Feed, root: jax.Array, places: State) -> Callable[..., Any]:
    mesh = places['step'].mesh

    def step(state: State, constants: Constants, inputs: Any, active: tuple[str, ...]) -> tuple[State, Scalars]:
        key = rng.numbered(root, state['step'])
        batch = take_batch(blueprint, feed, constants, inputs, key)
        batch = jax.lax.with_sharding_constraint(batch, meshes.split_batch(mesh))
        scalars: Scalars = {}
        finite = jnp.asarray(True)
        for update in blueprint.family.updates:
            if update.name in active:
                rows, rest = seen(update, batch, key)
                rows = jax.lax.with_sharding_constraint(rows, meshes.split_batch(mesh))
                state, values, ok = _apply(blueprint, update, state, constants.lent, rows, rest, places)
                scalars |= {f'{update.name}/{name}': value for name, value in values.items()}
                finite &= ok
        averaged = {average.name: _average(blueprint, average, state) for average in blueprint.averages}
        skipped = {
            'total': state['skipped']['total'] + ~finite,
            'in_a_row': jnp.where(finite, 0, state['skipped']['in_a_row'] + 1),
        }
        state = {**state, 'averages': averaged, 'skipped': skipped, 'step': state['step'] + 1}
        return state, {**scalars, 'skipped/in_a_row': skipped['in_a_row'], 'skipped/total': skipped['total']}

    return step


def take_batch(blueprint: Blueprint, feed: pipeline.Feed, constants: Constants, inputs: Any, key: jax.Array) -> Any:
    """The batch of a step as its losses see it. `key` is the key of the step."""
    batch, data = feed.batch(constants.feed, inputs, blueprint.family.spec.shape), blueprint.family.config.data
    if data.flip:
        batch['image'] = pipeline.flip(batch['image'], rng.named(key, 'flip'))
    if data.random_crop:
        batch['image'] = pipeline.random_crop(batch['image'], rng.named(key, 'random crop'), data.random_crop)
    return conditions.augmented(blueprint.family.conditions, batch, key)


def seen(update: Update, batch: Any, key: jax.Array) -> tuple[Any, jax.Array]:
    """What the loss of an update receives: the batch, with one key per image, and a key for everything else.

    An image's key depends on its place in the whole batch, not on the devices or micro-batches that share the batch.

    Args:
      key: the key of the step.
    """
    own = rng.named(key, f'update {update.name}')
    keys = rng.of_images(rng.named(own, 'images'), 0, len(batch['image']))
    return {**batch, 'key': keys}, rng.named(own, 'rest')


def active_updates(blueprint: Blueprint, step: int) -> tuple[str, ...]:
    """Names of the updates that run at a step."""
    return tuple(update.name for update in blueprint.family.updates if step % update.every == 0)


def _apply(
    blueprint: Blueprint, update: Update, state: State, lent: Tree, batch: Any, key: jax.Array, places: State
) -> tuple[State, Scalars, jax.Array]:
    """Apply one update. The state does not change if the loss or the gradient is not finite or the gradient too long.

    A gradient longer than `optimizer.skip_norm` is no error and does not count among the skipped updates.
    """
    mesh, parts = places['step'].mesh, blueprint.family.config.train.accumulate
    split = mesh.shape['fsdp'] > 1

    def on_whole(held: Tree, aux: Tree, batch: Any, key: jax.Array) -> tuple[jax.Array, tuple[Scalars, Tree]]:
        networks = blueprint.bind_state({**held, 'aux': aux})
        with splitting.images_split(meshes.split_batch(mesh) if split else None):
            value, scalars = update.loss(networks, batch, key, state['step'])
        return value, (scalars, blueprint.aux(networks))

    def loss(moved: Tree, aux: Tree, batch: Any, key: jax.Array) -> tuple[jax.Array, tuple[Scalars, Tree]]:
        held = {'params': {**state['params'], **moved}, 'averages': state['averages'], 'lent': lent}
        if split:
            types = precision.read_types(on_whole, held, aux, batch, key)
            held = placement.gather(held, {name: places[name] for name in held}, types)
        return on_whole(held, aux, batch, key)

    if update.optimizer is None:
        value, (scalars, aux) = loss({}, state['aux'], batch, key)
        finite = jnp.isfinite(value)
        return {**state, 'aux': _select(finite, aux, state['aux'])}, scalars, finite

    moved = {name: state['params'][name] for name in update.networks}
    differentiated = jax.value_and_grad(loss, has_aux=True)
    if parts == 1:
        (value, (scalars, aux)), gradient = differentiated(moved, state['aux'], batch, key)
    else:
        value, scalars, aux, gradient = _accumulated(differentiated, moved, state['aux'], batch, key, parts, mesh)
    norm = optax.global_norm(gradient)
    finite = jnp.isfinite(value) & jnp.isfinite(norm)
    scalars, limit = {**scalars, 'gradient_norm': norm}, blueprint.options(update)['skip_norm']
    taken = finite & (norm <= limit) if limit else finite
    if limit:
        scalars['too_long'] = jnp.where(finite & ~taken, 1.0, 0.0)  # logged as the share of steps
    kept = {'params': moved, 'aux': state['aux'], 'opt': state['opt'][update.name]}
    new = _take(taken, functools.partial(_changed, blueprint, update), kept, aux, gradient, mesh)
    changed = {
        'params': {**state['params'], **new['params']},
        'aux': new['aux'],
        'opt': {**state['opt'], update.name: new['opt']},
    }
    return {**state, **changed}, scalars, finite


def _changed(blueprint: Blueprint, update: Update, kept: Tree, aux: Tree, gradient: Tree) -> Tree:
    changes, opt = blueprint.optimizers[update.name].update(gradient, kept['opt'], kept['params'])
    params = cast(dict[str, Tree], optax.apply_updates(kept['params'], changes))
    return {'params': blueprint.constrained(params, aux), 'aux': aux, 'opt': opt}


def _take(taken: jax.Array, change: Callable[..., Tree], kept: Tree, aux: Tree, gradient: Tree, mesh: Any) -> Tree:
    """The changed state if `taken`, else the kept one.

    On CPU a selection would copy the moments of Adam first and run four times as long as this conditional. On
    accelerators a conditional would hold up the device.
    """
    if _on_cpu(mesh):
        return jax.lax.cond(taken, change, lambda kept, aux, gradient: kept, kept, aux, gradient)
    return _select(taken, change(kept, aux, gradient), kept)


def _on_cpu(mesh: Any) -> bool:
    return mesh.devices.flat[0].platform == 'cpu'


def _accumulated(
    differentiated: Callable[..., Any], moved: Tree, aux: Tree, batch: Any, key: jax.Array, parts: int, mesh: Any
) -> tuple[jax.Array, Scalars, Tree, Tree]:
    """Average the loss, scalars, changes of variables and gradient over micro-batches. Images keep their keys.

    Every micro-batch starts from the same variables, which `Update.splits` allows. On CPU the loop is unrolled, because
    the weight gradient of a convolution is slow inside a loop.
    """
    batches = jax.tree.map(lambda leaf: leaf.reshape(-1, parts, *leaf.shape[1:]).swapaxes(0, 1), batch)

    def part(carry: Any, inputs: Any) -> Any:
        total, (rows, index) = jax.lax.optimization_barrier((carry, inputs))
        rows = jax.lax.with_sharding_constraint(rows, meshes.split_batch(mesh))
        (value, (scalars, left)), gradient = differentiated(moved, aux, rows, rng.numbered(key, index))
        changes = jax.tree.map(_change, left, aux)
        return jax.tree.map(jnp.add, total, (gradient, changes)), (value, scalars)

    start = jax.tree.map(jnp.zeros_like, moved), jax.tree.map(lambda leaf: _change(leaf, leaf), aux)
    (total, changes), found = jax.lax.scan(
        part, start, (batches, jnp.arange(parts)), unroll=parts if _on_cpu(mesh) else 1
    )
    value, scalars = jax.tree.map(lambda leaf: leaf.mean(0), found)
    aux = jax.tree.map(lambda old, change: old + (change / parts).astype(old.dtype), aux, changes)
    return value, scalars, aux, jax.tree.map(lambda leaf: leaf / parts, total)


def _change(new: jax.Array, old: jax.Array) -> jax.Array:
    """What a loss added to a variable. Zero for a variable that is not real-valued."""
    return new - old if jnp.issubdtype(old.dtype, jnp.floating) else jnp.zeros(old.shape)


def check_splits(blueprint: Blueprint, feed: pipeline.Feed) -> None:
    """Refuse micro-batches for an update whose loss changes variables in a way that micro-batches cannot share.

    Raises:
      UserError: names the update and the variable.
    """
    family, state = blueprint.family, {**blueprint.shapes, 'lent': blueprint.lent_shapes}
    count = family.config.train.batch_size // family.config.train.accumulate
    batch = pipeline.shapes(feed, count, family.spec.shape)
    batch['key'] = jax.eval_shape(lambda: jax.random.split(jax.random.key(0), count))
    key = jax.eval_shape(lambda: jax.random.key(0))
    for update in family.updates:
        if update.optimizer is None:
            continue  # this update sees the whole batch

        def left(aux: Tree, state: State, batch: Any, key: jax.Array, update: Update = update) -> Tree:
            networks = blueprint.bind_state({**state, 'aux': aux})
            update.loss(networks, batch, key, state['step'])
            return blueprint.aux(networks)

        traced = jax.make_jaxpr(left)(state['aux'], state, batch, key).jaxpr
        for (path, leaf), old, new in zip(
            jax.tree_util.tree_leaves_with_path(state['aux']), traced.invars, traced.outvars, strict=False
        ):
            if new is not old and not (update.splits and jnp.issubdtype(leaf.dtype, jnp.floating)):
                raise UserError(
                    f'train.accumulate is {family.config.train.accumulate}, but the update {update.name} changes '
                    f'{jax.tree_util.keystr(path, simple=True, separator="/")} from a whole batch, which micro-batches '
                    'do not see. Set train.accumulate=1.'
                )


def _select(condition: jax.Array, new: Tree, old: Tree) -> Tree:
    return jax.tree.map(lambda a, b: a if a is b else jnp.where(condition, a, b), new, old)


def _average(blueprint: Blueprint, average: Average, state: State) -> Tree:
    began = blueprint.began[average.name]
    shares = {first: _share(average, state['step'] + (1 - first)) for first in sorted(set(began.values()))}

    def moved(name: str) -> Tree:
        share, old = shares[began[name]], state['averages'][average.name][name]
        return jax.tree.map(lambda old, new: old + share * (new - old), old, state['params'][name])

    return {name: moved(name) for name in state['averages'][average.name]}


def _share(average: Average, done: jax.Array) -> Any:
    """The weight of the new parameters in an average that has now taken in `done` of them."""
    if average.width:
        return averages.share(averages.exponent(average.width), done)
    return jnp.maximum(1 - average.decay, 9 / (10 + done)) if average.warmup else 1 - average.decay

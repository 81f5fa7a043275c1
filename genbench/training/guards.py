"""Non-finite updates: when the run stops, what it records, and how to examine such a step again."""

import collections
import json
import pathlib
import traceback
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from genbench import rng
from genbench.errors import UserError
from genbench.families.base import Family, Sampler, Update
from genbench.training import processes
from genbench.training import state as states
from genbench.training.files import write_atomically
from genbench.training.state import Blueprint, State

MOST = 0.5  # of a share in `Family.stops`
REMEMBERED = 100  # keep the scalars of this many recent steps


class Watch:
    """Counts consecutive skipped updates. It reads them one step late, so that host and device do not wait."""

    def __init__(self, limit: int):
        self._limit = limit
        self._recent: collections.deque[tuple[int, Mapping[str, Any]]] = collections.deque(maxlen=REMEMBERED)

    def add(self, step: int, scalars: Mapping[str, Any]) -> None:
        """Remember the scalars of the update at `step`. They are still on the device."""
        self._recent.append((step, scalars))

    def tripped(self, behind: int = 1) -> bool:
        """Whether the limit had been reached `behind` steps ago. Waits until the device has finished that step."""
        if len(self._recent) <= behind:
            return False
        return int(self._recent[-1 - behind][1]['skipped/in_a_row']) >= self._limit

    def streak(self) -> dict[int, dict[str, Any]]:
        """{step: scalars} of the skipped updates in a row that stopped the run."""
        rows = {step: jax.device_get(scalars) for step, scalars in self._recent}
        first = max(rows) + 1 - int(rows[max(rows)]['skipped/in_a_row'])
        return {step: dict(scalars) for step, scalars in rows.items() if step >= first}


def record(path: pathlib.Path, streak: Mapping[int, Mapping[str, Any]], seed: int, indices: Any) -> UserError:
    """Record the non-finite updates, and return the error to raise.

    Args:
      streak: `Watch.streak()`.
      indices: a function from a step to the numbers of the images in its batch.
    """
    last = max(streak)
    in_a_row = int(streak[last]['skipped/in_a_row'])
    first = last + 1 - in_a_row
    command = f'genbench train --workdir={path.parent} --replay={first}'
    key = rng.numbered(rng.root(seed, 'training'), first)
    values = {
        'first_step': first,
        'last_step': last,
        'updates_in_a_row': in_a_row,
        'batch_indices': np.asarray(indices(first)).tolist(),
        'key': {'seed': seed, 'purpose': 'training', 'step': first, 'data': jax.random.key_data(key).tolist()},
        'scalars': {step: {name: _readable(value) for name, value in row.items()} for step, row in streak.items()},
        'replay': command,
    }
    processes.first_does(lambda: write_atomically(path, json.dumps(values, indent=2) + '\n'))
    return UserError(
        f'The last {in_a_row} updates were not finite, so training stopped at step {last + 1} '
        f'(train.skip_limit). {path} has the batch, key and norms of the first. Repeat it with: {command} . '
        'A lower optimizer.learning_rate or a smaller optimizer.clip_norm may help.'
    )


def check_stops(family: Family, row: Mapping[str, Any]) -> None:
    """Raise a UserError if a share that `family.stops` names exceeds a half in this row of metrics.jsonl."""
    for name, value in row.items():
        advice = family.stops.get(name.rpartition('/')[2])
        if advice and value is not None and value > MOST:
            raise UserError(f'{name} is {value:.2f}, more than {MOST:g}, so training stopped at step {row["step"]}. '
                            f'{advice}')  # fmt: skip


def _readable(value: Any) -> float | str:
    """A number, or a text for a non-finite one, which JSON cannot hold."""
    return float(value) if np.isfinite(value) else str(float(value))


def check_shapes(blueprint: Blueprint, state: State, batch: Any) -> None:
    """Trace every loss and the sampler. Raise a UserError for a shape or type that violates the contract."""
    family = blueprint.family
    shape, kind = batch['image'].shape, batch['image'].dtype
    _expect(tuple(shape[1:]) == family.spec.shape and jnp.issubdtype(kind, jnp.integer), 'a batch of images',
            f'{shape} {kind}', f'integers (batch, {", ".join(map(str, family.spec.shape))})')  # fmt: skip
    for update in family.updates:
        keyed = {**batch, 'key': jax.eval_shape(lambda: jax.random.split(_key(), shape[0]))}
        value, scalars, aux = jax.eval_shape(lambda *a, u=update: _loss(blueprint, u, *a), state, keyed, _key())
        for name, leaf in {'its loss': value, **scalars}.items():
            _expect(leaf.shape == (), f'update {update.name}: {name}', f'shape {leaf.shape}', 'a scalar')
        _expect(jnp.issubdtype(value.dtype, jnp.floating), f'update {update.name}: its loss', value.dtype, 'floating')
        before, after = states.flatten(state['aux']), states.flatten(aux)
        for name, leaf in before.items():
            _expect((after[name].shape, after[name].dtype) == (leaf.shape, leaf.dtype), f'update {update.name}: {name}',
                    f'{after[name].shape} {after[name].dtype}', f'{leaf.shape} {leaf.dtype}, as before')  # fmt: skip
    _check_samples(blueprint, state)


def _check_samples(blueprint: Blueprint, state: State) -> None:
    family, number = blueprint.family, 2
    given = {name: form.null(number) for name, form in family.forms.items()} or None

    def draw(state: State, keys: jax.Array) -> Any:
        networks = blueprint.bind_state(state)
        return family.sample(networks, keys, given, Sampler(family.samplers[0], 2)).images

    images = jax.eval_shape(draw, state, jax.random.split(_key(), number))
    wanted = (number, *family.spec.shape)
    _expect(images.shape == wanted and jnp.issubdtype(images.dtype, jnp.integer), 'samples',
            f'{images.shape} {images.dtype}', f'integers {wanted}')  # fmt: skip


def _expect(condition: bool, what: str, found: Any, wanted: Any) -> None:
    if not condition:
        raise UserError(f'{what} should be {wanted}, not {found}.')


def _key() -> jax.Array:
    return jax.random.key(0)


def _loss(blueprint: Blueprint, update: Update, state: State, batch: Any, key: jax.Array) -> tuple[Any, Any, Any]:
    networks = blueprint.bind_state(state)
    value, scalars = update.loss(networks, batch, key, state['step'])
    return value, scalars, blueprint.aux(networks)


def examine(blueprint: Blueprint, update: Update, state: State, batch: Any, key: jax.Array) -> Iterator[str]:
    """Report where an update first becomes non-finite: in the state, the loss or the gradient, and on which line.

    Args:
      batch, key: what this update receives at this step.
    """
    yield from _said('state', state)

    def loss(params: Any) -> Any:
        return _loss(blueprint, update, {**state, 'params': {**state['params'], **params}}, batch, key)[0]

    moved = {name: state['params'][name] for name in update.networks}
    evaluate = jax.value_and_grad(loss) if update.optimizer is not None else lambda params: (loss(params), params)
    with jax.debug_nans(False):
        _, gradient = jax.jit(evaluate)(moved)
    yield from _said(f'{update.name}: gradient', gradient)
    try:
        with jax.debug_nans(True), jax.debug_infs(True):
            jax.jit(evaluate)(moved)
    except FloatingPointError as error:
        yield f'{update.name}: {error}, {_place(traceback.extract_tb(error.__traceback__))}'


def _said(what: str, tree: Any) -> Iterator[str]:
    bad = [name for name, leaf in states.flatten(tree).items() if not _finite(leaf)]
    if bad:
        yield f'{what}: {len(bad)} arrays are not finite; the first is {bad[0]}'


def _finite(leaf: Any) -> bool:
    return not jnp.issubdtype(leaf.dtype, jnp.inexact) or bool(jnp.isfinite(leaf).all())


def _place(frames: Sequence[traceback.FrameSummary]) -> str:
    """The innermost line in the family, a network or their building blocks. jax hides its own frames."""
    own = [frame for frame in frames if 'site-packages' not in frame.filename and frame.filename != __file__]
    frame = (own or list(frames))[-1]
    return f'in {frame.filename}, line {frame.lineno}: {frame.line}'

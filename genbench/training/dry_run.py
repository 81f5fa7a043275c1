"""What a run would place on each device and what a step would cost. Nothing is trained or written to its folder."""

from collections.abc import Iterator
from typing import Any

import jax

from genbench import rng
from genbench.config import Config
from genbench.data import opening
from genbench.families import stages
from genbench.training import beginnings, lending, placement, telemetry
from genbench.training import mesh as meshes
from genbench.training import state as states
from genbench.training.prepared import Prepared, prepare
from genbench.training.step import active_updates, make_step


def describe(config: Config) -> list[str]:
    """Lines: the mesh, every array of the state with its placement, bytes per device, and the compiled steps.

    The data set need not be prepared if TFDS knows its shapes, and a config may stand in the place of a run that the
    config builds on.

    Raises:
      UserError: any other mistake that `train` would report before its first step.
    """
    lacking = opening.lacking(config.data)
    ready = prepare(config, lending.borrow_or_promise(config), on_noise=bool(lacking))
    family, mesh = ready.family, ready.mesh
    ways = mesh.shape['data'] * mesh.shape['fsdp']
    axes = ' × '.join(f'{axis} {size}' for axis, size in mesh.shape.items())
    lines = [
        f'mesh: {axes}; devices: {mesh.size} ({jax.devices()[0].device_kind}); processes: {jax.process_count()}',
    ]
    if lacking:
        lines += [f'data: {lacking} Meanwhile one batch of noise takes the place of the images.']
    beginnings.trace(ready)
    for span in stages.spans(family):
        blueprint, size = states.blueprint(family, span.stage.name), span.batch_size
        if len(family.stages) > 1:
            shape = '×'.join(map(str, blueprint.family.spec.shape))
            lines += ['', f'stage {span.stage.name}: steps {span.first} to {span.stop - 1}, images of {shape}']
        lines += [f'batch: {size} images, {size // ways} per device']
        placed = placement.abstract_state(blueprint, mesh)
        lines += ['', *_placements(placed), '', *_memory(placed, ready), '']
        lines += _steps(ready, span)
    return lines


def _placements(placed: Any) -> Iterator[str]:
    rows = [
        (name, str(leaf.shape), str(leaf.dtype), str(leaf.sharding.spec), f'{placement.leaf_bytes(leaf):,}')
        for name, leaf in states.flatten(placed).items()
    ]
    table = [('array', 'shape', 'type', 'placement', 'bytes per device'), *rows]
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    for row in table:
        yield '  '.join(word.ljust(width) for word, width in zip(row[:-1], widths, strict=False)) + '  ' + row[-1]


def _memory(placed: states.State, ready: Prepared) -> Iterator[str]:
    constants = ready.places
    names = {'parameters': 'params', 'other variables': 'aux', 'optimizer': 'opt', 'averages': 'averages'}
    parts = {word: placement.bytes_per_device(placed[key]) for word, key in names.items()}
    if constants.lent:
        parts['borrowed runs'] = placement.bytes_per_device(constants.lent)
    if ready.builder is not None:
        parts['training images'] = placement.bytes_per_device(constants.feed)
    for word, number in {**parts, 'total': sum(parts.values())}.items():
        yield f'{word}: {number:,} bytes per device'


def traced_steps(ready: Prepared, span: stages.Span) -> Iterator[tuple[tuple[str, ...], Any, states.State]]:
    """(updates that run together, their traced step, the state with placements) for each program of a stage."""
    blueprint = states.blueprint(ready.family, span.stage.name)
    placed = placement.abstract_state(blueprint, ready.mesh)
    root = rng.root(ready.config.train.seed, 'training')
    places = placement.shardings(placed), placement.shardings(ready.places.lent)
    program = make_step(blueprint, ready.feed, root, *places)
    inputs = ready.feed.inputs(span.first)
    if meshes.is_promised(ready.mesh):
        inputs = meshes.put(inputs, meshes.split_batch(ready.mesh))
    period = max(update.every for update in blueprint.family.updates)
    steps = range(span.first, min(span.first + period, span.stop))
    for active in dict.fromkeys(active_updates(blueprint, step) for step in steps):
        yield active, program.trace(placed, ready.places, inputs, active), placed


def _steps(ready: Prepared, span: stages.Span) -> Iterator[str]:
    """Memory and operations of each program that the stage compiles, one for each set of updates that run together."""
    for active, traced, _ in traced_steps(ready, span):
        analysis = traced.lower().compile().memory_analysis()
        memory = f'{analysis.temp_size_in_bytes:,}' if analysis is not None else 'unknown'
        flops = telemetry.flops_of(traced)
        cost = f'{flops:.4g}' if flops is not None else 'unknown'
        yield f'compiled step of {", ".join(active)}: {memory} bytes of temporary memory per device, {cost} FLOPs'

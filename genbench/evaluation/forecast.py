"""What sampling and scoring a run would need on devices that are not there: the programs of `evaluate`, compiled."""

import functools
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import jax

from genbench.data import sources
from genbench.evaluation import grid, harness, likelihood
from genbench.families.base import Family
from genbench.training import compile_only, compiled, forecast, runs, sampling
from genbench.training import mesh as meshes
from genbench.training.state import Blueprint
from genbench.training.topologies import Target


def ask(workdir: str, overrides: Sequence[str], step: int | None, cells: Sequence[str], target: Target) -> Any:
    """A report like that of a training run (`training.forecast`), made in a process of its own.

    Args:
      step: whose networks and samplers count; by default those at the end of training.

    Raises:
      UserError: what `evaluate` would raise of its arguments, or the compiler is not installed.
    """
    asked = {'workdir': str(workdir), 'overrides': list(overrides), 'step': step, 'cells': list(cells)}
    return compile_only.ask(f'{__name__}:answer', asked, target)


def answer(asked: Mapping[str, Any], target: Target) -> dict[str, Any]:
    """The other side of `ask`."""
    run = harness.opened(asked['workdir'], asked['overrides'])
    step = run.config.train.num_steps if asked['step'] is None else asked['step']
    mesh = meshes.make_mesh(devices=target.devices())
    run, cells = harness.lent_guides(run, grid.cells(asked['cells'], run.after(step), run.config.evaluation))
    programs = list(_programs(run, step, cells, target, mesh))
    return {**forecast.said(target, mesh), 'programs': programs, 'fits': all(one['fits'] for one in programs)}


def _programs(
    run: runs.Run, step: int, cells: Sequence[grid.Cell], target: Target, mesh: jax.sharding.Mesh
) -> Iterator[dict[str, Any]]:
    family, options = run.after(step), run.config.evaluation
    blueprint = Blueprint(family)
    measure = functools.partial(
        compiled.measure, target=target, mesh=mesh, dtype=run.config.network.get('dtype', 'float32')
    )
    lent = {**blueprint.lent_shapes, **{name: loan.state for name, loan in run.guides.items()}}
    whole = {**sampling.parts(blueprint.shapes), 'lent': lent}
    state = meshes.put(whole, meshes.replicated(mesh))
    size = -(-options.batch_size // mesh.size) * mesh.size
    keys, given, images = meshes.put(_batch(family, size), meshes.split_batch(mesh))
    program = sampling.program(blueprint, mesh)
    for sampler in dict.fromkeys(cell.sampler for cell in cells):
        counted = jax.jit(functools.partial(sampling.sample, blueprint, sampler=sampler))  # the step count is static
        flops = forecast.operations(counted.trace(state, keys, given))
        traced = program.trace(state, keys, given, sampler)
        yield measure(f'{sampler.name}, {size} images', traced, flops=flops, trips=sampler.num_steps)
    if 'likelihood' not in options.metrics:
        return
    for one in family.likelihoods:
        if one.traceable and one.method in (options.likelihoods or (one.method,)):
            traced = likelihood.program(blueprint, one.log_prob, True).trace(state, images, given, keys)
            yield measure(f'{one.method}, {size} images', traced, flops=forecast.operations(traced))


def _batch(family: Family, size: int) -> tuple[Any, Any, Any]:
    """Shapes of a batch: keys, conditions, and images that are scored."""

    def build() -> Any:
        rows: Any = sources.noise(family.spec, size, family.fields).columns()
        keys = sampling.image_keys(family, 'samples', 0, 0, size)
        return keys, family.given(rows, keys), rows['image'].astype('int32')

    return jax.eval_shape(build)

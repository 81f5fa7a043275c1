"""What a config needs on devices that this machine lacks, and how fast it could be, from its own step compiled for
them.
"""

import sys
import warnings
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import jax

from genbench import config as configs
from genbench.config import Config
from genbench.data import opening
from genbench.errors import UserError
from genbench.families import stages
from genbench.training import beginnings, compile_only, compiled, lending, placement, telemetry
from genbench.training.dry_run import traced_steps
from genbench.training.prepared import Prepared, mesh_of, prepare
from genbench.training.topologies import Target


def ask(config: Config, target: Target, lent: Mapping[str, Config] | None = None, advise: bool = True) -> Any:
    """Run `measure` in a separate process."""
    (report,) = ask_all([(config, lent or {})], target, advise)
    if 'error' in report:
        raise UserError(report['error'])
    return report


def ask_all(requests: Sequence[tuple[Config, Mapping[str, Config]]], target: Target, advise: bool = False) -> list[Any]:
    """Like `ask`, for several configs, each with the configs of the untrained runs that it builds on.

    Returns:
      One report per config; {'error': one line} for a config that has none.
    """
    asked = [
        [configs.plain(config), {name: configs.plain(one) for name, one in lent.items()}, advise]
        for config, lent in requests
    ]  # fmt: skip
    found = compile_only.ask(f'{__name__}:answer', asked, target)
    return found


def answer(asked: Sequence[Any], target: Target) -> list[Any]:
    """Answer `ask_all` in the separate process."""
    found = []
    for values, lent, advise in asked:
        config, lenders = _resolved(values), {name: _resolved(one) for name, one in lent.items()}
        try:
            found.append(measure(config, target, lenders, advise))
        except UserError as error:
            found.append({'error': str(error)})
    return found


def _resolved(values: Any) -> Config:
    return configs.resolve(configs.plain(values))


def measure(config: Config, target: Target, lent: Mapping[str, Config], advise: bool) -> dict[str, Any]:
    """Compile every program of every stage of a training run.

    Returns:
      'devices', 'mesh', 'arrays' of the state with their placements, 'programs' (see `compiled.measure`), and 'fits':
      whether all programs fit. If they do not, 'advice' lists config changes that were tried and do fit.
    """
    devices = target.devices()
    ready = _prepare(config, target, devices, lent)
    beginnings.trace(ready)
    programs = [program for span in stages.spans(ready.family) for program in _programs(ready, target, span)]
    found = {
        **said(target, ready.mesh), 'images': config.train.batch_size,
        'resident_images': None if ready.builder is None else placement.bytes_per_device(ready.places.feed),
        'programs': programs, 'fits': all(one['fits'] for one in programs),
    }  # fmt: skip
    if not found['fits'] and advise:
        found['advice'] = _advice(config, target, devices, lent)
    return found


def said(target: Target, mesh: jax.sharding.Mesh) -> dict[str, Any]:
    """The devices and the mesh they form."""
    return {'topology': target.name, 'device': mesh.devices.flat[0].device_kind, 'devices': mesh.size,
            'mesh': dict(mesh.shape)}  # fmt: skip


def _prepare(config: Config, target: Target, devices: Sequence[Any], lent: Mapping[str, Config]) -> Prepared:
    """Open the run as `train` does, but without its images if they are not prepared on this machine."""
    mesh, loans = mesh_of(config, devices), lending.promised(config, lent)
    return prepare(config, loans, mesh=mesh, on_noise=bool(opening.lacking(config.data)))


def _programs(ready: Prepared, target: Target, span: stages.Span) -> Iterator[dict[str, Any]]:
    """One report for each set of updates that run together in a stage."""
    stage = f'stage {span.stage.name}, ' if len(ready.family.stages) > 1 else ''
    dtype = ready.config.network.get('dtype', 'float32')
    for active, traced, placed in traced_steps(ready, span):
        flops = operations(traced)
        found = compiled.measure(f'{stage}step of {", ".join(active)}', traced, target, ready.mesh, dtype, flops)
        yield found | {'state': placement.bytes_per_device(placed)}


def operations(traced: Any) -> float | None:
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')
        return telemetry.flops_of(traced)


def _advice(config: Config, target: Target, devices: Sequence[Any], lent: Mapping[str, Config]) -> list[dict[str, Any]]:
    """Changes with which all programs fit, each tried: split the state, compute again, smaller parts of the batch."""
    found = []
    for changes in _candidates(config, len(devices)):
        for overrides in changes:
            print(f'{compile_only.SAID}trying {" ".join(overrides)}', file=sys.stderr, flush=True)
            try:
                changed = configs.resolve(configs.plain(config), overrides)
                tried = measure(changed, target, lent, advise=False)
            except UserError:
                break
            if tried['fits']:
                peak = max(one['memory']['peak'] for one in tried['programs'])
                found.append({'overrides': list(overrides), 'peak': peak})
                break
    return found


def _candidates(config: Config, devices: int) -> Iterator[list[tuple[str, ...]]]:
    """Lists of config changes, the mildest list first. From each list, the first change that fits is reported."""
    split: tuple[str, ...] = ()
    rest = devices // max(config.mesh.tensor, 1)
    if config.mesh.fsdp not in (rest, -1):
        split = ('mesh.data=1', f'mesh.fsdp={rest}')
        yield [split]
    again: tuple[str, ...] = ()
    if config.network.get('remat') == 'none':
        again = ('network.remat=blocks',)
        yield [again]
    if split and again:
        yield [split + again]
    size, parts = config.train.batch_size, config.train.accumulate
    ways = devices // max(config.mesh.tensor, 1)
    powers = [2**k for k in range(1, 20)]
    yield [(f'train.accumulate={parts * k}',) for k in powers if size % (parts * k * ways) == 0]
    yield [(f'train.batch_size={size // k}',) for k in powers if size % k == 0 and size // k % (parts * ways) == 0]


def lines(report: Mapping[str, Any]) -> list[str]:
    """A report in words, as lines."""
    axes = ' × '.join(f'{axis} {length}' for axis, length in report['mesh'].items())
    found = [f'{report["topology"]}: {report["devices"]} devices ({report["device"]}), mesh: {axes}']
    if 'resident_images' in report and report['resident_images'] is None:
        found.append('The data set is not prepared here, so images on the devices are not counted.')
    for program in report['programs']:
        found += ['', *_told(program, report['devices'])]
    if 'advice' in report:
        found += ['', *_advised(report['advice'])]
    return found


def line(report: Mapping[str, Any]) -> str:
    """A report in one line, from its largest and its slowest program; or the reason why there is none."""
    if 'error' in report:
        return report['error']
    if not report['fits']:
        over = max(one['over'] or 0 for one in report['programs'])
        return f'does not fit{f" by {gib(over)}" if over else ""}'
    largest = max(report['programs'], key=lambda one: one['memory']['peak'])
    slowest = max(report['programs'], key=lambda one: one['estimate']['seconds'])
    estimate, memory = slowest['estimate'], largest['memory']
    mfu = '' if estimate['mfu'] is None else f', MFU at most {estimate["mfu"]:.0%}'
    return (f'fits, peak {gib(memory["peak"])} of {gib(memory["limit"])}; a step takes at least '
            f'{estimate["seconds"] * 1000:.3g} ms, bound by {estimate["bound_by"]}{mfu}')  # fmt: skip


def _told(program: Mapping[str, Any], devices: int) -> Iterator[str]:
    memory = program['memory']
    yield f'{program["program"]} (compiled in {program["compile_seconds"]:.0f} s)'
    if 'peak' not in memory:
        over = f' by {gib(program["over"])}' if program['over'] else ''
        yield f'  does not fit: it exceeds the {gib(memory["limit"])} of a device{over}'
        return
    yield (f'  memory per device: arguments {memory["arrays"]:,} bytes ({gib(memory["arguments"])} as laid out), '
           f'temporaries {gib(memory["temporaries"])}, peak {gib(memory["peak"])} of {gib(memory["limit"])}'
          )  # fmt: skip
    if not program['fits']:
        yield f'  does not fit: {gib(program["over"])} too much'
    elif memory['peak'] > 0.9 * memory['limit']:
        yield '  fits, but only because XLA recomputes values; the peak does not show the real need'
    else:
        yield '  fits'
    if memory['aliased'] != program.get('state', memory['aliased']):
        yield f'  only {memory["aliased"]:,} of {program["state"]:,} bytes of the state are updated in place'
    for one in program['collectives']:
        yield f'  {one["kind"]} over {one["axes"]}: {one["count"]}, {one["bytes"]:,} bytes'
    flops, estimate = program['flops'], program['estimate']
    known = 'unknown' if flops is None else f'{flops:.4g} on all {devices} devices'
    yield f'  FLOPs: {known}; bytes moved in the memory of each device: {program["bytes_moved"]:.4g}'
    if program['conditionals']:
        yield f'  conditionals: {program["conditionals"]}; the numbers above are those of their costliest branches'
    mfu = '' if estimate['mfu'] is None else f', MFU at most {estimate["mfu"]:.0%}'
    yield (f'  time: at least {estimate["seconds"] * 1000:.3g} ms, bound by {estimate["bound_by"]}{mfu} '
           '(an estimate, not a measurement)')  # fmt: skip


def _advised(advice: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    if not advice:
        yield 'fsdp, remat, accumulation and a smaller batch do not make it fit; use more or larger devices.'
    for one in advice:
        overrides = ' '.join(f'--config.{text}' for text in one['overrides'])
        yield f'It fits with {overrides} (peak {gib(one["peak"])}).'


def gib(number: float) -> str:
    return f'{number / 2**30:.3g} GiB' if number >= 2**30 else f'{number / 2**20:.3g} MiB'

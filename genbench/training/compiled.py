"""A program compiled for devices that this machine lacks: memory, collectives, operations and minimum time."""

import dataclasses
import re
import time
from collections.abc import Mapping, Sequence
from typing import Any

import jax

from genbench.training import hlo, telemetry
from genbench.training.topologies import Target

ESTIMATE = 'an estimate, not a measurement: the longest of four times at the peak rates of the data sheets'
_UNITS = {'': 1, 'K': 2**10, 'M': 2**20, 'G': 2**30, 'T': 2**40}


def measure(
    name: str, traced: Any, target: Target, mesh: jax.sharding.Mesh, dtype: str, flops: float | None, trips: int = 1
) -> dict[str, Any]:
    """Compile a traced program, and report what it needs and does.

    Args:
      dtype: type of the network's computation.
      flops: of one run on all devices together; None if unknown.
      trips: how often to count a loop whose length is an argument.

    Returns:
      'memory' of one device: 'arrays' (arguments without padding), 'arguments' (with their layouts), 'temporaries',
      'peak', 'limit', and 'aliased' (bytes of arguments whose memory results reuse). 'fits', and 'over', the excess
      bytes. 'flops' of all devices, 'bytes_moved' of one, 'products' by type, 'collectives', 'estimate', and the number
      of 'conditionals', of which the costliest branches count. If a program exceeds the compiler's limit, only 'fits',
      'over', 'flops' and the limit are given.
    """
    limit, began = target.known.available, time.monotonic()
    found: dict[str, Any] = {'program': name, 'flops': flops, 'memory': {'limit': limit}}
    try:
        program = traced.lower().compile()
    except jax.errors.JaxRuntimeError as error:
        if 'RESOURCE_EXHAUSTED' not in str(error):
            raise
        needed = too_large(str(error))
        return {**found, 'fits': False, 'over': None if needed is None else max(needed - limit, 0),
                'compile_seconds': round(time.monotonic() - began, 2)}  # fmt: skip
    read = hlo.Program(program.as_text(), trips)
    memory = _memory(program.memory_analysis()) | {
        'arrays': sum(read.arguments.values()), 'aliased': read.aliased, 'limit': limit,
    }  # fmt: skip
    collectives = read.collectives(mesh.shape, target.machine)
    over = max(memory['peak'] - limit, 0)
    return {
        **found, 'memory': memory, 'fits': not over, 'over': over,
        'products': read.products, 'collectives': [dataclasses.asdict(one) for one in collectives],
        'bytes_moved': read.bytes_moved, 'conditionals': read.conditionals,
        'estimate': _estimate(target, mesh, dtype, flops, read.bytes_moved, collectives),
        'compile_seconds': round(time.monotonic() - began, 2),
    }  # fmt: skip


def _memory(stats: Any) -> dict[str, int]:
    whole = stats.argument_size_in_bytes + stats.output_size_in_bytes - stats.alias_size_in_bytes
    return {
        'arguments': stats.argument_size_in_bytes,
        'temporaries': stats.temp_size_in_bytes,
        'peak': max(getattr(stats, 'peak_memory_in_bytes', 0) or 0, whole + stats.temp_size_in_bytes),
    }


def too_large(message: str) -> int | None:
    """Bytes that a program needs when the compiler says it exceeds the memory; None if the message gives no number."""
    for pattern in (r'Used ([\d.]+)([KMGT]?) of', r'total memory required for HLO temporaries \(([\d.]+)([KMGT]?)\)'):
        if found := re.search(pattern, message):
            return int(float(found.group(1)) * _UNITS[found.group(2)])
    return None


def _estimate(
    target: Target, mesh: jax.sharding.Mesh, dtype: str, flops: float | None, moved: int,
    collectives: Sequence[hlo.Collective],
) -> dict[str, Any]:  # fmt: skip
    """The roofline (Williams et al. 2009): a step takes at least as long as its operations, its memory traffic, its
    exchanges within a slice or a machine, or those over the network.
    """
    crossing = sum(one.crossing for one in collectives)
    inside = sum(one.sent for one in collectives) - crossing
    peak = telemetry.peak_flops(mesh.devices.flat[0].device_kind, dtype)
    times: dict[str, float] = {
        'memory': moved / target.known.bandwidth, 'exchange': inside / target.known.link,
        'network': crossing / target.known.network,
    }  # fmt: skip
    if flops is not None and peak:
        times['operations'] = flops / mesh.size / peak
    seconds = max(times.values())
    known = flops is not None and peak and seconds
    return {
        'is': ESTIMATE, 'seconds': seconds, 'bound_by': max(times, key=lambda name: times[name]), **_named(times),
        'mfu': flops / mesh.size / peak / seconds if known and flops is not None and peak else None,
    }  # fmt: skip


def _named(times: Mapping[str, float]) -> dict[str, float]:
    return {f'{name}_seconds': seconds for name, seconds in times.items()}

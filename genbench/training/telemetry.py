"""What a run reports about itself: where its time goes, how near it comes to the device's peak, its memory use."""

import contextlib
import pathlib
import time
import warnings
from collections.abc import Iterator, Mapping
from typing import Any

import jax

from genbench import flops
from genbench.reading import read_rows

PARTS = ('init', 'compile', 'data_wait', 'step', 'checkpoint', 'evaluation', 'other')

# Peak rates of dense multiply-adds, in 10¹² operations per second and device, with bfloat16 and with float32 inputs,
# from the vendors' data sheets. A part of `device_kind` identifies a device; the first match counts. The float32 column
# is what XLA does by default with float32 arrays: TF32 on NVIDIA's GPUs since Ampere, bfloat16 on TPUs. V100: float16
# instead of bfloat16.
_PEAKS = (
    ('H100 PCIe', 756, 378),
    ('H100', 989, 495),
    ('H200', 989, 495),
    ('A100', 312, 156),
    ('V100', 125, 15.7),
    ('L40S', 362, 183),
    ('L4', 121, 60),
    ('TPU v4', 275, 275),
    ('TPU v5 lite', 197, 197),
    ('TPU v5e', 197, 197),
    ('TPU v5', 459, 459),  # v5p
    ('TPU v6', 918, 918),
)


def peak_flops(device_kind: str, dtype: str = 'bfloat16') -> float | None:
    """Peak rate of one device in products of this type, in operations per second; None if unknown."""
    for part, bfloat16, float32 in _PEAKS:
        if part in device_kind:
            return 1e12 * (float32 if dtype == 'float32' else bfloat16)
    return None


def memory_peak() -> int | None:
    """The most bytes that any device of this process has held; None if the platform does not report it (CPU)."""
    stats = [device.memory_stats() or {} for device in jax.local_devices()]
    return max((entry['peak_bytes_in_use'] for entry in stats if 'peak_bytes_in_use' in entry), default=None)


class Ledger:
    """The seconds a run has spent on each kind of work, over all its starts.

    Args:
      before: seconds of earlier starts. A missing part counts as zero.
      began: when this start began, by `time.monotonic`.
    """

    def __init__(self, before: Mapping[str, float], began: float):
        self._began, self._earlier = began, sum(before.get(part, 0.0) for part in PARTS)
        self._seconds = {part: before.get(part, 0.0) for part in PARTS if part != 'other'}
        self.first_step: float | None = None  # seconds from the start to the end of its first step

    @contextlib.contextmanager
    def spent(self, part: str) -> Iterator[None]:
        """Count the time inside towards this part. Parts do not nest."""
        began = time.monotonic()
        try:
            yield
        finally:
            self.add(part, time.monotonic() - began)

    def add(self, part: str, seconds: float) -> None:
        self._seconds[part] += seconds

    def since_began(self) -> float:
        """Seconds since this start began."""
        return time.monotonic() - self._began

    def seconds(self) -> dict[str, float]:
        """{part: seconds}. 'other' is the rest of the time since the start."""
        total = self._earlier + self.since_began()
        return {**self._seconds, 'other': max(total - sum(self._seconds.values()), 0.0)}

    def __getitem__(self, part: str) -> float:
        return self._seconds[part]


class Meter:
    """Speed since the last row of metrics.

    Args:
      peak: operations per second of one device; None if unknown.
    """

    def __init__(self, ledger: Ledger, batch_size: int, peak: float | None):
        self._ledger, self._batch_size, self._peak = ledger, batch_size, peak
        self._last = self._now(0)
        self._flops: float | None = None

    def _now(self, step: int) -> dict[str, float]:
        return {
            'time': time.monotonic(), 'step': step,
            'running': self._ledger['step'], 'waiting': self._ledger['data_wait'],
        }  # fmt: skip

    def start(self, step: int, flops: float | None) -> None:
        """Start measuring at this step, after `flops` operations (None if unknown)."""
        self._last, self._flops = self._now(step), flops

    def read(self, step: int, flops: float | None) -> dict[str, float]:
        """Scalars of the steps since `start` or the last `read`.

        images_per_second counts everything that happened. step_seconds counts only steps and waiting for data.
        data_wait is the share of waiting in that time; on accelerators it is an upper bound, because they may be
        computing meanwhile.
        """
        now = self._now(step)
        passed = {name: now[name] - value for name, value in self._last.items()}
        operations = None if flops is None or self._flops is None else flops - self._flops
        self._last, self._flops = now, flops
        busy = passed['running'] + passed['waiting']
        found = {
            'speed/images_per_second': round(passed['step'] * self._batch_size / max(passed['time'], 1e-9), 1),
            'speed/step_seconds': round(busy / max(passed['step'], 1), 6),
            'time/data_wait': round(passed['waiting'] / max(busy, 1e-9), 5),
        }
        if self._peak and operations:
            rate = operations / jax.device_count() / max(busy, 1e-9)
            found['speed/mfu'] = round(rate / self._peak, 5)
        memory = memory_peak()
        return found if memory is None else {**found, 'memory/peak_bytes': memory}


class Trace:
    """A profile of the steps [start, stop), for TensorBoard, XProf or Perfetto. No profile if `span` is None."""

    def __init__(self, folder: pathlib.Path, span: tuple[int, int] | None):
        self._folder, self._span, self._running = folder, span, False

    def at(self, step: int, pending: Any = ()) -> None:
        """Call this before every step. Work that is `pending` on the device belongs to the trace."""
        if self._span is None:
            return
        if self._running and step >= self._span[1]:
            self.stop(pending)
        elif not self._running and self._span[0] <= step < self._span[1]:
            jax.block_until_ready(pending)
            jax.profiler.start_trace(self._folder)
            self._running = True

    def stop(self, pending: Any = ()) -> None:
        """Write the trace if one is in progress. Warn if none was made."""
        if self._running:
            jax.block_until_ready(pending)
            jax.profiler.stop_trace()
            self._running, self._span = False, None
        elif self._span is not None:
            warnings.warn(f'No trace was written: this start did not reach the steps of --profile={self._span[0]}:'
                          f'{self._span[1]}.', stacklevel=2)  # fmt: skip
            self._span = None


def lost_work(rows: list[dict[str, Any]], restored_step: int) -> dict[str, Any]:
    """Steps and seconds in metrics.jsonl past the restored step, which will be repeated. This is a lower bound."""
    later = [row for row in rows if row['step'] > restored_step]
    if not later:
        return {'lost_steps': 0, 'lost_seconds': 0.0}
    kept = [row for row in rows if row['step'] <= restored_step]
    seconds = later[-1]['wall_time'] - (kept[-1]['wall_time'] if kept else 0.0)
    return {'lost_steps': later[-1]['step'] - restored_step, 'lost_seconds': round(seconds, 3)}


def read_starts(path: pathlib.Path) -> list[dict[str, Any]]:
    """One row for each start of the run: when, from which step, and what was lost before it."""
    return read_rows(path, {'step?': int, 'lost_steps': int, 'lost_seconds': float, 'flops?': str})


def definition(starts: list[dict[str, Any]]) -> str | None:
    """How the FLOPs of a run are defined; None if its starts counted them differently, or do not say how.

    A start from step 0 repeats everything, so the starts before it do not matter.
    """
    fresh = max((index for index, row in enumerate(starts) if row.get('step') == 0), default=0)
    found = {row.get('flops') for row in starts[fresh:]}
    return found.pop() if len(found) == 1 else None


def summary(
    ledger: Ledger, step: int, flops: float | None, peak: float | None, starts: list[dict[str, Any]]
) -> dict[str, Any]:
    """Speed and time over all starts, for summary.json.

    `seconds` says where the time went. 'lost' is work that was done twice. `goodput` is the share of time spent on
    steps. `mfu` is None if the device's peak or the operations of a step are unknown.
    """
    seconds = {**ledger.seconds(), 'lost': sum(row['lost_seconds'] for row in starts)}
    busy = seconds['step'] + seconds['data_wait']
    rate = (flops or 0.0) / jax.device_count() / max(busy, 1e-9)
    return {
        'device': jax.devices()[0].device_kind,
        'starts': len(starts),
        'lost_steps': sum(row['lost_steps'] for row in starts),
        'seconds': {part: round(value, 3) for part, value in seconds.items()},
        'goodput': round(seconds['step'] / max(sum(seconds.values()), 1e-9), 4),
        'first_step_seconds': ledger.first_step,
        'step_seconds': round(busy / max(step, 1), 6),
        'mfu': round(rate / peak, 5) if peak and flops else None,
        'memory_peak_bytes': memory_peak(),
    }


def flops_of(traced: Any) -> float | None:
    """Floating-point operations of one call of a traced program; None, with a warning, if they cannot be counted."""
    try:
        return flops.count(traced.jaxpr)
    except flops.UnknownError as error:
        warnings.warn(f'The FLOPs of this program are not counted: {error}.', stacklevel=2)
        return None

"""Process settings that must precede jax: the compilation cache, one CPU device per core, and fewer messages."""

import contextlib
import logging
import os
import warnings
from collections.abc import Callable

MOST_CPU_DEVICES = 8


def cores() -> int:
    """The number of processors that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, 'sched_getaffinity') else os.cpu_count() or 1


def prepare(fit: Callable[[int], int] | None = None) -> None:
    """For the command line: call `use_devices`, and print each warning as one line.

    Libraries log tracebacks of errors that also reach us as exceptions. Those logs are turned off.
    """
    use_devices(fit)
    logging.getLogger('absl').setLevel(logging.CRITICAL)
    warnings.formatwarning = lambda message, category, *_: f'genbench: warning: {message}\n'
    warnings.filterwarnings('ignore', category=DeprecationWarning)


def use_devices(fit: Callable[[int], int] | None = None) -> None:
    """Turn on the persistent compilation cache in the user's cache folder, and choose jax's devices.

    When jax computes on the CPU, each core becomes a device that takes its part of a batch. XLA by itself spreads few
    operations over cores, so two devices of one core each train nearly twice as fast as one device of two cores.

    `JAX_COMPILATION_CACHE_DIR` moves the cache, and `JAX_NUM_CPU_DEVICES` sets the number of devices.

    Args:
      fit: a function from a number of devices to how many of them can be used; by default all, up to MOST_CPU_DEVICES.
    """
    import jax

    from genbench.data.sources import cache_dir

    if not os.environ.get('JAX_COMPILATION_CACHE_DIR'):
        jax.config.update('jax_compilation_cache_dir', str(cache_dir() / 'xla'))
    jax.config.update('jax_persistent_cache_min_compile_time_secs', 0.3)
    if not os.environ.get('JAX_NUM_CPU_DEVICES'):
        number = min(cores(), MOST_CPU_DEVICES)
        with contextlib.suppress(RuntimeError):  # a caller has already used jax
            jax.config.update('jax_num_cpu_devices', fit(number) if fit else number)

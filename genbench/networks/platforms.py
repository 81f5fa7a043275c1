"""The platform that programs are traced for."""

import contextlib
import contextvars
from collections.abc import Iterator

import jax

_platform = contextvars.ContextVar('platform', default='')


@contextlib.contextmanager
def compiled_for(platform: str) -> Iterator[None]:
    """Trace the code inside for 'tpu' or 'gpu', even though jax has other devices here."""
    token = _platform.set(platform)
    try:
        yield
    finally:
        _platform.reset(token)


def platform() -> str:
    """'cpu', 'gpu' or 'tpu'."""
    return _platform.get() or jax.default_backend()

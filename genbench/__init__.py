"""genbench: generative families under one trainer and one evaluation harness.

From Python, use `train`, `evaluate` and `load_run`. They live in `genbench.api`, which is imported on first use.
"""

import importlib
from typing import Any

__version__ = '0.1.0'
__all__ = ['Run', 'evaluate', 'load_run', 'train']


def __getattr__(name: str) -> Any:
    if name in __all__:
        return getattr(importlib.import_module('genbench.api'), name)
    raise AttributeError(f'module {__name__!r} has no attribute {name!r}')


def __dir__() -> list[str]:
    return [*globals(), *__all__]

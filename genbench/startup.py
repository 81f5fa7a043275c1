"""What a process sets before it uses jax: the compilation cache, and fewer messages."""

import logging
import os
import warnings


def prepare() -> None:
    """Turn on the persistent compilation cache in the user's cache folder, and print warnings as one line.

    Libraries log tracebacks of errors that also reach us as exceptions; those logs are turned off.

    `JAX_COMPILATION_CACHE_DIR` puts the cache elsewhere.
    """
    import jax

    from genbench.data.sources import cache_dir

    if not os.environ.get('JAX_COMPILATION_CACHE_DIR'):
        jax.config.update('jax_compilation_cache_dir', str(cache_dir() / 'xla'))
    jax.config.update('jax_persistent_cache_min_compile_time_secs', 0.3)
    logging.getLogger('absl').setLevel(logging.CRITICAL)
    warnings.formatwarning = lambda message, category, *_: f'genbench: warning: {message}\n'
    warnings.filterwarnings('ignore', category=DeprecationWarning)

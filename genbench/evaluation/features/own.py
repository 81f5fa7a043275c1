"""A feature network of the user's own: a function of a Python file, called with batches of images."""

import hashlib
import pathlib
from typing import Any

import jax
import numpy as np

from genbench import scripts
from genbench.errors import UserError
from genbench.evaluation.features.network import FeatureNetwork
from genbench.ranges import said

FLAG = '--features'


def open_network(address: str, *, batch_size: int = 64) -> FeatureNetwork:
    """FILE.py:FUNCTION, where FUNCTION(images) maps uint8 (n, height, width, 1 or 3) to features (n, d).

    It may use any library: what it returns is read as an array. Its protocol has the hash of the file; weights that the
    file reads from elsewhere are the user's to name, by a text WEIGHTS in the file.

    Raises:
      UserError: there is no such function, or it ends in an error or gives something else than features.
    """
    path, _, name = address.rpartition(':')
    function = scripts.load(path, name, 'feature network')
    digest = hashlib.sha256(pathlib.Path(path).read_bytes()).hexdigest()[:16]
    weights = getattr(function, '__globals__', {}).get('WEIGHTS', '')
    protocol = {'features': f'{pathlib.Path(path).name}:{name}', 'file_sha256': digest, 'input': 'uint8 in 0 … 255'}
    protocol |= {'weights': str(weights)} if weights else {}

    def program(_: Any, images: jax.Array, wanted: tuple[str, ...]) -> dict[str, Any]:
        return {'features': _called(function, np.asarray(images), address)}

    return FeatureNetwork(name, protocol, ('features',), 256, False, batch_size, (), program, rounds=True)


def _called(function: Any, images: np.ndarray, address: str) -> np.ndarray:
    try:
        found = np.asarray(function(images))
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # the user's code may raise anything
        raise UserError(f'{address} ({FLAG}) failed on {len(images)} images of the shape {images.shape[1:]}: '
                        f'{said(error)}.') from None  # fmt: skip
    if found.ndim != 2 or len(found) != len(images) or found.dtype.kind not in 'fiu':
        raise UserError(f'{address} ({FLAG}) returned {found.dtype} {found.shape} for {len(images)} images; '
                        f'it should return numbers of the shape ({len(images)}, d).')  # fmt: skip
    return found.astype(np.float32)

"""Files of moments: mean and covariance of the features of an image set, written by genbench or published by others."""

import dataclasses
import hashlib
import json
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from genbench import reading
from genbench.errors import UserError
from genbench.evaluation import array_files
from genbench.evaluation.distances import ROUNDING, check_moments
from genbench.evaluation.features import FeatureNetwork
from genbench.evaluation.protocol import Protocol
from genbench.evaluation.scoring import Extracted, Moments
from genbench.training.files import write_npz

FORMAT = 1
PREFIXES = {'features': '', 'spatial': 'spatial_'}  # prefix in the names of an output's moments
ADM = {'spatial': ('mu_s', 'sigma_s')}  # names of the moments of the spatial features in ADM's references
MOST_FEATURES = 2**14  # the covariance of more features would exceed 2 GiB


def is_moments(address: str) -> bool:
    """Whether a file is an .npz with mu and sigma."""
    path = pathlib.Path(address)
    return path.suffix == '.npz' and array_files.is_npz(path) and {'mu', 'sigma'} <= set(array_files.names(path))


def protocol(found: Extracted, network: FeatureNetwork) -> dict[str, Any]:
    """What a file says of the moments of a set."""
    return {'format': FORMAT, 'features': dict(network.protocol), 'reference': found.description}


def write(out: str, found: Extracted, network: FeatureNetwork) -> None:
    """Write the moments of a set with their protocol."""
    named = {
        f'{prefix}{key}': value
        for output, prefix in PREFIXES.items()
        if output in found.moments
        for key, value in zip(('mu', 'sigma'), found.moments[output], strict=True)
    }
    text = json.dumps(dict(Protocol(protocol(found, network))))
    write_npz(pathlib.Path(out), {'protocol': text, 'n': found.count, **named})


@dataclasses.dataclass(frozen=True)
class Saved:
    """The contents of a file of moments.

    Attributes:
      description: how a protocol describes the images.
      network: the protocol of the feature network; {} if it is unknown.
      moments: (mean, covariance) by output.
      count: number of images; 0 if it is unknown.
    """

    address: str
    description: dict[str, Any]
    network: Mapping[str, Any]
    moments: dict[str, Moments]
    count: int
    images: Any = None  # an ImageSet, if the file also holds images

    def of(self, network: FeatureNetwork) -> Extracted:
        """Use the moments as a reference in the features of a network; a UserError if they are of another network."""
        if self.network:
            different = Protocol(self.network).difference(network.protocol)
            if different:
                key, (there, here) = next(iter(different.items()))
                raise UserError(
                    f'{self.address} has moments of another protocol: {key} is {there!r} there, but {here!r} here.'
                )
        return Extracted(self.description, {}, self.moments, self.count)


def read(address: str, outputs: Sequence[str]) -> Saved:
    """Read the moments of a file that genbench wrote, or of a published .npz with mu and sigma.

    Raises:
      UserError: the file is damaged, lacks the moments of an output, or has moments that no images can have.
    """
    path = pathlib.Path(address)
    held = array_files.names(path)
    for name in outputs:
        if name in PREFIXES and not set(_keys(name, held)) <= set(held):
            raise UserError(f'{address} has no moments of the output {name!r}.')
    keys = {name: _keys(name, held) for name in PREFIXES}
    stored = {name: _stored(path, found) for name, found in keys.items() if set(found) <= set(held)}
    moments = {name: _checked(path, *stored[name]) for name in outputs if name in PREFIXES}  # logits need no reference
    rest = array_files.read_npz(path, [name for name in ('n', 'protocol') if name in held])
    digest = hashlib.sha256(b''.join(value.tobytes() for value in stored['features'])).hexdigest()[:16]
    description: dict[str, Any] = {'from': 'published moments, protocol unknown', 'moments_sha256': digest}
    network: dict[str, Any] = {}
    if 'protocol' in rest:
        description, network = _protocol(address, rest['protocol'])
    return Saved(address, description, network, moments, _count(address, rest['n']) if 'n' in rest else 0)


def _keys(output: str, held: Sequence[str]) -> tuple[str, str]:
    if output in ADM and set(ADM[output]) <= set(held):
        return ADM[output]
    return f'{PREFIXES[output]}mu', f'{PREFIXES[output]}sigma'


def _stored(path: pathlib.Path, keys: tuple[str, str]) -> list[np.ndarray]:
    """The mean and covariance of an output as stored in the file, if their shapes are those of moments."""
    mean, covariance = array_files.shapes(path, keys).values()
    if len(mean) != 1 or covariance != (*mean, *mean) or not 0 < mean[0] <= MOST_FEATURES:
        raise UserError(f'{path}: mu {mean} and sigma {covariance} are not a mean (d,) and a covariance (d, d).')
    return list(array_files.read_npz(path, keys).values())


def _checked(path: pathlib.Path, *stored: np.ndarray) -> Moments:
    """Return the mean and covariance as float64, after checking that a set of features can have them."""
    if any(value.dtype.kind not in 'fiu' for value in stored):
        raise UserError(f'{path}: mu and sigma are not real numbers.')
    mu, sigma = (value.astype(np.float64) for value in stored)
    try:
        check_moments(mu, sigma)
    except UserError as error:
        raise UserError(f'{path}: {error}') from None
    eigenvalues = np.linalg.eigvalsh(sigma)
    if eigenvalues[0] < -ROUNDING * eigenvalues[-1]:
        raise UserError(f'{path}: the covariance of the moments has a negative eigenvalue, {eigenvalues[0]:.3g}.')
    return mu, sigma


def _protocol(address: str, stored: np.ndarray) -> tuple[dict[str, Any], dict[str, Any]]:
    """(description of the images, protocol of the network) from the JSON text in a file."""
    try:
        saved = reading.parse(str(stored), {'reference': dict, 'features': dict})
    except ValueError:
        saved = {'reference': {}, 'features': {}}
    if not (saved['reference'] and saved['features']):
        raise UserError(f'The protocol in {address} is damaged. Remove the array "protocol" to read the file as '
                        'moments from another program.')  # fmt: skip
    return saved['reference'], saved['features']


def _count(address: str, stored: np.ndarray) -> int:
    if stored.shape != () or stored.dtype.kind not in 'iuf' or not 2 <= stored <= 2**53 or stored != np.round(stored):
        raise UserError(f'n in {address} is {stored!s:.40}; it should be the number of images, at least 2.')
    return int(stored)

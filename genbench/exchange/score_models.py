"""Read the variables of a network from published checkpoints of EDM (.pkl) and score SDE (.pth)."""

import pathlib
from collections.abc import Callable
from typing import Any

import numpy as np

from genbench.errors import UserError
from genbench.exchange import persistent, song
from genbench.exchange.song import Arrays
from genbench.networks import torch_file

NETWORKS = {'SongUNet': 'ncsnpp', 'DhariwalUNet': 'adm'}  # our networks, by EDM's classes
# For each of EDM's classes: its path and prediction here, their settings, and whether the network predicts the
# noise with the opposite sign.
PRECONDITIONED: dict[str, tuple[str, str, dict[str, float], bool]] = {
    'EDMPrecond': ('edm', 'preconditioned', {'sigma_data': 0.5}, False),
    'VPPrecond': ('vp', 'noise', {'beta_d': 19.9, 'beta_min': 0.1, 'M': 1000}, False),
    'VEPrecond': ('ve', 'noise', {'sigma_min': 0.02, 'sigma_max': 100}, True),
}
_UNTRAINED = ('sigmas', 'all_modules.0.W')  # variables without an average in score SDE's checkpoints


def variables(path: pathlib.Path, family: Any) -> Arrays:
    """The checkpoint's variables, by their paths in the network of a family with a matching config.

    Raises:
      UserError: the file is damaged, or its network does not match the config.
    """
    config = family.config.network
    if path.suffix not in READERS:
        raise UserError(f'{path} should be a folder of diffusers, a .pkl of EDM or a .pth of score SDE.')
    if config.name not in NETWORKS.values():
        raise UserError(f'{path} has a network of EDM or score SDE, so network.name should be ncsnpp or adm, not '
                        f'{config.name}.')  # fmt: skip
    if config.time_scale != 1000:
        raise UserError(f'network.time_scale is {config.time_scale:g}, but published networks have 1000.')
    height, width, _ = family.spec.shape
    if height != width:
        raise UserError(f'{path} has a network for square images, but those of {family.spec.name} are '
                        f'{height}×{width}.')  # fmt: skip
    return READERS[path.suffix](path, family)


def _edm(path: pathlib.Path, family: Any) -> Arrays:
    network, size = persistent.read(path), family.spec.shape[0]
    if network.kind not in PRECONDITIONED:
        known = ', '.join(PRECONDITIONED)
        raise UserError(f'{path} has {network.kind}, which genbench cannot use; it reads {known}.')
    schedule, prediction, settings, negative = PRECONDITIONED[network.kind]
    _check_path(path, family, (schedule,), prediction)
    for name, value in {**settings, 'img_resolution': size}.items():
        if network.options.get(name) != value:
            raise UserError(f'{path} was trained with {name} = {network.options.get(name)}, but here it is {value:g}.')
    if NETWORKS.get(network.model) != family.config.network.name:
        raise UserError(f'{path} has the network {NETWORKS.get(network.model, network.model)}, but network.name is '
                        f'{family.config.network.name}.')  # fmt: skip
    found = {name.removeprefix('model.'): value for name, value in network.arrays.items()}
    return song.parameters(found, family.config.network, size, negative)


def _score_sde(path: pathlib.Path, family: Any) -> Arrays:
    """The averages in a checkpoint, which its authors evaluate."""
    _check_path(path, family, ('vp', 'subvp', 've'), 'noise')
    if family.config.network.name != 'ncsnpp':
        raise UserError(f'{path} has a network of score SDE, so network.name should be ncsnpp, not '
                        f'{family.config.network.name}.')  # fmt: skip
    held = {name.removeprefix('module.'): value for name, value in torch_file.read(path, ('model',)).items()}
    averages = list(torch_file.read(path, ('ema', 'shadow_params')).values())
    trained = [name for name in held if name not in _UNTRAINED]
    if [np.shape(one) for one in averages] != [np.shape(held[name]) for name in trained]:
        raise UserError(f'{path} has averages of other parameters than its model.')
    held |= dict(zip(trained, averages, strict=True))
    _check_levels(path, family, held.pop('sigmas', None))
    config, size = family.config.network, family.spec.shape[0]
    return song.parameters(song.renamed(held, config, size), config, size, family.schedule.name == 've')


def _check_levels(path: pathlib.Path, family: Any, sigmas: Any) -> None:
    """Compare what arrays' shapes do not show: the noise levels, and what is embedded of the time."""
    variance_exploding = family.schedule.name == 've'
    wanted = 'fourier' if variance_exploding else 'positional'
    if (embedding := family.config.network.embedding) != wanted:
        raise UserError(
            f'Networks on the path {family.schedule.name} need network.embedding={wanted}; it is {embedding}.'
        )
    if variance_exploding and sigmas is not None and np.size(sigmas):
        # Images are in [0, 1] there, and in [−1, 1] here.
        highest, here = 2 * float(np.max(sigmas)), float(family.schedule.sigma(family.schedule.t_max))
        if not np.isclose(highest, here, rtol=0.01):
            raise UserError(f'{path} was trained with noise up to {highest:g}, but the path here ends at {here:g}.')


def _check_path(path: pathlib.Path, family: Any, schedules: tuple[str, ...], prediction: str) -> None:
    name, predicted = getattr(family.path, 'name', ''), getattr(family, 'prediction', '')
    if name not in schedules or predicted != prediction:
        raise UserError(f'{path} was trained with family.schedule={" or ".join(schedules)} and family.prediction='
                        f'{prediction}; this config has {name or "none"} and {predicted or "none"}.')  # fmt: skip


READERS: dict[str, Callable[[pathlib.Path, Any], Arrays]] = {'.pkl': _edm, '.pth': _score_sde, '.pt': _score_sde}

"""Networks: they know images, times and conditions, and no family. `network.name` in a config picks one."""

from collections.abc import Callable, Mapping
from typing import Any, Protocol

from flax import nnx

from genbench.data.conditions import Form
from genbench.errors import UserError, did_you_mean
from genbench.networks import adm, autoencoder, couplings, dit, ncsnpp, resnet, unet
from genbench.ranges import Range

DEFAULTS: dict[str, dict[str, Any]] = {
    'unet': unet.DEFAULTS,
    'dit': dit.DEFAULTS,
    'ncsnpp': ncsnpp.DEFAULTS,
    'adm': adm.DEFAULTS,
    'autoencoder': autoencoder.DEFAULTS,
    'resnet': resnet.DEFAULTS,
    'couplings': couplings.DEFAULTS,
    'none': {},
}
RANGES: dict[str, Mapping[str, Range]] = {
    'unet': unet.RANGES,
    'dit': dit.RANGES,
    'ncsnpp': ncsnpp.RANGES,
    'adm': adm.RANGES,
    'autoencoder': autoencoder.RANGES,
    'resnet': resnet.RANGES,
    'couplings': couplings.RANGES,
}
# (size, channels, forms, …) → a network for square images
SQUARE: dict[str, Callable[..., nnx.Module]] = {'unet': unet.UNet, 'ncsnpp': ncsnpp.NCSNpp, 'adm': adm.ADM}
DENOISERS = (*SQUARE, 'dit')


def defaults(name: str) -> dict[str, Any]:
    """The keys of `config.network` for a network, with their defaults."""
    if name not in DEFAULTS:
        raise UserError(f'No network is called {name!r} (network.name). {did_you_mean(name, DEFAULTS)}')
    return {'name': name, **DEFAULTS[name]}


def ranges(name: str) -> Mapping[str, Range]:
    """What those keys may hold."""
    return RANGES.get(name, {})


class Shaped(Protocol):
    """What networks are built for: a data set, or a data space."""

    @property
    def name(self) -> str: ...

    @property
    def shape(self) -> tuple[int, int, int]: ...


def denoiser(
    config: Any,
    space: Shaped,
    forms: Mapping[str, Form],
    rngs: nnx.Rngs,
    *,
    second_time: bool = False,
    outputs: int = 1,
) -> nnx.Module:
    """A network (x_t, t, given) → array like x_t, with `outputs` times its channels.

    Args:
      second_time: the network may be called with `s=`, times (batch,) before t, and is built to see t − s.
    """
    options = {key: value for key, value in config.items() if key != 'name'}
    options |= {'second_time': second_time, 'outputs': outputs}
    if config.name in SQUARE:
        return SQUARE[config.name](square_size(config, space), space.shape[2], forms, rngs=rngs, **options)
    if config.name == 'dit':
        return dit.DiT(space.shape, forms, rngs=rngs, **options)
    raise UserError(f'network.name is {config.name!r}, which does not map noisy images to images; use '
                    f'{", ".join(DENOISERS[:-1])} or {DENOISERS[-1]}.')  # fmt: skip


def control(
    config: Any, space: Shaped, forms: Mapping[str, Form], pictures: Mapping[str, Form], rngs: nnx.Rngs
) -> unet.Control:
    """A network whose residuals steer a frozen `denoiser` of this config and these forms by further pictures.

    Raises:
      UserError: the denoiser has no skips for residuals to enter.
    """
    if config.name != 'unet':
        raise UserError(f'The base has the network {config.name}, which has no skips for a control to enter; use a run '
                        'with a unet.')  # fmt: skip
    options = {key: value for key, value in config.items() if key != 'name'}
    return unet.Control(square_size(config, space), space.shape[2], forms, pictures, rngs=rngs, **options)


def square_size(config: Any, space: Shaped) -> int:
    """Height of images that a network with one resolution for each of `config.multipliers` can halve.

    Raises:
      UserError: the images are not square, or cannot be halved so often.
    """
    height, width, _ = space.shape
    factor = 2 ** (len(config.multipliers) - 1)
    if height != width or height % factor:
        raise UserError(
            f'A network with {len(config.multipliers)} resolutions (network.multipliers) needs square images whose '
            f'height is divisible by {factor}, and these are {height}×{width} ({space.name}).'
        )
    return height

"""Networks. They take images, times and conditions, and know no family. `network.name` in a config selects one."""

import math
from collections.abc import Callable, Mapping
from typing import Any, Protocol

from flax import nnx

from genbench.data.conditions import Form
from genbench.errors import UserError, did_you_mean
from genbench.networks import (
    adm,
    autoencoder,
    couplings,
    dcgan,
    dit,
    edm2,
    flowpp,
    jet,
    made,
    maf,
    maxout,
    mlp,
    mmdit,
    modern_dit,
    ncsnpp,
    pixel_cnn,
    pixel_transformer,
    progressive,
    r3gan,
    real_nvp,
    residual_flow,
    resnet,
    sngan,
    stylegan2,
    stylegan3,
    tarflow,
    top_down,
    unet,
    vdm,
)
from genbench.networks.in_order import InOrder
from genbench.ranges import Range

_MODULES: tuple[Any, ...] = (
    unet, dit, mmdit, modern_dit, ncsnpp, adm, edm2, vdm, autoencoder, resnet, r3gan, dcgan, sngan, stylegan2,
    stylegan3, progressive, couplings, mlp, made, maf, maxout, real_nvp, tarflow, flowpp, residual_flow, jet, pixel_cnn,
    pixel_transformer, top_down,
)  # fmt: skip
_NAMED = {module.__name__.rpartition('.')[2]: module for module in _MODULES}
DEFAULTS: dict[str, dict[str, Any]] = {**{name: module.DEFAULTS for name, module in _NAMED.items()}, 'none': {}}
RANGES: dict[str, Mapping[str, Range]] = {name: module.RANGES for name, module in _NAMED.items()}
# (size, channels, forms, …) → a network for square images
SQUARE: dict[str, Callable[..., nnx.Module]] = {
    'unet': unet.UNet, 'ncsnpp': ncsnpp.NCSNpp, 'adm': adm.ADM, 'edm2': edm2.EDM2, 'vdm': vdm.VDM,
}  # fmt: skip
FLOWS: dict[str, Callable[..., nnx.Module]] = {
    'couplings': couplings.Flow, 'maf': maf.Flow, 'mlp': mlp.Flow, 'real_nvp': real_nvp.Flow,
    'tarflow': tarflow.Flow, 'flowpp': flowpp.Flow, 'residual_flow': residual_flow.Flow,
    'jet': jet.Flow,
}  # fmt: skip
DEQUANTISER_HEADS = 4
TRANSFORMERS: dict[str, Callable[..., nnx.Module]] = {  # (shape, forms, …) → a network
    'dit': dit.DiT, 'mmdit': mmdit.MMDiT, 'modern_dit': modern_dit.ModernDiT,
}  # fmt: skip
DENOISERS = (*SQUARE, *TRANSFORMERS, 'mlp')
# modules with Generator and Discriminator, and the keys GENERATOR and DISCRIMINATOR that only one of the two takes
ADVERSARIES: dict[str, Any] = {
    'resnet': resnet, 'r3gan': r3gan, 'dcgan': dcgan, 'sngan': sngan, 'stylegan2': stylegan2, 'stylegan3': stylegan3,
    'progressive': progressive,
}  # fmt: skip
STYLED = ('stylegan2', 'stylegan3')  # whose generators have styles
GROWING = ('progressive',)  # whose generators and discriminators grow with the images
MOVED = ('stylegan3',)  # whose generators take `transform`, for the scene that they show
NORMALISED = ('maxout', 'dcgan', 'sngan', 'stylegan3')  # whose generators take `training`, for statistics of the batch


def defaults(name: str) -> dict[str, Any]:
    """The keys of `config.network` for a network, with their defaults."""
    if name not in DEFAULTS:
        raise UserError(f'There is no network {name!r} (network.name). {did_you_mean(name, DEFAULTS)}')
    return {'name': name, **DEFAULTS[name]}


def ranges(name: str) -> Mapping[str, Range]:
    """The allowed values of those keys."""
    return RANGES.get(name, {})


class Shaped(Protocol):
    """What networks are built for: a data set or a data space."""

    @property
    def name(self) -> str: ...

    @property
    def shape(self) -> tuple[int, int, int]: ...


def _options(config: Any) -> dict[str, Any]:
    """The keys of a network's config that its module takes. The others choose a module, or its shape."""
    taken_here = ('name', 'time', 'decoder_hidden', 'initial', *(('latent',) if config.name == 'mlp' else ()))
    return {key: value for key, value in config.items() if key not in taken_here}


def _without(options: Mapping[str, Any], keys: tuple[str, ...]) -> dict[str, Any]:
    return {key: value for key, value in options.items() if key not in keys}


def _two(config: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    """The options of two perceptrons, of which the second is a decoder or a discriminator."""
    first = {**_options(config), 'initial': config.initial}
    return first, {**first, 'hidden': config.decoder_hidden or config.hidden}


def denoiser(
    config: Any,
    space: Shaped,
    forms: Mapping[str, Form],
    rngs: nnx.Rngs,
    *,
    second_time: bool = False,
    outputs: int = 1,
) -> nnx.Module:
    """A network (x_t, t, given) → array shaped like x_t, with `outputs` times its channels.

    Args:
      second_time: build the network to see t − s, so that it may be called with `s=`, times (batch,) before t.
    """
    options = {**_options(config), 'second_time': second_time, 'outputs': outputs}
    if config.name in SQUARE:
        return SQUARE[config.name](square_size(config, space), space.shape[2], forms, rngs=rngs, **options)
    if config.name in TRANSFORMERS:
        return TRANSFORMERS[config.name](space.shape, forms, rngs=rngs, **options)
    if config.name == 'mlp':
        mlp.check(config, 'a denoiser')
        kind: Any = {'sinusoids': mlp.Denoiser, 'input': mlp.TimeAsInput}[config.time]
        return kind(space.shape, forms, rngs=rngs, **options)
    raise UserError(f'network.name is {config.name!r}, which does not map noisy images to images; use '
                    f'{", ".join(DENOISERS[:-1])} or {DENOISERS[-1]}.')  # fmt: skip


def encoder_and_decoder(
    config: Any, space: Shaped, forms: Mapping[str, Form], rngs: nnx.Rngs, *,
    codes: int, latent: int, outputs: int, pictures: bool,
) -> dict[str, nnx.Module]:  # fmt: skip
    """'encoder', images → `codes` numbers, and 'decoder', `latent` numbers → `outputs` per pixel.

    Args:
      pictures: codes and latents are pictures with this many channels at the encoder's lowest resolution.

    Raises:
      UserError: the network is not an autoencoder, its codes cannot be pictures, or its attention has no place.
    """
    options = _options(config)
    if config.name == 'mlp':
        if pictures:
            raise UserError('Latents that are pictures need the resolutions of network.name=autoencoder; mlp has none.')
        mlp.check(config, 'an encoder and decoder')
        return {
            'encoder': mlp.Encoder(space.shape, codes, forms, rngs=rngs, **_two(config)[0]),
            'decoder': mlp.Decoder(space.shape, latent, outputs, forms, rngs=rngs, **_two(config)[1]),
        }
    if config.name != 'autoencoder':
        raise UserError(f'network.name is {config.name!r}, which does not encode and decode images; use autoencoder or '
                        'mlp.')  # fmt: skip
    size, options['pictures'] = square_size(config, space), pictures
    autoencoder.check_attention(size, options)
    seen = _without(options, ('decoder_blocks',))
    return {
        'encoder': autoencoder.Encoder(size, space.shape[2], codes, forms, rngs=rngs, **seen),
        'decoder': autoencoder.Decoder(size, latent, outputs, forms, rngs=rngs, **options),
    }


def hierarchy(
    config: Any, space: Shaped, forms: Mapping[str, Form], rngs: nnx.Rngs, *, outputs: int
) -> dict[str, nnx.Module]:
    """'encoder', images → features by resolution, and 'decoder', layers of latents → `outputs` per pixel.

    Raises:
      UserError: the network has no layers of latents, or its blocks do not fit the images.
    """
    if config.name != 'top_down':
        raise UserError(f'network.name is {config.name!r}, which has no layers of latents; use top_down.')
    options, size = _options(config), square_size(config, space)
    seen = {key: value for key, value in options.items() if key not in ('decoder', 'latent_channels')}
    return {
        'encoder': top_down.Encoder(size, space.shape[2], forms, rngs=rngs, **seen),
        'decoder': top_down.Decoder(size, outputs, forms, rngs=rngs, **options),
    }


def generator_and_discriminator(
    config: Any, space: Shaped, forms: Mapping[str, Form], rngs: nnx.Rngs, pack: int = 1
) -> dict[str, nnx.Module]:
    """'generator', `latent_size` numbers → images in [−1, 1], and 'discriminator', packs of images → logits.

    Args:
      pack: images in a pack, which follow each other as channels.
    """
    options = _options(config)
    size, packed = latent_size(config, space), (*space.shape[:2], pack * space.shape[2])
    if config.name == 'mlp':
        mlp.check(config, 'a generator')
        return {
            'generator': mlp.Generator(space.shape, size, forms, rngs=rngs, **_two(config)[0]),
            'discriminator': mlp.Discriminator(packed, forms, rngs=rngs, **_two(config)[1]),
        }
    if config.name == 'maxout':
        own = _without(options, ('latent', *maxout.DISCRIMINATOR))
        return {
            'generator': maxout.Generator(space.shape, size, forms, rngs=rngs, **own),
            'discriminator': maxout.Discriminator(packed, forms, rngs=rngs, **_without(options, maxout.GENERATOR)),
        }
    if config.name not in ADVERSARIES:
        raise UserError(f'network.name is {config.name!r}, which has no generator and discriminator; use '
                        f'{", ".join(ADVERSARIES)}, maxout or mlp.')  # fmt: skip
    side, kind = square_size(config, space), ADVERSARIES[config.name]
    if config.name == 'sngan':
        sngan.check_attention(side, options)
    first, second = (_without(options, keys) for keys in (kind.DISCRIMINATOR, kind.GENERATOR))
    return {
        'generator': kind.Generator(side, space.shape[2], forms, rngs=rngs, **first),
        'discriminator': kind.Discriminator(side, packed[2], forms, rngs=rngs, **second),
    }


def latent_size(config: Any, space: Shaped) -> int:
    """The number of dimensions of a generator's input. By default a perceptron has as many as its images."""
    return config.get('latent') or math.prod(space.shape)


def autoregressor(
    config: Any, space: Shaped, forms: Mapping[str, Form], rngs: nnx.Rngs, *, outputs: int, levels: int,
    depth: int = 0,
) -> InOrder:  # fmt: skip
    """A network images → `outputs` for each step, which see the steps before it.

    Args:
      levels: the number of levels of the images.
      depth: the channels of an image as real numbers; 0: those of its shape.

    Raises:
      UserError: the network has no ordering.
    """
    options = _options(config)
    if config.name == 'made':
        return made.MadeOfImages(math.prod(space.shape), outputs, forms, rngs=rngs, **options)
    if config.name == 'pixel_cnn':
        return pixel_cnn.PixelCNN((*space.shape[:2], depth or space.shape[2]), outputs, forms, rngs=rngs, **options)
    if config.name == 'pixel_transformer':
        return pixel_transformer.PixelTransformer(space.shape, outputs, levels, forms, rngs=rngs, **options)
    raise UserError(f'network.name is {config.name!r}, which has no ordering of pixels; use made, pixel_cnn or '
                    'pixel_transformer.')  # fmt: skip


def masked_predictor(
    config: Any, space: Shaped, forms: Mapping[str, Form], rngs: nnx.Rngs, *, levels: int
) -> pixel_transformer.MaskedTransformer:
    """A network (integers, which are hidden, given) → logits of the levels for each value.

    Raises:
      UserError: the network does not see values in all directions.
    """
    if config.name != 'pixel_transformer':
        raise UserError(f'network.name is {config.name!r}, which does not fill in masked values; use '
                        'pixel_transformer.')  # fmt: skip
    return pixel_transformer.MaskedTransformer(space.shape, levels, levels, forms, rngs=rngs, **_options(config))


def values_at_once(config: Any, space: Shaped) -> int:
    """The number of values of an image in one step of an `autoregressor`: one, or the channels of a pixel."""
    return space.shape[2] if config.name == 'pixel_cnn' else 1


def flow(config: Any, space: Shaped, forms: Mapping[str, Form], rngs: nnx.Rngs) -> Any:
    """An invertible network, images ↔ vectors: one of FLOWS, whose calls have the form of those to `couplings.Flow`.

    Raises:
      UserError: the network is not invertible, or it does not fit the images.
    """
    if config.name not in FLOWS:
        *others, last = FLOWS
        raise UserError(
            f'network.name is {config.name!r}, which cannot be inverted; use {", ".join(others)} or {last}.'
        )
    if config.name == 'mlp':
        mlp.check(config, 'an invertible network')
    return FLOWS[config.name](space.shape, forms, rngs=rngs, **_options(config))


def dequantiser(config: Any, space: Shaped, rngs: nnx.Rngs) -> flowpp.Dequantiser:
    """A network (images, noise) → places of the pixels in their bins and their log-density, of the section `family`.

    Raises:
      UserError: the heads of its attention do not divide its channels.
    """
    if config.dequantiser_channels % DEQUANTISER_HEADS:
        raise UserError(f'family.dequantiser_channels is {config.dequantiser_channels}; it should be divisible by '
                        f'{DEQUANTISER_HEADS}.')  # fmt: skip
    return flowpp.Dequantiser(
        space.shape, channels=config.dequantiser_channels, blocks=config.dequantiser_blocks,
        components=config.dequantiser_components, heads=DEQUANTISER_HEADS, rngs=rngs,
    )  # fmt: skip


def inversion(config: Any, space: Shaped) -> int:
    """The number of network evaluations that the inverse of a `flow` takes, for each of its layers."""
    if config.name == 'residual_flow':
        return config.inverse_steps
    return maf.inversion(config, math.prod(space.shape)) if config.name == 'maf' else 1


def estimated(config: Any, space: Shaped) -> dict[str, Any]:
    """How a `flow` estimates its log-determinants in evaluation, for the protocol; {} if it computes them."""
    return residual_flow.estimated(config, space.shape) if config.name == 'residual_flow' else {}


def control(
    config: Any, space: Shaped, forms: Mapping[str, Form], pictures: Mapping[str, Form], rngs: nnx.Rngs,
    blocks: int = 0,
) -> unet.Control | dit.Control:  # fmt: skip
    """A network that steers a frozen `denoiser` of this config and these forms by further pictures, through residuals.

    Args:
      blocks: how many blocks of a transformer are copied; 0 stands for (depth − 1) // 2, which is PixArt-δ's 13 of 28.

    Raises:
      UserError: the denoiser takes no residuals, or it has fewer blocks.
    """
    options = _options(config)
    if config.name == 'dit':
        if blocks > config.depth:
            raise UserError(f'family.control_blocks is {blocks}, but the base has {config.depth} blocks; use at most '
                            f'{config.depth}.')  # fmt: skip
        options['depth'] = blocks or max(1, (config.depth - 1) // 2)
        return dit.Control(space.shape, forms, pictures, rngs=rngs, **options)
    if config.name != 'unet':
        raise UserError(f'The base has the network {config.name}, but a control adds residuals to a unet or a dit; use '
                        'a run with one of these.')  # fmt: skip
    if blocks:
        raise UserError('family.control_blocks counts blocks of a dit, but the base has a unet; leave it out.')
    return unet.Control(square_size(config, space), space.shape[2], forms, pictures, rngs=rngs, **options)


def noisy_classifier(config: Any, space: Shaped, classes: int, rngs: nnx.Rngs) -> unet.Classifier:
    """A network (x_t, t) → logits (batch, classes), of the size of a `denoiser` of this config.

    Raises:
      UserError: there is no classifier of this kind of network.
    """
    if config.name != 'unet':
        raise UserError(f'network.name is {config.name!r}, but a classifier of noisy images is half of a U-Net; use '
                        'unet.')  # fmt: skip
    return unet.Classifier(square_size(config, space), space.shape[2], classes, rngs=rngs, **_options(config))


def square_size(config: Any, space: Shaped) -> int:
    """The height of the images, for a network with one resolution per entry of `config.multipliers`.

    Raises:
      UserError: the images are not square, or they cannot be halved that often.
    """
    height, width, _ = space.shape
    resolutions = len(config.get('multipliers', (1,)))
    factor = 2 ** (resolutions - 1)
    if height != width or height % factor:
        raise UserError(
            f'A network with {resolutions} resolutions (network.multipliers) needs square images whose '
            f'height is divisible by {factor}, but these are {height}×{width} ({space.name}).'
        )
    return height

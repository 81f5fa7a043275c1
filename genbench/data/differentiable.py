"""Differentiable augmentations of the images that discriminators see, real and fake alike.

T. Karras et al., Training Generative Adversarial Networks with Limited Data, 2020, appendix B ('bgc': pixel blitting,
geometry, colour; with 'cutout'). Each change has probability p. As long as p is clearly below 1, a generator whose
augmented images are distributed like augmented real ones has to make real ones (their section 2.2).

S. Zhao et al., Differentiable Augmentation for Data-Efficient GAN Training, 2020 ('diffaugment': colour, translation,
cutout), which always makes its changes.

Differs from the first paper: values between pixels are interpolated bilinearly, where the paper filters by a wavelet
between two resamplings, and pictures continue by reflection without end.
"""

import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax.scipy.ndimage import map_coordinates

from genbench import rng

Array = jax.Array
Augment = Callable[[Array, Array, Array], Array]  # x (batch, height, width, channels), keys (batch,), p → like x


def _some(keys: Array, name: str, p: Array, drawn: Array, otherwise: float) -> Array:
    """`drawn` (batch, …) with probability p for each image, and `otherwise` for the rest."""
    chosen = rng.uniform(keys, f'whether {name}') < p
    return jnp.where(chosen.reshape(-1, *(1,) * (drawn.ndim - 1)), drawn, otherwise)


def _matrices(*rows: tuple[Array | float, Array | float, Array | float]) -> Array:
    """Two rows of numbers, or of one number per image → homogeneous matrices (batch, 3, 3)."""
    one = next(value for row in rows for value in row if isinstance(value, jax.Array))
    full = (*rows, (0.0, 0.0, 1.0))
    return jnp.stack([jnp.stack([jnp.broadcast_to(value, one.shape) for value in row], -1) for row in full], -2)


def _turned(angle: Array) -> Array:
    return _matrices((jnp.cos(angle), -jnp.sin(angle), 0.0), (jnp.sin(angle), jnp.cos(angle), 0.0))


def _scaled(right: Array, down: Array) -> Array:
    return _matrices((right, 0.0, 0.0), (0.0, down, 0.0))


def _moved(right: Array, down: Array) -> Array:
    return _matrices((1.0, 0.0, right), (0.0, 1.0, down))


def places(keys: Array, p: Array, height: int, width: int) -> Array:
    """Matrices (batch, 3, 3) from the places (right, down, 1) of an augmented image to those that it shows.

    Places count from the centre, in pixels. The changes and their order are those of the paper's figure 3 of appendix
    B: mirroring, quarter turns, whole shifts, scaling, rotation before and after stretching, fractional shifts.
    """

    def some(name: str, drawn: Array, otherwise: float = 0.0, chance: Array = p) -> Array:
        return _some(keys, name, chance, drawn, otherwise)

    flip = some('mirror', jnp.where(rng.uniform(keys, 'mirror') < 0.5, -1.0, 1.0), 1.0)
    quarter = some('quarter turns', jnp.floor(4 * rng.uniform(keys, 'quarter turns')))
    whole = some('whole shift', (2 * rng.uniform(keys, 'whole shift', (2,)) - 1) / 8)
    scale = some('scale', 2 ** (0.2 * rng.normal(keys, 'scale')), 1.0)
    either = 1 - jnp.sqrt(1 - p)  # of two rotations, so that one of them happens with probability p
    before, after = (
        some(name, jnp.pi * (2 * rng.uniform(keys, name) - 1), 0.0, either) for name in ('first turn', 'second turn')
    )
    stretch = some('stretch', 2 ** (0.2 * rng.normal(keys, 'stretch')), 1.0)
    shift = some('shift', rng.normal(keys, 'shift', (2,)) / 8)
    back = (
        _scaled(flip, jnp.ones_like(flip)),
        _turned(jnp.pi / 2 * quarter),
        _moved(-jnp.round(whole[:, 0] * width), -jnp.round(whole[:, 1] * height)),
        _scaled(1 / scale, 1 / scale),
        _turned(before),
        _scaled(1 / stretch, stretch),
        _turned(after),
        _moved(-shift[:, 0] * width, -shift[:, 1] * height),
    )
    total = back[0]
    for matrix in back[1:]:
        total = jnp.matmul(total, matrix, precision='highest')
    return total


def warped(x: Array, matrices: Array) -> Array:
    """The images that show the places of `places`, bilinearly."""
    height, width = x.shape[1:3]
    down, right = jnp.meshgrid(
        jnp.arange(height) - (height - 1) / 2, jnp.arange(width) - (width - 1) / 2, indexing='ij'
    )

    def one(image: Array, matrix: Array) -> Array:
        columns = matrix[0, 0] * right + matrix[0, 1] * down + matrix[0, 2] + (width - 1) / 2
        rows = matrix[1, 0] * right + matrix[1, 1] * down + matrix[1, 2] + (height - 1) / 2
        sample = lambda channel: map_coordinates(channel, [rows, columns], order=1, mode='mirror')  # noqa: E731
        return jax.vmap(sample, -1, -1)(image)

    return jax.vmap(one)(x, matrices)


def coloured(x: Array, keys: Array, p: Array) -> Array:
    """Brightness, contrast, a flip of luma, hue and saturation, each with probability p.

    Luma is the mean of the channels. Hues turn only where there are three channels.
    """

    def some(name: str, drawn: Array, otherwise: float) -> Array:
        return _some(keys, name, p, drawn, otherwise)[:, None, None, None]

    x = x + some('brightness', 0.2 * rng.normal(keys, 'brightness'), 0.0)
    x = x * some('contrast', 2 ** (0.5 * rng.normal(keys, 'contrast')), 1.0)
    flip = some('luma', jnp.floor(2 * rng.uniform(keys, 'luma')), 0.0)
    x = x - 2 * flip * x.mean(-1, keepdims=True)
    if x.shape[-1] == 3:
        angle = some('hue', jnp.pi * (2 * rng.uniform(keys, 'hue') - 1), 0.0)
        across = (jnp.roll(x, 1, -1) - jnp.roll(x, -1, -1)) / math.sqrt(3)  # the cross product with the grey axis
        grey = x.mean(-1, keepdims=True)
        x = grey + (x - grey) * jnp.cos(angle) + across * jnp.sin(angle)
    if x.shape[-1] > 1:
        grey = x.mean(-1, keepdims=True)
        x = grey + (x - grey) * some('saturation', 2 ** rng.normal(keys, 'saturation'), 1.0)
    return x


def cut(x: Array, keys: Array, p: Array | float) -> Array:
    """Zeros in a rectangle of half the height and width, with probability p; its centre may be anywhere."""
    height, width = x.shape[1:3]
    size = _some(keys, 'cutout', jnp.asarray(p), jnp.full(len(x), 0.5), 0.0)[:, None]
    centre = rng.uniform(keys, 'cutout', (2,))
    rows, columns = (
        jnp.abs((jnp.arange(side) + 0.5) / side - centre[:, axis : axis + 1]) < size / 2
        for axis, side in ((0, height), (1, width))
    )
    return jnp.where((rows[:, :, None] & columns[:, None])[..., None], 0.0, x)


def bgc(x: Array, keys: Array, p: Array) -> Array:
    """Karras et al.'s changes of geometry and colour. At p = 0 images stay as they are."""
    moved = warped(x, places(keys, p, *x.shape[1:3]))
    return coloured(moved, keys, p)


def bgc_cutout(x: Array, keys: Array, p: Array) -> Array:
    """R3GAN's: as `bgc`, with half the probability for colours, and a cutout (Huang et al. 2024, in their code)."""
    moved = warped(x, places(keys, p, *x.shape[1:3]))
    return cut(coloured(moved, keys, p / 2), keys, p)


def diffaugment(x: Array, keys: Array, p: Array) -> Array:
    """Zhao et al.'s colour, translation and cutout, always. As in their code, translation shifts in zeros."""
    uniform = lambda name: rng.uniform(keys, name)[:, None, None, None]  # noqa: E731
    x = x + uniform('brightness') - 0.5
    grey = x.mean(-1, keepdims=True)
    x = grey + (x - grey) * 2 * uniform('saturation')
    whole = x.mean((1, 2, 3), keepdims=True)
    x = whole + (x - whole) * (uniform('contrast') + 0.5)
    most = [(side + 4) // 8 for side in x.shape[1:3]]  # an eighth, and halves upwards
    padded = jnp.pad(x, ((0, 0), (most[0], most[0]), (most[1], most[1]), (0, 0)))
    starts = jnp.stack([rng.integers(keys, f'shift {axis}', 0, 2 * most[axis] + 1) for axis in (0, 1)], -1)
    crop = lambda image, start: jax.lax.dynamic_slice(image, (*start, 0), x.shape[1:])  # noqa: E731
    return cut(jax.vmap(crop)(padded, starts), keys, 1.0)


AUGMENTATIONS: dict[str, Augment] = {'bgc': bgc, 'bgc_cutout': bgc_cutout, 'diffaugment': diffaugment}
ALWAYS = ('diffaugment',)  # these take no probability

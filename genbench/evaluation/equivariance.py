"""Equivariance: how well a model's image of a moved scene agrees with its moved image (T. Karras et al., Alias-Free
Generative Adversarial Networks, 2021, appendix E).

EQ-T moves scenes by whole pixels, EQ-T_frac by fractions of them, and EQ-R turns them. Each is a ratio of peak signal
to noise in dB, 10 log₁₀ (2² / E (difference)²), over the pixels that the moved image determines.

An image stands for a sum of sinc functions. Shifting it by a fraction of a pixel takes a Lanczos window of three lobes
(E.2). Turning it takes a filter that lets pass what both grids can hold, the original one and the turned one. The
other side, which was made turned, is filtered likewise (E.3).
"""

import dataclasses
import functools
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np
from scipy import fft, ndimage

from genbench import rng
from genbench.data import conditions
from genbench.data.conditions import Given
from genbench.errors import UserError
from genbench.families.base import Family, Sampler
from genbench.training import processes, sampling
from genbench.training.state import Blueprint, State

if TYPE_CHECKING:
    from genbench.evaluation.harness import Weights

LOBES = 3  # of Lanczos windows
REACH = 2 * LOBES  # pixels from which a turned pixel takes its value, in each direction
UP = 4  # samples per pixel of an image that is to be turned; between them, interpolation is linear
SHIFT, ANGLE = 1 / 8, np.pi  # greatest moves, in heights of the image and in radians
GROUP = 16  # consecutive images that are moved in the same way
PROTOCOL = {
    'shift': 'up to 1/8 of the image', 'angle': 'any', 'images': 'neither rounded nor clipped', 'group': GROUP
}  # fmt: skip

Array = jax.Array
Moved = tuple[np.ndarray, np.ndarray]  # images (n, height, width, channels) and which pixels are known (height, width)


def score(weights: 'Weights') -> None:
    """Add the rows that are asked for, for each sampler of these parameters."""
    one, options = weights.evaluation, weights.options
    groups = -(-options.equivariance.num_images // GROUP)
    for cell in (cell for cell in one.cells if cell.average == weights.chosen):
        drawn = one.sampling_protocol(cell, weights.average)
        kept = {key: value for key, value in drawn.items() if key not in ('num_samples', 'sets')}
        protocol = {**PROTOCOL, 'num_images': groups * GROUP, **kept}
        wanted = [name for name in METRICS if name in options.metrics and not one.has(name, protocol)]
        for name in wanted if processes.agreed(wanted) else ():
            own = measure(
                weights.blueprint, weights.state, cell.sampler, MOVES[name], one.given(0, groups * GROUP, cell.seed),
                span=processes.part(0, groups), seed=cell.seed, batch_size=options.batch_size,
            )  # fmt: skip
            value, error = decibels(processes.gathered(own))
            row = {'std_err': error, 'kind': 'score', 'n': groups * GROUP, 'split': 'train', 'nfe': drawn['nfe'],
                   'sampler': cell.sampler.name, 'seed': cell.seed}  # fmt: skip
            processes.first_does(functools.partial(one.add, name, value, protocol=protocol, **row))


@dataclasses.dataclass(frozen=True)
class Move:
    """A kind of movement.

    Attributes:
      draw: (generator of random numbers, height) → the movement, an array.
      transform: the movement → (3, 3), points of the moved image → points of the scene.
      image: (images, movement) → these images, moved.
      made: (images that were made moved, movement) → what is compared with that.
      least: the smallest height of images that a movement leaves pixels of.
    """

    draw: Callable[[np.random.Generator, int], np.ndarray]
    transform: Callable[[np.ndarray], np.ndarray]
    image: Callable[[np.ndarray, np.ndarray], Moved]
    made: Callable[[np.ndarray, np.ndarray], Moved]
    least: int


def check(family: Family, *_: Any) -> None:
    """Raise a UserError if no model of this family has scenes that can be moved."""
    if type(family).moved is Family.moved:
        raise _unmoved(family)


def _unmoved(family: Family) -> UserError:
    return UserError(f'{family.name} has no scenes that could be moved with this network; remove {", ".join(METRICS)} '
                     'from evaluation.metrics.')  # fmt: skip


def measure(
    blueprint: Blueprint, state: State, sampler: Sampler, move: Move, given: Given, *,
    span: tuple[int, int], seed: int, batch_size: int,
) -> np.ndarray:  # fmt: skip
    """Sums over the known pixels of a span of groups, (groups, 2): of squared differences, and the number of pixels.

    Raises:
      UserError: the family's scenes cannot be moved, or images are too small for this movement.
    """
    family, (height, *_) = blueprint.family, blueprint.family.spec.shape
    if height < move.least:
        raise UserError(f'Images of {height} pixels have none left in the middle for this movement, which needs '
                        f'{move.least}; leave out some of {", ".join(METRICS)} from evaluation.metrics.')  # fmt: skip

    @jax.jit
    def both(state: State, keys: Array, given: Given, transform: Array) -> tuple[Array, Array]:
        networks, latents = blueprint.bind_state(state), family.latents(rng.named(keys, 'scene'), sampler)
        rest = jnp.broadcast_to(jnp.eye(3), transform.shape)
        found = [family.moved(networks, latents, keys, given, sampler, each) for each in (rest, transform)]
        if found[0] is None or found[1] is None:
            raise _unmoved(family)
        return found[0], found[1]

    size = sampling.whole_batches(GROUP * max(1, batch_size // GROUP))
    sums = []
    for start in range(GROUP * span[0], GROUP * span[1], size):
        drawn = [move.draw(np.random.default_rng([seed % 2**64, first]), height) for first in
                 range(start, start + size, GROUP)]  # fmt: skip
        transform = np.repeat([move.transform(one) for one in drawn], GROUP, axis=0)[:size].astype(np.float32)
        keys = sampling.image_keys(family, 'equivariance', seed, start, size)
        batch = sampling.split_over_devices((keys, conditions.cut(given, start, start + size), transform))
        still, made = (np.asarray(images, np.float64) for images in both(state, *batch))
        for index, one in enumerate(drawn):
            group = slice(GROUP * index, GROUP * (index + 1))
            sums.append(difference(move.image(still[group], one), move.made(made[group], one)))
    return np.array(sums).reshape(-1, 2)[: span[1] - span[0]]


def difference(one: Moved, other: Moved) -> tuple[float, float]:
    """The sum of squared differences of pixels known in both, and the number of such values."""
    known = (one[1] & other[1])[:, :, None]
    squares = np.square(one[0] - other[0]) * known
    return float(squares.sum()), float(np.broadcast_to(known, squares.shape).sum())


def decibels(sums: np.ndarray) -> tuple[float, float | None]:
    """The ratio of peak signal to noise of sums (groups, 2) in dB, and its standard error over groups."""
    squares, counts = sums.T
    mean = max(squares.sum() / counts.sum(), 1e-20)
    value = float(10 * np.log10(4 / mean))
    if len(sums) < 2:
        return value, None
    error = np.sqrt(np.square(squares - mean * counts).sum() * len(sums) / (len(sums) - 1)) / counts.sum()
    return value, float(10 / np.log(10) * error / mean)


def shifted(images: np.ndarray, shift: np.ndarray) -> Moved:
    """Images moved to the right and down by `shift`, in heights."""
    pixels = images.shape[1] * shift
    (columns, inside), (rows, above) = (along(*pair) for pair in zip(images.shape[2:0:-1], pixels, strict=True))
    return np.einsum('ip,jq,npqc->nijc', rows, columns, images, optimize=True), above[:, None] & inside


def along(size: int, shift: float) -> tuple[np.ndarray, np.ndarray]:
    """The matrix (size, size) that shifts a line, and which of the shifted pixels lie between known ones."""
    place = np.arange(size)[:, None] - shift - np.arange(-REACH - size, 2 * size + REACH)
    taps = np.sinc(place) * window(place)
    taps[np.abs(taps) < 1e-9] = 0  # a shift by whole pixels needs one pixel alone
    taps /= taps.sum(1, keepdims=True)
    kept = slice(REACH + size, REACH + 2 * size)
    return taps[:, kept], np.abs(taps).sum(1) - np.abs(taps[:, kept]).sum(1) < 1e-9


def window(place: np.ndarray) -> np.ndarray:
    """The Lanczos window of places in pixels."""
    return np.where(np.abs(place) < LOBES, np.sinc(place / LOBES), 0)


def turn(angle: float) -> np.ndarray:
    """The matrix (2, 2) of a turn of points from x to y."""
    return np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])


@functools.lru_cache(maxsize=4)
def both_bands(angle: float, up: int) -> np.ndarray:
    """The filter (2 · REACH · up − 1, same) that keeps what a grid and the grid turned by `angle` can both hold.

    Two sinc filters are convolved, and so are two Lanczos windows, which multiply them (E.3). Rows are y. The taps of
    each of the up² interleaved filters sum to 1, so `up` samples per pixel need no further factor.
    """
    wide = 64 * up  # far enough for the tails of a sinc
    place = (np.arange(2 * wide) - wide) / up
    one = np.stack(np.meshgrid(place, place), -1)
    other = one @ turn(angle)  # coordinates along the axes of the turned grid
    sincs, windows = ([kind(grid[..., 0]) * kind(grid[..., 1]) for grid in (one, other)] for kind in (np.sinc, window))
    convolved = [fft.fftshift(fft.irfft2(np.prod([fft.rfft2(fft.ifftshift(part)) for part in pair], axis=0)))
                 for pair in (sincs, windows)]  # fmt: skip
    taps = np.prod(convolved, axis=0)[wide - REACH * up : wide + REACH * up, wide - REACH * up : wide + REACH * up]
    phases = taps.reshape(2 * REACH, up, 2 * REACH, up)
    return (phases / phases.sum((0, 2), keepdims=True)).reshape(taps.shape)[1:, 1:]


def turned(images: np.ndarray, angle: np.ndarray) -> Moved:
    """Images whose point x shows what their point turn(angle) x showed."""
    count, height, width, channels = images.shape
    taps = both_bands(float(angle), UP)
    fine = np.zeros((count, height * UP, width * UP, channels))
    fine[:, ::UP, ::UP] = images
    fine = _filtered(fine, taps)
    middle = (np.array([width, height]) - 1) / 2
    points = np.stack(np.meshgrid(np.arange(width), np.arange(height)), -1) - middle
    x, y = np.moveaxis(points @ turn(float(angle)).T + middle, -1, 0)
    rows = [ndimage.map_coordinates(part, [y * UP, x * UP], order=1, mode='constant') for part in
            np.moveaxis(fine, 3, 1).reshape(-1, height * UP, width * UP)]  # fmt: skip
    nearest = [(np.rint(UP * line) + UP // 2, length) for line, length in ((x, width), (y, height))]
    known = np.all([(place >= UP * REACH) & (place < UP * (length - REACH)) for place, length in nearest], axis=0)
    return np.moveaxis(np.reshape(rows, (count, channels, height, width)), 1, 3), known


def as_if_turned(images: np.ndarray, angle: np.ndarray) -> Moved:
    """Images that were made turned, with the filter of `turned` but without a turn."""
    known = np.zeros(images.shape[1:3], bool)
    known[REACH - 1 : -REACH + 1, REACH - 1 : -REACH + 1] = True
    return _filtered(images, both_bands(-float(angle), 1)), known


def _filtered(images: np.ndarray, taps: np.ndarray) -> np.ndarray:
    """Images filtered along height and width, with zeros around them."""
    size = [fft.next_fast_len(length + len(taps) - 1, real=True) for length in images.shape[1:3]]
    spectrum = fft.rfft2(images, size, axes=(1, 2)) * fft.rfft2(taps, size)[None, :, :, None]
    start = len(taps) // 2
    found = fft.irfft2(spectrum, size, axes=(1, 2))
    return found[:, start : start + images.shape[1], start : start + images.shape[2]]


def _as_made(images: np.ndarray, _: np.ndarray) -> Moved:
    return images, np.ones(images.shape[1:3], bool)


def _shift_back(shift: np.ndarray) -> np.ndarray:
    return np.array([[1, 0, -shift[0]], [0, 1, -shift[1]], [0, 0, 1]])


def _turn(angle: np.ndarray) -> np.ndarray:
    return np.block([[turn(float(angle)), np.zeros((2, 1))], [np.zeros((1, 2)), 1]])


FRACTIONS = Move(lambda draw, _: SHIFT * draw.uniform(-1, 1, 2), _shift_back, shifted, _as_made, 8)
MOVES: Mapping[str, Move] = {
    'eq_t': dataclasses.replace(
        FRACTIONS, draw=lambda draw, height: np.round(height * SHIFT * draw.uniform(-1, 1, 2)) / height
    ),
    'eq_t_frac': FRACTIONS,
    'eq_r': Move(lambda draw, _: ANGLE * draw.uniform(-1, 1, ()), _turn, turned, as_if_turned, 2 * REACH + 4),
}
METRICS = tuple(MOVES)

"""Nonlinearities that do not alias: low-pass filters and changes of the sampling rate.

T. Karras et al., Alias-Free Generative Adversarial Networks, 2021 (StyleGAN3), sections 2 and 3.2, appendix C.
Frequencies and rates are per image, whose height and width are 1. Filters act along lines as matrices, like those of
`resampled`. A radial filter is a short sum of filters along lines, from its singular value decomposition.
"""

import dataclasses
import functools
import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from scipy import special

from genbench.errors import UserError
from genbench.networks import resampled

Array = jax.Array
TAPS = 6  # of a filter, for each sample at the lower of its two rates
FIRST_STOPBAND, LAST_STOPBAND = 2**1.1, 2**0.3  # least stopbands f_t of the first and last layers, in units of f_c


@dataclasses.dataclass(frozen=True)
class Signal:
    """What a layer's picture can hold.

    Attributes:
      cutoff: f_c, the highest frequency that filters keep.
      half_width: f_h, half of the width of the band in which filters fall off.
      rate: s, the number of samples per unit length.
      size: the number of samples along a line, with those beyond the edges of the image.
    """

    cutoff: float
    half_width: float
    rate: int
    size: int


def signals(size: int, count: int, critical: int, first_cutoff: float, margin: int) -> list[Signal]:
    """The signals after each of `count` layers and the output layer (section 3.2).

    Cutoffs and stopbands grow geometrically and stop growing for the last `critical` layers, whose cutoff is half of
    the images' rate.

    Raises:
      UserError: `size` is no power of 2, or there are no layers before the critical ones.
    """
    if size & (size - 1):
        raise UserError(f'network.name=stylegan3 needs images whose height is a power of 2, but it is {size}.')
    if count <= critical:
        raise UserError(f'network.layers is {count}; it should be above network.critical, which is {critical}.')
    if not first_cutoff < size / 2:
        raise UserError(f'network.first_cutoff is {first_cutoff:g}; it should be below {size // 2}, half of the '
                        "images' height.")  # fmt: skip
    share = np.minimum(np.arange(count + 1) / (count - critical), 1)
    cutoffs = first_cutoff * (size / 2 / first_cutoff) ** share
    ends = first_cutoff * FIRST_STOPBAND, size / 2 * LAST_STOPBAND
    stopbands = ends[0] * (ends[1] / ends[0]) ** share
    rates = np.exp2(np.ceil(np.log2(np.minimum(2 * stopbands, size))))
    widths = np.maximum(stopbands, rates / 2) - cutoffs
    sizes = np.where(np.arange(count + 1) < count - 1, rates + 2 * margin, size)
    return [
        Signal(float(c), float(w), int(r), int(s)) for c, w, r, s in zip(cutoffs, widths, rates, sizes, strict=True)
    ]


def kaiser(taps: int, width: float, rate: float) -> np.ndarray:
    """The Kaiser window (taps,) for a transition band of this width (appendix C.1, equations 5 and 6)."""
    attenuation = 2.285 * (taps - 1) * math.pi * width / (rate / 2) + 7.95
    if attenuation > 50:
        beta = 0.1102 * (attenuation - 8.7)
    else:
        excess = max(attenuation - 21, 0)
        beta = 0.5842 * excess**0.4 + 0.07886 * excess
    return np.kaiser(taps, beta)


def lowpass(taps: int, cutoff: float, width: float, rate: float) -> np.ndarray:
    """A sinc filter (taps,) in a Kaiser window, with sum 1."""
    place = (np.arange(taps) - (taps - 1) / 2) / rate
    found = np.sinc(2 * cutoff * place) * kaiser(taps, width, rate)
    return found / found.sum()


def radial(taps: int, cutoff: float, width: float, rate: float) -> np.ndarray:
    """A jinc filter (taps, taps) in a Kaiser window along both axes, with sum 1 (appendix C.2). `taps` is even."""
    place = (np.arange(taps) - (taps - 1) / 2) / rate
    distance, window = np.hypot(place[:, None], place), kaiser(taps, width, rate)
    found = special.j1(2 * np.pi * cutoff * distance) / distance * np.outer(window, window)
    return found / found.sum()


@dataclasses.dataclass(frozen=True)
class Change:
    """From one signal to another, through twice the higher of their rates, where a nonlinearity acts.

    Attributes:
      grown: how much longer lines are than those of `before`, because of a convolution that keeps partial overlaps.
      radial: whether the filter of the nonlinearity's result is radial.
    """

    before: Signal
    after: Signal
    grown: int = 0
    radial: bool = False

    @property
    def rate(self) -> int:
        """The rate at which the nonlinearity acts."""
        return 2 * max(self.before.rate, self.after.rate)

    @functools.cached_property
    def up(self) -> np.ndarray:
        """The matrix of lines at the higher rate from lines of `before`.

        Samples stay in place: the centres of the first and last line of samples of `after` lie at equal distances from
        the ends of those of `before`.
        """
        times, down = self.rate // self.before.rate, self.rate // self.after.rate
        taps = lowpass(TAPS * times, self.before.cutoff, 2 * self.before.half_width, self.rate)
        inputs, wanted = self.before.size + self.grown, (self.after.size - 1) * down + TAPS * down
        padding = wanted + len(taps) - 1 - inputs * times
        place = np.arange(inputs) * times + (padding + times) // 2 - np.arange(wanted)[:, None]
        return times * np.where((place >= 0) & (place < len(taps)), taps[place.clip(0, len(taps) - 1)], 0)

    @functools.cached_property
    def down(self) -> tuple[np.ndarray, np.ndarray]:
        """The matrices (terms, size of `after`, size at the higher rate) of rows and columns back at the lower rate."""
        times = self.rate // self.after.rate
        options = TAPS * times, self.after.cutoff, 2 * self.after.half_width, self.rate
        if self.radial:
            left, values, right = np.linalg.svd(radial(*options))
            kept = values > 1e-7 * values[0]
            filters = (left.T[kept] * values[kept, None], right[kept])
        else:
            filters = (lowpass(*options)[None],) * 2
        place = np.arange(len(self.up)) - times * np.arange(self.after.size)[:, None]
        inside, place = (place >= 0) & (place < options[0]), place.clip(0, options[0] - 1)
        rows, columns = (np.where(inside, taps[:, place], 0) for taps in filters)
        return rows, columns

    def __call__(self, x: Array, act: Callable[[Array], Array]) -> Array:
        """x (batch, height, width, channels) of `before`, and grown → a picture of `after`."""
        x = act(resampled.on_lines(x, self.up, self.up))
        return sum((resampled.on_lines(x, *pair) for pair in zip(*self.down, strict=True)), jnp.zeros((), x.dtype))

"""Watermarks in the noise that sampling starts from, and tests for them in the noise that inversion finds.

- `TreeRing` sets the noise's low spatial frequencies to a pattern that is constant on rings (Y. Wen, J. Kirchenbauer,
  J. Geiping, T. Goldstein, Tree-Ring Watermarks: Fingerprints for Diffusion Images that are Invisible and Robust,
  2023).
- `GaussianShading` chooses the half of the normal distribution that each value comes from by a bit of a message that a
  pad has made random (Z. Yang et al., Gaussian Shading: Provable Performance-Lossless Image Watermarking for Diffusion
  Models, 2024, with l = 1).

Noise is an array (n, height, width, channels) of N(0, 1). All secrets are derived from one text by SHAKE-256.
"""

import dataclasses
import functools
import hashlib
import math
from collections.abc import Iterator
from typing import ClassVar, NamedTuple

import numpy as np
from scipy import special

from genbench.errors import UserError

Shape = tuple[int, int, int]  # height, width, channels
RADIUS = 10 / 64  # of the paper's rings, as a share of the side
BITS = 256  # of the paper's message
MOST = 2**28  # signs of all pads together; detection holds them in memory, 1 GiB


class Tested(NamedTuple):
    """How much each tested noise (n,) looks marked.

    Attributes:
      score: larger for noise that is more surely marked.
      p_value: the probability that unmarked noise scores as high.
      more: further numbers of each noise by name, (n, …).
    """

    score: np.ndarray
    p_value: np.ndarray
    more: dict[str, np.ndarray]


def stream(secret: str, purpose: str, count: int) -> np.ndarray:
    """`count` random bits of a secret for one purpose."""
    told = hashlib.shake_256(f'{purpose}\0{secret}'.encode()).digest(-(-count // 8))
    return np.unpackbits(np.frombuffer(told, np.uint8))[:count]


def _generator(secret: str, purpose: str) -> np.random.Generator:
    return np.random.Generator(np.random.Philox(int.from_bytes(np.packbits(stream(secret, purpose, 128)).tobytes())))


@dataclasses.dataclass(frozen=True)
class TreeRing:
    """A pattern in the Fourier transform of the noise, with frequencies in periods per picture.

    Noise is real, so that a frequency and its opposite have conjugate coefficients. A pattern that is constant on rings
    is therefore real. Its values are normal, and scaled to the mean energy of the coefficients that they replace.

    Attributes:
      radius: the largest frequency of the pattern, at most `widest(shape)`; 0 chooses the paper's share of the side,
        but at least 2.
    """

    shape: Shape
    secret: str
    radius: int = 0

    name: ClassVar[str] = 'tree_ring'
    settings: ClassVar[tuple[str, ...]] = ('radius',)

    def __post_init__(self) -> None:
        most = self.widest(self.shape)
        object.__setattr__(self, 'radius', self.radius or min(max(2, round(RADIUS * min(self.shape[:2]))), most))
        if not 1 <= self.radius <= most:
            size = '×'.join(map(str, self.shape[:2]))
            raise UserError(f'The radius is {self.radius}; rings in noise of {size} can have radii from 1 to {most}.')

    @staticmethod
    def widest(shape: Shape) -> int:
        """The largest radius whose frequencies all differ from their opposites."""
        return (min(shape[:2]) - 1) // 2

    @functools.cached_property
    def _rings(self) -> np.ndarray:
        """The number of the ring of each frequency, (height, width): r for r − 1 < |frequency| ≤ r."""
        down, across = (np.fft.fftfreq(size, 1 / size) for size in self.shape[:2])
        return np.ceil(np.hypot(down[:, None], across) - 1e-9).astype(int)

    @functools.cached_property
    def _half(self) -> np.ndarray:
        """Which frequencies of the pattern come first of a pair of opposites, (height, width); 0 is none of them."""
        down, across = (np.fft.fftfreq(size, 1 / size) for size in self.shape[:2])
        first = (down[:, None] > 0) | ((down[:, None] == 0) & (across > 0))
        return first & (self._rings <= self.radius)

    @functools.cached_property
    def pattern(self) -> np.ndarray:
        """The coefficients (height, width, channels) of an orthonormal transform; 0 where the noise is not changed."""
        values = _generator(self.secret, 'rings').standard_normal((self.radius + 1, self.shape[2]))
        inside = self._rings <= self.radius
        found = np.where(inside[..., None], values[np.minimum(self._rings, self.radius)], 0.0)
        return found * math.sqrt(inside.sum() * self.shape[2] / np.square(found).sum())

    def marked(self, noise: np.ndarray) -> np.ndarray:
        coefficients = np.fft.fft2(noise, axes=(1, 2), norm='ortho')
        coefficients = np.where((self._rings <= self.radius)[..., None], self.pattern, coefficients)
        return np.fft.ifft2(coefficients, axes=(1, 2), norm='ortho').real.astype(np.float32)

    def coordinates(self, coefficients: np.ndarray) -> np.ndarray:
        """The coordinates (n, d) of coefficients (n, height, width, channels) where the pattern is; independent N(0, 1)
        for those of noise."""
        pairs = coefficients[:, self._half] * math.sqrt(2)
        parts = coefficients[:, 0, 0].real, pairs.real, pairs.imag
        return np.concatenate([part.reshape(len(coefficients), -1) for part in parts], axis=1)

    def tested(self, noise: np.ndarray) -> Tested:
        """Test against noise N(0, σ² I) of any σ.

        `score` is the cosine of the angle between the coordinates y and those of the pattern, k. The direction of
        unmarked noise is uniform, so that the p-value is exactly that of Student's t with d − 1 degrees of freedom.
        `p_chi_square` is the paper's: |y − k|² / σ² as if it were non-central χ² with d degrees of
        freedom, with σ² = |y|² / d. Since y itself gives σ, it is not uniform: it is conservative if σ is near 1.
        """
        y = self.coordinates(np.fft.fft2(np.asarray(noise, float), axes=(1, 2), norm='ortho'))
        (k,) = self.coordinates(self.pattern[None].astype(complex))
        lengths, d = np.maximum(np.linalg.norm(y, axis=1), 1e-30), len(k)
        cosine = np.clip(y @ k / (lengths * np.linalg.norm(k)), -1, 1)
        with np.errstate(divide='ignore'):
            t = cosine * np.sqrt((d - 1) / (1 - np.square(cosine)))
        variance = np.square(lengths) / d
        distance = np.square(y - k).sum(1) / variance
        paper = special.chndtr(distance, d, k @ k / variance)
        return Tested(cosine, special.stdtr(d - 1, -t), {'p_chi_square': paper})


@dataclasses.dataclass(frozen=True)
class GaussianShading:
    """A message in the signs of the noise. Every value keeps its size, so that marked noise is N(0, I) over pads.

    Bit b of the message, exclusive or a bit of the pad, says whether a value is in the upper half of the distribution.
    The message is repeated over all values in a secret order.

    Attributes:
      message: of zeros and ones; '' draws `bits` of them.
      bits: their number; 0 chooses `BITS`, or as many as there are values.
      pads: the number of pads; image i uses pad i modulo this number. Images with the same pad have the same signs.
    """

    shape: Shape
    secret: str
    message: str = ''
    bits: int = 0
    pads: int = 1

    name: ClassVar[str] = 'gaussian_shading'
    settings: ClassVar[tuple[str, ...]] = ('message', 'pads')

    def __post_init__(self) -> None:
        most = math.prod(self.shape)
        if {*self.message} - {*'01'}:
            raise UserError(f'The message is {self.message[:40]!r}; write zeros and ones, such as 10110100.')
        if self.message and self.bits not in (0, len(self.message)):
            raise UserError(f'--bits is {self.bits}, but --message has {len(self.message)}; leave out --bits.')
        bits = len(self.message) or self.bits or min(BITS, most)
        if not 1 <= bits <= most:
            raise UserError(f'The message has {bits} bits; this noise can carry from 1 to {most}.')
        if not 1 <= self.pads <= max(1, MOST // most):
            raise UserError(
                f'There are {self.pads} pads; noise of this size can have from 1 to {max(1, MOST // most)}.'
            )
        drawn = ''.join(map(str, stream(self.secret, 'message', bits)))
        object.__setattr__(self, 'message', self.message or drawn)
        object.__setattr__(self, 'bits', bits)

    @property
    def chance(self) -> float:
        """The mean score of images without a mark, over secrets: that of the best of `pads` independent binomials."""
        below = special.bdtr(np.arange(self.bits), self.bits, 0.5)
        return float((1 - below**self.pads).sum() / self.bits)

    @functools.cached_property
    def _places(self) -> np.ndarray:
        """The bit of the message that each value carries, (values,)."""
        count = math.prod(self.shape)
        return _generator(self.secret, 'order').permutation(np.arange(count) % self.bits)

    @functools.cached_property
    def _said(self) -> np.ndarray:
        return np.array([*map(int, self.message)], np.uint8)

    def _pad(self, number: int) -> np.ndarray:
        return stream(self.secret, f'pad {number}', math.prod(self.shape))

    def marked(self, noise: np.ndarray) -> np.ndarray:
        """Marked noise; that of image i has pad i modulo `pads`."""
        upper = [self._said[self._places] ^ self._pad(i % self.pads) for i in range(len(noise))]
        return (np.abs(noise) * (2.0 * np.reshape(upper, noise.shape) - 1)).astype(np.float32)

    @functools.cached_property
    def _turns(self) -> np.ndarray:
        """−1 where a pad turns a value's sign and 1 elsewhere, (pads, values)."""
        return np.stack([1 - 2.0 * self._pad(number) for number in range(self.pads)]).astype(np.float32)

    def _copies(self, noise: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """The values that carry each bit, and what they say, (n, copies). The first copy decides a tie."""
        said = np.where(noise.reshape(len(noise), -1) > 0, 1, -1).astype(np.float32)
        for bit in range(self.bits):
            places = np.flatnonzero(self._places == bit)
            yield places, said[:, places] * np.where(np.arange(len(places)) == 0, 1.5, 1).astype(np.float32)

    def read(self, noise: np.ndarray, pads: np.ndarray) -> np.ndarray:
        """The message (n, bits) that most copies of each bit say, under one pad for each noise, (n,)."""
        turns = self._turns[pads]
        found = [(said * turns[:, places]).sum(1) > 0 for places, said in self._copies(noise)]
        return np.stack(found, 1).astype(np.uint8)

    def tested(self, noise: np.ndarray) -> Tested:
        """Test every pad, and keep the one under which most bits agree with the message.

        `score` is the share of bits that agree. Under a random pad the message of any image is random, so that the
        number that agrees is binomial. The p-value is the binomial tail times the number of pads, which is exact for
        one pad; the paper multiplies by the number of users alike. Since the known message chooses the pad, the score
        of images without a mark is `chance` over secrets, and the message as read agrees with the known one by
        selection.
        """
        right = np.zeros((len(noise), self.pads), np.int32)
        for bit, (places, said) in enumerate(self._copies(noise)):
            right += (said @ self._turns[:, places].T > 0) == self._said[bit]
        best = right.argmax(1)
        score = right.max(1)
        tail = special.bdtrc(score - 1.0, self.bits, 0.5)
        more = {'pad': best, 'message': self.read(noise, best)}
        return Tested(score / self.bits, np.minimum(self.pads * tail, 1), more)


Mark = TreeRing | GaussianShading
METHODS: dict[str, type[TreeRing] | type[GaussianShading]] = {one.name: one for one in (TreeRing, GaussianShading)}

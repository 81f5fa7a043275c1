"""Options of a sampler besides its steps and guidance weight: one typed record per solver.

A record's fields know how to read their values from text. A solver declares the record whose fields it takes. A new
solver with its own options adds a subclass.
"""

import dataclasses
import math
from collections.abc import Callable
from typing import Any, ClassVar

import jax.numpy as jnp

from genbench.data import degradations
from genbench.errors import UserError
from genbench.interpolants.schedules import Schedule
from genbench.interpolants.spacings import read_spacing
from genbench.ranges import LARGEST, NOT_NEGATIVE, POSITIVE, PROBABILITY, STEPS, Range, check_path

ORIGINAL = ('strength', 'start', 'resample', 'problem')  # options that need an original or an observation
FULL = (0.0, math.inf)  # the interval of all noise levels


def number(default: float, limits: Range, acts_with: str = '') -> Any:
    """A field that holds a number."""

    def read(text: str) -> float:
        try:
            value = float(text)
        except ValueError:
            value = math.nan
        low = value <= limits.low if limits.above else value < limits.low
        endless = math.isinf(value) and value != default
        if math.isnan(value) or endless or low or value > limits.high:
            raise ValueError(f'a number, {limits.words}')
        return value

    return option(default, read, acts_with)


def choice(*names: str, acts_with: str = '') -> Any:
    """A field that holds one of these names. The first is the default."""

    def read(text: str) -> str:
        if text not in names:
            raise ValueError(', '.join(names))
        return text

    return option(names[0], read, acts_with)


def option(default: Any, read: Callable[[str], Any], acts_with: str = '') -> Any:
    """A field of a record.

    Args:
      read: text → value. Its ValueError says what the value can be.
      acts_with: the option without which this one has no effect.
    """
    return dataclasses.field(default=default, metadata={'read': read, 'acts_with': acts_with})


def read_interval(text: str) -> tuple[float, float]:
    """Read LOW-HIGH, two noise levels σ / α."""
    low, dash, high = text.partition('-')
    try:
        found = float(low), float(high)
    except ValueError:
        found = (math.nan, math.nan)
    if not dash or not 0 <= found[0] < found[1]:
        raise ValueError('LOW-HIGH, two noise levels sigma / alpha, for example 0.2-0.8 or 0.3-inf')
    return found


def read_threshold(text: str) -> str | float:
    if text in ('none', 'static'):
        return text
    try:
        share = float(text)
    except ValueError:
        share = math.nan
    if not 0 < share <= 1:
        raise ValueError('none, static, or for dynamic thresholds a share of the pixels above 0 and at most 1')
    return share


def read_count(text: str) -> int:
    if not text.isdecimal() or len(text) > 10 or not 1 <= int(text) <= LARGEST:
        raise ValueError('an integer of at least 1')
    return int(text)


def read_from(low: int, high: int) -> Callable[[str], int]:
    """A reader of integers between these, ends included."""

    def read(text: str) -> int:
        if not text.isdecimal() or not low <= float(text) <= high:
            raise ValueError(f'an integer from {low} to {high}')
        return int(text)

    return read


def read_run(text: str) -> str:
    if not text:
        raise ValueError('the folder of a finished run, RUN or RUN@AVERAGE')
    return check_path(text, "The guide's run")


@dataclasses.dataclass(frozen=True)
class Options:
    """The record of a sampler without options."""

    @property
    def changed(self) -> dict[str, Any]:
        """The options that differ from their default, by name. A pair of numbers is written LOW-HIGH."""
        values = {field.name: (getattr(self, field.name), field.default) for field in dataclasses.fields(self)}
        return {name: '-'.join(f'{x:g}' for x in value) if isinstance(value, tuple) else value
                for name, (value, default) in values.items() if value != default}  # fmt: skip

    def check(self, schedule: Schedule) -> None:
        """Raise a UserError with the reason if the solver cannot follow this schedule with these options."""


@dataclasses.dataclass(frozen=True)
class NoiseOptions(Options):
    """Options of a sampler that draws normal numbers.

    Attributes:
      temperature: the factor of every normal number, including those at the start (Kingma & Dhariwal 2018).
    """

    temperature: float = number(1.0, Range(0, 1000))


@dataclasses.dataclass(frozen=True)
class MaskedOptions(Options):
    """Options of parallel decoding.

    Attributes:
      temperature: of the Gumbel noise that is added to the logarithms of confidences, at the start; it falls linearly
        to 0. A high one fills in values in random order (Chang et al. 2022, MaskGIT, and its code).
    """

    temperature: float = number(4.5, Range(0, 1e6))


@dataclasses.dataclass(frozen=True)
class PathOptions(NoiseOptions):
    """Options of every solver on a path.

    Attributes:
      spacing: how the steps' times are spaced; see `spacings.read_spacing`.
      threshold: how the predicted image is clipped: 'none', 'static' (to [−1, 1]), or the fraction of its pixels that
        dynamic thresholding leaves unclipped (Saharia et al. 2022, section 2.3); '' follows `family.clip`.
      interval: the noise levels σ / α, ends included, at which guidance acts (Kynkäänniemi et al. 2024).
      strength: the fraction of the steps, counted from the end, that are taken from a noised original (Meng et al.
        2022, SDEdit); 1 starts from pure noise.
      start: whether fresh noise brings the original to where the steps begin, or DDIM's inversion ('inverted'; J. Song
        et al. 2021, section 4.3), which adds as many evaluations as there are steps.
      resample: how often each step is repeated if something is known of the images (Lugmayr et al. 2022, RePaint,
        algorithm 1).
      problem: what is known of the images, as in `data.degradations`: 'half', 'pool2', …; or 'mask', the known pixels.
      posterior: how sampling uses it (`interpolants.inverse`).
      noise: the standard deviation of the noise in what is known; images lie in [−1, 1].
      weight, spread: of `inverse.Observation`.
      negative: the condition, KIND=VALUE, that guidance moves away from; '' stands for no condition.
      guide: the run, RUN or RUN@AVERAGE, whose prediction guidance moves away from instead (Karras et al. 2024).
      control: the factor of a control's residuals, for runs with `family.base` (Zhang et al. 2023).
      by: guidance by two predictions, or by the model's own 'classifier' (Dhariwal & Nichol 2021, algorithm 2).
    """

    spacing: str = option('uniform', read_spacing)
    threshold: str | float = option('', read_threshold)
    interval: tuple[float, float] = option(FULL, read_interval, acts_with='guidance')
    strength: float = number(1.0, Range(0, 1, above=True))
    start: str = choice('noised', 'inverted')
    resample: int = option(1, read_count)
    problem: str = option('', degradations.read)
    posterior: str = choice('replacement', 'ddnm', 'dps', 'pigdm', acts_with='problem')
    noise: float = number(0.0, Range(0, 10), acts_with='problem')
    weight: float = number(1.0, NOT_NEGATIVE, acts_with='posterior')
    spread: float = number(1.0, Range(0, 1000, above=True), acts_with='posterior')
    negative: str = option('', str, acts_with='guidance')
    guide: str = option('', read_run, acts_with='guidance')
    by: str = choice('prediction', 'classifier', acts_with='guidance')
    control: float = number(1.0, Range(0, 100))
    on_grid: ClassVar[bool] = True  # whether all images take the same steps

    @property
    def passes(self) -> int:
        """Evaluations of the network where the solver usually makes one."""
        return 1

    @property
    def draws(self) -> bool:
        """Whether the solver's steps draw noise."""
        return False

    def guides(self, guidance: float) -> bool:
        """Whether a sampler with this weight needs the prediction that guidance moves away from."""
        return guidance != 0


DEFAULT = PathOptions()


@dataclasses.dataclass(frozen=True)
class NoisyOptions(PathOptions):
    """Options of a solver whose steps draw noise."""

    @property
    def draws(self) -> bool:
        return True


@dataclasses.dataclass(frozen=True)
class AncestralOptions(NoisyOptions):
    """Attributes:
    variance: of a step: 'small' (β̃), 'large' (β), or 'learned' by the network between the two.
    """

    variance: str = choice('small', 'large', 'learned')


@dataclasses.dataclass(frozen=True)
class DdimOptions(PathOptions):
    """Attributes:
    eta: the fraction of ancestral noise in a step (J. Song et al. 2021, equation 16); 0 is deterministic.
    renoise: the noise that a guided step puts back, which is the 'guided' prediction's, or the 'plain' one of what
      guidance moves away from (Chung et al. 2024, CFG++, algorithm 2). Their λ is 1 + w, from 0 to 1, so that w = 0
      still needs both predictions. A λ above 1 is an extension of ours.
    """

    eta: float = number(0.0, PROBABILITY)
    renoise: str = choice('guided', 'plain', acts_with='guidance')

    @property
    def draws(self) -> bool:
        return self.eta > 0

    def guides(self, guidance: float) -> bool:
        return guidance != 0 or self.renoise == 'plain'


@dataclasses.dataclass(frozen=True)
class HeunOptions(PathOptions):
    """Options of the stochastic sampler of Karras et al. 2022 (algorithm 2), under the paper's names.

    Attributes:
      churn: S_churn. A step first raises the noise level by the factor 1 + min(churn / steps, √2 − 1).
      s_noise: S_noise, the standard deviation of the noise that this adds.
      s_tmin, s_tmax: the noise levels σ / α between which noise is added.
    """

    churn: float = number(0.0, Range(0, STEPS.high))
    s_noise: float = number(1.0, Range(0, 1000, above=True), acts_with='churn')
    s_tmin: float = number(0.0, NOT_NEGATIVE, acts_with='churn')
    s_tmax: float = number(math.inf, POSITIVE, acts_with='churn')

    @property
    def draws(self) -> bool:
        return self.churn > 0


@dataclasses.dataclass(frozen=True)
class Dpmpp3mOptions(PathOptions):
    """Attributes:
    curvature: whether the second derivative of the predicted image counts in 'full', which makes the solver one of
      third order, or 'half', as in the official code and in diffusers.
    """

    curvature: str = choice('full', 'half')


@dataclasses.dataclass(frozen=True)
class UnipcOptions(PathOptions):
    """Attributes:
    order: of the predictor; the corrector's is one higher.
    variant: B(h) of Zhao et al. 2023, which is e^h − 1 for 'bh2' and h for 'bh1'.
    """

    order: int = option(2, read_from(1, 3))
    variant: str = choice('bh2', 'bh1')


@dataclasses.dataclass(frozen=True)
class DeisOptions(PathOptions):
    """Attributes:
    degree: of the polynomial through the predicted noise: the paper's r, so that 3 is tAB3.
    axis: what it is a polynomial in: 't', or 'log_rho' for log σ / α.
    """

    degree: int = option(3, read_from(1, 3))
    axis: str = choice('t', 'log_rho')


@dataclasses.dataclass(frozen=True)
class EulerMaruyamaOptions(NoisyOptions):
    """Attributes:
    diffusion: the square of the SDE's diffusion coefficient: that of the 'forward' SDE (Y. Song et al. 2021), or
      'sigma', which is σ (Ma et al. 2024, SiT).
    """

    diffusion: str = choice('forward', 'sigma')

    def check(self, schedule: Schedule) -> None:
        if self.diffusion == 'forward' and _starts_in_noise(schedule):
            raise UserError(f'The sampler euler_maruyama follows the forward SDE, which the schedule {schedule.name} '
                            'has none of where it starts, at pure noise; use diffusion=sigma.')  # fmt: skip


@dataclasses.dataclass(frozen=True)
class CorrectorOptions(NoisyOptions):
    """Attributes:
    snr: r, the signal-to-noise ratio of a Langevin step (Y. Song et al. 2021, algorithms 4 and 5).
    corrections: M, the number of Langevin steps at each time.
    predictor: 'reverse_diffusion' (their equation 46), or 'ancestral'.
    """

    snr: float = number(0.16, Range(0, 1000, above=True))
    corrections: int = option(1, read_count)
    predictor: str = choice('reverse_diffusion', 'ancestral')

    @property
    def passes(self) -> int:
        return 1 + self.corrections

    def check(self, schedule: Schedule) -> None:
        if self.predictor == 'reverse_diffusion' and _starts_in_noise(schedule):
            raise UserError(f'The predictor reverse_diffusion needs some signal at the start, and the schedule '
                            f'{schedule.name} starts at pure noise; use predictor=ancestral.')  # fmt: skip


@dataclasses.dataclass(frozen=True)
class FlowMapOptions(PathOptions):
    """Attributes:
    gamma: γ, the deviation of the fresh noise at the end of a step in units of all noise there (γ-sampling of
      Kim et al. 2024). 0 is deterministic, and 1 jumps to the image and noises it, like multistep_consistency.
    """

    gamma: float = number(0.0, PROBABILITY)

    @property
    def draws(self) -> bool:
        return self.gamma > 0


@dataclasses.dataclass(frozen=True)
class AdaptiveOptions(PathOptions):
    """Attributes:
    tolerance: the relative and absolute tolerance of a step, as a root mean square over the pixels of an image.
    """

    tolerance: float = number(1e-3, Range(0, 1, above=True))
    on_grid: ClassVar[bool] = False

    def check(self, schedule: Schedule) -> None:
        for name in {'spacing', 'interval', *ORIGINAL} & {*self.changed}:
            raise UserError(f'The sampler rk45 chooses the steps of each image by itself, and {name} is for steps that '
                            'are the same for all; leave it out.')  # fmt: skip


def _starts_in_noise(schedule: Schedule) -> bool:
    return float(schedule.alpha(jnp.asarray(schedule.t_max))) <= 0

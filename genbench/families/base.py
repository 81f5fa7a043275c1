"""The contract of a family: how its networks are built, trained, sampled and scored.

The rest of genbench (data, trainer, checkpoints, evaluation, studies, report) relies on this contract alone.
"""

import dataclasses
from collections.abc import Callable, Iterator, Mapping
from typing import Any, ClassVar, NamedTuple

import jax
from flax import nnx

from genbench import rng
from genbench.data import conditions
from genbench.data.conditions import Given
from genbench.data.spec import DataSpec
from genbench.errors import UserError
from genbench.families import stages
from genbench.families.latent_model import LatentModel
from genbench.families.registry import register as register
from genbench.families.spaces import Pixels, Space
from genbench.families.stages import Span, Stage
from genbench.interpolants.options import DEFAULT, NoiseOptions, Options
from genbench.interpolants.schedules import Schedule
from genbench.interpolants.solvers import Trace
from genbench.ranges import TEXTS, Range

Array = jax.Array
# 'image': integers (batch, height, width, channels); 'label': integers (batch,); other fields of the rows; 'key':
# one key per image for this update, (batch,). A loss draws each image's random numbers from its key (`genbench.rng`)
Batch = Mapping[str, Array]
Scalars = dict[str, Array]


class Networks(Mapping[str, Any]):
    """A family's modules by name, and the same modules with averaged parameters.

    `networks['decoder']` holds the current parameters and `networks.averaged('ema')['decoder']` the averaged ones. A
    network outside the average keeps its current ones. `networks.borrowed('teacher')` holds that run's frozen modules.
    """

    def __init__(
        self,
        modules: Mapping[str, nnx.Module],
        averages: Mapping[str, Mapping[str, nnx.Module]] | None = None,
        borrowed: Mapping[str, 'Networks'] | None = None,
    ):
        self._modules, self._averages, self._borrowed = dict(modules), averages or {}, borrowed or {}

    def __getitem__(self, name: str) -> Any:
        return self._modules[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._modules)

    def __len__(self) -> int:
        return len(self._modules)

    def averaged(self, name: str) -> 'Networks':
        return Networks({**self._modules, **self._averages[name]}, borrowed=self._borrowed)

    def borrowed(self, name: str) -> 'Networks':
        return self._borrowed[name]


LossFunction = Callable[[Networks, Batch, Array, Array], tuple[Array, Scalars]]


@dataclasses.dataclass(frozen=True)
class Update:
    """One entry of a training step. The trainer runs the entries in order, and each sees the results of earlier ones.

    Attributes:
      name: names the optimizer state and prefixes the metrics.
      networks: the networks whose parameters this update changes.
      loss: (networks, batch, key, step) → (scalar, named scalars). It draws each image's random numbers from
        `batch['key']`, which is split over the devices like the images; `key` is for the rest, such as dropout.
        Module variables that are not parameters (batch statistics, spectral-norm vectors, codebooks) keep the
        values that the loss leaves in them.
      optimizer: keys of `config.optimizer` to replace; None changes no parameters and only keeps such variables.
      every: the update runs on steps divisible by this number.
      splits: micro-batches may share such variables, for each change is linear in image means or the same for all.
    """

    name: str
    networks: tuple[str, ...]
    loss: LossFunction
    optimizer: Mapping[str, Any] | None = dataclasses.field(default_factory=dict)
    every: int = 1
    splits: bool = False


@dataclasses.dataclass(frozen=True)
class Average:
    """An average of the parameters of some networks, taken after every step.

    Attributes:
      decay: decay of the exponential moving average.
      warmup: use min(decay, (1 + step) / (10 + step)), so that the average forgets early weights.
      width: if above zero, take a power-function average instead, whose width is this fraction of the training so far
        (Karras et al. 2024). Its snapshots yield averages of any width after training.
    """

    name: str
    networks: tuple[str, ...]
    decay: float = 0.0
    warmup: bool = True
    width: float = 0.0


class Borrowed(NamedTuple):
    """A finished run that another run builds on, given by its family. `Networks.borrowed` has its modules."""

    family: 'Family'


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Sampler:
    """How to sample: the solver's name, the number of steps (may be traced), the guidance and the solver's options."""

    name: str = dataclasses.field(metadata={'static': True})
    num_steps: Any = 1
    guidance: Any = dataclasses.field(default=0.0, metadata={'static': True})
    options: Any = dataclasses.field(default=DEFAULT, metadata={'static': True})

    @property
    def protocol(self) -> dict[str, Any]:
        """The sampler's entry in the results. Options appear only if they differ from the default."""
        told = {'sampler': self.name, 'steps': int(self.num_steps), 'guidance': self.guidance}
        return told | ({'sampler_options': self.options.changed} if self.options.changed else {})


class Samples(NamedTuple):
    """Integer images (batch, …) and the number of network evaluations per image."""

    images: Array
    evaluations: Array | int


@dataclasses.dataclass(frozen=True)
class Likelihood:
    """One way to score images.

    Attributes:
      method: the name of the result, e.g. 'elbo'.
      kind: 'exact', 'lower_bound' or 'estimate'; different kinds are never ranked against each other.
      log_prob: (networks, integer images, conditions or None, one key per image) → log-likelihood of the discrete
        image in nats, (batch,); or a mapping with this as 'log_prob' and its parts (prior, KL, …) under their names.
      protocol: everything besides the checkpoint that the number depends on: dequantisation, draws, solver, …
      refined: the same likelihood with a finer discretisation (twice the steps, a tenth of the tolerance), if there is
        one. The difference is reported as `discretisation_error`.
      errors: parts of `log_prob` that are errors of images. The root of their mean square is reported, not their mean.
      traceable: `log_prob` may be compiled as a whole. Otherwise it compiles its own parts and loops over them.
    """

    method: str
    kind: str
    log_prob: Callable[[Networks, Array, Given, Array], Array | Mapping[str, Array]]
    protocol: Mapping[str, Any]
    refined: Callable[[Networks, Array, Given, Array], Array | Mapping[str, Array]] | None = None
    traceable: bool = True
    errors: tuple[str, ...] = ()


class Family:
    """Base class. A family overrides `networks`, `updates` and `sample` (or `generate`), and whatever else it needs.

    Args:
      config: the resolved config.
      spec: the specification of the data.
      borrowed: the runs that `borrows` names.
    """

    name: ClassVar[str]
    samplers: ClassVar[tuple[str, ...]] = ('direct',)  # the first is the default
    default_steps: int = 1  # steps of a sampler if nobody sets them
    most_steps: int | None = None  # of a sampler, where a model knows the times of this many steps and no others
    from_noise: bool = True  # whether the paths of `path` start from normal noise
    guidable: ClassVar[bool] = False  # a conditional model that classifier-free guidance can sharpen
    later: ClassVar[Mapping[str, Any]] = {}  # `family` keys added later, at values that leave the hashes of older runs
    classifies: bool = False  # whether it has a classifier that can guide its samples
    controlled: bool = False  # whether it controls a frozen base, so that samplers may scale the control
    only_to_train: ClassVar[tuple[str, ...]] = ()  # borrowed runs that only the losses need
    ranges: ClassVar[Mapping[str, Range]] = {'conditions': TEXTS}  # allowed values of the `family` keys added here
    # Shares that losses report, and what to do when one exceeds a half in a row of metrics.jsonl, which stops the run.
    stops: ClassVar[Mapping[str, str]] = {}
    span: Span | None = None  # of the current stage; None if there is only one

    def __init__(self, config: Any, spec: DataSpec, borrowed: Mapping[str, Borrowed] | None = None):
        self.config, self.spec, self.borrowed = config, spec, dict(borrowed or {})
        self.space: Space = Pixels(spec)  # the space that it models, which need not be that of integer images
        self.conditions = conditions.resolve(conditions.named(config.family), spec)
        self.conditional = bool(self.conditions)

    @classmethod
    def defaults(cls) -> dict[str, Any]:
        """Config sections that this family sets or extends, e.g. {'family': {...}, 'network': {...}}."""
        # The conditions of the model, by their names in `data.conditions`; `conditional` adds 'label' to them.
        return {'family': {'conditional': False, 'conditions': ()}}

    @classmethod
    def all_ranges(cls) -> dict[str, Range]:
        """`ranges` of this class and of its base classes together."""
        return {key: one for kind in reversed(cls.__mro__) for key, one in vars(kind).get('ranges', {}).items()}

    @classmethod
    def borrows(cls, config: Any) -> dict[str, str]:
        """Finished runs that this one needs: name → run folder or RUN@AVERAGE; the config sets it as `family.NAME`."""
        return {}

    @property
    def forms(self) -> dict[str, conditions.Form]:
        """The form of each condition that the networks take; empty for an unconditional model."""
        return {name: one.form for name, one in self.conditions.items()}

    @property
    def stands_alone(self) -> bool:
        """Whether it can be sampled and scored without the runs that it borrowed."""
        return {*self.borrowed} <= {*self.only_to_train}

    @property
    def notes(self) -> Mapping[str, str]:
        """What the manifest says of the objective that no key of the config says by itself."""
        return {}

    @property
    def fields(self) -> tuple[str, ...]:
        """Fields that the rows of the data need in addition to image and label."""
        wanted = [field for one in self.conditions.values() for field in one.fields]
        return tuple(field for field in dict.fromkeys(wanted) if field not in ('image', 'label'))

    def given(self, rows: Batch, keys: Array | None = None) -> Given:
        """The conditions of these rows, or None for an unconditional model; `keys` replace `rows['key']`."""
        return conditions.make(self.conditions, rows, rows['key'] if keys is None else keys)

    def networks(self, rngs: nnx.Rngs) -> dict[str, nnx.Module]:
        """Freshly initialised modules by name."""
        raise NotImplementedError

    def check_rows(self, count: int) -> None:
        """Raise a UserError if a train split of this many rows is too small for the model."""

    def initialise(self, networks: Networks, batch: Batch, key: Array) -> None:
        """Data-dependent initialisation from the first batch; may change the modules in place."""

    def prepare(self, networks: Networks, rows: Batch) -> Mapping[str, Array]:
        """Arrays (batch, …) that are computed once for every row and added to its batches under their names.

        `networks` holds borrowed runs only. `rows['key']` is one key per row, which does not depend on the other rows.
        The arrays are kept in the run's folder (`training.preparation`); checkpoints do not contain them.
        """
        return {}

    @property
    def updates(self) -> tuple[Update, ...]:
        raise NotImplementedError

    @property
    def averages(self) -> tuple[Average, ...]:
        """'ema', and those that `train.extra_decays` and `train.power_widths` add: 'ema_0.99', 'power_0.05', …."""
        names, options = self.averaged, self.config.train
        if not names:
            return ()
        return (
            Average('ema', names, options.ema_decay, options.ema_warmup),
            *(Average(f'ema_{decay:g}', names, decay, options.ema_warmup) for decay in options.extra_decays),
            *(Average(f'power_{width:g}', names, width=width) for width in options.power_widths),
        )

    @property
    def averaged(self) -> tuple[str, ...]:
        """The networks that are averaged: by default every network that an optimizer trains."""
        moved = [name for update in self.updates if update.optimizer is not None for name in update.networks]
        return tuple(dict.fromkeys(moved))

    @property
    def stages(self) -> tuple[Stage, ...]:
        return (Stage('main'),)

    def at(self, stage: str) -> 'Family':
        """The family in this stage, with the stage's `spec` and `config`."""
        return stages.at(self, stage)

    def carry(self, old: Networks, new: Networks) -> None:
        """Fill the new stage's modules from the old stage's, in place. It is called on the new stage's family.

        By default, networks that keep their name and shapes keep their values; the others start afresh."""
        stages.carry(old, new)

    def sample(self, networks: Networks, keys: Array, given: Given, sampler: Sampler) -> Samples:
        """Sample one image per key (batch,). An image must not depend on which others share its batch.

        By default, `generate` turns one standard normal latent per key into images. `given` may have the latents as
        'noise'.
        """
        given, held = conditions.apart(given)
        latents = held['noise'] if 'noise' in held else self.latents(keys, sampler)
        images = self.generate(networks, latents, keys, given, sampler)
        return Samples(images, self.evaluations(sampler))

    def latents(self, keys: Array, sampler: Sampler) -> Array:
        """One latent z per key (batch,), standard normal at temperature 1."""
        assert self.latent_shape is not None, 'a family without latents overrides `sample`'
        return sampler.options.temperature * rng.normal(keys, 'z', self.latent_shape)

    def evaluations(self, sampler: Sampler) -> int:
        """The number of network evaluations per image with this sampler."""
        return 1

    @classmethod
    def sampler_options(cls, name: str) -> type[Options]:
        """The options that this sampler has."""
        return Options if cls.latent_shape is Family.latent_shape else NoiseOptions

    def why_not(self, steps: int, spacing: str = 'uniform', solver: str = '') -> str:
        """Why samplers, or this one, cannot take this number of steps, spaced so; '' if they can."""
        if self.most_steps is None or steps <= self.most_steps:
            return ''
        return (f'this model was trained at the times of {self.most_steps}; take at most {self.most_steps}, or train '
                'it with family.time_sampler=low_discrepancy')  # fmt: skip

    @classmethod
    def check_sampler(cls, name: str) -> None:
        """Raise a UserError with the reason if this family cannot use this sampler."""
        if name not in cls.samplers:
            raise UserError(f'{cls.name} cannot use the sampler {name!r}: it has no path from noise to data for a '
                            f'solver. Use {", ".join(cls.samplers)}.')  # fmt: skip

    def asked(self, networks: Networks) -> 'Family':
        """The family with whatever its networks must supply before anything else, such as a learned schedule."""
        return self

    @property
    def path(self) -> Schedule | None:
        """The schedule of a family whose samplers step along paths to images. `trace` follows it."""
        return None

    def starts(self, keys: Array) -> Array:
        """States on `path` at temperature 1 where samplers start, (batch, …): one for each key."""
        raise NotImplementedError

    def trace(
        self, networks: Networks, start: Array, keys: Array, given: Given, sampler: Sampler, first: Array | int
    ) -> Trace:
        """Every state of a sampler that begins its step `first` at `start` (batch, …), a state on `path`."""
        raise NotImplementedError

    @property
    def latent_shape(self) -> tuple[int, ...] | None:
        """The shape of the standard normal z of `generate`; None if there is no z or if z is the noise of `path`."""
        return None

    def generate(self, networks: Networks, latents: Array, keys: Array, given: Given, sampler: Sampler) -> Array:
        """Integer images from latents (batch, *latent_shape). Other randomness comes from one key per image."""
        raise NotImplementedError

    def why_no_inverse(self, sampler: Sampler) -> str:
        """Why the noise that this sampler made an image from cannot be found; '' if `inverted` finds it."""
        source = 'latents' if self.latent_shape else 'pixels or codes'
        return f'{self.name} makes images from {source} by a map that has no inverse'

    def inverted(self, networks: Networks, images: Array, keys: Array, given: Given, sampler: Sampler) -> Array:
        """The noise, near N(0, I), that this sampler would make these integer images (batch, …) from.

        Its shape is (batch, *latent_shape), or that of the data space for a family with a `path`. What the inverse
        draws comes from one key per image.
        """
        raise NotImplementedError

    def moved(
        self, networks: Networks, latents: Array, keys: Array, given: Given, sampler: Sampler, transform: Array
    ) -> Array | None:
        """Real images in [−1, 1], unrounded, that `generate` would make of moved scenes; None if no scene can be moved.

        `transform` (batch, 3, 3) takes points of the image to points of the scene. The origin is the image's centre, x
        points right and y down, and the image's height is 1.
        """
        return None

    @property
    def likelihoods(self) -> tuple[Likelihood, ...]:
        """The likelihoods that can be computed; empty for a family without one."""
        return ()

    def latent_model(self, networks: Networks, given: Given) -> LatentModel | None:
        """The decoder p(x | z) for images with these conditions; None without one. Only the functions of the result may
        look at `networks`, since a plan asks before there are any."""
        return None

    def units(
        self, networks: Networks, images: Array, given: Given, keys: Array, draws: Array
    ) -> tuple[Array, Array] | None:
        """The posterior mean and the KL of each latent for integer images, (batch, latents) each; None without encoder.

        The mean is that of q(z | x), for a z that is standard normal under the prior. The KL is the latent's part of
        KL(q ‖ p) in nats. Both may depend on other latents, which are drawn from q with one key per image, `draws`.
        `keys` draw what the encoder sees, such as binary images.
        """
        return None

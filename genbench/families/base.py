"""The contract of a family: how its networks are built, trained, sampled and scored.

Everything else (data, trainer, checkpoints, evaluation, studies, report) is written against this file.
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
# 'image': integers (batch, height, width, channels); 'label': integers (batch,); further fields of the rows; and 'key':
# one key an image, (batch,), of this update, from which a loss draws what belongs to the image (`genbench.rng`)
Batch = Mapping[str, Array]
Scalars = dict[str, Array]


class Networks(Mapping[str, Any]):
    """The modules of a family by name, and the same modules with averaged parameters.

    `networks['decoder']` holds current parameters, `networks.averaged('ema')['decoder']` those of that average; a
    network outside the average keeps its current ones. `networks.borrowed('teacher')` are the frozen ones of that run.
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
    """One entry of a training step; the trainer runs the list in order, each seeing what the ones before it did.

    Attributes:
      name: keys the optimizer state and prefixes the metrics.
      networks: the networks whose parameters it moves.
      loss: (networks, batch, key, step) → (scalar, named scalars). What it draws for an image comes from
        `batch['key']`, which is split over the devices as the images are; `key` is for the rest, such as dropout.
        Variables of a module that are not parameters (batch statistics, spectral-norm vectors, codebooks) keep the
        values the loss leaves in them.
      optimizer: keys of `config.optimizer` to replace; None moves no parameter and only keeps such variables.
      every: run on steps divisible by this.
      splits: micro-batches may share such variables: each change is linear in means over images, or the same for all.
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
      decay: of an exponential moving average.
      warmup: take min(decay, (1 + step) / (10 + step)), so that early weights are forgotten.
      width: above zero, a power-function average instead, as wide as this share of the training so far
        (Karras et al. 2024); snapshots of these make averages of any width after training.
    """

    name: str
    networks: tuple[str, ...]
    decay: float = 0.0
    warmup: bool = True
    width: float = 0.0


class Borrowed(NamedTuple):
    """A finished run that another one builds on, by its family; its modules come with `Networks.borrowed`."""

    family: 'Family'


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Sampler:
    """How to sample: a solver's name, its number of steps (may be traced), guidance, and its solver's record."""

    name: str = dataclasses.field(metadata={'static': True})
    num_steps: Any = 1
    guidance: Any = dataclasses.field(default=0.0, metadata={'static': True})
    options: Any = dataclasses.field(default=DEFAULT, metadata={'static': True})

    @property
    def protocol(self) -> dict[str, Any]:
        """What results say of it; options only where they are not the default."""
        told = {'sampler': self.name, 'steps': int(self.num_steps), 'guidance': self.guidance}
        return told | ({'sampler_options': self.options.changed} if self.options.changed else {})


class Samples(NamedTuple):
    """Integer images (batch, …) and network evaluations for each image."""

    images: Array
    evaluations: Array | int


@dataclasses.dataclass(frozen=True)
class Likelihood:
    """One way to score images.

    Attributes:
      method: name of the result, e.g. 'elbo'.
      kind: 'exact', 'lower_bound' or 'estimate'; kinds are never ranked as equals.
      log_prob: (networks, integer images, conditions or None, one key an image) → log-likelihood of the discrete image
        in nats, (batch,); or a mapping with it under 'log_prob' and its parts (prior, KL terms, …) under their names.
      protocol: what the number depends on beside the checkpoint: dequantisation, draws, solver, …
      refined: the same with a finer discretisation (twice the steps, a tenth of the tolerance), where there is one;
        the difference is reported as `discretisation_error`.
      traceable: `log_prob` may be compiled as a whole; otherwise it compiles its own parts and loops over them.
    """

    method: str
    kind: str
    log_prob: Callable[[Networks, Array, Given, Array], Array | Mapping[str, Array]]
    protocol: Mapping[str, Any]
    refined: Callable[[Networks, Array, Given, Array], Array | Mapping[str, Array]] | None = None
    traceable: bool = True


class Family:
    """Base class. A family overrides `networks`, `updates` and `sample` (or `generate`), and what else it needs.

    Args:
      config: the resolved config.
      spec: the data.
      borrowed: the runs named by `borrows`.
    """

    name: ClassVar[str]
    samplers: ClassVar[tuple[str, ...]] = ('direct',)  # the first is the default
    default_steps: ClassVar[int] = 1  # of a sampler whose steps nobody says
    guidable: ClassVar[bool] = False  # a conditional model that classifier-free guidance can sharpen
    only_to_train: ClassVar[tuple[str, ...]] = ()  # borrowed runs that losses need, and samples and scores do not
    ranges: ClassVar[Mapping[str, Range]] = {'conditions': TEXTS}  # what keys of `family` that this class adds may hold
    span: Span | None = None  # of the stage that it is at; None where there is only one

    def __init__(self, config: Any, spec: DataSpec, borrowed: Mapping[str, Borrowed] | None = None):
        self.config, self.spec, self.borrowed = config, spec, dict(borrowed or {})
        self.space: Space = Pixels(spec)  # of what it models, which need not be integer images
        self.conditions = conditions.resolve(conditions.named(config.family), spec)
        self.conditional = bool(self.conditions)

    @classmethod
    def defaults(cls) -> dict[str, Any]:
        """Sections of the config that this family sets or adds to, e.g. {'family': {...}, 'network': {...}}."""
        # What a model is told of an image: conditional adds 'label' to the kinds of `data.conditions` that are named.
        return {'family': {'conditional': False, 'conditions': ()}}

    @classmethod
    def all_ranges(cls) -> dict[str, Range]:
        """`ranges` of this class and of those that it builds on."""
        return {key: one for kind in reversed(cls.__mro__) for key, one in vars(kind).get('ranges', {}).items()}

    @classmethod
    def borrows(cls, config: Any) -> dict[str, str]:
        """Finished runs this one needs: name → run folder, or RUN@AVERAGE. The config says it as `family.NAME`."""
        return {}

    @property
    def forms(self) -> dict[str, conditions.Form]:
        """What networks must be built for, by condition; empty for an unconditional model."""
        return {name: one.form for name, one in self.conditions.items()}

    @property
    def fields(self) -> tuple[str, ...]:
        """Fields that the rows of the data need beside image and label."""
        wanted = [field for one in self.conditions.values() for field in one.fields]
        return tuple(field for field in dict.fromkeys(wanted) if field not in ('image', 'label'))

    def given(self, rows: Batch, keys: Array | None = None) -> Given:
        """What the model is told of these rows, or None; `keys` take the place of `rows['key']`."""
        return conditions.make(self.conditions, rows, rows['key'] if keys is None else keys)

    def networks(self, rngs: nnx.Rngs) -> dict[str, nnx.Module]:
        """Freshly initialised modules by name."""
        raise NotImplementedError

    def initialise(self, networks: Networks, batch: Batch, key: Array) -> None:
        """Data-dependent initialisation: may change the modules in place; sees the first batch."""

    def prepare(self, networks: Networks, rows: Batch) -> Mapping[str, Array]:
        """Arrays (batch, …) that stand in the batches beside these rows under their names; made of all rows once.

        `networks` has borrowed runs only, and `rows['key']` is a key for each row, the same whatever rows it is with.
        What is made is kept in the run's folder (`training.preparation`), and is no part of checkpoints.
        """
        return {}

    @property
    def updates(self) -> tuple[Update, ...]:
        raise NotImplementedError

    @property
    def averages(self) -> tuple[Average, ...]:
        """'ema', and what `train.extra_decays` and `train.power_widths` add: 'ema_0.99', 'power_0.05', …."""
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
        """The networks of the averages: by default every one that an optimizer moves."""
        moved = [name for update in self.updates if update.optimizer is not None for name in update.networks]
        return tuple(dict.fromkeys(moved))

    @property
    def stages(self) -> tuple[Stage, ...]:
        return (Stage('main'),)

    def at(self, stage: str) -> 'Family':
        """The family in this stage: `spec` and `config` are the stage's."""
        return stages.at(self, stage)

    def carry(self, old: Networks, new: Networks) -> None:
        """Between two stages: fill the new stage's modules from the old ones, in place. Called on the new family.

        By default networks that keep their name and shapes go on as they are; others stay fresh."""
        stages.carry(old, new)

    def sample(self, networks: Networks, keys: Array, given: Given, sampler: Sampler) -> Samples:
        """Images from one key each (batch,); must not depend on which images share a batch.

        By default what `generate` makes of a standard normal latent for each key.
        """
        return Samples(self.generate(networks, self.latents(keys, sampler), keys, given, sampler), 1)

    def latents(self, keys: Array, sampler: Sampler) -> Array:
        """z of one key each (batch,), standard normal at temperature 1."""
        assert self.latent_shape is not None, 'a family without latents overrides `sample`'
        return sampler.options.temperature * rng.normal(keys, 'z', self.latent_shape)

    def evaluations(self, sampler: Sampler) -> int:
        """Network evaluations for one image with this sampler."""
        return 1

    @classmethod
    def sampler_options(cls, name: str) -> type[Options]:
        """The record of what can be chosen of this sampler."""
        return Options if cls.latent_shape is Family.latent_shape else NoiseOptions

    @classmethod
    def check_sampler(cls, name: str) -> None:
        """Raise a UserError that says why when this family cannot be sampled so."""
        if name not in cls.samplers:
            raise UserError(f'{cls.name} cannot use the sampler {name!r}: it has no path from noise to data that a '
                            f'solver could follow. Use {", ".join(cls.samplers)}.')  # fmt: skip

    def asked(self, networks: Networks) -> 'Family':
        """The family with what it must ask its networks before anything else, such as a schedule that is learned."""
        return self

    @property
    def path(self) -> Schedule | None:
        """The schedule of a family whose samplers go from noise to images in steps, which `trace` follows."""
        return None

    def trace(
        self, networks: Networks, start: Array, keys: Array, given: Given, sampler: Sampler, first: Array | int
    ) -> Trace:
        """Every state of a sampler that begins its step `first` at `start` (batch, …), a state of `path`."""
        raise NotImplementedError

    @property
    def latent_shape(self) -> tuple[int, ...] | None:
        """Of the standard normal z that `generate` takes; None where there is none, or it is the noise of `path`."""
        return None

    def generate(self, networks: Networks, latents: Array, keys: Array, given: Given, sampler: Sampler) -> Array:
        """Integer images from latents (batch, *latent_shape); what else is random comes from one key each (batch,)."""
        raise NotImplementedError

    @property
    def likelihoods(self) -> tuple[Likelihood, ...]:
        """What can be computed; empty for a family without a likelihood."""
        return ()

    def latent_model(self, networks: Networks, given: Given) -> LatentModel | None:
        """The decoder of a family that has one, for images with these conditions."""
        return None

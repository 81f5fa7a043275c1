"""Training by regression on a path: one loss with interchangeable parts.

A config selects by name how times are sampled, how they are weighted, and how noise is paired with images. The names
are keys of plain dicts of functions (`interpolants.times`, `.weights`, `.couplings`). A family that has further
functions adds them to its own copy of the dict.
"""

import copy
import functools
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from genbench import networks as modules
from genbench import rng
from genbench.data.conditions import Given
from genbench.data.spec import DataSpec
from genbench.errors import UserError
from genbench.families.base import Array, Batch, Borrowed, Likelihood, Networks, Sampler, Scalars, Update
from genbench.families.classifier import Classifier
from genbench.families.control import Control
from genbench.families.paths import PathFamily, scalars
from genbench.families.texts import NAME, Texts
from genbench.interpolants import couplings, predictions, times, weights
from genbench.interpolants.choices import Choice, choose
from genbench.interpolants.predictions import Prediction
from genbench.interpolants.schedules import Schedule, expand
from genbench.interpolants.steps import FlowMap
from genbench.networks import layers
from genbench.ranges import NOT_NEGATIVE, PATH, Range

FEWEST = 8  # the smallest batch for which coupling is worthwhile
_LACKING = {
    'even times': 'times that are even in t: use family.time_sampler=low_discrepancy, and no schedule with a curve',
    'times alone': 'a loss that uses only the drawn times, and a schedule without a curve',
    'steps': 'the times of a chain of steps: use family.time_sampler=uniform, and a schedule that is even in t',
    'bound': 'the bound in steps as the loss: use family.weight=vlb with family.learned_variance=1',
    'variances': 'learned variances: use family.learned_variance=1',
    'whole batches': 'the whole batch at once: use train.accumulate=1',
    'several images': f'at least {FEWEST} images at once: raise train.batch_size',
    'no conditions': 'an unconditional model: the choice of noise would reveal the condition, but samplers do '
    'not choose noise in this way',
}


class RegressionFamily(PathFamily):
    """A denoiser trained on E w(t) ‖y(x_t, t) − (a x + b ε)‖² / d, with the prediction's coefficients a(t), b(t)."""

    weights: Mapping[str, Choice] = weights.WEIGHTS
    couplings: Mapping[str, Choice] = couplings.COUPLINGS
    outputs: int = 1  # number of outputs of the network: 2 if it also predicts the variance of its steps
    second_time = False  # whether the network also takes the time to jump to
    control: Control | None = None  # set if `base` names a run
    classifier: Classifier | None = None  # set if `classifier` is true
    texts: Texts | None = None  # set if `text_encoder` names a file
    ranges = {'base': PATH, 'control_blocks': Range(0, 1000), 'offset_noise': NOT_NEGATIVE, 'text_skip': Range(0, 1000)}

    @classmethod
    def defaults(cls) -> dict[str, Any]:
        base = super().defaults()
        options = {
            'time_sampler': 'uniform',  # one of `times.SAMPLERS`, as NAME or NAME:key=value,…
            'weight': 'none',  # weight over time, one of `weights.WEIGHTS`
            'coupling': 'independent',  # pairing of images and noise, one of `couplings.COUPLINGS`
            'text_encoder': '',  # ARCHITECTURE:FILE of a frozen text encoder that reads the captions (`families.texts`)
            'text_skip': 0,  # how many of its last blocks the features of tokens leave out
            'base': '',  # frozen run, to be steered by conditions that are new to it (`families.control`)
            'control_blocks': 0,  # of a dit, how many first blocks of the base the control copies; 0: (depth − 1) // 2
            'offset_noise': 0.0,  # deviation of noise that all pixels of a channel share, in training (Guttenberg 2023)
            'classifier': False,  # also train a classifier of noisy images, for samplers with by=classifier
            'uncertainty': False,  # learn the log of the loss at each time, and divide by the loss (Karras et al. 2024)
        }
        return {**base, 'family': {**base['family'], **options}}

    def __init__(self, config: Any, spec: DataSpec, borrowed: Mapping[str, Borrowed] | None = None):
        super().__init__(config, spec, borrowed)
        options = config.family
        if options.control_blocks and not options.base:
            raise UserError('family.control_blocks has no effect without family.base; leave it out.')
        if options.base:
            if self.kind != 'denoiser':
                raise UserError(f'family.base needs a family that predicts images; {self.name} learns jumps.')
            self.control, self.main_network, self.controlled = Control(self), Control.name, True
        if options.text_encoder:
            if self.kind != 'denoiser' or options.base or options.classifier or 'teacher' in self.borrowed:
                raise UserError('family.text_encoder needs a diffusion or flow_matching model that stands alone, '
                                'without family.base, family.classifier and a teacher.')  # fmt: skip
            self.texts = Texts(self.borrowed[NAME].family, self.forms)  # type: ignore[arg-type]
        if options.classifier:
            if options.offset_noise:
                raise UserError('Guidance by a classifier takes the predicted noise to be −σ times the score, which is '
                                'wrong with family.offset_noise; use that or family.classifier, not both.')  # fmt: skip
            self.classifier, self.classifies = Classifier(self), True
        sampler = choose('family.time_sampler', options.time_sampler, self.time_samplers)
        weight = choose('family.weight', options.weight, self.weights)
        coupling = choose('family.coupling', options.coupling, self.couplings)
        self._time_sampler, self._weight, self._coupling = sampler.function, weight.function, coupling.function
        alone = ('times alone',) if type(self).loss is RegressionFamily.loss else ()
        self._offered = {
            *((*sampler.offers, *alone) if self.schedule.curve is None else ()),
            *weight.offers,
            *(('variances',) if self.outputs == 2 else ()),
            *(('whole batches',) if config.train.accumulate == 1 else ()),
            *(('several images',) if config.train.batch_size >= FEWEST else ()),
            *(() if self.conditional else ('no conditions',)),
        }
        self.require(f'family.time_sampler={options.time_sampler}', sampler.needs)
        self._cells: times.Cells | None = None
        if options.time_sampler.startswith('by_weight'):
            self._cells = self._time_sampler(
                self.schedule, functools.partial(self._weight, self.schedule, self.prediction)
            )
        self.require(f'family.weight={options.weight}', weight.needs)
        self.require(f'family.coupling={options.coupling}', coupling.needs)

    @property
    def time_samplers(self) -> Mapping[str, Choice]:
        return times.SAMPLERS

    def require(self, setting: str, needs: tuple[str, ...]) -> None:
        """Raise a UserError if the run does not offer what a setting needs."""
        for need in needs:
            if need not in self._offered:
                raise UserError(f'{setting} needs {_LACKING[need]}.')

    @classmethod
    def borrows(cls, config: Any) -> dict[str, str]:
        lent = {name: config.family[name] for name in ('base', NAME) if config.family[name]}
        return {**super().borrows(config), **lent}

    def networks(self, rngs: nnx.Rngs) -> dict[str, nnx.Module]:
        forms = self.texts.forms(self.forms) if self.texts else self.forms
        denoiser = self.control.network(rngs) if self.control else modules.denoiser(
            self.config.network, self.space, forms, rngs, second_time=self.second_time, outputs=self.outputs
        )  # fmt: skip
        uncertain = {'uncertainty': Uncertainty(rngs, self.schedule)} if self.config.family.uncertainty else {}
        classifier = {Classifier.name: self.classifier.network(rngs)} if self.classifier else {}
        return {**self.space.modules(), self.main_network: denoiser, **uncertain, **classifier}

    def network(self, networks: Networks) -> Callable[..., Array]:
        network = self.control.denoiser(networks) if self.control else super().network(networks)
        return self.texts.reading(network, networks) if self.texts else network

    def denoise(self, networks: Networks, given: Given, guidance: float = 0.0, clip: bool | float = False, **options):
        if self.texts and given is not None:  # read once, and not at every step of a sampler
            count = len(jax.tree.leaves(given)[0])
            given = self.texts.told(networks, given, count)
            options['negative'] = self.texts.told(networks, options.get('negative'), count)
        return super().denoise(networks, given, guidance, clip, **options)

    def _sampled(self, networks: Networks, given: Given, sampler: Sampler) -> predictions.Denoiser:
        if self.control is None or self.control.scale == sampler.options.control:
            return super()._sampled(networks, given, sampler)
        family = copy.copy(self)
        family.control = self.control.scaled(sampler.options.control)
        return family._sampled(networks, given, sampler)

    def initialise(self, networks: Networks, batch: Batch, key: Array) -> None:
        super().initialise(networks, batch, key)
        if self.control:
            self.control.initialise(networks)

    @property
    def updates(self) -> tuple[Update, ...]:
        networks = (self.main_network, *(('uncertainty',) if self.config.family.uncertainty else ()))
        kind = Classifier.name
        classifier = (Update(kind, (kind,), self.classifier.loss),) if self.classifier else ()
        return (Update(self.main_network, networks, self.loss), *classifier)

    @property
    def averaged(self) -> tuple[str, ...]:
        return (self.main_network, *((Classifier.name,) if self.classifier else ()))

    def slope(self, networks: Networks, given: Given) -> Callable[[Array, Array], Array] | None:
        return self.classifier.slope(networks, given) if self.classifier else None

    def times(self, keys: Array) -> Array:
        """Times to train at, (batch,)."""
        return self._cells.draw(keys) if self._cells else self._time_sampler(self.schedule, keys)

    def weight(self, t: Array) -> Array:
        """The factor (batch,) of the prediction's squared error, divided by how often times like t are drawn."""
        weight = self._weight(self.schedule, self.prediction, t)
        return weight / self._cells.at(t) if self._cells else weight

    def pairs(self, networks: Networks, rows: Batch, key: Array) -> tuple[Array, Array, Given]:
        x, noise, given = super().pairs(networks, rows, key)
        noise = self._coupling(x, noise)
        if self.config.family.offset_noise:
            shared = rng.normal(rows['key'], 'offset', (1, 1, noise.shape[-1]))
            noise += self.config.family.offset_noise * shared
        return x, noise, given

    def loss(self, networks: Networks, batch: Batch, key: Array, step: Array) -> tuple[Array, Scalars]:
        """The regression loss, plus the loss of anything learned alongside it."""
        family = self.asked(networks)
        return family.total(networks, *family.losses(networks, batch, key))

    def spread(self, networks: Networks, batch: Batch, key: Array, step: Array) -> tuple[Array, Scalars]:
        """The second moment of the regression. The shape of a learned schedule changes this moment but not the mean
        (Kingma et al. 2021, section 5.2 and appendix H)."""
        loss, _ = self.asked(networks).losses(networks, batch, key)
        return scalars(jnp.square(loss).mean(), mean=loss.mean())

    def losses(self, networks: Networks, batch: Batch, key: Array) -> tuple[Array, Array]:
        """The regression loss of each image and its time, both (batch,)."""
        t = self.times(batch['key'])
        return self.losses_at(networks, batch, key, t), t

    def losses_at(self, networks: Networks, batch: Batch, key: Array, t: Array) -> Array:
        """The regression loss of each image at its time t, (batch,)."""
        x, noise, given = self.pairs(networks, batch, key)
        return self.regression(self.network(networks), x, noise, given, t, key)

    def regression(
        self, network: Callable[..., Array], x: Array, noise: Array, given: Given, t: Array, key: Array
    ) -> Array:
        """The loss (batch,) of a network that sees x_t = α x + σ ε at the times t (batch,)."""
        x_t = self.schedule.perturb(x, noise, t)
        x_seen = predictions.seen(self.prediction, self.schedule, x_t, t)
        y = network(x_seen, self.schedule.condition(t), given, key=key)
        y, variance = predictions.outputs(y, x)
        error = y - predictions.target(self.prediction, self.schedule, x, noise, t)
        loss = jnp.square(error).mean((1, 2, 3)) * self.weight(t)
        if variance is not None:
            predicted = predictions.convert(self.prediction, self.schedule, y, x_t, t)._replace(variance=variance)
            loss += self.variance_loss(x, t, predicted)
        return loss

    def total(self, networks: Networks, loss: Array, t: Array) -> tuple[Array, Scalars]:
        """The mean of the images' losses (batch,). If the usual loss at each time is learned, each is divided by it."""
        if not self.config.family.uncertainty:
            return scalars(loss.mean())
        log_variance = networks['uncertainty'](self.schedule.condition(t))
        return scalars((loss * jnp.exp(-log_variance) + log_variance).mean(), regression=loss.mean())

    def variance_loss(self, x: Array, t: Array, predicted: Prediction) -> Array:
        """The loss (batch,) of the second output, which a family with two outputs adds to each image's loss."""
        raise NotImplementedError


class FlowMapFamily(RegressionFamily):
    """A network u(x_t, t, s), the mean velocity between two times: x_s = x_t − (t − s) u in any number of steps.

    u(x_t, t, t) is the velocity of flow matching.
    """

    kind = 'map'
    default_steps = 1
    second_time = True
    guidable = False  # guidance would have to be learned

    @classmethod
    def defaults(cls) -> dict[str, Any]:
        base = super().defaults()
        options = {'schedule': 'straight', 'prediction': 'velocity', 'condition_dropout': 0.0}
        return {**base, 'family': {**base['family'], **options}}

    def __init__(self, config: Any, spec: DataSpec, borrowed: Mapping[str, Borrowed] | None = None):
        super().__init__(config, spec, borrowed)
        if self.prediction != 'velocity':
            raise UserError(f'family.prediction is {self.prediction!r}, but {self.name} learns a mean velocity; use '
                            'velocity.')  # fmt: skip

    def mean_velocity(self, networks: Networks, given: Given, key: Array | None = None) -> Callable[..., Array]:
        """u as a function of (x_t, t, s), with dropout if there is a key."""

        def velocity(x_t: Array, t: Array, s: Array) -> Array:
            t, s = self.schedule.condition(t), self.schedule.condition(s)
            return networks['denoiser'](x_t, t, given, **({} if key is None else {'key': key}), s=s)

        return velocity

    def flow_map(self, networks: Networks, given: Given, sampler: Sampler) -> FlowMap:
        velocity = self.mean_velocity(networks, given)
        return lambda x_t, t, s: x_t - expand(t - s, x_t) * velocity(x_t, t, s)

    @property
    def likelihoods(self) -> tuple[Likelihood, ...]:
        """None, since learned jumps only approximate the flow of the velocity."""
        return ()


class Uncertainty(nnx.Module):
    """log E[loss | t] at times (batch,), used in training only and initially zero (Karras et al. 2024, equation 14).

    Times are those that networks see on this schedule. The fastest sinusoid has an angle of at least 100 over them.
    """

    def __init__(self, rngs: nnx.Rngs, schedule: Schedule, features: int = 128):
        self.features = features
        with jax.ensure_compile_time_eval():
            low, high = schedule.condition(jnp.asarray([schedule.t_min, schedule.t_max]))
            self.scale = 100.0 / min(1.0, float(high - low))
        self.output = layers.Linear(features, 1, kernel_init=layers.zeros, rngs=rngs)

    def __call__(self, t: Array) -> Array:
        return self.output(layers.timestep_embedding(t, self.features, scale=self.scale))[:, 0]

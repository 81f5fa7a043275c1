"""The basis of families on a Gaussian path: one denoiser, its solvers, its density and its bounds."""

import copy
import dataclasses
import functools
from collections.abc import Callable, Mapping
from typing import Any, ClassVar, Self

import jax
import jax.numpy as jnp
from flax import nnx

from genbench import networks as modules
from genbench import rng
from genbench.data import conditions
from genbench.data.conditions import Given
from genbench.data.spec import DataSpec
from genbench.errors import UserError
from genbench.families import dequantisation, originals, spaces
from genbench.families.base import Array, Batch, Borrowed, Family, Likelihood, Networks, Sampler, Samples, Scalars
from genbench.families.bounds import VariationalBound
from genbench.families.spaces import Latents, Pixels
from genbench.interpolants import density, predictions, schedules, solvers, steps
from genbench.interpolants.inverse import Observation
from genbench.interpolants.options import FULL, PathOptions
from genbench.interpolants.solvers import Kept, Path, Solver, Trace
from genbench.networks.layers import plain_attention
from genbench.ranges import PATH, PROBABILITY


class PathFamily(Family):
    """The path x_t = α x + σ ε and a network, 'denoiser', that predicts one of `predictions.NAMES` from x_t and t."""

    kind = 'denoiser'  # kind of network; it decides the solvers: or 'endpoint', or 'map' if `flow_map` is overridden
    samplers = solvers.names(kind)
    solvers: ClassVar[Mapping[str, Solver]] = {}  # the family's own, in addition to those for its kind
    default_steps = 25
    guidable = True
    main_network = 'denoiser'
    learnable = False  # whether `schedule=learned` is allowed; every loss then takes the schedule from the networks
    ranges = {'condition_dropout': PROBABILITY, 'first_stage': PATH}
    draw: Callable[..., Array] = staticmethod(rng.normal)  # (keys, name, shape) → ε (batch, *shape)

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        if 'samplers' not in vars(cls):
            cls.samplers = solvers.names(cls.kind, cls.solvers)

    def __init__(self, config: Any, spec: DataSpec, borrowed: Mapping[str, Borrowed] | None = None):
        super().__init__(config, spec, borrowed)
        if conditions.WEIGHT in self.conditions and not self.distils:
            raise UserError(f'The condition {conditions.WEIGHT} is for a model that distils the guidance of a '
                            'teacher; this one would learn to ignore it. Use the guidance of the sampler.')  # fmt: skip
        self.schedule = schedules.get(self.path_config.schedule)
        if self.schedule.name == 'learned' and not self.learnable:
            raise UserError(f'family.schedule is learned, but {self.name} cannot learn one.')
        self.prediction = predictions.check(self.path_config.prediction)
        if self.prediction in ('noise', 'score') and self.schedule.alpha(jnp.asarray(self.schedule.t_max)) <= 0:
            raise UserError(
                f'The prediction {self.prediction!r} does not determine the image where the schedule '
                f'{self.schedule.name!r} starts, at pure noise; use x, v or velocity.'
            )
        if self.schedule.name == 'edm' and self.prediction != 'preconditioned':
            raise UserError('The schedule edm adds noise up to eighty times the size of images; use family.prediction='
                            'preconditioned, which scales the input of the network.')  # fmt: skip
        if self.path_config.dequantisation not in ('uniform', 'none'):
            raise UserError(f'family.dequantisation is {self.path_config.dequantisation!r}; it can be uniform or none.')
        preconditioned = self.prediction == 'preconditioned'  # for the standard deviation that it assumes for the data
        self.space = spaces.make(self.path_config, spec, borrowed, predictions.SIGMA_DATA if preconditioned else 1.0)
        self._check_latents()
        self.ode = density.Ode(**config.evaluation.ode)
        if config.evaluation.truncation <= 0:
            raise UserError(f'evaluation.truncation is {config.evaluation.truncation}; it should be above 0.')
        self.scored = self.schedule
        if self.prediction != 'x':  # below the trained times, the error in ε̂ grows without bound, like 1 / σ
            self.scored = self.schedule.stopping_at(config.evaluation.truncation * self.space.width)

    @classmethod
    def defaults(cls) -> dict[str, Any]:
        path = {
            'schedule': '',
            'prediction': '',
            'dequantisation': 'uniform',  # or 'none': every image is at the centre of its bins
            'condition_dropout': 0.1,  # how often training drops the conditions, for classifier-free guidance
            'clip': False,  # clip the predicted image while sampling
            'first_stage': '',  # RUN or RUN@AVERAGE of a vae; the family then models its latents; '': pixels
            'cache_latents': False,  # compute the posterior of every training image once, and keep it in the run folder
        }
        return {'family': {**super().defaults()['family'], **path}, 'network': {'name': 'unet'}}

    @classmethod
    def borrows(cls, config: Any) -> dict[str, str]:
        run = config.family.get('first_stage')
        return {**super().borrows(config), **({'first_stage': run} if run else {})}

    @property
    def distils(self) -> bool:
        """Whether the model learns guidance, so that it can use the condition `guidance_weight`."""
        return False

    def _check_latents(self) -> None:
        """Raise a UserError if a setting is for pixels but this model is one of latents."""
        if self.path_config.clip and not self.space.bounded:
            raise UserError(f'family.clip is True, which cuts x to [−1, 1], and {self.space.name} reach further; use '
                            'False.')  # fmt: skip
        if isinstance(self.space, Pixels):
            return
        for name, form in self.forms.items():
            if form.type == 'image' and form.shape[:2] != self.space.shape[:2]:
                size = '×'.join(map(str, self.space.shape[:2]))
                raise UserError(f'The condition {name} is a picture in pixels, but the latents of this first stage are '
                                f'{size}; use another condition.')  # fmt: skip

    @property
    def path_config(self) -> Any:
        """The config section that sets the schedule, prediction and dequantisation."""
        return self.config.family

    def network(self, networks: Networks) -> Callable[..., Array]:
        """The predicting network, as a function of (x_t, t, given)."""
        return networks[self.main_network]

    def networks(self, rngs: nnx.Rngs) -> dict[str, nnx.Module]:
        return self.space.modules() | {'denoiser': modules.denoiser(self.config.network, self.space, self.forms, rngs)}

    def initialise(self, networks: Networks, batch: Batch, key: Array) -> None:
        self.space.measure(networks, batch)

    def asked(self, networks: Networks) -> Self:
        if self.schedule.name != 'learned':
            return self
        family = copy.copy(self)
        still, shape = self.schedule.still or self.schedule, networks['schedule']
        family.schedule = dataclasses.replace(schedules.learned(shape), still=still)
        family.scored = dataclasses.replace(
            family.schedule, t_min=self.scored.t_min, still=self.scored.still or self.scored
        )
        return family

    def prepare(self, networks: Networks, rows: Batch) -> Mapping[str, Array]:
        return {**super().prepare(networks, rows), **self.space.prepare(networks, rows)}

    def pairs(self, networks: Networks, rows: Batch, key: Array) -> tuple[Array, Array, Given]:
        """The image in the data space, the noise, both (batch, …), and the conditions of each row's training path."""
        noise = self.draw(rows['key'], 'noise', self.space.shape)
        return self.space.encode(networks, rows), noise, self.dropped(rows)

    def dropped(self, batch: Batch) -> Given:
        """The conditions, nulled for some of the images, or None for an unconditional model."""
        return conditions.drop(self.conditions, self.given(batch), self.silent(batch))

    def silent(self, batch: Batch) -> Array:
        """Which images have their conditions nulled, (batch,)."""
        return rng.uniform(batch['key'], 'dropped') < self.path_config.condition_dropout

    def denoise(self, networks: Networks, given: Given, guidance: float = 0.0, clip: bool | float = False, **options):
        """A function of (x_t, t) that gives the clean image and the noise in x_t; see `predictions.denoiser`."""
        schedule = self.asked(networks).schedule
        return predictions.denoiser(self.network(networks), self.prediction, schedule, given, guidance, clip, **options)

    def slope(self, networks: Networks, given: Given) -> Callable[[Array, Array], Array] | None:
        """A function of (x_t, t) that gives ∇ log p(label | x_t), for a model with a classifier."""
        return None

    def flow_map(self, networks: Networks, given: Given, sampler: Sampler) -> steps.FlowMap | None:
        """A function of (x_t, t, s) that gives x_s on the trajectory through x_t, for a network of the kind 'map'."""
        return None

    @classmethod
    def solver(cls, name: str) -> Solver:
        """The family's own solver of this name, or else the registry's. If there is none, a UserError says why."""
        return solvers.get(name, cls.kind, cls.solvers)

    @classmethod
    def check_sampler(cls, name: str) -> None:
        cls.solver(name)

    @classmethod
    def sampler_options(cls, name: str) -> type[PathOptions]:
        return cls.solver(name).options

    def starts(self, keys: Array) -> Array:
        return solvers.initial_noise(self.schedule, keys, self.space.shape, self.draw)

    def sample(self, networks: Networks, keys: Array, given: Given, sampler: Sampler) -> Samples:
        given, held = conditions.apart(given)
        noise = held.pop('noise', None)
        if held and not self.sampler_options(sampler.name).on_grid:
            raise UserError(f'The sampler {sampler.name} takes other steps for each image and cannot start from an '
                            'original; use ddim or heun.')  # fmt: skip
        kept = originals.kept(held, sampler, self.space, self.kind)
        observed = originals.observed(held, sampler, self.space, keys, self.kind)
        if kept is not None:
            kept = kept._replace(image=self.space.place(networks, kept.image))
        start = self.starts(keys) if noise is None else self.schedule.sigma(jnp.asarray(self.schedule.t_max)) * noise
        start = sampler.options.temperature * start
        path = self.carried(networks, start, keys, given, sampler, kept, observed)
        images = self.space.decode(networks, path.x)
        return Samples(images, self._evaluations(sampler, guided=given is not None))

    def carried(
        self, networks: Networks, start: Array, keys: Array, given: Given, sampler: Sampler, kept: Kept | None = None,
        observed: Observation | None = None,
    ) -> Path:  # fmt: skip
        """Run a sampler from `start` (batch, …), x at t_max, to real-valued images."""
        return solvers.solve(
            self.solver(sampler.name), self.asked(networks).schedule, self._sampled(networks, given, sampler), start,
            keys, sampler.num_steps, sampler.options, self._jumps(networks, given, sampler), kept, observed,
        )  # fmt: skip

    def why_no_inverse(self, sampler: Sampler) -> str:
        if not self.from_noise:
            return 'its paths start at family.source, and not at noise'
        if self.kind != 'denoiser':
            return 'inversion follows the slope of the trajectory through an image, and its network jumps along it'
        if solvers.draws(self.solver(sampler.name), sampler.options):
            return f'the sampler {sampler.name} draws noise on its way; use ddim or heun'
        return ''

    def inverted(self, networks: Networks, images: Array, keys: Array, given: Given, sampler: Sampler) -> Array:
        schedule, count = self.asked(networks).schedule, jnp.asarray(sampler.num_steps)
        denoise, x = self._sampled(networks, given, sampler), self.space.centre(networks, images)
        start = steps.inverted(schedule, denoise, x, count, count, sampler.options.spacing)
        return start / schedule.sigma(jnp.asarray(schedule.t_max))

    @property
    def path(self) -> schedules.Schedule | None:
        return self.schedule

    def trace(
        self, networks: Networks, start: Array, keys: Array, given: Given, sampler: Sampler, first: Array | int
    ) -> Trace:
        return solvers.trace(
            self.solver(sampler.name), self.asked(networks).schedule, self._sampled(networks, given, sampler), start,
            keys, int(sampler.num_steps), first, sampler.options, self._jumps(networks, given, sampler),
        )  # fmt: skip

    def check_guide(self, guide: Family) -> None:
        """Raise a UserError with the reason if `guide` cannot guide this family."""
        if not isinstance(guide, PathFamily) or guide.kind != 'denoiser':
            raise UserError(f'it is a {guide.name} model, which does not predict images from noise; use a diffusion or '
                            'flow_matching run.')  # fmt: skip
        if isinstance(self.space, Latents) or isinstance(guide.space, Latents):
            raise UserError('guidance by a run needs pixels, but one of the two runs models latents.')
        if guide.spec != self.spec:
            raise UserError(f'it was trained on {guide.spec}, but this run on {self.spec}.')
        for name, form in guide.forms.items():
            if self.forms.get(name) != form:
                raise UserError(f'it needs the condition {name}, which this run does not have.')

    def _guide(self, networks: Networks, given: Given, name: str) -> predictions.Denoiser:
        """The denoiser of the run that serves as the guide, on this family's path."""
        guide: Any = self.borrowed[name].family
        told = {kind: (given or {})[kind] for kind in guide.forms} or None
        lent = networks.borrowed(name)
        schedules = guide.asked(lent).schedule, self.asked(networks).schedule
        return predictions.on_path(guide.denoise(lent, told), *schedules)

    def _sampled(self, networks: Networks, given: Given, sampler: Sampler) -> predictions.Denoiser:
        """The denoiser with this sampler's options applied."""
        options, negative = sampler.options, None
        if options.threshold not in ('', 'none') and not self.space.bounded:
            raise UserError('The option threshold is for pixels in [−1, 1], and this model has none; leave it out.')
        guide = self._guide(networks, given, options.guide) if options.guide else None
        clip = {'': self.path_config.clip, 'none': False, 'static': True}.get(options.threshold, options.threshold)
        if options.negative and given is not None:
            count = len(jax.tree.leaves(given)[0])
            negative = conditions.stated(self.conditions, options.negative, count)
        how = {'interval': options.interval, 'negative': negative, 'guide': guide}
        if options.by == 'classifier':
            how['slope'] = self.slope(networks, given)
        how |= {'plain_noise': True} if getattr(options, 'renoise', '') == 'plain' else {}
        weight = 0.0 if self._knows_weight(sampler) else sampler.guidance
        return self.denoise(networks, self._told(given, sampler), weight, clip, **how)

    def _jumps(self, networks: Networks, given: Given, sampler: Sampler) -> steps.FlowMap | None:
        return self.flow_map(networks, self._told(given, sampler), sampler)

    def _knows_weight(self, sampler: Sampler) -> bool:
        """Whether the networks take the guidance weight as a condition. Guidance then costs no second evaluation."""
        return conditions.WEIGHT in self.conditions and not sampler.options.guide

    def _told(self, given: Given, sampler: Sampler) -> Given:
        if not self._knows_weight(sampler):
            return given
        return conditions.weighed(given, sampler.guidance)

    def evaluations(self, sampler: Sampler) -> int:
        return int(self._evaluations(sampler, guided=self.conditional))

    def _evaluations(self, sampler: Sampler, guided: bool) -> Array:
        solver, num_steps = self.solver(sampler.name), sampler.num_steps
        doubled = sampler.options.guides(sampler.guidance) and not self._knows_weight(sampler)
        if not ((guided or sampler.options.guide) and doubled):
            return solvers.evaluations(solver, num_steps, sampler.options)
        if self.schedule.name == 'learned' and sampler.options.interval != FULL:
            raise UserError('The cost of the sampler option interval depends on the schedule, which is learned; remove '
                            'interval.')  # fmt: skip
        return solvers.guided_evaluations(solver, self.schedule, num_steps, sampler.options)

    @property
    def likelihoods(self) -> tuple[Likelihood, ...]:
        if isinstance(self.space, Latents) and not self.space.scored:
            return ()
        ode, options = self.ode, self.config.evaluation
        if ode.solver in density.ADAPTIVE:
            density.require_diffrax()  # fail before scoring
        ends = {'t_min': self.scored.t_min, 't_max': self.scored.t_max, 'decoder': 'normal around x_t / alpha'}
        protocol, parts = ode.protocol(self._followed), None
        if not self.space.drawn:
            protocol['trained_on'] = 'centres of bins'
        elif isinstance(self.space, Pixels):
            parts = {'truncation_at_most': -self.spec.num_dims * dequantisation.smoothing_cost(self._scored_noise)}
        estimates = dequantisation.likelihoods(
            'ode', 'estimate', self.space, options.dequantisation_draws, functools.partial(self._ode_density, ode),
            protocol, refined=functools.partial(self._ode_density, ode.refined()), parts=parts,
        )  # fmt: skip
        return (
            *estimates,
            self._bound('vlb_continuous', self._vlb_continuous, ends),
        )

    @property
    def _followed(self) -> schedules.Schedule:
        """The path of the ODE that gives the density at dequantised images.

        A model trained on the centres of bins does not have a flat density inside them. The closer to the data the ODE
        stops, the lower is the density everywhere but at the centres.
        """
        return self.scored if self.space.drawn else self.schedule

    @property
    def _scored_noise(self) -> float:
        """σ / α at the time where densities stop, in units of the bin width."""
        with jax.ensure_compile_time_eval():
            t = jnp.asarray(self.scored.t_min)
            return float(self.scored.sigma(t) / self.scored.alpha(t)) / self.space.width

    def _ode_density(self, ode: density.Ode, networks: Networks, given: Given) -> dequantisation.LogDensity:
        def denoise(x_t, t, given):
            with plain_attention():  # the divergence needs forward-mode differentiation
                return self.denoise(networks, given)(x_t, t)

        def log_density(x, keys):
            return density.log_density(self.asked(networks)._followed, denoise, x, keys, ode, given)

        return log_density

    @property
    def bound(self) -> VariationalBound:
        return VariationalBound(self.space, self.scored, self.config.evaluation.vlb_draws)

    def _bound(self, method: str, log_prob: Any, protocol: Mapping[str, Any]) -> Likelihood:
        protocol = {**self.bound.protocol, **protocol}
        return Likelihood(self.space.method(method), 'lower_bound', log_prob, protocol)

    def _vlb_continuous(self, networks: Networks, images: Array, given: Given, keys: Array) -> Mapping[str, Array]:
        bound = self.asked(networks).bound
        return bound.in_continuous_time(self.denoise(networks, given), images, keys, networks)


def scalars(loss: Array, **others: Array) -> tuple[Array, Scalars]:
    """The scalar loss, and the named scalars to log, which include it."""
    return loss, {'loss': loss, **others}

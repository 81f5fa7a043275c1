"""What families on a Gaussian path share: one denoiser, regression on a prediction, any solver, density and bound."""

import functools
import math
from collections.abc import Callable, Mapping
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
from flax import nnx

from genbench import networks as modules
from genbench import rng
from genbench.data import conditions
from genbench.data.conditions import Given
from genbench.data.spec import DataSpec
from genbench.errors import UserError
from genbench.families import dequantisation
from genbench.families.base import Array, Batch, Borrowed, Family, Likelihood, Networks, Sampler, Samples, Scalars
from genbench.families.bounds import VariationalBound
from genbench.interpolants import density, predictions, schedules, solvers, steps
from genbench.interpolants.options import PathOptions
from genbench.interpolants.solvers import Solver, Trace
from genbench.networks.layers import plain_attention
from genbench.ranges import PROBABILITY


class PathFamily(Family):
    """x_t = α x + σ ε with a network, called 'denoiser', that predicts one of `predictions.NAMES` from x_t and t."""

    kind = 'denoiser'  # of the network, which solvers need: or 'endpoint', or 'map' where `flow_map` is overridden
    samplers = solvers.names(kind)
    solvers: ClassVar[Mapping[str, Solver]] = {}  # of the family itself, beside those for its kind
    default_steps = 25
    guidable = True
    main_network = 'denoiser'
    ranges = {'condition_dropout': PROBABILITY}

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        if 'samplers' not in vars(cls):
            cls.samplers = solvers.names(cls.kind, cls.solvers)

    def __init__(self, config: Any, spec: DataSpec, borrowed: Mapping[str, Borrowed] | None = None):
        super().__init__(config, spec, borrowed)
        self.schedule = schedules.get(self.path_config.schedule)
        self.prediction = predictions.check(self.path_config.prediction)
        if self.prediction in ('noise', 'score') and self.schedule.alpha(jnp.asarray(self.schedule.t_max)) <= 0:
            raise UserError(
                f'The prediction {self.prediction!r} says nothing of the image where the schedule '
                f'{self.schedule.name!r} starts, at pure noise; use x, v or velocity.'
            )
        if self.schedule.name == 'edm' and self.prediction != 'preconditioned':
            raise UserError('The schedule edm adds noise up to eighty times the images; use family.prediction='
                            'preconditioned, whose network sees it scaled.')  # fmt: skip
        if self.path_config.dequantisation not in ('uniform', 'none'):
            raise UserError(f'family.dequantisation is {self.path_config.dequantisation!r}; it can be uniform or none.')
        self.ode = density.Ode(**config.evaluation.ode)
        if config.evaluation.truncation <= 0:
            raise UserError(f'evaluation.truncation is {config.evaluation.truncation}; it should be above 0.')
        self.scored = self.schedule
        if self.prediction != 'x':  # whose error in ε̂, divided by σ, grows without bound below the trained times
            self.scored = self.schedule.stopping_at(config.evaluation.truncation * math.exp(spec.log_bin_width))

    @classmethod
    def defaults(cls) -> dict[str, Any]:
        path = {
            'schedule': '',
            'prediction': '',
            'dequantisation': 'uniform',  # or 'none': images sit at the centres of their bins
            'condition_dropout': 0.1,  # of a conditional network, for classifier-free guidance
            'clip': False,  # clip the predicted image while sampling
        }
        return {'family': {**super().defaults()['family'], **path}, 'network': {'name': 'unet'}}

    @property
    def path_config(self) -> Any:
        """The config section that says schedule, prediction and dequantisation."""
        return self.config.family

    def network(self, networks: Networks) -> Callable[..., Array]:
        """What predicts, as a function of (x_t, t, given)."""
        return networks[self.main_network]

    def networks(self, rngs: nnx.Rngs) -> dict[str, nnx.Module]:
        return {'denoiser': modules.denoiser(self.config.network, self.spec, self.forms, rngs)}

    def pairs(self, networks: Networks, rows: Batch, key: Array) -> tuple[Array, Array, Given]:
        """Image, noise, both (batch, …), and conditions of the paths to train on, one a row."""
        return self.real_images(rows), rng.normal(rows['key'], 'noise', self.spec.shape), self.dropped(rows)

    def real_images(self, batch: Batch) -> Array:
        place = rng.uniform(batch['key'], 'bins', self.spec.shape) if self._dequantised else 0.5
        return self.spec.dequantise(batch['image'], place)

    def dropped(self, batch: Batch) -> Given:
        """Conditions that for some images say nothing, or None for an unconditional model."""
        silent = rng.uniform(batch['key'], 'dropped') < self.path_config.condition_dropout
        return conditions.drop(self.conditions, self.given(batch), silent)

    def denoise(self, networks: Networks, given: Given, guidance: float = 0.0, clip: bool | float = False, **options):
        """The clean image and the noise in x_t, as a function of (x_t, t); see `predictions.denoiser`."""
        return predictions.denoiser(
            self.network(networks), self.prediction, self.schedule, given, guidance, clip, **options
        )

    def flow_map(self, networks: Networks, given: Given, sampler: Sampler) -> steps.FlowMap | None:
        """x_s on the trajectory through x_t, as a function of (x_t, t, s), of a network of the kind 'map'."""
        return None

    @classmethod
    def solver(cls, name: str) -> Solver:
        """The family's own solver of this name, or the registry's; a UserError says why there is none."""
        return solvers.get(name, cls.kind, cls.solvers)

    @classmethod
    def check_sampler(cls, name: str) -> None:
        cls.solver(name)

    @classmethod
    def sampler_options(cls, name: str) -> type[PathOptions]:
        return cls.solver(name).options

    def sample(self, networks: Networks, keys: Array, given: Given, sampler: Sampler) -> Samples:
        given, held = conditions.apart(given)
        kept = _kept(held, sampler)
        start = sampler.options.temperature * solvers.initial_noise(self.schedule, keys, self.spec.shape)
        path = solvers.solve(
            self.solver(sampler.name), self.schedule, self._sampled(networks, given, sampler), start, keys,
            sampler.num_steps, sampler.options, self.flow_map(networks, given, sampler), kept,
        )  # fmt: skip
        return Samples(self.spec.quantise(path.x), self._evaluations(sampler, guided=given is not None))

    @property
    def path(self) -> schedules.Schedule:
        return self.schedule

    def trace(
        self, networks: Networks, start: Array, keys: Array, given: Given, sampler: Sampler, first: Array | int
    ) -> Trace:
        return solvers.trace(
            self.solver(sampler.name), self.schedule, self._sampled(networks, given, sampler), start, keys,
            int(sampler.num_steps), first, sampler.options, self.flow_map(networks, given, sampler),
        )  # fmt: skip

    def check_guide(self, guide: Family) -> None:
        """Raise a UserError that says why where this family cannot be guided by another one."""
        if not isinstance(guide, PathFamily) or guide.kind != 'denoiser':
            raise UserError(f'it is a {guide.name} model, which predicts no image from noise; use a diffusion or '
                            'flow_matching run.')  # fmt: skip
        if guide.spec != self.spec:
            raise UserError(f'it was trained on {guide.spec}, and this run on {self.spec}.')
        for name, form in guide.forms.items():
            if self.forms.get(name) != form:
                raise UserError(f'it needs the condition {name}, which this run was not trained with.')

    def _guide(self, networks: Networks, given: Given, name: str) -> predictions.Denoiser:
        """The denoiser of a run that is lent as a guide, on this family's path."""
        guide: Any = self.borrowed[name].family
        told = {kind: (given or {})[kind] for kind in guide.forms} or None
        return predictions.on_path(guide.denoise(networks.borrowed(name), told), guide.schedule, self.schedule)

    def _sampled(self, networks: Networks, given: Given, sampler: Sampler) -> predictions.Denoiser:
        """The denoiser as this sampler's options have it."""
        options, negative = sampler.options, None
        guide = self._guide(networks, given, options.guide) if options.guide else None
        clip = {'': self.path_config.clip, 'none': False, 'static': True}.get(options.threshold, options.threshold)
        if options.negative and given is not None:
            count = len(jax.tree.leaves(given)[0])
            negative = conditions.stated(self.conditions, options.negative, count)
        how = {'interval': options.interval, 'negative': negative, 'guide': guide}
        return self.denoise(networks, given, sampler.guidance, clip, **how)

    def evaluations(self, sampler: Sampler) -> int:
        return int(self._evaluations(sampler, guided=self.conditional))

    def _evaluations(self, sampler: Sampler, guided: bool) -> Array:
        solver, num_steps = self.solver(sampler.name), sampler.num_steps
        if not ((guided or sampler.options.guide) and sampler.guidance):
            return solvers.evaluations(solver, num_steps, sampler.options)
        return solvers.guided_evaluations(solver, self.schedule, num_steps, sampler.options)

    @property
    def likelihoods(self) -> tuple[Likelihood, ...]:
        ode, options = self.ode, self.config.evaluation
        if ode.solver in density.ADAPTIVE:
            density.require_diffrax()  # before anything is scored
        ends = {'t_min': self.scored.t_min, 't_max': self.scored.t_max, 'decoder': 'normal around x_t / alpha'}
        protocol, parts = ode.protocol(self._followed), None
        if self._dequantised:
            parts = {'truncation_at_most': -self.spec.num_dims * dequantisation.smoothing_cost(self._scored_noise)}
        else:
            protocol['trained_on'] = 'centres of bins'
        estimates = dequantisation.likelihoods(
            'ode', 'estimate', self.spec, options.dequantisation_draws, functools.partial(self._ode_density, ode),
            protocol, refined=functools.partial(self._ode_density, ode.refined()), parts=parts,
        )  # fmt: skip
        return (
            *estimates,
            Likelihood('vlb_continuous', 'lower_bound', self._vlb_continuous, {**self.bound.protocol, **ends}),
        )  # fmt: skip

    @property
    def _dequantised(self) -> bool:
        return self.path_config.dequantisation == 'uniform'

    @property
    def _followed(self) -> schedules.Schedule:
        """The path of the ODE, which takes its density at dequantised images.

        A model trained on the centres of bins has no flat density inside them: the nearer to the data the ODE stops,
        the less likely all points but the centres are.
        """
        return self.scored if self._dequantised else self.schedule

    @property
    def _scored_noise(self) -> float:
        """σ / α where densities stop, in widths of a bin."""
        with jax.ensure_compile_time_eval():
            t = jnp.asarray(self.scored.t_min)
            return float(self.scored.sigma(t) / self.scored.alpha(t)) / math.exp(self.spec.log_bin_width)

    def _ode_density(self, ode: density.Ode, networks: Networks, given: Given) -> dequantisation.LogDensity:
        def denoise(x_t, t, given):
            with plain_attention():  # its divergence is differentiated forwards
                return self.denoise(networks, given)(x_t, t)

        def log_density(x, keys):
            return density.log_density(self._followed, denoise, x, keys, ode, given)

        return log_density

    @property
    def bound(self) -> VariationalBound:
        return VariationalBound(self.spec, self.scored, self._dequantised, self.config.evaluation.vlb_draws)

    def _vlb_continuous(self, networks: Networks, images: Array, given: Given, keys: Array) -> Mapping[str, Array]:
        return self.bound.in_continuous_time(self.denoise(networks, given), images, keys)


def _kept(held: Mapping[str, Array], sampler: Sampler) -> solvers.Kept | None:
    """The original of samples and its known pixels; a UserError where one of them, or an option, has no use."""
    said, known = sampler.options.changed, '--given known=IMAGE, white where the original is kept'
    if 'original' not in held and (held or 'strength' in said or 'resample' in said):
        what = 'known' if held else 'strength' if 'strength' in said else 'resample'
        raise UserError(f'Sampling with {what} needs an image to start from: --given original=IMAGE.')
    if 'known' not in held and 'resample' in said:
        raise UserError(f'The option resample needs {known}.')
    if 'original' in held and 'known' not in held and 'strength' not in said:
        raise UserError(f'An original by itself changes nothing; write strength=SHARE in the sampler, or {known}.')
    return solvers.Kept(held['original'], held.get('known')) if held else None


def scalars(loss: Array, **others: Array) -> tuple[Array, Scalars]:
    """A scalar loss and the named scalars that are logged with it."""
    return loss, {'loss': loss, **others}

"""Estimate log p(x) of models with a decoder by annealed importance sampling, and bound the error on simulated data.

R. Neal, Annealed importance sampling, 2001 (AIS); Y. Wu, Y. Burda, R. Salakhutdinov, R. Grosse, On the Quantitative
Analysis of Decoder-Based Generative Models, 2017; R. Grosse, Z. Ghahramani, R. Adams, Sandwiching the marginal
likelihood using bidirectional Monte Carlo, 2015 (BDMC).

Chains go through the distributions f_β(z) = p(z) p(x | z)^β from the prior, β = 0, to the posterior, β = 1, by
Hamiltonian transitions. Arrays of chains are (chains, batch, …). The loops over temperatures and leapfrog steps are
Python loops: inside an XLA loop on CPU, the gradient of a convolution with respect to its input runs 10 to 30 times
slower.
"""

import dataclasses
import itertools
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from genbench import rng
from genbench.data.conditions import Given
from genbench.errors import UserError
from genbench.families.base import Array, Family, LatentModel, Likelihood, Networks
from genbench.training import sampling
from genbench.training.state import Blueprint, State

if TYPE_CHECKING:
    from genbench.evaluation.harness import Weights

STEEPNESS = 4.0  # δ of the sigmoid schedule of temperatures
ACCEPTANCE, STEERING, FIRST_STEP_SIZE = 0.65, 0.1, 0.3  # target acceptance, rate and start of the step size
PILOTS = 4  # chains that adapt the step size
SIMULATED = 32  # simulated images for comparing the bounds


def score(weights: 'Weights') -> None:
    """Add the row of a model with a decoder, and to its details the gap of the bounds on simulated images."""
    one, options = weights.evaluation, weights.options.ais
    found = likelihood(one.family, weights.blueprint.bind_state(weights.state), options)
    assert found is not None, 'see `check`'
    count = min(options.num_images or len(one.real.split), len(one.real.split))
    extra = {'num_images': count, 'simulated': SIMULATED}

    def gap() -> dict[str, float]:
        given, seed = one.given(0, SIMULATED), weights.options.seed
        lower, upper = simulated_gap(weights.blueprint, weights.state, given, SIMULATED, seed, options)
        return {'bidirectional_gap': -float(one.spec.bits_per_dim(np.mean(upper - lower)))}

    annealed = dataclasses.replace(found, protocol={**found.protocol, **extra})
    weights.score_likelihood(annealed, one.real.split.part(slice(0, count)), gap, copies=options.chains)


def check(family: Family, *_: Any) -> None:
    """Raise a UserError if this family has no decoder p(x | z) with z ~ N(0, I)."""
    if family.latent_model(Networks({}), None) is None:
        raise UserError(f'This {family.name} model has no decoder p(x | z) with z ~ N(0, I); remove ais from '
                        'evaluation.metrics.')  # fmt: skip


def likelihood(family: Family, networks: Networks, options: Any) -> Likelihood | None:
    """Return the estimate as one of a family's likelihoods, or None for a family without a decoder.

    Args:
      networks: modules that hold arrays; only their structure is kept.
      options: `evaluation.ais` of the config.
    """
    described = family.latent_model(networks, None)
    if described is None:
        return None
    definitions = {name: nnx.split(module)[0] for name, module in networks.items()}

    def build(states: Any, given: Given) -> LatentModel:
        modules = {name: nnx.merge(definitions[name], state) for name, state in states.items()}
        model = family.latent_model(Networks(modules), given)
        assert model is not None
        return model

    annealer = Annealer(build, options)

    def log_prob(networks: Networks, images: Array, given: Given, keys: Array) -> Array:
        states = {name: nnx.to_pure_dict(nnx.state(module)) for name, module in networks.items()}
        return annealer.log_prob((states, given), images, keys)

    protocol = {
        **described.protocol,
        'num_steps': options.num_steps,
        'chains': options.chains,
        'leapfrog': options.leapfrog,
        'temperatures': f'sigmoid {STEEPNESS:g}',
        'transition': 'HMC',
        'step_size': f'by {PILOTS} pilot chains, acceptance {ACCEPTANCE}',
    }
    return Likelihood('ais', 'estimate', log_prob, protocol, traceable=False)


def simulated_gap(
    blueprint: Blueprint, state: State, given: Given, count: int, seed: int, options: Any
) -> tuple[np.ndarray, np.ndarray]:
    """Return `Annealer.bounds` of a checkpoint for `count` simulated images with these conditions."""

    def build(state: State, given: Given) -> LatentModel:
        model = blueprint.family.latent_model(blueprint.bind_state(state), given)
        assert model is not None
        return model

    keys = sampling.image_keys(blueprint.family, 'simulation', seed, 0, count)
    given, keys = sampling.split_over_devices((given, keys))
    lower, upper = Annealer(build, options).bounds((state, given), keys)
    return np.asarray(lower, np.float64), np.asarray(upper, np.float64)


def temperatures(num_steps: int) -> np.ndarray:
    """β_0 = 0 … β_T = 1, dense at both ends: σ(δ(2t/T − 1)), shifted and scaled (Wu et al. 2017, section 3)."""
    curve = 1 / (1 + np.exp(-STEEPNESS * np.linspace(-1, 1, num_steps + 1)))
    return ((curve - curve[0]) / (curve[-1] - curve[0])).astype(np.float32)


class Annealer:
    """Anneals the model that `build` makes from a tuple of arrays. Compiles once for each batch size.

    Args:
      options: `chains`, `num_steps` of the temperature, `leapfrog` steps in each.
    """

    def __init__(self, build: Callable[..., LatentModel], options: Any):
        self._options, self._betas = options, temperatures(options.num_steps)

        def leap(arrays: Any, x: Array, path: _Path, log_step_size: Array, beta: Array) -> _Path:
            model, step_size = build(*arrays), _expand(jnp.exp(log_step_size)[None], path.z)
            z = path.z + step_size * path.momentum
            value, pull = jax.vjp(lambda z: jax.vmap(model.log_likelihood, (0, None))(z, x), z)
            (gradient,) = pull(jnp.ones_like(value))
            return _Path(z, value, gradient, path.momentum + step_size * (beta * gradient - z), path.energy)

        def start(arrays: Any, keys: Array) -> Array:
            shape = (PILOTS + options.chains, *build(*arrays).latent_shape)
            return jnp.moveaxis(rng.normal(keys, 'starts', shape), 1, 0)

        def simulate(arrays: Any, keys: Array) -> tuple[Array, Array]:
            model = build(*arrays)
            z = rng.normal(keys, 'z', model.latent_shape)
            return z, model.draw(z, rng.named(keys, 'x'))

        def observe(arrays: Any, images: Array, keys: Array) -> Array:
            return build(*arrays).observe(images, rng.named(keys, 'bins'))

        self._leap, self._start = jax.jit(leap), jax.jit(start)
        self._simulate, self._observe = jax.jit(simulate), jax.jit(observe)

    def log_prob(self, arrays: Any, images: Array, keys: Array) -> Array:
        """Estimate log p(x) in nats (batch,), on average from below. Each depends only on its own image and key.

        log 1/K Σ_k w_k with K chains' weights w = Π p(x | z_t)^(β_{t+1} − β_t), unbiased for p(x) (AIS, equation 4).

        Args:
          images: integers (batch, height, width, channels).
          keys: one key per image.
        """
        return self._forward(arrays, self._observe(arrays, images, keys), keys)[0]

    def bounds(self, arrays: Any, keys: Array) -> tuple[Array, Array]:
        """Return stochastic lower and upper bounds of log p(x), (batch,) each, for one simulated x per key.

        Each x comes with an exact draw z of its posterior. Reverse chains from z are unbiased for 1 / p(x) (BDMC,
        section 4).
        """
        z, x = self._simulate(arrays, keys)
        lower, log_step_sizes = self._forward(arrays, x, keys)
        z, moves = jnp.broadcast_to(z, (PILOTS + self._options.chains, *z.shape)), rng.named(keys, 'reverse')
        inverse, _ = self._anneal(arrays, x, z, moves, self._betas[::-1], log_step_sizes[::-1])
        return lower, -_log_mean_exp(inverse[PILOTS:])

    def _forward(self, arrays: Any, x: Array, keys: Array) -> tuple[Array, list[Array]]:
        """The estimate (batch,) and the logarithms of the step sizes, (batch,) for each temperature."""
        z, moves = self._start(arrays, keys), rng.named(keys, 'moves')
        log_weight, log_step_sizes = self._anneal(arrays, x, z, moves, self._betas)
        return _log_mean_exp(log_weight[PILOTS:]), log_step_sizes

    def _anneal(
        self, arrays: Any, x: Array, z: Array, keys: Array, betas: np.ndarray,
        step_sizes: Sequence[Array] | None = None,
    ) -> tuple[Array, list[Array]]:  # fmt: skip
        """log Π p(x | z_t)^(β_{t+1} − β_t), (chains, batch), and the logarithms of the step sizes.

        Each transition leaves f_β of the later β invariant. Without `step_sizes`, the first chains of an image are
        pilots: they adapt the step sizes of all chains and do not count in the estimate. A chain whose step size
        depends on its own past leaves no f_β invariant, and its weight is biased (on probabilistic PCA the upper bound
        fell below the lower one).
        """
        nothing, none = jnp.zeros(z.shape[:2]), jnp.zeros_like(z)
        here = self._leap(arrays, x, _Path(z, nothing, none, none, nothing), jnp.full(len(x), -jnp.inf), betas[0])
        chains = _Chains(here.z, here.value, here.gradient, nothing, jnp.full(len(x), np.log(FIRST_STEP_SIZE)))
        used = []
        for index, (last, beta) in enumerate(itertools.pairwise(betas)):
            if step_sizes is not None:
                chains = chains._replace(log_step_size=step_sizes[index])
            used.append(chains.log_step_size)
            path = _depart(chains, keys, index, beta)
            for _ in range(self._options.leapfrog):
                path = self._leap(arrays, x, path, chains.log_step_size, beta)
            chains = _arrive(chains, path, keys, index, last, beta)
        return chains.log_weight, used


class _Chains(NamedTuple):
    """Positions, log p(x | z) and its gradient there, log-weights, and the step sizes (batch,) of the next move."""

    z: Array
    value: Array
    gradient: Array
    log_weight: Array
    log_step_size: Array


class _Path(NamedTuple):
    """A leapfrog trajectory, half a step ahead in momentum, and the energy (chains, batch) where it began."""

    z: Array
    value: Array
    gradient: Array
    momentum: Array
    energy: Array


@jax.jit
def _depart(chains: _Chains, keys: Array, index: Array, beta: Array) -> _Path:
    shape = (len(chains.z), *chains.z.shape[2:])
    momentum = jnp.moveaxis(rng.normal(rng.numbered(keys, index), 'momentum', shape), 1, 0)
    energy = _energy(chains.z, chains.value, momentum, beta)
    half = _expand(jnp.exp(chains.log_step_size)[None], momentum) / 2
    return _Path(*chains[:3], momentum + half * (beta * chains.gradient - chains.z), energy)


@jax.jit
def _arrive(chains: _Chains, path: _Path, keys: Array, index: Array, last: Array, beta: Array) -> _Chains:
    """Update the weights for the change of β, test the trajectory's end (Metropolis), adapt the step size."""
    half = _expand(jnp.exp(chains.log_step_size)[None], path.momentum) / 2
    momentum = path.momentum - half * (beta * path.gradient - path.z)
    log_ratio = path.energy - _energy(path.z, path.value, momentum, beta)
    log_ratio = jnp.where(jnp.isnan(log_ratio), -jnp.inf, log_ratio)
    uniform = rng.uniform(rng.numbered(keys, index), 'test', (len(chains.z),)).T
    accepted = jnp.log(uniform) < log_ratio
    z, value, gradient = (
        jnp.where(_expand(accepted, new), new, old) for new, old in zip(path[:3], chains[:3], strict=True)
    )
    acceptance = jnp.exp(jnp.minimum(log_ratio[:PILOTS], 0)).mean(0)
    log_weight = chains.log_weight + (beta - last) * chains.value
    return _Chains(z, value, gradient, log_weight, chains.log_step_size + STEERING * (acceptance - ACCEPTANCE))


def _energy(z: Array, value: Array, momentum: Array, beta: Array) -> Array:
    """−log f_β(z) and the kinetic energy, without constants."""
    return (jnp.square(z) + jnp.square(momentum)).reshape(*value.shape, -1).sum(-1) / 2 - beta * value


def _log_mean_exp(values: Array) -> Array:
    return jax.nn.logsumexp(values, axis=0) - jnp.log(len(values))


def _expand(values: Array, like: Array) -> Array:
    return values.reshape(values.shape + (1,) * (like.ndim - values.ndim))

"""log p(x) of models with a decoder by annealed importance sampling, and bounds on its error from simulated data.

R. Neal, Annealed importance sampling, 2001 (AIS); Y. Wu, Y. Burda, R. Salakhutdinov, R. Grosse, On the Quantitative
Analysis of Decoder-Based Generative Models, 2017; R. Grosse, Z. Ghahramani, R. Adams, Sandwiching the marginal
likelihood using bidirectional Monte Carlo, 2015 (BDMC).

Chains go through the distributions f_β(z) = p(z) p(x | z)^β from the prior, β = 0, to the posterior, β = 1.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from genbench.families.base import Array, Family, LatentModel, Likelihood, Networks
from genbench.training import sampling
from genbench.training.state import Blueprint, State

STEEPNESS = 4.0  # δ of the temperatures
ACCEPTANCE, STEERING, FIRST_STEP_SIZE = 0.65, 0.1, 0.3  # what the step size is steered to, how fast, and from where
PILOTS = 4  # chains that steer it
ANNEAL, REVERSE, SIMULATION = range(3)  # purposes that keys are folded with


def log_prob(model: LatentModel, images: Array, keys: Array, options: Any) -> Array:
    """Estimates of log p(x) in nats (batch,), on average from below; each depends on its own image and key alone.

    log 1/K Σ_k w_k with K chains' weights w = Π p(x | z_t)^(β_t − β_{t−1}), unbiased for p(x) (AIS, equations 4 and 6).

    Args:
      images: integers (batch, height, width, channels).
      keys: one key an image.
      options: `chains` K, `num_steps` of the temperature, `leapfrog` steps in each.
    """
    return _forward(model, model.observe(images, keys), keys, options)[0]


def bidirectional_gap(model: LatentModel, keys: Array, options: Any) -> tuple[Array, Array]:
    """Stochastic lower and upper bounds of log p(x), (batch,) each, for x simulated from the model, one for each key.

    The x come with exact draws z of their posteriors, from which reverse chains are unbiased for 1 / p(x) (BDMC,
    section 4); the difference of the two bounds bounds the mean error of either.
    """
    keys_z, keys_x = _purpose(keys, SIMULATION)
    z = jax.vmap(lambda key: jax.random.normal(key, model.latent_shape))(keys_z)
    x = model.draw(z, keys_x)
    lower, log_step_sizes = _forward(model, x, keys, options)
    start = jnp.broadcast_to(z, (options.chains, *z.shape))
    betas, (_, moves) = temperatures(options.num_steps)[::-1], _purpose(keys, REVERSE)
    inverse, _ = _anneal(model, x, start, moves, betas, options.leapfrog, log_step_sizes[::-1])
    return lower, -_log_mean_exp(inverse)


def temperatures(num_steps: int) -> Array:
    """β_0 = 0 … β_T = 1, dense at both ends: σ(δ(2t/T − 1)), shifted and scaled (Wu et al. 2017, section 3)."""
    curve = jax.nn.sigmoid(STEEPNESS * jnp.linspace(-1, 1, num_steps + 1))
    return (curve - curve[0]) / (curve[-1] - curve[0])


def likelihood(family: Family, networks: Networks, options: Any) -> Likelihood | None:
    """The estimate as one of a family's likelihoods, or None for a family without a decoder.

    Args:
      networks: any that are bound to arrays.
      options: `evaluation.ais` of the config.
    """
    model = family.latent_model(networks, None)
    if model is None:
        return None

    def score(networks: Networks, images: Array, labels: Array | None, keys: Array) -> Array:
        found = family.latent_model(networks, labels)
        assert found is not None
        return log_prob(found, images, keys, options)

    protocol = {
        **model.protocol,
        'bound': 'lower, on average',
        'num_steps': options.num_steps,
        'chains': options.chains,
        'leapfrog': options.leapfrog,
        'temperatures': f'sigmoid {STEEPNESS:g}',
        'transition': 'HMC',
        'step_size': f'of each image and temperature, by {PILOTS} pilot chains at acceptance {ACCEPTANCE}',
    }
    return Likelihood('ais', 'estimate', score, protocol)


def simulated_gap(
    blueprint: Blueprint, state: State, labels: np.ndarray | None, count: int, seed: int, options: Any
) -> tuple[np.ndarray, np.ndarray]:
    """`bidirectional_gap` of a checkpoint for `count` simulated images with these labels (count,)."""

    @jax.jit
    def program(params, aux, labels, keys):
        model = blueprint.family.latent_model(blueprint.bind(params, aux), labels)
        return bidirectional_gap(model, keys, options)

    batch = sampling.split_over_devices((labels, sampling.sample_keys(seed, 0, count)))
    lower, upper = program(state['params'], state['aux'], *batch)
    return np.asarray(lower, np.float64), np.asarray(upper, np.float64)


class _Chains(NamedTuple):
    """Positions (chains, batch, …), log p(x | z) there and its gradient, weights; the step size of the next move."""

    z: Array
    log_likelihood: Array
    gradient: Array
    log_weight: Array
    log_step_size: Array  # (batch,)


def _forward(model: LatentModel, x: Array, keys: Array, options: Any) -> tuple[Array, Array]:
    """The estimate (batch,) and the logarithms of the step sizes (num_steps, batch)."""
    starts, moves = _purpose(keys, ANNEAL)
    shape = (PILOTS + options.chains, *model.latent_shape)
    z = jax.vmap(lambda key: jax.random.normal(key, shape), out_axes=1)(starts)
    log_weight, log_step_sizes = _anneal(model, x, z, moves, temperatures(options.num_steps), options.leapfrog)
    return _log_mean_exp(log_weight[PILOTS:]), log_step_sizes


def _anneal(
    model: LatentModel, x: Array, z: Array, keys: Array, betas: Array, leapfrog: int,
    log_step_sizes: Array | None = None,
) -> tuple[Array, Array]:  # fmt: skip
    """log Π p(x | z_t)^(β_{t+1} − β_t), (chains, batch), and the logarithms of the step sizes.

    Each transition leaves f_β of the later β as it is. Without step sizes, the first chains of each image are pilots
    that steer those of all, and do not count: a chain whose step size follows its own past leaves no f_β as it is, and
    its weight is biased (on probabilistic PCA the upper bound fell below the lower one).
    """

    def at(z: Array) -> tuple[Array, Array]:
        value, pull = jax.vjp(lambda z: jax.vmap(model.log_likelihood, (0, None))(z, x), z)
        return value, pull(jnp.ones_like(value))[0]

    def move(chains: _Chains, step: Any) -> tuple[_Chains, Array]:
        index, last, beta, given = step
        log_step_size = chains.log_step_size if given is None else given
        log_weight = chains.log_weight + (beta - last) * chains.log_likelihood
        both = jax.vmap(lambda key: jax.random.split(jax.random.fold_in(key, index)), out_axes=1)(keys)
        momentum = jax.vmap(lambda key: jax.random.normal(key, (len(z), *z.shape[2:])), out_axes=1)(both[0])
        threshold = jax.vmap(lambda key: jax.random.uniform(key, (len(z),)), out_axes=1)(both[1])
        proposed, log_ratio = _hamiltonian(at, chains, momentum, beta, jnp.exp(log_step_size), leapfrog)
        accepted = jnp.log(threshold) < log_ratio
        z_next, value, gradient = (
            jnp.where(_expand(accepted, new), new, old) for new, old in zip(proposed, chains[:3], strict=True)
        )
        acceptance = jnp.exp(jnp.minimum(log_ratio[:PILOTS], 0)).mean(0)
        steered = log_step_size + STEERING * (acceptance - ACCEPTANCE)
        return _Chains(z_next, value, gradient, log_weight, steered), log_step_size

    value, gradient = at(z)
    first = _Chains(z, value, gradient, jnp.zeros_like(value), jnp.full(len(x), np.log(FIRST_STEP_SIZE)))
    steps = (jnp.arange(len(betas) - 1), betas[:-1], betas[1:], log_step_sizes)
    end, used = jax.lax.scan(move, first, steps)
    return end.log_weight, used


def _hamiltonian(
    at: Any, chains: _Chains, momentum: Array, beta: Array, step_size: Array, leapfrog: int
) -> tuple[tuple[Array, Array, Array], Array]:
    """End of a leapfrog trajectory under −log f_β, as the first three of `_Chains`, and the log acceptance ratio."""
    step_size = _expand(step_size[None], momentum)

    def force(z: Array, gradient: Array) -> Array:
        return beta * gradient - z

    def energy(z: Array, value: Array, momentum: Array) -> Array:
        squares = (jnp.square(z) + jnp.square(momentum)).reshape(*value.shape, -1)
        return squares.sum(-1) / 2 - beta * value

    def step(_, carry):
        z, _, _, momentum = carry
        z = z + step_size * momentum
        value, gradient = at(z)
        return z, value, gradient, momentum + step_size * force(z, gradient)

    half = momentum + step_size / 2 * force(chains.z, chains.gradient)
    z, value, gradient, end = jax.lax.fori_loop(0, leapfrog, step, (*chains[:3], half))
    end = end - step_size / 2 * force(z, gradient)
    log_ratio = energy(chains.z, chains.log_likelihood, momentum) - energy(z, value, end)
    return (z, value, gradient), jnp.where(jnp.isnan(log_ratio), -jnp.inf, log_ratio)


def _purpose(keys: Array, purpose: int) -> tuple[Array, Array]:
    """Two keys for each key (batch,)."""
    both = jax.vmap(lambda key: jax.random.split(jax.random.fold_in(key, purpose)))(keys)
    return both[:, 0], both[:, 1]


def _log_mean_exp(values: Array) -> Array:
    return jax.nn.logsumexp(values, axis=0) - jnp.log(len(values))


def _expand(values: Array, like: Array) -> Array:
    return values.reshape(values.shape + (1,) * (like.ndim - values.ndim))

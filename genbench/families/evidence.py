"""Training objectives of models with normal posteriors q(z | x), and a learned prior.

D. Kingma et al., Improving Variational Inference with Inverse Autoregressive Flow, 2016 (free bits); S. Bowman et al.,
Generating Sentences from a Continuous Space, 2016 (KL annealing); Y. Burda, R. Grosse, R. Salakhutdinov, Importance
Weighted Autoencoders, 2016 (IWAE); G. Roeder, Y. Wu, D. Duvenaud, Sticking the Landing, 2017 (STL); G. Tucker,
D. Lawson, S. Gu, C. Maddison, Doubly Reparameterized Gradient Estimators for Monte Carlo Objectives, 2019 (DReG);
J. Tomczak, M. Welling, VAE with a VampPrior, 2018.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from genbench.errors import UserError
from genbench.ranges import COUNT_OR_NONE, NOT_NEGATIVE, one_of

Array = jax.Array
Weights = Callable[[Array], tuple[Array, Any]]

IMPORTANCE = ('iwae', 'stl', 'dreg')  # objectives made of the weights p(x, z) / q(z | x) of draws z
ACTIVE, COLLAPSED = 0.01, 0.01  # least variance over images of an active unit; most nats of a collapsed one
STOPPED = ('stl', 'dreg')  # those whose gradient leaves out that of log q(z | x) by the parameters of q
NARROWEST = -7.0  # log standard deviation of a posterior
STOPS = {
    'posteriors_at_limit': 'So many posteriors are at their narrowest, a deviation of e⁻⁷, and no longer change; raise '
    'family.observation_scale or family.beta, or lower optimizer.learning_rate.'
}  # see `Family.stops`

DEFAULTS = {
    'beta': 1.0,  # weight of the KL term in training (small for a first stage); the reported bound uses 1
    'kl_warmup': 0,  # steps in which this weight rises from 0 to `beta`
    'free_nats': 0.0,  # λ: the mean KL of each dimension of z costs λ where it is smaller
    # The ELBO with its KL in closed form; or 'iwae', the bound from `draws` importance weights; 'dreg', the same with
    # the doubly reparametrised gradient; or 'stl', the ELBO with the gradient that sticks the landing.
    'objective': 'elbo',
    'pseudo_inputs': 0,  # above 0: the prior is the mixture of the posteriors of this many learned inputs
}
RANGES = {
    'beta': NOT_NEGATIVE,
    'kl_warmup': COUNT_OR_NONE,
    'free_nats': NOT_NEGATIVE,
    'objective': one_of('elbo', *IMPORTANCE),
    'pseudo_inputs': COUNT_OR_NONE,
}


def check(options: Any, accumulate: int, conditional: bool) -> None:
    """Raise a UserError for options of a family that do not go together, or with micro-batches or conditions."""
    for key, unused in {'beta': 1.0, 'free_nats': 0.0, 'kl_warmup': 0}.items():
        if options.objective in IMPORTANCE and options[key] != unused:
            raise UserError(f'family.{key} is {options[key]}, which objective={options.objective} ignores; set it to '
                            f'{unused:g}.')  # fmt: skip
    if options.pseudo_inputs and (options.free_nats or conditional):
        other = 'family.free_nats' if options.free_nats else 'conditions'
        raise UserError(f'family.pseudo_inputs is {options.pseudo_inputs}, a prior that cannot be combined with '
                        f'{other}; set it to 0.')  # fmt: skip
    if options.free_nats and accumulate > 1:
        raise UserError(f'family.free_nats is {options.free_nats}, which needs the mean KL of the whole batch; set '
                        'train.accumulate=1.')  # fmt: skip


def summed(values: Array, kept: int = 1) -> Array:
    """The sum over all axes except the first ones, by default the batch axis."""
    return values.reshape(*values.shape[:kept], -1).sum(-1)


def divergences(mean: Array, log_std: Array) -> Array:
    """KL(N(mean, std²) ‖ N(0, 1)) of each dimension in nats."""
    return jnp.square(mean) / 2 + jnp.exp(2 * log_std) / 2 - 0.5 - log_std


def active(variance: Any) -> Any:
    """Whether a unit is used: the variance over images of its posterior mean is above 0.01 (IWAE, appendix C)."""
    return variance > ACTIVE


def divergence(mean: Array, log_std: Array, free: float = 0.0) -> tuple[Array, Array]:
    """The batch's mean of KL(N(mean, std²) ‖ N(0, I)) in nats, and its cost with `free` nats λ in each dimension.

    The cost is Σ_j max(λ, mean KL of dimension j) (Kingma et al. 2016, equation 15).
    """
    each = divergences(mean, log_std)
    kl = summed(each).mean()
    return kl, jnp.maximum(each.mean(0), free).sum() if free else kl


def annealed(beta: float, warmup: int, step: Array) -> Array | float:
    """β rising linearly from 0 over the first `warmup` steps."""
    return beta * jnp.minimum(step / warmup, 1.0) if warmup else beta


def log_posterior(z: Array, mean: Array, log_std: Array, noise: Array, stopped: bool) -> Array:
    """log q(z | x) + ½ log 2π per dimension of draws z = mean + std · noise (batch, draws, …), (batch, draws).

    Args:
      stopped: leave out the gradient by mean and std that does not pass through z.
    """
    if stopped:
        mean, log_std = jax.lax.stop_gradient((mean, log_std))
        noise = (z - mean[:, None]) * jnp.exp(-log_std)[:, None]
    return -summed(jnp.square(noise) / 2 + log_std[:, None], 2)


def bound(objective: str, log_weights: Weights, z: Array) -> tuple[Array, tuple[Array, Any]]:
    """A bound on log p(x) for each image, (batch,), with the objective's gradient; and what `log_weights` returned.

    'iwae' is the logarithm of the mean weight, and 'stl' and 'elbo' the mean of the logarithms. 'dreg' has the value of
    'iwae'. Its gradient by the parameters of q, which arrives through z, weighs the draws by their squared shares
    (DReG, equation 8).

    Args:
      log_weights: draws z (batch, draws, …) → log p(x, z) − log q(z | x) in nats, (batch, draws), and anything else.
    """
    if objective != 'dreg':
        found, other = log_weights(z)
        return (_log_mean(found) if objective == 'iwae' else found.mean(1)), (found, other)
    found, pull, other = jax.vjp(log_weights, jax.lax.stop_gradient(z), has_aux=True)
    share = jax.lax.stop_gradient(jax.nn.softmax(found, axis=1))
    slope = pull(share)[0] * share.reshape(*share.shape, *[1] * (z.ndim - 2))
    through_z = summed(jax.lax.stop_gradient(slope) * (z - jax.lax.stop_gradient(z)))
    weighted = (share * found).sum(1)
    return jax.lax.stop_gradient(_log_mean(found) - weighted) + weighted + through_z, (found, other)


def log_mean_of_draws(log_weight: Callable[[Array], Array], draws: int, count: int) -> Array:
    """log (1/K) Σ_k w_k for each of `count` images, (count,) (IWAE, equation 8). Memory holds one draw at a time.

    Args:
      log_weight: number k of a draw → log w_k, (count,).
      draws: K.
    """

    def add(index: Array, found: tuple[Array, Array]) -> tuple[Array, Array]:  # the largest, and the sum relative to it
        new = log_weight(index)
        largest = jnp.maximum(found[0], new)
        return largest, found[1] * jnp.exp(found[0] - largest) + jnp.exp(new - largest)

    nothing = jnp.full(count, -jnp.inf), jnp.zeros(count)
    largest, total = jax.lax.fori_loop(0, draws, add, nothing)
    return largest + jnp.log(total / draws)


def _log_mean(log_weights: Array) -> Array:
    return jax.nn.logsumexp(log_weights, axis=1) - jnp.log(log_weights.shape[1])


def log_mixture(z: Array, mean: Array, log_std: Array) -> Array:
    """log of the mean of K normal densities at z (batch, …), (batch,), up to the constant −½ log 2π per dimension.

    Args:
      mean, log_std: (K, …).
    """

    def one(z: Array) -> Array:
        terms = -jnp.square((z - mean) * jnp.exp(-log_std)) / 2 - log_std
        return jax.nn.logsumexp(summed(terms)) - jnp.log(len(mean))

    return jax.vmap(one)(z)


class PseudoInputs(nnx.Module):
    """Learned encoder inputs u_k, whose posteriors q(z | u_k) mix to the prior (Tomczak & Welling 2018, equation 9)."""

    def __init__(self, count: int, shape: tuple[int, ...]):
        self.images = nnx.Param(jnp.zeros((count, *shape)))

    def start(self, encoded: Array, key: Array) -> None:
        """Begin with encoded images (batch, …), repeated if there are too few, plus a little noise.

        The noise points to the middle of the values, since `__call__` gives no gradient to values out of range.
        """
        chosen = encoded[jnp.arange(len(self.images[...])) % len(encoded)]
        noise = 0.01 * jnp.abs(jax.random.normal(key, chosen.shape))
        self.images[...] = chosen + jnp.where(chosen > encoded.mean(), -noise, noise)

    def __call__(self, lowest: Array) -> Array:
        """The inputs within the range of encoded images, from `lowest` to 1."""
        return jnp.clip(self.images[...], lowest, 1.0)

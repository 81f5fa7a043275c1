"""Importance sampling of the steps of a chain (A. Nichol, P. Dhariwal, Improved Denoising Diffusion Probabilistic
Models, 2021, section 3.3).

The steps of a variational bound have losses L_n of very different sizes. If step n is drawn with probability p_n and
its loss multiplied by 1 / (p_n T), the mean is that of even steps, and the variance is lowest for p_n ∝ √E[L_n²]
(equation 18). These moments change during training, so they are estimated from the last losses of each step.
"""

import jax
import jax.numpy as jnp
from flax import nnx

from genbench import rng

Array = jax.Array
LAST = 10  # losses that are kept for each step (section 3.3)
EVEN = 0.001  # share of the draws that are even over the steps (the paper's code), so that no step is forgotten


class Kept(nnx.Variable):
    """What is kept of earlier losses. It is part of the state and of checkpoints, and no optimizer moves it."""


class History(nnx.Module):
    """The last losses of each of the steps n = 1 … T, and draws of steps by them.

    Losses enter in the order of the images in the whole batch. The history therefore does not depend on the number of
    devices.
    """

    name = 'history'  # of this module among a family's networks

    def __init__(self, steps: int):
        self.losses = Kept(jnp.zeros((steps, LAST)))
        self.count = Kept(jnp.zeros(steps, jnp.int32))  # of losses; beyond `LAST`, modulo `LAST` and plus `LAST`

    def probabilities(self) -> Array:
        """p_n of the steps n = 1 … T, (T,). They are equal until every step has `LAST` losses."""
        losses, count = self.losses[...], self.count[...]
        size = jnp.sqrt(jnp.square(losses).mean(1)) + 1e-20  # so that losses of zero leave equal steps
        by_size = (1 - EVEN) * size / size.sum() + EVEN / len(size)
        return jnp.where((count >= LAST).all(), by_size, 1 / len(size))

    def draw(self, keys: Array) -> tuple[Array, Array]:
        """A step n for each key (batch,), and the factor 1 / (p_n T) of its loss, both (batch,)."""
        p = self.probabilities()
        # Rare steps win only with the largest numbers, which the default mode draws from too few values.
        one = jax.vmap(lambda key: jax.random.categorical(key, jnp.log(p), mode='high'))
        drawn = one(rng.named(keys, 'time'))
        return drawn + 1, 1 / (p[drawn] * len(p))

    def hear(self, steps: Array, losses: Array) -> None:
        """Take in the losses (batch,) of the steps n (batch,), before any factor."""
        order = jnp.argsort(steps)  # stable
        rows, losses, count, index = steps[order] - 1, losses[order], self.count[...], jnp.arange(len(steps))
        earlier = index - jnp.searchsorted(rows, rows, side='left')  # losses of the same step in this batch
        later = jnp.searchsorted(rows, rows, side='right') - 1 - index
        place = (count[rows] + earlier) % LAST
        kept = jnp.where(later < LAST, rows, len(count))  # a row that does not exist takes what would be overwritten
        self.losses[...] = self.losses[...].at[kept, place].set(losses, mode='drop')
        total = count.at[rows].add(1)
        self.count[...] = jnp.where(total < LAST, total, LAST + total % LAST)

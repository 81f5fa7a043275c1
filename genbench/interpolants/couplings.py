"""Couplings pair the noise with the images of a batch: (images, noise) → reordered noise, both (batch, …).

A family may add couplings to its own copy of `COUPLINGS`.
"""

import jax
import jax.numpy as jnp

from genbench import flops
from genbench.interpolants.choices import Choice

Array = jax.Array


def independent(images: Array, noise: Array) -> Array:
    return noise


def optimal_transport(images: Array, noise: Array) -> Array:
    """The order that minimises Σ ‖x_i − ε_i‖² over the batch (Pooladian et al. 2023; Tong et al. 2024, section 3.2)."""
    x, e = (jax.lax.stop_gradient(value).reshape(len(value), -1) for value in (images, noise))
    cost = -2 * jnp.matmul(x, e.T, precision='highest')  # the other terms are the same in every order
    return noise[assignment(cost)]


def assignment(cost: Array) -> Array:
    """The column (n,) for each row of a cost matrix (n, n) that minimises the total cost.

    Rows are added one by one, each along the shortest augmenting path in reduced costs (Jonker & Volgenant 1987, in the
    form of Crouse 2016, On implementing 2D rectangular assignment algorithms). The result is exact for the float32
    costs. It takes O(n³) operations.
    """
    n = len(cost)
    nobody = jnp.full(n, -1, jnp.int32)

    def add(row, state):
        u, v, row_of, column_of = state

        def search(found):
            """Reach the nearest column not yet reached, starting from the row assigned to the last column."""
            i, least, distance, before, rows, columns, _ = found
            through = least + cost[i] - u[i] - v
            nearer = ~columns & (through < distance)
            before, distance = jnp.where(nearer, i, before), jnp.where(nearer, through, distance)
            j = jnp.argmin(jnp.where(columns, jnp.inf, distance)).astype(jnp.int32)
            return row_of[j], distance[j], distance, before, rows.at[i].set(True), columns.at[j].set(True), j

        none = jnp.zeros(n, bool)
        start = (row, jnp.zeros(()), jnp.full(n, jnp.inf), nobody, none, none, jnp.int32(-1))
        with flops.expected_trips(max(1.0, n / 8)):
            found = jax.lax.while_loop(lambda found: found[0] >= 0, search, start)
        _, least, distance, before, rows, columns, end = found
        mine = jnp.where(jnp.arange(n) == row, least, least - distance[column_of])
        u, v = u + jnp.where(rows, mine, 0), v - jnp.where(columns, least - distance, 0)

        def turn(path):
            j, row_of, column_of, _ = path
            i = before[j]
            return column_of[i], row_of.at[j].set(i), column_of.at[i].set(j), i

        with flops.expected_trips(2):
            _, row_of, column_of, _ = jax.lax.while_loop(
                lambda path: path[3] != row, turn, (end, row_of, column_of, jnp.int32(-1))
            )
        return u, v, row_of, column_of

    return jax.lax.fori_loop(0, n, add, (jnp.zeros(n), cost.min(0), nobody, nobody))[3]


COUPLINGS: dict[str, Choice] = {
    'independent': Choice(independent),
    'optimal_transport': Choice(optimal_transport, needs=('whole batches', 'several images', 'no conditions')),
}

"""How far solvers of inverse problems are from the exact posterior, on Gaussian data with the exact denoiser.

    python benchmarks/posteriors.py

The table is part of docs/editing.md. Images are 4×4 with the standard deviation 0.5 and neighbours that correlate. With
M = A S Aᵀ + noise² I, the posterior of N(m, S) given y = A x + N(0, noise² I) has the mean m + S Aᵀ M⁻¹ (y − A m) and
the covariance S − S Aᵀ M⁻¹ A S.
"""

import argparse
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from genbench.data import degradations
from genbench.interpolants import schedules, solvers
from genbench.interpolants.inverse import Observation
from genbench.interpolants.predictions import Prediction
from genbench.interpolants.schedules import expand

SHAPE, SPREAD = (4, 4, 1), 0.5
# The range of correlations (0: none), the problem and its noise.
PROBLEMS = ((0, 'half', 0.0), (0, 'pool2', 0.1), (2, 'half', 0.0), (2, 'half', 0.1), (2, 'pool2', 0.1))
# Of a solver: its name in the table, the sampler, and the sampler's options.
SOLVERS = (
    ('replacement', 'ancestral', {'posterior': 'replacement'}),
    ('RePaint, 10 repeats', 'ancestral', {'posterior': 'replacement', 'resample': 10}),
    ('DDNM', 'ancestral', {'posterior': 'ddnm', 'spread': SPREAD}),
    ('DDNM', 'heun', {'posterior': 'ddnm', 'spread': SPREAD}),
    ('ΠGDM, spread=1', 'heun', {'posterior': 'pigdm'}),
    ('ΠGDM, spread=0.5', 'heun', {'posterior': 'pigdm', 'spread': SPREAD}),
    ('DPS, weight=0.1', 'ancestral', {'posterior': 'dps', 'weight': 0.1}),
)


class Law(NamedTuple):
    """A normal law of images, as vectors."""

    mean: np.ndarray
    covariance: np.ndarray

    def denoiser(self, schedule: schedules.Schedule) -> Any:
        """E[x | x_t] = m + α S (α² S + σ² I)⁻¹ (x_t − α m), in the eigenbasis of S."""
        values, vectors = (jnp.asarray(part, jnp.float32) for part in np.linalg.eigh(self.covariance))
        mean = jnp.asarray(self.mean, jnp.float32)

        def denoise(x_t: jax.Array, t: jax.Array) -> Prediction:
            flat = x_t.reshape(len(x_t), -1)
            alpha, sigma = expand(schedule.alpha(t), flat), expand(schedule.sigma(t), flat)
            white = jnp.matmul(flat - alpha * mean, vectors, precision='highest') / (alpha**2 * values + sigma**2)
            x = mean + alpha * jnp.matmul(white * values, vectors.T, precision='highest')
            noise = sigma * jnp.matmul(white, vectors.T, precision='highest')
            return Prediction(x.reshape(x_t.shape), noise.reshape(x_t.shape))

        return denoise

    def given(self, a: np.ndarray, y: np.ndarray, noise: float) -> 'Law':
        """The posterior given y = a x + noise."""
        gain = self.covariance @ a.T @ np.linalg.pinv(a @ self.covariance @ a.T + noise**2 * np.eye(len(a)), rcond=1e-9)
        return Law(self.mean + gain @ (y - a @ self.mean), self.covariance - gain @ a @ self.covariance)


def images(correlation: float = 2.0) -> Law:
    """Neighbours correlate as exp(−distance / correlation); 0 for independent pixels."""
    places = np.stack(np.meshgrid(*map(np.arange, SHAPE[:2]), indexing='ij'), -1).reshape(-1, 2)
    apart = np.linalg.norm(places[:, None] - places, axis=-1)
    shared = np.exp(-apart / correlation) if correlation else np.eye(len(places))
    return Law(0.3 * np.cos(places.sum(1)), SPREAD**2 * shared)


class Found(NamedTuple):
    """Draws against the exact posterior.

    Attributes:
      bias: the root mean square, over pixels, of the error of their mean, in units of that of the images' deviation.
      covariance: the Frobenius norm of the error of their covariance, as a fraction of that of the exact one.
      spread: the trace of their covariance over that of the exact one.
      misfit: the root mean square of y − A x.
    """

    bias: float
    covariance: float
    spread: float
    misfit: float


def measure(
    law: Law, problem: str, noise: float, sampler: str, options: dict[str, Any], *, schedule: str = 'cosine',
    steps: int = 200, draws: int = 4000,
) -> Found:  # fmt: skip
    """Draw from one observation with the exact denoiser."""
    path, solver, options = schedules.get(schedule), solvers.SOLVERS[sampler], dict(options)
    one, size = degradations.make(problem, SHAPE), int(np.prod(SHAPE))
    a = np.asarray(one(jnp.eye(size).reshape(size, *SHAPE)).reshape(size, -1), float).T
    rows = np.abs(a).sum(1) > 0  # those of pixels that are not hidden
    rng = np.random.default_rng(3)
    x = rng.multivariate_normal(law.mean, law.covariance)
    y = a @ x + noise * rows * rng.normal(size=len(a))
    exact = law.given(a[rows], y[rows], noise)
    shown = jnp.asarray(y, jnp.float32).reshape(one(jnp.zeros((1, *SHAPE))).shape)
    known = {key: options.pop(key) for key in ('posterior', 'weight', 'spread') if key in options}
    observed = Observation(one, shown, noise, known.pop('posterior'), **known)
    record, keys = solver.options(**options), jax.random.split(jax.random.key(0), draws)

    @jax.jit
    def draw(keys: jax.Array, shown: jax.Array) -> jax.Array:
        start = solvers.initial_noise(path, keys, SHAPE)
        told = observed._replace(y=jnp.broadcast_to(shown, (len(keys), *shown.shape[1:])))
        return solvers.solve(solver, path, law.denoiser(path), start, keys, steps, record, observed=told).x

    found = np.asarray(draw(keys, shown), float).reshape(draws, -1)
    covariance, misfit = np.cov(found.T), (y - found @ a.T)[:, rows]
    return Found(
        float(np.sqrt(np.mean((found.mean(0) - exact.mean) ** 2)) / SPREAD),
        float(np.linalg.norm(covariance - exact.covariance) / np.linalg.norm(exact.covariance)),
        float(np.trace(covariance) / np.trace(exact.covariance)),
        float(np.sqrt(np.mean(misfit**2))),
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--steps', type=int, default=200, help='steps of the sampler (default: 200)')
    parser.add_argument('--draws', type=int, default=4000, help='draws for each number (default: 4000)')
    given = parser.parse_args()
    print('| pixels | problem | noise | solver | sampler | mean | covariance | variance | y − A x |')
    print('|---|---|---|---|---|---|---|---|---|')
    for range_, problem, noise in PROBLEMS:
        for name, sampler, options in SOLVERS:
            found = measure(images(range_), problem, noise, sampler, options, steps=given.steps, draws=given.draws)
            numbers = f'{found.bias:.1%} | {found.covariance:.0%} | {found.spread:.2f} | {found.misfit:.3f}'
            pixels = 'correlated' if range_ else 'independent'
            print(f'| {pixels} | `{problem}` | {noise:g} | {name} | `{sampler}` | {numbers} |', flush=True)


if __name__ == '__main__':
    main()

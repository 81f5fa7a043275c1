"""FLD: how well a mixture of Gaussians around samples explains images that the model has not seen."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from genbench.evaluation import neighbours
from genbench.evaluation.arrays import checked_sets

MOST_CENTRES, MOST_FITTED = 10_000, 50_000  # the most rows that make a mixture, and that its variances are fitted to
BATCH = 10_000  # rows per fitting step
LEARNING_RATE, EPOCHS = 0.5, 50
SETTLED, PATIENCE = 5e-4, 5  # fitting ends when the last five losses are this close to the newest
NEARER = 0.9  # the component for outliers sees them at this fraction of their distance
FLOOR = 1e-3  # relative to the squared distance that the first variance comes from
LARGEST_LOG = 40.0  # bound on a log variance; the variance would vanish at copies of fitted rows
PROTOCOL = {
    'mixture': 'a Gaussian at each of at most 10,000 samples', 'scale': 'of the held-out images',
    'fit': 'Adam at 0.5 on at most 50,000 train images', 'baseline': 'halves of the train images', 'half_seed': 0,
}  # fmt: skip
_OPTIMIZER = optax.adam(LEARNING_RATE)


def feature_likelihood_divergence(
    train: np.ndarray, test: np.ndarray, samples: np.ndarray, seed: int = 0
) -> tuple[float, dict[str, float]]:
    """FLD of samples, and the two negative log-likelihoods in nats per feature whose difference it is.

    Jiralerspong et al. 2023, section 3. Features are standardised by the test images. A Gaussian stands at each sample,
    with a variance of its own, and the variances maximise the likelihood of the train images. FLD is 100 times the
    negative log-likelihood of the test images per feature, less that of a mixture at one half of the train images that
    is fitted to the other half. Lower is better. Copies of train images get tiny variances and score badly.

    As in the authors' code a mixture has at most 10,000 components, and a further component at the mean takes part
    while variances are fitted, so that outliers do not dominate.

    Args:
      train: (n, d) features of the images that the model was trained on; 50,000 of them at most are fitted to.
      test: (m, d) features of images that it was not trained on.
      samples: (k, d).
      seed: of the halves, and of the rows where there are more than are used.

    Raises:
      UserError: fewer than four train rows or two others, sets of different width, or values that are not finite.
    """
    train, test, samples = checked_sets(2, train=train, test=test, samples=samples)
    checked_sets(4, train=train)  # halves of two
    mean, scale = test.mean(0, dtype=np.float64), test.std(0, ddof=1, dtype=np.float64)
    scale[scale <= 1e-12 * np.maximum(1, np.abs(mean))] = 1  # a constant feature
    draw = np.random.Generator(np.random.Philox(seed))
    order = draw.permutation(len(train))
    samples = samples[draw.permutation(len(samples))[:MOST_CENTRES]]
    half = min(len(train) // 2, len(samples))
    train, order = train[order[: half + MOST_FITTED]], np.arange(min(len(train), half + MOST_FITTED))
    train, test, samples = ((points - mean) / scale for points in (train, test, samples))
    found = mixture_cost(samples, train[order[:MOST_FITTED]], test)
    baseline = mixture_cost(train[order[:half]], train[order[half:][:MOST_FITTED]], test)
    return 100 * (found - baseline), {'nll': found, 'baseline_nll': baseline}


def mixture_cost(centres: np.ndarray, fitted: np.ndarray, scored: np.ndarray) -> float:
    """−log p of the scored rows, in nats per feature, where p has a Gaussian at each centre, fitted to other rows."""
    dimensions = centres.shape[1]
    spreads = _fit(_squared(fitted, centres), NEARER**2 * np.square(fitted - fitted.mean(0)).sum(1), dimensions)
    rows = _squared(scored, centres)
    costs = [
        -_scored(rows[start : start + BATCH], spreads, dimensions=dimensions) for start in range(0, len(rows), BATCH)
    ]
    return float(np.concatenate(costs).mean() / dimensions)


def _squared(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Squared distances (n, m) in float32."""
    found = np.empty((len(x), len(y)), np.float32)
    for rows, columns, values in neighbours.tiles(*neighbours.centred(x, y)):
        found[rows, columns] = values
    return found


def _fit(squared: np.ndarray, beside: np.ndarray, dimensions: int) -> jax.Array:
    """Logarithms of the variances (m,) of components with these squared distances (n, m) to the fitted rows.

    Args:
      beside: squared distances (n,) to the further component, which counts as much as all others together.
    """
    params: Any = {'spreads': np.log((squared.min(0) + np.float32(FLOOR)) / dimensions), 'beside': np.float32(0)}

    state = _OPTIMIZER.init(params)
    beside, losses = beside.astype(np.float32), []
    for epoch in range(EPOCHS):
        values = []
        for start in range(0, len(squared), BATCH):
            rows = slice(start, start + BATCH)
            params, state, value = _step(params, state, squared[rows], beside[rows], dimensions=dimensions)
            values.append(float(value))
        losses.append(np.mean(values))
        if epoch > PATIENCE and np.abs(losses[-1] - np.asarray(losses[-PATIENCE:])).max() < SETTLED:
            break
    return params['spreads']


@functools.partial(jax.jit, static_argnames='dimensions')
def _step(
    params: Any, state: Any, squared: jax.typing.ArrayLike, beside: jax.typing.ArrayLike, *, dimensions: int
) -> tuple[Any, Any, jax.Array]:
    def loss(params: Any) -> jax.Array:
        outlier = _log_gaussian(beside, params['beside'], dimensions)
        return -jnp.logaddexp(_log_mixture(squared, params['spreads'], dimensions), outlier).mean() / dimensions

    value, gradients = jax.value_and_grad(loss)(params)
    updates, state = _OPTIMIZER.update(gradients, state)
    params = optax.apply_updates(params, updates)
    return {**params, 'spreads': jnp.clip(params['spreads'], -LARGEST_LOG, LARGEST_LOG)}, state, value


def _log_gaussian(squared: jax.typing.ArrayLike, spread: jax.Array, dimensions: int) -> jax.Array:
    """Log density of an isotropic Gaussian whose variance is exp(spread), at these squared distances."""
    return -0.5 * (jnp.asarray(squared) * jnp.exp(-spread) + dimensions * (spread + jnp.log(2 * jnp.pi)))


def _log_mixture(squared: jax.typing.ArrayLike, spreads: jax.Array, dimensions: int) -> jax.Array:
    components = _log_gaussian(squared, spreads, dimensions)
    return jax.scipy.special.logsumexp(components, axis=1) - jnp.log(components.shape[1])


_scored = functools.partial(jax.jit, static_argnames='dimensions')(_log_mixture)

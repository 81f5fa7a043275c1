"""Diffusion with the exact denoiser of Gaussian data: its bound, its model and its loss are known in closed form."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from genbench.data.spec import DataSpec
from genbench.errors import UserError
from genbench.families.diffusion import Diffusion
from genbench.interpolants import predictions, schedules
from genbench.interpolants.schedules import expand

# So many levels that where in its bin an image lies matters to none of the tests.
SPEC = DataSpec('pairs', (1, 1, 2), levels=8192)
MEAN, VARIANCE = np.array([0.1, -0.2]), np.array([0.2, 0.05])
LOG_BIN = 2 * SPEC.log_bin_width
BLIND = {('noise', 'straight'), ('score', 'straight')}  # refused: at pure noise they say nothing of the image
LOUD = {(name, 'edm') for name in predictions.NAMES if name != 'preconditioned'}  # refused: nothing scales x_t
REFUSED = BLIND | LOUD
FITTING = [pair for pair in itertools.product(predictions.NAMES, schedules.SCHEDULES) if pair not in REFUSED]


class Exact(Diffusion):
    """The network is E[x | x_t] of data N(MEAN, diag VARIANCE)."""

    def denoise(self, networks, given, guidance=0.0, clip=False):
        def denoise(x_t, t):
            alpha, sigma = expand(self.schedule.alpha(t), x_t), expand(self.schedule.sigma(t), x_t)
            white = (x_t - alpha * MEAN) / (alpha**2 * VARIANCE + sigma**2)
            return predictions.Prediction(MEAN + alpha * VARIANCE * white, sigma * white)

        return denoise


class Chain:
    """The same model in textbook form: variances of each step, and the affine denoiser x̂ = m + gain (x_t − α m)."""

    def __init__(self, family):
        steps = family.config.family.num_timesteps
        t = family.time(jnp.arange(1, steps + 1))
        self.alpha, self.sigma = (
            np.asarray(f(t), float)[:, None] for f in (family.schedule.alpha, family.schedule.sigma)
        )
        self.gain = self.alpha * VARIANCE / (self.alpha**2 * VARIANCE + self.sigma**2)

    def posterior(self, n):
        """Weights of x_t and x in the mean of q(x_s | x_t, x), and its variance (DDPM, equations 6 and 7)."""
        ratio = self.alpha[n] / self.alpha[n - 1]
        step = self.sigma[n] ** 2 - ratio**2 * self.sigma[n - 1] ** 2
        variance = step * self.sigma[n - 1] ** 2 / self.sigma[n] ** 2
        return (
            ratio * self.sigma[n - 1] ** 2 / self.sigma[n] ** 2,
            self.alpha[n - 1] * step / self.sigma[n] ** 2,
            variance,
        )

    def step(self, n):
        """β_n, the variance of q(x_n | x_{n−1})."""
        return self.sigma[n] ** 2 - (self.alpha[n] / self.alpha[n - 1] * self.sigma[n - 1]) ** 2

    def squared_error(self, x, n):
        """E‖x − x̂(x_t)‖² over the noise, for each dimension."""
        return ((x - MEAN) * (1 - self.gain[n] * self.alpha[n])) ** 2 + (self.gain[n] * self.sigma[n]) ** 2

    def reverse(self, n, name):
        """Variance of p(x_{n−1} | x_n)."""
        return self.posterior(n)[2] if name == 'fixedsmall' else self.step(n)

    def decoder(self, name):
        """Variance of p(x | x_1)."""
        return self.sigma[0] ** 2 if name == 'beta' else self.posterior(1)[2]

    def bound(self, x, name):
        """−(L_T + Σ L_{n−1} + L_0) of DDPM, equation 5, for x (count, 2), each KL between Gaussians in full."""
        total = -((self.alpha[-1] * x / self.sigma[-1]) ** 2) / 2
        for n in range(1, len(self.alpha)):
            (_, weight, q), p = self.posterior(n), self.reverse(n, name)
            total -= (np.log(p / q) + (q + weight**2 * self.squared_error(x, n)) / p - 1) / 2
        v = self.decoder(name)
        total += stats.norm.logpdf(0, scale=np.sqrt(v)) - self.squared_error(x, 0) / (2 * v)
        return total.sum(1)

    def log_likelihood(self, x, name):
        """log p(x): ancestral sampling is affine, so the model is Gaussian at every step."""
        mean, variance = np.zeros(2), self.sigma[-1] ** 2
        for n in range(len(self.alpha) - 1, 0, -1):
            of_x_t, of_x, _ = self.posterior(n)
            slope = of_x_t + of_x * self.gain[n]
            mean = slope * mean + of_x * (1 - self.gain[n] * self.alpha[n]) * MEAN
            variance = slope**2 * variance + self.reverse(n, name)
        mean = self.gain[0] * mean + (1 - self.gain[0] * self.alpha[0]) * MEAN
        variance = self.gain[0] ** 2 * variance + self.decoder(name)
        return stats.norm.logpdf(x, mean, np.sqrt(variance)).sum(1)


@pytest.fixture
def exact(resolve):
    def make(num_timesteps=1000, schedule='cosine', draws=20, dequantisation='uniform', variance='beta'):
        config = resolve('diffusion', num_timesteps=num_timesteps, schedule=schedule, dequantisation=dequantisation)
        config = config.copy_and_resolve_references()
        config.evaluation.vlb_draws = draws
        config.evaluation.vlb_variances = (variance,)
        return Exact(config, SPEC)

    return make


def images(count=1):
    x = MEAN + np.sqrt(VARIANCE) * np.random.default_rng(0).normal(size=(count, 2))
    return np.asarray(SPEC.quantise(x.astype(np.float32)).reshape(count, 1, 1, 2))


def centres(integers):
    return np.asarray(SPEC.dequantise(jnp.asarray(integers)), float).reshape(-1, 2)


def estimates(family, integers, keys, repeats):
    """`repeats` estimates of the bound of each image, (image, repeat)."""
    score = jax.jit(lambda images, keys: family.likelihoods[-1].log_prob(None, images, None, keys)['log_prob'])
    values = score(jnp.repeat(integers, repeats, axis=0), keys(len(integers) * repeats))
    return np.asarray(values, float).reshape(len(integers), repeats)


every_variance = pytest.mark.parametrize('variance', ['beta', 'fixedlarge', 'fixedsmall'])


@pytest.mark.parametrize(
    ('variance', 'schedule', 'num_timesteps', 'draws'),
    [('beta', 'linear', 8, 1), ('beta', 'cosine', 200, 2), ('beta', 'straight', 8, 20),
     ('fixedlarge', 'linear', 200, 2), ('fixedlarge', 'cosine', 8, 20), ('fixedlarge', 'straight', 8, 1),
     ('fixedsmall', 'linear', 8, 20), ('fixedsmall', 'cosine', 8, 1), ('fixedsmall', 'straight', 200, 2)],
)  # fmt: skip
def test_the_estimated_bound_has_the_mean_of_the_full_sum(variance, schedule, num_timesteps, draws, exact, keys):
    family, repeats = exact(num_timesteps, schedule, draws, variance=variance), 4000
    found = estimates(family, images(), keys, repeats)[0]
    wanted = Chain(family).bound(centres(images()), variance)[0] + LOG_BIN
    assert found.std() > 0
    assert found.mean() == pytest.approx(wanted, abs=5 * found.std() / np.sqrt(repeats) + 2e-3)


@every_variance
@pytest.mark.parametrize('num_timesteps', [4, 30, 300])
def test_the_bound_is_below_the_exact_log_likelihood_of_the_model(variance, num_timesteps, exact):
    family, x = exact(num_timesteps), centres(images(50))
    chain = Chain(family)
    assert (chain.bound(x, variance) < chain.log_likelihood(x, variance)).all()


def test_with_beta_as_variance_a_thousand_steps_of_ddpm_lose_next_to_nothing_on_wide_gaussians(exact, keys):
    """Of variances 0.2 and 0.05, in bits per dimension: β with σ₁² in the decoder < 0.006; the others over 20 times."""
    x = centres(images(200))
    truth = stats.norm.logpdf(x, MEAN, np.sqrt(VARIANCE)).sum(1)

    def gap(name, steps=1000):
        bound = Chain(exact(steps, 'linear')).bound(x, name)
        return SPEC.bits_per_dim((bound - truth).mean())

    assert 0 < gap('beta') < 0.006
    assert gap('fixedlarge') > 20 * gap('beta') and gap('fixedsmall') > 20 * gap('beta')
    found = estimates(exact(1000, 'linear', draws=50), images(200), keys, 60)
    error = SPEC.bits_per_dim(-found.std(1).mean() / np.sqrt(found.size))
    assert SPEC.bits_per_dim((found.mean() - LOG_BIN) - truth.mean()) == pytest.approx(gap('beta'), abs=5 * error)


def test_a_bound_for_each_variance_that_is_asked_for(exact):
    family = exact()
    family.config.evaluation.vlb_variances = ('beta', 'fixedsmall')
    rows = {one.method: one.protocol for one in family.likelihoods if one.method.startswith('vlb_')}
    assert list(rows) == ['vlb_continuous', 'vlb_beta', 'vlb_fixedsmall']
    assert [rows[name]['variance'] for name in list(rows)[1:]] == ['beta', 'fixedsmall']


@every_variance
@pytest.mark.parametrize(('clip', 'seen'), [(True, 1.0), (False, 3.0)])
def test_the_bound_clips_predicted_images_where_the_sampler_does(clip, seen, variance, resolve, keys):
    """A network that always predicts 3, so the error of every step is known; the sampler sees 1 if it clips."""

    class Always(Chain):
        def squared_error(self, x, n):
            return (x - seen) ** 2

    config = resolve('diffusion', num_timesteps=10, prediction='x', clip=clip).copy_and_resolve_references()
    config.evaluation.update({'vlb_draws': 50, 'vlb_variances': (variance,)})
    family = Diffusion(config, SPEC)
    networks = {'denoiser': lambda x_t, t, given: jnp.full_like(x_t, 3)}
    score = jax.jit(lambda images, keys: family.likelihoods[-1].log_prob(networks, images, None, keys)['log_prob'])
    integers, repeats = images(), 100
    found = np.asarray(score(jnp.repeat(integers, repeats, axis=0), keys(repeats)), float)
    expected = Always(family).bound(centres(integers), variance)[0] + LOG_BIN
    assert found.mean() == pytest.approx(expected, rel=1e-3, abs=5 * found.std() / repeats**0.5)
    assert family.likelihoods[-1].protocol['clip'] is clip


def test_a_variance_that_does_not_exist_is_refused(exact):
    with pytest.raises(UserError, match=r"evaluation\.vlb_variances has 'fixdlarge'.*Did you mean fixedlarge"):
        exact(variance='fixdlarge')


@pytest.mark.parametrize(('prediction', 'schedule'), FITTING)
def test_a_prediction_tells_the_image_where_sampling_starts(prediction, schedule, make_family):
    family = make_family('diffusion', schedule=schedule, prediction=prediction)
    x_t, t = jnp.ones((1, 4, 4, 3)), jnp.full(1, family.schedule.t_max)
    given = predictions.convert(prediction, family.schedule, 0.3 * x_t, x_t, t)
    assert np.isfinite(given.x).all() and np.isfinite(given.noise).all()


@pytest.mark.parametrize(('prediction', 'schedule'), sorted(REFUSED))
def test_a_prediction_that_a_schedule_makes_senseless_is_refused(prediction, schedule, make_family):
    why = 'does not determine the image' if (prediction, schedule) in BLIND else 'prediction=preconditioned'
    with pytest.raises(UserError, match=why):
        make_family('diffusion', schedule=schedule, prediction=prediction)


def test_images_at_the_centres_of_their_bins_have_the_bound_of_dequantised_ones_where_bins_are_narrow(exact, keys):
    """The integral over a narrow bin is the density times its width."""
    found = [estimates(exact(50, dequantisation=way), images(4), keys, 500).mean(1) for way in ('uniform', 'none')]
    np.testing.assert_allclose(*found, atol=0.2)


def test_the_likelihood_of_the_ode_is_the_density_times_the_volume_of_the_bin(exact, keys):
    family = exact(schedule='straight')
    score = jax.jit(lambda images, keys: family.likelihoods[0].log_prob(None, images, None, keys)['log_prob'])
    found = score(jnp.asarray(images(20)), keys(20))
    wanted = stats.norm.logpdf(centres(images(20)), MEAN, np.sqrt(VARIANCE)).sum(1) + LOG_BIN
    assert np.mean(found - wanted) == pytest.approx(0, abs=0.05)
    assert np.corrcoef(found, wanted)[0, 1] > 0.99


@pytest.mark.parametrize(('prediction', 'schedule'), FITTING)
def test_a_perfect_network_has_no_loss(prediction, schedule, make_family, batch):
    """Data that is one image, at the centres of its bins, shows its noise in x_t."""
    family = make_family('diffusion', prediction=prediction, schedule=schedule, dequantisation='none', num_timesteps=8)
    batch = {**batch, 'image': jnp.broadcast_to(batch['image'][:1], batch['image'].shape)}
    x = family.spec.dequantise(batch['image'])

    def network(x_seen, seen, given, key=None):
        t = jnp.exp(4 * 1000 * seen) if schedule == 'edm' else seen
        x_t = x_seen / predictions.seen(prediction, family.schedule, jnp.ones_like(x_seen), t)
        noise = (x_t - expand(family.schedule.alpha(t), x) * x) / expand(family.schedule.sigma(t), x)
        return predictions.target(prediction, family.schedule, x, noise, t)

    def loss(network):
        return family.loss({'denoiser': network}, batch, jax.random.key(0), jnp.zeros(()))[0]

    assert loss(network) == pytest.approx(0, abs=1e-4)
    assert loss(lambda *inputs, key=None: network(*inputs) + 0.5) == pytest.approx(0.25, rel=0.01)


def test_labels_are_dropped_to_the_null_label_at_the_rate_of_the_config(make_family, keys):
    family, labels = make_family('diffusion', True, condition_dropout=0.25), jnp.zeros(10_000, int) + 1
    seen = np.asarray(family.dropped({'label': labels, 'key': keys(10_000)})['label'])
    assert set(np.unique(seen)) == {1, 3}
    assert (seen == 3).mean() == pytest.approx(0.25, abs=5 * np.sqrt(0.25 * 0.75) / 100)


@pytest.mark.parametrize(
    ('option', 'value', 'why'),
    [
        ('schedule', 'cosin', 'Did you mean cosine'),
        ('prediction', 'velocty', 'Did you mean velocity'),
        ('dequantisation', 'normal', 'can be uniform or none'),
    ],
)
def test_options_that_do_not_exist_are_refused(option, value, why, make_family):
    with pytest.raises(UserError, match=why):
        make_family('diffusion', **{option: value})

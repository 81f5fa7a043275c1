"""The one regression of families on a path, and what it varies by."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from scipy import stats

from genbench import config as configs
from genbench import families
from genbench.data.spec import DataSpec
from genbench.errors import UserError
from genbench.families.base import Networks, Sampler
from genbench.families.regression import Uncertainty
from genbench.interpolants import couplings, schedules
from genbench.interpolants.choices import Choice
from genbench.interpolants.options import AncestralOptions
from genbench.interpolants.predictions import Prediction
from genbench.interpolants.schedules import expand
from genbench.interpolants.steps import Step, ancestral
from genbench.networks import layers

SPEC = DataSpec('pairs', (1, 1, 2), levels=8192)
STEPS = 6
BOUND = {'weight': 'vlb', 'learned_variance': 1.0}


def plain_loss(family, network, batch, key=None):
    key = jax.random.key(0) if key is None else key
    return family.loss(Networks({'denoiser': network}), batch, key, jnp.zeros(()))[0]


def zero(x, t, given=None, key=None):
    return jnp.zeros_like(x)


@pytest.mark.parametrize('name', ['diffusion', 'flow_matching'])
@pytest.mark.parametrize(
    ('option', 'value', 'why'),
    [
        ('time_sampler', 'logit_norm', "There is no time sampler 'logit_norm'.*Did you mean logit_normal"),
        ('time_sampler', 'log_normal:mean', "where '' should be a number"),
        (
            'time_sampler',
            'logit_normal:deviation=-1',
            'deviation of family.time_sampler is -1.0',
        ),
        ('weight', 'minsnr', "There is no weight 'minsnr'.*Did you mean min_snr"),
        ('weight', 'min_snr:5', r'min_snr takes gamma; write family\.weight=NAME:key=number'),
        ('coupling', 'optimal_trasport', "There is no coupling 'optimal_tr.*Did you mean optimal_transport"),
    ],
)
def test_what_no_choice_is_called_is_one_line(name, option, value, why, make_family):
    with pytest.raises(UserError, match=why):
        make_family(name, **{option: value})


@pytest.mark.parametrize(
    ('options', 'overrides', 'conditional', 'why'),
    [
        ({'weight': 'elbo', 'time_sampler': 'logit_normal'}, (), False, 'weight=elbo needs times that are even in t'),
        ({'weight': 'elbo'}, (), False, 'time_sampler=low_discrepancy'),  # over steps: no integral over time
        ({'time_sampler': 'by_weight', 'schedule': 'edm', 'prediction': 'preconditioned'}, (), False,
         'by_weight needs a loss that uses only the drawn times, and a schedule without a curve'),
        ({'weight': 'sigmoid', 'schedule': 'edm', 'prediction': 'preconditioned', 'time_sampler': 'low_discrepancy'},
         (), False, 'no schedule with a curve'),
        ({'coupling': 'optimal_transport'}, ('train.batch_size=4',), False, 'at least 8 images.*train.batch_size'),
        ({'coupling': 'optimal_transport'}, ('train.accumulate=2',), False, 'whole batch at once'),
        ({'coupling': 'optimal_transport'}, (), True, 'needs an unconditional model'),
        ({'learned_variance': 0.001, 'time_sampler': 'low_discrepancy'}, (), False, 'the times of a chain of steps'),
        ({'learned_variance': 0.001, 'schedule': 'edm', 'prediction': 'preconditioned'}, (), False, 'even in t'),
        ({'weight': 'vlb'}, (), False, 'weight=vlb needs learned variances'),
        ({'time_sampler': 'importance', 'learned_variance': 0.001}, (), False, 'importance needs the bound in steps'),
        ({**BOUND, 'time_sampler': 'importance'}, ('train.accumulate=2',), False, 'importance.*train.accumulate=1'),
        ({**BOUND, 'time_sampler': 'importance', 'uncertainty': True}, (), False, 'uncertainty makes equal'),
        ({**BOUND, 'time_sampler': 'importance:last=5'}, (), False, 'importance takes no numbers'),
        ({**BOUND, 'time_sampler': 'importance', 'schedule': 'learned'}, (), False, 'learned needs family.weight=elbo'),
        ({}, ('evaluation.vlb_variances=learned,',), False, 'vlb_variances has learned, which needs'),
        ({}, ('evaluation.samplers=ancestral:9:variance=learned,',), False, 'samplers has variance=learned'),
    ],
)  # fmt: skip
def test_what_makes_no_sense_together_is_one_line(options, overrides, conditional, why):
    values = {'family': {'name': 'diffusion', 'conditional': conditional, **options}, 'network': {'name': 'unet'}}
    with pytest.raises(UserError, match=why) as caught:
        families.get('diffusion')(configs.resolve(values, overrides), DataSpec('images', (4, 4, 1), 5, classes=3))
    assert '\n' not in str(caught.value)


def test_uniform_times_of_a_chain_are_its_steps(make_family, keys):
    chain = make_family('diffusion', num_timesteps=4)
    assert set(np.round(np.asarray(chain.times(keys(200))) * 4 / chain.schedule.t_max, 5)) == {1, 2, 3, 4}


def test_a_family_adds_choices_of_its_own_without_changing_the_others(batch, make_family, resolve):
    class Own(families.get('flow_matching')):
        couplings = {**couplings.COUPLINGS, 'reversed': Choice(lambda images, noise: noise[::-1])}
        time_samplers = {'last': Choice(lambda schedule, keys: jnp.full(len(keys), schedule.t_max))}

    family = Own(resolve('flow_matching', coupling='reversed', time_sampler='last'), make_family('flow_matching').spec)
    images, noise, _ = family.pairs({}, batch, jax.random.key(0))
    same, straight, _ = make_family('flow_matching').pairs({}, batch, jax.random.key(0))
    np.testing.assert_array_equal(images, same)
    np.testing.assert_array_equal(noise, straight[::-1])
    assert set(family.times(batch['key']).tolist()) == {1.0}
    with pytest.raises(UserError, match="There is no coupling 'reversed'"):
        make_family('flow_matching', coupling='reversed')


def test_optimal_transport_shortens_the_paths_and_leaves_the_images(batch, make_family):
    plain, coupled = (
        make_family('flow_matching', coupling=name).pairs({}, batch, jax.random.key(0))
        for name in ('independent', 'optimal_transport')
    )
    np.testing.assert_array_equal(plain[0], coupled[0])
    assert sorted(np.asarray(plain[1])[:, 0, 0, 0]) == sorted(np.asarray(coupled[1])[:, 0, 0, 0])
    length = [jnp.square(image - noise).sum() for image, noise, _ in (plain, coupled)]
    assert length[1] < length[0]


@pytest.mark.parametrize(('name', 'options'), [('flow_matching', {}), ('diffusion', {'prediction': 'noise'})])
def test_the_mean_of_the_bound_s_loss_is_its_diffusion_term(name, options, keys, resolve):
    """In nats for each dimension: data of one image, and a network that always sees another, a known distance away."""
    family = families.get(name)(
        resolve(name, weight='elbo', time_sampler='low_discrepancy', dequantisation='none', **options), SPEC
    )
    x, wrong = (SPEC.dequantise(jnp.full((1, 1, 1, 2), level)) for level in (3000, 3300))

    def network(x_t, t, given=None, key=None):
        alpha, sigma = expand(family.schedule.alpha(t), x_t), expand(family.schedule.sigma(t), x_t)
        noise = (x_t - alpha * wrong) / sigma
        return noise - wrong if name == 'flow_matching' else noise

    count = 20_000
    batch = {'image': jnp.full((count, 1, 1, 2), 3000), 'key': keys(count)}
    span = [family.schedule.alpha(t) / family.schedule.sigma(t) for t in
            (jnp.asarray(family.schedule.t_min), jnp.asarray(family.schedule.t_max))]  # fmt: skip
    wanted = 0.5 * (span[0] ** 2 - span[1] ** 2) * jnp.square(x - wrong).mean()
    found = plain_loss(family, network, batch)
    assert found == pytest.approx(float(wanted), rel=0.02)


def test_offset_noise_is_shared_by_the_pixels_of_a_channel(batch, make_family):
    """ε + s δ with one δ for each image and channel (Guttenberg 2023)."""
    plain, offset = (make_family('flow_matching', offset_noise=size).pairs({}, batch, jax.random.key(0))[1]
                     for size in (0.0, 0.1))  # fmt: skip
    added = np.asarray(offset - plain)
    np.testing.assert_allclose(added, np.broadcast_to(added[:, :1, :1], added.shape), atol=1e-6)
    assert 0.05 < added[:, 0, 0].std() < 0.15


def test_the_uncertainty_that_the_loss_looks_for_is_the_logarithm_of_the_error(batch, make_family):
    """d/du (e exp(−u) + u) = 0 where u = log e; the regression itself is logged beside it."""
    plain, family = make_family('flow_matching'), make_family('flow_matching', uncertainty=True)
    error = float(plain_loss(plain, zero, batch))

    def loss(u):
        networks = Networks({'denoiser': zero, 'uncertainty': lambda t: jnp.full(len(t), u)})
        return family.loss(networks, batch, jax.random.key(0), jnp.zeros(()))

    assert loss(0.0)[0] == pytest.approx(error, rel=1e-5)
    assert loss(0.7)[1]['regression'] == pytest.approx(error, rel=1e-5)
    assert loss(0.7)[0] == pytest.approx(error * np.exp(-0.7) + 0.7, rel=1e-5)
    assert jax.grad(lambda u: loss(u)[0])(jnp.log(error)) == pytest.approx(0, abs=1e-4)
    assert (family.updates[0].networks, family.averaged) == (('denoiser', 'uncertainty'), ('denoiser',))


# Learned variances, against a chain whose Kullback–Leibler divergences are written out.

MEAN, VARIANCE, SHARE = np.array([0.1, -0.2]), np.array([0.2, 0.05]), np.array([0.3, 1.2])


@pytest.fixture
def learned(resolve):
    """A family whose network has the exact denoiser of Gaussian data and the same share of variance everywhere."""
    config = resolve('diffusion', num_timesteps=STEPS, prediction='x', learned_variance=0.001)
    config = config.copy_and_resolve_references()
    config.evaluation.update({'vlb_draws': 20, 'vlb_variances': ('learned',)})
    return families.get('diffusion')(config, SPEC)


def exact_network(schedule):
    def network(x_t, t, given=None, key=None):
        alpha, sigma = expand(schedule.alpha(t), x_t), expand(schedule.sigma(t), x_t)
        x = MEAN + alpha * VARIANCE * (x_t - alpha * MEAN) / (alpha**2 * VARIANCE + sigma**2)
        return jnp.concatenate([x, jnp.broadcast_to(2 * SHARE - 1, x.shape)], axis=-1)

    return network


def terms(family, x):
    """−L_t of DDPM's equation 5 for t = 1 … T and x (2,), their means over the noise, in nats."""
    t = family.schedule.t_max * jnp.arange(STEPS + 1) / STEPS
    alpha, sigma = (np.asarray(f(t), float)[:, None] for f in (family.schedule.alpha, family.schedule.sigma))
    beta = sigma[1:] ** 2 - (alpha[1:] / alpha[:-1] * sigma[:-1]) ** 2
    small = beta * sigma[:-1] ** 2 / sigma[1:] ** 2
    small[0] = small[1]  # β̃_1 = 0 is replaced
    p = beta**SHARE * small ** (1 - SHARE)
    gain = alpha * VARIANCE / (alpha**2 * VARIANCE + sigma**2)
    error = ((x - MEAN) * (1 - gain * alpha)) ** 2 + (gain * sigma) ** 2
    weight = (alpha[:-1] * beta / sigma[1:] ** 2) ** 2
    kl = (np.log(p / small) + (small + weight * error[1:]) / p - 1) / 2
    decoder = stats.norm.logpdf(0, scale=np.sqrt(p[:1])) - error[1:2] / (2 * p[:1]) + SPEC.log_bin_width
    prior = -((alpha[-1] * x / sigma[-1]) ** 2) / 2
    return np.concatenate([decoder, -kl[1:]]).sum(1), prior.sum()


def test_the_learned_bound_is_the_sum_of_its_divergences(learned, keys):
    integers, count = jnp.asarray([[[[5000, 2600]]]]), 4000
    networks = Networks({'denoiser': exact_network(learned.schedule)})
    score = jax.jit(lambda images, keys: learned.likelihoods[-1].log_prob(networks, images, None, keys)['log_prob'])
    found = np.asarray(score(jnp.repeat(integers, count, axis=0), keys(count)), float)
    steps, prior = terms(learned, np.asarray(SPEC.dequantise(integers), float).ravel())
    assert learned.likelihoods[-1].method == 'vlb_learned'
    assert found.mean() == pytest.approx(steps.sum() + prior, abs=5 * found.std() / np.sqrt(count) + 1e-3)


def test_the_loss_of_learned_variances_is_a_share_of_the_bound(learned, keys):
    """L_simple + λ L_vlb in bits per dimension, without the prior, and without a gradient to the image."""
    integers, count = jnp.asarray([[[[5000, 2600]]]]), 20_000
    batch = {'image': jnp.repeat(integers, count, axis=0), 'key': keys(count)}
    network = exact_network(learned.schedule)
    hybrid, simple = (
        plain_loss(learned, one, batch) for one in (network, lambda *inputs, key=None: network(*inputs)[..., :2])
    )
    steps, _ = terms(learned, np.asarray(SPEC.dequantise(integers), float).ravel())
    assert float(hybrid - simple) == pytest.approx(0.001 * SPEC.bits_per_dim(steps.sum()), rel=0.05)

    x = jnp.ones((4, 1, 1, 2))

    def penalty(image, share):
        return learned.variance_loss(x, learned.time(jnp.arange(1, 5)), Prediction(image, image, share)).sum()

    image, share = jax.grad(penalty, argnums=(0, 1))(0.9 * x, 0.5 * x)
    assert (image == 0).all() and (share != 0).all()


def test_the_bound_is_a_loss_whose_steps_may_be_drawn_by_importance(resolve, keys):
    """L_vlb in bits per dimension, without the prior, and with a gradient to the image."""
    integers, count = jnp.asarray([[[[5000, 2600]]]]), 4000
    batch = {'image': jnp.repeat(integers, count, axis=0), 'key': keys(count)}
    found = {}
    for sampler in ('uniform', 'importance'):
        options = {'num_timesteps': STEPS, 'prediction': 'x', 'time_sampler': sampler, **BOUND}
        family = families.get('diffusion')(resolve('diffusion', **options), SPEC)
        built = family.networks(nnx.Rngs(0))
        assert ('history' in built) == (sampler == 'importance')
        networks = Networks({**built, 'denoiser': exact_network(family.schedule)})
        if sampler == 'importance':  # even steps fill the history
            family.losses(networks, batch, jax.random.key(0))
        found[sampler] = np.asarray(family.losses(networks, batch, jax.random.key(1))[0], float)
    steps, _ = terms(family, np.asarray(SPEC.dequantise(integers), float).ravel())
    bound = SPEC.bits_per_dim(steps.sum())
    for losses in found.values():
        assert losses.mean() == pytest.approx(bound, abs=5 * losses.std() / np.sqrt(count) + 1e-3)
    assert found['importance'].var() < 0.1 * found['uniform'].var()

    x = jnp.ones((4, 1, 1, 2))
    pulled = jax.grad(
        lambda image: family.variance_loss(x, family.time(jnp.arange(1, 5)), Prediction(image, image, 0.5 * x)).sum()
    )
    assert (pulled(0.9 * x) != 0).all()


@pytest.mark.parametrize('share', [0.0, 0.5, 1.0])
def test_an_ancestral_step_has_the_variance_that_the_network_says(share, keys):
    """β̃^(1−v) β^v, in DDPM's terms, of a step between two times; the last step has none."""
    schedule = schedules.cosine()
    t, s = jnp.asarray(0.6), jnp.asarray(0.5)
    x_t = jnp.zeros((1, 1, 1, 50_000))
    zero, same = jnp.zeros_like(x_t), jnp.full_like(x_t, share)
    noise = jax.random.normal(jax.random.key(0), x_t.shape)

    def drawn(s):
        step = Step(schedule, lambda x, t: Prediction(zero, zero, same), x_t, t, s, lambda: noise, jnp.asarray(10),
                    AncestralOptions(variance='learned'))  # fmt: skip
        return np.asarray(ancestral(step), float)

    kept = [float(schedule.alpha(time)) ** 2 for time in (t, s)]
    beta = 1 - kept[0] / kept[1]
    small = beta * (1 - kept[1]) / (1 - kept[0])
    assert drawn(s).var() == pytest.approx(small ** (1 - share) * beta**share, rel=0.03)
    assert np.abs(drawn(jnp.asarray(0.0))).max() == 0


def test_a_learned_variance_that_was_not_learned_is_one_line(make_family, keys):
    family = make_family('diffusion')
    network = {'denoiser': lambda x, t, given=None: x}
    sampler = Sampler('ancestral', 2, options=AncestralOptions(variance='learned'))
    with pytest.raises(UserError, match='trained with family.learned_variance'):
        family.sample(network, keys(2), None, sampler)


@pytest.mark.parametrize('power', [0.5, 1])
def test_times_by_weight_leave_the_expectation_as_it_is_and_lower_the_variance(make_family, power):
    """Of w(t) e(t) with e = 1 + t, whose mean over even times is an integral; at power 1 only e varies."""
    options = {'weight': 'elbo', 'prediction': 'velocity', 'schedule': 'straight'}
    even, drawn = (make_family('flow_matching', time_sampler=name, **options)
                   for name in ('low_discrepancy', f'by_weight:power={power}'))  # fmt: skip
    keys = jax.random.split(jax.random.key(0), 40_000)
    t = drawn.times(keys)
    found = np.asarray(drawn.weight(t) * (1 + t), np.float64)
    low, high = drawn.schedule.t_min, drawn.schedule.t_max
    grid = np.geomspace(low, high, 200_001)
    terms = np.asarray(even.weight(jnp.asarray(grid)), np.float64) * (1 + grid)
    mean, square = (np.trapezoid(one, grid) / (high - low) for one in (terms, terms**2))
    assert found.mean() == pytest.approx(mean, abs=5 * found.std() / 200)
    assert found.var() < 0.2 * (square - mean**2)
    if power == 1:
        assert found.std() < 0.3 * mean
    assert (t >= low).all() and (t <= high).all()


def test_times_by_weight_are_refused_where_a_loss_looks_at_other_times_too(make_family):
    with pytest.raises(UserError, match='by_weight needs a loss that uses only the drawn times'):
        make_family('shortcut', time_sampler='by_weight')


@pytest.mark.parametrize('name', ['cosine', 'straight', 'edm', 've', 'trig'])
def test_the_uncertainty_can_follow_the_noise_level_on_every_schedule(name):
    """A wave over the schedule's way to noise is a sum of its features with moderate coefficients."""
    schedule = schedules.get(name)
    uncertainty = Uncertainty(nnx.Rngs(0), schedule)
    seen = schedule.condition(schedule.time(jnp.linspace(0.01, 1, 400)))
    features = np.asarray(layers.timestep_embedding(seen, uncertainty.features, scale=uncertainty.scale))
    share = np.asarray((seen - seen[0]) / (seen[-1] - seen[0]))
    wanted = np.cos(6 * share)
    ridge = np.linalg.solve(features.T @ features + 1e-2 * np.eye(len(features.T)), features.T @ wanted)
    assert np.abs(features @ ridge - wanted).max() < 0.05

"""Guidance by a classifier, for a mixture of two normals whose denoisers and labels are known."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from oracles import from_image

from genbench import config, families
from genbench.data.spec import DataSpec
from genbench.errors import UserError
from genbench.families.base import Borrowed, Networks, Sampler
from genbench.interpolants import predictions, solvers
from genbench.interpolants.options import HeunOptions, PathOptions
from genbench.interpolants.schedules import expand
from genbench.training import samplers

STD, MEANS, SHARES = 0.25, np.array([-0.5, 0.5]), np.array([0.3, 0.7])
SPEC = DataSpec('points', (1, 1, 1), levels=8192, classes=2)
IMAGES = DataSpec('images', (4, 4, 3), levels=5, classes=3)
BY = {'by': 'classifier'}


@pytest.fixture
def family_of(make_family):
    def make(schedule='cosine', prediction='v', **options):
        chosen = {'schedule': schedule, 'prediction': prediction, 'classifier': True, **options}
        return make_family('diffusion', True, spec=SPEC, **chosen)

    return make


def label_densities(schedule, x_t, t):
    """log of share × density of N(α mean, α² STD² + σ²) at x_t, (batch, 2)."""
    alpha, sigma = schedule.alpha(t)[:, None], schedule.sigma(t)[:, None]
    variance = (alpha * STD) ** 2 + sigma**2
    return np.log(SHARES) - jnp.square(x_t.reshape(-1, 1) - alpha * MEANS) / (2 * variance) - jnp.log(variance) / 2


def denoiser(schedule, label=None):
    """The mean image of the mixture, or of the normal with this label, given x_t."""

    def image(x_t, t):
        alpha, sigma = schedule.alpha(t), schedule.sigma(t)
        pull = alpha * STD**2 / ((alpha * STD) ** 2 + sigma**2)
        means = [mean + pull * (x_t - alpha * mean) for mean in MEANS]
        if label is not None:
            return means[label]
        shares = jax.nn.softmax(label_densities(schedule, x_t, t.reshape(-1)))
        return expand(shares[:, 0], x_t) * means[0] + expand(shares[:, 1], x_t) * means[1]

    return from_image(schedule, image)


def exact(family):
    """An exact denoiser, which ignores its label, and an exact classifier."""

    def network(x_t, t, given, key=None):
        return predictions.target(family.prediction, family.schedule, *denoiser(family.schedule)(x_t, t)[:2], t)

    classify = lambda x_t, t, key=None: label_densities(family.schedule, x_t, t) + 3.0  # noqa: E731
    return Networks({'denoiser': network, 'classifier': classify})


@pytest.mark.parametrize('label', [0, 1])
@pytest.mark.parametrize(('schedule', 'prediction'), [('cosine', 'v'), ('linear', 'noise'), ('straight', 'velocity')])
def test_the_guided_prediction_is_that_of_the_label(schedule, prediction, label, family_of):
    """With w = 1: ∇ log p(x_t) + ∇ log p(label | x_t) = ∇ log p(x_t | label)."""
    family = family_of(schedule, prediction)
    x_t, t = jax.random.normal(jax.random.key(0), (6, 1, 1, 1)), jnp.linspace(0.1, 0.9, 6)
    given = {'label': jnp.full(6, label)}
    sampler = Sampler('ddim', 2, 1.0, PathOptions(by='classifier'))
    found = family._sampled(exact(family), given, sampler)(x_t, t)
    wanted = denoiser(family.schedule, label)(x_t, t)
    np.testing.assert_allclose(found.x, wanted.x, rtol=1e-3, atol=1e-4)
    np.testing.assert_allclose(found.noise, wanted.noise, rtol=1e-3, atol=1e-4)


def test_guided_samples_have_the_distribution_of_the_label(family_of, keys):
    """Without guidance they have that of the mixture."""
    family, drawn, count = family_of(), keys(2000), 2000
    start = solvers.initial_noise(family.schedule, drawn, (1, 1, 1))
    given = {'label': jnp.ones(count, int)}
    draw = jax.jit(lambda sampler: family.carried(exact(family), start, drawn, given, sampler).x, static_argnums=0)
    guided = draw(Sampler('heun', 20, 1.0, HeunOptions(by='classifier')))
    assert float(guided.mean()) == pytest.approx(0.5, abs=0.03) and float(guided.std()) == pytest.approx(STD, abs=0.02)
    mixed = draw(Sampler('heun', 20))
    assert float(mixed.mean()) == pytest.approx(SHARES @ MEANS, abs=0.04)


def test_more_guidance_sharpens_the_classifier(family_of):
    """w multiplies the logarithm of the probability: the noise changes by −σ w ∇ log p(label | x_t) (algorithm 2)."""
    family = family_of()
    x_t, t, given = jnp.full((1, 1, 1, 1), 0.2), jnp.array([0.5]), {'label': jnp.array([0])}
    log_probability = lambda x: jax.nn.log_softmax(label_densities(family.schedule, x, t))[0, 0]  # noqa: E731
    step = 1e-2
    slope = float(log_probability(x_t + step) - log_probability(x_t - step)) / (2 * step)
    noises = [
        float(family._sampled(exact(family), given, Sampler('ddim', 2, w, PathOptions(**BY)))(x_t, t).noise.sum())
        for w in (0.0, 2.5)
    ]
    assert noises[1] - noises[0] == pytest.approx(-2.5 * float(family.schedule.sigma(t)[0]) * slope, rel=5e-3)


def test_nothing_is_guided_where_there_is_no_signal(family_of):
    family = family_of('straight', 'velocity')
    x_t, t, given = jnp.ones((1, 1, 1, 1)), jnp.ones(1), {'label': jnp.array([1])}
    plain, guided = (
        family._sampled(exact(family), given, Sampler('ddim', 2, w, PathOptions(**BY)))(x_t, t).x for w in (0.0, 3.0)
    )
    assert np.isfinite(guided).all() and plain == guided


def test_the_loss_of_the_classifier_has_its_minimum_at_the_posterior(family_of, keys):
    """Among classifiers whose logits are multiples of the exact ones. The label of an image is that of its normal."""
    family, count = family_of(), 4000
    label = (np.random.default_rng(0).uniform(size=count) < SHARES[1]).astype(int)
    points = MEANS[label] + STD * np.random.default_rng(1).normal(size=count)
    image = SPEC.quantise(jnp.asarray(points.reshape(-1, 1, 1, 1), jnp.float32))
    batch = {'image': image, 'label': jnp.asarray(label), 'key': keys(count)}

    def loss(scale):
        scaled = lambda x_t, t, key=None: scale * label_densities(family.schedule, x_t, t)  # noqa: E731
        return family.classifier.loss(Networks({'classifier': scaled}), batch, jax.random.key(0), 0)[0]

    slope = jax.jit(jax.grad(loss))
    below, exact, above = (float(slope(scale)) for scale in (0.5, 1.0, 2.0))
    assert below < 0 < above and abs(exact) < 0.2 * min(-below, above)


def test_the_classifier_is_trained_beside_the_denoiser_and_evaluated_once_a_step(make_family):
    family = make_family('diffusion', True, classifier=True)
    assert [update.networks for update in family.updates] == [('denoiser',), ('classifier',)]
    assert family.averaged == ('denoiser', 'classifier')
    assert family.evaluations(samplers.parse('ddim:5:guidance=2,by=classifier', family)) == 10
    assert family.evaluations(samplers.parse('ddim:5:by=classifier,guidance=0', family)) == 5


def test_fresh_networks_are_trained_and_guide(make_family, batch):
    """The classifier's loss reaches all its parameters except those behind layers that start at zero."""
    family = make_family('diffusion', True, classifier=True)
    networks = Networks(family.networks(nnx.Rngs(0)))

    def loss(classifier):
        return family.classifier.loss(Networks({**networks, 'classifier': classifier}), batch, jax.random.key(0), 0)[0]

    value, slopes = nnx.jit(nnx.value_and_grad(loss))(networks['classifier'])
    assert 0.5 < value < 3 and jnp.abs(slopes['output']['kernel'][...]).max() > 0
    given, x_t = {'label': batch['label']}, jax.random.normal(jax.random.key(1), (8, 4, 4, 3))
    plain, guided = (
        family._sampled(networks, given, Sampler('ddim', 2, w, PathOptions(**BY)))(x_t, jnp.full(8, 0.5)).x
        for w in (0.0, 5.0)
    )
    assert (plain != guided).any() and np.isfinite(guided).all()


REFUSED = {
    'ddim:2:guidance=1,by=classifier': (False, {}, 'which needs a model trained with family.classifier=True'),
    'ddim:2:by=classifier': (True, {}, 'which has no effect without guidance'),
    'ddim:2:guidance=1,by=classifier,negative=label=1': (True, {}, 'both by=classifier and negative; use only one'),
}


@pytest.mark.parametrize('text', REFUSED)
def test_guidance_by_a_classifier_that_there_is_not_is_refused(text, make_family):
    classifier, options, why = REFUSED[text]
    with pytest.raises(UserError, match=why):
        samplers.parse(text, make_family('diffusion', True, classifier=classifier, **options))


@pytest.mark.parametrize(('name', 'conditional', 'network', 'why'), [
    ('diffusion', False, {}, 'this model has none; set family.conditional=True'),
    ('mean_flow', True, {}, 'mean_flow learns jumps'),
    ('diffusion', True, {'name': 'dit'}, 'a classifier of noisy images is half of a U-Net; use unet'),
])  # fmt: skip
def test_a_model_that_can_have_no_classifier_is_refused(name, conditional, network, why):

    chosen = {'family': {'name': name, 'conditional': conditional, 'classifier': True}, 'network': network}
    with pytest.raises(UserError, match=why):
        families.get(name)(config.resolve(chosen), IMAGES).networks(nnx.Rngs(0))


@pytest.mark.parametrize(
    ('options', 'named'),
    [
        ({'data_noise': 0.1}, 'family.data_noise'),
        ({'path_noise': 0.1}, 'family.path_noise'),
        ({'offset_noise': 0.1}, 'family.offset_noise'),
        ({'coupling': 'pairs', 'teacher': 'a run'}, 'family.coupling=pairs'),
    ],
)
def test_paths_whose_noise_does_not_tell_the_score_have_no_classifier(options, named, make_family):
    with pytest.raises(UserError, match=f'wrong with {named}; use that or family.classifier, not both'):
        make_family('flow_matching', True, spec=IMAGES, classifier=True, **options, borrowed=(
            {'teacher': Borrowed(make_family('diffusion', True, spec=IMAGES))} if 'teacher' in options else {}
        ))  # fmt: skip

"""Schedules and optimizers do what their names say."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from genbench import config as configs
from genbench.errors import UserError
from genbench.settings import DEFAULTS
from genbench.training import optimizer


def options(**changes):
    return {**DEFAULTS['optimizer'], **changes}


def rate(step, num_steps=100, **changes):
    return float(optimizer.learning_rate(options(learning_rate=2.0, **changes), num_steps)(step))


def moved(gradient, start=0.0, **changes):
    """Where one update leads from `start`."""
    built = optimizer.build(options(learning_rate=0.1, **changes), 10)
    params = jnp.full(len(gradient), start)
    steps, _ = built.update(jnp.asarray(gradient), built.init(params), params)
    return np.asarray(optax.apply_updates(params, steps))


@pytest.mark.parametrize(
    ('schedule', 'middle', 'end'), [('constant', 2.0, 2.0), ('linear', 1.0, 0.0), ('cosine', 1.0, 0.0)]
)
def test_a_schedule_starts_at_the_peak_and_ends_with_the_run(schedule, middle, end):
    values = [rate(step, schedule=schedule) for step in (0, 50, 100)]
    assert values == pytest.approx([2.0, middle, end], abs=1e-6)


@pytest.mark.parametrize('schedule', ['constant', 'cosine', 'linear'])
def test_warm_up_is_linear_and_the_decay_fills_the_rest(schedule):
    warming = [rate(step, schedule=schedule, warmup_steps=20) for step in (0, 10, 20)]
    assert warming == pytest.approx([0.0, 1.0, 2.0], abs=1e-6)
    assert rate(100, schedule=schedule, warmup_steps=20) == pytest.approx(rate(100, schedule=schedule), abs=1e-6)


def test_an_exponential_decay_multiplies_the_rate_at_every_step_whatever_the_length_of_the_run():
    for num_steps in (10, 1000):
        assert rate(3, num_steps, schedule='exponential', decay_rate=0.5) == pytest.approx(2.0 / 8)
    assert rate(100_000, schedule='exponential') == pytest.approx(2 * np.exp(100_000 * np.log(0.999995)), rel=1e-3)


@pytest.mark.parametrize('changes', [{'name': 'adm'}, {'schedule': 'cosin'}])
def test_an_unknown_name_brings_a_suggestion(changes):
    with pytest.raises(UserError, match='Did you mean'):
        optimizer.build(options(**changes), 10)


def test_sgd_is_the_rate_times_the_gradient():
    assert moved([3.0, 4.0], name='sgd', clip_norm=0.0) == pytest.approx([-0.3, -0.4])


def test_rmsprop_divides_by_the_root_of_a_running_mean_of_squares():
    gradient = np.array([3.0, -4.0])
    wanted = -0.1 * gradient / np.sqrt(0.25 * gradient**2 + 1e-3)
    assert moved(list(gradient), name='rmsprop', b2=0.75, epsilon=1e-3, clip_norm=0.0) == pytest.approx(wanted)


def test_the_norm_of_all_gradients_together_is_clipped():
    assert moved([3.0, 4.0], name='sgd', clip_norm=1.0) == pytest.approx([-0.06, -0.08])
    assert moved([0.3, 0.4], name='sgd', clip_norm=1.0) == pytest.approx([-0.03, -0.04])


def test_the_first_step_of_adam_is_the_rate():
    assert moved([5.0, -0.01], name='adam') == pytest.approx([-0.1, 0.1], rel=1e-3)


def test_l2_is_added_to_the_clipped_gradient():
    assert moved([3.0, 4.0], start=1.0, name='sgd', clip_norm=1.0, l2=0.5) == pytest.approx([0.89, 0.87])


def test_l2_with_adam_gives_what_pytorch_calls_weight_decay():
    """Recorded: five steps of torch 2.13's Adam with weight_decay=0.3 on the loss 0.2 a − 0.4 b."""
    built, weights = optimizer.build(options(learning_rate=0.1, clip_norm=0.0, l2=0.3), 10), jnp.array([1.0, -2.0])
    state = built.init(weights)
    for _ in range(5):
        steps, state = built.update(jnp.array([0.2, -0.4]), state, weights)
        weights = optax.apply_updates(weights, steps)
    assert np.asarray(weights) == pytest.approx([0.5038, -1.5016], abs=1e-4)


def test_unit_gradients_with_adam_are_those_of_the_published_code():
    """Recorded: five steps of sajadn/Exemplar-VAE's AdamNormGrad at a rate of 0.1 on Σ w a² Σ b² / 100."""
    built = optimizer.build(options(learning_rate=0.1, clip_norm=1.0, unit_gradients=True), 10)
    weights = {'a': jnp.array([[1.0, -2.0], [0.5, 3.0]]), 'b': jnp.array([0.3, -0.1, 4.0])}
    state = built.init(weights)
    gradient = jax.grad(lambda w: (w['a'] ** 2 * jnp.array([1.0, 2.0])).sum() * (w['b'] ** 2).sum() / 100)
    for _ in range(5):
        steps, state = built.update(gradient(weights), state, weights)
        weights = optax.apply_updates(weights, steps)
    assert np.asarray(weights['a']).ravel() == pytest.approx([0.504562, -1.500541, 0.023192, 2.499689], abs=1e-5)
    assert np.asarray(weights['b']) == pytest.approx([-0.116822, 0.004880, 3.499961], abs=1e-5)


def test_a_unit_gradient_of_zero_is_zero():
    assert moved([0.0, 0.0], start=1.0, unit_gradients=True) == pytest.approx([1.0, 1.0])


def test_adamw_decays_weights_that_have_no_gradient():
    assert moved([0.0], start=1.0, name='adamw', weight_decay=0.5) == pytest.approx([1 - 0.1 * 0.5])


@pytest.mark.parametrize(
    ('changes', 'why'),
    [
        (
            {'name': 'adam', 'weight_decay': 0.5},
            'weight_decay is 0.5, but optimizer.name=adam ignores it; use .*adamw',
        ),
        ({'name': 'sgd', 'weight_decay': 0.5}, 'optimizer.name=sgd ignores it'),
        ({'name': 'sgd', 'b2': 0.9}, 'b2 is 0.9, but optimizer.name=sgd'),
        ({'schedule': 'cosine', 'drops': (5,)}, 'belong to optimizer.schedule=steps'),
        ({'schedule': 'cosine', 'drop_factor': 0.5}, 'belongs to optimizer.schedule=steps'),
        ({'schedule': 'steps', 'decay_rate': 0.5}, 'belongs to optimizer.schedule=exponential'),
        ({'name': 'adamw', 'epsilon': 1e-4}, 'belongs to optimizer.name=adam'),
        ({'schedule': 'cosine', 'decay_start': 5}, 'belongs to optimizer.schedule=inverse_sqrt'),
    ],
)
def test_an_option_that_would_be_ignored_is_refused(changes, why):
    with pytest.raises(UserError, match=why):
        optimizer.build(options(**changes), 10)


def test_what_a_family_sets_for_another_optimizer_is_not_held_against_the_user():
    optimizer.build(options(name='sgd', b2=0.99), 10, options(b2=0.99))


@pytest.mark.parametrize('name', optimizer.OPTIMIZERS)
@pytest.mark.parametrize(('key', 'value'), [('weight_decay', 0.3), ('b1', 0.3), ('b2', 0.3)])
def test_every_option_changes_the_steps_or_is_refused(name, key, value):
    def path(**changes):
        try:
            built = optimizer.build(options(name=name, learning_rate=0.1, **changes), 10)
        except UserError:
            return None
        params = {'kernel': jnp.ones((2, 8)), 'bias': jnp.ones(8)}
        state = built.init(params)
        for step in range(6):
            draw = np.random.default_rng(step)
            gradient = {name: jnp.asarray(draw.normal(size=leaf.shape), jnp.float32) for name, leaf in params.items()}
            moved, state = built.update(gradient, state, params)
            params = optax.apply_updates(params, moved)
        return np.concatenate([np.ravel(leaf) for leaf in params.values()])

    changed = path(**{key: value})
    assert changed is None or np.abs(changed - path()).max() > 1e-4


def test_the_inverse_square_root_falls_from_its_reference():
    values = [rate(step, schedule='inverse_sqrt', warmup_steps=10, decay_start=20) for step in (5, 10, 20, 80)]
    assert values == pytest.approx([1.0, 2.0, 2.0, 1.0])
    assert rate(40, schedule='inverse_sqrt', warmup_steps=10) == pytest.approx(1.0)


def test_a_config_in_images_has_the_rates_of_the_official_code():
    """Recorded from learning_rate_schedule of NVlabs/edm2 (4bf8162), with a batch of 512 and t_ref = 35,000."""
    chosen = {**DEFAULTS['optimizer'], **configs.load('cifar10/edm2').optimizer}
    schedule = optimizer.learning_rate(chosen, 390_625)
    found = [float(schedule(step)) for step in (10_000, 19_531, 34_000, 35_000, 140_000, 390_000)]
    assert found == pytest.approx([0.006144, 0.01199985, 0.012, 0.012, 0.006, 0.00359487], rel=1e-4)


def test_steps_fall_at_the_drops():
    """Burda et al. 2016: 3^i epochs at 1e-3 · 10^(−i/7), here with one step an epoch."""
    drops = (1, 4, 13)
    values = [
        rate(step, schedule='steps', drops=drops, drop_factor=10 ** (-1 / 7)) for step in (0, 1, 3, 4, 12, 13, 99)
    ]
    assert values == pytest.approx([2 * 10 ** (-i / 7) for i in (0, 1, 1, 2, 2, 3, 3)], rel=1e-6)


def test_the_epsilon_of_adam_is_added_to_the_root_of_the_second_moment():
    assert moved([0.5], name='adam', epsilon=0.5, clip_norm=0.0) == pytest.approx([-0.1 * 0.5 / (0.5 + 0.5)], rel=1e-5)


def test_the_recipe_of_iwae_takes_the_steps_of_the_authors_loss():
    """Plain Adam (Kingma & Ba 2015, algorithm 1) with ε = 1e-4 on the gradient of the sum over 20 images in nats.

    Our loss is the mean in bits per dimension. The gradients are of the size of ε, so that it matters.
    """
    chosen = configs.load('paper/iwae_mnist')
    built = optimizer.build({**DEFAULTS['optimizer'], **chosen.optimizer}, chosen.train.num_steps)
    gradients = 3e-4 * np.random.default_rng(0).normal(size=(30, 5))
    found, expected, first, second = jnp.zeros(5), np.zeros(5), np.zeros(5), np.zeros(5)
    state = built.init(found)
    for t, gradient in enumerate(gradients, start=1):
        step, state = built.update(jnp.asarray(gradient / (20 * 784 * np.log(2))), state, found)
        found = optax.apply_updates(found, step)
        first, second = 0.9 * first + 0.1 * gradient, 0.999 * second + 0.001 * gradient**2
        expected -= 1e-3 * first / (1 - 0.9**t) / (np.sqrt(second / (1 - 0.999**t)) + 1e-4)
    np.testing.assert_allclose(found, expected, rtol=1e-4)


def test_the_first_step_of_lion_is_the_sign():
    assert moved([5.0, -0.01], name='lion') == pytest.approx([-0.1, 0.1])


@pytest.mark.parametrize('shape', [(6, 4), (3, 3, 5, 4)])
def test_muon_moves_matrices_by_orthogonal_ones_of_the_size_of_adams_steps(shape):
    built = optimizer.build(options(name='muon', learning_rate=0.1, clip_norm=0.0), 10)
    params = {'kernel': jnp.zeros(shape), 'bias': jnp.zeros(4)}
    gradient = {'kernel': jnp.asarray(np.random.default_rng(0).normal(size=shape)), 'bias': jnp.ones(4)}
    steps, _ = built.update(gradient, built.init(params), params)
    matrix = np.asarray(steps['kernel']).reshape(-1, 4)
    singular = np.linalg.svd(matrix, compute_uv=False)
    assert singular.max() / singular.min() < 2  # five Newton-Schulz steps reach 0.7 … 1.2
    assert np.sqrt(np.mean(matrix**2)) == pytest.approx(0.1 * 0.2, rel=0.3)
    others = optax.adamw(0.1, b1=0.9, b2=0.999, weight_decay=0.0, nesterov=True)
    expected, _ = others.update(gradient, others.init(params), params)
    np.testing.assert_allclose(steps['bias'], expected['bias'], rtol=1e-6)


def test_adagrad_divides_by_the_root_of_all_squares_so_far():
    """Duchi et al. 2011, figure 1, one coordinate in plain numbers; ε lies under the root, as in MADE's code."""
    gradients, epsilon, x, squares = [3.0, -0.5, 2.0, 0.0, -1.0], 0.04, 1.5, 0.0
    built = optimizer.build(options(name='adagrad', learning_rate=0.1, epsilon=epsilon, clip_norm=0.0), 20)
    found = jnp.asarray([x])
    state = built.init(found)
    for gradient in gradients:
        step, state = built.update(jnp.asarray([gradient]), state, found)
        found = optax.apply_updates(found, step)
        squares += gradient**2
        x -= 0.1 * gradient / (squares + epsilon) ** 0.5
        assert float(found[0]) == pytest.approx(x, rel=1e-6)


def test_radam_is_algorithm_2_of_liu():
    """Without a variance of its own while that is not tractable (ρ ≤ 5), and rectified after."""
    gradients = np.random.default_rng(0).normal(size=(12, 3))
    built = optimizer.build(options(name='radam', learning_rate=0.1, b1=0.9, b2=0.99, clip_norm=0.0), 20)
    params = jnp.zeros(3)
    state = built.init(params)
    x, mean, square, longest = np.zeros(3), np.zeros(3), np.zeros(3), 2 / (1 - 0.99) - 1
    for t, gradient in enumerate(gradients, 1):
        steps, state = built.update(jnp.asarray(gradient, jnp.float32), state, params)
        params = optax.apply_updates(params, steps)
        mean, square = 0.9 * mean + 0.1 * gradient, 0.99 * square + 0.01 * gradient**2
        length = longest - 2 * t * 0.99**t / (1 - 0.99**t)
        step = mean / (1 - 0.9**t)
        if length > 5:
            rectified = (length - 4) * (length - 2) * longest / ((longest - 4) * (longest - 2) * length)
            step = np.sqrt(rectified) * step / np.sqrt(square / (1 - 0.99**t))
        x = x - 0.1 * step
    np.testing.assert_allclose(params, x, rtol=1e-4, atol=5e-6)  # optax has ρ in float32

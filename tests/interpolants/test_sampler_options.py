"""Options of solvers against the rules of their papers, written anew in NumPy, and against laws that are known."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from oracles import STD, from_image, isotropic

from genbench import rng
from genbench.interpolants import predictions, schedules, solvers
from genbench.interpolants.options import DEFAULT, DdimOptions, HeunOptions, PathOptions


def curved(x_t, t):
    """No exact denoiser of anything: a smooth function that every solver must treat as its rule says."""
    module = jnp if isinstance(x_t, jax.Array) else np
    return module.tanh(x_t / (1 + t)) * 0.7 + 0.1 * module.sin(3 * x_t)


def run(name, schedule, denoise, keys, num_steps, options=DEFAULT, temperature=1.0):
    """The end of a run and its start."""
    start = temperature * solvers.initial_noise(schedule, keys, (1, 1, 2))
    solve = jax.jit(lambda: solvers.solve(solvers.SOLVERS[name], schedule, denoise, start, keys, num_steps, options).x)
    return np.asarray(solve()), np.asarray(start)


def draws(keys, num_steps):
    """The normal numbers of each step."""
    steps = rng.named(keys, 'steps')
    draw = jax.jit(lambda index: rng.normal(rng.numbered(steps, index), 'noise', (1, 1, 2)))
    return [np.asarray(draw(index)) for index in range(num_steps)]


def along(schedule, num_steps):
    """(t, α, σ) at the num_steps + 1 times."""
    times = schedule.step(num_steps - jnp.arange(num_steps + 1.0), num_steps)
    return np.asarray(times), np.asarray(schedule.alpha(times)), np.asarray(schedule.sigma(times))


@pytest.mark.parametrize('name', schedules.SCHEDULES)
def test_ddim_with_eta_1_is_the_ancestral_sampler(name, keys):
    """J. Song et al. 2021, section 4.1: η = 1 makes the generative process a DDPM, of the small variance."""
    with jax.enable_x64(True):
        schedule = schedules.get(name)
        denoise, drawn = from_image(schedule, curved), keys(5)
        found, _ = run('ddim', schedule, denoise, drawn, 9, DdimOptions(eta=1.0))
        wanted, _ = run('ancestral', schedule, denoise, drawn, 9)
    np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize('eta', [0.3, 0.8])
def test_eta_is_equation_16_of_song(eta, keys):
    schedule, num_steps, drawn = schedules.linear(), 10, keys(3)
    with jax.enable_x64(True):
        found, x = run('ddim', schedule, from_image(schedule, curved), drawn, num_steps, DdimOptions(eta=eta))
        noise, (t, alpha, _) = draws(drawn, num_steps), along(schedule, num_steps)
    bar = alpha**2
    for i in range(num_steps):
        image = curved(x, t[i])
        epsilon = (x - np.sqrt(bar[i]) * image) / np.sqrt(1 - bar[i])
        std = eta * np.sqrt((1 - bar[i + 1]) / (1 - bar[i])) * np.sqrt(1 - bar[i] / bar[i + 1])
        x = np.sqrt(bar[i + 1]) * image + np.sqrt(1 - bar[i + 1] - std**2) * epsilon + std * noise[i]
    np.testing.assert_allclose(found, x, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize('options', [
    HeunOptions(churn=40.0), HeunOptions(churn=5.0, s_noise=1.003, s_tmin=0.05, s_tmax=50.0),
])  # fmt: skip
def test_churn_is_algorithm_2_of_karras(options, keys):
    """Except that no noise level is raised above 80, where sampling starts."""
    schedule, num_steps, drawn = schedules.edm(), 18, keys(3)
    with jax.enable_x64(True):
        found, x = run('heun', schedule, from_image(schedule, curved), drawn, num_steps, options)
        noise = draws(drawn, num_steps)
    times = np.arange(num_steps) / (num_steps - 1)
    times = [*(80 ** (1 / 7) + times * (0.002 ** (1 / 7) - 80 ** (1 / 7))) ** 7, 0.0]
    for i, (t, s) in enumerate(itertools.pairwise(times)):
        gamma = min(options.churn / num_steps, np.sqrt(2) - 1) if options.s_tmin <= t <= options.s_tmax else 0
        later = min(t + gamma * t, 80)
        x = x + np.sqrt(max(later**2 - t**2, 0)) * options.s_noise * noise[i]
        d = (x - curved(x, later)) / later
        guess = x + (s - later) * d
        x = x + (s - later) * (d / 2 + (guess - curved(guess, s)) / s / 2) if s else guess
    np.testing.assert_allclose(found, x, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize('name', schedules.SCHEDULES)
def test_churn_leaves_the_law_of_the_samples_as_it_is(name, keys):
    """With an exact denoiser, and steps so short that their errors are below the standard error."""
    schedule = schedules.get(name)
    x, _ = run('heun', schedule, isotropic(schedule), keys(4000), 60, HeunOptions(churn=15.0))
    still, _ = run('heun', schedule, isotropic(schedule), keys(4000), 60)
    assert x.std() == pytest.approx(STD, rel=5 / np.sqrt(2 * x.size))
    assert np.abs(x - still).mean() > 0.1 * STD  # it is not the same sample


@pytest.mark.parametrize('name', ['linear', 'cosine', 'edm'])
@pytest.mark.parametrize('num_steps', [1, 2, 9])
def test_dpmpp_2m_is_algorithm_2_of_lu(name, num_steps, keys):
    """Line by line in λ = log α / σ, with a step of first order at either end."""
    schedule = schedules.get(name)
    with jax.enable_x64(True):
        found, x = run('dpmpp_2m', schedule, from_image(schedule, curved), keys(5), num_steps)
        t, alpha, sigma = along(schedule, num_steps)
    lam = np.log(alpha[:-1] / sigma[:-1])
    last = None
    for i in range(num_steps):
        image = curved(x, t[i])
        if i == num_steps - 1:
            x = image  # λ is infinite: σ = 0 leaves the image alone
            break
        h = lam[i + 1] - lam[i]
        d = image
        if last is not None:
            r = (lam[i] - lam[i - 1]) / h
            d = (1 + 1 / (2 * r)) * image - 1 / (2 * r) * last
        x = sigma[i + 1] / sigma[i] * x - alpha[i + 1] * (np.exp(-h) - 1) * d
        last = image
    np.testing.assert_allclose(found, x, rtol=1e-5, atol=1e-5)


def test_a_trace_that_begins_on_the_way_begins_without_memory(keys):
    """Its first step is of first order, as that of a whole run."""
    schedule, drawn = schedules.cosine(), keys(2)
    solver, denoise = solvers.SOLVERS['dpmpp_2m'], from_image(schedule, curved)
    start = solvers.initial_noise(schedule, drawn, (1, 1, 2))
    states = solvers.trace(solver, schedule, denoise, start, drawn, 6, first=2).states
    euler = solvers.trace(solvers.SOLVERS['euler'], schedule, denoise, start, drawn, 6, first=2).states
    np.testing.assert_allclose(states[3], euler[3], rtol=1e-5)
    assert np.abs(states[4] - euler[4]).max() > 1e-3


@pytest.mark.parametrize('name', ['ddim', 'ancestral', 'heun'])
def test_temperature_scales_what_is_drawn(name, keys):
    """With a linear denoiser a sample is a sum of what was drawn, so it is scaled as that is."""
    schedule, drawn = schedules.cosine(), keys(4)
    record = solvers.SOLVERS[name].options
    moving = {'churn': 20.0} if name == 'heun' else {}
    warm, _ = run(name, schedule, isotropic(schedule), drawn, 5, record(**moving))
    cool, _ = run(name, schedule, isotropic(schedule), drawn, 5, record(temperature=0.7, **moving), temperature=0.7)
    np.testing.assert_allclose(cool, 0.7 * warm, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize('num_steps', [1, 4])
def test_the_exact_flow_map_ends_at_the_end_of_the_trajectory(num_steps, keys):
    schedule, drawn = schedules.edm(), keys(3)
    start = solvers.initial_noise(schedule, drawn, (1, 1, 2))

    def exact(x_t, t, s):
        return x_t * jnp.sqrt(STD**2 + schedules.expand(s, x_t) ** 2) / jnp.sqrt(STD**2 + schedules.expand(t, x_t) ** 2)

    jumps = {'start': start, 'keys': drawn, 'num_steps': num_steps, 'flow_map': exact}
    solver = solvers.SOLVERS['flow_map']
    end = solvers.solve(solver, schedule, None, **jumps)
    np.testing.assert_allclose(end.x, start * STD / np.sqrt(STD**2 + 80**2), rtol=1e-4)
    assert end.evaluations == num_steps
    traced = solvers.trace(solver, schedule, None, **jumps)
    np.testing.assert_allclose(traced.predictions, np.broadcast_to(end.x, traced.predictions.shape), rtol=1e-4)


def network(x_t, t, given):
    shift = 0.0 if given is None else 0.1 * given['label'].reshape(-1, 1, 1, 1)
    return jnp.tanh(x_t / (1 + t.reshape(-1, 1, 1, 1))) + shift


GUIDED = [
    ('ddim', 'cosine', PathOptions(interval=(0.2, 0.8))),
    ('ddim', 'straight', PathOptions(interval=(0.25, 4.0))),  # of 5 steps, t = 0.2 and t = 0.8 lie on its ends
    ('dpmpp_2m', 'edm', PathOptions(interval=(0.3, float('inf')), spacing='logsnr')),
    ('heun', 'edm', HeunOptions(interval=(0.0, 3.0), churn=2.0)),
    ('heun', 'linear', HeunOptions(interval=(0.1, 5.0))),
    ('heun', 'linear', HeunOptions()),
]


@pytest.mark.parametrize(('name', 'path', 'options'), GUIDED)
def test_guidance_costs_a_second_evaluation_where_it_acts_and_only_there(name, path, options, keys):
    schedule, num_steps, calls = schedules.get(path), 5, itertools.count()

    def counted(x_t, t, given):
        jax.debug.callback(lambda: next(calls))
        return network(x_t, t, given)

    denoise = predictions.denoiser(
        counted, 'x', schedule, {'label': jnp.arange(2.0)}, 1.5, interval=options.interval
    )  # fmt: skip
    jax.block_until_ready(run(name, schedule, denoise, keys(2), num_steps, options))
    jax.effects_barrier()
    solver = solvers.SOLVERS[name]
    cost = int(solvers.guided_evaluations(solver, schedule, num_steps, options))
    assert cost == next(calls)
    alone, inside = int(solver.evaluations(num_steps)), options.interval == (0, float('inf'))
    assert cost == 2 * alone if inside else alone < cost < 2 * alone


def test_a_step_on_the_end_of_an_interval_belongs_to_it():
    schedule = schedules.straight()
    t = jnp.asarray([0.15, 0.2, 0.5, 0.8, 0.85])
    assert predictions.guided_at(schedule, t, (0.25, 4.0)).tolist() == [False, True, True, True, False]


def test_guidance_in_an_interval_is_guidance_there_and_none_elsewhere(keys):
    schedule, x_t = schedules.cosine(), jax.random.normal(jax.random.key(0), (2, 1, 1, 2))
    given = {'label': jnp.arange(2.0)}
    build = lambda weight, **options: predictions.denoiser(network, 'x', schedule, given, weight, **options)  # noqa: E731
    part, whole, none = build(2.0, interval=(0.2, 0.8)), build(2.0), build(0.0)
    for t, wanted in ((0.05, none), (0.3, whole), (0.9, none)):  # σ / α is 0.09, 0.52 and 6.3
        at = jnp.full(2, t)
        np.testing.assert_array_equal(part(x_t, at).x, wanted(x_t, at).x)
    assert np.abs(whole(x_t, jnp.full(2, 0.3)).x - none(x_t, jnp.full(2, 0.3)).x).max() > 0.1


def test_guidance_moves_away_from_a_negative_condition():
    schedule, x_t = schedules.cosine(), jax.random.normal(jax.random.key(0), (2, 1, 1, 2))
    t, given, negative = jnp.full(2, 0.4), {'label': jnp.arange(2.0)}, {'label': jnp.full(2, 3.0)}
    found = predictions.denoiser(network, 'x', schedule, given, 1.5, negative=negative)(x_t, t).x
    towards, away = (np.asarray(network(x_t, schedule.condition(t), one)) for one in (given, negative))
    np.testing.assert_allclose(found, 2.5 * towards - 1.5 * away, rtol=1e-5)


def test_away_from_a_negative_class_of_normal_images_is_a_normal_class_beyond(keys):
    """Classes N(m, s²) of equal s: guidance from m_n to m_c draws from N((1 + w) m_c − w m_n, s²), by the algebra of
    the exact denoisers. The flow of a normal law keeps each point at its number of deviations from the mean."""
    schedule, means, weight = schedules.cosine(), jnp.array([-0.4, 0.3, 0.8]), 1.5

    def exact(x_t, t, given):
        a, s = (one(t).reshape(-1, 1, 1, 1) for one in (schedule.alpha, schedule.sigma))
        mean = means[given['label']].reshape(-1, 1, 1, 1)
        return mean + a * STD**2 / (a**2 * STD**2 + s**2) * (x_t - a * mean)

    given, negative = ({'label': jnp.full(16, label)} for label in (1, 0))
    found, start = run('heun', schedule, predictions.denoiser(exact, 'x', schedule, given, weight, negative=negative),
                       keys(16), 200)  # fmt: skip
    t = jnp.asarray(schedule.t_max)
    a, s = float(schedule.alpha(t)), float(schedule.sigma(t))
    mean = 2.5 * 0.3 - 1.5 * -0.4
    wanted = mean + STD * (start - a * mean) / np.sqrt(a**2 * STD**2 + s**2)
    np.testing.assert_allclose(found, wanted, atol=0.01)


@pytest.mark.parametrize('share', [0.5, 0.9, 1.0])
def test_dynamic_thresholds_are_imagens(share):
    """For each image: s = max(1, quantile of |x|), then np.clip(x, −s, s) / s (Saharia et al. 2022, figure A.10)."""
    x = np.random.default_rng(0).normal(size=(3, 4, 4, 1)).astype(np.float32) * [[[[0.3]]], [[[1.0]]], [[[4.0]]]]
    found = predictions.thresholded(jnp.asarray(x), share)
    for image, limited in zip(x, found, strict=True):
        s = max(1.0, np.percentile(np.abs(image), 100 * share))
        np.testing.assert_allclose(limited, np.clip(image, -s, s) / s, rtol=1e-5)
    schedule, t = schedules.cosine(), jnp.full(3, 0.5)
    x_t = jnp.asarray(x, jnp.float32) / 2
    seen = predictions.denoiser(lambda *_: jnp.asarray(x, jnp.float32), 'x', schedule, clip=share)(x_t, t)
    np.testing.assert_allclose(seen.x, found, rtol=1e-5)
    np.testing.assert_allclose(schedule.perturb(*seen[:2], t), x_t, rtol=1e-4, atol=1e-5)

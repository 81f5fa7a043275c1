"""Autoguidance against the flow of two Gaussians, and guides of samplers as users name them."""

import json
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from oracles import from_image

from genbench import cli
from genbench.data.spec import DataSpec
from genbench.errors import UserError
from genbench.evaluation import draw
from genbench.families.base import Borrowed, Networks, Sampler
from genbench.interpolants import predictions, schedules, solvers
from genbench.interpolants.options import DdimOptions, HeunOptions
from genbench.training import samplers

GOOD, BAD = 0.5, 0.8  # standard deviations of the data, as either model sees them


def network(schedule, prediction, std):
    """What predicts the mean image of N(0, std² I) with this prediction."""

    def image(x_t, t):
        alpha, sigma = schedule.alpha(t), schedule.sigma(t)
        return alpha * std**2 * x_t / (alpha**2 * std**2 + sigma**2)

    def call(x_t, t, given=None):
        if schedule.name == 'edm':  # undo what the network is told of the time, and how it sees x_t
            t = jnp.exp(4000 * t)
            x_t = x_t * jnp.sqrt(predictions.SIGMA_DATA**2 + schedules.expand(t, x_t) ** 2)
        return predictions.target(prediction, schedule, *from_image(schedule, image)(x_t, t)[:2], t)

    return call


@pytest.mark.parametrize(
    ('own', 'other', 'weight'),
    [(('edm', 'preconditioned'), ('edm', 'preconditioned'), 0.5), (('cosine', 'v'), ('linear', 'noise'), 2.0),
     (('straight', 'velocity'), ('edm', 'preconditioned'), 1.0)],
)  # fmt: skip
def test_a_guided_gaussian_follows_its_own_flow(own, other, weight, make_family, keys):
    """dx/dσ = (x − D) / σ with D = (1 + w) D₁ − w D₀ and D_i = s_i² x / (s_i² + σ²), in x_t / α by σ / α, gives
    x ∝ (s₁² + σ²)^((1 + w) / 2) (s₀² + σ²)^(−w / 2)."""
    guide = make_family('diffusion', schedule=other[0], prediction=other[1])
    lenders = {'guide': Borrowed(guide)}
    family = make_family('diffusion', schedule=own[0], prediction=own[1], borrowed=lenders)
    networks = Networks(
        {'denoiser': network(family.schedule, own[1], GOOD)},
        borrowed={'guide': Networks({'denoiser': network(guide.schedule, other[1], BAD)})},
    )
    sampler, drawn = Sampler('heun', 150, weight, HeunOptions(guide='guide', spacing='rho3')), keys(2)
    start = solvers.initial_noise(family.schedule, drawn, (4, 4, 3))
    states = jax.jit(lambda: family.trace(networks, start, drawn, None, sampler, 1).states)()
    first = family.schedule.step(jnp.asarray(149), 150, 'rho3')  # where any α is above zero
    alpha, sigma = float(family.schedule.alpha(first)), float(family.schedule.sigma(first))
    level, x = sigma / alpha, np.asarray(start) / alpha
    wanted = (GOOD**2 / (GOOD**2 + level**2)) ** ((1 + weight) / 2) * (BAD**2 / (BAD**2 + level**2)) ** (-weight / 2)
    np.testing.assert_allclose(states[-1] / x, wanted, rtol=0.02)
    assert family.evaluations(sampler) == 2 * 299


def test_a_guide_says_nothing_of_the_variance(make_family):
    """Nor does guidance by conditions: it is the model's own (as in DiT's code), and the guide may learn none."""
    schedule, x_t, t = schedules.cosine(), jax.random.normal(jax.random.key(0), (2, 2, 2, 1)), jnp.full(2, 0.4)
    both = lambda x, t, given: jnp.concatenate([jnp.sin(x), jnp.cos(3 * x)], axis=-1)  # noqa: E731
    guide = predictions.denoiser(lambda x, t, given: 0.5 * x, 'v', schedule)
    found = predictions.denoiser(both, 'v', schedule, None, 2.0, guide=guide)(x_t, t)
    np.testing.assert_allclose(found.variance, (1 + jnp.cos(3 * x_t)) / 2, rtol=1e-6)
    wanted = predictions.convert('v', schedule, 3 * jnp.sin(x_t) - 2 * 0.5 * x_t, x_t, t)
    np.testing.assert_allclose(found.x, wanted.x, rtol=1e-5, atol=1e-6)


def drawn(run, sampler, path):
    draw.draw_to_file(run, path, count=4, sampler=sampler, seed=0, given=())
    return np.load(path)['images']


def test_a_guide_is_asked_only_where_it_acts(diffusion_run, trained, tmp_path):
    plain = drawn(diffusion_run, 'ddim:3', tmp_path / 'plain.npz')
    silent = drawn(diffusion_run, 'ddim:3:guidance=0,guide=no/such/run', tmp_path / 'silent.npz')
    guide = f'{trained("flow_matching")}@current'
    guided = drawn(diffusion_run, f'ddim:3:guidance=2,guide={guide}', tmp_path / 'guided.npz')
    np.testing.assert_array_equal(plain, silent)
    assert (plain != guided).any()


def test_a_guide_is_in_protocols_by_what_it_is(diffusion_copy, trained, tmp_path, capsys):
    folder = shutil.copytree(trained('flow_matching'), tmp_path / 'guide')
    digest = json.loads((folder / 'summary.json').read_text())['state_sha256']
    words = ['evaluate', str(diffusion_copy), '--config.evaluation.metrics=fd', '--config.evaluation.num_samples=32',
             '--grid', 'sampler=ddim', '--grid', 'steps=2', '--grid', 'guidance=1']  # fmt: skip
    assert cli.main([*words, '--grid', f'guide={folder}']) == 0
    rows = [json.loads(line) for line in (diffusion_copy / 'results.jsonl').read_text().splitlines()]
    assert rows[0]['protocol']['sampler_options'] == {'guide': f'{digest[:12]}@ema'} and rows[0]['nfe'] == 4
    moved = folder.rename(tmp_path / 'moved')
    assert cli.main([*words, '--grid', f'guide={moved}']) == 0  # the same guide, and no row is added
    assert len((diffusion_copy / 'results.jsonl').read_text().splitlines()) == len(rows)
    capsys.readouterr()
    assert cli.main([*words, '--grid', f'guide={folder}']) == 2  # not there any more
    said = capsys.readouterr().err.strip().splitlines()[-1]
    assert 'guide: ' in said and 'is not a run' in said


REFUSED = {
    'gan': ({}, 'it is a gan model, which does not predict images'),
    'flow_matching': ({'spec': DataSpec('other', (4, 4, 3), 5, 3)}, 'it was trained on .*other'),
    'diffusion': ({'conditional': True}, 'it needs the condition label, which this run does not have'),
}


@pytest.mark.parametrize('name', REFUSED)
def test_a_guide_that_does_not_fit_is_refused_in_words(name, make_family):
    options, why = REFUSED[name]
    with pytest.raises(UserError, match=why):
        make_family('diffusion').check_guide(make_family(name, **options))


def test_a_guide_takes_the_place_of_a_negative_condition(make_family):
    family = make_family('diffusion')
    wanted = Sampler('ddim', 2, 1.0, DdimOptions(guide='runs/a'))
    assert samplers.parse('ddim:2:guidance=1,guide=runs/a', family) == wanted
    with pytest.raises(UserError, match='both guide and negative; use only one'):
        samplers.parse('ddim:2:guidance=1,guide=runs/a,negative=label=1', make_family('diffusion', True))
    with pytest.raises(UserError, match='needs family.conditional .* or a guide: guide=RUN'):
        samplers.parse('ddim:2:guidance=1', family)
    with pytest.raises(UserError, match='has guide, which has no effect without guidance'):
        samplers.parse('ddim:2:guide=runs/a', family)

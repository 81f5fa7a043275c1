"""NCSN++, DDPM++ and ADM against EDM's and score SDE's own code (record_song.py says how), through the import."""

import json
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import waves

from genbench import config as configs
from genbench import families
from genbench.data.spec import DataSpec
from genbench.exchange import published, song
from genbench.interpolants import steps
from genbench.training import state as states

HERE = pathlib.Path(__file__).parent

SMALL = {'name': 'ncsnpp', 'channels': 8, 'multipliers': (1, 2), 'blocks': 1, 'attention': (4,)}
NCSNPP = {**SMALL, 'embedding': 'fourier', 'taps': (1, 3, 3, 1), 'pyramid': True}
ADM = {**SMALL, 'name': 'adm', 'channels': 64, 'head_width': 64}
TOLD = {'conditional': True, 'conditions': ('augmentation',)}
CASES = {
    'edm_ncsnpp': ('edm', NCSNPP, TOLD),
    'edm_ddpmpp': ('edm', SMALL, TOLD),
    'edm_adm': ('edm', ADM, TOLD),
    'vp_ddpmpp': ('vp', SMALL, {}),
    've_ncsnpp': ('ve', NCSNPP, {}),
    'sde_vp': ('vp', SMALL, {}),
    'sde_ve': ('ve', NCSNPP, {}),
}


@pytest.fixture(scope='module')
def recorded():
    with np.load(HERE / 'fixtures' / 'song.npz') as file:
        return {name: file[name] for name in file.files}


def family_of(name):
    path, network, told = CASES[name]
    prediction = 'preconditioned' if path == 'edm' else 'noise'
    family = {'name': 'diffusion', 'schedule': path, 'prediction': prediction, **told}
    config = configs.resolve({'family': family, 'network': network})
    return families.get('diffusion')(config, DataSpec('images', (waves.SIZE, waves.SIZE, waves.CHANNELS), 256, 3))


def loaded(name, recorded):
    """(family, networks) with the parameters of the recorded network."""
    family = family_of(name)
    blueprint, network = states.Blueprint(family), family.config.network
    found = waves.filled(json.loads(str(recorded[f'{name}_shapes'])))
    if name.startswith('sde'):
        found.pop('sigmas')
        found = song.renamed(found, network, waves.SIZE)
    else:
        found = {key.removeprefix('model.'): value for key, value in found.items()}
    made = song.parameters(found, network, waves.SIZE, negative=family.schedule.name == 've')
    return family, blueprint.bind(*published.placed(made, blueprint, name))


@pytest.mark.parametrize('name', [name for name in CASES if not name.startswith('sde')])
def test_edms_code_predicts_the_image_that_genbench_predicts(name, recorded):
    """At noise levels σ / α of images x_t / α, as EDM has every path; classes, none, and changes are told."""
    family, networks = loaded(name, recorded)
    told = {'label': jnp.asarray(waves.labels()), 'augmentation': jnp.asarray(waves.changes())}
    given = told if family.conditions else None
    t = family.schedule.time_at(jnp.asarray(waves.LEVELS)) if name.startswith('vp') else jnp.asarray(waves.LEVELS)
    scaled = waves.images() * np.maximum(waves.LEVELS, 1)[:, None, None, None]
    x_t = scaled * np.asarray(family.schedule.alpha(t))[:, None, None, None]
    found = jax.jit(family.denoise(networks, given))(x_t, t).x
    size = np.maximum(waves.LEVELS, 1)[:, None, None, None]  # of what the prediction is the difference of
    # A time of VP is a root that 32-bit numbers know to 6e-8, and the fastest sine turns 999 times as far.
    near = 1e-4 if name.startswith('vp') else 1e-5
    assert np.std(recorded[name]) > 0.1
    np.testing.assert_allclose(found / size, recorded[name] / size, rtol=near, atol=near)


def test_score_sdes_code_computes_the_score_that_genbench_computes(recorded):
    """Its network of VP gives −σ times the score; that of VE the score of pixels in [0, 1], σ of which is halved."""
    family, networks = loaded('sde_vp', recorded)
    x, t = jnp.asarray(waves.images()), jnp.asarray(waves.TIMES)
    noise = jax.jit(family.network(networks))(x, family.schedule.condition(t))
    np.testing.assert_allclose(noise, recorded['sde_vp'], rtol=1e-5, atol=1e-5)
    family, networks = loaded('sde_ve', recorded)
    t = 2 * jnp.asarray(waves.SIGMAS)
    noise = jax.jit(family.network(networks))(2 * x - 1, family.schedule.condition(t))
    score = recorded['sde_ve'] * waves.SIGMAS[:, None, None, None]
    np.testing.assert_allclose(noise, -score, rtol=1e-5, atol=2e-5)


@pytest.mark.parametrize('word', ['plain', 'churned'])
def test_edms_own_sampler_ends_where_heun_ends(word, recorded):
    """Six steps from the same start, with the noise of each step given; theirs is in float64, but for the network."""
    family, networks = loaded('edm_ddpmpp', recorded)
    schedule = family.schedule
    churn = {name if name == 'churn' else f's_{name}': value for name, value in waves.CHURN.items()}
    options = family.solver('heun').options(**(churn if word == 'churned' else {}))
    denoise = family.denoise(networks, {'label': jnp.asarray(waves.labels())})

    @jax.jit
    def move(x, t, s, noise):
        return steps.heun(steps.Step(schedule, denoise, x, t, s, lambda: noise, jnp.asarray(waves.STEPS), options))

    times = schedule.step(waves.STEPS - jnp.arange(waves.STEPS + 1), waves.STEPS)
    x = jnp.asarray(waves.noise(0)) * schedule.t_max
    for index, (t, s) in enumerate(zip(times[:-1], times[1:], strict=True)):
        x = move(x, t, s, jnp.asarray(waves.noise(index + 1)))
    assert np.std(recorded[f'sampled_{word}']) > 0.3
    np.testing.assert_allclose(x, recorded[f'sampled_{word}'], rtol=1e-5, atol=1e-5)

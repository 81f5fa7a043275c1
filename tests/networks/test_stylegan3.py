"""StyleGAN3: official numbers (record_stylegan3.py says how they were made), filters and equivariance of layers."""

import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from ml_collections import ConfigDict
from scipy import signal

from genbench import networks
from genbench.data.spec import DataSpec
from genbench.errors import UserError
from genbench.networks import alias_free, equalised, stylegan3

FFHQ = {'channels': 32, 'multipliers': (1, 2, 4, 8, 16, 16, 16, 16, 16)}
FFHQ256 = {'channels': 64, 'multipliers': (1, 2, 4, 8, 8, 8, 8)}
BEFORE, AFTER = alias_free.Signal(4.0, 4.0, 16, 36), alias_free.Signal(6.0, 10.0, 32, 52)


def generator(size, variant='t', **options):
    config = ConfigDict({**networks.defaults('stylegan3'), 'variant': variant, **options})
    space = DataSpec('images', (size, size, 3), 256)
    return networks.generator_and_discriminator(config, space, {}, nnx.Rngs(0))['generator']


@pytest.fixture(scope='module')
def recorded():
    with np.load(pathlib.Path(__file__).parent / 'fixtures' / 'stylegan3.npz') as file:
        return dict(file)


@pytest.mark.parametrize('variant', ['t', 'r'])
@pytest.mark.parametrize(('size', 'options'), [(1024, FFHQ), (256, FFHQ256)])
def test_published_generators_have_their_parameters(variant, size, options, recorded):
    """22.31 million for T at 1024 pixels, and 15.09 million for R."""
    built = nnx.eval_shape(lambda: generator(size, variant, latent=512, features=512, **options))
    found = sum(leaf.size for leaf in jax.tree.leaves(nnx.state(built, nnx.Param)))
    assert found == recorded[f'{variant} {size}']


@pytest.fixture(scope='module', params=['t', 'r'])
def official(request, recorded):
    """(variant, our generator with the numbers of the recorded one)."""
    variant = request.param
    built = nnx.eval_shape(lambda: generator(
        16, variant, channels=4, multipliers=(1, 2), layers=5, latent=3, features=5, magnitude_decay=0.999
    ))  # fmt: skip
    nnx.update(built, jax.tree.map(lambda leaf: jnp.zeros(leaf.shape), nnx.state(built)))
    state = {name.partition(' ')[2]: value for name, value in recorded.items() if name.startswith(f'{variant} ')}
    layers = sorted({name.partition('.')[0] for name in state if name[0] == 'L'})

    def linear(layer, name):
        layer.kernel[...], layer.bias[...] = jnp.asarray(state[f'{name}.weight'].T), jnp.asarray(state[f'{name}.bias'])

    linear(built.input.placing, 'input.affine')
    built.input.kernel[...] = jnp.asarray(state['input.weight'].T)
    built.input.frequencies[...], built.input.phases[...] = (
        jnp.asarray(state[f'input.{name}']) for name in ('freqs', 'phases')
    )
    for layer, name in zip([*built.layers, built.output], layers, strict=True):
        linear(layer.styles, f'{name}.affine')
        layer.kernel[...] = jnp.asarray(state[f'{name}.weight'].transpose(2, 3, 1, 0))
        layer.bias[...], layer.magnitude[...] = (
            jnp.asarray(state[f'{name}.{part}']) for part in ('bias', 'magnitude_ema')
        )
    return variant, built, layers


def test_the_official_code_computes_the_same(official, recorded):
    variant, built, _ = official
    graph, state = nnx.split(built)
    transform = jnp.broadcast_to(recorded['transform'], (2, 3, 3))

    @jax.jit
    def run(state, w):
        still, moved = nnx.merge(graph, state), nnx.merge(graph, state)
        trained = nnx.merge(graph, state)
        return still.synthesise(w), moved.synthesise(w, transform=transform), trained.synthesise(w, training=True)

    for found, name in zip(run(state, recorded[f'{variant} w']), ('y', 'moved', 'trained'), strict=True):
        wanted = recorded[f'{variant} {name}']
        np.testing.assert_allclose(found, wanted, rtol=1e-3, atol=1e-3 * wanted.std())
    difference = recorded[f'{variant} moved'] - recorded[f'{variant} y']
    assert difference.std() > 0.3 * recorded[f'{variant} y'].std()


def test_filters_are_the_official_ones(official, recorded):
    """A filter along lines is a column of its matrix: what becomes of one sample in the middle."""
    variant, built, names = official
    for layer, name in zip(built.layers, names[:-1], strict=True):
        up, down = (recorded[f'{variant} {name}.{kind}_filter'] for kind in ('up', 'down'))
        middle = layer.change.up[:, layer.change.up.shape[1] // 2]
        times = layer.change.rate // layer.change.before.rate
        np.testing.assert_allclose(middle[np.flatnonzero(middle)], times * up, rtol=1e-4, atol=1e-7)
        rows, columns = layer.change.down
        line = slice(0, len(down))
        found = np.einsum('ki,kj->ij', rows[:, 0, line], columns[:, 0, line])
        np.testing.assert_allclose(found, down if down.ndim == 2 else np.outer(down, down), atol=2e-7)


@pytest.mark.parametrize(
    ('taps', 'cutoff', 'width', 'rate'), [(12, 2.0, 4.6, 32), (24, 3.1, 9.0, 64), (6, 8.0, 1.0, 64)]
)
def test_lowpass_filters_are_those_of_scipy(taps, cutoff, width, rate):
    wanted = signal.firwin(taps, cutoff=cutoff, width=width, fs=rate)
    np.testing.assert_allclose(alias_free.lowpass(taps, cutoff, width, rate), wanted, rtol=1e-9, atol=1e-12)


def test_a_radial_filter_passes_and_stops_the_same_frequencies_in_all_directions():
    taps, cutoff, width, rate = 24, 8.0, 8.0, 64
    place = (np.arange(taps) - (taps - 1) / 2) / rate

    def responses(filter_of_place, frequency):
        angles = np.linspace(0, np.pi / 4, 7)
        waves = [np.exp(2j * np.pi * frequency * (np.cos(a) * place + np.sin(a) * place[:, None])) for a in angles]
        return np.abs([(filter_of_place * wave).sum() for wave in waves])

    found = alias_free.radial(taps, cutoff, width, rate)
    line = alias_free.lowpass(taps, cutoff, width, rate)
    assert np.ptp(responses(found, cutoff)) < 0.02 < 0.1 < np.ptp(responses(np.outer(line, line), cutoff))
    assert responses(found, 1.0).min() > 0.95 and responses(found, cutoff + width / 2).max() < 0.03


def test_signals_are_those_of_the_published_generator():
    """Figure 4c for 1024 pixels: f_c from 2 to 512, and margins of 10 until the last layer."""
    found = alias_free.signals(1024, 14, 2, 2.0, 10)
    assert [one.size for one in found] == [36, 36, 52, 52, 84, 148, 148, 276, 276, 532, 1044, 1044, 1044, 1024, 1024]
    assert (found[0].cutoff, found[-1].cutoff, found[0].rate) == (2, 512, 16)
    widths = [found[layer].half_width for layer in (0, 3, 6, 9, 12, 14)]  # f_t = 2^(2.1 + 0.6 n), f_c = 2^(1 + 2n/3)
    ends = 512 * 2**0.3 - 512  # only the last layers' f_t lies above half their rate
    np.testing.assert_allclose(widths, [8 - 2, 16 - 8, 64 - 32, 256 - 128, ends, ends])


def scene(wide, shift, channels=4):
    """Sums of waves below the cutoff (channels) at the places of a picture of BEFORE, moved by `shift` in samples."""
    rng = np.random.default_rng(0)
    radius, angle = rng.uniform(1, BEFORE.cutoff - 1, (channels, 5)), rng.uniform(0, 2 * np.pi, (channels, 5))
    place = (np.arange(wide) + 0.5 - wide / 2) / BEFORE.rate
    x, y = np.meshgrid(place - shift[0] / BEFORE.rate, place - shift[1] / BEFORE.rate)
    phase = x[..., None, None] * radius * np.cos(angle) + y[..., None, None] * radius * np.sin(angle)
    return np.sin(2 * np.pi * phase + rng.uniform(0, 6, (channels, 5))).sum(-1)


def agreement(apply, times):
    """How well the results for a scene and the scene moved by a fraction agree, in dB of the signal's variance.

    The result for the scene is moved by a Fourier sum over its middle, in a window; `times` is its samples per sample.
    """
    shift = np.array([0.35, -0.2])
    still, moved = (
        np.asarray(apply(jnp.asarray(scene(36, part), jnp.float32)[None])[0]) for part in (0 * shift, shift)
    )
    size = len(still)
    frequency = np.fft.fftfreq(size)
    turn = np.exp(-2j * np.pi * times * (shift[0] * frequency + shift[1] * frequency[:, None]))[..., None]
    edge = np.clip((size / 2 - np.abs(np.arange(size) - (size - 1) / 2)) / 8, 0, 1)
    smooth = (np.sin(np.pi / 2 * edge) ** 2)[:, None] * np.sin(np.pi / 2 * edge) ** 2
    wanted = np.fft.ifft2(np.fft.fft2(still * smooth[..., None], axes=(0, 1)) * turn, axes=(0, 1)).real
    middle = slice(12, -12)
    error = (wanted - moved)[middle, middle]
    return 10 * np.log10(still[middle, middle].var() / np.square(error).mean())


def test_a_layer_of_stylegan3_moves_with_its_input_and_one_of_stylegan2_does_not():
    """Translation by a fraction of a sample: 67 dB, where the layer of StyleGAN2 has 34."""
    change = alias_free.Change(BEFORE, AFTER, grown=2)
    ours = stylegan3.Layer(4, 4, 3, change, kernel=3, rngs=nnx.Rngs(0))
    theirs = equalised.Modulated(4, 4, 3, resample='up', rngs=nnx.Rngs(0))
    found = agreement(nnx.jit(lambda x: ours(x, jnp.ones((1, 3)), None)), 2)
    naive = agreement(nnx.jit(lambda x: theirs(x, jnp.ones((1, 3)))), 2)
    assert found > 60 and naive < 40


def test_what_does_not_fit_is_refused():
    for options, message in (
        ({'size': 24}, 'height is a power of 2, but it is 24'),
        ({'size': 16, 'layers': 2}, 'network.layers is 2.*above network.critical'),
        ({'size': 8, 'first_cutoff': 4.0}, 'first_cutoff is 4; it should be below 4'),
    ):
        with pytest.raises(UserError, match=message):
            generator(**options)

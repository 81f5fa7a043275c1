"""Fresh networks against the initialisations that the papers' official code states: variances, tables, activations."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from genbench.data.conditions import Form
from genbench.networks import dit, layers, unet

LARGE = {'channels': 64, 'multipliers': (1, 2), 'blocks': 1, 'attention': (8,), 'heads': 1, 'groups': 32}


@pytest.fixture(scope='module')
def denoiser():
    return nnx.jit(lambda: unet.UNet(16, 3, {}, **LARGE, dropout=0.0, rngs=nnx.Rngs(0)))()


@pytest.fixture(scope='module')
def transformer():
    forms = {'label': Form('classes', (), 100)}
    return nnx.jit(lambda: dit.DiT((8, 8, 3), forms, patch=2, depth=1, width=256, heads=4, rngs=nnx.Rngs(0)))()


def kernels(module):
    """{path: array} of every weight that is no bias and no scale."""
    named = nnx.to_flat_state(nnx.state(module, nnx.Param))
    return {'.'.join(map(str, path)): np.asarray(leaf[...]) for path, leaf in named if leaf[...].ndim > 1}


def biases(module):
    named = nnx.to_flat_state(nnx.state(module, nnx.Param))
    return [np.asarray(leaf[...]) for path, leaf in named if path[-1] == 'bias']


def test_every_layer_of_the_unet_starts_as_in_ddpm(denoiser):
    """Uniform in ±√(6 / (fan_in + fan_out)), the fans of a 3×3 window ninefold; queries, keys and values apart.

    Zero are the ends of residual blocks and of attention, and the output.
    """
    zero = {name for name, kernel in kernels(denoiser).items() if not kernel.any()}
    assert {name.split('.')[-2] for name in zero} == {'conv_out', 'output'}
    drawn = {name: kernel for name, kernel in kernels(denoiser).items() if name not in zero}
    for name, kernel in drawn.items():
        window, inputs, outputs = np.prod(kernel.shape[:-2]), *kernel.shape[-2:]
        for part in np.split(kernel, 3, axis=-1) if name.endswith('inputs.kernel') else [kernel]:
            outputs = part.shape[-1]
            limit = np.sqrt(6 / (window * (inputs + outputs)))
            # The deviation of the mean square of n uniform draws is 0.894 / √n of it.
            assert np.square(part).mean() == pytest.approx(limit**2 / 3, rel=5 * 0.894 / np.sqrt(part.size)), name
            assert 0.99 * limit < np.abs(part).max() <= limit * (1 + 1e-6), name
    assert {name.split('.')[-2] for name in drawn} == {
        'conv_in', 'condition', 'shortcut', 'inputs', 'hidden', 'output', 'conv'
    }  # fmt: skip
    assert not any(bias.any() for bias in biases(denoiser))


@pytest.mark.parametrize('size', [32, 128])
def test_times_are_embedded_as_in_ddpm(size):
    """Frequency j of `half` is 10,000^(−j / (half − 1)); sines come first."""
    steps, half = np.array([1, 7, 250, 999, 1000]), size // 2
    angles = np.array([[n * 10_000.0 ** (-j / (half - 1)) for j in range(half)] for n in steps])
    wanted = np.concatenate([np.sin(angles), np.cos(angles)], axis=1)
    found = layers.timestep_embedding(jnp.asarray(steps / 1000, jnp.float32), size)
    np.testing.assert_allclose(found, wanted, atol=2e-4)  # a float32 angle near 1,000 is known to 6e-5


def test_times_are_embedded_as_in_dit():
    """Frequency j of `half` is 10,000^(−j / half)."""
    angles = np.array([n * 10_000.0 ** (-j / 128) for n in (3, 700) for j in range(128)]).reshape(2, 128)
    found = layers.timestep_embedding(jnp.array([0.003, 0.7]), 256, endpoint=False)
    np.testing.assert_allclose(found, np.concatenate([np.sin(angles), np.cos(angles)], axis=1), atol=2e-4)


def test_every_layer_of_the_transformer_starts_as_in_dit(transformer):
    """Times and labels: normal, 0.02. Modulations and the output: zero. All other matrices: Xavier's uniform."""
    for name, kernel in kernels(transformer).items():
        close = 5 / np.sqrt(kernel.size)
        if name.startswith('conditioning'):
            assert kernel.std() == pytest.approx(0.02, rel=close), name
            assert np.abs(kernel).max() > 0.06, name  # no uniform distribution of this deviation reaches 0.035
        elif 'modulation' in name or name == 'output.kernel':
            assert not kernel.any(), name
        else:
            limit = np.sqrt(6 / sum(kernel.shape))
            assert np.square(kernel).mean() == pytest.approx(limit**2 / 3, rel=close), name
            assert np.abs(kernel).max() <= limit * (1 + 1e-6), name
    assert len(kernels(transformer)) == 11
    assert not any(bias.any() for bias in biases(transformer))


def test_places_are_embedded_as_in_dit():
    """Sines and cosines of the column, then of the row, at frequencies 10,000^(−j / (width / 4))."""
    table = dit.positions(2, 3, 16)
    for row in range(2):
        for column in range(3):
            waves = [wave(n / 10_000 ** (j / 4)) for n in (column, row) for wave in (np.sin, np.cos) for j in range(4)]
            np.testing.assert_allclose(table[3 * row + column], waves, atol=1e-6)


def test_a_fresh_unet_keeps_the_scale_of_what_it_is_given(denoiser):
    """Its blocks add nothing yet, so unit noise keeps its variance but for what the first layers do to it.

    The first convolution multiplies the variance by 9 · 3 · 2 / (9 · (3 + 64)), and shortcuts are linear.
    """
    x, t = jax.random.normal(jax.random.key(1), (16, 16, 16, 3)), jnp.linspace(0.1, 0.9, 16)
    h = denoiser.conv_in(x)
    assert np.var(h) == pytest.approx(2 * 3 / (3 + 64), rel=0.15)
    condition = denoiser.conditioning(t, None)
    projected = denoiser.down[0].block.condition(condition)
    # Variance by layer: 2 · (mean square of its input) · inputs / (inputs + outputs)
    features = layers.timestep_embedding(t, 64)
    hidden = 2 * np.square(features).mean() * 64 / (64 + 256)
    assert np.square(denoiser.conditioning.hidden(features)).mean() == pytest.approx(hidden, rel=0.25)
    assert np.square(projected).mean() == pytest.approx(
        2 * float(np.square(condition).mean()) * 256 / (256 + 64), rel=0.25
    )

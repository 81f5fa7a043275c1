"""Types, rematerialisation and the fused attention: what they change is speed and memory, not what is computed."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx
from ml_collections import ConfigDict

from genbench import networks
from genbench.data.conditions import Form
from genbench.data.spec import DataSpec
from genbench.errors import UserError
from genbench.networks import autoencoder, couplings, layers, resnet

SPEC = DataSpec('images', (8, 8, 1), 17)
SMALL = {
    'unet': {'channels': 16, 'attention': (4,), 'groups': 4},
    'dit': {'depth': 3, 'width': 32, 'heads': 2},
}


def build(name, **options):
    """(function (params, x, t) → y, random parameters) of a small network."""
    config = ConfigDict({**networks.defaults(name), **SMALL[name], **options})
    definition, params, rest = nnx.split(
        nnx.eval_shape(lambda: networks.denoiser(config, SPEC, {}, nnx.Rngs(0))), nnx.Param, ...
    )
    rng = np.random.default_rng(0)
    params = jax.tree.map(lambda leaf: jnp.asarray(0.1 * rng.normal(size=leaf.shape), leaf.dtype), params)
    return lambda params, x, t: nnx.merge(definition, params, rest)(x, t), params


def batch(size=16):
    key = jax.random.key(1)
    return jax.random.normal(key, (size, 8, 8, 1)), jax.random.uniform(jax.random.fold_in(key, 1), (size,))


def losses(name, dtype):
    """Of fitting a fixed smooth function of the input."""
    apply, params = build(name, dtype=dtype)
    x, t = batch()
    target = jnp.tanh(x + jnp.roll(x, 1, axis=1)) * t[:, None, None, None]
    return descend(lambda params: jnp.square(apply(params, x, t) - target).mean(), params)


def descend(loss, params, steps=50):
    """The losses of so many steps of Adam."""
    optimizer = optax.adam(2e-3)

    @jax.jit
    def step(params, state):
        value, gradient = jax.value_and_grad(loss)(params)
        changes, state = optimizer.update(gradient, state)
        return optax.apply_updates(params, changes), state, value

    state, values = optimizer.init(params), []
    for _ in range(steps):
        params, state, value = step(params, state)
        values.append(float(value))
    assert all(leaf.dtype == jnp.float32 for leaf in jax.tree.leaves(params))
    return np.array(values)


@pytest.mark.parametrize('name', SMALL)
def test_bfloat16_stays_near_float32_over_fifty_steps(name):
    exact, rounded = losses(name, 'float32'), losses(name, 'bfloat16')
    assert exact[-1] < 0.7 * exact[0]
    # of the first loss: rounding grows along the descent, and the last losses are a tenth of the first
    np.testing.assert_allclose(rounded, exact, rtol=0, atol=0.03 * exact[0])


def fit_codes(output):
    """Distance of what a network makes of its input to fixed random numbers."""
    y = output[0] if isinstance(output, tuple) else output
    return jnp.square(y - 0.3 * jax.random.normal(jax.random.key(3), y.shape)).mean()


def code_length(output):
    """Negative log-likelihood per dimension."""
    z, log_det = output
    return (jnp.square(z).sum(1) / 2 - log_det).mean() / z.shape[1]


FORMS = {'label': Form('classes', (), 3)}
SIZES = {'channels': 8, 'multipliers': (1, 2), 'blocks': 1}
IMAGES = jax.ShapeDtypeStruct((16, 8, 8, 1), jnp.float32)
CODES = jax.ShapeDtypeStruct((16, 6), jnp.float32)
OTHERS = {
    'encoder': (
        lambda **options: autoencoder.Encoder(8, 1, 4, FORMS, groups=4, dropout=0.0, **SIZES, **options),
        IMAGES, fit_codes,
    ),
    'decoder': (
        lambda **options: autoencoder.Decoder(8, 6, 2, FORMS, groups=4, dropout=0.0, **SIZES, **options),
        CODES, fit_codes,
    ),
    'generator': (lambda **options: resnet.Generator(8, 1, FORMS, latent=6, label_features=4, **SIZES, **options),
                  CODES, fit_codes),
    'discriminator': (lambda **options: resnet.Discriminator(8, 1, FORMS, **SIZES, **options), IMAGES, fit_codes),
    'flow': (
        lambda **options: couplings.Flow(
            (8, 8, 1), FORMS, channels=8, multipliers=(1, 1), steps=2, margin=0.05, dropout=0.0, **options
        ),
        IMAGES, code_length,
    ),
}  # fmt: skip


@pytest.mark.parametrize('name', OTHERS)
def test_every_other_network_computes_in_bfloat16_near_float32(name):
    make, like, measure = OTHERS[name]
    x, given = jnp.tanh(jax.random.normal(jax.random.key(1), like.shape)), {'label': jnp.arange(16) % 3}

    def fitted(dtype):
        abstract = nnx.eval_shape(lambda: make(dtype=dtype, rngs=nnx.Rngs(0)))
        definition, params, rest = nnx.split(abstract, nnx.Param, ...)
        rng = np.random.default_rng(0)
        params = jax.tree.map(lambda leaf: jnp.asarray(0.1 * rng.normal(size=leaf.shape), leaf.dtype), params)
        apply = lambda params: nnx.merge(definition, params, rest)(x, given)  # noqa: E731
        output = jax.tree.leaves(jax.eval_shape(apply, params))
        assert all(leaf.dtype == jnp.float32 for leaf in output)
        return descend(lambda params: measure(apply(params)), params), jax.make_jaxpr(apply)(params)

    (exact, _), (rounded, jaxpr) = fitted('float32'), fitted('bfloat16')
    assert exact[-1] < 0.9 * exact[0]
    np.testing.assert_allclose(rounded, exact, rtol=0.1)
    kinds = [e.invars[0].aval.dtype for e in equations(jaxpr.jaxpr) if e.primitive.name == 'conv_general_dilated']
    assert kinds and all(kind == jnp.bfloat16 for kind in kinds)


@pytest.mark.parametrize('name', SMALL)
def test_bfloat16_is_what_products_and_convolutions_see(name):
    """And the output, the statistics and the softmax are float32."""
    apply, params = build(name, dtype='bfloat16')
    jaxpr = jax.make_jaxpr(apply)(params, *batch())
    assert jaxpr.out_avals[0].dtype == jnp.float32
    found = {}
    for equation in equations(jaxpr.jaxpr):
        for operand in equation.invars[:1]:
            found.setdefault(equation.primitive.name, []).append(operand.aval)
    heavy = [aval for aval in found['dot_general'] + found.get('conv_general_dilated', []) if aval.size > 4096]
    assert heavy and all(aval.dtype == jnp.bfloat16 for aval in heavy)
    assert all(aval.dtype == jnp.float32 for kind in ('rsqrt', 'exp') for aval in found[kind])


def equations(jaxpr):
    for equation in jaxpr.eqns:
        yield equation
        for value in equation.params.values():
            if hasattr(value, 'jaxpr'):
                yield from equations(value.jaxpr)


@pytest.mark.parametrize('name', SMALL)
@pytest.mark.parametrize('remat', ['blocks', 'dots'])
def test_rematerialisation_keeps_less_for_the_same_gradient(name, remat):
    """What is kept is counted in the traced program: on CPU the compiler undoes the recomputation."""
    x, t = batch(8)

    def measured(remat):
        apply, params = build(name, remat=remat)
        loss = lambda params: jnp.square(apply(params, x, t)).mean()  # noqa: E731
        kept = jax.tree.leaves(jax.eval_shape(lambda params: jax.vjp(loss, params)[1], params))
        return jax.jit(jax.grad(loss))(params), sum(leaf.size * leaf.dtype.itemsize for leaf in kept)

    (wanted, most), (found, less) = measured('none'), measured(remat)
    scale = max(float(jnp.abs(leaf).max()) for leaf in jax.tree.leaves(wanted))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-5 * scale), wanted, found)
    assert less < (0.6 if remat == 'blocks' else 0.9) * most


@pytest.mark.parametrize('dtype', ['float32', 'bfloat16'])
def test_attention_equals_a_plain_softmax(dtype):
    qkv = (2 * jax.random.normal(jax.random.key(0), (2, 9, 3, 2, 8))).astype(dtype)
    q, k, v = np.asarray(qkv, np.float64).transpose(2, 0, 3, 1, 4)
    logits = q @ k.swapaxes(-1, -2) / np.sqrt(8)
    weights = np.exp(logits - logits.max(-1, keepdims=True))
    wanted = (weights / weights.sum(-1, keepdims=True) @ v).transpose(0, 2, 1, 3)
    found = layers.attend(qkv)
    assert found.dtype == dtype
    np.testing.assert_allclose(np.asarray(found, np.float64), wanted, atol=1e-5 if dtype == 'float32' else 3e-2)


@pytest.mark.parametrize('option', [{'dtype': 'float8'}, {'remat': 'all'}])
@pytest.mark.parametrize('name', SMALL)
def test_an_unknown_precision_or_rematerialisation_is_refused_by_name(name, option):
    with pytest.raises(UserError, match=f'network.{next(iter(option))}'):
        build(name, **option)


def test_fused_attention_is_for_gpus_and_not_for_forward_derivatives(monkeypatch):
    chosen = []
    monkeypatch.setattr(jax, 'default_backend', lambda: 'gpu')
    monkeypatch.setattr(
        jax.nn, 'dot_product_attention', lambda q, k, v, implementation, is_causal: chosen.append(implementation)
    )
    qkv = jnp.zeros((1, 4, 3, 2, 8), jnp.bfloat16)
    layers.attend(qkv)
    with layers.plain_attention():
        layers.attend(qkv)
    layers.attend(qkv.astype(jnp.float32))
    assert chosen == ['cudnn', 'xla', 'xla']

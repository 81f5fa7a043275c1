"""Types, rematerialisation and the fused attention: what they change is speed and memory, not what is computed."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx
from ml_collections import ConfigDict

from genbench import networks
from genbench.data.spec import DataSpec
from genbench.errors import UserError
from genbench.networks import layers

SPEC = DataSpec('images', (8, 8, 1), 17)
SMALL = {
    'unet': {'channels': 16, 'attention': (4,), 'groups': 4},
    'dit': {'depth': 3, 'width': 32, 'heads': 2},
}


def build(name, **options):
    """(function (params, x, t) → y, random parameters) of a small network."""
    config = ConfigDict({**networks.defaults(name), **SMALL[name], **options})
    definition, params, rest = nnx.split(
        nnx.eval_shape(lambda: networks.denoiser(config, SPEC, 0, nnx.Rngs(0))), nnx.Param, ...
    )
    rng = np.random.default_rng(0)
    params = jax.tree.map(lambda leaf: jnp.asarray(0.1 * rng.normal(size=leaf.shape), leaf.dtype), params)
    return lambda params, x, t: nnx.merge(definition, params, rest)(x, t), params


def batch(size=16):
    key = jax.random.key(1)
    return jax.random.normal(key, (size, 8, 8, 1)), jax.random.uniform(jax.random.fold_in(key, 1), (size,))


def losses(name, dtype, steps=50):
    """Of fitting a fixed smooth function of the input with Adam, step by step."""
    apply, params = build(name, dtype=dtype)
    optimizer = optax.adam(2e-3)
    x, t = batch()
    target = jnp.tanh(x + jnp.roll(x, 1, axis=1)) * t[:, None, None, None]

    def loss(params):
        return jnp.square(apply(params, x, t) - target).mean()

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
    np.testing.assert_allclose(rounded, exact, rtol=0.1)


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
    monkeypatch.setattr(jax.nn, 'dot_product_attention', lambda q, k, v, implementation: chosen.append(implementation))
    qkv = jnp.zeros((1, 4, 3, 2, 8), jnp.bfloat16)
    layers.attend(qkv)
    with layers.plain_attention():
        layers.attend(qkv)
    layers.attend(qkv.astype(jnp.float32))
    assert chosen == ['cudnn', 'xla', 'xla']

"""Priors over the codes of a first stage, against sums over all codes."""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from genbench import config, families
from genbench.data.spec import DataSpec
from genbench.errors import UserError
from genbench.families.base import Borrowed, Networks, Sampler

SPEC = DataSpec('tiny', (2, 2, 1), levels=3)
STAGE = {'family': {'name': 'vq_vae', 'codes': 3, 'latent_channels': 2},
         'network': {'name': 'autoencoder', 'channels': 4, 'multipliers': (1,), 'groups': 2},
         'train': {'batch_size': 8}}  # fmt: skip
PRIORS = {
    'pixel_transformer': {'name': 'pixel_transformer', 'depth': 1, 'width': 8, 'heads': 2},
    'pixel_cnn': {'name': 'pixel_cnn', 'channels': 4, 'blocks': 1, 'scales': 1},
}


def scrambled(modules, scale=0.7):
    random = np.random.default_rng(0)
    for module in modules.values():
        draw = lambda leaf: jnp.asarray(scale * random.normal(size=leaf.shape), jnp.float32)  # noqa: E731
        nnx.update(module, jax.tree.map(draw, nnx.state(module, nnx.Param)))
    return modules


EVERY = jnp.array(list(itertools.product(range(3), repeat=4))).reshape(-1, 2, 2, 1)


PLACES = [27, 9, 3, 1]  # of the digits of an image's number among all


@functools.cache
def stage(name='vq_vae', **changes):
    """(family, networks) of a VQ-VAE or VQGAN with a code for each of four pixels, one of three vectors of an image."""
    options = {**STAGE['family'], 'name': name, **changes}
    family = families.get(name)(config.resolve({**STAGE, 'family': options}), SPEC)
    modules = scrambled(family.networks(nnx.Rngs(0)), 1.5)
    if family.learned:
        z = jax.jit(lambda images: modules['encoder'](SPEC.encode(images)))(EVERY[50:51])
        modules['quantiser'].total[...] = modules['quantiser'].least * z.reshape(4, 2)[:3]
    return family, Networks(modules)


def prior(name, network, spec=SPEC, lender=None, **options):
    """(family, networks) of a prior over the codes of `stage`."""
    lender = lender or stage()
    options = {'name': name, 'tokeniser': 'run', **options}
    resolved = config.resolve({'family': options, 'network': network})
    family = families.get(name)(resolved, spec, {'tokeniser': Borrowed(lender[0])})
    return family, Networks(scrambled(family.networks(nnx.Rngs(1))), borrowed={'tokeniser': lender[1]})


@pytest.mark.parametrize('network', PRIORS)
def test_probabilities_of_all_codes_sum_to_one_and_the_bound_holds_that_of_the_image(network):
    """Three codes at four places are as many as images of three levels."""
    family, networks = prior('autoregressive', PRIORS[network])
    (likelihood,) = family.likelihoods
    assert (likelihood.method, likelihood.kind) == ('first_stage_autoregression', 'lower_bound')
    (first, lent), keys = stage(), jax.random.split(jax.random.key(0), len(EVERY))

    @jax.jit
    def everything(images):
        log_p = family._log_prob(networks, EVERY, None, 0)
        of_code = lambda code: first.log_of_image(lent, jnp.broadcast_to(code[..., 0], (81, 2, 2)), images, keys)  # noqa: E731
        through = jax.lax.map(of_code, EVERY)
        return log_p, through, likelihood.log_prob(networks, images, None, keys), first.codes(lent, images)

    log_p, through, found, chosen = map(np.asarray, everything(EVERY))
    np.testing.assert_allclose(np.exp(log_p).sum(), 1, rtol=1e-5)
    exact = np.logaddexp.reduce(through + log_p[:, None], axis=0)
    np.testing.assert_allclose(np.exp(exact).sum(), 1, rtol=1e-4)
    chosen = chosen.reshape(81, 4) @ PLACES
    np.testing.assert_allclose(found, through[chosen, range(81)] + log_p[chosen], rtol=1e-4)
    assert (found <= exact + 1e-4).all() and len(set(chosen)) > 9


@pytest.mark.parametrize(
    ('name', 'lender'), [('autoregressive', 'vq_gan'), ('maskgit', 'vq_vae'), ('maskgit', 'vq_gan')]
)
def test_samples_are_decoded_codes_with_the_probabilities_of_the_prior(name, lender, keys):
    """Those of masked generation in a single step are the product of what the network says of each place."""
    first, lent = stage(lender)
    family, networks = prior(name, PRIORS['pixel_transformer'], lender=(first, lent))
    decode = jax.jit(lambda index: first.decode(lent, first.vectors(lent, index)))
    shown = np.asarray(decode(EVERY[..., 0])).reshape(81, 4) @ PLACES
    assert len(set(shown)) > 4
    if name == 'maskgit':
        logits = networks['predictor'](jnp.zeros((1, 4), int), jnp.ones((1, 4), bool))
        each = np.asarray(jax.nn.log_softmax(logits))[0]
        log_p = each[range(4), np.asarray(EVERY).reshape(81, 4)].sum(1)
    else:
        log_p = jax.jit(lambda x: family._log_prob(networks, x, None, 0))(EVERY)
    sampler, count = Sampler(family.samplers[0], 1), 10_000
    images = jax.jit(lambda keys: family.sample(networks, keys, None, sampler).images)(keys(count))
    found = np.bincount(np.asarray(images).reshape(count, 4) @ PLACES, minlength=81) / count
    wanted = np.bincount(shown, np.exp(log_p), minlength=81)
    np.testing.assert_allclose(found, wanted, atol=0.025)


def test_codes_of_a_grid_are_its_places():
    first, lent = stage(quantiser='fsq', levels=(3, 3))
    assert first.num_codes == 9
    both = jax.jit(lambda x: (first.vectors(lent, first.codes(lent, x)), first.posterior(lent, x)[0]))(EVERY)
    np.testing.assert_array_equal(both[0], np.round(both[1]))  # of three levels −1, 0 and 1


@pytest.mark.parametrize(
    ('changes', 'why'),
    [
        ({'network': {'name': 'made'}}, 'Codes have no order: .*codes of vq_vae needs family.decoder=categorical'),
        ({'decoder': 'logistic'}, 'Codes have no order'),
        ({'spec': DataSpec('other', (2, 2, 1), levels=5)}, 'The tokeniser was trained on .* trains on'),
    ],
)
def test_what_does_not_fit_codes_is_refused(changes, why):
    with pytest.raises(UserError, match=why):
        prior('autoregressive', **{'network': PRIORS['pixel_cnn'], **changes})


def test_a_first_stage_without_codes_is_refused():
    resolved = config.resolve({'family': {'name': 'vae', 'latent_channels': 2}})
    vae = families.get('vae')(resolved, DataSpec('images', (8, 8, 1), 3))
    with pytest.raises(UserError, match='family.tokeniser is a vae model, which has no codes; use a run of vq_vae'):
        prior('maskgit', PRIORS['pixel_transformer'], lender=(vae, None))

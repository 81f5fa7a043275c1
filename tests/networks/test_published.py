"""The networks of configs that no row of the ledger has, or whose row has no size, have the published parameters."""

import pathlib

import jax
import pytest
from flax import nnx

from genbench import config, families
from genbench.data.spec import DataSpec
from genbench.families.base import Borrowed
from genbench.training import samplers

CONFIGS = pathlib.Path(__file__).resolve().parents[2] / 'configs'
# (height, classes, millions of parameters that the paper or its official code counts)
WANTED = {
    'celeb_a64/ddim': (64, 0, 78.7),
    'cifar10/continuous_consistency': (32, 0, 55.7),
    'cifar10/progressive_distillation': (32, 0, 60.0),
    'cifar10/reflow': (32, 0, 61.8),
    'ffhq256/p2': (256, 0, 93.6),
    'imagenet64/edm': (64, 1000, 295.9),
    'imagenet64/edm2': (64, 1000, 280.2),
    'lsun/ddpm': (256, 0, 113.7),
}


def made(path, spec):
    """The family of a config, with the families of the configs whose runs it borrows."""
    chosen = config.load(str(CONFIGS / f'{path}.py'), [])
    cls = families.get(chosen.family.name)
    lent = {key: run.removeprefix('runs/').replace('_', '/', 1) for key, run in cls.borrows(chosen).items()}
    return cls(chosen, spec, {key: Borrowed(made(one, spec)) for key, one in lent.items()})


@pytest.mark.parametrize('path', WANTED)
def test_a_config_has_the_parameters_of_its_paper_and_samplers_that_it_can_use(path):
    size, classes, wanted = WANTED[path]
    family = made(path, DataSpec('images', (size, size, 3), 256, classes))
    network = nnx.eval_shape(lambda: family.networks(nnx.Rngs(0))[family.main_network])
    found = sum(leaf.size for leaf in jax.tree.leaves(nnx.state(network, nnx.Param)))
    assert round(found / 1e6, 1) == wanted
    assert all(samplers.parse(text, family) for text in family.config.evaluation.samplers)


def sizes(path, classes, *overrides, size=32):
    """The parameters of each network of a config."""
    chosen = config.load(str(CONFIGS / f'{path}.py'), list(overrides))
    family = families.get(chosen.family.name)(chosen, DataSpec('images', (size, size, 3), 256, classes), {})
    networks = nnx.eval_shape(lambda: family.networks(nnx.Rngs(0)))
    return {
        name: sum(leaf.size for leaf in jax.tree.leaves(nnx.state(network, nnx.Param)))
        for name, network in networks.items()
    }


def conv(inputs, outputs, kernel=3):
    return inputs * outputs * kernel**2 + outputs


def test_the_networks_of_wgan_gp_have_the_layers_of_its_code_for_cifar10():
    """gan_cifar_resnet.py of the authors, without labels: 128 channels, and z of 128 numbers to 4×4 pixels."""
    pair, skip = 2 * conv(128, 128), conv(128, 128, 1)
    first = conv(3, 128) + conv(128, 128) + conv(3, 128, 1)
    assert sizes('cifar10/wgan_gp', 0) == {
        'discriminator': first + (pair + skip) + 2 * pair + 129,
        'generator': 129 * 16 * 128 + 3 * (pair + skip + 2 * 256) + 256 + conv(128, 3),
    }


def test_the_networks_of_biggan_have_the_layers_of_its_code_at_32_pixels():
    """ajbrock/BigGAN-PyTorch with 256 channels, a shared embedding of 128 numbers and 32 of z in each of four places.

    Its D for CIFAR-10 is the same. G there has neither a shared embedding nor parts of z, and about 4.3 million
    parameters, as its users found (issue 78).
    """
    pair, skip = 2 * conv(256, 256), conv(256, 256, 1)
    first = conv(3, 256) + conv(256, 256) + conv(3, 256, 1)
    norms = 2 * 2 * (128 + 32) * 256
    assert sizes('cifar10/biggan', 10) == {
        'discriminator': first + (pair + skip) + 2 * pair + 257 + 10 * 256,
        'generator': 10 * 128 + 33 * 16 * 256 + 3 * (pair + skip + norms) + 2 * 256 + conv(256, 3),
    }

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

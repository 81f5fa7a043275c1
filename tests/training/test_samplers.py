"""Samplers as people write them, and what results and files say of them."""

import pytest

from genbench import families
from genbench.errors import UserError
from genbench.evaluation.protocol import Protocol, picture, told_options
from genbench.evaluation.samples import slug
from genbench.families.base import Sampler
from genbench.interpolants.solvers import Options
from genbench.training import samplers


@pytest.fixture
def family(tiny, digits):
    return families.get('diffusion')(tiny('diffusion', 'family.conditional=True'), digits[0])


READ = {
    'ancestral': Sampler('ancestral', 25),
    'ddim:10': Sampler('ddim', 10),
    'ddim:10:1.5': Sampler('ddim', 10, 1.5),
    'ddim:10:guidance=1.5': Sampler('ddim', 10, 1.5),
    'heun:5:spacing=quadratic': Sampler('heun', 5, 0.0, Options(spacing='quadratic')),
    'ancestral:50:variance=large, guidance=2': Sampler('ancestral', 50, 2.0, Options(variance='large')),
    'ancestral:variance=large,spacing=quadratic': Sampler('ancestral', 25, 0.0, Options('large', 'quadratic')),
    'ancestral:50:variance=small': Sampler('ancestral', 50),
}


@pytest.mark.parametrize('text', READ)
def test_a_text_is_the_sampler_it_names(text, family):
    assert samplers.parse(text, family) == READ[text]


REFUSED = {
    'ddim:10:variance=large': "'variance'; ddim takes guidance, spacing",
    'ancestral:10:variance=huge': 'variance=huge; it can be small, large',
    'ancestral:10:variance': "guidance 'variance'; it should be a number",
    'heun:10:spacing=cubic': 'spacing=cubic; it can be uniform, quadratic, ddim_quad',
    'heun:10:spacing=ddim_quad': 'begins at 0.801',
    'heun:10:churn=40': "'churn'; heun takes guidance, spacing",
    'heun:10:guidance=much': 'should be a number',
    'heun:10:nan': 'should be a number',
    'heun:10:spacing=uniform,spacing=quadratic': 'is not NAME',
    'heun:10:spacing=uniform,2': 'is not NAME',
    'heun:10:2:spacing=uniform': 'is not NAME',
    'heun:ten': 'is not NAME',
    'heun:0': 'at least one step',
    'spacing=uniform': 'is not NAME',
}


@pytest.mark.parametrize('text', REFUSED)
def test_a_text_that_is_no_sampler_says_why(text, family):
    with pytest.raises(UserError, match=REFUSED[text]):
        samplers.parse(text, family)


def test_a_family_without_a_path_takes_no_options(tiny, digits):
    gan = families.get('gan')(tiny('gan'), digits[0])
    with pytest.raises(UserError, match="'spacing'; direct takes none"):
        samplers.parse('direct:1:spacing=uniform', gan)


def test_a_list_split_at_commas_is_put_together_again():
    pieces = ['ddim:10', 'ancestral:50:variance=large', 'spacing=quadratic', 'heun:5']
    wanted = ('ddim:10', 'ancestral:50:variance=large,spacing=quadratic', 'heun:5')
    assert samplers.listed(pieces) == samplers.listed(wanted) == wanted


def test_default_options_leave_a_protocol_as_it_was():
    assert Sampler('ddim', 10).protocol == {'sampler': 'ddim', 'steps': 10, 'guidance': 0.0}
    assert slug(Sampler('ddim', 10, 2.0)) == 'ddim_10_g2.0'


def test_options_are_part_of_protocol_names_and_labels():
    sampler = Sampler('ancestral', 50, 0.0, Options('large', 'quadratic'))
    drawn = sampler.protocol
    assert drawn['sampler_options'] == {'variance': 'large', 'spacing': 'quadratic'}
    assert slug(sampler) == 'ancestral_50_spacing-quadratic_variance-large'
    assert picture(drawn, {}) == f'{slug(sampler)}.png'
    assert told_options(drawn) == 'spacing=quadratic, variance=large'
    plain = Protocol(Sampler('ancestral', 50).protocol)
    assert plain.hash != Protocol(drawn).hash and plain.measurement == Protocol(drawn).measurement

"""Samplers as people write them, and what results and files say of them."""

import pytest

from genbench import families
from genbench.errors import UserError
from genbench.evaluation.protocol import Protocol, picture, told_options
from genbench.evaluation.samples import slug
from genbench.families.base import Sampler
from genbench.interpolants.options import AncestralOptions, DdimOptions, HeunOptions, PathOptions
from genbench.training import samplers


@pytest.fixture
def family(tiny, digits):
    return families.get('diffusion')(tiny('diffusion', 'family.conditional=True'), digits[0])


READ = {
    'ancestral': Sampler('ancestral', 25),
    'ddim:10': Sampler('ddim', 10),
    'ddim:10:1.5': Sampler('ddim', 10, 1.5),
    'ddim:10:guidance=1.5': Sampler('ddim', 10, 1.5),
    'heun:5:spacing=quadratic': Sampler('heun', 5, 0.0, HeunOptions(spacing='quadratic')),
    'ancestral:50:variance=large, guidance=2': Sampler('ancestral', 50, 2.0, AncestralOptions(variance='large')),
    'ancestral:variance=large,spacing=quadratic': Sampler(
        'ancestral', 25, 0.0, AncestralOptions(variance='large', spacing='quadratic')
    ),
    'ancestral:50:variance=small': Sampler('ancestral', 50),
    'heun:25:guidance=1.5,interval=0.2-0.8,churn=40,spacing=rho7': Sampler(
        'heun', 25, 1.5, HeunOptions(interval=(0.2, 0.8), churn=40.0, spacing='rho7')
    ),
    'ddim:4:eta=0.5,temperature=0.9,threshold=0.995': Sampler(
        'ddim', 4, 0.0, DdimOptions(eta=0.5, temperature=0.9, threshold=0.995)
    ),
    'euler:4:guidance=2,negative=label=3': Sampler('euler', 4, 2.0, PathOptions(negative='label=3')),
    'euler:spacing=0.995/0.5/0.2': Sampler('euler', 3, 0.0, PathOptions(spacing='0.995/0.5/0.2')),
    'ddim:9:guidance=0,renoise=plain': Sampler('ddim', 9, 0.0, DdimOptions(renoise='plain')),  # CFG++ with λ = 1
    # What changes nothing leaves no trace.
    'heun:9:churn=0,s_noise=1.003': Sampler('heun', 9),
    'ddim:9:eta=0,temperature=1,guidance=0,interval=0.2-0.8': Sampler('ddim', 9),
    'ddim:9:guidance=2,interval=0-inf': Sampler('ddim', 9, 2.0),
}


@pytest.mark.parametrize('text', READ)
def test_a_text_is_the_sampler_it_names(text, family):
    assert samplers.parse(text, family) == READ[text]


REFUSED = {
    'ddim:10:variance=large': "'variance'; ddim takes guidance, temperature, spacing, .*, eta, renoise\\.",
    'ancestral:10:variance=huge': 'variance=huge; it can be small, large',
    'ancestral:10:variance': "guidance 'variance'; it should be a number",
    'heun:10:spacing=cubic': 'spacing=cubic; it can be uniform, quadratic, ddim_quad, logsnr, linspace, leading, rho7',
    'heun:10:spacing=rho-7': 'spacing=rho-7; it can be',
    'heun:10:spacing=0.9/0.5': 'begins at 0.9',
    'heun:10:spacing=0.995/0.5': 'lists the times of 2 steps; remove the number of steps',
    'euler:10:churn=40': "'churn'; euler takes guidance, temperature",
    'heun:10:churn=-1': 'churn=-1; it can be a number, at least 0',
    'heun:10:churn=lots': 'churn=lots; it can be a number',
    'heun:10:churn=inf': 'churn=inf; it can be a number',
    'heun:10:strength=0': 'strength=0; it can be a number, above 0 and at most 1',
    'heun:10:resample=2.5': 'resample=2.5; it can be an integer',
    'heun:10:s_noise=1.003': 'has s_noise, which has no effect without churn; add churn=…',
    'heun:10:interval=0.2-0.8': 'has interval, which has no effect without guidance',
    'heun:10:guidance=1,interval=0.8-0.2': 'interval=0.8-0.2; it can be LOW-HIGH',
    'heun:10:guidance=1,interval=0.8': 'interval=0.8; it can be LOW-HIGH',
    'ddim:10:eta=1.5': 'eta=1.5; it can be a number, at least 0 and at most 1',
    'ddim:10:eta=nan': 'eta=nan; it can be',
    'ddim:10:temperature=-1': 'temperature=-1; it can be',
    'ddim:10:threshold=2': 'threshold=2; it can be none, static',
    'ddim:10:guidance=1,negative=label=12': "'12' is not a label",
    'ddim:10:guidance=1,negative=caption=two': "'caption=two' is not a condition of this model, which takes label=…",
    'ddim:10:negative=label=3': 'has negative, which has no effect without guidance; add guidance=…',
    'heun:10:spacing=ddim_quad': 'begins at 0.801',
    'heun:10:spacing=leading': 'leading begins before t_max.*use spacing=linspace',
    'ddim:1001': 'takes 1001 steps, and this model was trained at the times of 1000; take at most 1000',
    'unipc:10:order=4': 'order=4; it can be an integer from 1 to 3',
    'unipc:10:variant=bh3': 'variant=bh3; it can be bh2, bh1',
    'deis:10:degree=0': 'degree=0; it can be an integer from 1 to 3',
    'deis:10:axis=rho': 'axis=rho; it can be t, log_rho',
    'dpmpp_3m:10:curvature=double': 'curvature=double; it can be full, half',
    'dpmpp_2m:10:curvature=half': "'curvature'; dpmpp_2m takes",
    'euler_maruyama:10:diffusion=none': 'diffusion=none; it can be forward, sigma',
    'predictor_corrector:10:corrections=0': 'corrections=0; it can be an integer of at least 1',
    'predictor_corrector:10:snr=0': 'snr=0; it can be a number, above 0',
    'rk45:10:spacing=rho7': 'chooses the steps of each image by itself, and spacing is for steps',
    'rk45:10:guidance=1,interval=0.2-0.8': 'chooses the steps of each image by itself, and interval',
    'rk45:10:tolerance=0': 'tolerance=0; it can be a number, above 0',
    'ddim:10:renoise=plain': 'has renoise, which has no effect without guidance',
    'heun:10:guidance=much': 'should be a number',
    'heun:10:nan': 'should be a number',
    'heun:10:spacing=uniform,spacing=quadratic': 'should be NAME',
    'heun:10:spacing=uniform,2': 'should be NAME',
    'heun:10:2:spacing=uniform': 'should be NAME',
    'heun:ten': 'should be NAME',
    'heun:0': 'is 0; it should be at least 1',
    'spacing=uniform': 'should be NAME',
}


@pytest.mark.parametrize('text', REFUSED)
def test_a_text_that_is_no_sampler_says_why(text, family):
    with pytest.raises(UserError, match=REFUSED[text]):
        samplers.parse(text, family)


def test_a_negative_caption_may_have_commas(tiny, digits):
    told = families.get('diffusion')(tiny('diffusion', 'family.conditions=caption:bytes24'), digits[0])
    found = samplers.parse('euler:4:negative=caption=a thin, slanted seven,guidance=2', told)
    assert found == Sampler('euler', 4, 2.0, PathOptions(negative='caption=a thin, slanted seven'))
    with pytest.raises(UserError, match="'a thin, most slanted seven' has 26 bytes, and this model takes 24") as why:
        samplers.parse('euler:4:guidance=2,negative=caption=a thin, most slanted seven', told)
    assert '\n' not in str(why.value)
    with pytest.raises(UserError, match='should be NAME'):
        samplers.parse('euler:4:guidance=2, slanted', told)
    with pytest.raises(UserError, match='has guidance, which needs family.conditional or family.conditions'):
        samplers.parse(
            'euler:4:guidance=2,negative=caption=seven', families.get('diffusion')(tiny('diffusion'), digits[0])
        )


def test_a_solver_that_cannot_follow_the_schedule_is_refused(tiny, digits):
    flow = families.get('flow_matching')(tiny('flow_matching'), digits[0])
    samplers.parse('euler_maruyama:10:diffusion=sigma', flow)
    with pytest.raises(UserError, match='euler_maruyama follows the forward SDE.*straight.*use diffusion=sigma'):
        samplers.parse('euler_maruyama:10', flow)
    with pytest.raises(UserError, match='reverse_diffusion needs some signal.*use predictor=ancestral'):
        samplers.parse('predictor_corrector:10', flow)


def test_an_unconditional_model_has_no_second_noise(tiny, digits):
    with pytest.raises(UserError, match='has guidance, which needs family.conditional'):
        samplers.parse('ddim:9:guidance=0,renoise=plain', families.get('diffusion')(tiny('diffusion'), digits[0]))


def test_guidance_needs_dropped_conditions_or_another_prediction_to_compare_with(tiny, digits):
    config = tiny('diffusion', 'family.conditional=True', 'family.condition_dropout=0')
    family = families.get('diffusion')(config, digits[0])
    for options in ('guidance=2', 'guidance=0,renoise=plain'):
        with pytest.raises(UserError, match='was trained with family.condition_dropout=0; train it with 0.1'):
            samplers.parse(f'ddim:9:{options}', family)
    for options in ('guidance=2,negative=label=3', 'guidance=2,guide=runs/a', 'guidance=0'):
        samplers.parse(f'ddim:9:{options}', family)


def test_no_more_steps_are_taken_than_were_trained(tiny, digits):
    """Unless times are continuous; the usual number of steps follows."""
    short = families.get('diffusion')(tiny('diffusion', 'family.num_timesteps=4'), digits[0])
    assert samplers.default(short).num_steps == samplers.parse('ddim', short).num_steps == 4
    even = tiny('diffusion', 'family.num_timesteps=4', 'family.time_sampler=low_discrepancy')
    assert samplers.parse('ddim:1001', families.get('diffusion')(even, digits[0])).num_steps == 1001


def test_a_family_without_a_path_takes_no_options(tiny, digits):
    gan = families.get('gan')(tiny('gan'), digits[0])
    with pytest.raises(UserError, match="'spacing'; direct takes temperature\\."):
        samplers.parse('direct:1:spacing=uniform', gan)


def test_a_list_split_at_commas_is_put_together_again():
    pieces = ['ddim:10', 'ancestral:50:variance=large', 'spacing=quadratic', 'heun:5']
    wanted = ('ddim:10', 'ancestral:50:variance=large,spacing=quadratic', 'heun:5')
    assert samplers.listed(pieces) == samplers.listed(wanted) == wanted


def test_default_options_leave_a_protocol_as_it_was():
    assert Sampler('ddim', 10).protocol == {'sampler': 'ddim', 'steps': 10, 'guidance': 0.0}
    assert slug(Sampler('ddim', 10, 2.0)) == 'ddim_10_g2.0'


def test_options_are_part_of_protocol_names_and_labels(family):
    sampler = Sampler('ancestral', 50, 0.0, AncestralOptions(variance='large', spacing='quadratic'))
    drawn = sampler.protocol
    assert drawn['sampler_options'] == {'variance': 'large', 'spacing': 'quadratic'}
    assert slug(sampler) == 'ancestral_50_spacing-quadratic_variance-large'
    assert picture(drawn, {}) == f'{slug(sampler)}.png'
    assert told_options(drawn) == 'spacing=quadratic, variance=large'
    odd = samplers.parse('heun:guidance=2,interval=0.2-inf,negative=label=3,spacing=0.995/0.5', family)
    assert odd.protocol['sampler_options'] == {
        'interval': '0.2-inf', 'negative': 'label=3', 'spacing': '0.995/0.5'
    }  # fmt: skip
    assert slug(odd) == 'heun_2_g2.0_interval-0.2-inf_negative-label=3_spacing-0.995-0.5'
    plain = Protocol(Sampler('ancestral', 50).protocol)
    assert plain.hash != Protocol(drawn).hash and plain.measurement == Protocol(drawn).measurement


def test_an_unguided_family_takes_no_option_of_guidance(tiny, digits):
    with pytest.raises(UserError, match="'interval'; multistep_consistency takes temperature, spacing"):
        samplers.check(samplers.read('multistep_consistency:2:interval=0-1'), families.get('consistency'))

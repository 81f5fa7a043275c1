"""The ledger: what is published, how it is known, what follows from evidence, and what verify says of a run."""

import json

import pytest

from genbench import cli
from genbench.errors import UserError
from genbench.studies import ledger

ROWS = ledger.rows()
LIKELIHOODS = ('bits_per_dim', 'nats', 'log_likelihood_nats', 'logit_log_likelihood_nats', 'ais_nats', 'parzen_nats')


def row(name):
    return ledger.get(name)


def test_every_row_says_what_it_has_to():
    assert len({entry.id for entry in ROWS}) == len(ROWS) > 400
    for entry in ROWS:
        assert entry.confirmed in ledger.CONFIRMED and entry.tolerance > 0 and entry.reason, entry.id
        assert entry.measured or not entry.config, entry.id
        assert (entry.kind in ('exact', 'lower_bound', 'estimate')) == (entry.metric in LIKELIHOODS), entry.id


@pytest.mark.parametrize(
    ('name', 'value', 'confirmed'),
    [
        ('ddpm-fid', 3.17, 'text'),
        ('ddpm-bpd', 3.75, 'text'),
        ('ddim-10-own-fid', 13.36, 'text'),
        ('ddim-10-fid', 8.23, 'text'),
        ('progressive-distillation-1-fid', 9.12, 'text'),
        ('progressive-distillation-rerun-1-fid', 8.34, 'text'),
        ('ot-cfm-fid', 3.577, 'quoted'),
        ('flow-matching-ot-bpd', 3.11, 'quoted'),
        ('flow-matching-ot-k50-bpd', 2.99, 'quoted'),
        ('iwae-1-layer-k5-mnist-nats', 85.54, 'text'),
        ('vae-1-layer-k5-mnist-nats', 86.47, 'text'),
        ('rectified-flow-3-fid', 3.96, 'text'),
        ('score-sde-vp-deep-bpd', 3.13, 'text'),
        ('made-1-mask-mnist-nats', 88.40, 'memory'),
        ('pacgan-gan-ring-modes', 6.3, 'text'),
        ('glow-bpd', 3.35, 'quoted'),
        ('pixelcnn++-bpd', 2.92, 'text'),
        ('cifar10-gaussian', 4.683, 'measured'),
        ('stylegan2-ada-conditional-fid', 2.42, 'text'),
        ('improved-consistency-deep-2-fid', 2.24, 'text'),
        ('search-vae-celeba', 85.7, 'memory'),
    ],
)
def test_values_and_how_they_are_known(name, value, confirmed):
    assert (row(name).value, row(name).confirmed) == (value, confirmed)


def test_the_two_data_sets_called_imagenet_64_are_not_mixed():
    """A row is of one of the two by its TFDS name, or says that nobody has checked."""
    for entry in ROWS:
        if entry.data in ('imagenet_32', 'imagenet_64'):
            assert 'not checked' in entry.said, entry.id
    assert row('vdvae-imagenet64-bpd').data == 'downsampled_imagenet/64x64'
    assert row('efficient-vdvae-imagenet64-bpd').data == 'imagenet_resized/64x64'


def test_a_fid_of_reconstructions_is_not_one_of_samples():
    named = {entry.id for entry in ROWS if entry.metric == 'reconstruction_fid'}
    assert named == {entry.id for entry in ROWS if entry.id.endswith('-rfid')} and len(named) == 7
    asked = row('vqgan-1024-rfid').evaluation
    assert {'evaluation.metrics=reconstruction_fd', 'evaluation.features.name=inception'} <= {*asked}


def test_published_sizes_are_parameters():
    sizes = {'vdvae-paper-bpd': 39e6, 'edm-fid': 55.734e6, 'vdm-bpd': 30.58e6, 'score-sde-ve-deep-fid': 107.59e6}
    assert {name: row(name).parameters for name in sizes} == sizes


def test_recipes_sample_as_the_paper_did():
    """And say so in their protocol; what genbench cannot do is in `differs` or in `lacks`."""
    assert row('ddpm-fid').evaluation[-1] == 'evaluation.samplers=ancestral:1000:variance=large'
    assert row('ddpm-bpd').measured['method'] == 'vlb_fixedlarge'  # the official code's variance and decoder
    for steps, name in ((10, 'ddim-10-own-fid'), (20, 'ddim-20-fid'), (50, 'ddim-50-fid'), (100, 'ddim-100-fid')):
        assert row(name).evaluation[-1] == f'evaluation.samplers=ddim:{steps}:spacing=ddim_quad'
        assert row(name).measured['sampler_options'] == {'spacing': 'ddim_quad'}
    assert 'dopri5' in row('ot-cfm-repository-fid').lacks
    assert 'family.coupling=optimal_transport' in row('ot-cfm-euler-100-fid').overrides


def test_every_recipe_of_a_paper_says_how_it_differs():
    for entry in ROWS:
        assert entry.differs or not entry.config or entry.confirmed == 'measured', entry.id


def test_every_row_without_a_recipe_says_what_it_lacks():
    assert [entry.id for entry in ROWS if not entry.config and not entry.lacks] == []


def test_numbers_from_memory_are_shown_as_unconfirmed():
    (line,) = ledger.lines([ledger.describe(row('nvae-fid'))])[1:2]
    assert 'unconfirmed' in line


@pytest.mark.parametrize(
    ('value', 'expected'), [(2.9435, ledger.REPRODUCED), (2.96, ledger.GAP), (None, ledger.GAP), ('no', ledger.NOT_RUN)]
)
def test_the_status_follows_from_the_recorded_value(tmp_path, value, expected):
    if value != 'no':
        (tmp_path / 'digits-gaussian.json').write_text(json.dumps({'value': value}))
    assert ledger.describe(row('digits-gaussian'), tmp_path)['status'] == expected


def test_a_row_without_a_recipe_says_so(tmp_path):
    assert ledger.describe(row('edm-a-vp-fid'), tmp_path)['status'] == ledger.NO_RECIPE
    with pytest.raises(UserError, match='edm-a-vp-fid has no recipe yet: a config'):
        _ = row('edm-a-vp-fid').path


def test_recorded_evidence_is_whole():
    """What is in docs/baselines belongs to a row and holds what its command and protocol were."""
    for path in ledger.EVIDENCE.glob('*.json'):
        kept = json.loads(path.read_text())
        assert row(path.stem).id == kept['id'] == path.stem
        assert kept['protocol'] and kept['commit'] and kept['versions'] and kept['config'] == row(path.stem).config


@pytest.mark.parametrize(
    ('where', 'holds'),
    [
        ('data=digits,mnist', lambda entry: entry['data'] in ('digits', 'mnist')),
        ('nfe<=2 metric=fid', lambda entry: entry['metric'] == 'fid' and (entry['nfe'] or 9) <= 2),
        ('confirmed!=text', lambda entry: entry['confirmed'] != 'text'),
        ('id=ddim-*', lambda entry: entry['id'].startswith('ddim-')),
        ('status="no recipe yet"', lambda entry: not entry['config']),
        ('value=3.17', lambda entry: entry['value'] == 3.17),
    ],
)
def test_rows_are_chosen_by_conditions(tmp_path, where, holds):
    listed = [ledger.describe(entry, tmp_path) for entry in ROWS]
    chosen = ledger.select(listed, [where])
    assert chosen == [entry for entry in listed if holds(entry)] != []


@pytest.mark.parametrize(
    ('words', 'message'),
    [
        (('baselines', '--where', 'satus=reproduced'), 'Did you mean status?'),
        (('baselines', '--where', 'nfe<few'), "'few' is not a number"),
        (('baselines', 'ddpm-fid', '--where', 'nfe<9'), 'not both'),
        (('verify', 'ddpm-fed'), "There is no baseline 'ddpm-fed'. Did you mean ddpm-fid"),
        (('verify', 'vae-2-layers-mnist-nats'), 'vae-2-layers-mnist-nats has no recipe yet: a second stochastic'),
        (
            ('verify', 'edm-afhq64-fid'),
            'edm-afhq64-fid needs the training images of AFHQ, version 2. There is no '
            'folder afhqv2_64. Put images there, then run: genbench data prepare folder:afhqv2_64 --size=64',
        ),
        (('verify', 'digits-gaussian', '--run=a', '--workdir=b'), 'not both'),
        (('verify', 'digits-gaussian', '--run={tmp}/none'), 'is not a run'),
    ],
)
def test_mistakes_are_one_line(tmp_path, capsys, words, message):
    assert cli.main([word.format(tmp=tmp_path) for word in words]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert message in line


def test_a_row_says_what_its_paper_leaves_open_and_what_the_recipe_takes(capsys):
    assert cli.main(['baselines', 'maf-suite-maf-mnist']) == 0
    heading, expected, *said, status = capsys.readouterr().out.splitlines()
    assert heading.startswith('maf-suite-maf-mnist: MAF (5), Papamakarios et al. 2017')
    assert expected == 'expected  logit_log_likelihood_nats -1272.7 on mnist (read in its own text)'
    assert 'recipe    configs/paper/maf_mnist.py' in said and status == ledger.NOT_RUN
    assert [line.split()[0] for line in said] == ['tolerance', 'recipe', 'open', 'open', 'differs', 'differs']
    assert cli.main(['baselines', 'ldm-4-g-imagenet-fid']) == 0
    out = capsys.readouterr().out
    assert 'lacks     a config of its network on latents\n' in out and 'open      η of the sampler\n' in out


def test_what_is_open_says_what_the_recipe_takes():
    assert [entry.id for entry in ROWS if entry.config and not all(': ' in words for words in entry.open)] == []


def test_rows_are_listed_with_a_count(capsys):
    assert cli.main(['baselines', '--where', 'data=digits']) == 0
    out = capsys.readouterr().out
    assert 'digits-gaussian' in out and 'ddpm-fid' not in out
    assert out.splitlines()[-1].startswith('5 rows: ')

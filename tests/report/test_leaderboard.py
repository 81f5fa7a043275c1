"""The leaderboard ranks what was measured alike, says what was not, means over seeds, and knows a lead from noise."""

import json
import re

import numpy as np
import pytest
from scipy import stats

from genbench.evaluation.results import BOUNDS, COPIES, HELD_OUT, KEYS
from genbench.report import collect, figures, leaderboard


def fd(trial, value, **more):
    protocol = {'sampler': 'direct', 'nfe': 1, 'num_samples': more.pop('num_samples', 1000), 'reference': {'n': 50000}}
    row = {'metric': 'fd', 'value': value, 'kind': 'distance', 'sampler': 'direct', 'nfe': 1, 'n': 1000}
    return {'trial': trial, **dict.fromkeys(KEYS), **row, 'protocol': protocol, **more}


@pytest.fixture
def board(tmp_path):
    """`board(rows, across=False)` → the leaderboard of a study with these rows."""

    def write(rows, variants=None, tips=None, **options):
        names = list(dict.fromkeys(row['trial'] for row in rows if row['trial'] not in BOUNDS))
        for row in rows:
            folder = tmp_path / 'trials' / row['trial']
            folder.mkdir(parents=True, exist_ok=True)
            config = {'evaluation': {'num_samples': row['protocol']['num_samples']}}
            if row['trial'][-2:-1] == '-':
                config['train'] = {'seed': int(row['trial'][-1])}
            (folder / 'config.json').write_text(json.dumps(config))
        description = {'title': '', 'claim': '', 'command': '', 'commit': '', 'trials': names, 'variants': variants}
        (tmp_path / 'study.json').write_text(json.dumps(description))
        (tmp_path / 'results.jsonl').write_text(''.join(json.dumps(row) + '\n' for row in rows))
        return leaderboard.html(collect.read(tmp_path), tips or leaderboard.Tips(), **options)

    return write


def numbers(html):
    return re.findall(r'<td[^>]* data-value="([\d.]+)"', html)


def bold(html):
    return re.findall(r'class="best" data-value="([^"]+)"', html)


def test_one_protocol_is_one_table_best_first(board):
    html = board([fd('far', 9.0), fd('near', 2.0, std_err=1.0), fd(HELD_OUT, 1.0)])
    assert html.count('<table') == 1
    assert html.index('near') < html.index('far')


def test_what_was_measured_otherwise_has_a_table_of_its_own_that_says_how(board):
    html = board([fd('a', 9.0), fd('b', 2.0, num_samples=50), fd('c', 3.0)])
    first, second = html.split('<h3>')[1:]
    assert numbers(first) == ['3.0', '9.0']
    assert numbers(second) == ['2.0']
    assert 'num_samples is 50, not 1000' in second


def test_real_images_stand_beside_samples_of_as_many_images_only(board):
    rows = [fd('a', 9.0), fd(HELD_OUT, 2.0), fd(COPIES, 4.0), fd(HELD_OUT, 7.0, num_samples=50)]
    html = board(rows)
    assert numbers(html) == ['2.0', '4.0', '9.0']
    assert HELD_OUT in html and COPIES in html
    first, second = board([*rows, fd('b', 8.0, num_samples=50)]).split('<h3>')[1:]
    assert numbers(first) == ['2.0', '4.0', '9.0'] and numbers(second) == ['7.0', '8.0']


def test_a_row_that_lacks_images_stands_there_and_says_how_many_would_do(board):
    missing = {'kind': 'none', 'details': {'images_at_most': 500}}
    html = board([fd('a', 9.0), fd(COPIES, 4.0), fd(HELD_OUT, None, **missing)])
    assert re.search(f'{HELD_OUT}<span[^>]*>too few images for FD: set evaluation.num_samples to at most 500<', html)
    other = board([fd('a', 9.0), fd(HELD_OUT, None, **missing, num_samples=50)])
    assert HELD_OUT not in other  # it says nothing of a table of another number of samples


def test_a_ranking_across_protocols_is_labelled(board):
    html = board([fd('a', 9.0), fd('b', 2.0, num_samples=50)], across=True)
    assert 'Ranked across 2 protocols, as requested' in html
    assert html.count('<table') == 1
    assert html.count('<code>') == 2  # each row names its protocol


def test_solvers_and_averages_may_be_ranked_together(board):
    rows = [fd('a', 9.0), fd('b', 2.0)]
    rows[1]['protocol'] = {**rows[1]['protocol'], 'sampler': 'heun', 'nfe': 9, 'average': 'current'}
    assert board(rows).count('<table') == 1


@pytest.mark.parametrize(('spread', 'best', 'tied'), [(0.01, ['2.0'], []), (1.0, [], ['2.0', '3.0'])])
def test_bold_is_a_lead_over_every_other_and_a_line_is_what_shares_it(board, spread, best, tied):
    seeds = {'a': 2.0, 'b': 3.0, 'c': 30.0}
    steps = {'a': (-1, 0, 1), 'b': (1, -1, 0), 'c': (0, 1, -1)}
    rows = [keyed(f'{name}-{seed}', mean + spread * steps[name][seed])
            for name, mean in seeds.items() for seed in range(3)]  # fmt: skip
    html = board([*rows, fd(HELD_OUT, 1.0)], variants={row['trial']: row['trial'][0] for row in rows})
    assert bold(html) == best  # real images are no competitors
    assert [f'{float(value):.1f}' for value in re.findall(r'class="tied" data-value="([^"]+)"', html)] == tied


def keyed(trial, value):
    row = fd(trial, value)
    return {**row, 'protocol': {**row['protocol'], 'noise': 'evaluation.seed and train.seed'}}


def test_one_seed_has_no_lead_and_no_spread_of_nothing(board):
    html = board([of_sets('a', [2.0, 2.0]), of_sets('b', [3.0, 3.1]), fd('c', 30.0)])
    assert bold(html) == [] and 'tied' not in html
    assert '2.00</td>' in html and '± 0.00' not in html and '± 0.07' in html


def test_precision_without_recall_is_warned_of(board):
    def one_step(trial, precision, recall):
        score = {'kind': 'score'}
        return [fd(trial, 9.0), {**fd(trial, precision, **score), 'metric': 'precision'},
                {**fd(trial, recall, **score), 'metric': 'recall'}]  # fmt: skip

    assert 'precision without recall' in board(one_step('a', 0.8, 0.0))
    assert 'precision without recall' not in board([*one_step('b', 0.8, 0.5), *one_step('c', 0.0, 0.0)])


def of_sets(trial, values, **more):
    sd = float(np.std(values, ddof=1))
    return fd(trial, float(np.mean(values)), values=values, sd=sd, std_err=sd / len(values) ** 0.5, **more)


def test_seeds_that_agree_show_the_noise_of_the_samples_they_share(board):
    """A fit without chance, sampled with the same keys for every seed."""
    tips = leaderboard.Tips()
    rows = [of_sets(f'gaussian-{seed}', [9.5, 10.0, 10.8]) for seed in range(3)]
    html = board(rows, variants={row['trial']: 'gaussian' for row in rows}, tips=tips)
    error = np.std([9.5, 10.0, 10.8], ddof=1) / 3**0.5
    assert f'10.10<span class="kind"> ± {error:.2f}</span>' in html
    (told,) = [tip['facts'] for tip in tips.texts if tip['title'] == 'gaussian · FD']
    assert told['± includes'] == 'training and sampling; over seeds alone ± 0.00'
    low, high = stats.t.interval(0.95, 2, 10.1, error)
    assert told['95% interval of the mean'] == f'{low:.2f} to {high:.2f}'


def test_a_cell_says_what_its_error_leaves_out(board):
    tips = leaderboard.Tips()
    board([of_sets('alone', [2.0, 3.0]), fd('once', 9.0), fd(HELD_OUT, 1.0)], tips=tips)
    facts = {tip['title']: tip['facts'] for tip in tips.texts}
    assert facts['alone · FD']['± includes'] == 'sampling' and facts['alone · FD']['± excludes'] == 'training'
    assert facts['once · FD']['unknown variation'] == 'training and sampling'
    assert '± includes' not in facts['once · FD'] and '± excludes' not in facts['once · FD']
    assert facts[f'{HELD_OUT} · FD']['unknown variation'].startswith('random halves of this split')


def test_real_images_say_what_their_sets_are_and_have_no_interval(board):
    """Their sets overlap: halves of one split, or draws with replacement from one."""
    tips = leaderboard.Tips()
    rows = [of_sets('a', [4.0, 5.0]), of_sets(HELD_OUT, [2.0, 3.0]), of_sets(COPIES, [6.0, 7.0])]
    for row in rows:
        row['protocol']['reference'] = {'split': 'test', 'half_seed': 0}
    board(rows, tips=tips)
    facts = {tip['title'].removesuffix(' · FD'): tip['facts'] for tip in tips.texts}
    assert facts['a']['± includes'] == 'sampling and reference halves'
    assert facts['a']['± excludes'] == 'training and other held-out images'
    assert facts[HELD_OUT]['± includes'] == 'random halves of this split'
    assert facts[COPIES]['± includes'] == 'draws of training images and random halves of this split'
    assert {name for name in facts if '95% interval of the mean' in facts[name]} == {'a'}
    for name in BOUNDS:
        assert facts[name]['± excludes'] == 'other held-out images'
        assert facts[name]['images'] == '2 random sets of 1000'


def against(reference, trial, value, **more):
    row = fd(trial, value, **more)
    return {**row, 'protocol': {**row['protocol'], 'reference': reference, 'sampler': row['sampler']}}


OLD, NEW = {'split': 'train'}, {'split': 'test', 'half_seed': 0}


def test_a_run_that_was_scored_again_has_its_later_number(board):
    """The earlier is lower, for it was measured against other images."""
    html = board([against(OLD, 'a', 2.2), against(NEW, 'a', 4.5), against(NEW, 'b', 5.0)])
    assert html.count('<table') == 1 and numbers(html) == ['4.5', '5.0']


def test_of_a_later_way_to_measure_the_best_sampler_is_shown(board):
    rows = [against(OLD, 'a', 2.2, sampler='heun'), against(OLD, 'a', 2.0, sampler='other'),
            against(NEW, 'a', 4.5, sampler='heun'), against(NEW, 'a', 4.1, sampler='ddim'),
            against(NEW, 'a', 4.7, sampler='euler')]  # fmt: skip
    html = board(rows)
    assert numbers(html) == ['4.1'] and 'ddim' in html


def test_a_variant_goes_by_what_most_of_its_seeds_were_scored_with_last(board):
    rows = [against(OLD, f'a-{seed}', 2.0) for seed in range(3)]
    again = [against(NEW, f'a-{seed}', 4.5) for seed in range(3)]
    variants = {f'a-{seed}': 'a' for seed in range(3)}
    one = board([rows[0], again[0], *rows[1:]], variants=variants)
    assert numbers(one) == ['2.0'] and '3 seeds' in one
    two = board([rows[0], again[0], rows[1], again[1], rows[2]], variants=variants)
    assert numbers(two) == ['4.5'] and '2 of 3 seeds' in two


def test_the_luckiest_seed_of_evaluation_is_not_chosen(board, tmp_path):
    (tmp_path / 'trials' / 'a').mkdir(parents=True)
    (tmp_path / 'trials' / 'a' / 'trial.json').write_text(json.dumps({'grid': ['seed=0,1']}))

    def seeded(value, seed):
        row = against(NEW, 'a', value)
        return {**row, 'protocol': {**row['protocol'], 'seed': seed}}

    assert numbers(board([seeded(4.5, 0), seeded(4.1, 1)])) == ['4.5']


@pytest.fixture(scope='module')
def seeded(make_study, tmp_path_factory):
    """The record of a study of two variants with three seeds, one of them failed."""
    return collect.read(make_study(tmp_path_factory.mktemp('seeded')))


def test_a_variant_is_one_row_with_its_mean_and_spread_over_seeds(seeded):
    tips = leaderboard.Tips()
    html = leaderboard.html(seeded, tips)
    assert html.count('<tr') == 4  # the head, two variants and held-out images
    assert '3.00<span class="kind"> ± 1.00</span>' in html  # of 2, 3 and 4
    assert '3 seeds' in html and '2 of 3 seeds' in html
    told = next(tip for tip in tips.texts if tip['title'] == 'wide · FD')
    assert told['facts']['over seeds'] == 'n = 3: 2.00 (seed 0), 3.00 (seed 1), 4.00 (seed 2)'
    assert tips.protocols[told['protocol']]['num_samples'] == '64'


def test_the_sampler_with_the_lowest_mean_is_shown(seeded):
    ways = {entry.variant: entry.way for entry in leaderboard.entries(seeded)}
    assert (ways['wide'].sampler, ways['wide'].nfe) == ('direct', 1)


def test_a_sampler_that_only_some_seeds_were_scored_with_is_not_shown(board):
    rows = [fd('a', 9.0), fd('b', 9.0), {**fd('b', 1.0), 'sampler': 'lucky'}]
    for row, name in zip(rows, 'abb', strict=True):
        row['protocol'] = {**row['protocol'], 'sampler': row['sampler']}
        row['trial'] = name
    with_variants = {'a': 'one', 'b': 'one'}
    assert 'lucky' not in board(rows, variants=with_variants)


def test_real_images_stand_beside_models_whose_protocol_names_their_noise(board):
    rows = [fd('a', 2.0), fd(HELD_OUT, 1.0)]
    rows[0]['protocol']['noise'] = 'evaluation.seed and train.seed'
    assert HELD_OUT in board(rows)


@pytest.mark.parametrize(('seconds', 'shown'), [((41.2, 30.0, 33.0), ' 30 to 41<'), ((30.0, 30.2, 29.9), None)])
def test_what_the_clock_measured_is_a_range_over_seeds(board, seconds, shown):
    """Trials of a study run beside each other, so that a seed's time is not its own."""
    rows = [fd(f'a-{seed}', 2.0 + seed) for seed in range(3)]
    cost = {'metric': 'training_seconds', 'kind': 'cost', 'sampler': None, 'nfe': None, 'n': None}
    rows += [fd(f'a-{seed}', value, **cost) for seed, value in enumerate(seconds)]
    html = board(rows, {f'a-{seed}': 'a' for seed in range(3)})
    assert shown in html if shown else ' to 30<' not in html


def test_restorations_are_shown_without_a_distance_and_for_the_sampler_that_restores_best(board, tmp_path):
    def restored(metric, value, sampler):
        row = fd('run', value, metric=metric, sampler=sampler)
        return {**row, 'protocol': {**row['protocol'], 'sampler': sampler}}

    rows = [restored(f'restored_{name}', value, sampler)
            for sampler, psnr, misfit in (('ddim', 20.5, 0.25), ('heun', 30.5, 0.75))
            for name, value in (('psnr', psnr), ('misfit', misfit))]  # fmt: skip
    words = re.sub('<[^>]*>', ' ', board(rows))
    assert all(text in words for text in ('heun · 1', '30.50', '0.750'))
    assert not any(text in words for text in ('20.50', '0.250'))
    points = figures.quality_points(collect.read(tmp_path))
    assert {point['value']: point['top'] for point in points} == {20.5: False, 30.5: True, 0.25: False, 0.75: True}

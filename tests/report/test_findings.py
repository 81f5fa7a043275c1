"""Verdicts, pairs and ranks are as sure as they say: by simulation, and on a study's folder.

A number is a normal effect of its training seed, of noise that all variants of a seed share, and of its own.
"""

import json

import numpy as np
import pytest
from scipy import stats

from genbench.errors import UserError
from genbench.report import claims, collect, comparisons, findings
from genbench.report.cells import BY_NAME, Cell, Way
from genbench.report.claims import less, more, near

TIMES = 1500


def cell(values, name, metric='fd'):
    rows = tuple({'kind': 'distance', 'value': float(value), 'values': None, 'sd': None, 'std_err': None, 'n': 100,
                  'protocol': {'seed': 0, 'noise': 'evaluation.seed and train.seed'}, 'train_seed': seed}
                 for seed, value in enumerate(values))  # fmt: skip
    return Cell(name, BY_NAME[metric], Way('direct', 1), rows)


def contests(truths, seeds=4, seed=0):
    """(cells, pairs) of variants with these true numbers, TIMES times."""
    rng = np.random.default_rng(seed)
    shared = rng.normal(size=(TIMES, 1, seeds))
    numbers = np.array(truths)[:, None] + shared + rng.normal(size=(TIMES, len(truths), seeds))
    for one in numbers:
        found = [cell(values, str(index)) for index, values in enumerate(one)]
        yield found, comparisons.pairs(found)


def test_intervals_of_pairs_hold_the_truth_and_no_equal_pair_is_told_apart_more_often_than_said():
    held, wrong = [], []
    for _, pairs in contests([0.0, 0.0, 0.0, 0.0]):
        held += [low <= 0 <= high for low, high in (pair.interval for pair in pairs)]
        wrong.append(any(pair.decided for pair in pairs))
    assert np.mean(held) == pytest.approx(0.95, abs=0.02)
    assert np.mean(wrong) <= 0.05 + 0.02 and np.mean(wrong) > 0  # of all six pairs at once


def test_intervals_of_ranks_hold_all_true_ranks_together():
    truths = [0.0, 0.0, 3.0, 8.0]  # two of a kind, which may have either place
    held, decided = [], []
    for found, pairs in contests(truths, seed=1):
        spans = {rank.cell.variant: (rank.low, rank.high) for rank in comparisons.ranks(found, pairs)}
        held.append(spans['0'][0] == 1 == spans['1'][0] and min(spans['0'][1], spans['1'][1]) >= 2
                    and spans['2'][0] <= 3 <= spans['2'][1] and spans['3'][1] == 4)  # fmt: skip
        decided.append(spans['3'] == (4, 4))
    assert np.mean(held) >= 0.95 - 0.01
    assert np.mean(decided) > 0.3  # they say something, too


def test_holms_correction_is_the_step_down_of_bonferronis():
    values = [0.01, 0.04, 0.03, 0.2]
    ordered = sorted(values)
    closed = [max(min(1, (4 - k) * ordered[k]) for k in range(ordered.index(p) + 1)) for p in values]
    assert comparisons.holm(values) == pytest.approx(closed)


@pytest.mark.parametrize(('low', 'high'), [(-np.inf, -0.3), (0.3, np.inf), (-2.0, 2.0)])
def test_p_of_a_test_is_five_percent_where_the_interval_touches(low, high):
    """The oracle is Student's interval of the paired differences."""
    values = np.array([0.2, 0.9, -0.4, 0.5])
    for shift in np.linspace(-4, 4, 60):
        found = comparisons.difference(cell(values + shift, 'a'), cell(values * 0, 'b'))
        ends = stats.ttest_1samp(values + shift, 0).confidence_interval(0.95)
        inside, outside = comparisons.p_inside(found, low, high)
        assert (inside <= 0.05) == (low <= ends.low and ends.high <= high)
        assert (outside <= 0.05) == (ends.low >= high or ends.high <= low)


def judged_often(relation, truth, seed):
    """Shares of the verdicts on one test of two variants whose true difference is `truth`."""
    found = []
    for cells, _ in contests([truth, 0.0], seed=seed):
        difference = comparisons.difference(*cells)
        one = findings._decided(findings.Finding(relation, '', '', *cells, difference), True)
        found.append(findings.FAILS if one.against <= 0.05 else one.verdict)
    return {name: found.count(name) / len(found) for name in (findings.HOLDS, findings.FAILS)}


def test_a_false_claim_holds_and_a_true_one_fails_as_seldom_as_said():
    said = judged_often(less('fd', '0', '1'), 0.0, 2)  # on the border
    assert said['holds'] == pytest.approx(0.025, abs=0.012) and said['fails'] == pytest.approx(0.025, abs=0.012)
    assert judged_often(less('fd', '0', '1'), -6.0, 3)['holds'] > 0.9
    assert judged_often(more('fd', '0', '1'), -6.0, 3)['fails'] > 0.9
    border = judged_often(near('fd', '0', '1', 5.0), 5.0, 4)
    assert border['holds'] <= 0.04 and border['fails'] <= 0.04


@pytest.fixture(scope='module')
def study(make_study, tmp_path_factory):
    """wide has FD 2, 3, 4 and bits/dim 2 over three seeds; narrow has 20, 21 over two, and a third that failed."""
    return collect.read(make_study(tmp_path_factory.mktemp('found')))


def verdicts(study, *tests):
    return [one.verdict for one in findings.judged(study, tests)]


def without_failure(study):
    trials = [trial for trial in study.trials if trial.state == 'done']
    return collect.StudyRecord(study.folder, study.description, study.rows, trials)


def test_what_is_not_finished_has_no_verdict(study):
    test = less('fd', 'wide', 'narrow')
    assert verdicts(study, test, less('fd', 'wide', 2.0)) == ['not finished', 'undecided']
    assert findings.judged(study, [test])[0].why == 'narrow-2 (failed)'


def test_a_claim_holds_fails_or_stays_open(study):
    done = without_failure(study)
    tests = [less('fd', 'wide', 'narrow'), less('fd', 'narrow', 'wide'), near('fd', 'wide', 3.0, margin=0.1),
             less('fd', 'wide', 'narrow', margin=30.0), less('kd', 'wide', 'narrow')]  # fmt: skip
    assert verdicts(done, *tests) == ['holds', 'fails', 'undecided', 'fails', 'undecided']
    assert findings.verdict(findings.judged(done, tests[:1])) == 'holds'
    assert findings.verdict(findings.judged(done, tests[:2])) == 'fails'
    assert findings.verdict(findings.judged(done, [tests[0], tests[2]])) == 'undecided'
    assert findings.verdict([]) == 'not tested'


def test_a_test_may_be_about_one_sampler(study):
    done = without_failure(study)
    (found,) = findings.judged(done, [less('fd', 'narrow', 'narrow', {'sampler': 'direct'}, {'nfe': 4})])
    assert found.verdict == 'holds' and found.difference.mean == pytest.approx(20.5 - 200)


def test_one_seed_decides_nothing_between_variants(study):
    trials = [trial for trial in study.trials if trial.seed == 0]
    alone = collect.StudyRecord(study.folder, study.description, study.rows, trials)
    (found,) = findings.judged(alone, [less('fd', 'wide', 'narrow')])
    assert found.verdict == 'undecided' and 'one training seed' in found.why
    assert all(not contest.decided for contest in findings.contests(alone))


def test_metrics_that_disagree_are_flagged():
    def contest(metric, values):
        found = [cell(np.array([0.0, 0.1, 0.2]) + value, str(i), metric) for i, value in enumerate(values)]
        pairs = comparisons.pairs(found)
        return findings.Contest(metric, pairs, comparisons.ranks(found, pairs))

    said = findings.disagreements([contest('fd', [1.0, 2.0, 3.0]), contest('kd', [3.0, 2.0, 1.0])])
    assert '0 is 1st by FD and 3rd by KD.' in said and '0 is better than 2 by FD but worse by KD; ' in ' '.join(said)
    assert findings.disagreements([contest('fd', [1.0, 2.0]), contest('precision', [0.9, 0.5])]) == []


@pytest.mark.parametrize(
    ('test', 'message'),
    [
        (less('fd', 'a', 'c'), "names the variant 'c'. Choose from: a, b."),
        (near('fd', 'a', 'b', 0.0), 'it should be above 0'),
        (less('fd', 'a', 'a'), "compares 'a' with itself"),
        (less('fd', 'a', float('nan')), 'which is not a number'),
        ('a is best', 'should be less'),
    ],
)
def test_tests_that_cannot_be_answered_are_refused(test, message):
    with pytest.raises(UserError, match=message):
        claims.check([test], ['a', 'b'])


def test_tests_survive_study_json(make_study, tmp_path):
    folder = make_study(tmp_path)
    tests = (less('fd', 'wide', 'narrow', {'nfe': 1}), near('bits_per_dim', 'wide', 2.0, 0.5))
    description = json.loads((folder / 'study.json').read_text())
    (folder / 'study.json').write_text(json.dumps({**description, 'tests': [test.values() for test in tests]}))
    assert claims.read(collect.read(folder).description['tests']) == tests

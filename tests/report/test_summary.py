"""A study ends with its table: in the order of the page, within eighty columns, with what ± and the claim are."""

import json

from genbench.report import collect, summary


def spend(folder, name, **seconds):
    path = folder / 'trials' / name / 'status.json'
    path.write_text(json.dumps({**json.loads(path.read_text()), 'seconds': seconds}))


def test_variants_stand_by_their_distance_with_bounds_below_and_what_their_trials_took(make_study, tmp_path):
    folder = make_study(tmp_path)
    for seed, seconds in enumerate((30.4, 41.0, 35.0)):
        spend(folder, f'wide-{seed}', training=seconds, evaluating=9.0)
    lines = summary.lines(collect.read(folder))
    head, wide, narrow, real, empty, claim = lines
    assert head.split() == ['model', 'FD', 'bits/dim', 'NFE', 'train', 'evaluate']
    assert wide.split()[:4] == ['wide', '3.00', '±', '1.00'] and wide.endswith('30–41 s  9 s')
    assert '≈ 2.000 ± 0.100' in wide and narrow.split()[:2] == ['narrow', '20.50']
    assert real.split() == ['held-out', 'real', 'images', '1.25'] and empty == ''
    assert claim == 'Claim: not tested.'
    assert max(map(len, lines)) <= 80


def test_one_seed_is_called_one(make_study, tmp_path):
    folder = make_study(tmp_path)
    described = json.loads((folder / 'study.json').read_text())
    (folder / 'study.json').write_text(json.dumps({**described, 'trials': ['wide-0', 'narrow-0']}))
    assert summary.ONE_SEED in summary.lines(collect.read(folder))


def test_a_study_without_numbers_has_no_table(make_study, tmp_path):
    folder = make_study(tmp_path)
    (folder / 'results.jsonl').write_text('')
    assert summary.lines(collect.read(folder)) == []

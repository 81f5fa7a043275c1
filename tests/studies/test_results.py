"""The results index: what is averaged with what, what is read, what is refused, and how a table is written."""

import csv
import io
import json
import os
import random
import shutil
import statistics
import time

import pytest
from scipy import stats

from genbench import cli
from genbench.errors import UserError
from genbench.studies import formats, tables


def row(variant='a', seed=0, value=1.0, **more):
    """A row as a study collects it."""
    steps = more.pop('steps', 10)
    protocol = {'sampler': 'ddim', 'steps': steps, 'borrowed': {}, **more.pop('protocol', {})}
    return {
        'study': 's', 'trial': f'{variant}-{seed}', 'variant': variant, 'seed': seed, 'family': 'gan', 'dataset': 'd',
        'split': 'train', 'metric': 'fd', 'value': value, 'kind': 'distance', 'n': 50, 'sampler': 'ddim', 'nfe': steps,
        'checkpoint_step': 100, 'config_hash': f'{variant}{seed}', 'protocol': protocol,
        'protocol_hash': json.dumps(protocol), 'settings': {'optimizer.learning_rate': 0.1}, **more,
    }  # fmt: skip


@pytest.fixture
def study(tmp_path):
    """`study(rows, name)` → the folder of a study that holds these rows."""

    def write(rows, name='study', tail=''):
        folder = tmp_path / name
        folder.mkdir(exist_ok=True)
        (folder / 'study.json').write_text('{}')
        text = ''.join(line if isinstance(line, str) else json.dumps(line) + '\n' for line in rows)
        (folder / 'results.jsonl').write_text(text + tail)
        return str(folder)

    return write


def cells(table):
    """{labels + column: (mean, n)}"""
    return {
        (*labels, column): (cell.mean, cell.n) for labels, found in table.lines for column, cell in found.items()
    }  # fmt: skip


def test_mean_and_deviation_are_over_seeds(study):
    values = [1.0, 2.5, 4.0]
    table = tables.build([study([row(seed=seed, value=value) for seed, value in enumerate(values)])], pivot='variant')
    (cell,) = table.lines[0][1].values()
    assert (cell.mean, cell.sd, cell.n) == (statistics.mean(values), pytest.approx(statistics.stdev(values)), 3)


def test_seeds_that_agree_have_the_deviation_of_what_they_share(study):
    """Rows of the same sampling keys, as they were written once, and likelihoods of the same test images."""
    sets = [9.5, 10.0, 10.8]
    sd = statistics.stdev(sets)
    rows = [row(seed=seed, value=10.1, values=sets, sd=sd, std_err=sd / 3**0.5) for seed in range(3)]
    more = {'metric': 'bits_per_dim', 'kind': 'exact', 'std_err': 0.25, 'n': 360}
    rows += [row(seed=seed, value=2.0 + 0.1 * seed, **more) for seed in range(3)]
    table = tables.build([study(rows)], pivot='variant:metric')
    found = table.lines[0][1] | table.lines[-1][1]
    assert found['fd'].sd == pytest.approx(sd / 3**0.5) and found['fd'].sd_seeds == pytest.approx(0)
    assert found['bits_per_dim'].sd == pytest.approx((0.1**2 + 0.25**2) ** 0.5)
    assert found['bits_per_dim'].sd_seeds == pytest.approx(0.1)
    assert len([note for note in table.notes if note.startswith('±')]) == 2


def test_the_halves_that_seeds_are_scored_against_are_in_the_deviation(study):
    """Half k moves set k of every seed; the seeds themselves agree."""
    halves = [1.0, 2.0, 4.5]
    sd = statistics.stdev(halves)
    own = {'noise': 'evaluation.seed and train.seed', 'reference': {'split': 'test', 'half_seed': 0}}
    more = {'values': halves, 'sd': sd, 'std_err': sd / 3**0.5, 'protocol': own}
    table = tables.build([study([row(seed=seed, value=2.5, **more) for seed in range(3)])], pivot='variant')
    ((_, cells),) = table.lines
    (cell,) = cells.values()
    assert cell.sd_seeds == 0 and cell.sd == pytest.approx(sd / 3**0.5)
    assert [note for note in table.notes if note.startswith('±')] == [
        '± of scores against held-out images includes the choice of halves, which all seeds share.',
        '± of scores against held-out images excludes the effect of another held-out split.',
    ]


def test_seeds_with_samples_of_their_own_have_the_deviation_between_them(study):
    own = {'noise': 'evaluation.seed and train.seed'}
    rows = [row(seed=seed, value=seed, values=[seed - 9.0, seed + 9.0], std_err=9.0, protocol=own) for seed in range(3)]
    table = tables.build([study(rows)], pivot='variant')
    cell = table.lines[0][1]['fd']
    assert cell.sd == cell.sd_seeds == 1.0 and not [note for note in table.notes if note.startswith('±')]


def test_different_protocols_are_never_averaged_and_the_table_says_so(study):
    rows = [row(seed=seed, value=steps + seed, steps=steps) for seed in (0, 1) for steps in (5, 10)]
    table = tables.build([study(rows)], pivot='variant')
    assert table.keys == ('variant', 'measured')
    assert cells(table) == {('a', 'steps=5', 'fd'): (5.5, 2), ('a', 'steps=10', 'fd'): (10.5, 2)}
    assert any('not averaged' in note for note in table.notes)


def test_variants_kinds_and_studies_are_not_averaged_either(study):
    rows = [row('a'), row('b', value=3.0), row('a', kind='estimate', value=7.0)]
    table = tables.build([study(rows), study([row('a', value=9.0)], 'other')], pivot='family')
    assert sorted(mean for mean, _ in cells(table).values()) == [1.0, 3.0, 7.0, 9.0]


def test_a_teacher_of_each_seed_makes_no_other_protocol(study):
    rows = [row(seed=seed, value=seed, protocol={'borrowed': {'teacher': str(seed)}}) for seed in range(3)]
    assert cells(tables.build([study(rows)], pivot='variant')) == {('a', 'fd'): (1.0, 3)}


def test_the_last_checkpoint_stands_apart_from_earlier_ones(study):
    rows = [row(seed=seed, value=value, checkpoint_step=step) for seed in (0, 1) for step, value in ((50, 8), (100, 2))]
    found = cells(tables.build([study(rows)], pivot='variant'))
    assert sorted(found.values()) == [(2.0, 2), (8.0, 2)]


def test_a_pivot_has_columns_in_the_order_of_their_numbers(study):
    rows = [row(steps=steps, value=float(steps)) for steps in (100, 5, 20)]
    table = tables.build([study(rows)], pivot='variant,sampler:steps')
    assert table.columns == ('5', '20', '100')
    assert cells(table)['a', 'ddim', '20'] == (20.0, 1)


def test_differences_are_paired_by_seed(study):
    draw = random.Random(0)
    ours, theirs = [[draw.gauss(mean, 1) for _ in range(5)] for mean in (3, 2)]
    rows = [row('a', seed, value) for seed, value in enumerate(ours)]
    rows += [row('base', seed, value) for seed, value in reversed(list(enumerate(theirs)))]
    table = tables.build([study([*rows, row('base', 9, 100.0)])], pivot='variant', baseline='base')
    expected = stats.ttest_rel(ours, theirs).confidence_interval(0.95)
    cell = dict(table.lines)[('a',)]['fd']
    assert (cell.low, cell.high, cell.pairs) == (pytest.approx(expected.low), pytest.approx(expected.high), 5)
    assert dict(table.lines)[('base',)]['fd'].difference is None


def test_one_pair_has_no_interval(study):
    folder = study([row('a', 0, 5.0), row('base', 0, 3.0), row('a', 1, 7.0)])
    table = tables.build([folder], pivot='variant', baseline='base')
    cell = dict(table.lines)[('a',)]['fd']
    assert (cell.difference, cell.low, cell.pairs) == (2.0, None, 1)
    assert '1 pair, no interval' in formats.text(table)


def test_differences_across_protocols_only_when_asked(study):
    rows = [row('a', 0, 5.0, protocol={'t_min': 1}), row('base', 0, 3.0, protocol={'t_min': 2})]
    strict, loose = (
        tables.build([study(rows)], pivot='variant', baseline='base', across=across) for across in (False, True)
    )
    assert dict(strict.lines)[('a',)]['fd'].difference is None
    assert dict(loose.lines)[('a',)]['fd'].difference == 2.0


def test_a_baseline_without_the_sampler_of_a_family_stands_with_its_best_and_the_table_says_which(study):
    """Of its two samplers the better by each metric; a likelihood by another method has no difference."""
    rows = [row('a', seed, 5.0 + seed, steps=3) for seed in (0, 1)]
    rows += [row('base', seed, 9.0 + 2 * seed, steps=1) for seed in (0, 1)]
    rows += [row('base', seed, 7.0 + 3 * seed, steps=2) for seed in (0, 1)]
    bits = {'metric': 'bits_per_dim', 'kind': 'estimate', 'protocol': {'method': 'ode_1'}}
    rows += [row('a', 0, 2.0, **bits), row('base', 0, 3.0, **{**bits, 'protocol': {'method': 'ode_4'}})]
    table = tables.build([study(rows)], pivot='variant:metric', baseline='base')
    (cell,) = [found['fd'] for labels, found in table.lines if labels[0] == 'a' and 'fd' in found]
    assert (cell.difference, cell.against, cell.pairs) == (-3.0, 'ddim 2', 2)
    assert ', Δ to ddim 2 −3' in formats.text(table)
    assert 'No difference: base was not measured the same way: bits_per_dim.' in table.notes


@pytest.mark.parametrize(
    ('where', 'kept'),
    [
        ('variant=a,b', 'ab'),
        ('variant!=a', 'bcd'),
        ('variant=[cd]', 'cd'),
        ('variant!=?', ''),
        ('variant="[cd]"', ''),
        ('value<=2', 'ab'),
        ('value > 1 value<4', 'bc'),
        ('settings.lr>=0.2', 'cd'),
        ('settings.lr=0.1', 'ab'),
        ('steps=7', 'd'),
        ('protocol.reference.n=3', 'c'),
        ('protocol.reference.n!=3', 'abd'),
        ('protocol.reference.n=null', 'abd'),
        ("variant='a or 1=1'", ''),
    ],
)
def test_conditions_choose_rows(study, where, kept):
    rows = [
        row('a', value=1.0, settings={'lr': 0.1}), row('b', value=2.0, settings={'lr': 0.1}),
        row('c', value=3.0, settings={'lr': 0.2}, protocol={'reference': {'n': 3}}),
        row('d', value=4.0, settings={'lr': 0.3}, steps=7),
    ]  # fmt: skip
    folder = study(rows)
    if not kept:
        with pytest.raises(UserError, match='No row matches'):
            tables.build([folder], where=[where])
        return
    assert {labels[0] for labels, _ in tables.build([folder], where=[where], pivot='variant').lines} == set(kept)


@pytest.mark.parametrize(
    ('options', 'words'),
    [
        ({'where': ['familly=gan']}, "No row has the key 'familly'. Did you mean family?"),
        ({'where': ['learning_rate=1']}, 'Did you mean settings.optimizer.learning_rate?'),
        ({'where': ['settings.optimizer.lerning_rate=1']}, 'Did you mean settings.optimizer.learning_rate?'),
        ({'where': ['family']}, "does not understand 'family'"),
        ({'where': ['nfe<few']}, "'few' is not a number"),
        ({'where': ['nfe=few']}, 'nfe is a number'),
        ({'metrics': ['df']}, "No row has the metric 'df'. Choose from: fd."),
        ({'pivot': 'varient'}, 'Did you mean variant'),
        ({'pivot': ':metric'}, 'write ROWS:COLUMNS'),
        ({'baseline': 'b'}, "--baseline 'b' has no rows in this selection. Choose from: a."),
    ],
)
def test_questions_that_are_wrong(study, options, words):
    with pytest.raises(UserError, match='.*') as error:
        tables.build([study([row()])], **options)
    assert words in str(error.value) and '\n' not in str(error.value)


def test_rows_of_a_study_are_counted_once(study, tmp_path):
    folder = tmp_path / 'study'
    rows = [row(seed=seed, value=seed) for seed in range(3)]
    study(rows)
    for one in rows:
        trial = folder / 'trials' / one['trial']
        trial.mkdir(parents=True)
        (trial / 'results.jsonl').write_text(json.dumps({k: v for k, v in one.items() if k != 'variant'}) + '\n')
    for places in ([str(folder)], [str(tmp_path)], [str(folder), str(folder / 'trials' / 'a-0'), str(tmp_path)]):
        assert cells(tables.build(places, pivot='variant')) == {('a', 'fd'): (1.0, 3)}


def test_runs_take_seed_and_settings_from_their_config(tmp_path):
    for seed in (3, 4):
        run = tmp_path / f'wide_seed{seed}'
        run.mkdir()
        (run / 'config.json').write_text(json.dumps({'train': {'seed': seed}, 'network': {'channels': 64}}))
        old = {'metric': 'fd', 'value': float(seed), 'seed': 0, 'protocol': {'seed': 0}, 'checkpoint_step': 5}
        (run / 'results.jsonl').write_text(json.dumps(old) + '\n')
    table = tables.build([str(tmp_path)], where=['settings.network.channels=64 seed>=3'], pivot='variant')
    assert cells(table) == {('wide', 'fd'): (3.5, 2)}


def test_an_older_format_and_numbers_that_are_none(study):
    old = {'trial': 'a', 'metric': 'fd', 'value': 2.0, 'protocol': {}}
    folder = study([old, '{"trial": "b", "metric": "fd", "value": NaN}\n', {**old, 'trial': 'c', 'value': None}])
    table = tables.build([folder], pivot='variant')
    assert cells(table) == {('a', 'fd'): (2.0, 1), ('b', 'fd'): (None, 0), ('c', 'fd'): (None, 0)}
    assert '2 values are not numbers and were excluded.' in table.notes


def test_a_line_without_numbers_is_left_out_beside_others(study):
    none = row(metric='bits_per_dim', value=None, kind='none', protocol={'likelihood': 'none'})
    table = tables.build([study([row(steps=5), row(steps=9), none, {**none, 'variant': 'b'}])], pivot='variant')
    assert [labels for labels, _ in table.lines] == [('a', 'steps=5'), ('a', 'steps=9'), ('b', '')]


def test_a_half_written_last_line_is_left_out_with_a_word(study, capsys):
    folder = study([row()], tail='{"metric": "fd", "val')
    assert cells(tables.build([folder], pivot='variant')) == {('a', 'fd'): (1.0, 1)}
    assert capsys.readouterr().err.splitlines() == [
        f'genbench: ignored the half-written last line of {folder}/results.jsonl.'
    ]


def test_a_broken_line_in_the_middle_is_named(study):
    folder = study([row(), '{"metric": "fd", "val\n', row(seed=1)])
    with pytest.raises(UserError, match=f'{folder}/results.jsonl:2 is not a JSON'):
        tables.build([folder])


def test_a_study_that_runs_is_said_to_lag_behind_its_trials(study, tmp_path, capsys):
    folder = study([row()])
    trial = tmp_path / 'study' / 'trials' / 'b-0'
    trial.mkdir(parents=True)
    later = time.time() + 10
    (trial / 'results.jsonl').write_text(json.dumps(row('b')) + '\n')

    os.utime(trial / 'results.jsonl', (later, later))
    tables.build([folder])
    assert '1 trials of' in capsys.readouterr().err


def test_a_copy_of_a_study_whose_times_are_new_is_not_taken_for_one_that_runs(study, tmp_path, capsys):
    folder = study([row('a', 0), row('a', 1)])
    for seed in (0, 1):
        trial = tmp_path / 'study' / 'trials' / f'a-{seed}'
        trial.mkdir(parents=True)
        (trial / 'results.jsonl').write_text(json.dumps(row('a', seed)) + '\n')
    copied = tmp_path / 'copy'
    shutil.copytree(folder, copied)
    later = time.time() + 10
    for path in copied.glob('trials/*/results.jsonl'):  # as cp -r leaves them
        os.utime(path, (later, later))
    tables.build([str(copied)])
    assert capsys.readouterr().err == ''


def test_the_spread_of_one_seed_is_that_of_its_sets_or_images(study):
    sets = [9.5, 10.0, 10.8]
    rows = [row(value=10.1, values=sets, sd=statistics.stdev(sets), std_err=statistics.stdev(sets) / 3**0.5)]
    rows += [row(metric='bits_per_dim', kind='exact', value=2.0, std_err=0.25, n=360), row(metric='kd', value=1.0)]
    table = tables.build([study(rows)], pivot='metric:variant')
    found = {labels: cells['a'] for labels, cells in table.lines}
    assert found[('fd',)].sd == pytest.approx(statistics.stdev(sets)) and found[('fd',)].sd_seeds is None
    assert found[('bits_per_dim',)].sd == 0.25 and found[('kd',)].sd is None
    text = formats.text(table)
    assert '10.10 ± 0.66' in text and 'n = 1 seed each. ± is the standard deviation over sets of samples' in text


@pytest.fixture
def three(study):
    """A table of two variants with three seeds."""
    rows = [row('a_1', seed, 2.0 + 0.1 * seed) for seed in range(3)]
    rows += [row('b|%', seed, 3.0 + 0.2 * seed) for seed in range(3)]
    return tables.build([study(rows)], pivot='variant', baseline='a_1')


def test_csv_keeps_every_digit(three):
    first, second = csv.DictReader(io.StringIO(formats.to_csv(three)))
    assert float(second['fd mean']) == dict(three.lines)[('b|%',)]['fd'].mean
    assert (first['variant'], first['fd n'], first['fd difference']) == ('a_1', '3', '')
    assert float(second['fd low']) == dict(three.lines)[('b|%',)]['fd'].low


def test_markdown_has_one_cell_a_column(three):
    header, rule, *body = formats.markdown(three).split('\n\n')[0].splitlines()
    assert header == '| variant | fd |' and rule == '|---|---:|'
    assert body[0] == '| a_1 | 2.10 ± 0.10 |'
    assert body[1].startswith(r'| b\|% | 3.20 ± 0.20, Δ +1.10 [')


def test_latex_is_escaped_and_states_n(three):
    lines = formats.latex(three).splitlines()
    assert '% Mean ± standard deviation over n = 3 seeds.' in lines
    body = lines[lines.index(r'\midrule') + 1 : lines.index(r'\bottomrule')]
    assert body[0] == r'a\_1 & 2.10 $\pm$ 0.10 \\'
    assert body[1].startswith(r'b$|$\% & 3.20 $\pm$ 0.20, $\Delta$ +1.10 [')


def test_a_line_of_latex_does_not_begin_with_an_option_of_the_one_before(study):
    table = tables.build([study([row('[cd]'), row('*'), row('a~b^c')])], pivot='variant')
    lines = formats.latex(table).splitlines()
    body = lines[lines.index(r'\midrule') + 1 : lines.index(r'\bottomrule')]
    assert [line.partition(' & ')[0] for line in body] == ['{}[cd]', '{}*', r'a\textasciitilde{}b\textasciicircum{}c']
    assert lines[0] == r'% \usepackage{booktabs}'


@pytest.mark.parametrize(
    ('mean', 'spread', 'shown'),
    [
        (2.05432, 0.0143, '2.054 ± 0.014'),
        (199.19, 31.0, '199 ± 31'),
        (2.05432, None, '2.054'),
        (267361.0, None, '267,361'),
        (2.486e12, 1e9, '2.486e+12 ± 1.0e+09'),
        (1.0, 0.0, '1 ± 0'),
    ],
)
def test_numbers_have_as_many_places_as_their_spread_tells(mean, spread, shown):
    assert formats.number(mean, spread) == shown


def test_the_verb_writes_what_the_suffix_says(study, tmp_path, capsys):
    folder = study([row(seed=seed, value=seed) for seed in range(3)])
    assert cli.main(['results', folder, '--pivot', 'variant:metric', '--out', f'{tmp_path}/t.tex']) == 0
    assert r'\toprule' in (tmp_path / 't.tex').read_text()
    assert cli.main(['results', folder, '--where', 'nfe<=50', '--where', 'family=gan']) == 0
    assert 'n = 3 seeds' in capsys.readouterr().out
    assert cli.main(['results', f'{tmp_path}/nowhere']) == 2
    assert 'There is no folder' in capsys.readouterr().err
    (tmp_path / 'empty').mkdir()
    assert cli.main(['results', f'{tmp_path}/empty']) == 2
    assert 'No results.jsonl in or below' in capsys.readouterr().err


def test_a_hundred_thousand_rows_take_a_second_of_two_cores(study):
    """Under one second on two free cores; the bound is on processor time, which other jobs leave alone."""
    for part in range(10):
        lines = [json.dumps(row(f'v{i % 100}', i // 500, float(i), steps=1 + i % 5)) + '\n' for i in range(10_000)]
        folder = study(lines, f'study{part}')
    began = time.process_time()
    table = tables.build([folder.removesuffix('study9')], where=['nfe<=3 family=gan'], pivot='study,variant:steps')
    assert time.process_time() - began < 3
    assert sum(cell.n for _, line in table.lines for cell in line.values()) > 10_000

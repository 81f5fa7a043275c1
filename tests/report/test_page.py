"""The page is one file that needs no network, shows every row, and takes text as text."""

import dataclasses
import html.parser
import itertools
import json
import re

import pytest

from genbench.errors import UserError
from genbench.evaluation.results import KEYS
from genbench.report import page
from genbench.report.claims import less

NASTY = '</script><script>alert("x")</script>&amp;'
SAMPLING = {'sampler': 'direct', 'steps': 1, 'nfe': 1, 'guidance': 0.0, 'reference': NASTY}


class Reader(html.parser.HTMLParser):
    """Elements with their attributes, the texts of scripts, and the text outside them."""

    def __init__(self, text):
        super().__init__()
        self.elements, self.scripts, self.styles, self.text = [], [], [], ''
        self._inside = ''
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attributes):
        self.elements.append((tag, dict(attributes)))
        self._inside = tag if tag in ('script', 'style') else ''
        if tag == 'script':
            self.scripts.append('')

    def handle_endtag(self, tag):
        self._inside = ''

    def handle_data(self, data):
        if self._inside == 'script':
            self.scripts[-1] += data
        elif self._inside == 'style':
            self.styles.append(data)
        else:
            self.text += data


def row(trial, metric, value, **more):
    return {
        'trial': trial,
        **dict.fromkeys(KEYS),
        'metric': metric,
        'value': value,
        'n': 64,
        'protocol': SAMPLING,
        **more,
    }


def trial_files(folder, name, state, reason=''):
    path = folder / 'trials' / name
    path.mkdir(parents=True)
    (path / 'status.json').write_text(json.dumps({'state': state, 'reason': reason}))
    losses = [{'step': step, 'wall_time': step, 'net/loss': 1 / step} for step in (1, 2)]
    (path / 'metrics.jsonl').write_text(''.join(json.dumps(loss) + '\n' for loss in losses))


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    """A study's folder made by hand: two trials done, one failed, one that has not begun."""
    folder = tmp_path_factory.mktemp('study')
    trial_files(folder, 'near', 'done')
    trial_files(folder, 'far', 'done')
    trial_files(folder, 'broken', 'failed', f'It says {NASTY}.')
    drawn = {'sampler': 'direct', 'nfe': 1, 'kind': 'distance', 'features': NASTY}
    rows = [
        row('held-out real images', 'fd', 1.25, **{**drawn, 'sampler': None, 'nfe': None}),
        row('far', 'fd', 20.5, **drawn),
        row('near', 'fd', 2.75, **drawn),
        row('near', 'fd', 9.75, **{**drawn, 'sampler': 'other', 'nfe': 4}),
        row('near', 'bits_per_dim', 3.125, std_err=0.01, kind='lower_bound', protocol={'method': NASTY}),
        row('far', 'bits_per_dim', None, kind='none', protocol={'likelihood': 'none'}),
    ]
    (folder / 'results.jsonl').write_text(''.join(json.dumps(row) + '\n' for row in rows))
    description = {'title': f'A {NASTY}', 'claim': NASTY, 'study': 's.py', 'command': NASTY, 'commit': ''}
    trials = ['near', 'far', 'broken', 'late']
    (folder / 'study.json').write_text(json.dumps({**description, 'trials': trials}))
    return folder


@pytest.fixture(scope='module')
def read(folder):
    path = page.write(folder)
    assert path == folder / 'report.html'
    return Reader(path.read_text())


def test_nothing_is_loaded_from_elsewhere(read):
    links = [value for _, attributes in read.elements for name, value in attributes.items() if name in ('src', 'href')]
    assert [link for link in links if not link.startswith(('data:', '#'))] == []
    assert not any(tag in ('link', 'iframe', 'object') for tag, _ in read.elements)
    assert not any(re.search(r'@import|url\((?!["\']?data:)', style) for style in read.styles)


def test_the_leaderboard_has_a_row_for_each_trial_with_numbers_best_first(read):
    board = read.text[: read.text.index('How to read it')]
    names = ('held-out real images', 'neardirect · 1', 'fardirect · 1')
    shown = [board.index(words) for words in names]
    assert shown == sorted(shown)
    for number in ('1.25', '2.75', '20.50', '≤ 3.125 ± 0.010lower bound'):
        assert number in board
    assert '9.75' not in board  # near has a better sampler


def test_trials_that_failed_or_wait_are_named(read):
    assert f'broken failed: It says {NASTY}.' in read.text
    assert 'Not finished: late (queued' in read.text


def test_a_family_without_likelihood_is_named(read):
    assert 'Models without a likelihood: far.' in read.text


def test_what_has_a_label_for_screen_readers_has_a_role_that_may_have_one(read):
    """ARIA 1.2 allows no name on a generic element such as a div without a role."""
    labelled = [(tag, attributes) for tag, attributes in read.elements if 'aria-label' in attributes]
    assert any(attributes.get('class') == 'chart' for _, attributes in labelled)
    assert [tag for tag, attributes in labelled if tag in ('div', 'span', 'p') and 'role' not in attributes] == []


def test_text_is_text(read):
    assert f'A {NASTY}' in read.text
    assert not any(script.startswith('alert') for script in read.scripts)


def test_figures_hold_their_data(read):
    charts = [attributes['data-spec'] for _, attributes in read.elements if 'data-spec' in attributes]
    given = {attributes['id']: json.loads(text) for (tag, attributes), text in blocks(read)}
    assert sorted(charts) == sorted(name for name in given if name.startswith('spec-'))
    assert len(charts) == 4  # likelihoods, and the losses of three trials
    assert {2.75, 9.75, 20.5, 1.25} <= set(numbers(given['data-quality']))
    assert 3.125 in set(numbers(given))


def blocks(read):
    """(element, text) of the scripts that hold data."""
    elements = [element for element in read.elements if element[0] == 'script']
    pairs = zip(elements, read.scripts, strict=True)
    return [(element, text) for element, text in pairs if element[1].get('type') == 'application/json']


def numbers(values):
    """Every number in nested lists and dicts."""
    if isinstance(values, dict):
        values = list(values.values())
    if isinstance(values, list):
        return [number for value in values for number in numbers(value)]
    return [values] if isinstance(values, float) else []


def test_the_page_is_the_same_when_written_again(folder, read):
    before = (folder / 'report.html').read_bytes()
    assert page.write(folder).read_bytes() == before


def test_a_folder_without_a_study_is_said(tmp_path):
    with pytest.raises(UserError, match='is neither a study'):
        page.write(tmp_path)


def test_a_study_with_seeds_has_every_section(make_study, tmp_path):
    read = Reader(page.write(make_study(tmp_path)).read_text())
    links = [attributes['href'] for tag, attributes in read.elements if tag == 'a']
    sections = [attributes['id'] for tag, attributes in read.elements if tag == 'section' and 'id' in attributes]
    assert links[: len(sections) + 1] == ['#main', *(f'#{name}' for name in sections)]
    assert {link.removeprefix('#') for link in links} <= {'main', *sections}
    levels = [int(tag[1]) for tag, _ in read.elements if re.fullmatch('h[1-6]', tag)]
    assert levels[0] == 1 and all(b <= a + 1 for a, b in itertools.pairwise(levels))
    names = [a['aria-label'] for tag, a in read.elements if a.get('role') == 'region' and 'hidden' not in a]
    assert len(set(names)) == len(names) and not {page.TITLES[one][0] for one in sections} & set(names)
    others = ('progress', 'density', 'paths')  # nothing was scored while it trained, and images are not points
    assert sections == [name for name in page.TITLES if name not in others]
    assert all(a.get('aria-label') for _, a in read.elements if a.get('role') == 'img')
    assert 'no more numbers' in read.text  # the last lines of the trial that failed
    assert '75%' in read.text  # goodput


def test_a_study_may_ask_for_some_figures_only(make_study, tmp_path):
    folder = make_study(tmp_path)
    description = json.loads((folder / 'study.json').read_text())
    (folder / 'study.json').write_text(json.dumps({**description, 'figures': ['leaderboard', 'nfe']}))
    read = Reader(page.write(folder).read_text())
    sections = [attributes['id'] for tag, attributes in read.elements if tag == 'section' and 'id' in attributes]
    assert sections == ['findings', 'leaderboard', 'quality', 'provenance']
    assert [attributes['data-cost'] for _, attributes in read.elements if 'data-cost' in attributes] == ['dots', 'nfe']


def test_a_claim_is_shown_with_its_verdict_and_its_tests_lead_to_the_figures(make_study, tmp_path):
    folder = make_study(tmp_path)
    description = json.loads((folder / 'study.json').read_text())
    stated = less('fd', 'wide', 'narrow'), less('fd', 'wide', 'wide', {'nfe': 1}, {'nfe': 4})
    tests = [test.values() for test in stated]
    (folder / 'study.json').write_text(json.dumps({**description, 'tests': tests}))
    read = Reader(page.write(folder).read_text())
    assert 'Claim Wide is nearer. … not finished' in read.text and 'narrow-2 (failed)' in read.text
    assert 'FD of wide is lower than that of wide' in read.text and '✓ holds' in read.text
    assert [a['href'] for tag, a in read.elements if tag == 'a' and 'data-metric' in a] == ['#quality', '#quality']


def test_one_run_has_a_page(make_study, tmp_path):
    run = make_study(tmp_path / 'study') / 'trials' / 'wide-1'
    rows = [json.loads(line) for line in (tmp_path / 'study' / 'results.jsonl').read_text().splitlines()]
    own = [{key: value for key, value in row.items() if key != 'trial'} for row in rows if row['trial'] == 'wide-1']
    (run / 'results.jsonl').write_text(''.join(json.dumps(row) + '\n' for row in own))
    path = page.write(run)
    read = Reader(path.read_text())
    assert (
        path == run / 'report.html' and 'One training seed per model.' in read.text and 'wide-1direct · 1' in read.text
    )


def test_several_studies_have_one_page(make_study, tmp_path):
    one, other = (make_study(tmp_path / name) for name in ('one', 'other'))
    for folder in (one, other):
        description = json.loads((folder / 'study.json').read_text())
        tests = [dataclasses.asdict(less('fd', 'wide', 'narrow'))]
        (folder / 'study.json').write_text(json.dumps({**description, 'tests': tests}))
    path = page.write(one, other, out=tmp_path / 'both.html')
    read = Reader(path.read_text())
    regions = [found['aria-label'] for _, found in read.elements if found.get('role') == 'region']
    assert {'Tests of claim 1', 'Tests of claim 2'} <= set(regions) and len(set(regions)) == len(regions)
    board = read.text[: read.text.index('How to read it')]
    assert all(f'{folder}/{name}' in board for folder in ('one', 'other') for name in ('wide', 'narrow'))
    assert page.write(one, other) == tmp_path / 'report.html'
    with pytest.raises(UserError, match='given twice'):
        page.write(one, one)


def test_rows_and_states_of_older_formats_and_half_written_files_are_read_as_far_as_they_go(make_study, tmp_path):
    folder = make_study(tmp_path)
    with (folder / 'results.jsonl').open('a') as file:
        file.write('{"trial": "wide-0", "metric": "fd", "value": 1.0}\n[1]\n{"metric": "fd", "val')
    (folder / 'trials' / 'wide-1' / 'status.json').write_text('{"state": "training", "reason": ""}')
    (folder / 'trials' / 'wide-2' / 'summary.json').write_text('{"st')
    assert 'wide-1 (running' in Reader(page.write(folder).read_text()).text


def test_the_page_without_its_pictures_is_small(make_study, tmp_path):
    text = page.write(make_study(tmp_path)).read_text()
    assert len(re.sub(r'data:image/png;base64,[^"]*', '', text).encode()) < 2e6

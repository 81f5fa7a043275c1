"""How far an evaluation is: every part is counted, whatever is asked for, and the rest is estimated."""

import shutil

import pytest

from genbench.evaluation import harness, parts

FEW = ('evaluation.features.name=pixels', 'evaluation.num_samples=32', 'evaluation.iwae_draws=2')


@pytest.fixture
def run(trained, tmp_path):
    """A copy of a tiny run with two likelihoods."""
    return shutil.copytree(trained('vae'), tmp_path / 'run')


@pytest.mark.parametrize(
    ('metrics', 'cells', 'total'),
    [
        ('fd', (), 1),
        ('fd,speed', ('average=ema,current', 'sampler=mean,direct'), 4),
        ('fd,likelihood', ('average=ema,current', 'sampler=mean'), 2 * (1 + 2)),
    ],
)
def test_every_part_is_told_before_it_begins(run, metrics, cells, total):
    told = []
    overrides = (*FEW, f'evaluation.metrics={metrics}')
    harness.evaluate(run, overrides, cells=cells, quiet=True, report=lambda *far: told.append(far))
    assert told == [(done, total) for done in range(total)]


def test_the_rest_is_estimated_from_the_parts_that_are_done(monkeypatch, capsys):
    now = iter([0.0, 10.0, 30.0])
    monkeypatch.setattr(parts.time, 'monotonic', lambda: next(now))
    counted = parts.Parts(3)
    for title in ('a', 'b', 'c'):
        with counted.part(title):
            pass
    assert capsys.readouterr().err.splitlines() == [
        'evaluate, part 1 of 3: a',
        'evaluate, part 2 of 3: b (about 20 s left in total)',
        'evaluate, part 3 of 3: c (about 15 s left in total)',
    ]


def test_likelihoods_are_those_that_are_asked_for(run):
    overrides = (*FEW, 'evaluation.metrics=likelihood', 'evaluation.likelihoods=elbo,ode_1')
    rows = harness.evaluate(run, overrides, quiet=True)
    assert [row['protocol'].get('method') for row in rows if row['metric'] == 'bits_per_dim'] == ['elbo']

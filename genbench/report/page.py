"""report.html: leaderboard, figures, samples and provenance of a study in one file that opens from disk."""

import base64
import functools
import importlib.resources
import json
import pathlib
from collections.abc import Sequence
from html import escape
from typing import Any

from genbench import config as configs
from genbench.errors import explained_disk_errors
from genbench.report import collect, figures, leaderboard
from genbench.report.collect import StudyRecord, TrialRecord
from genbench.training.files import write_atomically


@explained_disk_errors()
def write(folder: str | pathlib.Path, *, across: bool = False) -> pathlib.Path:
    """Write the page of a study's folder and return its path.

    Args:
      across: let the leaderboard rank numbers of different protocols, and say so.

    Raises:
      UserError: the folder holds no study.
    """
    study = collect.read(folder)
    path = study.folder / 'report.html'
    write_atomically(path, html(study, across=across))
    return path


def html(study: StudyRecord, *, across: bool = False) -> str:
    """The whole page."""
    specs: list[dict[str, Any]] = []
    body = ''.join(part for part in (
        _header(study), _leaderboard(study, across), _distance(study, specs), _bits(study, specs), _grids(study),
        _films(study), _losses(study, specs), _provenance(study),
    ))  # fmt: skip
    scripts = ''.join(
        f'<script type="application/json" id="spec-{index}">{_script(spec)}</script>'
        for index, spec in enumerate(specs)
    )
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f'<title>{escape(study.description["title"])}</title><style>{_asset("page.css")}</style></head>'
        f'<body><main>{body}</main>{scripts}<script>{_vega()}</script><script>{_asset("page.js")}</script></body></html>\n'
    )


def _asset(name: str) -> str:
    return importlib.resources.files('genbench.report').joinpath(name).read_text()


@functools.cache
def _vega() -> str:
    """Vega, Vega-Lite and Vega-Embed, to be used without a network."""
    import vl_convert

    code = vl_convert.javascript_bundle()  # type: ignore[call-arg]  # its stub lacks the defaults
    return code.replace('</script', '<\\/script')


def _script(spec: dict[str, Any]) -> str:
    return json.dumps(spec).replace('</', '<\\/')


def _chart(specs: list[dict[str, Any]], spec: dict[str, Any]) -> str:
    specs.append(spec)
    return f'<div class="chart" data-spec="spec-{len(specs) - 1}"></div>'


def _header(study: StudyRecord) -> str:
    failed = [trial for trial in study.trials if trial.status['state'] == 'failed']
    unfinished = [trial for trial in study.trials if trial.status['state'] not in ('done', 'failed')]
    notes = ''.join(
        f'<p class="failed"><b>{escape(trial.name)} failed:</b> {escape(trial.status["reason"])}</p>'
        for trial in failed
    )
    if unfinished:
        names = ', '.join(f'{trial.name} ({trial.status["state"]})' for trial in unfinished)
        notes += f'<p class="failed"><b>Not finished:</b> {escape(names)}</p>'
    description = study.description
    return (
        f'<h1>{escape(description["title"])}</h1><p>{escape(description["claim"])}</p>{notes}'
        f'<p class="quiet"><code>{escape(description["command"])}</code></p>'
    )


def _leaderboard(study: StudyRecord, across: bool) -> str:
    features = sorted({row['features'] for row in study.rows if row['features']})
    return (
        '<h2>Leaderboard</h2>'
        + leaderboard.html(study, across=across)
        + '<p class="quiet">One row a model, at its sampler with the '
        'lowest FD. FD and KD are Fréchet and kernel distances to the whole train split in the features of '
        f'{escape(", ".join(features))}, a classifier trained by genbench: they are no FID and no KID. The floor row '
        'scores the held-out split as if it were samples; it has other writers and fewer images than the samples, so '
        'a model close to the train set can come out below it. Likelihoods of different kinds (exact, ≤ bound, ≈ '
        'estimate) are not ranked as equals. ± is the standard deviation over disjoint sets of samples, for '
        'likelihoods the standard error over images; the best number of a column is bold, and those within twice the '
        'standard error of their difference from it. NFE: network evaluations per image. Hover a cell for its '
        'protocol; press a heading to sort.</p>'
    )


def _distance(study: StudyRecord, specs: list[dict[str, Any]]) -> str:
    spec = figures.distance_against_evaluations(study)
    if spec is None:
        return ''
    return '<h2>Distance against network evaluations</h2>' + _chart(specs, spec)


def _bits(study: StudyRecord, specs: list[dict[str, Any]]) -> str:
    spec = figures.bits_per_dim(study)
    if spec is None:
        return ''
    silent = sorted({row['trial'] for row in study.rows if row['metric'] == 'bits_per_dim' and row['kind'] == 'none'})
    note = f'<p class="quiet">Without a likelihood: {escape(", ".join(silent))}.</p>' if silent else ''
    return '<h2>Bits per dimension</h2>' + _chart(specs, spec) + note


def _grids(study: StudyRecord) -> str:
    panels = [_panel(title, path) for trial in study.trials for title, path in _best_grid(study, trial)]
    if not panels:
        return ''
    return (
        '<h2>Samples</h2><p class="quiet">The first hundred of each model, not chosen: image i of every grid is drawn '
        f'from the same seed.</p><div class="panels">{"".join(panels)}</div>'
    )


def _best_grid(study: StudyRecord, trial: TrialRecord) -> list[tuple[str, pathlib.Path]]:
    """Title and picture of the sampler that the leaderboard shows; none where nothing was sampled."""
    rows = [row for row in study.distances() if row['trial'] == trial.name]
    if not rows:
        return []
    protocol = min(rows, key=lambda row: row['value'])['protocol']
    guided = f'_g{protocol["guidance"]}' if protocol['guidance'] else ''
    path = trial.folder.samples / f'{protocol["sampler"]}_{protocol["steps"]}{guided}.png'
    steps = f', {protocol["steps"]} steps' if protocol['steps'] > 1 else ''
    return [(f'{trial.name} · {protocol["sampler"]}{steps}', path)] if path.is_file() else []


def _films(study: StudyRecord) -> str:
    panels = [
        _panel(trial.name, trial.folder.samples / 'film.png')
        for trial in study.trials
        if (trial.folder.samples / 'film.png').is_file()
    ]
    if not panels:
        return ''
    return (
        '<h2>From noise to image</h2><p class="quiet">Eight samples of each multi-step model; time runs from left to '
        f'right.</p><div class="panels films">{"".join(panels)}</div>'
    )


def _losses(study: StudyRecord, specs: list[dict[str, Any]]) -> str:
    panels = [
        f'<figure class="panel"><h3>{escape(name)}</h3>{_chart(specs, spec)}</figure>'
        for name, spec in figures.loss_curves(study)
    ]
    return f'<h2>Training losses</h2><div class="panels">{"".join(panels)}</div>' if panels else ''


def _panel(title: str, image: pathlib.Path) -> str:
    data = base64.b64encode(image.read_bytes()).decode()
    alt = escape(f'Picture of {title}', quote=True)
    picture = f'<img alt="{alt}" src="data:image/png;base64,{data}">'
    return f'<figure class="panel"><h3>{escape(title)}</h3>{picture}</figure>'


def _provenance(study: StudyRecord) -> str:
    manifests = [trial.manifest for trial in study.trials if trial.manifest]
    if not manifests:
        return ''
    versions = ', '.join(f'{name} {version}' for name, version in manifests[0]['versions'].items())
    devices = ', '.join(sorted({device for manifest in manifests for device in manifest['devices']}))
    facts = [
        ('commit', study.description['commit'] or 'not in a git checkout'), ('versions', versions),
        ('devices of a trial', devices),
    ]  # fmt: skip
    listed = ''.join(f'<li><b>{escape(name)}</b> {escape(value)}</li>' for name, value in facts)
    details = ''.join(_trial_details(trial) for trial in study.trials if trial.config)
    return f'<h2>Provenance</h2><ul class="quiet">{listed}</ul>{details}'


def _trial_details(trial: TrialRecord) -> str:
    named = {section: {'name': trial.config[section]['name']} for section in ('family', 'network')}
    changed = configs.difference(configs.resolve(named), configs.plain(trial.config))
    lines = [f'family.name: {named["family"]["name"]}']
    lines += [f'{key}: {new!r} (default {old!r})' for key, (old, new) in changed.items()]
    summary = json.dumps({key: trial.summary.get(key) for key in _SUMMARY_KEYS}, indent=2) if trial.summary else ''
    title = f'{trial.name}: config {trial.summary.get("config_hash", "")}, {trial.status["state"]}'
    return f'<details><summary>{escape(title)}</summary>{_pre(lines)}{_pre([summary])}</details>'


_SUMMARY_KEYS = (
    'step', 'images_seen', 'training_seconds', 'training_flops', 'skipped_updates', 'state_sha256', 'devices',
)  # fmt: skip


def _pre(lines: Sequence[str]) -> str:
    return f'<pre>{escape(chr(10).join(lines))}</pre>'

"""Where the numbers come from: commit, command, versions, devices, and each trial's config, effort and goodput."""

from html import escape
from typing import Any

from genbench import config as configs
from genbench.errors import UserError
from genbench.report import ablation
from genbench.report.collect import StudyRecord, TrialRecord, Variant
from genbench.report.marks import listing, swatch

HEAD = ('trial', 'state', 'seed', 'steps', 'images', 'FLOPs', 'training s', 's/step', 'goodput', 'MFU', 'skipped',
        'starts', 'device', 'config', 'state sha256')  # fmt: skip


def html(study: StudyRecord) -> str:
    facts = ''.join(f'<dt>{escape(name)}</dt><dd>{escape(text)}</dd>' for name, text in _facts(study).items() if text)
    head = ''.join(f'<th scope="col">{escape(name)}</th>' for name in HEAD)
    rows = ''.join(_row(study, trial) for trial in study.trials)
    return (
        f'<dl class="facts">{facts}</dl>'
        '<div class="scroll" tabindex="0" role="region" aria-label="Trials"><table class="trials">'
        f'<thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table></div>'
        '<p class="quiet">Goodput is the fraction of time spent on training steps whose results were kept.</p>'
        + ''.join(_settings(study, variant) for variant in study.variants if variant.shown.config)
    )


def _facts(study: StudyRecord) -> dict[str, str]:
    description = study.description
    manifests = [trial.manifest for trial in study.trials if trial.manifest]
    versions = manifests[0].get('versions', {}) if manifests else {}
    devices = sorted({device for manifest in manifests for device in manifest.get('devices', ())})
    commits = sorted({manifest.get('commit', '') for manifest in manifests} - {'', description.get('commit')})
    notes = sorted({f'{name} {value}' for one in manifests for name, value in one.get('notes', {}).items()})
    return {
        'command': description.get('command', ''),
        'commit': (description.get('commit') or 'not in a git checkout')
        + (f'; trials at {", ".join(commits)}' if commits else ''),
        'budget': _budget(description),
        'objectives': '; '.join(notes),
        'devices of a trial': ', '.join(devices),
        'versions': ', '.join(f'{name} {version}' for name, version in versions.items()),
    }


def _budget(description: dict[str, Any]) -> str:
    """What the trials were matched in, according to the study."""
    budget = description.get('budget')
    if not budget:
        return ''
    items = budget.items() if isinstance(budget, dict) else [('', budget)]
    return ', '.join(f'{key.replace("_", " ")} {_plain(value)}'.strip() for key, value in items if value is not None)


def _plain(value: Any) -> str:
    return f'{value:,.4g}' if isinstance(value, float) else str(value)


def _row(study: StudyRecord, trial: TrialRecord) -> str:
    told = trial.summary
    variant = next(one for one in study.variants if one.name == trial.variant)
    seconds = told.get('step_seconds')
    cells = (
        trial.state, _number(trial.seed), _number(told.get('step')), _number(told.get('images_seen')),
        _number(told.get('training_flops'), '{:.2e}'),
        _number(told.get('training_seconds'), '{:,.1f}'), _number(seconds, '{:.3g}'),
        _number(told.get('goodput'), '{:.0%}'),
        _number(told.get('mfu'), '{:.1%}'), _number(told.get('skipped_updates')), _number(told.get('starts')),
        ', '.join(sorted(set(trial.manifest.get('devices', ())))) or '–', told.get('config_hash') or '–',
        (told.get('state_sha256') or '–')[:12],
    )  # fmt: skip
    body = ''.join(f'<td>{escape(str(cell))}</td>' for cell in cells)
    return f'<tr><th scope="row">{swatch(variant.index)}{escape(trial.name)}</th>{body}</tr>'


def _number(value: Any, form: str = '{:,}') -> str:
    return '–' if value is None else form.format(value)


def _settings(study: StudyRecord, variant: Variant) -> str:
    """The config of a variant: how it differs from the defaults and from the baseline."""
    lines = _against_defaults(variant.shown.config)
    base = next((one for one in study.variants if one.name == study.baseline), None)
    if base is not None and base is not variant and base.shown.config:
        changed = ablation.settings_against(base, variant)
        lines += ['', f'against {base.name}:', *(f'{key}: {value!r}' for key, value in changed.items())]
    shown = listing('\n'.join(lines), f'Config of {variant.name}')
    return f'<details><summary>{swatch(variant.index)}{escape(variant.name)}: config</summary>{shown}</details>'


def _against_defaults(config: dict[str, Any]) -> list[str]:
    try:
        named = {section: {'name': config[section]['name']} for section in ('family', 'network')}
        changed = configs.difference(configs.resolve(named), configs.plain(config))
    except (KeyError, UserError) as error:  # written by another version of genbench
        return [f'cannot be compared with the defaults of this version: {error}']
    lines = [f'family.name: {named["family"]["name"]}']
    return lines + [f'{key}: {new!r} (default {old!r})' for key, (old, new) in changed.items()]

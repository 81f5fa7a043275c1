"""The denoising explorer and pictures of how models sample, from the files in each trial's exploration/."""

import base64
import pathlib
import re
from html import escape
from typing import Any

from genbench.evaluation.protocol import told_options
from genbench.report import leaderboard
from genbench.report.cells import Way
from genbench.report.collect import StudyRecord, TrialRecord, Variant
from genbench.report.marks import swatch

STRIPS = {
    'input': 'Noisy input',
    'state': 'State <i>x<sub>t</sub></i>',
    'clean': 'Predicted clean image',
    'target': 'Clean target',
}
_TAG = re.compile('<[^>]+>')


def data_uri(path: pathlib.Path) -> str:
    """Embed a PNG as text that needs no other file."""
    return f'data:image/png;base64,{base64.b64encode(path.read_bytes()).decode()}'


def payload(study: StudyRecord) -> list[dict[str, Any]]:
    """One entry for each variant whose sampler has steps: its schedule, and every sprite that the slider shows."""
    return [entry for variant in study.variants if (entry := _entry(variant)) is not None]


def _entry(variant: Variant) -> dict[str, Any] | None:
    trial = variant.shown
    found, folder = trial.exploration, _folder(trial)
    denoising = found.get('denoising')
    if not denoising:
        return None
    drawn = {**found, **denoising}  # before format 4, one sampler made all pictures
    names = ['generation', *(f'reconstruction_{place}' for place in denoising['reconstructions'])]
    files = [f'{name}_{part}' for name in names for part in ('states', 'predictions')] + ['targets']
    if not all((folder / f'{name}.png').is_file() for name in files):
        return None
    return {
        'noise': [found.get('seed'), trial.seed, *found['shape']],
        'name': variant.name, 'shape': found['shape'], 'images': found['images'], 'steps': found['steps'],
        **denoising, 'sampler': ' '.join(filter(None, (drawn['sampler'], told_options(drawn)))),
        'sprites': {name: data_uri(folder / f'{name}.png') for name in files},
    }  # fmt: skip


def html(entries: list[dict[str, Any]]) -> str:
    """The controls, and the elements that the script fills."""
    options = ''.join(
        f'<option value="{index}">{escape(entry["name"])}</option>' for index, entry in enumerate(entries)
    )
    together = [entry for entry in entries if entry['noise'] == entries[0]['noise']]
    if len(together) > 1:
        options += '<option value="all">all, from the same noise</option>'
    strips = ''.join(
        f'<figure id="strip-{name}"><figcaption>{title}</figcaption>'
        # The script replaces the label when it draws, which is when the strips come into view.
        f'<canvas role="img" aria-label="{_TAG.sub("", title)}"></canvas></figure>'
        for name, title in STRIPS.items()
    )
    return f"""
<div class="explorer" id="explorer">
  <div class="controls">
    <label>Model <select id="explore-model">{options}</select></label>
    <label>Start from <select id="explore-start"></select></label>
  </div>
  <div class="slide">
    <button type="button" id="explore-play" aria-label="Play the steps">▶</button>
    <input type="range" id="explore-step" min="0" max="1" value="0" aria-label="Step from noise to image">
    <output id="explore-said" for="explore-step"></output>
  </div>
  <div class="stage">
    <div class="strips">
{strips}
    </div>
    <div class="strips" id="explore-all" hidden></div>
    <figure class="schedule"><figcaption><span id="explore-schedule"></span></figcaption>
      <div id="explore-chart"></div></figure>
  </div>
</div>"""


def interpolations(study: StudyRecord) -> str:
    """A panel for each variant whose samples are a function of a latent. The others are listed by name."""
    panels = _panels(study, 'interpolation', 'Interpolations between random latents of')
    explored = [variant for variant in study.variants if variant.shown.exploration]
    without = [variant.name for variant in explored if not variant.shown.exploration.get('interpolation')]
    note = f'<p class="quiet">No latent space: {escape(", ".join(without))}.</p>' if without else ''
    return f'<div class="panels">{panels}</div>{note}' if panels else ''


def neighbours(study: StudyRecord) -> str:
    """A panel for each variant: samples in the first row, their nearest train images below."""
    panels = _panels(study, 'neighbours', 'Samples above their nearest training images, of')
    return f'<div class="panels">{panels}</div>' if panels else ''


def paths(study: StudyRecord) -> str:
    """A panel for each variant in the plane whose sampler has steps: where its points go."""
    panels = ''
    for variant in study.variants:
        found = variant.shown.exploration.get('paths')
        if found:
            told = f'{found["points"]} points of {found["sampler"]}, {found["steps"]} steps'
            panels += _plain_panel(variant, 'paths', 'Paths of', told)
    return f'<div class="panels">{panels}</div>' if panels else ''


def densities(study: StudyRecord) -> str:
    """A panel for each variant in the plane that has a likelihood."""
    panels = ''
    for variant in study.variants:
        found = variant.shown.exploration.get('density')
        if found:
            kind = found['kind'].replace('_', ' ')
            panels += _plain_panel(variant, 'density', 'Log-density of', f'{found["method"]}, {kind}')
    return f'<div class="panels">{panels}</div>' if panels else ''


def _plain_panel(variant: Variant, name: str, words: str, told: str) -> str:
    path = _folder(variant.shown) / f'{name}.png'
    return panel(variant, path, f'{words} {variant.name}', told) if path.is_file() else ''


def _panels(study: StudyRecord, name: str, words: str) -> str:
    ways = {entry.variant: entry.way for entry in leaderboard.entries(study)}
    return ''.join(_panel(variant, name, words, ways.get(variant.name)) for variant in study.variants)


def _drawn_so(trial: TrialRecord, way: Way | None) -> bool:
    """Whether a trial's pictures come from the sampler that the leaderboard shows."""
    found = trial.exploration
    return way is None or not found or (found.get('sampler'), found.get('steps'), told_options(found)) == (
        way.sampler, way.steps, way.options)  # fmt: skip


def _panel(variant: Variant, name: str, words: str, way: Way | None) -> str:
    done = [trial for trial in variant.trials if trial.state == 'done' and trial.exploration]
    trial = next((trial for trial in done if _drawn_so(trial, way)), variant.shown)
    found, path = trial.exploration.get(name), _folder(trial) / f'{name}.png'
    if not found or not path.is_file():
        return ''
    sampler, steps = trial.exploration['sampler'], trial.exploration['steps']
    told = f'{sampler}, {steps} steps' if steps > 1 else sampler
    told = ', '.join(filter(None, (told, told_options(trial.exploration))))
    if 'distances' in found:
        nearest = sorted(row[0] for row in found['distances'])
        told += f'; distances to the nearest from {nearest[0]:.3g} to {nearest[-1]:.3g}'
    told += '' if _drawn_so(trial, way) or way is None else f'; the leaderboard shows {way.label}'
    return panel(variant, path, f'{words} {variant.name}', told)


def panel(variant: Variant, image: pathlib.Path, alt: str, told: str) -> str:
    """A picture of a variant with a caption."""
    return (
        f'<figure class="panel"><h3>{swatch(variant.index)}{escape(variant.name)}</h3>'
        f'<img loading="lazy" alt="{escape(alt, quote=True)}" src="{data_uri(image)}">'
        f'<figcaption>{escape(told)}</figcaption></figure>'
    )


def _folder(trial: TrialRecord) -> pathlib.Path:
    return trial.folder.path / 'exploration'

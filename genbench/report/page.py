"""report.html: the leaderboard, figures, samples, explorer and provenance of a study in one offline file."""

import functools
import importlib.resources
import json
import pathlib
from html import escape
from typing import Any

from genbench.errors import explained_disk_errors
from genbench.report import (
    ablation,
    collect,
    explorer,
    figures,
    findings,
    leaderboard,
    marks,
    progress,
    provenance,
    sections,
)
from genbench.report.cells import LIKELIHOOD, METRICS
from genbench.report.collect import StudyRecord
from genbench.report.marks import swatch
from genbench.training.files import write_atomically

TITLES = {  # name of a section: (heading, heading in the navigation, what it shows)
    'findings': ('Findings', 'Findings', ''),
    'leaderboard': ('Leaderboard', 'Leaderboard', ''),
    'quality': ('Quality against cost', 'Quality',
                'Bars are 95% intervals of the mean. A line connects the step counts of one sampler, and the dashes '
                'distinguish the samplers of a model. Training costs appear once, for the sampler of the leaderboard; '
                'those of a distilled model include its teacher. The dotted line is the Pareto front: no point on it '
                'is beaten at a lower cost. Points that would hide each other are moved sideways.'),
    'likelihood': ('Bits per dimension', 'Bits/dim',
                   'Bits per dimension of the evaluated split. The 95% intervals cover training seeds and test '
                   'images, or only test images if there is one seed. Kinds are not comparable: the '
                   'exact number is at most its bound, and an estimate may lie on either side.'),
    'ablation': ('Against the baseline', 'Ablations',
                 'Each difference is from the baseline run with the same seed. The table shows the mean over seeds and '
                 'its 95% t interval; a single seed has no interval. Runs with the same seed share the order of the '
                 'data and the random numbers of sampling, so part of the noise cancels. They share initial '
                 'parameters only if the network is the same. Intervals of bits/dim cover training, for these '
                 'test images; those of scores against held-out images are for this held-out split. A dash means '
                 'that the two were not measured the same way. Each interval is for a single difference; Findings '
                 'corrects for the number of pairs.'),
    'samples': ('Samples', 'Samples',
                'The first hundred samples of each model, unselected; of points, all of the first set. Image i of '
                'every grid comes from the same seed. Pictures here and below come from the first finished training '
                'seed.'),
    'training': ('Samples over training', 'Over training',
                 'Samples from the same seeds at several steps of training, with averaged weights and the default '
                 'sampler of each model.'),
    'progress': ('Quality while training', 'While training',
                 'Scores of the averaged parameters during training. Their small protocol is in the monitor.json '
                 'of each run. A distance of few samples is biased upwards, and a slice of the images is less precise '
                 'than all of them. Use these numbers to compare steps of a run, and the leaderboard to compare '
                 'models. Each seed has a line. Time and FLOPs are those of training, without scoring and without the '
                 'training of borrowed runs.'),
    'denoising': ('From noise to image', 'Denoising',
                  'The steps of a sampler. Start from pure noise, or from test images with added noise, which the '
                  'model then reconstructs. States are scaled by 1/√(α² + σ²) for display.'),
    'density': ('Densities in the plane', 'Densities',
                'The log-density of each model over [−1, 1]², by the first of its likelihoods. White is the highest '
                'density of that model, and black is 8 nats below it or lower. A model with no likelihood or with '
                'conditions has no panel.'),
    'paths': ('From start to sample', 'Paths',
              'The paths of points through the steps of a sampler, in a square twice as wide as that of the data. '
              'Amber dots are where points start, and white dots where they end.'),
    'interpolation': ('Latent interpolations', 'Interpolations',
                      'Each row follows a great circle between two random latents or starting noises. Noise '
                      'that a sampler adds later is fixed along a row, and each row has its own.'),
    'neighbours': ('Nearest training images', 'Neighbours',
                   'The top row shows the first eight samples, unselected. Below each are the three training images '
                   'nearest to it in the features of the evaluation.'),
    'losses': ('Training losses', 'Losses',
               'Each seed has a line. Triangles mark updates that were skipped because a loss or gradient was not '
               'finite.'),
    'provenance': ('Provenance', 'Provenance', ''),
}  # fmt: skip
SCRIPTS = ('page.js', 'board.js', 'quality.js', 'explorer.js')


@explained_disk_errors()
def write(
    folder: str | pathlib.Path, *more: str | pathlib.Path, out: str | pathlib.Path = '', across: bool = False
) -> pathlib.Path:
    """Write the page of a study or run, or of several, and return its path.

    Args:
      out: the file; by default report.html in the folder, or in the folder that contains all of them.
      across: let the leaderboard rank numbers of different protocols, with a note that says so.

    Raises:
      UserError: a folder holds neither a study nor a run.
    """
    study = collect.read_all([folder, *more])
    path = pathlib.Path(out) if out else study.folder / 'report.html'
    write_atomically(path, html(study, across=across))
    return path


def html(study: StudyRecord, *, across: bool = False) -> str:
    """The whole page."""
    page = _Page(study, across)
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f'<title>{escape(study.description.get("title", ""))}</title>'
        f'<style>{marks.style()}{_asset("page.css")}</style></head>'
        f'<body><a class="skip" href="#main">Skip to the content</a>{page.navigation()}'
        f'<main id="main">{sections.header(study)}{sections.problems(study)}{page.body}</main>'
        f'<div id="tip" role="tooltip" hidden></div><div id="figure-tip" aria-hidden="true" hidden></div>'
        f'{page.data()}<script>{_vega()}</script>'
        f'{"".join(f"<script>{_asset(name)}</script>" for name in SCRIPTS)}</body></html>\n'
    )


class _Page:
    """The sections with their entries in the navigation, and the data that the scripts read."""

    def __init__(self, study: StudyRecord, across: bool):
        self.study = study
        self._specs: list[figures.Spec] = []
        self._blocks: dict[str, Any] = {}
        self._shown: list[str] = []
        wants = study.wants
        parts = [
            ('leaderboard', self._leaderboard(across) if wants('leaderboard') else ''),
            ('quality', self._quality()),
            ('likelihood', self._bits() if wants('likelihood') else ''),
            ('ablation', ablation.html(study) if wants('ablation') else ''),
            *(self._pictures() if wants('samples') else ()),
            ('progress', self._progress() if wants('losses') else ''),
            ('losses', self._losses() if wants('losses') else ''),
            ('provenance', provenance.html(study)),
        ]
        filled = {name for name, body in parts if body}
        parts.insert(0, ('findings', findings.html(study, _figure_of(filled))))
        self.body = ''.join(self._section(name, body) for name, body in parts if body)

    def _section(self, name: str, body: str) -> str:
        self._shown.append(name)
        title, _, note = TITLES[name]
        told = f'<p class="quiet">{note}</p>' if note else ''
        heading = f'<h2 id="{name}-title">{title}</h2>'
        return f'<section id="{name}" aria-labelledby="{name}-title">{heading}{told}{body}</section>'

    def navigation(self) -> str:
        links = ''.join(f'<a href="#{name}">{TITLES[name][1]}</a>' for name in self._shown)
        theme = '<button type="button" id="theme" aria-label="Colour theme: follows the system">◐</button>'
        return f'<nav aria-label="Sections"><div class="links">{links}</div>{theme}</nav>'

    def data(self) -> str:
        """JSON for the scripts: figures as spec-N, everything else by name."""
        blocks = {f'spec-{index}': spec for index, spec in enumerate(self._specs)} | self._blocks
        return ''.join(
            f'<script type="application/json" id="{name}">{_json(value)}</script>' for name, value in blocks.items()
        )

    def _chart(self, spec: figures.Spec, label: str) -> str:
        self._specs.append(spec)
        place = f'data-spec="spec-{len(self._specs) - 1}" style="min-height:{spec["height"] + 50}px"'
        return f'<div class="chart" {place} role="group" aria-label="{escape(label, quote=True)}"></div>'

    def _leaderboard(self, across: bool) -> str:
        tips = leaderboard.Tips()
        board = leaderboard.html(self.study, tips, across=across)
        self._blocks['data-tips'] = {'texts': tips.texts, 'protocols': tips.protocols}
        return board + sections.leaderboard_notes(self.study) if '<tbody><tr' in board else ''

    def _quality(self) -> str:
        study = self.study
        points = figures.quality_points(study)
        wanted = [key for key, (name, _, _) in figures.COSTS.items() if study.wants(name)]
        shown = [key for key in wanted if any(point[key] for point in points)]
        if not shown:
            return ''
        metrics = {metric.name: {'title': metric.title, 'lower': metric.lower_is_better} for metric in figures.QUALITY}
        self._blocks['data-quality'] = {
            'points': points, 'floors': figures.floors(study), 'metrics': metrics,
            'every': {key: figures.COSTS[key][2] for key in shown},
            'specs': {key: figures.quality(study, key) for key in shown} | {'dots': figures.dots(study)},
            'alone': len(study.variants) == 1,
        }  # fmt: skip
        first = ('<figure class="panel"><h3>Overview, best first</h3>'
                 '<div class="chart quality" data-cost="dots" style="min-height:200px"></div></figure>')  # fmt: skip
        charts = ''.join(
            f'<figure class="panel"><h3>Against {escape(figures.COSTS[key][1])}</h3>'
            f'<div class="chart quality" data-cost="{key}" style="min-height:330px"></div>'
            f'<figcaption class="beyond" aria-live="polite"></figcaption></figure>'
            for key in shown
        )
        return f'{sections.quality(study)}{first}<div class="panels charts">{charts}</div>{sections.all_numbers(study)}'

    def _bits(self) -> str:
        spec = figures.bits_per_dim(self.study)
        silent = self.study.silent()
        note = f'<p class="quiet">Models without a likelihood: {escape(", ".join(silent))}.</p>' if silent else ''
        return sections.kinds_key() + self._chart(spec, 'Bits per dimension by model and method') + note if spec else ''

    def _losses(self) -> str:
        found = [(variant, figures.losses(variant)) for variant in self.study.variants]
        panels = ''.join(
            f'<figure class="panel"><h3>{swatch(variant.index)}{escape(variant.name)}</h3>'
            f'{self._chart(spec, f"Losses of {variant.name}")}</figure>'
            for variant, spec in found
            if spec is not None
        )
        return f'<div class="panels small">{panels}</div>' if panels else ''

    def _progress(self) -> str:
        data, panels = progress.points(self.study), ''
        for metric in progress.metrics(data):
            title = progress.titled(metric)
            if not progress.alike(self.study, metric):
                title += ', not measured the same way'
            for cost, (_, name, _) in progress.COSTS.items():
                spec = progress.drawn(self.study, data, metric, cost)
                if spec is not None:
                    told = f'{title} against {name}'
                    panels += f'<figure class="panel"><h3>{escape(told)}</h3>{self._chart(spec, told)}</figure>'
        names = [variant for variant in self.study.variants if variant.name in {point['variant'] for point in data}]
        key = ''.join(f'<span>{swatch(variant.index)}{escape(variant.name)}</span>' for variant in names)
        return f'<p class="kinds">{key}</p><div class="panels charts">{panels}</div>' if panels else ''

    def _pictures(self) -> list[tuple[str, str]]:
        study = self.study
        entries = explorer.payload(study)
        self._blocks['data-explorer'] = entries
        return [
            ('samples', sections.samples(study)),
            ('training', sections.over_training(study)),
            ('denoising', explorer.html(entries) if entries else ''),
            ('density', explorer.densities(study)),
            ('paths', explorer.paths(study)),
            ('interpolation', explorer.interpolations(study)),
            ('neighbours', explorer.neighbours(study)),
        ]


def _figure_of(sections_shown: set[str]) -> dict[str, str]:
    """The section that shows a metric."""
    places = {metric.name: 'quality' if metric in figures.QUALITY else 'leaderboard' for metric in METRICS}
    places[LIKELIHOOD] = 'likelihood'
    return {name: place for name, place in places.items() if place in sections_shown}


def _asset(name: str) -> str:
    return importlib.resources.files('genbench.report').joinpath(name).read_text()


@functools.cache
def _vega() -> str:
    """Vega, Vega-Lite and Vega-Embed, included so that the page works offline."""
    import vl_convert

    code = vl_convert.javascript_bundle()  # type: ignore[call-arg]  # its stub lacks the defaults
    return code.replace('</script', '<\\/script')


def _json(value: Any) -> str:
    return json.dumps(value, separators=(',', ':')).replace('<', '\\u003c')

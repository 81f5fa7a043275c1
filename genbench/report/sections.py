"""The sections of the page made of text, tables and pictures. Its scripts draw the figures and the explorer."""

import pathlib
from html import escape

from genbench.evaluation.protocol import picture
from genbench.evaluation.results import BOUNDS, HELD_OUT
from genbench.report import cells, claims, explorer, findings
from genbench.report.cells import BY_NAME, METRICS
from genbench.report.collect import STATES, StudyRecord, TrialRecord, Variant
from genbench.report.figures import QUALITY, floors, series
from genbench.report.marks import listing, swatch

KINDS = {
    'exact': '<rect x="2.5" y="2.5" width="9" height="9"/>',
    'lower bound of the likelihood': '<path d="M1.6 7 12.2 1.6V12.4Z"/>',
    'estimate': '<circle cx="7" cy="7" r="4.8"/>',
}
FAILURES_SHOWN = 4
ONE_SEED = """<p class="warning"><b>One training seed per model.</b> ± is over sets of samples or test images. How much
numbers vary between training runs is unknown, so the order of models is not certain.</p>"""


def kinds_key() -> str:
    """Explain the shapes of the likelihoods."""
    marks = {name: f'<svg viewBox="0 0 14 14" aria-hidden="true">{path}</svg>' for name, path in KINDS.items()}
    return f'<p class="kinds">{"".join(f"<span>{mark}{name}</span>" for name, mark in marks.items())}</p>'


def header(study: StudyRecord) -> str:
    description = study.description
    counts = {state: sum(trial.state == state for trial in study.trials) for state in STATES}
    pills = ''.join(f'<li class="pill {state}">{count} {state}</li>' for state, count in counts.items() if count)
    one = ONE_SEED if study.single else ''
    return (
        f'<header><h1>{escape(description.get("title", ""))}</h1>{_claim(study)}'
        f'<ul class="pills" aria-label="Trials">{pills}</ul>{one}</header>'
    )


def _claim(study: StudyRecord) -> str:
    """The claim, shown as a claim, with what the numbers say about it."""
    claim = study.description.get('claim')
    if not claim:
        return ''
    said = findings.verdict(findings.judged(study, claims.read(study.description.get('tests') or ())))
    verdict = f'<a href="#findings">{findings.badge(said)}</a>'
    return f'<p class="claim"><span class="kind">Claim</span> {escape(claim)} {verdict}</p>'


def problems(study: StudyRecord) -> str:
    """Failed trials with the reason and their last log lines, and unfinished trials."""
    broken = [trial for trial in study.trials if trial.state == 'failed']
    listed = ''.join(_failure(trial) for trial in broken[:FAILURES_SHOWN])
    if broken[FAILURES_SHOWN:]:
        others = ''.join(_failure(trial) for trial in broken[FAILURES_SHOWN:])
        listed += f'<details><summary>and {len(broken) - FAILURES_SHOWN} more</summary>{others}</details>'
    failed = f'<div class="failed">{listed}</div>' if broken else ''
    waiting = [trial for trial in study.trials if trial.state not in ('done', 'failed')]
    names = ', '.join(f'{trial.name} ({trial.state}{_reached(trial)})' for trial in waiting)
    return failed + (f'<p class="warning"><b>Not finished:</b> {escape(names)}</p>' if waiting else '')


def _failure(trial: TrialRecord) -> str:
    lines = listing('\n'.join(trial.last_lines), f'Log of {trial.name}') if trial.last_lines else ''
    reason = trial.status.get('reason') or 'no reason was recorded'
    told = f'<b>{escape(trial.name)} failed:</b> {escape(reason)}'
    return f'<details><summary>{told}</summary>{lines}</details>' if lines else f'<p>{told}</p>'


def _reached(trial: TrialRecord) -> str:
    step, total = trial.status.get('step'), trial.status.get('num_steps')
    return f', step {step} of {total}' if step and total else ''


def leaderboard_notes(study: StudyRecord) -> str:
    features = sorted({row['features'] for row in study.rows if row['features']})
    named = f' ({escape(", ".join(features))})' if features else ''
    fd = (
        ''
        if study.main_metric != 'fd'
        else f"""<p>FD and KD are the Fréchet and kernel distances to held-out images; "to train" marks
      distances to the whole train split. The features come from a network{named} other than the published
      Inception, so these numbers are not FID and KID.</p>"""
    )
    seeds = """<p>Numbers are means over training seeds; ± is the standard deviation of a single seed's number. It
      includes what varies between the seeds. It also includes the noise that they share: the test images of a
      likelihood, the random halves of the held-out split that serve as the reference, and the noise of samples that all
      seeds drew with the same keys. With a single seed, ± is the standard deviation over disjoint sets of samples, or
      the standard error over images for a likelihood; the variation between training runs is then unknown. Distances
      to held-out images are for this held-out split: ± excludes the effect of another split. Each cell shows what its
      ± includes and gives the 95% interval of the mean.</p>"""
    return f"""<details class="notes"><summary>How to read it</summary>
      <p>Each model has one row, for the sampler with the lowest {BY_NAME[study.main_metric].title}. If a model was
      scored again in another way, the row shows only the later numbers. Hover over a cell, or reach it with Tab and
      the arrow keys, to see its protocol. Press a heading to sort by it.</p>{fd}{seeds}
      <p>A number is bold if it is the best of its column and differs significantly from every other. Otherwise, the
      numbers without a significant difference from the best are underlined. Both use Holm's correction for the number
      of pairs. With one training seed nothing is significant. Likelihoods of different kinds (exact, ≤ bound, ≈
      estimate) are not comparable. NFE is the number of network evaluations per image.</p>
      <p>Two rows are not models. Held-out real images, which are not in the reference, show the score of new images of
      the data. Copies of training images show the score of memorisation. Both are scored exactly like samples, with as
      many images. If a data set has too few held-out images, the row says so. The ± of held-out images is over random
      halves of this one split. The ± of copies is over random draws of training images, and over such halves if the
      reference is held-out. Neither row has an interval.</p></details>"""


def quality(study: StudyRecord) -> str:
    """Controls and placeholders for the figures of quality against cost. The script draws them."""
    known = [metric for metric in QUALITY if any(cell.variant not in BOUNDS for cell in cells.of(study, metric.name))]
    options = ''.join(f'<option value="{metric.name}">{escape(metric.title)}</option>' for metric in known)
    boxes = ''.join(
        f'<label class="chip"><input type="checkbox" checked value="{escape(name, quote=True)}">'
        f'{swatch(index)}{escape(name)}</label>'
        for index, name in enumerate(series(study))
    )
    floor = '<span class="key"><i></i>held-out real images</span>' if floors(study) else ''
    return f"""<div class="controls" id="quality-controls">
      <label>Metric <select id="quality-metric">{options}</select></label>
      <fieldset class="chips"><legend class="hidden">Models</legend>{boxes}
      <button type="button" id="quality-all">all</button>
      <button type="button" id="quality-none">none</button></fieldset>
      <label>Axis <select id="quality-axis"><option value="contest">best samplers</option>
      <option value="log">all, logarithmic</option><option value="linear">all, linear</option></select></label>
      <span class="zoom" role="group" aria-label="Zoom on the best"><button type="button" id="quality-in"
      aria-label="Zoom in on the best">+</button><button type="button" id="quality-out"
      aria-label="Zoom out">−</button></span>
      {floor}</div>"""


def all_numbers(study: StudyRecord) -> str:
    """Every sampler of every variant, for readers who cannot hover over a point."""
    shown = [metric for metric in METRICS if metric.of_sampler and cells.of(study, metric.name)]
    ways = [(cell.variant, cell.way) for cell in cells.of(study, study.main_metric) if cell.variant not in BOUNDS]
    head = ''.join(f'<th scope="col">{escape(metric.title)}</th>' for metric in shown)
    rows = ''
    for variant, way in dict.fromkeys(ways):
        own = {metric.name: next((cell for cell in cells.of(study, metric.name)
                                  if cell.variant == variant and cell.way.fits(way)), None)
               for metric in shown}  # fmt: skip
        body = ''.join(f'<td>{cell.metric.form.format(cell.value) if cell else "–"}</td>' for cell in own.values())
        warned = cells.degenerate(own.get('precision'), own.get('recall'))
        warning = '<span class="kind warn">⚠ precision without recall</span>' if warned else ''
        rows += f'<tr><th scope="row">{escape(variant)} · {escape(way.label)}{warning}</th>{body}</tr>'
    return (
        '<details><summary>All samplers as a table</summary><div class="scroll" tabindex="0" role="region" '
        'aria-label="All samplers"><table><thead><tr><th scope="col">model · sampler · evaluations</th>'
        f'{head}</tr></thead><tbody>{rows}</tbody></table></div></details>'
    )


def samples(study: StudyRecord) -> str:
    found = [(variant, _best_grid(study, variant)) for variant in study.variants]
    panels = ''.join(explorer.panel(v, grid[1], f'Samples of {v.name}', grid[0]) for v, grid in found if grid)
    return f'<div class="panels">{_real(study)}{panels}</div>' if panels else ''


def _real(study: StudyRecord) -> str:
    """As many real images as there are samples of each model, drawn by the first evaluation of each data set."""
    pictures = {path.read_bytes(): path for variant in study.variants
                if (path := variant.shown.folder.path / 'exploration' / 'real.png').is_file()}  # fmt: skip
    return ''.join(
        f'<figure class="panel real"><h3>{HELD_OUT}</h3><img loading="lazy" alt="Held-out real images" '
        f'src="{explorer.data_uri(path)}"><figcaption>the first images of the evaluated split</figcaption></figure>'
        for path in pictures.values()
    )


def _best_grid(study: StudyRecord, variant: Variant) -> tuple[str, pathlib.Path] | None:
    """The caption and picture of the sampler that the leaderboard shows; None if nothing was sampled."""
    cell = cells.best([cell for cell in cells.of(study, study.main_metric) if cell.variant == variant.name])
    if cell is None or not cell.protocol.get('steps'):
        return None
    steps = cell.protocol['steps']
    path = variant.shown.folder.samples / picture(cell.protocol, variant.shown.config.get('evaluation', {}))
    told = f'{cell.way.sampler}, {steps} steps' if steps > 1 else f'{cell.way.sampler}'
    told += f', {cell.way.options}' if cell.way.options else ''
    told += f', {cell.way.average}' if cell.way.one_of_several else ''
    return (told, path) if path.is_file() else None


def over_training(study: StudyRecord) -> str:
    """Grids of samples from the same seeds during training, one row per variant."""
    rows = ''
    for variant in study.variants:
        found = sorted(variant.shown.folder.samples.glob('step_*.png'))
        if len(found) < 2:
            continue
        grids = ''.join(_moment(variant, path) for path in found)
        rows += (
            f'<section class="moments"><h3>{swatch(variant.index)}{escape(variant.name)}</h3>'
            f'<div class="scroll strip" tabindex="0" role="region" aria-label="Samples of '
            f'{escape(variant.name, quote=True)} over training">{grids}</div></section>'
        )
    return rows


def _moment(variant: Variant, path: pathlib.Path) -> str:
    step = int(path.stem.removeprefix('step_'))
    alt = escape(f'Samples of {variant.name} after {step} steps', quote=True)
    picture = f'<img loading="lazy" alt="{alt}" src="{explorer.data_uri(path)}">'
    return f'<figure>{picture}<figcaption>step {step:,}</figcaption></figure>'

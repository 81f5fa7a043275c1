"""The page's figures as PNG and PDF for papers: DIR/figures/NAME.png and NAME.pdf."""

import copy
import dataclasses
import pathlib
import re
from collections.abc import Sequence
from typing import Any

from genbench.errors import UserError, did_you_mean, explained_disk_errors
from genbench.report import collect, figures, progress
from genbench.report.collect import StudyRecord
from genbench.report.marks import on_paper
from genbench.training.files import write_atomically

DOTS = 300 / 72  # pixels per point
INK = '#222222'


@dataclasses.dataclass(frozen=True)
class Paper:
    """How figures are drawn; sizes in points. By default a figure keeps its own height and the font of the system."""

    width: int = 420
    height: int | None = None
    font: str = ''
    font_size: float = 12.0

    @classmethod
    def of(cls, size: str = '', font: str = '', font_size: float = 12.0) -> 'Paper':
        """Make the style from the words on the command line.

        Raises:
          UserError: a size is not WIDTHxHEIGHT, or there is nothing to draw with.
        """
        found = re.fullmatch(r'(\d{2,4})(?:x(\d{2,4}))?', size or '420')
        if not found:
            raise UserError(f'--figure-size is {size!r}; write WIDTHxHEIGHT in points, for example 240x180.')
        if not 3 <= font_size <= 72:
            raise UserError(f'--font-size is {font_size:g}; it should be 3 to 72 points.')
        return cls(int(found[1]), int(found[2]) if found[2] else None, font, font_size)


@explained_disk_errors()
def write(
    folder: str | pathlib.Path,
    *more: str | pathlib.Path,
    into: pathlib.Path | None = None,
    paper: Paper | None = None,
    models: Sequence[str] = (),
) -> list[pathlib.Path]:
    """Write every figure that the studies have numbers for, and return the files.

    Args:
      into: the folder for the files; by default figures/ in the study's folder.
      models: the variants to draw; by default all. They keep the colours of the page.

    Raises:
      UserError: the folder holds no study, or the study has no number to draw or no variant of that name.
    """
    import vl_convert

    study = collect.read_all([folder, *more])
    names = [variant.name for variant in study.variants]
    for name in models:
        if name not in names:
            raise UserError(f'There is no model {name!r} (--models). {did_you_mean(name, names)}')
    written = []
    for name, spec in _figures(study, set(models or names)).items():
        drawn = _for_paper(spec, paper or Paper())
        pictures = {'png': vl_convert.vegalite_to_png(drawn, scale=DOTS), 'pdf': vl_convert.vegalite_to_pdf(drawn)}
        for kind, data in pictures.items():
            path = (into or study.folder / 'figures') / f'{name}.{kind}'
            write_atomically(path, data)
            written.append(path)
    if not written:
        raise UserError(f'{study.folder} has no numbers to plot yet; see genbench status {study.folder}')
    return written


def _figures(study: StudyRecord, models: set[str]) -> dict[str, figures.Spec]:
    """The specifications with their data, by file name."""
    points = [point for point in figures.quality_points(study) if point['variant'] in models]
    found = {}
    for metric in dict.fromkeys(point['metric'] for point in points):
        found[f'{metric}_at_a_glance'] = figures.dotted(study, points, figures.floors(study), metric)
        for cost in figures.COSTS:
            spec = figures.filled(figures.quality(study, cost, legend=True), points, figures.floors(study), metric)
            if spec is not None:
                found[f'{metric}_against_{cost}'] = spec
    bits = figures.bits_per_dim(study, legend=True, models=models)
    if bits is not None:
        found['bits_per_dim'] = bits
    scored = progress.points(study, models)
    for metric in progress.metrics(scored):
        for cost in progress.COSTS:
            spec = progress.drawn(study, scored, metric, cost, legend=True)
            if spec is not None:
                found[f'{metric}_while_training_against_{cost}'] = spec
    for variant in study.variants:
        spec = figures.losses(variant) if variant.name in models else None
        if spec is not None:
            found[f'losses_{re.sub(r"[^A-Za-z0-9_.-]", "_", variant.name)}'] = spec
    return found


def _for_paper(spec: figures.Spec, paper: Paper) -> figures.Spec:
    """Restyle for a white background with dark ink, at the requested size and in the requested font."""
    drawn = _replaced(copy.deepcopy(spec), paper.font_size)
    if paper.font:
        drawn['config']['font'] = paper.font
    return {**drawn, 'width': paper.width, 'height': paper.height or drawn['height'], 'background': 'white'}


def _replaced(values: Any, font_size: float) -> Any:
    """Replace the page's colours and letter sizes by those for paper."""
    if isinstance(values, list):
        return [_replaced(value, font_size) for value in values]
    if isinstance(values, dict):
        return {key: font_size if key.endswith('FontSize') else _replaced(value, font_size)
                for key, value in values.items()}  # fmt: skip
    return INK if values == figures.INK else on_paper(values) if isinstance(values, str) else values

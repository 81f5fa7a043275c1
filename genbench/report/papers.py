"""The page's figures as PNG and PDF for papers: DIR/figures/NAME.png and NAME.pdf."""

import copy
import pathlib
import re
from typing import Any

from genbench.errors import UserError, explained_disk_errors
from genbench.report import collect, figures
from genbench.report.collect import StudyRecord
from genbench.training.files import write_atomically

WIDTH = 420  # points
DOTS = 300 / 72  # pixels a point
INK = '#222222'


@explained_disk_errors()
def write(folder: str | pathlib.Path) -> list[pathlib.Path]:
    """Write every figure that the study has numbers for; returns the files.

    Raises:
      UserError: the folder holds no study, or the study no number to draw.
    """
    import vl_convert

    study = collect.read(folder)
    written = []
    for name, spec in _figures(study).items():
        drawn = _for_paper(spec)
        pictures = {'png': vl_convert.vegalite_to_png(drawn, scale=DOTS), 'pdf': vl_convert.vegalite_to_pdf(drawn)}
        for kind, data in pictures.items():
            path = study.folder / 'figures' / f'{name}.{kind}'
            write_atomically(path, data)
            written.append(path)
    if not written:
        raise UserError(f'{study.folder} has no numbers to draw yet; look at it with: genbench status {study.folder}')
    return written


def _figures(study: StudyRecord) -> dict[str, figures.Spec]:
    """Specifications with their data, by file name."""
    points = figures.quality_points(study)
    found = {}
    for metric in dict.fromkeys(point['metric'] for point in points):
        for cost in figures.COSTS:
            spec = figures.filled(figures.quality(study, cost, legend=True), points, figures.floors(study), metric)
            if spec is not None:
                found[f'{metric}_against_{cost}'] = spec
    bits = figures.bits_per_dim(study, legend=True)
    if bits is not None:
        found['bits_per_dim'] = bits
    for variant in study.variants:
        spec = figures.losses(variant)
        if spec is not None:
            found[f'losses_{re.sub(r"[^A-Za-z0-9_.-]", "_", variant.name)}'] = spec
    return found


def _for_paper(spec: figures.Spec) -> figures.Spec:
    """On white, with dark ink and a fixed width."""
    drawn = copy.deepcopy(spec)
    _replace(drawn, figures.INK, INK)
    return {**drawn, 'width': WIDTH, 'background': 'white'}


def _replace(values: Any, old: str, new: str) -> None:
    items = values.items() if isinstance(values, dict) else enumerate(values) if isinstance(values, list) else ()
    for key, value in list(items):
        if value == old:
            values[key] = new
        else:
            _replace(value, old, new)

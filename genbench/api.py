"""genbench from Python: train a config, evaluate a run, draw samples from it.

    import genbench

    run = genbench.train('digits/diffusion', 'runs/diffusion', {'train.num_steps': 200})
    rows = genbench.evaluate(run, {'evaluation.samplers': 'ddim:10,heun:10'})
    images = genbench.load_run('runs/diffusion').sample(16, 'heun:10')

Each does what the command of the same name does, in the same folders, so either can continue a run that the other
began. Mistakes raise `genbench.errors.UserError`.
"""

import functools
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from genbench import config as configs
from genbench import startup
from genbench.config import Config
from genbench.errors import UserError
from genbench.evaluation import draw, harness, monitor, results
from genbench.reading import read_rows
from genbench.studies import sweep
from genbench.training import mesh, runs, sampling
from genbench.training.metrics import ROW

Path = str | pathlib.Path
Overrides = Mapping[str, Any] | Sequence[str]  # {'train.num_steps': 200}, or ['train.num_steps=200']


class Run:
    """A run on disk. Make one with `load_run` or `train`."""

    def __init__(self, path: Path):
        self.path = pathlib.Path(path)
        self._run = runs.open_run(self.path)
        self._source = functools.lru_cache(maxsize=2)(functools.partial(draw.Source, str(self.path)))

    def __repr__(self) -> str:
        spec = self._run.family.spec
        return f'Run({str(self.path)!r}): {self._run.family.name} of {spec.name}'

    @property
    def config(self) -> Config:
        """Every key of the run's config, as attributes: `run.config.train.num_steps`."""
        return self._run.config

    @property
    def summary(self) -> dict[str, Any]:
        """The contents of summary.json; {} until training has ended or been stopped."""
        return self._run.folder.read_summary() or {}

    @property
    def metrics(self) -> list[dict[str, Any]]:
        """The rows of metrics.jsonl: step, losses, speed."""
        return read_rows(self._run.folder.metrics, ROW)

    @property
    def results(self) -> list[dict[str, Any]]:
        """The rows of results.jsonl, each with its protocol."""
        return results.read(self._run.folder.results)

    def sample(
        self,
        count: int = 16,
        sampler: str = '',
        *,
        seed: int = 0,
        given: Mapping[str, Any] | None = None,
        average: str = '',
        step: int | None = None,
    ) -> np.ndarray:
        """The first `count` images of this seed (count, height, width, channels), uint8 from 0 to 255.

        Args:
          sampler: as for `genbench sample --sampler`: 'ddim:20', 'heun:25:guidance=1.5'; '' for the family's default.
          given: conditions that all images share, by kind: {'label': 3}, {'caption': 'a bold seven'}.
          average: which average of the parameters, such as 'ema', 'current' or 'power:0.1'; '' for the config's.
          step: of the checkpoint; None for the newest.

        Raises:
          UserError: the sampler, a condition, the average or the checkpoint does not exist.
        """
        source = self._source((f'evaluation.average={average}',) if average else (), step)
        told = [f'{kind}={value}' for kind, value in (given or {}).items()]
        drawn = source.draw(count, sampler, seed, told)
        return sampling.to_uint8(drawn.images, drawn.spec)


def load_run(path: Path) -> Run:
    """Open the run in a folder, finished or not.

    Raises:
      UserError: the folder holds no run, or it cannot be read.
    """
    startup.use_devices()
    return Run(path)


def train(
    config: Path | Mapping[str, Any] | Config, workdir: Path, overrides: Overrides = (), *, quiet: bool = False
) -> Run:
    """Train a config, or continue from the newest checkpoint in `workdir`. A finished run is returned unchanged.

    Args:
      config: a config file, the name of a config that ships with genbench, or its keys: {'family': {'name': 'vae'}}.
      workdir: the folder of the run.
      overrides: keys to replace.
      quiet: show no progress.

    Returns:
      The run. Its `summary['complete']` is False if Ctrl-C stopped and saved it.

    Raises:
      UserError: any mistake that the user can correct.
    """
    words = _words(overrides)
    if isinstance(config, str | pathlib.Path):
        resolved = configs.load(str(config), words)
    else:
        resolved = configs.resolve(configs.plain(config), words)
    startup.use_devices(functools.partial(mesh.fitting, resolved))
    monitor.train(resolved, workdir, quiet=quiet)
    return Run(workdir)


def evaluate(
    run: Run | Path,
    overrides: Overrides = (),
    *,
    grid: Sequence[str] = (),
    step: int | None = None,
    quiet: bool = False,
) -> list[dict[str, Any]]:
    """Score a run as its config asks, and append the rows to its results.jsonl.

    Args:
      run: a run or its folder.
      overrides: evaluation keys to replace.
      grid: axes whose product is evaluated, as for `genbench evaluate --grid`: ['sampler=heun,ddim', 'nfe=5,10'].
      step: of the checkpoint; None for the newest.
      quiet: show no progress.

    Returns:
      The new rows. Rows that exist under the same protocol are not computed again; `Run.results` has all of them.

    Raises:
      UserError: any mistake that the user can correct.
    """
    startup.use_devices()
    path = run.path if isinstance(run, Run) else pathlib.Path(run)
    return harness.evaluate(path, _words(overrides), step=step, cells=grid, quiet=quiet)


def _words(overrides: Overrides) -> Sequence[str]:
    if isinstance(overrides, str):
        raise UserError(f'overrides is the string {overrides!r}; pass a mapping, or a list of KEY=VALUE strings.')
    return sweep.words(overrides) if isinstance(overrides, Mapping) else list(overrides)

"""Other services that also receive the rows, pictures and results of a run: Weights & Biases and MLflow, by config.

The run's own files remain the source of truth. A tracker that fails during training is dropped with one warning, and
training continues. The files hold what the tracker missed.
"""

import importlib.util
import json
import os
import pathlib
import time
import uuid
import warnings
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from genbench import config as configs
from genbench.config import Config
from genbench.errors import UserError, did_you_mean
from genbench.reading import read_json_if_any
from genbench.training.files import write_atomically

FILE = 'trackers.json'  # in the run's folder: {name: the run's id in that service}
PARAMETERS_AT_ONCE = 100  # the most that MLflow accepts in one call


class Tracker(Protocol):
    """A run in another service."""

    def write(self, step: int, scalars: Mapping[str, float]) -> None: ...

    def picture(self, step: int, tag: str, path: pathlib.Path) -> None: ...

    def results(self, step: int, scalars: Mapping[str, float]) -> None: ...

    def close(self, complete: bool) -> None: ...


class WandB:
    """A run in Weights & Biases. `WANDB_MODE=offline` keeps it in the run's folder for `wandb sync`."""

    def __init__(self, config: Config, folder: pathlib.Path, name: str, known: str):
        import wandb

        self.id = known or uuid.uuid4().hex[:12]
        self._run = wandb.init(
            project=config.trackers.project, name=name, id=self.id, resume='allow', dir=folder,
            group=group(config, folder) or None, config=configs.plain(config),
            settings=wandb.Settings(console='off', silent=True),
        )  # fmt: skip

    def write(self, step: int, scalars: Mapping[str, float]) -> None:
        self._run.log(dict(scalars), step=step)

    def picture(self, step: int, tag: str, path: pathlib.Path) -> None:
        import wandb

        self._run.log({tag: wandb.Image(str(path))}, step=step)

    def results(self, step: int, scalars: Mapping[str, float]) -> None:
        self._run.summary.update(dict(scalars))  # wandb does not accept earlier steps in its log

    def close(self, complete: bool) -> None:
        self._run.finish(exit_code=0 if complete else 1)


class MLflow:
    """A run in MLflow. Without a URI in the config or environment, its files are in the run's folder."""

    def __init__(self, config: Config, folder: pathlib.Path, name: str, known: str):
        import mlflow.entities
        from mlflow.tracking import MlflowClient

        uri = config.trackers.mlflow_uri or os.environ.get('MLFLOW_TRACKING_URI', '')
        if not uri:
            os.environ.setdefault('MLFLOW_ALLOW_FILE_STORE', 'true')  # this store needs no database
            uri = (folder / 'mlruns').resolve().as_uri()
        self._entities, self._client = mlflow.entities, MlflowClient(tracking_uri=uri)
        self.id = known or self._create(config, name, group(config, folder))
        self._client.update_run(self.id, status='RUNNING')

    def _create(self, config: Config, name: str, study: str) -> str:
        found = self._client.get_experiment_by_name(config.trackers.project)
        experiment = found.experiment_id if found else self._client.create_experiment(config.trackers.project)
        tags = {'study': study} if study else {}
        run = self._client.create_run(experiment, run_name=name, tags=tags).info.run_id
        keys = [self._entities.Param(key, str(value)) for key, value in configs.flatten(config)]
        for start in range(0, len(keys), PARAMETERS_AT_ONCE):
            self._client.log_batch(run, params=keys[start : start + PARAMETERS_AT_ONCE])
        return run

    def write(self, step: int, scalars: Mapping[str, float]) -> None:
        now = int(1000 * time.time())
        values = [self._entities.Metric(key, value, now, step) for key, value in scalars.items()]
        self._client.log_batch(self.id, metrics=values)

    def picture(self, step: int, tag: str, path: pathlib.Path) -> None:
        self._client.log_artifact(self.id, str(path), tag)

    results = write

    def close(self, complete: bool) -> None:
        self._client.set_terminated(self.id, 'FINISHED' if complete else 'KILLED')


KINDS: dict[str, Any] = {'wandb': WandB, 'mlflow': MLflow}


def group(config: Config, folder: pathlib.Path) -> str:
    """The name that groups runs there: `trackers.group`, or else the name of the study that a trial belongs to."""
    study = folder.resolve().parent.parent
    return config.trackers.group or (study.name if (study / 'study.json').is_file() else '')


def check(config: Config) -> None:
    """Find unknown names and missing packages before anything starts.

    Raises:
      UserError: a tracker is unknown or not installed.
    """
    for name in config.trackers.names:
        if name not in KINDS:
            raise UserError(f'There is no tracker {name!r} (trackers.names). {did_you_mean(name, KINDS)}')
        if importlib.util.find_spec(name) is None:
            raise UserError(f"trackers.names needs {name}; install it with pip install -e '.[{name}]'")


class Trackers:
    """All trackers of a run. A resumed run continues the same runs there.

    Args:
      folder: of the run.
      rows: of the run's metrics.jsonl before this start. A new tracker receives them up to `restored_step`; an earlier
        one already has them.
    """

    def __init__(self, config: Config, folder: pathlib.Path, rows: Sequence[Mapping[str, Any]], restored_step: int):
        self._file, self._open, self._sent = folder / FILE, {}, {}
        self._before: dict[str, int] = {}  # the last step that each tracker had before this start
        if not config.trackers.names:
            return
        known = read_json_if_any(self._file, {str: str}) or {}
        title = config.trackers.run or folder.resolve().name
        for name in config.trackers.names:
            try:
                self._open[name] = KINDS[name](config, folder, title, known.get(name, ''))
            except Exception as error:
                if not rows:
                    self.close(complete=False)
                    raise UserError(f'{name} cannot start (trackers.names): {_line(error)}') from error
                _warn(name, error)  # the run is more important than its tracking
                continue
            self._sent[name] = max((row['step'] for row in rows), default=0) if name in known else 0
            known[name] = self._open[name].id
        write_atomically(self._file, json.dumps(known) + '\n')
        self._before = dict(self._sent)
        for row in rows:
            if row['step'] <= restored_step:
                self.write(row)

    def write(self, row: Mapping[str, Any]) -> None:
        """Send a row of metrics.jsonl. Steps that a resumed run repeats are not sent twice."""
        scalars = {key: value for key, value in row.items() if key != 'step' and isinstance(value, int | float)}
        for name in [name for name in self._open if row['step'] > self._sent[name]]:
            self._sent[name] = row['step']
            self._try(name, 'write', row['step'], scalars)

    def picture(self, step: int, tag: str, path: pathlib.Path) -> None:
        """Send a picture of a step, unless an earlier start already sent one of that step."""
        for name in [name for name in self._open if step > self._before[name]]:
            self._try(name, 'picture', step, tag, path)

    def results(self, step: int, scalars: Mapping[str, float], pictures: Mapping[str, pathlib.Path]) -> None:
        """Send what `genbench evaluate` measured on the checkpoint of a step."""
        for name in list(self._open):
            self._try(name, 'results', step, scalars)
        for tag in pictures:
            for name in list(self._open):
                self._try(name, 'picture', step, tag, pictures[tag])

    def _try(self, name: str, method: str, *arguments: Any) -> None:
        try:
            getattr(self._open[name], method)(*arguments)
        except Exception as error:
            del self._open[name]
            _warn(name, error)

    def close(self, complete: bool) -> None:
        for name, tracker in self._open.items():
            try:
                tracker.close(complete)
            except Exception as error:
                _warn(name, error)
        self._open = {}


def _warn(name: str, error: Exception) -> None:
    warnings.warn(f'{name} failed and will be ignored ({_line(error)}); metrics.jsonl has every row.', stacklevel=3)


def _line(error: Exception) -> str:
    return ' '.join(f'{type(error).__name__}: {error}'.split())[:200]

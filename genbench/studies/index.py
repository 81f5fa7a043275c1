"""The results index: DuckDB over the results.jsonl files of studies and runs, which remain the only source of truth."""

import collections
import dataclasses
import json
import os
import pathlib
import re
import sys
from collections.abc import Iterator, Sequence
from typing import Any

from genbench.errors import UserError
from genbench.ranges import check_path
from genbench.reading import check_entries, parse, read_bytes, read_json_if_any, read_rows

# Keys of a row and their types in DuckDB. A missing key reads as null.
COLUMNS = {
    'study': 'VARCHAR', 'trial': 'VARCHAR', 'trial_id': 'VARCHAR', 'variant': 'VARCHAR', 'seed': 'BIGINT',
    'family': 'VARCHAR', 'dataset': 'VARCHAR', 'split': 'VARCHAR', 'metric': 'VARCHAR', 'value': 'DOUBLE',
    'std_err': 'DOUBLE', 'sd': 'DOUBLE', 'kind': 'VARCHAR', 'n': 'BIGINT', 'sampler': 'VARCHAR', 'nfe': 'DOUBLE',
    'features': 'VARCHAR', 'checkpoint_step': 'BIGINT', 'config_hash': 'VARCHAR', 'protocol_hash': 'VARCHAR',
    'discretisation_error': 'DOUBLE',
}  # fmt: skip
_NO_RESULTS = {'checkpoints', 'events', 'snapshots', 'evaluation', 'samples', 'profile'}  # never searched


@dataclasses.dataclass(frozen=True)
class Source:
    """A results.jsonl, and what its location says about rows that do not say it themselves."""

    file: str
    folder: str  # folder of the study, or the parent folder of the run
    study: str | None = None
    trial: str | None = None
    variant: str | None = None
    seed: int | None = None
    settings: str | None = None  # JSON of {dotted config key: value}


def find(places: Sequence[str]) -> list[Source]:
    """Every results.jsonl in and below the folders, each once. The file of a study replaces those of its trials.

    Raises:
      UserError: a folder does not exist, or none of them holds results.
    """
    found: dict[pathlib.Path, Source] = {}
    for place in [pathlib.Path(check_path(place, 'The path')) for place in places]:
        if not place.exists():
            raise UserError(f'There is no folder {place} to read results from.')
        for file in [place] if place.is_file() else _below(place):
            check_entries(file.parent, (file.name,), ())  # a pipe would make DuckDB wait
            found.setdefault(file.resolve(), _describe(file))
    if not found:
        raise UserError(f'No results.jsonl in or below {", ".join(places)}; genbench run and evaluate write them.')
    return [source for path, source in found.items() if _study_of(path.parent) / 'results.jsonl' not in found]


def _below(folder: pathlib.Path) -> Iterator[pathlib.Path]:
    for path, inside, files in os.walk(folder):
        inside[:] = sorted(name for name in inside if name not in _NO_RESULTS)
        if 'results.jsonl' in files:
            file = pathlib.Path(path) / 'results.jsonl'
            if file.is_symlink() and not file.exists():
                raise UserError(f'{file} is a broken link; restore its target or remove the link.')
            yield file
            if 'study.json' in files:
                _say_stale(pathlib.Path(path))
                inside[:] = [name for name in inside if name != 'trials']


def _say_stale(study: pathlib.Path) -> None:
    """Print one line if trials have written rows since the study last collected them."""
    collected = study / 'results.jsonl'
    written = collected.stat().st_mtime
    later = [path for path in study.glob('trials/*/results.jsonl') if path.stat().st_mtime > written]
    if later:  # only by modification time, which a copy resets, so compare the rows
        counts = collections.Counter(row.get('trial') for row in read_rows(collected))
        later = [path for path in later if len(read_rows(path)) != counts[path.parent.name]]
    if later:
        print(f'genbench: {len(later)} trials of {study} have newer rows than its results.jsonl. The study is running, '
              'or stopped before collecting them.', file=sys.stderr)  # fmt: skip


def _study_of(folder: pathlib.Path) -> pathlib.Path:
    """The study folder that a trial's folder belongs to. For other folders, the path does not exist."""
    above = folder.parent.parent
    return above if folder.parent.name == 'trials' and (above / 'study.json').is_file() else folder / 'none'


def _describe(file: pathlib.Path) -> Source:
    folder = file.resolve().parent
    if (folder / 'study.json').is_file():
        return Source(str(file), str(folder), study=folder.name)
    values = _read_json(folder / 'config.json', {'train?': {'seed?': int}})
    seed, settings = None, None
    if values:
        flat = dict(leaves(values))
        seed, settings = flat.get('train.seed'), json.dumps(flat)
    study = _study_of(folder)
    owner = study if study.is_dir() else folder.parent
    variants = _read_json(study / 'study.json', {'variants?': ({str: str}, None)}).get('variants') or {}
    variant = variants.get(folder.name) or re.sub(rf'[-_.]?(seed|s)[-_=]?{seed}$', '', folder.name)
    return Source(str(file), str(owner), owner.name if owner == study else None, folder.name, variant, seed, settings)


def _read_json(path: pathlib.Path, shape: Any) -> dict[str, Any]:
    return read_json_if_any(path, shape) or {}


class Index:
    """The rows of some sources as the DuckDB view `entries`. Nothing is written.

    `seed` is the training seed. Rows of a study contain it; for rows of a run it comes from the run's config.

    Args:
      settings: include the settings, which are long and rarely needed.

    Raises:
      UserError: a line before the last one of its file is not JSON.
    """

    def __init__(self, places: Sequence[str], settings: bool = False):
        self.sources = find(places)
        import duckdb

        self.connection: Any = duckdb.connect()
        self._settings = settings
        self._read()

    def query(self, sql: str, parameters: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        return self.connection.execute(sql, list(parameters)).fetchall()

    def _read(self) -> None:
        more = {'settings': 'JSON'} if self._settings else {}
        types = {**COLUMNS, 'values': 'DOUBLE[]', 'protocol': 'JSON', **more}
        columns = ', '.join(f'{name!r}: {kind!r}' for name, kind in types.items())
        self.query(
            'CREATE OR REPLACE TEMP TABLE raw AS SELECT *, row_number() OVER () AS position FROM read_json(?, '
            f"format = 'newline_delimited', columns = {{{columns}}}, ignore_errors = true, filename = 'file', "
            'maximum_object_size = 67108864)',
            [[source.file for source in self.sources]],
        )
        for (file,) in self.query('SELECT DISTINCT file FROM raw WHERE metric IS NULL ORDER BY file'):
            _check_lines(file)
        self.query('CREATE OR REPLACE TEMP TABLE places (file VARCHAR, folder VARCHAR, study VARCHAR, trial VARCHAR, '
                   'variant VARCHAR, seed BIGINT, settings JSON)')  # fmt: skip
        self.connection.executemany(
            'INSERT INTO places VALUES (?, ?, ?, ?, ?, ?, ?)', [dataclasses.astuple(source) for source in self.sources]
        )
        own = [name for name in types if name not in ('study', 'trial', 'variant', 'seed', 'settings')]
        self.query(f"""
            CREATE OR REPLACE TEMP VIEW entries AS SELECT {', '.join(f'raw."{name}"' for name in own)},
                position, raw.file, folder,
                coalesce(raw.study, places.study) AS study,
                coalesce(raw.trial, places.trial) AS trial,
                coalesce(raw.variant, raw.trial, places.variant) AS variant,
                -- the seed of a row that names no variant is one of evaluation
                CASE WHEN raw.variant IS NULL THEN places.seed ELSE raw.seed END AS seed,
                {'coalesce(raw.settings, places.settings)' if self._settings else 'NULL::JSON'} AS settings
            FROM raw JOIN places USING (file) WHERE metric IS NOT NULL
        """)

    def nested_keys(self, column: str) -> set[str]:
        """Dotted keys that `protocol` or `settings` have in any row."""
        if column == 'settings' and not self._settings:
            self._settings = True
            self._read()
        found: set[str] = set()
        for (text,) in self.query(f'SELECT DISTINCT {column} FROM entries WHERE {column} IS NOT NULL'):
            values = json.loads(text)
            found.update(dict(leaves(values)) if isinstance(values, dict) else ())
        return found


def leaves(values: dict[str, Any], prefix: str = '') -> Iterator[tuple[str, Any]]:
    """('section.key', value) pairs, like `config.flatten`, which would import jax."""
    for key, value in values.items():
        if isinstance(value, dict) and value:
            yield from leaves(value, f'{prefix}{key}.')
        else:
            yield f'{prefix}{key}', value


def _check_lines(file: str) -> None:
    """Skip a half-written last line with a warning. A broken line before it is an error."""
    lines = read_bytes(pathlib.Path(file)).splitlines()
    for number, line in enumerate(lines, start=1):
        try:
            parse(line or b'{}', dict)
        except ValueError:
            if number < len(lines) or not line.startswith(b'{'):
                raise UserError(f'{file}:{number} is not a JSON object; repair or delete that line.') from None
            print(f'genbench: ignored the half-written last line of {file}.', file=sys.stderr)

"""Write a source of images as array_record files that TFDS reads, once, in several processes.

Shards are written to DIR.partial, next to the data set's final folder. Each is written completely or not at all. An
interrupted preparation continues with the missing shards. The data set appears under its name once all shards exist.
"""

import concurrent.futures
import contextlib
import dataclasses
import fcntl
import functools
import hashlib
import json
import multiprocessing
import os
import pathlib
import shutil
import signal
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from genbench.data import decoding, shards
from genbench.data.contents import Contents
from genbench.data.recipe import Recipe
from genbench.data.shards import Counts, Plan, Shard
from genbench.errors import Busy, UserError

VERSION = '1.0.0'
ROWS, MOST_SHARDS = 1000, 256  # rows per shard (more in large sets), and the maximum number of shards
TEMPLATE = 'images-{SPLIT}.{FILEFORMAT}-{SHARD_X_OF_Y}'  # pattern of file names; TFDS requires Latin letters
LOOKED_AT = 500  # headers to read at a time
Say = Callable[[str], None]


def prepare(
    source: Contents, recipe: Recipe, folder: pathlib.Path, metadata: Mapping[str, Any], *,
    name: str, listed: Sequence[Any] = (), processes: int = 0, say: Say = lambda _: None,
) -> list[str]:  # fmt: skip
    """Write the data set `name` to a folder, replacing what is there, and return a report on the images.

    Args:
      metadata: what a reader of the data set needs to know in addition to the recipe.
      listed: the files that the data set is made from, for later comparison.
      processes: 0 for one per core.
      say: gets a line of progress from time to time.

    Raises:
      UserError: a split ends up empty, or the images have several sizes and the recipe sets none.
      Busy: another process is preparing the data set.
    """
    processes = processes or (len(os.sched_getaffinity(0)) if hasattr(os, 'sched_getaffinity') else os.cpu_count() or 1)
    folder.parent.mkdir(parents=True, exist_ok=True)
    partial = folder.with_name(f'{folder.name}.partial')
    with _locked(folder), _pool(processes) as run, _nothing_left(partial):
        looked, shape = _look(source, recipe, run, say)
        plan = Plan(source.read, recipe, shape, source.classes, source.fields)
        parts = _shards(source, plan, partial)
        counts = _write(parts, plan, run, say)
        total = Counts()
        for one in (one for found in counts.values() for one in found):
            total.add(one)
        _check(source, counts, total, recipe)
        lines = _report(source, recipe, shape, looked, counts, total)
        known = {
            **metadata,
            'recipe': dataclasses.asdict(recipe),
            'content': _content(source, total, plan),
            'report': lines,
        }
        _finish(parts, counts, plan, partial, name, known)
        (partial / 'sums.json').write_text(json.dumps(total.sums))
        (partial / 'files.json').write_text(json.dumps([dataclasses.astuple(one) for one in listed]))
        _replace(partial, folder)
    return lines


def _look(source: Contents, recipe: Recipe, run: Any, say: Say) -> tuple[Counts, tuple[int, int, int]]:
    """The counts from the headers, and the shape that images will have."""
    rows = [row for inside in source.splits.values() for row in inside]
    parts = [rows[start : start + LOOKED_AT] for start in range(0, len(rows), LOOKED_AT)]
    looked = Counts()
    for one in run(functools.partial(shards.look, source.read), parts):
        looked.add(one)
        say(f'read the headers of {looked.rows:,} of {len(rows):,} images')
    if not looked.rows:
        raise UserError(f'None of the {len(rows):,} images of {source.name} can be read ({_troubles(looked)}).')
    if not recipe.shape and len(looked.sizes) > 1:
        some = ', '.join(sorted(looked.sizes, key=looked.sizes.__getitem__, reverse=True)[:3])
        raise UserError(f'The images of {source.name} have {len(looked.sizes):,} sizes ({some}, …). Choose one size '
                        'with --size=64 or --size=HEIGHT,WIDTH (data.size).')  # fmt: skip
    height, width = recipe.shape or map(int, next(iter(looked.sizes)).split('×'))
    return looked, (height, width, recipe.channels or (1 if looked.grey == looked.rows else 3))


def _shards(source: Contents, plan: Plan, partial: pathlib.Path) -> dict[str, list[Shard]]:
    """The shards of each split. Leftovers of other preparations are removed from the folder."""
    partial.mkdir(exist_ok=True)
    said = repr((plan.recipe, plan.shape, list(plan.classes), dict(plan.fields)))
    parts: dict[str, list[Shard]] = {}
    for split, rows in source.splits.items():
        size = max(ROWS, -(-len(rows) // MOST_SHARDS))
        parts[split] = []
        for start in range(0, len(rows), size):
            inside = rows[start : start + size]
            digest = hashlib.sha256(f'{said}{inside!r}'.encode('utf-8', 'surrogatepass')).hexdigest()[:16]
            parts[split].append(Shard(str(partial / f'{split}-{start}-{digest}'), inside))
    wanted = {pathlib.Path(one.path).name for inside in parts.values() for one in inside}
    for file in partial.iterdir():
        if file.name not in wanted and file.name.removesuffix('.json') not in wanted:
            file.unlink()
    return parts


def _write(parts: Mapping[str, Sequence[Shard]], plan: Plan, run: Any, say: Say) -> dict[str, list[Counts]]:
    flat = [one for inside in parts.values() for one in inside]
    total, done = sum(len(one.rows) for one in flat), 0
    found = []
    for shard, counts in zip(flat, run(functools.partial(shards.write, plan), flat), strict=True):
        found.append(counts)
        done += len(shard.rows)
        say(f'wrote {done:,} of {total:,} images')
    results = iter(found)
    return {split: [next(results) for _ in inside] for split, inside in parts.items()}


def _check(source: Contents, counts: Mapping[str, Sequence[Counts]], total: Counts, recipe: Recipe) -> None:
    for split, inside in counts.items():
        if not sum(one.rows for one in inside):
            said = f'smaller than {_by(recipe.shape)}: {total.small[0]:,}' if total.small[0] else ''
            why = '; '.join(filter(None, (said, _troubles(total))))
            advice = ' Choose a smaller size, or enlarge them with --upscale (data.upscale).' if said else ''
            raise UserError(f'The split {split!r} of {source.name} has no usable images ({why}).{advice}')


def _by(shape: tuple[int, int] | None) -> str:
    return f'{shape[0]}×{shape[1]}' if shape else ''


def _troubles(counts: Counts) -> str:
    """'cannot be read: 2 (a.png, b.png: it is truncated)'"""
    number = sum(found[0] for found in counts.unreadable.values())
    some = '; '.join(
        f'{", ".join(names)}{" …" if many > len(names) else ""}: {reason}'
        for reason, (many, names) in sorted(counts.unreadable.items(), key=lambda item: -item[1][0])[:3]
    )
    return f'unreadable: {number:,} ({some})' if number else ''


def _report(
    source: Contents, recipe: Recipe, shape: tuple[int, int, int], looked: Counts,
    counts: Mapping[str, Sequence[Counts]], total: Counts,
) -> list[str]:  # fmt: skip
    """A report on the images, as sentences."""
    kind = 'grey' if shape[2] == 1 else 'colour'
    sizes = ', '.join(f'{split}: {sum(one.rows for one in inside):,}' for split, inside in counts.items())
    lines = [f'{sizes}; {kind} images of {_by(shape[:2])}']
    if recipe.shape:
        lines.append(f'crop {recipe.crop}, filter {recipe.filter}')
    if shape[2] == 3 and looked.grey:
        lines.append(f'grey, repeated in three channels: {looked.grey:,}')
    if shape[2] == 1 and looked.grey < looked.rows:
        lines.append(f'in colour, converted to grey: {looked.rows - looked.grey:,}')
    lines += [f'{decoding.SAID[name]}: {number:,}' for name, number in sorted(total.treated.items())]
    if total.small[0]:
        some = ', '.join(total.small[1]) + (' …' if total.small[0] > len(total.small[1]) else '')
        lines.append(
            f'smaller than {_by(recipe.shape)}, skipped (--upscale enlarges them): {total.small[0]:,} ({some})'
        )
    if trouble := _troubles(total):
        lines.append(trouble)
    if source.classes:
        some = ', '.join(source.classes[:10]) + (' …' if len(source.classes) > 10 else '')
        lines.append(f'{len(source.classes):,} classes: {some}')
    if source.fields:
        lines.append(f'fields: {", ".join(f"{name} ({kind})" for name, kind in source.fields.items())}')
    return [*lines, *source.notes]


def _content(source: Contents, total: Counts, plan: Plan) -> str:
    """Twelve hexadecimal digits of a hash of the inputs and of how they were processed."""
    found = hashlib.sha256(json.dumps(sorted(total.sums.items())).encode())
    for split, rows in source.splits.items():
        found.update(
            repr((split, [(row.name, row.label, dict(row.fields)) for row in rows])).encode('utf-8', 'replace')
        )
    found.update(repr((plan.recipe.digest, plan.shape, list(plan.classes))).encode())
    return found.hexdigest()[:12]


def _finish(
    parts: Mapping[str, Sequence[Shard]], counts: Mapping[str, Sequence[Counts]], plan: Plan, partial: pathlib.Path,
    name: str, metadata: Mapping[str, Any],
) -> None:  # fmt: skip
    """Give the shards the names that TFDS expects, and write the metadata that it reads."""
    splits = []
    for split, inside in parts.items():
        full = [(one, found) for one, found in zip(inside, counts[split], strict=True) if found.rows]
        size = sum(os.path.getsize(shard.path) for shard, _ in full)
        for number, (shard, _) in enumerate(full):
            end = f'{number:05d}-of-{len(full):05d}'
            os.replace(shard.path, partial / f'images-{split}.array_record-{end}')
        splits.append({'name': split, 'filepathTemplate': TEMPLATE, 'numBytes': str(size),
                       'shardLengths': [str(found.rows) for _, found in full]})  # fmt: skip
    shards.features(plan.shape, plan.classes, plan.fields).save_config(str(partial))
    info = {'name': name, 'version': VERSION, 'fileFormat': 'array_record', 'splits': splits}
    (partial / 'dataset_info.json').write_text(json.dumps(info, indent=2))
    (partial / 'metadata.json').write_text(json.dumps({'levels': 256, **metadata}, indent=2))
    for inside in parts.values():
        for shard in inside:
            for path in (shard.path, f'{shard.path}.json'):  # these shards have no images
                pathlib.Path(path).unlink(missing_ok=True)


def _replace(partial: pathlib.Path, folder: pathlib.Path) -> None:
    old = folder.with_name(f'{folder.name}.old')
    shutil.rmtree(old, ignore_errors=True)
    if folder.exists():
        os.replace(folder, old)
    os.replace(partial, folder)
    shutil.rmtree(old, ignore_errors=True)


@contextlib.contextmanager
def _nothing_left(partial: pathlib.Path) -> Iterator[None]:
    """Leave nothing behind after a user's mistake. An interrupted preparation is kept."""
    try:
        yield
    except UserError:
        shutil.rmtree(partial, ignore_errors=True)
        raise


@contextlib.contextmanager
def _locked(folder: pathlib.Path) -> Iterator[None]:
    with folder.with_name(f'.{folder.name}.lock').open('w') as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise Busy(f'Another process is preparing {folder}; wait for it or stop it.') from None
        yield


@contextlib.contextmanager
def _pool(processes: int) -> Iterator[Callable[..., Iterator[Any]]]:
    """A `map` over processes that keeps the order. With one process, it runs in this process."""
    if processes == 1:
        yield map
        return
    context = multiprocessing.get_context('spawn')
    ignore = (signal.SIGINT, signal.SIG_IGN)  # this process stops the workers
    with concurrent.futures.ProcessPoolExecutor(processes, context, signal.signal, ignore) as pool:
        try:
            yield lambda function, items: pool.map(function, items)
        except concurrent.futures.process.BrokenProcessPool:
            raise UserError('A worker process was killed, perhaps because memory ran out. Use fewer: '
                            '--processes=1. The files written so far are kept.') from None  # fmt: skip
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise

"""`genbench watermark`: draw images whose noise is marked, and look for the mark in images by inverting the sampler.

docs/watermarks.md describes the files. Everything is computed before anything is written.
"""

import dataclasses
import json
import pathlib
import secrets
import time
from collections.abc import Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np
from PIL import Image

from genbench import reading, rng
from genbench.data import pictures
from genbench.data.spec import DataSpec
from genbench.errors import UserError, did_you_mean, explained_disk_errors
from genbench.evaluation import attacks, detection, editing_inputs, inversion, watermarks
from genbench.evaluation.draw import Source, check_said
from genbench.evaluation.watermarks import GaussianShading, Mark, Tested
from genbench.families.base import Family, Sampler
from genbench.training import samplers, sampling
from genbench.training.files import new_folder

KEY, EMBEDDED, DETECTED = 'key.json', 'embed.json', 'detect.json'
MARKED, UNMARKED = 'marked', 'unmarked'  # folders
SHOWN = 8  # images in a picture
FORMAT = 1
FILE = {
    'format': int, 'method': str, 'secret': str, 'shape': [int], 'sampler': str,
    'radius?': int, 'message?': str, 'pads?': int,
    'run': {'config_hash': str, 'step': int, 'state_sha256': str, 'average': str},
}  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Embedding:
    """The flags of `genbench watermark embed`."""

    out: str
    method: str = 'tree_ring'
    count: int = 100
    radius: int = 0
    message: str = ''
    bits: int = 0
    pads: int = 0
    secret: str = ''
    sampler: str = ''
    seed: int = 0
    given: Sequence[str] = ()
    step: int | None = None


@dataclasses.dataclass(frozen=True)
class Detection:
    """The flags of `genbench watermark detect`."""

    key: str
    inputs: Sequence[str]
    out: str
    unmarked: Sequence[str] = ()
    attacks: str = ''
    regenerator: str = ''
    sampler: str = ''
    seed: int = 0
    given: Sequence[str] = ()
    resize: bool = False
    data_dir: str = ''
    step: int | None = None


@explained_disk_errors()
def embed(workdir: str, asked: Embedding) -> list[str]:
    """Draw images with a mark, and the same images without it, into a new folder. Returns lines to print.

    Raises:
      UserError: a flag makes no sense, or the noise of this run's images could not be found again.
    """
    target = _target(asked.out)
    if asked.count < 1:
        raise UserError(f'--count is {asked.count}; it should be at least 1.')
    source = Source(workdir, (), asked.step)
    sampler = chosen(source.family, asked.sampler)
    check_said(asked.given, sampler)
    mark, began = mark_of(source.family, asked), time.monotonic()
    given = source.shown(asked.given, asked.count, asked.seed)
    noise = _noise(source.family, asked.count, asked.seed)
    drawn = {
        name: source.told(sampler, asked.count, asked.seed, {**(given or {}), 'noise': values.reshape(noise.shape)})
        for name, values in ((MARKED, mark.marked(noise.reshape(-1, *mark.shape))), (UNMARKED, noise))
    }
    key = {
        'format': FORMAT, 'method': mark.name, 'secret': mark.secret, 'shape': mark.shape,
        **{name: getattr(mark, name) for name in mark.settings},
        'sampler': asked.sampler or inversion.usual(source.family), 'run': source.identity,
    }  # fmt: skip
    report = {
        'method': mark.name, **sampler.protocol, 'count': asked.count, 'seed': asked.seed,
        'evaluations_per_image': source.family.evaluations(sampler), 'seconds': round(time.monotonic() - began, 3),
    }  # fmt: skip
    with new_folder(target) as folder:
        for name, images in drawn.items():
            _save(folder / name, sampling.to_uint8(images, source.family.spec))
        rows = np.stack([images[:SHOWN] for images in drawn.values()])
        _grid(folder / editing_inputs.GRID, rows, source.family.spec)
        (folder / KEY).write_text(json.dumps(key, indent=2) + '\n')
        (folder / EMBEDDED).write_text(json.dumps(report, indent=2) + '\n')
    return [f'{asked.count} marked images and as many unmarked ones written to {asked.out}; keep {KEY} secret']


@explained_disk_errors()
def detect(workdir: str, asked: Detection) -> list[str]:
    """Test images for the mark of a key, also after attacks, and write what was found. Returns lines to print.

    Raises:
      UserError: the key is of another run, an input does not exist or has another size, or an attack is unknown.
    """
    target, kinds = _target(asked.out), [text for text in asked.attacks.split(',') if text]
    attacked = {attacks.check(text)[0] for text in kinds}
    if asked.regenerator and attacks.REGENERATE not in attacked:
        raise UserError(f'--regenerator has no use without --attacks={attacks.REGENERATE}; leave it out, or add that.')
    source = Source(workdir, (), asked.step)
    other = Source(asked.regenerator) if asked.regenerator else source
    if attacks.REGENERATE in attacked:
        _check_regenerator(other, source)
    spec, (mark, text) = source.family.spec, read_key(asked.key, source)
    sampler = dataclasses.replace(chosen(source.family, asked.sampler or text), guidance=0.0)
    names, levels = editing_inputs.read(asked, spec)
    sets = {MARKED: sampling.to_uint8(levels, spec)}
    if asked.unmarked:
        others = dataclasses.replace(asked, inputs=asked.unmarked)
        sets[UNMARKED] = sampling.to_uint8(editing_inputs.read(others, spec)[1], spec)
    given = source.stated(asked.given, max(map(len, sets.values())), asked.seed)

    def tested(images: np.ndarray) -> Tested:
        told = {name: values[: len(images)] for name, values in given.items()}
        return mark.tested(source.inverted(sampler, _levels(images, spec), told).reshape(-1, *mark.shape))

    began = time.monotonic()
    seen = {attacks.NONE: sets} | {
        kind: {name: _attacked(images, kind, other, asked.seed + 2 * number + (name == UNMARKED))
               for name, images in sets.items()} for number, kind in enumerate(kinds, 1)
    }  # fmt: skip
    found = {kind: {name: tested(images) for name, images in several.items()} for kind, several in seen.items()}
    report = {
        'method': mark.name, 'inputs': len(names), 'unmarked': len(sets.get(UNMARKED, ())), **sampler.protocol,
        'evaluations_per_image': int(sampler.num_steps) if source.family.path is not None else 1,
        'seconds': round(time.monotonic() - began, 3), 'seed': asked.seed, 'false_alarm_rate': detection.RATE,
        'level': detection.LEVEL, **({'chance': mark.chance} if isinstance(mark, GaussianShading) else {}),
        'attacks': {kind: summary(**one) for kind, one in found.items()},
        'images': [_row(name, index, found[attacks.NONE][MARKED]) for index, name in enumerate(names)],
    }  # fmt: skip
    with new_folder(target) as folder:
        folder.joinpath(DETECTED).write_text(json.dumps(report, indent=2) + '\n')
        if kinds:
            _grid(folder / editing_inputs.GRID, np.stack([one[MARKED][:SHOWN] for one in seen.values()]), None)
    return [_line(kind, one) for kind, one in report['attacks'].items()]


def _levels(images: np.ndarray, spec: DataSpec) -> np.ndarray:
    """Integer images of these uint8 ones."""
    return np.round(images * ((spec.levels - 1) / 255)).astype(np.int32)


def _check_regenerator(other: Source, source: Source) -> None:
    """Raise a UserError if the run cannot noise and denoise images of this size."""
    family, spec = other.family, source.family.spec
    if (family.spec.shape, family.spec.levels) != (spec.shape, spec.levels):
        raise UserError(f'--regenerator models {family.spec}, but the images are {spec}.')
    _again(family, 1)


def _again(family: Family, percent: float) -> Sampler:
    """The sampler that takes the last steps from a noised original (SDEdit)."""
    if family.path is None or not family.from_noise:
        raise UserError(f'A {family.name} run cannot {attacks.REGENERATE} images, for it follows no path from noise to '
                        'images; name another run with --regenerator.')  # fmt: skip
    return samplers.parse(f'{inversion.usual(family)}:strength={percent / 100:g}', family)


def _attacked(images: np.ndarray, kind: str, other: Source, seed: int) -> np.ndarray:
    """uint8 images after an attack. `other` regenerates them."""
    name, percent = attacks.check(kind)
    if name != attacks.REGENERATE:
        return attacks.attacked(images, kind, seed)
    spec = other.family.spec
    return sampling.to_uint8(_regenerated(other, _levels(images, spec), percent, seed), spec)


def _regenerated(other: Source, levels: np.ndarray, percent: float, seed: int) -> np.ndarray:
    """Integer images whose noise differs from that of every sample of the run."""
    shown = np.asarray(other.family.spec.dequantise(jnp.asarray(levels)))
    keys = rng.of_images(rng.root(seed, 'regenerated'), 0, len(levels))
    noise = np.asarray(rng.normal(keys, 'start', other.family.space.shape))
    given = {**other.stated((), len(levels), seed), 'original': shown, 'noise': noise}
    return other.told(_again(other.family, percent), len(levels), seed, given)


def chosen(family: Family, text: str) -> Sampler:
    """The sampler of this text, or the usual one.

    Raises:
      UserError: the noise of its images cannot be found. The message says why.
    """
    sampler, why = inversion.chosen(family, text)
    if why:
        raise UserError(f'This run cannot have a watermark in its noise, which detection would not find: {why}.')
    if getattr(sampler.options, 'temperature', 1.0) != 1:
        raise UserError('A watermark is in noise of deviation 1; leave the option temperature out of the sampler.')
    return sampler


def _noise(family: Family, count: int, seed: int) -> np.ndarray:
    """The noise that these images start from (count, …), as for a family's own samples."""
    keys = sampling.image_keys(family, 'samples', seed, 0, count)
    return np.asarray(rng.normal(keys, 'start', family.latent_shape or family.space.shape))


def mark_of(family: Family, asked: Embedding) -> Mark:
    """The mark that the flags describe. Raise a UserError if there is none, or if this noise cannot carry it."""
    if asked.method not in watermarks.METHODS:
        raise UserError(f'There is no watermark {asked.method!r}; use {" or ".join(watermarks.METHODS)}. '
                        f'{did_you_mean(asked.method, watermarks.METHODS)}')  # fmt: skip
    shape, secret = family.space.shape, asked.secret or secrets.token_hex(16)
    method = watermarks.METHODS[asked.method]
    settings = {name: value for name in ('radius', 'message', 'bits', 'pads') if (value := getattr(asked, name))}
    taken = {field.name for field in dataclasses.fields(method)}
    for name in settings:
        if name not in taken:
            raise UserError(f'{asked.method} has no use for --{name}; leave it out.')
    if 'pads' in taken:
        settings.setdefault('pads', asked.count)
    return method(shape, secret, **settings)


def read_key(path: str, source: Source) -> tuple[Mark, str]:
    """The mark of a key file and the sampler of its images.

    Raises:
      UserError: the file cannot be read or was changed, or its images are from another checkpoint.
    """
    if pathlib.Path(path).is_dir():
        raise UserError(f'{path} is a folder; use --key={pathlib.Path(path) / KEY}.')
    told = reading.read_json(pathlib.Path(path), FILE, f'Use the {KEY} that genbench watermark embed wrote.')
    method, own = watermarks.METHODS.get(told['method']), source.identity
    if method is None or told['format'] != FORMAT:
        raise UserError(f'{path} has the method {told["method"]!r:.40} and the format {told["format"]}, which this '
                        'version of genbench does not know.')  # fmt: skip
    different = [name for name, value in told['run'].items() if own.get(name) != value]
    if different:
        name = different[0]
        raise UserError(f'{path} belongs to another run: its {name} is {told["run"][name]!r:.20}, and that of this run '
                        f'{own.get(name)!r:.20}; use the run and the step that drew the images.')  # fmt: skip
    if tuple(told['shape']) != source.family.space.shape:
        raise UserError(f'The noise of {path} has the shape {told["shape"]}, which does not fit this run; use the file '
                        'as genbench watermark embed wrote it.')  # fmt: skip
    settings = {name: told.get(name) for name in method.settings}
    lacking = [name for name, value in settings.items() if not value]
    if lacking:
        raise UserError(f'{path} has no {" and no ".join(lacking)}; use the file as genbench watermark embed wrote it.')
    try:
        return method(source.family.space.shape, told['secret'], **settings), told['sampler']
    except UserError as error:
        raise UserError(f'{path} was changed. {error} Use the file as genbench watermark embed wrote it.') from None


def summary(marked: Tested, unmarked: Tested | None = None) -> dict[str, Any]:
    """The numbers of one attack, each as value, low and high."""
    hits = {'detected': detection.share(marked.p_value <= detection.RATE)}
    if unmarked is not None:
        hits |= {
            'false_alarms': detection.share(unmarked.p_value <= detection.RATE),
            'auc': detection.auc(marked.score, unmarked.score),
        }
        if len(unmarked.score) >= detection.FEWEST:
            hits['tpr'] = detection.power(marked.score, unmarked.score)
    if 'message' in marked.more:
        hits['bit_accuracy'] = detection.mean(marked.score)
        if unmarked is not None:
            hits['unmarked_bit_accuracy'] = detection.mean(unmarked.score)
    return {name: one._asdict() for name, one in hits.items()}


def _row(name: str, index: int, found: Tested) -> dict[str, Any]:
    more = {key: values[index] for key, values in found.more.items()}
    said = {key: ''.join(map(str, one)) if np.ndim(one) else one.item() for key, one in more.items()}
    p_value = float(found.p_value[index])
    return {'name': name, 'detected': p_value <= detection.RATE, 'p_value': p_value,
            'score': float(found.score[index]), **said}  # fmt: skip


def _line(kind: str, found: dict[str, dict[str, float]]) -> str:
    words = {'detected': 'detected', 'false_alarms': 'false alarms', 'auc': 'AUC',
             'tpr': f'TPR at {detection.RATE:.0%} FPR', 'bit_accuracy': 'bit accuracy',
             'unmarked_bit_accuracy': 'bit accuracy without a mark'}  # fmt: skip
    told = (f'{words[name]} {one["value"]:.3f} [{one["low"]:.3f}, {one["high"]:.3f}]' for name, one in found.items())
    return f'{kind}: {", ".join(told)}'


def _target(out: str) -> pathlib.Path:
    if pathlib.Path(out).exists():
        raise UserError(f'{out} (--out) exists; choose a new folder.')
    return pathlib.Path(out)


def _save(folder: pathlib.Path, images: np.ndarray) -> None:
    folder.mkdir()
    for number, image in enumerate(images):
        pictures.of_array(image).save(folder / f'{number:04d}.png')


def _grid(path: pathlib.Path, rows: np.ndarray, spec: DataSpec | None) -> None:
    """Save images (rows, columns, …) as one picture: integers of a data set, or uint8 without one."""
    images = rows.reshape(-1, *rows.shape[2:])
    images = images if spec is None else sampling.to_uint8(images, spec)
    scale = max(1, 512 // max(images.shape[1:3]) // 8)
    Image.fromarray(sampling.grid(images, rows.shape[1], scale=scale)).save(path)

"""Edit a user's images with a model on a path: solve an inverse problem, vary an image, or reconstruct it.

A task is a sampler with options and what it is told of the images (docs/editing.md). Everything is computed before
anything is written.
"""

import dataclasses
import json
import pathlib
import time
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from PIL import Image

from genbench import rng
from genbench.data import degradations, pictures
from genbench.data.spec import DataSpec
from genbench.errors import UserError, did_you_mean, explained_disk_errors
from genbench.evaluation import editing_inputs, similarity, translating
from genbench.evaluation.draw import Source
from genbench.families import originals
from genbench.families.base import Family, Sampler
from genbench.interpolants import inverse
from genbench.training import samplers, sampling
from genbench.training.files import new_folder


@dataclasses.dataclass(frozen=True)
class Task:
    """A kind of edit.

    Attributes:
      problem: what is known of the result, as a sampler's option; '' for a task that starts at the input.
      sampler: the sampler, if nobody says.
    """

    problem: str
    sampler: str


LINEAR, GUIDED = 'ancestral:100:posterior=ddnm,resample=3', 'ddim:100:posterior=pigdm'
TASKS = {
    'inpaint': Task('box', LINEAR),
    'outpaint': Task('border', LINEAR),
    'super-resolve': Task('pool', LINEAR),
    'colourise': Task('grey', LINEAR),
    'deblur': Task('blur', GUIDED),
    'denoise': Task('noise', f'{GUIDED},noise=0.2'),
    'dejpeg': Task('jpeg', GUIDED),
    'vary': Task('', 'ddim:50:strength=0.5'),
    'reconstruct': Task('', 'ddim:100:start=inverted'),
    translating.TASK: Task('', ''),
}


@dataclasses.dataclass(frozen=True)
class Request:
    """The flags of `genbench edit`."""

    task: str
    inputs: Sequence[str]
    out: str
    problem: str = ''
    mask: str = ''
    sampler: str = ''
    count: int = 1
    seed: int = 0
    degrade: bool = False
    resize: bool = False
    given: Sequence[str] = ()
    source: str = ''
    source_given: Sequence[str] = ()
    data_dir: str = ''
    step: int | None = None


@dataclasses.dataclass(frozen=True)
class Scene:
    """What a task starts from.

    Attributes:
      names: of the inputs, for the names of files.
      levels: the inputs as integer images (n, …), if they have the size of the model's images.
      degradation: A, for a task with a problem.
      held: what the sampler is told of each image; see `data.conditions.apart`.
      shown: the inputs as the sampler sees them, in [−1, 1], as images.
      evaluations: network evaluations for each input, before sampling.
    """

    names: list[str]
    levels: np.ndarray
    degradation: degradations.Degradation | None
    held: dict[str, jax.Array]
    shown: jax.Array
    evaluations: int = 0


@explained_disk_errors()
def edit(workdir: str, asked: Request) -> list[str]:
    """Edit images, and write the results, a grid and what it cost to a new folder. Returns lines to print.

    Raises:
      UserError: the task, the run or an input does not exist or does not fit, or the family cannot do the task.
        Nothing is written then.
    """
    target = pathlib.Path(asked.out)
    if asked.task not in TASKS:
        raise UserError(f'There is no task {asked.task!r}. {did_you_mean(asked.task, TASKS)}')
    if target.exists():
        raise UserError(f'{asked.out} (--out) exists; choose a new folder.')
    if asked.count < 1:
        raise UserError(f'--count is {asked.count}; it should be at least 1.')
    if (asked.source or asked.source_given) and asked.task != translating.TASK:
        flag = '--source' if asked.source else '--source-given'
        raise UserError(f'{asked.task} has no use for {flag}, which belongs to {translating.TASK}.')
    source = Source(workdir, (), asked.step)
    began = time.monotonic()
    if asked.task == translating.TASK:
        sampler, scene = translated(source, asked)
    else:
        sampler = chosen(source.family, asked)
        scene = observe(source.family.spec, sampler, asked)
    count = len(scene.names)
    held = jax.device_get({key: jnp.repeat(values, asked.count, axis=0) for key, values in scene.held.items()})
    given = {**source.stated(asked.given, count * asked.count, asked.seed), **held}
    drawn = source.told(sampler, count * asked.count, asked.seed, given)
    seconds = time.monotonic() - began
    drawn = drawn.reshape(count, asked.count, *drawn.shape[1:])
    report = _report(source.family, sampler, scene, drawn, asked, seconds)
    _write(target, source.family.spec, scene, drawn, report)
    told = ', '.join(f'{key} {report[key]:.4g}' for key in ('psnr', 'ssim', 'misfit') if key in report)
    return [f'{count * asked.count} images written to {asked.out} with {report["evaluations_per_image"]} network '
            f'evaluations an image in {seconds:.1f} s' + (f': {told}' if told else '')]  # fmt: skip


def chosen(family: Family, asked: Request) -> Sampler:
    """The sampler of a task. What --sampler leaves out comes from the task, if both have the same problem.

    Raises:
      UserError: the family's mathematics do not admit the task, or the sampler is wrong.
    """
    task = TASKS[asked.task]
    if family.spec.is_plane:
        raise UserError(f'{asked.task} edits pictures, but this run models points of a plane.')
    if family.path is None:
        source = 'latents' if family.latent_shape else 'pixels or codes'
        raise UserError(f'This {family.name} run cannot {asked.task}: the task follows a path from noise to images '
                        f'with a network that denoises, and {family.name} makes images from {source} without one.'
                        )  # fmt: skip
    usual = _usual(task, family)
    written = samplers.read(asked.sampler) if asked.sampler else usual
    _check_problem(asked, task, written)
    problem = degradations.GIVEN if asked.mask else asked.problem or task.problem
    options = {**({'problem': problem} if problem else {}), **written.options}
    if asked.sampler and problem:
        own = 'posterior' in written.options  # then how often to repeat is for the user to say as well
        options = {key: value for key, value in usual.options.items() if not own or key == 'noise'} | options
    elif asked.sampler and not {'strength', 'start'} & {*options}:
        options |= usual.options
    return _rounded(samplers.build(written._replace(options=options), family), family.spec, asked)


def _usual(task: Task, family: Family) -> samplers.Written:
    """The task's sampler, or the family's first with a solver that it admits, for a network that jumps."""
    usual, kind = samplers.read(task.sampler), getattr(family, 'kind', 'denoiser')
    posterior, fitting = usual.options.get('posterior'), inverse.fitting(kind)
    if posterior and posterior not in fitting:
        usual = usual._replace(options={**usual.options, 'posterior': fitting[-1]})
    if usual.name not in family.samplers:
        first = samplers.default(family)
        usual = usual._replace(text=first.name, name=first.name, steps=None)
    return usual


def _check_problem(asked: Request, task: Task, written: samplers.Written) -> None:
    """Raise a UserError if the flags state a problem that the task cannot have, or two."""
    stated = {'--problem': asked.problem, '--mask': asked.mask, '--sampler': written.options.get('problem', '')}
    flags = [flag for flag, value in stated.items() if value]
    if asked.mask and task.problem not in ('box', 'border'):
        raise UserError(f'{asked.task} has no use for --mask; use inpaint or outpaint.')
    if flags and not task.problem:
        raise UserError(f'{asked.task} starts at the input and has no problem; leave the problem in {flags[0]} out.')
    if asked.degrade and not task.problem:
        raise UserError(f'{asked.task} starts at the input and degrades nothing; leave out --degrade.')
    if len(flags) > 1:
        raise UserError(f'{" and ".join(flags)} both say what is known of the images; use only one of them.')
    if degradations.GIVEN in stated.values():
        raise UserError(f'The problem {degradations.GIVEN} is a picture that is white where the image is kept; leave '
                        f'it out of {flags[0]}, and add --mask=FILE to inpaint or outpaint.')  # fmt: skip
    try:
        degradations.read(asked.problem or task.problem or degradations.GIVEN)
    except ValueError as error:
        raise UserError(f'--problem is {asked.problem[:60]}; it can be {error}.') from None


def translated(source: Source, asked: Request) -> tuple[Sampler, Scene]:
    """The sampler of a translation, and its inputs as noise.

    Raises:
      UserError: a flag makes no sense, or one of the two models has no inverse.
    """
    sampler = translating.chosen(source.family, asked.sampler)
    _check_problem(asked, TASKS[asked.task], samplers.read(asked.sampler or sampler.name))
    if not (asked.source or asked.source_given or asked.given):
        raise UserError('translate needs something to translate between: --source=RUN, or conditions of the inputs and '
                        'of the results, --source-given and --given.')  # fmt: skip
    if asked.count > 1:
        raise UserError(f'--count is {asked.count}, but all translations of an image are equal; leave it out.')
    other, spec = translating.encoder(asked.source, source), source.family.spec
    names, levels = editing_inputs.read(asked, other.family.spec)
    first = translating.chosen(other.family, asked.sampler)
    noise, evaluations = translating.inverted(other, first, levels, asked.source_given, asked.seed)
    levels = translating.converted(levels, other.family.spec, spec)
    shown = spec.dequantise(jnp.asarray(levels))
    return sampler, Scene(names, levels, None, {'noise': jnp.asarray(noise)}, shown, evaluations)


def _rounded(sampler: Sampler, spec: DataSpec, asked: Request) -> Sampler:
    """The sampler with at least the noise of rounding, unless what is known are pixels as they are.

    What is read from a file has been rounded. Without rounding, an ill-conditioned A would show the image itself.
    """
    problem = sampler.options.problem
    if not problem or problem == degradations.GIVEN:
        return sampler
    degradation = degradations.make(problem, spec.shape)
    if isinstance(degradation, degradations.Mask) or (asked.degrade and degradation.condition <= inverse.ILL):
        return sampler
    least = rounding(spec.levels)
    return dataclasses.replace(
        sampler, options=dataclasses.replace(sampler.options, noise=max(sampler.options.noise, least))
    )


def rounding(levels: int) -> float:
    """The standard deviation of rounding to this number of levels in [−1, 1], of a uniform error."""
    return 2 / (levels - 1) / 12**0.5


def observe(spec: DataSpec, sampler: Sampler, asked: Request) -> Scene:
    """Read the inputs, and say what is known of each image."""
    options, held = sampler.options, {}
    if asked.mask:
        white = editing_inputs.one(asked.mask, spec, asked.resize)[None]
        held['known'] = jnp.asarray(spec.dequantise(jnp.asarray(white)).mean(-1, keepdims=True) > 0, jnp.float32)
    if not options.problem:
        names, levels = editing_inputs.read(asked, spec)
        shown = spec.dequantise(jnp.asarray(levels))
        return Scene(names, levels, None, {'original': shown}, shown)
    degradation = originals.degradation(options.problem, spec.shape, held)
    height, width, channels = degradation(jnp.zeros((1, *spec.shape))).shape[1:]
    small = (height, width) != spec.shape[:2] and not asked.degrade
    seen = dataclasses.replace(spec, shape=(height, width, spec.shape[2])) if small else spec
    names, levels = editing_inputs.read(asked, seen, f'{options.problem} shows' if small else '')
    x = seen.dequantise(jnp.asarray(levels))
    if asked.degrade:
        y = degradation(x)
        keys = rng.of_images(rng.root(asked.seed, 'degraded'), 0, len(names))
        y = degradation.shown(y + options.noise * rng.normal(keys, 'observed', y.shape[1:]))
    else:  # the input is what a degradation left, which these show once more
        again = isinstance(degradation, degradations.Mask) or channels < spec.shape[2]
        y = degradation(x) if again else x
    held = {name: jnp.repeat(values, len(names), axis=0) for name, values in held.items()} | {'observed': y}
    return Scene(names, levels, degradation, held, degradation.inverse(y) if y.shape[1:] != spec.shape else y)


def _report(
    family: Family, sampler: Sampler, scene: Scene, drawn: np.ndarray, asked: Request, seconds: float
) -> dict[str, Any]:
    """What was done, at what cost, and how close the results are to what is known."""
    spec, options, evaluations = family.spec, sampler.options, family.evaluations(sampler) + scene.evaluations
    solves = scene.degradation is not None and inverse.METHODS[options.posterior].differentiates
    shape = (-1, *spec.shape)
    report: dict[str, Any] = {
        'task': asked.task, **sampler.protocol, 'inputs': len(scene.names), 'count': asked.count, 'seed': asked.seed,
        'evaluations_per_image': evaluations, 'gradients_through_the_network': solves, 'seconds': round(seconds, 3),
    }  # fmt: skip
    results = drawn.reshape(shape)
    if scene.degradation is not None:
        x = spec.dequantise(jnp.asarray(results))
        y = jnp.repeat(scene.held['observed'], asked.count, axis=0)
        known = {name: jnp.repeat(values, asked.count, axis=0) for name, values in scene.held.items()}
        apart = originals.degradation(options.problem, spec.shape, known).distance(y, x)
        report['misfit'] = float(jnp.sqrt(jnp.mean(jnp.square(apart))))
    if scene.degradation is None or asked.degrade:
        pairs = (sampling.to_uint8(part, spec) for part in (np.repeat(scene.levels, asked.count, axis=0), results))
        one, other = pairs
        report['psnr'] = float(np.mean(np.minimum(similarity.psnr(one, other), 99.0)))
        if min(spec.shape[:2]) >= similarity.WINDOW:
            report['ssim'] = float(np.mean(similarity.ssim(one, other)))
    return report


def _write(target: pathlib.Path, spec: DataSpec, scene: Scene, drawn: np.ndarray, report: dict[str, Any]) -> None:
    with new_folder(target) as folder:
        _fill(folder, spec, scene, drawn, report)


def _fill(folder: pathlib.Path, spec: DataSpec, scene: Scene, drawn: np.ndarray, report: dict[str, Any]) -> None:
    for name, several in zip(scene.names, drawn, strict=True):
        for number, image in enumerate(sampling.to_uint8(several, spec)):
            which = f'-{number + 1}' if len(several) > 1 else ''
            pictures.of_array(image).save(folder / f'{name}{which}.png')
    seen = np.asarray(spec.quantise(jnp.clip(scene.shown, -1, 1)))[:, None]
    rows = np.concatenate([seen, drawn], axis=1).reshape(-1, *spec.shape)
    scale = max(1, 512 // max(spec.shape[:2]) // 8)
    picture = sampling.grid(sampling.to_uint8(rows, spec), 1 + drawn.shape[1], scale=scale)
    Image.fromarray(picture).save(folder / editing_inputs.GRID)
    (folder / editing_inputs.REPORT).write_text(json.dumps(report, indent=2) + '\n')

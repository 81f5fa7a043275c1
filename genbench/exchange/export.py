"""Export a run's weights for other programs."""

import json
import pathlib
import shutil
from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np

from genbench import config as configs
from genbench.errors import UserError, explained_disk_errors
from genbench.evaluation import results
from genbench.exchange import card, diffusers, diffusers_dit, safetensors
from genbench.networks.dit import DiT
from genbench.training import runs
from genbench.training import state as states

Files = dict[str, bytes]  # the contents, by file name in the exported folder


@explained_disk_errors()
def export(
    workdir: str, out: str, format: str, *, average: str = '', step: int | None = None, licence: str = ''
) -> list[str]:
    """Write a checkpoint's weights, the config, the results and a model card into a new folder.

    Args:
      format: one of FORMATS.
      average: the average of the parameters to export; '': the one that the config evaluates.
      step: the step of the checkpoint; None: the newest.
      licence: the licence of the weights, for the card.

    Returns:
      One line per file.

    Raises:
      UserError: there is no run or checkpoint, the format cannot hold the run, or `out` exists or is inside the run.
        Nothing is written then.
    """
    target = pathlib.Path(out)
    if target.exists():
        raise UserError(f'{out} (--out) exists; choose a new folder.')
    run = runs.open_run(workdir)
    if target.resolve().is_relative_to(run.folder.path.resolve()):
        raise UserError(f'{out} (--out) is inside the run {workdir}; '
                        'choose a folder outside it.')  # fmt: skip
    step, state = run.restore(step)
    blueprint, state = run.networks(step, state, average or run.config.evaluation.average, what='--average')
    average = (average or run.config.evaluation.average) if blueprint.averages else 'current'
    rows = [row for row in results.read(run.folder.results) if row.get('checkpoint_step') == step]
    files, use, library = FORMATS[format](run, blueprint, jax.device_get(state))
    files['README.md'] = card.text(run, step, average, rows, use, licence, library).encode()
    files['config.json'] = configs.to_json(run.config).encode()
    files['results.jsonl'] = ''.join(json.dumps(row) + '\n' for row in rows).encode()
    partial = target.with_name(f'{target.name}.part')
    shutil.rmtree(partial, ignore_errors=True)
    for name, content in files.items():
        path = partial / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    partial.rename(target)
    return [f'{target / name}: {len(files[name]):,} bytes' for name in sorted(files)]


def _safetensors(run: runs.Run, blueprint: states.Blueprint, state: Any) -> tuple[Files, list[str], str]:
    """All variables of all networks, and of borrowed runs that sampling needs, by their names in the training state."""
    arrays = dict(named(state))
    if not arrays:
        raise UserError(f'{run.folder.path} has no weights, because its networks have no variables.')
    use = [
        '`model.safetensors` has every variable of the networks under its path, NETWORK.LAYER.…. Kernels have the '
        'axes of JAX: (height, width, inputs, outputs) for convolutions, (inputs, outputs) for dense layers.',
        '',
        '```python',
        'from safetensors.numpy import load_file',
        '',
        "weights = load_file('model.safetensors')",
        '```',
    ]
    return {'model.safetensors': safetensors.encode(arrays, {'format': 'flax'})}, use, 'genbench'


def named(state: Mapping[str, Any], prefix: str = '') -> list[tuple[str, np.ndarray]]:
    """The variables of a state, including borrowed ones, by their names in a file."""
    variables = [
        (prefix + name.replace('/', '.'), np.asarray(value))
        for part in ('params', 'aux')
        for name, value in states.flatten(state[part]).items()
    ]
    lent = [pair for name, one in state.get('lent', {}).items() for pair in named(one, f'{prefix}borrowed.{name}.')]
    return [*variables, *lent]


def layout_of(module: Any) -> Any:
    """The layout for a network, which checks whether it can hold it. Subclasses of a DiT have other layers."""
    return diffusers_dit if type(module) is DiT else diffusers


def _diffusers(run: runs.Run, blueprint: states.Blueprint, state: Any) -> tuple[Files, list[str], str]:
    """The only network of a family, a U-Net or a DiT, and the diffusers scheduler if one fits."""
    family, options = blueprint.family, run.config.network
    networks = dict(blueprint.bind_state(state))
    if len(networks) != 1 or state.get('lent'):
        held = ', '.join([*networks, *(f'{name} (borrowed)' for name in state.get('lent', {}))])
        raise UserError(f"diffusers' layout has one network, but this run has {held}. Use --format=safetensors.")
    ((name, module),) = networks.items()
    layout = layout_of(module)
    layout.check(options, name, module, family.forms)
    size, _, channels = family.spec.shape
    classes = sum(form.size for form in family.forms.values())
    settings = layout.settings(options, module, size, channels, classes)
    prediction, clip = getattr(family, 'prediction', ''), run.config.family.get('clip', False)
    learned = settings['out_channels'] != channels
    scheduler = diffusers.scheduler(family.path, prediction, options.time_scale, clip, learned)
    arrays = layout.weights(state['params'][name], options, one_late=scheduler is not None)
    files = {
        f'{layout.FOLDER}/config.json': _json(settings),
        f'{layout.FOLDER}/diffusion_pytorch_model.safetensors': safetensors.encode(arrays, {'format': 'pt'}),
    }
    lines = [
        f'`{layout.FOLDER}/` has the network for `diffusers.{layout.CLASS}` (the layout of version '
        f'{diffusers.VERSION}). It predicts `{prediction}` on the path `{getattr(family.path, "name", "")}` of '
        f'genbench. Pixels lie in [−1, 1], level k of {family.spec.levels} at (2k + 1) / {family.spec.levels} − 1.'
    ]
    if classes:
        lines.append(f'Class {classes} means no class.')
    if scheduler is None:
        lines.append(f'diffusers has no scheduler for this path. Call the network with timestep = '
                     f'{options.time_scale:g} · c(t), where c(t) is how genbench encodes the time t.')  # fmt: skip
    else:
        files['scheduler/scheduler_config.json'] = _json(scheduler)
        lines.append('`scheduler/` has the chain of its training; its step n is step n + 1 in genbench.')
    if layout is diffusers_dit:
        lines += _loading_a_dit(classes)
    elif scheduler is not None and not classes:
        files['model_index.json'] = _json({
            '_class_name': 'DDPMPipeline', '_diffusers_version': diffusers.VERSION,
            'scheduler': ['diffusers', 'DDPMScheduler'], 'unet': ['diffusers', diffusers.CLASS],
        })  # fmt: skip
    return files, lines, 'diffusers'


def _loading_a_dit(classes: int) -> list[str]:
    unasked = [] if classes else ['The network has no classes: pass zeros as `class_labels`.']
    return [
        *unasked,
        'The time frequencies of diffusers differ from those of the official DiT code and of genbench. Correct '
        'them right after loading, or the network will compute something else:',
        '',
        '```python',
        f'from diffusers import {diffusers_dit.CLASS}',
        '',
        f"transformer = {diffusers_dit.CLASS}.from_pretrained('{diffusers_dit.FOLDER}')",
        *diffusers_dit.FREQUENCIES,
        '```',
    ]


def _json(values: Any) -> bytes:
    return (json.dumps(values, indent=2) + '\n').encode()


FORMATS: dict[str, Callable[[runs.Run, states.Blueprint, Any], tuple[Files, list[str], str]]] = {
    'safetensors': _safetensors,
    'diffusers': _diffusers,
}

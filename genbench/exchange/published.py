"""Import published weights as a finished run that can be sampled, evaluated, distilled and built on like any other."""

import hashlib
import json
import pathlib
import shutil
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from genbench import config as configs
from genbench import reading
from genbench.config import Config
from genbench.errors import UserError, explained_disk_errors
from genbench.exchange import diffusers, score_models
from genbench.families.base import Family
from genbench.networks import torch_file, weights
from genbench.networks.unet import UNet
from genbench.training import loop, runs
from genbench.training import mesh as meshes
from genbench.training import state as states
from genbench.training.checkpoint import Checkpoints
from genbench.training.files import write_atomically
from genbench.training.prepared import prepare

NAMES = ('diffusion_pytorch_model.safetensors', 'diffusion_pytorch_model.bin')
# The names of attention layers before version 0.14.
_FORMER = {'query': 'to_q', 'key': 'to_k', 'value': 'to_v', 'proj_attn': 'to_out.0'}
# The keys in which UNet2DModel's config and ours must agree, with their defaults in its config.
_DEFAULTS = {
    'block_out_channels': None, 'layers_per_block': 2, 'down_block_types': None, 'up_block_types': None,
    'add_attention': True, 'attention_head_dim': 8, 'norm_num_groups': 32, 'norm_eps': 1e-5, 'act_fn': 'silu',
    'time_embedding_type': 'positional', 'freq_shift': 0, 'flip_sin_to_cos': True, 'downsample_padding': 1,
    'num_class_embeds': None, 'in_channels': 3, 'out_channels': 3,
}  # fmt: skip


@explained_disk_errors()
def import_weights(source: str, config: Config, workdir: str) -> list[str]:
    """Make a run from a config and the weights of its only network, from a diffusers folder or a checkpoint file.

    The weights become those of the last step and of all averages. The data set need not be prepared.

    Args:
      source: a folder with `config.json` and the weights, or with a subfolder `unet` that has them; or a checkpoint of
        EDM or score SDE.
      config: the resolved config, whose network must match the weights.
      workdir: a new folder.

    Raises:
      UserError: the weights are missing or belong to another network, or the folder exists. Nothing is written then.
    """
    target, path = pathlib.Path(workdir), pathlib.Path(source)
    if target.exists():
        raise UserError(f'{workdir} (--workdir) exists; choose a new folder.')
    if not path.exists():
        raise UserError(f'There is no file or folder {source}.')
    family = prepare(config, mesh=meshes.make_mesh(devices=jax.devices()[:1]), on_noise=True).family
    blueprint = states.Blueprint(family)
    if len(blueprint.shapes['params']) != 1 or family.borrowed or len(family.stages) > 1:
        raise UserError(f'Published weights belong to one network, but a run of {family.name} has more.')
    file, params, aux = (_of_file if path.is_file() else _of_folder)(path, family, blueprint)
    state = jax.jit(blueprint.fresh_state)(params, aux)
    state = {**state, 'step': jnp.asarray(config.train.num_steps, jnp.int32)}
    partial = target.with_name(f'{target.name}.part')
    shutil.rmtree(partial, ignore_errors=True)
    _write(runs.Folder(partial), config, family, state, file)
    partial.rename(target)
    number = states.count(state['params'])
    return [f'{target}: {number:,} parameters from {file}. Next: genbench evaluate {target}']


def _of_folder(path: pathlib.Path, family: Family, blueprint: states.Blueprint) -> tuple[pathlib.Path, Any, Any]:
    """The file of a U-Net in diffusers' layout, and the U-Net's variables."""
    config, folder = family.config.network, _folder(path)
    ((name, like),) = blueprint.shapes['params'].items()
    if config.name != 'unet':
        raise UserError(f"A folder in diffusers' layout needs network.name=unet; it is {config.name}.")
    _check_settings(family, name, blueprint, folder)
    late = diffusers.scheduler(family.path, getattr(family, 'prediction', ''), config.time_scale, True)
    file = next(folder / one for one in NAMES if (folder / one).is_file())
    return file, {name: parameters(_read(file), like, config, late is not None)}, blueprint.shapes['aux']


def _of_file(path: pathlib.Path, family: Family, blueprint: states.Blueprint) -> tuple[pathlib.Path, Any, Any]:
    """The same for a checkpoint of EDM or score SDE."""
    return path, *placed(score_models.variables(path, family), blueprint, str(path))


def placed(variables: Mapping[str, np.ndarray], blueprint: states.Blueprint, source: str) -> tuple[Any, Any]:
    """Arrange arrays, given by their paths in the network, as the parameters and other variables of a run.

    Raises:
      UserError: an array is missing, has another shape, or is not expected.
    """
    (name,) = blueprint.shapes['params']
    left = {f'{name}/{at}': value for at, value in variables.items()}

    def take(at: Any, leaf: Any) -> np.ndarray:
        where = '/'.join(str(key.key) for key in at)
        found = left.pop(where, None)
        if found is None or found.shape != leaf.shape:
            there = 'none' if found is None else found.shape
            raise UserError(f'{source} is for another network: {where} has the shape {there} there, but {leaf.shape} '
                            'here.')  # fmt: skip
        return found

    params, aux = (jax.tree_util.tree_map_with_path(take, blueprint.shapes[part]) for part in ('params', 'aux'))
    if left:
        raise UserError(f'{source} is for another network: it has {next(iter(left))}, but this config does not.')
    return params, aux


def _folder(source: pathlib.Path) -> pathlib.Path:
    for folder in (source, source / 'unet'):
        if (folder / 'config.json').is_file() and any((folder / name).is_file() for name in NAMES):
            return folder
    raise UserError(f'{source} has no config.json with {" or ".join(NAMES)}, and no folder unet.')


def _check_settings(family: Family, name: str, blueprint: states.Blueprint, folder: pathlib.Path) -> None:
    """Raise a UserError if the folder's U-Net would compute something else with the same weights."""
    config, shapes = family.config.network, blueprint.shapes
    module: Any = blueprint.bind(shapes['params'], shapes['aux'])[name]
    diffusers.check(config, name, module, family.forms)
    assert isinstance(module, UNet)
    size, _, channels = family.spec.shape
    classes = sum(form.size for form in family.forms.values())
    wanted = diffusers.settings(config, module, size, channels, classes)
    found = {**_DEFAULTS, **reading.read_json(folder / 'config.json', dict)}
    for key in _DEFAULTS:
        if found[key] != wanted[key]:
            raise UserError(f'{folder} is for another network than the config: {key} is {found[key]} there, but '
                            f'{wanted[key]} here.')  # fmt: skip


def _read(file: pathlib.Path) -> dict[str, np.ndarray]:
    read = weights.read_safetensors if file.suffix == '.safetensors' else torch_file.read

    def renamed(name: str) -> str:
        for old, new in _FORMER.items():
            name = name.replace(f'.{old}.', f'.{new}.') if '.attentions.' in name else name
        return name

    return {renamed(name): np.asarray(value, np.float32) for name, value in read(file).items()}


def parameters(found: Mapping[str, np.ndarray], like: Any, config: Any, one_late: bool) -> Any:
    """The inverse of `diffusers.weights`: parameters with the structure and the shapes of `like`.

    Raises:
      UserError: an array is missing, has another shape, or is not expected.
    """
    leaves, structure = jax.tree.flatten(like)
    ends = np.cumsum([0, *(int(np.prod(leaf.shape)) for leaf in leaves)])
    places = [np.arange(a, b).reshape(leaf.shape) for a, b, leaf in zip(ends[:-1], ends[1:], leaves, strict=True)]
    wanted = diffusers.weights(jax.tree.unflatten(structure, places), config, one_late=False)
    for name in [*wanted, *found]:
        there, here = (np.shape(held[name]) if name in held else 'none' for held in (found, wanted))
        if there != here:
            raise UserError(
                f'These weights are for another network: {name} has the shape {there} there, but {here} here.'
            )
    flat = np.empty(ends[-1], np.float32)
    for name, place in wanted.items():
        back = one_late and name == 'time_embedding.linear_1.weight'
        flat[place] = diffusers.rotated(found[name], -1) if back else found[name]
    return jax.tree.unflatten(structure, [flat[place] for place in places])


def _write(folder: runs.Folder, config: Config, family: Family, state: Any, file: pathlib.Path) -> None:
    runs.claim(folder, config)
    checkpoints = Checkpoints(folder.checkpoints, loop.retention(family))
    digest = checkpoints.save(config.train.num_steps, state)
    checkpoints.close()
    source = {'file': str(file.resolve()), 'sha256': hashlib.sha256(file.read_bytes()).hexdigest()}
    manifest = {**runs.manifest(family, state['params'], {}), 'imported': source}
    write_atomically(folder.manifest, json.dumps(manifest, indent=2) + '\n')
    summary = {
        'family': family.name, 'dataset': family.spec.name, 'config_hash': configs.config_hash(config),
        'complete': True, 'step': config.train.num_steps, 'training_seconds': 0.0, 'images_per_second': 0.0,
        'state_sha256': digest, 'imported': source,
    }  # fmt: skip
    write_atomically(folder.summary, json.dumps(summary, indent=2) + '\n')

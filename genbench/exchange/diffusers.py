"""A U-Net in the layout of Hugging Face diffusers: the class UNet2DModel of its version 0.42.

Both are DDPM's U-Net (Ho et al. 2020, appendix B), so every layer has a counterpart. There are two differences:
diffusers orders axes as (outputs, inputs, height, width), and genbench has queries, keys and values in one layer.

UNet2DModel takes a step where genbench has a time. It is called with step = time_scale · t, where t is the network's
view of the time. With DDPM's βs, the steps are whole numbers. Its step n = 0 … 999 is genbench's step n + 1, as step 0
is the data here. The sinusoids of n + 1 are those of n rotated by fixed angles. The layer after them absorbs the
rotation, so that a `DDPMScheduler` fits.
"""

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from genbench.data.conditions import Form
from genbench.errors import UserError
from genbench.networks.unet import UNet

Tree = Mapping[str, Any]
Arrays = dict[str, np.ndarray]
CLASS, FOLDER = 'UNet2DModel', 'unet'
VERSION = '0.42.1'  # the version of diffusers that defines the layout
STEPS, FIRST_BETA, LAST_BETA = 1000, 1e-4, 0.02  # DDPM's linear schedule, genbench.interpolants.schedules.linear
PREDICTIONS = {'noise': 'epsilon', 'x': 'sample', 'v': 'v_prediction'}  # as DDPMScheduler calls them


def check(config: Any, name: str, module: Any, forms: Mapping[str, Form]) -> None:
    """Raise a UserError with the reason if the layout cannot hold this network of a run."""
    refuse = f"diffusers' layout cannot hold the network {name}:"
    if not isinstance(module, UNet):
        raise UserError(f'{refuse} it is neither a unet nor a dit. Use --format=safetensors.')
    check_inputs(CLASS, name, module, forms)
    groups = sorted(set(_groups(module)))
    if len(groups) > 1:
        raise UserError(f'{refuse} its normalisations have {" and ".join(map(str, groups))} groups, but {CLASS} has '
                        'one number for all. Use --format=safetensors.')  # fmt: skip
    if config.multipliers[0] != 1:
        raise UserError(f'{refuse} network.multipliers begins with {config.multipliers[0]}, but the first layers of '
                        f'{CLASS} are as wide as its first resolution. Use --format=safetensors.')  # fmt: skip
    wide = {width for width, attends in zip(config.multipliers, _attending(config, module), strict=True) if attends}
    if config.heads > 1 and wide | {config.multipliers[-1]} != {config.multipliers[-1]}:
        raise UserError(f'{refuse} its attention has {config.heads} heads at several widths, but {CLASS} fixes the '
                        'width of a head. Use --format=safetensors.')  # fmt: skip


def check_inputs(layout: str, name: str, module: Any, forms: Mapping[str, Form]) -> None:
    """Raise a UserError if a network takes more than a time and a class."""
    refuse = f"diffusers' layout cannot hold the network {name}:"
    if [form.type for form in forms.values()] not in ([], ['classes']):
        raise UserError(f'{refuse} {layout} takes only a class as a condition, but this run has {", ".join(forms)}. '
                        'Use --format=safetensors.')  # fmt: skip
    if module.conditioning.distance is not None:
        raise UserError(f'{refuse} it takes two times, but {layout} takes one. Use --format=safetensors.')


def _groups(module: UNet) -> Iterator[int]:
    levels = [layer for layer in (*module.down, *module.middle, *module.up) if hasattr(layer, 'block')]
    for level in levels:
        yield from (level.block.norm_in.groups, level.block.norm_out.groups)
        if level.attention is not None:
            yield level.attention.norm.groups
    yield module.norm_out.groups


def _attending(config: Any, module: UNet) -> list[bool]:
    """Whether attention follows the blocks of each resolution."""
    levels = [layer for layer in module.down if hasattr(layer, 'block')]
    return [levels[depth * config.blocks].attention is not None for depth in range(len(config.multipliers))]


def settings(config: Any, module: UNet, size: int, channels: int, classes: int) -> dict[str, Any]:
    """The file config.json of the U-Net.

    Args:
      config: the section `network` of the run's config.
      size, channels: the size and channels of the images.
      classes: the number of the condition's classes, without the one that stands for no class; 0 without a condition.
    """
    attends = _attending(config, module)
    head = None if config.heads == 1 else config.channels * config.multipliers[-1] // config.heads
    return {
        '_class_name': CLASS,
        '_diffusers_version': VERSION,
        'sample_size': size,
        'in_channels': channels,
        'out_channels': module.conv_out.kernel.shape[-1],
        'block_out_channels': [config.channels * multiplier for multiplier in config.multipliers],
        'layers_per_block': config.blocks,
        'down_block_types': ['AttnDownBlock2D' if one else 'DownBlock2D' for one in attends],
        'up_block_types': ['AttnUpBlock2D' if one else 'UpBlock2D' for one in reversed(attends)],
        'add_attention': bool(config.attention),
        'attention_head_dim': head,
        'norm_num_groups': module.norm_out.groups,
        'norm_eps': 1e-6,
        'dropout': config.dropout,
        'act_fn': 'silu',
        'time_embedding_type': 'positional',
        'freq_shift': 1,
        'flip_sin_to_cos': False,
        'downsample_padding': 0,
        'num_class_embeds': classes + 1 if classes else None,  # the last one means no class
    }


def weights(params: Tree, config: Any, one_late: bool) -> Arrays:
    """The parameters of a U-Net by their names in diffusers.

    Args:
      params: nested dicts, as in the training state.
      config: the section `network` of the run's config.
      one_late: step n in diffusers is step n + 1 here.
    """
    found = _convolution('conv_in', params['conv_in'])
    embedding = params['conditioning']
    hidden = linear('time_embedding.linear_1', embedding['hidden'])
    if one_late:
        hidden['time_embedding.linear_1.weight'] = rotated(hidden['time_embedding.linear_1.weight'], 1)
    found |= hidden | linear('time_embedding.linear_2', embedding['output'])
    for entry in embedding.get('entries', {}).values():
        found['class_embedding.weight'] = np.asarray(entry['embedding'])
    for side, per, sampler in (('down', config.blocks, 'downsamplers'), ('up', config.blocks + 1, 'upsamplers')):
        layers = [params[side][key] for key in sorted(params[side], key=int)]
        found |= _side(f'{side}_blocks', layers, per, sampler)
    for index, key in enumerate(sorted(params['middle'], key=int)):
        found |= _level('mid_block', index, params['middle'][key])
    return found | _norm('conv_norm_out', params['norm_out']) | _convolution('conv_out', params['conv_out'])


def _side(name: str, layers: list[Tree], per: int, sampler: str) -> Arrays:
    """One half of the U-Net: `per` levels at each resolution, then the layer that changes the resolution."""
    found: Arrays = {}
    depth = index = 0
    for layer in layers:
        if 'block' in layer:
            found |= _level(f'{name}.{depth}', index, layer)
            index += 1
        else:
            assert index == per
            found |= _convolution(f'{name}.{depth}.{sampler}.0.conv', layer['conv'])
            depth, index = depth + 1, 0
    return found


def _level(name: str, index: int, level: Tree) -> Arrays:
    block, into = level['block'], f'{name}.resnets.{index}'
    found = _norm(f'{into}.norm1', block['norm_in']) | _convolution(f'{into}.conv1', block['conv_in'])
    found |= linear(f'{into}.time_emb_proj', block['condition'])
    found |= _norm(f'{into}.norm2', block['norm_out']) | _convolution(f'{into}.conv2', block['conv_out'])
    if projection := _at(level, 'block/shortcut'):  # a 1×1 convolution in diffusers
        layer = linear(f'{into}.conv_shortcut', projection)
        found |= {key: value[..., None, None] if value.ndim == 2 else value for key, value in layer.items()}
    return found | (_attention(f'{name}.attentions.{index}', level['attention']) if 'attention' in level else {})


def _at(tree: Tree, path: str) -> Tree:
    """The subtree at a path; {} if there is none."""
    for part in path.split('/'):
        tree = tree.get(part, {})
    return tree


def _attention(name: str, params: Tree) -> Arrays:
    found = _norm(f'{name}.group_norm', params['norm']) | linear(f'{name}.to_out.0', params['output'])
    return found | queries_keys_values(name, params['inputs'])


def queries_keys_values(name: str, params: Tree) -> Arrays:
    """Split the joint layer of queries, keys and values into three layers."""
    found: Arrays = {}
    kernels, biases = (np.split(np.asarray(params[part]), 3, axis=-1) for part in ('kernel', 'bias'))
    for letter, kernel, bias in zip('qkv', kernels, biases, strict=True):
        found |= {f'{name}.to_{letter}.weight': kernel.T, f'{name}.to_{letter}.bias': bias}
    return found


def _convolution(name: str, params: Tree) -> Arrays:
    return {f'{name}.weight': np.asarray(params['kernel']).transpose(3, 2, 0, 1), f'{name}.bias': _bias(params)}


def linear(name: str, params: Tree) -> Arrays:
    return {f'{name}.weight': np.asarray(params['kernel']).T, f'{name}.bias': _bias(params)}


def _norm(name: str, params: Tree) -> Arrays:
    return {f'{name}.weight': np.asarray(params['scale']), f'{name}.bias': _bias(params)}


def _bias(params: Tree) -> np.ndarray:
    return np.asarray(params['bias'])


def rotated(weight: np.ndarray, by: int, endpoint: bool = True) -> np.ndarray:
    """The weight (outputs, features) that maps the sinusoids of n as `weight` maps those of n + `by`.

    sin((n + 1) f) = cos f sin(n f) + sin f cos(n f) and cos((n + 1) f) = cos f cos(n f) − sin f sin(n f).

    Args:
      endpoint: see `genbench.networks.layers.timestep_embedding`.
    """
    sines, cosines = np.split(weight.astype(np.float64), 2, axis=1)
    frequencies = by * np.geomspace(1, 1e-4, sines.shape[1], endpoint=endpoint)
    one, other = np.cos(frequencies), np.sin(frequencies)
    return np.concatenate([sines * one - cosines * other, sines * other + cosines * one], axis=1).astype(weight.dtype)


def scheduler(
    schedule: Any, prediction: str, time_scale: float, clip: bool, learned: bool = False
) -> dict[str, Any] | None:
    """The file scheduler_config.json for DDPM's chain; None if the run has another path or another prediction.

    Args:
      schedule: the path of the family, or None.
      learned: the network has a second output, for the variance of a step.
    """
    fits = schedule is not None and schedule.name == 'linear' and time_scale == STEPS and prediction in PREDICTIONS
    if not fits:
        return None
    return {
        '_class_name': 'DDPMScheduler',
        '_diffusers_version': VERSION,
        'num_train_timesteps': STEPS,
        'beta_start': FIRST_BETA,
        'beta_end': LAST_BETA,
        'beta_schedule': 'linear',
        'prediction_type': PREDICTIONS[prediction],
        'variance_type': 'learned_range' if learned else 'fixed_large',
        'clip_sample': clip,
    }

"""Convert the weights of EDM's and score SDE's published checkpoints to those of the networks ncsnpp and adm.

T. Karras et al. 2022, https://github.com/NVlabs/edm; Y. Song et al. 2021, yang-song/score_sde_pytorch. EDM names layers
by their place in the network and score SDE numbers them. The layers themselves are the same, so score SDE's first get
EDM's names. genbench differs in the order of axes, of queries, keys and values, and of sines and cosines. It also
differs in EDM's classes: these are the columns of a layer with one common bias, and the bias alone stands for no class.
"""

import math
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np

from genbench.errors import UserError

Arrays = dict[str, np.ndarray]


class Piece(NamedTuple):
    """A layer or block of the network: the path of its parameters, and its name in EDM's files."""

    kind: str  # 'conv', 'block' or 'norm'
    path: str
    name: str
    attends: bool = False


def pieces(config: Any, size: int) -> Iterator[Piece]:
    """The layers in the order in which both codebases build them.

    Args:
      config: the section `network` of a config.
      size: the height of the images.
    """
    adm, depths = config.name == 'adm', range(len(config.multipliers))
    attends = lambda depth: size >> depth in config.attention  # noqa: E731
    side = lambda depth: f'{size >> depth}x{size >> depth}'  # noqa: E731
    yield Piece('conv', 'conv_in', f'enc.{side(0)}_conv')
    count = 0
    for depth in depths:
        if depth:
            yield Piece('block', f'down/{count}', f'enc.{side(depth)}_down')
            count += 1
            if not adm and config.pyramid:
                yield Piece('conv', f'pyramids/{depth - 1}/conv', f'enc.{side(depth)}_aux_residual')
        for index in range(config.blocks):
            yield Piece('block', f'down/{count}', f'enc.{side(depth)}_block{index}', attends(depth))
            count += 1
    yield Piece('block', 'middle/0', f'dec.{side(depths[-1])}_in0', True)
    yield Piece('block', 'middle/1', f'dec.{side(depths[-1])}_in1')
    count = 0
    for depth in reversed(depths):
        if depth != depths[-1]:
            yield Piece('block', f'up/{count}', f'dec.{side(depth)}_up')
            count += 1
        for index in range(config.blocks + 1):
            also = attends(depth) and (adm or index == config.blocks)
            yield Piece('block', f'up/{count}', f'dec.{side(depth)}_block{index}', also)
            count += 1
    yield Piece('norm', 'norm_out', 'out_norm' if adm else f'dec.{side(0)}_aux_norm')
    yield Piece('conv', 'conv_out', 'out_conv' if adm else f'dec.{side(0)}_aux_conv')


def parameters(found: Mapping[str, np.ndarray], config: Any, size: int, negative: bool) -> Arrays:
    """The variables of the network, by their paths.

    Args:
      found: the network's arrays, by EDM's names.
      config: the section `network` of a config.
      size: the height of the images.
      negative: the file's network predicts the noise with the opposite sign.

    Raises:
      UserError: an array is missing, has another number of axes, or is not used.
    """
    left = _Left(found)
    made = _conditioning(left, adm=config.name == 'adm')
    for kind, path, name, attends in pieces(config, size):
        made |= {'conv': _convolution, 'norm': _norm, 'block': _block}[kind](left, path, name)
        if attends:
            made |= _attention(left, path, name)
    if negative:
        made |= {f'conv_out/{part}': -made[f'conv_out/{part}'] for part in ('kernel', 'bias')}
    left.check_filters(tuple(config.get('taps', (1, 1))))
    left.check_used()
    return made


class _Left:
    """The arrays of a file that have not been used yet; they are taken one by one."""

    def __init__(self, found: Mapping[str, np.ndarray]):
        self._found = dict(found)

    def take(self, name: str, axes: int) -> np.ndarray:
        if name not in self._found:
            raise UserError(f'These weights are for another network: {name} is missing.')
        value = np.asarray(self._found.pop(name), np.float32)
        if value.ndim != axes:
            raise UserError(f'These weights are for another network: {name} has {value.ndim} axes, not {axes}.')
        return value

    def has(self, name: str) -> bool:
        return name in self._found

    def check_filters(self, taps: tuple[int, ...]) -> None:
        wanted = np.outer(taps, taps) / sum(taps) ** 2
        for name in [name for name in self._found if name.endswith('.resample_filter')]:
            there = self._found.pop(name).squeeze()
            if there.shape != wanted.shape or not np.allclose(there, wanted):
                raise UserError(f'These weights are for another network: {name} is not network.taps, '
                                f'{"-".join(map(str, taps))}.')  # fmt: skip

    def check_used(self) -> None:
        if self._found:
            name = next(iter(self._found))
            raise UserError(f'These weights are for another network: nothing here uses {name}.')


def _conditioning(left: _Left, adm: bool) -> Arrays:
    made = _linear(left, 'conditioning/hidden', 'map_layer0') | _linear(left, 'conditioning/output', 'map_layer1')
    if left.has('map_noise.freqs'):
        made['conditioning/features_of_time/frequencies'] = left.take('map_noise.freqs', 1)
    if left.has('map_label.weight'):
        weight = left.take('map_label.weight', 2)
        bias = np.zeros((1, len(weight)), np.float32) if adm else left.take('map_label.bias', 1)[None]
        classes = weight.T * (1 if adm else math.sqrt(weight.shape[1])) + bias
        made['conditioning/entries/label/embedding'] = np.concatenate([classes, bias])
    if left.has('map_augment.weight'):
        made['conditioning/entries/augmentation/kernel'] = left.take('map_augment.weight', 2).T
    if adm:  # cosines come first in EDM
        for path, axis in (('hidden/kernel', 0), ('entries/augmentation/kernel', 1)):
            if (whole := f'conditioning/{path}') in made:
                made[whole] = np.roll(made[whole], made[whole].shape[axis] // 2, axis)
    return made


def _block(left: _Left, path: str, name: str) -> Arrays:
    made = _norm(left, f'{path}/norm_in', f'{name}.norm0') | _convolution(left, f'{path}/conv_in', f'{name}.conv0')
    made |= _linear(left, f'{path}/condition', f'{name}.affine')
    made |= _norm(left, f'{path}/norm_out', f'{name}.norm1') | _convolution(left, f'{path}/conv_out', f'{name}.conv1')
    return made | (_pixelwise(left, f'{path}/shortcut', f'{name}.skip') if left.has(f'{name}.skip.weight') else {})


def _attention(left: _Left, path: str, name: str) -> Arrays:
    made = _norm(left, f'{path}/attention/norm', f'{name}.norm2')
    three = _pixelwise(left, f'{path}/attention/inputs', f'{name}.qkv')
    # EDM puts a channel's query, key and value next to each other. Here all queries come first.
    made |= {key: value.reshape(*value.shape[:-1], -1, 3).swapaxes(-1, -2).reshape(value.shape)
             for key, value in three.items()}  # fmt: skip
    return made | _pixelwise(left, f'{path}/attention/output', f'{name}.proj')


def _convolution(left: _Left, path: str, name: str) -> Arrays:
    kernel = left.take(f'{name}.weight', 4).transpose(2, 3, 1, 0)
    return {f'{path}/kernel': kernel, f'{path}/bias': left.take(f'{name}.bias', 1)}


def _pixelwise(left: _Left, path: str, name: str) -> Arrays:
    """A 1×1 convolution, which is a dense layer here."""
    made = _convolution(left, path, name)
    return {**made, f'{path}/kernel': made[f'{path}/kernel'][0, 0]}


def _linear(left: _Left, path: str, name: str) -> Arrays:
    return {f'{path}/kernel': left.take(f'{name}.weight', 2).T, f'{path}/bias': left.take(f'{name}.bias', 1)}


def _norm(left: _Left, path: str, name: str) -> Arrays:
    return {f'{path}/scale': left.take(f'{name}.weight', 1), f'{path}/bias': left.take(f'{name}.bias', 1)}


def renamed(found: Mapping[str, np.ndarray], config: Any, size: int) -> Arrays:
    """Give the arrays in `found` EDM's names in place of score SDE's, which come without the prefix 'module.'."""
    made: Arrays = {}
    numbers = iter(range(len(found)))

    def layer(into: str, parts: Mapping[str, str]) -> None:
        number = next(numbers)
        for new, old in parts.items():
            for end in ('weight', 'bias'):
                name = f'all_modules.{number}.{old}{end}'
                if name in found:
                    made[f'{into}{new}.{end}'] = found[name]

    if config.embedding == 'fourier':
        name = f'all_modules.{next(numbers)}.W'
        made |= {'map_noise.freqs': found[name]} if name in found else {}
    layer('map_layer0', {'': ''})
    layer('map_layer1', {'': ''})
    for kind, _, name, attends in pieces(config, size):
        if kind == 'block':
            parts = {'norm0': 'GroupNorm_0', 'conv0': 'Conv_0', 'affine': 'Dense_0', 'norm1': 'GroupNorm_1',
                     'conv1': 'Conv_1', 'skip': 'Conv_2'}  # fmt: skip
            layer(f'{name}.', {new: f'{old}.' for new, old in parts.items()})
        else:
            layer(name, {'': 'Conv2d_0.' if 'aux_residual' in name else ''})
        if attends:
            number = next(numbers)
            made |= _named_attention(found, f'all_modules.{number}.', f'{name}.')
    return made


def _named_attention(found: Mapping[str, np.ndarray], prefix: str, name: str) -> Arrays:
    wanted = [f'{prefix}NIN_{index}.{part}' for index in range(4) for part in 'Wb']
    if any(one not in found for one in wanted):
        return {}
    kernels, biases = ([found[f'{prefix}NIN_{index}.{part}'] for index in range(4)] for part in 'Wb')
    width = len(biases[0])
    return {
        **{f'{name}norm2.{end}': found[f'{prefix}GroupNorm_0.{end}'] for end in ('weight', 'bias')},
        f'{name}qkv.weight': np.stack([kernel.T for kernel in kernels[:3]], 1).reshape(3 * width, width, 1, 1),
        f'{name}qkv.bias': np.stack(biases[:3], 1).reshape(-1),
        f'{name}proj.weight': kernels[3].T[..., None, None],
        f'{name}proj.bias': biases[3],
    }

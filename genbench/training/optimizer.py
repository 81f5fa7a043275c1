"""Optax optimizers and learning-rate schedules from the config."""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import optax
import optax.contrib

from genbench.errors import UserError, did_you_mean
from genbench.settings import DEFAULTS

OPTIMIZERS = {
    'adam': lambda rate, o: optax.adam(rate, b1=o['b1'], b2=o['b2'], eps=o['epsilon']),
    'adamw': lambda rate, o: optax.adamw(rate, b1=o['b1'], b2=o['b2'], weight_decay=o['weight_decay']),
    'adagrad': lambda rate, o: optax.adagrad(rate, initial_accumulator_value=0.0, eps=o['epsilon']),
    'lion': lambda rate, o: optax.lion(rate, b1=o['b1'], b2=o['b2'], weight_decay=o['weight_decay']),
    'muon': lambda rate, o: optax.contrib.muon(
        rate, weight_decay=o['weight_decay'], adam_b1=o['b1'], adam_b2=o['b2'], consistent_rms=0.2,
        adam_weight_decay=o['weight_decay'], muon_weight_dimension_numbers=_matrices,
    ),
    'rmsprop': lambda rate, o: optax.rmsprop(rate, decay=o['b2'], eps=o['epsilon']),
    'radam': lambda rate, o: optax.radam(rate, b1=o['b1'], b2=o['b2']),  # Liu et al. 2020
    'sgd': lambda rate, o: optax.sgd(rate, momentum=o['b1'] or None),
}  # fmt: skip


def _matrices(params: Any) -> Any:
    """Which parameters Muon orthogonalises: kernels, as matrices of inputs by outputs. Adam updates the others.

    The window of a convolution counts as input (K. Jordan et al. 2024). `consistent_rms` scales Muon's steps to the
    size of Adam's, so that one learning rate serves both (Liu et al. 2025, equation 4).
    """
    numbers = optax.contrib.MuonDimensionNumbers
    return jax.tree.map(
        lambda leaf: numbers(tuple(range(leaf.ndim - 1)), (leaf.ndim - 1,)) if leaf.ndim > 1 else None, params
    )


DECAYS = {
    'constant': lambda o, steps: optax.constant_schedule(o['learning_rate']),
    'cosine': lambda o, steps: optax.cosine_decay_schedule(o['learning_rate'], max(steps, 1)),
    'linear': lambda o, steps: optax.linear_schedule(o['learning_rate'], 0.0, max(steps, 1)),
    'inverse_sqrt': lambda o, steps: _inverse_sqrt(o),
    'steps': lambda o, steps: _steps(o),
    'exponential': lambda o, steps: optax.exponential_decay(o['learning_rate'], 1, o['decay_rate']),
}

_SMOOTH = tuple(name for name in DECAYS if name != 'steps')
_OTHERS = tuple(name for name in DECAYS if name != 'exponential')

# Options that some optimizers and schedules ignore, and what to set instead.
UNREAD = {
    'weight_decay': (
        'name',
        ('adagrad', 'adam', 'radam', 'rmsprop', 'sgd'),
        'use optimizer.name=adamw for decoupled weight decay, or set it to 0',
    ),
    'b1': ('name', ('adagrad', 'rmsprop'), 'it has no momentum'),
    'b2': ('name', ('adagrad', 'sgd'), 'the momentum of sgd is optimizer.b1'),
    'epsilon': (
        'name',
        ('adamw', 'lion', 'muon', 'radam', 'sgd'),
        'it belongs to optimizer.name=adam, adagrad or rmsprop',
    ),
    'drops': ('schedule', _SMOOTH, 'they belong to optimizer.schedule=steps'),
    'drop_factor': ('schedule', _SMOOTH, 'it belongs to optimizer.schedule=steps'),
    'decay_rate': ('schedule', _OTHERS, 'it belongs to optimizer.schedule=exponential'),
    'decay_start': (
        'schedule',
        ('constant', 'cosine', 'linear', 'steps', 'exponential'),
        'it belongs to optimizer.schedule=inverse_sqrt',
    ),
}


def _refuse_unread(options: Mapping[str, Any], usual: Mapping[str, Any]) -> None:
    for key, (by, without, advice) in UNREAD.items():
        if options[by] in without and options[key] not in (0, (), usual[key]):
            raise UserError(
                f'optimizer.{key} is {options[key]}, but optimizer.{by}={options[by]} ignores it; {advice}.'
            )


def _inverse_sqrt(options: Mapping[str, Any]) -> optax.Schedule:
    """The peak until step t_ref, by default the end of warm-up, then peak · √(t_ref / step) (EDM2, equation 67)."""
    warmup = options['warmup_steps']
    reference = max(options['decay_start'] or warmup, 1)
    return lambda count: options['learning_rate'] / jnp.sqrt(jnp.maximum((count + warmup) / reference, 1.0))


def _steps(options: Mapping[str, Any]) -> optax.Schedule:
    """The rate, multiplied by `drop_factor` once for each past step in `drops`, counted from the end of warm-up."""

    def rate(count: Any) -> Any:
        over = sum((jnp.asarray(count >= drop, jnp.float32) for drop in options['drops']), jnp.zeros(()))
        return options['learning_rate'] * options['drop_factor'] ** over

    return rate


def learning_rate(options: Mapping[str, Any], num_steps: int) -> optax.Schedule:
    """Linear warm-up to the peak, then the decay over the rest of `num_steps`."""
    name, peak, warmup = options['schedule'], options['learning_rate'], options['warmup_steps']
    if name not in DECAYS:
        raise UserError(f'There is no schedule {name!r} (optimizer.schedule). {did_you_mean(name, DECAYS)}')
    decay = DECAYS[name](options, num_steps - warmup)
    return optax.join_schedules([optax.linear_schedule(0.0, peak, warmup), decay], [warmup]) if warmup else decay


def unit_gradients() -> optax.GradientTransformation:
    """The gradient of each array of parameters, divided by its Euclidean norm (Yu et al. 2017)."""

    def unit(gradient: jax.Array) -> jax.Array:
        norm = jnp.linalg.norm(gradient.ravel())
        return jnp.where(norm > 0, gradient / jnp.where(norm > 0, norm, 1), gradient)

    return optax.stateless(lambda gradients, _: jax.tree.map(unit, gradients))


def build(
    options: Mapping[str, Any], num_steps: int, usual: Mapping[str, Any] = DEFAULTS['optimizer']
) -> optax.GradientTransformation:
    """Clipping by global norm, then the gradient of ½ l2 ‖θ‖², then the optimizer `options['name']`.

    With `unit_gradients`, each array's clipped gradient is first scaled to norm 1, which undoes the clipping.
    PyTorch's optimizers call l2 `weight_decay`, AdamW excepted.

    Args:
      usual: the default values of the options.

    Raises:
      UserError: an unknown optimizer or schedule, or an option that the chosen one does not read.
    """
    name = options['name']
    if name not in OPTIMIZERS:
        raise UserError(f'There is no optimizer {name!r} (optimizer.name). {did_you_mean(name, OPTIMIZERS)}')
    _refuse_unread(options, usual)
    optimizer = OPTIMIZERS[name](learning_rate(options, num_steps), options)
    clip, l2 = options['clip_norm'], options['l2']
    parts = [optax.clip_by_global_norm(clip)] * bool(clip) + [unit_gradients()] * options['unit_gradients']
    parts += [optax.add_decayed_weights(l2)] * bool(l2)
    return optax.chain(*parts, optimizer) if parts else optimizer

"""Optax optimizers and learning-rate schedules from the config."""

from collections.abc import Mapping
from typing import Any

import optax

from genbench.errors import UserError, did_you_mean

OPTIMIZERS = {
    'adam': lambda rate, o: optax.adam(rate, b1=o['b1'], b2=o['b2']),
    'adamw': lambda rate, o: optax.adamw(rate, b1=o['b1'], b2=o['b2'], weight_decay=o['weight_decay']),
    'sgd': lambda rate, o: optax.sgd(rate, momentum=o['b1'] or None),
}

DECAYS = {
    'constant': lambda peak, steps: optax.constant_schedule(peak),
    'cosine': lambda peak, steps: optax.cosine_decay_schedule(peak, max(steps, 1)),
    'linear': lambda peak, steps: optax.linear_schedule(peak, 0.0, max(steps, 1)),
}


def learning_rate(options: Mapping[str, Any], num_steps: int) -> optax.Schedule:
    """Linear warm-up to the peak, then the decay over what is left of `num_steps`."""
    name, peak, warmup = options['schedule'], options['learning_rate'], options['warmup_steps']
    if name not in DECAYS:
        raise UserError(f'No schedule is called {name!r} (optimizer.schedule). {did_you_mean(name, DECAYS)}')
    decay = DECAYS[name](peak, num_steps - warmup)
    return optax.join_schedules([optax.linear_schedule(0.0, peak, warmup), decay], [warmup]) if warmup else decay


def build(options: Mapping[str, Any], num_steps: int) -> optax.GradientTransformation:
    """Clipping by global norm, then the optimizer `options['name']`."""
    name = options['name']
    if name not in OPTIMIZERS:
        raise UserError(f'No optimizer is called {name!r} (optimizer.name). {did_you_mean(name, OPTIMIZERS)}')
    optimizer = OPTIMIZERS[name](learning_rate(options, num_steps), options)
    clip = options['clip_norm']
    return optax.chain(optax.clip_by_global_norm(clip), optimizer) if clip else optimizer

"""Flow matching on the straight path.

Y. Lipman et al., Flow Matching for Generative Modeling, 2023; X. Liu et al., Flow Straight and Fast (rectified flow),
2023; P. Esser et al., Scaling Rectified Flow Transformers, 2024 (logit-normal times).
"""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp

from genbench import rng
from genbench.data.spec import DataSpec
from genbench.errors import UserError, did_you_mean
from genbench.families.base import Array, Batch, Borrowed, Networks, Update, register
from genbench.families.paths import PathFamily, scalars

TIME_SAMPLERS = {
    'uniform': lambda keys: rng.uniform(keys, 'time'),
    'logit_normal': lambda keys: jax.nn.sigmoid(rng.normal(keys, 'time')),
}


@register('flow_matching')
class FlowMatching(PathFamily):
    """A velocity field trained on ‖u(x_t, t) − (ε − x)‖² (Lipman et al. 2023, equation 23, with time reversed)."""

    @classmethod
    def defaults(cls) -> dict[str, Any]:
        base = super().defaults()
        options = {'schedule': 'straight', 'prediction': 'velocity', 'time_sampler': 'uniform'}
        return {**base, 'family': {**base['family'], **options}}

    def __init__(self, config: Any, spec: DataSpec, borrowed: Mapping[str, Borrowed] | None = None):
        super().__init__(config, spec, borrowed)
        name = config.family.time_sampler
        if name not in TIME_SAMPLERS:
            raise UserError(f'No time sampler is called {name!r}. {did_you_mean(name, TIME_SAMPLERS)}')

    @property
    def updates(self) -> tuple[Update, ...]:
        return (Update('denoiser', ('denoiser',), self.loss),)

    def loss(self, networks: Networks, batch: Batch, key: Array, step: Array) -> tuple[Array, dict[str, Array]]:
        return scalars(self.regression(networks, batch, key, self.times(batch['key'])).mean())

    def times(self, keys: Array) -> Array:
        """Times to train at, (batch,)."""
        t = TIME_SAMPLERS[self.config.family.time_sampler](keys)
        return jnp.maximum(self.schedule.time(t), self.schedule.t_min)

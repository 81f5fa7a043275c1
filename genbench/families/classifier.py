"""Classifiers of noisy images, which are trained beside a denoiser and guide its samples to a label.

P. Dhariwal, A. Nichol, Diffusion Models Beat GANs on Image Synthesis, 2021 (section 4).
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from genbench import networks as modules
from genbench.data.conditions import Given
from genbench.errors import UserError
from genbench.families.base import Array, Batch, Networks, Scalars
from genbench.interpolants import predictions

LABEL = 'label'


class Classifier:
    """log p(label | x_t) for the path of a family on a path.

    Args:
      family: the family with `family.classifier=True`.

    Raises:
      UserError: it does not predict images, or samples have no label.
    """

    name = 'classifier'  # the name of its network

    def __init__(self, family: Any):
        self.family = family
        if family.kind != 'denoiser':
            raise UserError(f'family.classifier needs a family that predicts images; {family.name} learns jumps.')
        if LABEL not in family.conditions:
            raise UserError('family.classifier guides samples to their label, and this model has none; set '
                            'family.conditional=True.')  # fmt: skip

    def network(self, rngs: nnx.Rngs) -> nnx.Module:
        classes = self.family.forms[LABEL].size
        return modules.noisy_classifier(self.family.config.network, self.family.space, classes, rngs)

    def loss(self, networks: Networks, batch: Batch, key: Array, step: Array) -> tuple[Array, Scalars]:
        """−log p(label | x_t) at the times that the denoiser is trained at."""
        family = self.family.asked(networks)
        t, (x, noise, _) = family.times(batch['key']), family.pairs(networks, batch, key)
        found = log_probabilities(family, networks[self.name], family.schedule.perturb(x, noise, t), t, key)
        label = family.given(batch)[LABEL]
        loss = -_chosen(found, label).mean()
        return loss, {'loss': loss, 'accuracy': (found.argmax(1) == label).mean()}

    def slope(self, networks: Networks, given: Given) -> Callable[[Array, Array], Array]:
        """∇ log p(label | x_t) by x_t (batch, …), as a function of (x_t, t)."""
        assert given is not None, 'a model with a classifier is conditional'
        family, label = self.family.asked(networks), given[LABEL]
        total = lambda x_t, t: _chosen(log_probabilities(family, networks[self.name], x_t, t), label).sum()  # noqa: E731
        return jax.grad(total)


def log_probabilities(family: Any, network: Any, x_t: Array, t: Array, key: Array | None = None) -> Array:
    """log p(label | x_t) of all labels (batch, labels) at the times t (batch,)."""
    seen = predictions.seen(family.prediction, family.schedule, x_t, t)
    return jax.nn.log_softmax(network(seen, family.schedule.condition(t), key=key))


def _chosen(values: Array, label: Array) -> Array:
    return jnp.take_along_axis(values, label[:, None], axis=1)[:, 0]

"""Pixels as features: no network, for images so small that distances between them mean something."""

from typing import Any

import jax
import jax.numpy as jnp

from genbench.evaluation.features import network
from genbench.evaluation.features.network import FeatureNetwork


def open_network(*, batch_size: int = 64) -> FeatureNetwork:
    """Integer images in 0 … 255 → x / 255 (n, height · width · channels)."""

    def apply(params: Any, images: jax.Array) -> dict[str, jax.Array]:
        return {'features': images.reshape(len(images), -1).astype(jnp.float32) / 255}

    protocol = {'input': 'x / 255', 'dimensions': 'height · width · channels'}
    return network.make('pixels', apply, (), protocol, batch_size=batch_size)

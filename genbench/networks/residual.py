"""The residual block of DDPM's U-Net, which autoencoders and the U-Net share."""

import jax
import jax.numpy as jnp
from flax import nnx

from genbench.networks import layers
from genbench.networks.layers import Conv, GroupNorm, Linear, fan_average, zeros

Array = jax.Array


class ResidualBlock(nnx.Module):
    """Norm, activation and convolution, twice, with the condition added in between (Ho et al. 2020, appendix B).

    With `scale_shift`, the condition scales and shifts the second norm instead (Nichol & Dhariwal 2021, section 3).
    """

    def __init__(
        self, inputs: int, outputs: int, *, condition: int = 0, dropout: float = 0.0, groups: int = 32,
        scale_shift: bool = False, rngs: nnx.Rngs,
    ):  # fmt: skip
        self.norm_in = GroupNorm(inputs, groups=groups)
        self.conv_in = Conv(inputs, outputs, kernel_init=fan_average, rngs=rngs)
        self.scale_shift, said = scale_shift, outputs * (1 + scale_shift)
        self.condition = Linear(condition, said, kernel_init=fan_average, rngs=rngs) if condition else None
        self.norm_out = GroupNorm(outputs, groups=groups)
        self.conv_out = Conv(outputs, outputs, kernel_init=zeros, rngs=rngs)
        self.shortcut = Linear(inputs, outputs, kernel_init=fan_average, rngs=rngs) if inputs != outputs else None
        self.dropout = dropout

    def __call__(self, x: Array, condition: Array | None = None, key: Array | None = None) -> Array:
        h = self.conv_in(nnx.silu(self.norm_in(x)))
        said = None
        if self.condition is not None and condition is not None:
            said = self.condition(condition)[:, None, None]
        if self.scale_shift and said is not None:
            scale, shift = jnp.split(said, 2, axis=-1)
            h = self.norm_out(h) * (1 + scale) + shift
        else:
            h = self.norm_out(h if said is None else h + said)
        h = self.conv_out(layers.dropout(nnx.silu(h), self.dropout, key))
        return h + (x if self.shortcut is None else self.shortcut(x))

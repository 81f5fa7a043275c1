"""Generator of StyleGAN3 (T. Karras et al., Alias-Free Generative Adversarial Networks, 2021), and the discriminator of
StyleGAN2.

Fourier features enter, which w may turn and shift. Layers act on signals whose cutoffs grow from layer to layer, with
a margin around the image, and nothing in them prefers a place of the pixels' grid. Variant `t` has 3×3 kernels; variant
`r` has 1×1 kernels, twice the channels and radial filters, so that it is also equivariant to rotation.

What the paper leaves open follows its code, NVlabs/stylegan3. Differs from the code: activations are not clamped, and
`dtype=bfloat16` is for all layers, where the code has float16 at the highest four rates.
"""

import math
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from genbench.data.conditions import Form, Given
from genbench.networks import alias_free, equalised, stylegan2
from genbench.networks.layers import compute_dtype
from genbench.networks.stylegan2 import Discriminator as Discriminator
from genbench.ranges import COUNT, COUNT_OR_NONE, POSITIVE, SHARE, one_of

Array = jax.Array
OWN = {
    'variant': 't',  # 't': equivariant to translation; 'r': also to rotation
    'layers': 14,  # between the Fourier features and the output layer
    'critical': 2,  # layers at the end whose cutoff is half of the images' rate
    'first_cutoff': 2.0,  # highest frequency of the Fourier features, in cycles per image
    'margin': 10,  # samples around the image, at each rate
    'magnitude_decay': 0.999,  # of the running mean of squared inputs of a layer
}
DEFAULTS = {**stylegan2.DEFAULTS, **OWN}
GENERATOR, DISCRIMINATOR = (*stylegan2.GENERATOR, *OWN), stylegan2.DISCRIMINATOR
RANGES = {
    **stylegan2.RANGES,
    'variant': one_of('t', 'r'),
    'layers': COUNT,
    'critical': COUNT,
    'first_cutoff': POSITIVE,
    'margin': COUNT_OR_NONE,
    'magnitude_decay': SHARE,
}
OUTPUT_SCALE = 0.25  # of images, so that they start within their range


class Drawn(nnx.Variable):
    """Frequencies and phases, which are drawn once and not trained."""


class Magnitude(nnx.Variable):
    """The running mean of the squared inputs of a layer. It is not trained."""


class Features(nnx.Module):
    """w (batch, features) → Fourier features (batch, size, size, channels), turned and shifted by w (appendix F)."""

    def __init__(self, signal: alias_free.Signal, channels: int, features: int, *, rngs: nnx.Rngs):
        self.signal, self.gain = signal, 1 / math.sqrt(channels)
        drawn = jax.random.normal(rngs.params(), (channels, 2))
        radius = jnp.linalg.norm(drawn, axis=1, keepdims=True)
        self.frequencies = Drawn(signal.cutoff * drawn / radius * jnp.exp(-(radius**2) / 4))  # uniform in a disc
        self.phases = Drawn(jax.random.uniform(rngs.params(), (channels,)) - 0.5)
        self.placing = equalised.Linear(features, 4, rngs=rngs)
        self.placing.kernel[...], self.placing.bias[...] = jnp.zeros((features, 4)), jnp.array([1.0, 0, 0, 0])
        self.kernel = nnx.Param(jax.random.normal(rngs.params(), (channels, channels)))

    def __call__(self, w: Array, transform: Array | None = None) -> Array:
        """With `transform` (batch, 3, 3), a point x shows what the point `transform` x shows without it."""
        turn, shift = jnp.split(self.placing(w), 2, axis=1)
        length = jnp.linalg.norm(turn, axis=1, keepdims=True)
        (cos, sin), shift = jnp.moveaxis(turn / length, 1, 0), shift / length
        matrix = jnp.stack([jnp.stack([cos, -sin], 1), jnp.stack([sin, cos], 1)], 1)
        offset = -jnp.einsum('bij,bj->bi', matrix, shift)
        if transform is not None:
            offset = offset + jnp.einsum('bij,bj->bi', matrix, transform[:, :2, 2])
            matrix = matrix @ transform[:, :2, :2]
        phases = self.phases[...] + offset @ self.frequencies[...].T
        frequencies = self.frequencies[...] @ matrix  # (batch, channels, 2)
        excess = jnp.linalg.norm(frequencies, axis=2) - self.signal.cutoff
        amplitudes = jnp.clip(1 - excess / (self.signal.rate / 2 - self.signal.cutoff), 0, 1)
        place = jnp.asarray((np.arange(self.signal.size) + 0.5 - self.signal.size / 2) / self.signal.rate, jnp.float32)
        across, down = (frequencies[:, None, None, :, axis] for axis in (0, 1))
        turns = place[:, None] * across + place[:, None, None] * down + phases[:, None, None]
        waves = jnp.sin(2 * jnp.pi * turns)
        return (amplitudes[:, None, None] * waves) @ (self.kernel[...] * self.gain)


class Layer(nnx.Module):
    """A modulated convolution of inputs of unit mean square, and a leaky ReLU between filters (figure 4b).

    The output layer, which has no `change`, has neither demodulation nor filters.
    """

    def __init__(
        self, inputs: int, outputs: int, features: int, change: alias_free.Change | None, *, kernel: int,
        rngs: nnx.Rngs,
    ):  # fmt: skip
        self.change = change
        self.styles = equalised.Linear(features, inputs, bias=1.0, rngs=rngs)
        self.kernel = nnx.Param(jax.random.normal(rngs.params(), (kernel, kernel, inputs, outputs)))
        self.bias = nnx.Param(jnp.zeros(outputs))
        self.magnitude = Magnitude(jnp.ones(()))

    def __call__(self, x: Array, w: Array, decay: float | None) -> Array:
        """With a decay, the running mean takes in the batch (section 3.2, 'normalisation by a moving average')."""
        if decay is not None:
            found = jax.lax.stop_gradient(jnp.square(x.astype(jnp.float32)).mean())
            self.magnitude[...] = decay * self.magnitude[...] + (1 - decay) * found
        kernel, styles = self.kernel[...], self.styles(w)
        x = x * jax.lax.rsqrt(self.magnitude[...]).astype(x.dtype)
        if self.change is None:
            y = equalised.modulated(x, kernel, styles * kernel.shape[2] ** -0.5, demodulate=False)
            return y + self.bias[...].astype(x.dtype)
        y = equalised.modulated(x, kernel, styles, pad=len(kernel) - 1)
        return self.change(y + self.bias[...].astype(x.dtype), equalised.leaky)


class Generator(nnx.Module):
    """Latents (batch, latent) → images (batch, size, size, image_channels), which are not bounded.

    Attributes:
      mapping: z and classes → w.
      styles: the number of places where w enters: the Fourier features, the layers and the output.
      centre: the running mean of w.
    """

    def __init__(
        self, size: int, image_channels: int, forms: Mapping[str, Form], *,
        channels: int, multipliers: tuple[int, ...], latent: int, features: int, mapping: int, mapping_rate: float,
        variant: str = 't', layers: int = 14, critical: int = 2, first_cutoff: float = 2.0, margin: int = 10,
        magnitude_decay: float = 0.999, dtype: str = 'float32', rngs: nnx.Rngs,
    ):  # fmt: skip
        self.dtype, self.decay, turns = compute_dtype(dtype), magnitude_decay, variant == 'r'
        signals = alias_free.signals(size, layers, critical, first_cutoff, margin)
        width, most = ((2 if turns else 1) * channels * part for part in (size / 2, max(multipliers)))
        widths = [round(min(width / signal.cutoff, most)) for signal in signals[:-1]]
        self.mapping = stylegan2.MappingNetwork(latent, features, forms, depth=mapping, rate=mapping_rate, rngs=rngs)
        self.centre, self.styles = stylegan2.Centre(jnp.zeros(features)), layers + 2
        self.input = Features(signals[0], widths[0], features, rngs=rngs)
        kernel, built = 1 if turns else 3, []
        for depth, after in enumerate(signals[:-1]):
            before = max(depth - 1, 0)
            smooth = turns and depth < layers - critical
            change = alias_free.Change(signals[before], after, grown=kernel - 1, radial=smooth)
            built.append(Layer(widths[before], widths[depth], features, change, kernel=kernel, rngs=rngs))
        self.layers = nnx.List(built)
        self.output = Layer(widths[-1], image_channels, features, None, kernel=1, rngs=rngs)

    def __call__(self, z: Array, given: Given = None, keys: Array | None = None, training: bool = False) -> Array:
        w = jnp.repeat(self.mapping(z, given)[:, None], self.styles, axis=1)
        return self.synthesise(w, keys, training=training)

    def synthesise(
        self, w: Array, keys: Array | None = None, *, training: bool = False, transform: Array | None = None
    ) -> Array:
        """Images from w (batch, styles, features). There is no noise, so keys have no effect.

        Args:
          training: let running means of squared inputs take in the batch.
          transform: (batch, 3, 3), which takes points of the image to points of the scene; the image's height is 1.
        """
        decay: Any = self.decay if training else None
        h = self.input(w[:, 0], transform).astype(self.dtype)
        for place, layer in enumerate([*self.layers, self.output], 1):
            h = layer(h, w[:, place], decay)
        return OUTPUT_SCALE * h.astype(jnp.float32)

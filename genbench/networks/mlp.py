"""Perceptrons: networks that treat an image as a vector, for small images and points in the plane."""

import math
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from genbench.data.conditions import Form, Given, combinations, combined
from genbench.errors import UserError
from genbench.networks import couplings, layers
from genbench.networks.initialisers import uniform
from genbench.ranges import COUNT, COUNT_OR_NONE, POSITIVE, each, one_of

DEFAULTS = {
    'hidden': (128, 128, 128),  # widths of the hidden layers
    'activation': 'silu',  # or 'tanh', 'relu', 'gelu', 'selu'; 'gated': a linear layer times the sigmoid of another
    'latent': 0,  # dimensions of a generator's z; 0: as many as an image has
    # How a pair of networks starts: 'glorot' (Glorot & Bengio 2010), 'he' (He et al. 2015), 'lecun' (LeCun et al. 1998)
    # or 'as_pytorch'.
    'initial': 'glorot',
    'decoder_hidden': (),  # of a pair of networks, the widths of the decoder or discriminator; (): those of `hidden`
    'time': 'sinusoids',  # of a denoiser: embedded for every hidden layer, or 'input', one more number of the input
}
ACTIVATIONS = {'tanh': nnx.tanh, 'relu': nnx.relu, 'silu': nnx.silu, 'gelu': nnx.gelu, 'selu': nnx.selu}
TIME_FEATURES = 64  # number of sinusoids for a time
glorot = nnx.initializers.glorot_uniform()
he = nnx.initializers.variance_scaling(2.0, 'fan_in', 'normal')
INITIAL = {'glorot': glorot, 'he': he, 'lecun': nnx.initializers.lecun_normal()}
COUPLINGS, MARGIN = 8, 0.01  # couplings of a flow; α of its logits, as in `couplings`
RANGES = {
    'hidden': each(COUNT, fewest=1), 'activation': one_of(*ACTIVATIONS, 'gated'), 'time': one_of('sinusoids', 'input'),
    'time_scale': POSITIVE, 'latent': COUNT_OR_NONE, 'initial': one_of(*INITIAL, 'as_pytorch'),
    'decoder_hidden': each(COUNT, int),
}  # fmt: skip

READERS = {  # of keys that not all perceptrons read
    'latent': ('a generator',),
    'initial': ('an encoder and decoder', 'a generator'),
    'decoder_hidden': ('an encoder and decoder', 'a generator'),
    'time': ('a denoiser',),
}


def check(config: Any, kind: str) -> None:
    """Raise a UserError for a key of the config that has no effect on networks of this kind."""
    for key, readers in READERS.items():
        if kind not in readers and config[key] != DEFAULTS[key]:
            other = ', and use family.latent' if (key, kind) == ('latent', 'an encoder and decoder') else ''
            raise UserError(f'network.{key} is {config[key]}, which network.name=mlp reads only for '
                            f'{" or ".join(readers)}; set it to {DEFAULTS[key]}{other}.')  # fmt: skip


def _layers(sizes: tuple[int, ...], rngs: nnx.Rngs, initial: str = 'glorot') -> nnx.List:
    pairs = zip(sizes[:-1], sizes[1:], strict=True)
    return nnx.List([_linear(before, after, initial, rngs) for before, after in pairs])


def _linear(before: int, after: int, initial: str, rngs: nnx.Rngs) -> layers.Linear:
    if initial == 'as_pytorch':
        within = uniform(before**-0.5)
        return layers.Linear(before, after, kernel_init=within, bias_init=within, rngs=rngs)
    return layers.Linear(before, after, kernel_init=INITIAL.get(initial, layers.zeros), rngs=rngs)


class Perceptron(nnx.Module):
    """Vectors (batch, inputs) → (batch, outputs); conditions enter the first layer.

    Each layer's weights are uniform with variance 2 / (inputs + outputs), and biases start at zero (Glorot & Bengio
    2010). With `zero`, the last layer starts at zero. `initial` may also be 'he', normals with variance 2 / inputs
    (He et al. 2015), 'lecun', truncated normals with variance 1 / inputs (as in Haiku), or 'as_pytorch', which draws
    weights and biases uniformly in ±1 / √inputs. With 'gated' as activation, hidden units are (W x + b) σ(V x + c)
    (Dauphin et al. 2017, equation 1).
    """

    def __init__(
        self, inputs: int, outputs: int, forms: Mapping[str, Form], *,
        hidden: tuple[int, ...], activation: str, rngs: nnx.Rngs, zero: bool = False,
        initial: str = 'glorot',
    ):  # fmt: skip
        self.layers = _layers((inputs, *hidden), rngs, initial)
        self.layers.append(_linear(hidden[-1], outputs, 'zero' if zero else initial, rngs))
        self.classes = layers.Classes(forms, hidden[0] if forms else 0, rngs=rngs)
        self.gates = _layers((inputs, *hidden), rngs, initial) if activation == 'gated' else None
        self.activation = nnx.sigmoid if activation == 'gated' else ACTIVATIONS[activation]

    def __call__(self, x: jax.Array, given: Given = None) -> jax.Array:
        condition = self.classes(given)
        for place, layer in enumerate(self.layers[:-1]):
            h = layer(x)
            if place == 0 and condition is not None:
                h = h + condition
            x = h * self.activation(self.gates[place](x)) if self.gates else self.activation(h)
        return self.layers[-1](x)


class Encoder(Perceptron):
    """Images (batch, *shape) → codes (batch, outputs)."""

    def __init__(self, shape: tuple[int, int, int], outputs: int, forms: Mapping[str, Form], **options):
        super().__init__(math.prod(shape), outputs, forms, **options)

    def __call__(self, x: jax.Array, given: Given = None, key: jax.Array | None = None) -> jax.Array:
        return super().__call__(x.reshape(len(x), -1), given)


class Decoder(Perceptron):
    """Codes (batch, inputs) → (batch, height, width, outputs)."""

    def __init__(self, shape: tuple[int, int, int], inputs: int, outputs: int, forms: Mapping[str, Form], **options):
        self.shape = (*shape[:2], outputs)
        super().__init__(inputs, math.prod(self.shape), forms, **options)

    def start(self, outputs: jax.Array) -> None:
        """Make `outputs`, (height, width, outputs), the last layer's biases."""
        self.layers[-1].bias[...] = outputs.reshape(-1)

    def __call__(self, z: jax.Array, given: Given = None, key: jax.Array | None = None) -> jax.Array:
        return super().__call__(z, given).reshape(len(z), *self.shape)


class Denoiser(nnx.Module):
    """(x_t, t, given) → an array shaped like x_t, or with `outputs` times its channels; zero when fresh.

    Time and conditions are embedded as in the other denoisers, and added before each hidden layer.
    """

    def __init__(
        self, shape: tuple[int, int, int], forms: Mapping[str, Form], *,
        hidden: tuple[int, ...], activation: str, time_scale: float = 1000.0, second_time: bool = False,
        outputs: int = 1, rngs: nnx.Rngs,
    ):  # fmt: skip
        if unheard := [name for name, form in forms.items() if form.type in ('tokens', 'features', 'image')]:
            raise UserError(f'network.name=mlp cannot take the condition {unheard[0]!r}; use unet or dit.')
        if activation == 'gated':
            raise UserError('network.activation=gated is for perceptrons without sinusoids of a time; use '
                            f'{", ".join(ACTIVATIONS)} or network.time=input.')  # fmt: skip
        self.conditioning = layers.Conditioning(
            TIME_FEATURES, hidden[0], forms, endpoint=False, kernel_init=glorot, class_init=glorot,
            time_scale=time_scale, second_time=second_time, rngs=rngs,
        )  # fmt: skip
        self.layers = _layers((math.prod(shape), *hidden), rngs)
        self.entries = nnx.List([layers.Linear(hidden[0], size, kernel_init=glorot, rngs=rngs) for size in hidden])
        self.output = layers.Linear(hidden[-1], math.prod(shape) * outputs, kernel_init=layers.zeros, rngs=rngs)
        self.activation = ACTIVATIONS[activation]

    def __call__(
        self, x: jax.Array, t: jax.Array, given: Given = None, key: jax.Array | None = None, s: jax.Array | None = None
    ) -> jax.Array:
        h, condition = x.reshape(len(x), -1), self.conditioning(t, given, s)
        for layer, entry in zip(self.layers, self.entries, strict=True):
            h = self.activation(layer(h) + entry(condition))
        return self.output(h).reshape(*x.shape[:-1], -1)


class TimeAsInput(Perceptron):
    """(x_t, t) → an array shaped like x_t, or with `outputs` times its channels; the time is one more input."""

    def __init__(
        self, shape: tuple[int, int, int], forms: Mapping[str, Form], *,
        time_scale: float = 1.0, second_time: bool = False, outputs: int = 1, **options,
    ):  # fmt: skip
        if forms or second_time:
            raise UserError('network.time=input is for models without conditions and with one time; use sinusoids.')
        super().__init__(math.prod(shape) + 1, math.prod(shape) * outputs, {}, **options)

    def __call__(  # type: ignore[override]
        self, x: jax.Array, t: jax.Array, given: Given = None, key: jax.Array | None = None
    ) -> jax.Array:
        return super().__call__(jnp.concatenate([x.reshape(len(x), -1), t[:, None]], 1)).reshape(*x.shape[:-1], -1)


class Generator(Perceptron):
    """Latents (batch, latent) → images in [−1, 1] (batch, *shape)."""

    def __init__(self, shape: tuple[int, int, int], latent: int, forms: Mapping[str, Form], **options):
        self.shape = shape
        super().__init__(latent, math.prod(shape), forms, **options)

    def __call__(self, z: jax.Array, given: Given = None) -> jax.Array:
        return nnx.tanh(super().__call__(z, given)).reshape(len(z), *self.shape)


class Discriminator(Perceptron):
    """Images in [−1, 1] (batch, *shape) → logits (batch,). The image's classes select one of the outputs."""

    def __init__(self, shape: tuple[int, int, int], forms: Mapping[str, Form], **options):
        self.forms = tuple(forms.items())
        super().__init__(math.prod(shape), combinations(forms), {}, **options)

    def __call__(self, x: jax.Array, given: Given = None) -> jax.Array:
        logits = super().__call__(x.reshape(len(x), -1))
        if given is None:
            return logits[:, 0]
        return jnp.take_along_axis(logits, combined(dict(self.forms), given, len(x))[:, None], axis=1)[:, 0]


class Flow(nnx.Module):
    """Images in [−1, 1] (batch, *shape) ↔ vectors (batch, dims), normal after training, by affine couplings (RealNVP).

    Pixels become logits and pass through couplings, with the vector reversed in between. Calls have the form of those
    to `couplings.Flow`. A fresh flow leaves the logits unchanged.
    """

    def __init__(
        self, shape: tuple[int, int, int], forms: Mapping[str, Form], *,
        hidden: tuple[int, ...], activation: str, rngs: nnx.Rngs,
    ):  # fmt: skip
        self.shape, dims = shape, math.prod(shape)
        self.kept, self.logit = dims - dims // 2, couplings.Logit(MARGIN)
        self.networks = nnx.List([
            Perceptron(self.kept, 2 * (dims // 2), forms, hidden=hidden, activation=activation, zero=True, rngs=rngs)
            for _ in range(COUPLINGS)
        ])  # fmt: skip

    def __call__(
        self, x: jax.Array, given: Given = None, key: jax.Array | None = None, fit: bool = False
    ) -> tuple[jax.Array, jax.Array]:
        x, log_det = self.logit(x)
        z = x.reshape(len(x), -1)
        for network in self.networks:
            kept, moved = jnp.split(z[:, ::-1], [self.kept], axis=1)
            log_scale, shift = self._affine(network, kept, given)
            z = jnp.concatenate([kept, (moved + shift) * jnp.exp(log_scale)], axis=1)
            log_det += log_scale.sum(1)
        return z, log_det

    def inverse(self, z: jax.Array, given: Given = None) -> jax.Array:
        """Map vectors back to images."""
        for network in reversed(self.networks):
            kept, moved = jnp.split(z, [self.kept], axis=1)
            log_scale, shift = self._affine(network, kept, given)
            z = jnp.concatenate([kept, moved * jnp.exp(-log_scale) - shift], axis=1)[:, ::-1]
        return self.logit.inverse(z.reshape(len(z), *self.shape))

    def _affine(self, network: Perceptron, kept: jax.Array, given: Given) -> tuple[jax.Array, jax.Array]:
        log_scale, shift = jnp.split(network(kept, given), 2, axis=1)
        return couplings.LOG_SCALE_BOUND * jnp.tanh(log_scale / couplings.LOG_SCALE_BOUND), shift

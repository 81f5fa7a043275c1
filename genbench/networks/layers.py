"""Layers shared by the networks. Images are channels-last: (batch, height, width, channels).

Parameters are float32. A layer computes in the type of its input, so a network that casts its input to bfloat16
computes in bfloat16. Only the statistics of normalisations and the softmax of attention stay in float32.
"""

import contextlib
import contextvars
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Literal, cast

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from genbench.data.conditions import Form, Given, check_classes, told
from genbench.errors import UserError, did_you_mean
from genbench.networks import platforms, splitting

Array = jax.Array
Initializer = nnx.initializers.Initializer

zeros = nnx.initializers.zeros_init()
# DDPM's: uniform with variance 2 / (inputs + outputs), where each counts the window's pixels (Glorot & Bengio 2010).
fan_average = nnx.initializers.variance_scaling(1.0, 'fan_avg', 'uniform')

DTYPES = {'float32': jnp.float32, 'bfloat16': jnp.bfloat16}
REMAT: dict[str, Callable[..., Any] | None] = {
    'none': None,  # keep everything that the gradient needs
    'blocks': jax.checkpoint_policies.nothing_saveable,  # keep each block's input and recompute the block
    'dots': jax.checkpoint_policies.dots_saveable,  # also keep the block's matrix products (but not convolutions)
}


def compute_dtype(name: str) -> Any:
    """The type that `network.dtype` names."""
    if name not in DTYPES:
        raise UserError(f'network.dtype is {name!r}; it can be {" or ".join(DTYPES)}.')
    return DTYPES[name]


def rematerialise(name: str, block: Callable[..., Any]) -> Callable[..., Any]:
    """The block, rematerialised as `network.remat` says (Chen et al. 2016, Training Deep Nets with Sublinear Memory).

    This changes what is kept for the gradient, not what is computed.
    """
    policy = REMAT[check_remat(name)]
    return block if policy is None else jax.checkpoint(block, policy=policy)


def check_remat(name: str) -> str:
    """The name itself, or a UserError if no rematerialisation has this name."""
    if name not in REMAT:
        raise UserError(f'There is no rematerialisation {name!r} (network.remat). {did_you_mean(name, REMAT)}')
    return name


def timestep_embedding(t: Array, size: int, *, endpoint: bool = True, scale: float = 1000.0) -> Array:
    """Sines, then cosines, of `t` (batch,) in [0, 1] → (batch, size) (Vaswani et al. 2017, section 3.5).

    Times are scaled to [0, scale]; 1000 is the range of DDPM's integer steps. The frequencies fall geometrically from 1
    to 1/10,000. DDPM's official code includes both ends, while DiT's leaves out the last (`endpoint=False`).
    """
    frequencies = np.geomspace(1, 1e-4, size // 2, endpoint=endpoint).astype(np.float32)
    angles = scale * t[:, None] * frequencies
    return jnp.concatenate([jnp.sin(angles), jnp.cos(angles)], axis=-1)


def convolve(
    x: Array, kernel: Array, strides: Sequence[int] = (1, 1), padding: str | Sequence[tuple[int, int]] = 'SAME',
    **options: Any,
) -> Array:  # fmt: skip
    """x (batch, height, width, inputs) * kernel (height, width, inputs, outputs), whose type becomes that of x.

    Images and their gradients stay on their devices; see `splitting.images_split`.

    Args:
      options: further arguments of `jax.lax.conv_general_dilated`.
    """
    x, layout = splitting.placed(x), ('NHWC', 'HWIO', 'NHWC')
    return splitting.placed(
        jax.lax.conv_general_dilated(x, kernel.astype(x.dtype), strides, padding, dimension_numbers=layout, **options)
    )


class Conv(nnx.Conv):
    """A 3×3 convolution, unless `kernel` sets another size."""

    def __init__(self, inputs: int, outputs: int, *, kernel: int = 3, stride: int = 1, rngs: nnx.Rngs, **options):
        super().__init__(inputs, outputs, (kernel, kernel), strides=(stride, stride), rngs=rngs, **options)

    def __call__(self, x: Array) -> Array:  # type: ignore[override]
        return self.apply(x, self.kernel[...])

    def apply(self, x: Array, kernel: Array) -> Array:
        """The convolution with this kernel in place of the layer's own."""
        y = convolve(x, kernel, cast(Sequence[int], self.strides), feature_group_count=self.feature_group_count)
        return y if self.bias is None else y + self.bias[...].astype(x.dtype)


class Linear(nnx.Linear):
    """x (…, inputs) → (…, outputs)."""

    def __call__(self, x: Array) -> Array:  # type: ignore[override]
        y = x @ self.kernel[...].astype(x.dtype)
        return y if self.bias is None else y + self.bias[...].astype(x.dtype)

    def into(self, x: Array, *shape: int) -> Array:
        """x (…, inputs) → (…, *shape), where the product of `shape` is the number of outputs.

        This reshapes the kernel and not the result. If outputs and result are sharded over devices in different ways,
        only the small kernel then moves between devices, and not a batch of activations. Where only the inputs or the
        batch are sharded, it reshapes the result, so that the kernel's gradient can be scattered like the kernel.
        """
        if (places := splitting.PLACES.get()) is not None and places.mesh.shape['tensor'] == 1:
            return self(x).reshape(*x.shape[:-1], *shape)
        kernel = self.kernel[...].astype(x.dtype).reshape(x.shape[-1], *shape)
        y = jax.lax.dot_general(x, kernel, (((x.ndim - 1,), (0,)), ((), ())))
        return y if self.bias is None else y + self.bias[...].astype(x.dtype).reshape(shape)


class Conditioning(nnx.Module):
    """Times (batch,) and conditions → the vector (batch, outputs) that residual blocks are conditioned on.

    Classes, vectors and numbers enter here. An additional class stands for no class (Ho & Salimans 2022). A number is
    embedded like the times and added before their second layer; in a fresh network it has no effect (Meng et al. 2023).

    Args:
      endpoint: whether the smallest frequency of the times is exactly 1/10,000; see `timestep_embedding`.
      kernel_init: initialises the two layers that process the times.
      class_init: initialises the classes' vectors.
      time_scale: the scale of the times' sinusoids. Derivatives with respect to time grow in proportion.
      second_time: calls also give earlier times s, and the distance t − s is embedded too.
      bias_init: number of inputs of a layer that processes the times → initialiser of its bias.
      vector_init: initialises the layers of vectors.
      early: the types of conditions that are added to the times' sinusoids and not to the output of the two layers.
      features_of_time: replaces the sinusoids; its input is `time_scale` times the times.
    """

    def __init__(
        self, features: int, outputs: int, forms: Mapping[str, Form], *,
        endpoint: bool, kernel_init: Initializer, class_init: Initializer, time_scale: float = 1000.0,
        second_time: bool = False, bias_init: Callable[[int], Initializer] = lambda inputs: zeros,
        vector_init: Initializer = zeros, early: Sequence[str] = (), features_of_time: nnx.Module | None = None,
        rngs: nnx.Rngs,
    ):  # fmt: skip
        self.features, self.endpoint, self.time_scale, self.early = features, endpoint, time_scale, tuple(early)
        self.features_of_time = features_of_time
        self.forms = tuple((name, form) for name, form in forms.items() if form.type in ('classes', 'vector'))
        self.heard = tuple((name, form) for name, form in forms.items() if form.type == 'number')
        self.hidden = Linear(features, outputs, kernel_init=kernel_init, bias_init=bias_init(features), rngs=rngs)
        self.output = Linear(outputs, outputs, kernel_init=kernel_init, bias_init=bias_init(outputs), rngs=rngs)

        def entry(form: Form) -> nnx.Module:
            width = features if form.type in self.early else outputs
            if form.size:
                return nnx.Embed(form.size + 1, width, embedding_init=class_init, rngs=rngs)
            return Linear(form.shape[0], width, use_bias=False, kernel_init=vector_init, rngs=rngs)

        self.entries = nnx.Dict({name: entry(form) for name, form in self.forms})
        self.distance = Linear(features, outputs, kernel_init=kernel_init, rngs=rngs) if second_time else None
        self.numbers = nnx.Dict({
            name: Linear(features, outputs, use_bias=False, kernel_init=zeros, rngs=rngs) for name, _ in self.heard
        })  # fmt: skip

    def __call__(self, t: Array, given: Given, s: Array | None = None, more: Array | None = None) -> Array:
        """The vector, with `more` (batch, outputs) added to it before the last activation."""
        h = self._embedded(t)
        for name, form in self.forms:
            if form.type in self.early:
                h = h + self.entries[name](told(given, name, form, len(t)))
        h = self.hidden(h)
        if self.distance is not None:
            h = h + self.distance(self._embedded(jnp.zeros_like(t) if s is None else t - s))
        elif s is not None:
            raise ValueError('This network was not built to take a second time.')
        for name, form in self.heard:
            embedded = timestep_embedding(told(given, name, form, len(t)), self.features, endpoint=self.endpoint)
            h = h + self.numbers[name](embedded)
        h = self.output(nnx.silu(h))
        for name, form in self.forms:
            if form.type not in self.early:
                h = h + self.entries[name](told(given, name, form, len(t)))
        return nnx.silu(h if more is None else h + more)

    def _embedded(self, t: Array) -> Array:
        if self.features_of_time is not None:
            return self.features_of_time(self.time_scale * t)
        return timestep_embedding(t, self.features, endpoint=self.endpoint, scale=self.time_scale)


class Classes(nnx.Module):
    """The sum (batch, size) of the vectors of an image's classes, one class per condition; None without any."""

    def __init__(self, forms: Mapping[str, Form], size: int, *, rngs: nnx.Rngs, **options: Any):
        check_classes(forms)
        self.entries = nnx.Dict(
            {name: nnx.Embed(form.size, size, rngs=rngs, **options) for name, form in forms.items()}
        )

    def __call__(self, given: Given) -> Array | None:
        if given is None or not self.entries:
            return None
        return sum((embed(given[name]) for name, embed in self.entries.items()), jnp.zeros(()))


READ = ('tokens', 'features')  # the types of conditions that blocks attend to


class Words(nnx.Module):
    """Words (batch, length), or features of them, → vectors (batch, length, width) with position embeddings."""

    def __init__(self, forms: Mapping[str, Form], width: int, *, rngs: nnx.Rngs):
        self.forms = tuple((name, form) for name, form in forms.items() if form.type in READ)
        init = nnx.initializers.normal(1.0)

        def entry(form: Form) -> nnx.Module:
            if form.type == 'features':
                return Linear(form.shape[1], width, rngs=rngs)
            return nnx.Embed(form.size, width, embedding_init=init, rngs=rngs)

        self.words = nnx.Dict({name: entry(form) for name, form in self.forms})
        self.places = nnx.Dict({
            name: nnx.Embed(form.shape[0], width, embedding_init=init, rngs=rngs) for name, form in self.forms
        })  # fmt: skip

    def __call__(self, given: Given, count: int) -> Array | None:
        """The words of all such conditions, concatenated; None if a network has no such condition."""
        found = [
            self.words[name](told(given, name, form, count)) + self.places[name](jnp.arange(form.shape[0]))
            for name, form in self.forms
        ]
        return jnp.concatenate(found, axis=1) if found else None

    def read(self, given: Given, count: int) -> tuple[Array | None, Array | None]:
        """The vectors to attend to, and what the captions as a whole add to the embedding of time, if they do."""
        return self(given, count), None


def with_channels(x: Array, forms: Mapping[str, Form], given: Given) -> Array:
    """x (batch, height, width, channels) with the picture conditions as further channels."""
    pictures = [told(given, name, form, len(x)) for name, form in forms.items() if form.type == 'image']
    return jnp.concatenate([x, *pictures], axis=-1) if pictures else x


def channels_of(forms: Mapping[str, Form]) -> int:
    """The number of channels that `with_channels` adds."""
    return sum(form.shape[-1] for form in forms.values() if form.type == 'image')


class GroupNorm(nnx.Module):
    """Group normalisation (Wu & He 2018) with its statistics in float32: x (batch, height, width, channels).

    A product with a constant matrix sums over a group's channels. On CPU, the gradient of reshapes and repeats would
    make XLA recompute whole residual chains, which costs a fifth of a U-Net's training step.
    """

    def __init__(self, channels: int, *, groups: int = 32, epsilon: float = 1e-6):
        self.groups, self.epsilon = math.gcd(groups, channels), epsilon
        self.scale = nnx.Param(jnp.ones(channels))
        self.bias = nnx.Param(jnp.zeros(channels))

    def __call__(self, x: Array) -> Array:
        _, height, width, channels = x.shape
        size = channels // self.groups
        average = np.kron(np.eye(self.groups), np.full((size, size), 1 / (height * width * size))).astype(np.float32)
        wide = x.astype(jnp.float32)
        sums = wide.sum((1, 2)), jnp.square(wide).sum((1, 2))
        mean, square = (jnp.matmul(total, average, precision='highest') for total in sums)
        scale = jax.lax.rsqrt(jnp.maximum(square - jnp.square(mean), 0.0) + self.epsilon) * self.scale[...]
        shift = self.bias[...] - mean * scale
        # Rounding happens only here: far from zero, both terms are large and cancel, which bfloat16 cannot represent.
        return (wide * scale[:, None, None] + shift[:, None, None]).astype(x.dtype)


_fused = contextvars.ContextVar('fused attention', default=True)


@contextlib.contextmanager
def plain_attention() -> Iterator[None]:
    """Allow forward-mode differentiation of everything traced inside, which fused attention does not support."""
    token = _fused.set(False)
    try:
        yield
    finally:
        _fused.reset(token)


def attend(qkv: Array, causal: bool = False) -> Array:
    """Scaled dot-product attention of qkv (batch, tokens, 3, heads, size) → (batch, tokens, heads, size).

    With `causal`, a token attends to itself and to the tokens before it. On NVIDIA GPUs in half precision this uses
    cuDNN's fused kernel (Dao et al. 2022) if that supports the shape, and otherwise XLA.
    """
    fused = _fused.get() and platforms.platform() == 'gpu' and qkv.dtype == jnp.bfloat16
    fits = qkv.shape[-1] % 8 == 0 and qkv.shape[-1] <= 128
    implementation: Literal['cudnn', 'xla'] = 'cudnn' if fused and fits else 'xla'
    queries, keys, values = (qkv[:, :, place] for place in range(3))
    return jax.nn.dot_product_attention(queries, keys, values, is_causal=causal, implementation=implementation)


class Attention(nnx.Module):
    """Self-attention over pixels with a residual connection (Ho et al. 2020, appendix B)."""

    # In DDPM, queries, keys and values are three layers, each with variance 2 / (inputs + outputs) = 1 / channels.
    OF_THREE = nnx.initializers.variance_scaling(1.0, 'fan_in', 'uniform')

    def __init__(
        self, channels: int, *, heads: int = 1, groups: int = 32, epsilon: float = 1e-6,
        kernel_init: Initializer = OF_THREE, bias_init: Initializer = zeros, rngs: nnx.Rngs,
    ):  # fmt: skip
        self.heads = heads
        self.norm = GroupNorm(channels, groups=groups, epsilon=epsilon)
        self.inputs = Linear(channels, 3 * channels, kernel_init=kernel_init, bias_init=bias_init, rngs=rngs)
        self.output = Linear(channels, channels, kernel_init=zeros, rngs=rngs)

    def __call__(self, x: Array) -> Array:
        batch, height, width, channels = x.shape
        qkv = self.inputs(self.norm(x)).reshape(batch, height * width, 3, self.heads, channels // self.heads)
        return x + self.output(attend(qkv).reshape(x.shape))


class CrossAttention(nnx.Module):
    """x (batch, tokens, width) plus its attention to words (batch, length, context), which is zero when fresh."""

    def __init__(self, width: int, context: int, *, heads: int = 1, rngs: nnx.Rngs):
        self.heads = heads
        self.queries = Linear(width, width, use_bias=False, rngs=rngs)
        self.inputs = Linear(context, 2 * width, use_bias=False, rngs=rngs)
        self.output = Linear(width, width, kernel_init=zeros, rngs=rngs)

    def __call__(self, x: Array, context: Array) -> Array:
        batch, tokens, width = x.shape
        size = width // self.heads
        queries = self.queries(x).reshape(batch, tokens, self.heads, size)
        seen = self.inputs(context.astype(x.dtype)).reshape(batch, context.shape[1], 2, self.heads, size)
        found = jax.nn.dot_product_attention(queries, seen[:, :, 0], seen[:, :, 1])
        return x + self.output(found.reshape(x.shape))


def dropout(x: Array, rate: float, key: Array | None) -> Array:
    """Inverted dropout; no key means evaluation."""
    if key is None or rate == 0:
        return x
    return jnp.where(jax.random.bernoulli(key, 1 - rate, x.shape), x / (1 - rate), 0)


class Downsample(nnx.Module):
    """Halves height and width with a strided convolution."""

    def __init__(self, channels: int, *, rngs: nnx.Rngs):
        self.conv = Conv(channels, channels, stride=2, kernel_init=fan_average, rngs=rngs)

    def __call__(self, x: Array) -> Array:
        return self.conv(x)


class Upsample(nnx.Module):
    """Doubles height and width: nearest neighbour, then a convolution."""

    def __init__(self, channels: int, *, rngs: nnx.Rngs):
        self.conv = Conv(channels, channels, kernel_init=fan_average, rngs=rngs)

    def __call__(self, x: Array) -> Array:
        batch, height, width, channels = x.shape
        wide = jnp.broadcast_to(x[:, :, None, :, None], (batch, height, 2, width, 2, channels))
        return self.conv(wide.reshape(batch, 2 * height, 2 * width, channels))

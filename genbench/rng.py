"""The source of all random numbers: every key has a path, and no two draws share a key.

`jax.random.fold_in(key, i)` equals `jax.random.split(key, n)[i]`. A key that is split, or folded with small numbers for
one purpose, must therefore not be folded with small numbers for another. Here purposes have names, and a name is folded
in as 32 bits of its hash, far from any count:

    seed ─ 'initialisation' ─ step at which the stage begins ─ 'networks'
         │                                                 └ 'batch' ─ as an update
         ├ 'training' ─ step ─ 'flip', 'random crop'
         │                   ├ 'augmentation' ─ image ─ a name for each draw
         │                   └ 'update NAME' ─ 'images' ─ image ─ a name for each draw
         │                                   └ 'rest' ─ what is not drawn for an image
         ├ 'preparation' ─ row ─ a name for each draw
         ├ 'samples' ─ training seed ─ image ─ a name for each draw
         ├ 'conditions', 'shown' ─ training seed ─ image ─ kind of condition ─ a name for each draw
         ├ 'likelihood', 'inverse' ─ training seed ─ image
         ├ 'simulation' ─ training seed ─ image      (annealed importance sampling)
         ├ 'exploration' ─ training seed
         ├ 'regenerated' ─ image ─ a name for each draw      (attacks on watermarks; the seed of the command)
         ├ 'contents' ─ two sums of the pixels ─ a name for each draw      (draws made once for an image; seed 0)
         └ 'classifier' ─ 'networks'
                        └ 'shifts' ─ step

The seed is `train.seed` for initialisation, training and preparation, `evaluation.classifier.seed` for the classifier,
and `evaluation.seed` for everything else.
"""

import hashlib
from typing import Any

import jax
from flax import nnx

Array = jax.Array


def root(seed: int, purpose: str) -> Array:
    """The key from which all keys for one purpose derive."""
    return named(jax.random.key(seed), purpose)


def named(key: Array, name: str) -> Array:
    """The key, or keys (batch,), for the purpose `name`."""
    return numbered(key, int.from_bytes(hashlib.sha256(name.encode()).digest()[:4], 'big'))


def numbered(key: Array, number: Any) -> Array:
    """Key number `number` (below 2^32), or keys (batch,), derived from a key that has no other use."""
    if not key.ndim:
        return jax.random.fold_in(key, number)
    return jax.vmap(lambda one: jax.random.fold_in(one, number))(key)


def for_networks(key: Any) -> nnx.Rngs:
    """What networks are built with: `nnx.Rngs(key)`, and the same keys, but quick under a trace.

    At every draw flax asks the count of its draws, a traced number, for an attribute that it lacks, and jax words an
    error that nobody reads. That takes two thirds of the time in which a traced network is built. Here the count is
    a number of Python.
    """
    made: Any = nnx.Rngs(key)
    made.default = _Stream(made.default.key[...], tag=made.default.tag)
    return made


class _Stream(nnx.RngStream):
    def __init__(self, key: Array, *, tag: str):
        super().__init__(key, tag=tag)
        self._drawn = 0

    def __call__(self) -> Array:
        key = numbered(self.key[...], self._drawn)
        self._drawn += 1
        return key


def of_images(key: Array, first: Any, count: int) -> Array:
    """Keys (count,) of the images `first`, `first` + 1, …. They do not depend on how images are batched or placed."""
    return jax.vmap(lambda number: jax.random.fold_in(key, number))(first + jax.numpy.arange(count))


def of_contents(images: Array) -> Array:
    """Keys (batch,) that depend on the integer images alone: what is drawn for an image is the same at every use.

    A key is made of two random sums of the pixels, modulo 2^32, so different images almost surely have different keys.
    """
    whole = root(0, 'contents')
    pixels = images.reshape(len(images), -1).astype(jax.numpy.uint32)
    weights = jax.random.bits(named(whole, 'weights'), (2, pixels.shape[1]), jax.numpy.uint32)
    first, second = ((pixels * row).sum(1, dtype=jax.numpy.uint32) for row in weights)
    return jax.vmap(lambda a, b: numbered(numbered(named(whole, 'images'), a), b))(first, second)


def normal(keys: Array, name: str, shape: tuple[int, ...] = ()) -> Array:
    """Standard normal numbers (batch, *shape), one key per image. `name` distinguishes draws from the same keys."""
    return jax.vmap(lambda key: jax.random.normal(key, shape))(named(keys, name))


def uniform(keys: Array, name: str, shape: tuple[int, ...] = ()) -> Array:
    """Uniform numbers in [0, 1) (batch, *shape), one key per image. `name` distinguishes draws from the same keys."""
    return jax.vmap(lambda key: jax.random.uniform(key, shape))(named(keys, name))


def integers(keys: Array, name: str, low: int, high: int) -> Array:
    """Integers (batch,) in low … high − 1, one key per image. `name` distinguishes draws from the same keys."""
    return jax.vmap(lambda key: jax.random.randint(key, (), low, high))(named(keys, name))

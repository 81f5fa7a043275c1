"""genbench's own feature network: a classifier trained on the train split, once for each data set and seed.

Distances in its features are called `fd` and `kd`. They are no FID and no KID, and compare only with each other.
"""

import dataclasses
import functools
import hashlib
import io
import json
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx

from genbench import rng
from genbench.data import pipeline, sources
from genbench.data.sources import Arrays
from genbench.data.spec import DataSpec
from genbench.errors import UserError
from genbench.evaluation.features import network
from genbench.evaluation.features.network import FeatureNetwork
from genbench.networks.classifier import Classifier
from genbench.training import processes
from genbench.training.files import write_npz
from genbench.training.metrics import Progress

BATCH_SIZE = 128  # for training
EXTRACTION_BATCH = 512
PURPOSE = 'classifier'  # the purpose of its random keys
VERSION = 2  # increment when training changes; it is part of the hash


def classifier(spec: DataSpec, train: Arrays, options: Any, *, quiet: bool = False) -> FeatureNetwork:
    """The feature network of a data set: read from the cache, or trained and put there.

    The cache key hashes the images, the labels, the network, the training recipe and the seed.

    Raises:
      UserError: the data set has no labels to train on.
    """
    if not spec.classes:
        raise UserError(f'{spec.name} has no labels, so genbench cannot train its feature classifier on it. Remove fd, '
                        'kd, precision and recall from evaluation.metrics, or choose other features.')  # fmt: skip
    digest = _hash(spec, train, options)
    model = functools.partial(Classifier, spec.shape[2], spec.classes, options.channels)
    definition = nnx.split(nnx.eval_shape(lambda: model(rngs=rng.for_networks(0))))[0]
    path = sources.cache_dir() / 'features' / f'{spec.name}-{digest}.npz'
    leaves, structure = jax.tree.flatten(_init(model, options.seed, abstract=True))

    def trained() -> bytes:
        if not path.is_file():
            params, accuracy = _fit(model, definition, spec, train, options, quiet)
            named = {f'p{index}': np.asarray(leaf) for index, leaf in enumerate(jax.tree.leaves(params))}
            write_npz(path, {'accuracy': accuracy, **named})
        return path.read_bytes()

    stored = np.load(io.BytesIO(processes.from_first(trained)))  # the same in every process
    leaves, accuracy = [stored[f'p{index}'] for index in range(len(leaves))], float(stored['accuracy'])
    params = jax.tree.unflatten(structure, leaves)

    def apply(params: Any, images: jax.Array) -> dict[str, jax.Array]:
        network = nnx.merge(definition, params)
        features = network(spec.encode(images))
        return {'features': features, 'logits': network.logits(features)}

    weights = hashlib.sha256(b''.join(np.asarray(leaf).tobytes() for leaf in leaves)).hexdigest()[:12]
    protocol = {
        'weights': weights,  # the same recipe gives different weights on another device
        'input': f'integers in [0, {spec.levels})',
        'dimensions': Classifier.FEATURES,
    }
    return network.make(
        f'classifier-{spec.name}-{digest}', apply, params, protocol, batch_size=EXTRACTION_BATCH,
        outputs=('features', 'logits'), levels=spec.levels, accuracy=accuracy, shape=spec.shape,
    )  # fmt: skip


def _hash(spec: DataSpec, train: Arrays, options: Any) -> str:
    described = dataclasses.asdict(spec)
    for name in ('fields', 'content'):  # the classifier sees images and labels
        described.pop(name)
    recipe = {'version': VERSION, 'spec': described, **dict(options)}
    digest = hashlib.sha256(json.dumps(recipe, sort_keys=True).encode())
    digest.update(np.ascontiguousarray(train.images).tobytes())
    digest.update(np.ascontiguousarray(train.labels).tobytes())
    return digest.hexdigest()[:12]


def _init(model: Any, seed: int, *, abstract: bool = False) -> Any:
    def build(key):
        return nnx.to_pure_dict(nnx.split(model(rngs=rng.for_networks(key)))[1])

    key = rng.named(rng.root(seed, PURPOSE), 'networks')
    return jax.eval_shape(build, key) if abstract else jax.jit(build)(key)


def _fit(model, definition, spec: DataSpec, train: Arrays, options: Any, quiet: bool) -> tuple[Any, float]:
    """Adam with a cosine decay on cross-entropy; images shifted by up to one pixel; returns the train accuracy."""
    optimizer = optax.adam(optax.cosine_decay_schedule(3e-3, options.num_steps))
    params = _init(model, options.seed)
    shifts = rng.named(rng.root(options.seed, PURPOSE), 'shifts')
    order = pipeline.Order(len(train), options.seed)

    def loss(params, images, labels):
        network = nnx.merge(definition, params)
        logits = network.logits(network(spec.encode(images)))
        return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean(), logits

    @functools.partial(jax.jit, donate_argnums=(0, 1))
    def step(params, state, images, labels, key):
        moved = jnp.roll(images, jax.random.randint(key, (2,), -1, 2), (1, 2))
        (_, logits), gradient = jax.value_and_grad(loss, has_aux=True)(params, moved, labels)
        changes, state = optimizer.update(gradient, state, params)
        return optax.apply_updates(params, changes), state, (logits.argmax(-1) == labels).mean()

    state = optimizer.init(params)
    recent: list[jax.Array] = []
    progress = Progress(f'train the feature classifier of {spec.name}', 0, options.num_steps, quiet=quiet)
    for index in range(options.num_steps):
        chosen = order.indices(index * BATCH_SIZE, BATCH_SIZE)
        key = rng.numbered(shifts, index)
        params, state, accuracy = step(params, state, train.images[chosen].astype(np.int32), train.labels[chosen], key)
        recent = [*recent[-19:], accuracy]
        progress.update(index + 1)
    progress.close()
    return params, float(np.mean(jax.device_get(recent)))

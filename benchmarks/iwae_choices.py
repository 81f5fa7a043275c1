"""What the choices of IWAE's official code do at k = 1, in a few lines of JAX that share nothing with genbench.

python benchmarks/iwae_choices.py --data-dir DIR [--choices mean_image,decay …] [--updates 120000]

Y. Burda, R. Grosse, R. Salakhutdinov, Importance Weighted Autoencoders, 2016. Without choices, everything is as the
paper says, and biases, of which it says nothing, start at zero. The script prints a line of JSON after some epochs: the
mean of −ELBO over the epoch's images, the number of active units, and −L_500 of the first 2,000 test images, in nats.
docs/reproductions/iwae.md quotes it.
"""

import argparse
import functools
import json
import math

import jax
import jax.numpy as jnp
import numpy as np
import tensorflow_datasets as tfds

CHOICES = {
    'mean_image': "the biases of the decoder's last layer start at the logits of the mean image",
    'decay': 'β₁ is 0.99',
    'moments': "Adam's second moments start at one",
    'split': '400 images are left out, and the others are not shuffled',
    'rates': 'learning rates are rounded',
    'seeds': 'all layers start from the same random numbers',
}
SHOWN = (1, 4, 13, 25, 40, 70, 121, 242, 364)
BATCH, DECAY, EPSILON = 20, 0.999, 1e-4


def load(split: str, folder: str) -> np.ndarray:
    """Images (n, 784), integers up to 255."""
    rows = tfds.data_source('mnist', split=split, data_dir=folder)
    return np.stack([rows[index]['image'].reshape(784) for index in range(len(rows))])


def start(mean: np.ndarray, chosen: set[str]) -> dict:
    """First parameters, as Glorot & Bengio 2010."""
    shared = np.random.RandomState(1)

    def layer(inputs: int, outputs: int) -> list:
        random = np.random.RandomState(123) if 'seeds' in chosen else shared
        bound = math.sqrt(6 / (inputs + outputs))
        return [jnp.float32(random.uniform(-bound, bound, (inputs, outputs))), jnp.zeros(outputs)]

    sizes = {'encoder': [(784, 200), (200, 200)], 'mean': [(200, 50)], 'log_std': [(200, 50)],
             'decoder': [(50, 200), (200, 200)], 'logits': [(200, 784)]}  # fmt: skip
    params = {name: [layer(*pair) for pair in pairs] for name, pairs in sizes.items()}
    if 'mean_image' in chosen:
        clipped = np.clip(mean / 255, 0.001, 0.999)
        params['logits'][0][1] = jnp.float32(np.log(clipped / (1 - clipped)))
    return params


def through(layers: list, x: jax.Array, last: bool = False) -> jax.Array:
    for kernel, bias in layers:
        x = x @ kernel + bias
        x = x if last else jnp.tanh(x)
    return x


def encode(params: dict, x: jax.Array) -> tuple[jax.Array, jax.Array]:
    h = through(params['encoder'], x)
    return through(params['mean'], h, True), through(params['log_std'], h, True)


def log_weight(params: dict, x: jax.Array, key: jax.Array) -> jax.Array:
    """log p(x, z) − log q(z | x) for one z of each image, (batch,)."""
    mean, log_std = encode(params, x)
    z = mean + jnp.exp(log_std) * jax.random.normal(key, mean.shape)
    logits = through(params['logits'], through(params['decoder'], z), True)
    log_p = (x * logits - jax.nn.softplus(logits)).sum(1) - (z**2).sum(1) / 2
    return log_p + (((z - mean) / jnp.exp(log_std)) ** 2 / 2 + log_std).sum(1)


@functools.partial(jax.jit, donate_argnums=0, static_argnums=3)
def ten_updates(state: tuple, images: jax.Array, rate: jax.Array, decay: float) -> tuple:
    """Ten steps of Adam on the sum over a batch, with images (10, batch, 784) that are binarised anew."""
    for batch in images:
        params, first, second, count, key, total = state
        key, pixels, noise = jax.random.split(key, 3)
        x = (jax.random.uniform(pixels, batch.shape) * 255 < batch).astype(jnp.float32)
        loss, slope = jax.value_and_grad(lambda params, x=x, noise=noise: -log_weight(params, x, noise).sum())(params)
        count += 1
        first = jax.tree.map(lambda m, g: decay * m + (1 - decay) * g, first, slope)
        second = jax.tree.map(lambda v, g: DECAY * v + (1 - DECAY) * g**2, second, slope)
        scale = rate * jnp.sqrt(1 - DECAY**count) / (1 - decay**count)
        params = jax.tree.map(lambda p, m, v, s=scale: p - s * m / (jnp.sqrt(v) + EPSILON), params, first, second)
        state = params, first, second, count, key, total + loss
    return state


@functools.partial(jax.jit, static_argnums=3)
def bound(params: dict, x: jax.Array, key: jax.Array, draws: int) -> jax.Array:
    weights = jax.lax.map(lambda key: log_weight(params, x, key), jax.random.split(key, draws))
    return jax.nn.logsumexp(weights, 0) - jnp.log(draws)


def main() -> None:
    said = '\n'.join(f'  {name}: {what}' for name, what in CHOICES.items())
    parser = argparse.ArgumentParser(description=said, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--data-dir', required=True)
    parser.add_argument('--choices', default='', help=f'some of {",".join(CHOICES)}')
    parser.add_argument('--updates', type=int, default=120_000)
    told = parser.parse_args()
    chosen = {name for name in told.choices.split(',') if name}
    if unknown := chosen - set(CHOICES):
        parser.error(f'there is no choice {", ".join(sorted(unknown))}')
    train, test = load('train', told.data_dir), load('test', told.data_dir)[:2000]
    train = train[:-400] if 'split' in chosen else train
    binary = jnp.asarray(np.random.RandomState(5).rand(*test.shape) * 255 < test, jnp.float32)
    params = start(train.mean(0), chosen)
    moments = jnp.ones_like if 'moments' in chosen else jnp.zeros_like
    state = (params, jax.tree.map(jnp.zeros_like, params), jax.tree.map(moments, params), jnp.float32(0),
             jax.random.key(0))  # fmt: skip
    epoch, random = len(train) // BATCH, np.random.RandomState(0)
    ends = [epoch * sum(3**i for i in range(stage + 1)) for stage in range(8)]
    for number in range(1, -(-told.updates // epoch) + 1):
        order = np.arange(len(train)) if 'split' in chosen else random.permutation(len(train))
        factor = 10 ** (1 - sum((number - 1) * epoch >= end for end in ends) / 7)
        rate = jnp.float32(1e-4 * (round(factor, 1) if 'rates' in chosen else factor))
        state = (*state[:5], jnp.float32(0))
        for at in range(0, len(train), 10 * BATCH):
            images = train[order[at : at + 10 * BATCH]].reshape(10, BATCH, 784)
            state = ten_updates(state, images, rate, 0.99 if 'decay' in chosen else 0.9)
        if number in SHOWN or number * epoch >= told.updates:
            active = (jnp.var(encode(state[0], jnp.asarray(train[:10_000] / 255, jnp.float32))[0], 0) > 0.01).sum()
            found = -float(bound(state[0], binary, jax.random.key(3), 500).mean())
            print(json.dumps({'choices': sorted(chosen), 'updates': number * epoch,
                              'elbo': round(float(state[5]) / len(train), 2), 'active_units': int(active),
                              'L_500': round(found, 2)}), flush=True)  # fmt: skip


if __name__ == '__main__':
    main()

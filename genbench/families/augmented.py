"""Discriminators that see augmented images, and the controller of the probability (`data.differentiable`).

T. Karras et al., Training Generative Adversarial Networks with Limited Data, 2020, section 3: r = E[sign D(x)] over
real images measures overfitting, and p rises while r is above its target and falls while it is below.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from genbench.data import differentiable
from genbench.errors import UserError
from genbench.families import adversarial
from genbench.ranges import COUNT, NOT_NEGATIVE, PROBABILITY, Range, one_of

Array = jax.Array
OPTIONS = {
    'augmentation': 'none',  # or 'bgc' (ADA), 'bgc_cutout' (R3GAN), 'diffaugment': what the discriminator sees
    'augmentation_target': 0.6,  # of the mean sign of real logits, which moves the probability
    'augmentation_images': 500_000,  # images in which the probability moves by 1
    'augmentation_probability': 0.0,  # above 0: no target; it rises to this along half a cosine over the run
    'blur': 0.0,  # spread in pixels of a blur of what the discriminator sees at the start (10 for StyleGAN3-R)
    'blur_images': 200_000,  # images over which it falls to 0
}
RANGES = {
    'augmentation': one_of('none', *differentiable.AUGMENTATIONS),
    'augmentation_target': Range(-1, 1),
    'augmentation_images': COUNT,
    'augmentation_probability': PROBABILITY,
    'blur': NOT_NEGATIVE,
    'blur_images': COUNT,
}
INTERVAL = 4  # updates of the discriminator between two changes of the probability (the paper's, and its code's)


class Controlled(nnx.Variable):
    """A number that the controller keeps. It is part of the state and of checkpoints, and no optimizer moves it."""


class Controller(nnx.Module):
    """The probability of the augmentation, and the sum of the signs seen since it last changed."""

    def __init__(self) -> None:
        self.probability = Controlled(jnp.zeros(()))
        self.signs = Controlled(jnp.zeros(()))

    def hear(self, logits: Array, step: Array, target: float, images: int) -> None:
        """Take in the logits (batch,) of real images, and every `INTERVAL` steps move p towards the target's side."""
        signs = self.signs[...] + jnp.sign(logits).mean()
        due = step % INTERVAL == INTERVAL - 1
        change = jnp.sign(signs / INTERVAL - target) * len(logits) * INTERVAL / images
        moved = jnp.clip(self.probability[...] + change, 0, 1)
        self.probability[...] = jnp.where(due, moved, self.probability[...])
        self.signs[...] = jnp.where(due, 0.0, signs)


class Augmented(nnx.Module):
    """A discriminator of augmented images, called like the discriminator itself."""

    def __init__(self, critic: Any, augment: differentiable.Augment, keys: Array, probability: Array):
        self.critic, self.augment = critic, augment
        self.keys, self.probability = nnx.Variable(keys), nnx.Variable(probability)

    def __call__(self, x: Array, *given: Any) -> Array:
        return self.critic(self.augment(x, self.keys[...], self.probability[...]), *given)


class Blurred(nnx.Module):
    """A discriminator of blurred images (T. Karras et al., Alias-Free GAN, 2021, appendix F)."""

    def __init__(self, critic: Any, spread: Array, widest: float):
        self.critic, self.spread, self.widest = critic, nnx.Variable(spread), widest

    def __call__(self, x: Array, *given: Any) -> Array:
        return self.critic(blurred(x, self.spread[...], self.widest), *given)


def blurred(x: Array, spread: Array, widest: float) -> Array:
    """x (batch, height, width, channels) filtered by 2^−(d / spread)² up to 3 spreads away, with zeros around.

    Args:
      widest: a bound of the spread. Below a third of a pixel there is no blur.
    """

    def taps(distance: Any) -> Array:
        near = jnp.abs(distance) <= jnp.floor(3 * spread)
        return jnp.where(near, jnp.exp2(-jnp.square(distance / jnp.maximum(spread, 1e-3))), 0)

    total, (height, width) = taps(np.arange(-int(3 * widest), int(3 * widest) + 1)).sum(), x.shape[1:3]
    rows, columns = (taps(np.arange(size)[:, None] - np.arange(size)) / total for size in (height, width))
    return jnp.einsum('ip,jq,bpqc->bijc', rows, columns, x, precision='highest')


def check(options: Any) -> None:
    """Raise a UserError for a probability of an augmentation that takes none."""
    if options.augmentation_probability and options.augmentation in ('none', *differentiable.ALWAYS):
        raise UserError(f'family.augmentation_probability is set, but family.augmentation={options.augmentation} has '
                        'none; use bgc or bgc_cutout, or 0.')  # fmt: skip


def controlled(options: Any) -> bool:
    """Whether a controller moves the probability."""
    named, fixed = options.augmentation, options.augmentation_probability
    return named not in ('none', *differentiable.ALWAYS) and not fixed


def seen(config: Any, critic: Any, controller: Any, keys: Array, step: Array) -> Any:
    """The discriminator, behind the augmentation and the blur if the config names them.

    Args:
      controller: the controller of the probability, or None.
      keys: one key per image.
    """
    options = config.family
    if options.augmentation != 'none':
        rising = options.augmentation_probability * adversarial.annealed(step, config.train.num_steps)
        p = rising if controller is None else controller.probability[...]
        critic = Augmented(critic, differentiable.AUGMENTATIONS[options.augmentation], keys, p)
    if options.blur:
        share = jnp.maximum(1 - step * config.train.batch_size / options.blur_images, 0)
        critic = Blurred(critic, options.blur * share, options.blur)
    return critic


def heard(options: Any, controller: Any, logits: Array, step: Array) -> dict[str, Array]:
    """Tell the controller, if there is one, the logits of real images. Returns its probability as a scalar to log."""
    if controller is None:
        return {}
    controller.hear(logits, step, options.augmentation_target, options.augmentation_images)
    return {'augmentation': controller.probability[...]}

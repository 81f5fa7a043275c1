"""The losses of a GAN's two networks, and their penalties.

I. Goodfellow et al., Generative Adversarial Nets, 2014, section 3; M. Arjovsky, S. Chintala, L. Bottou, Wasserstein
GAN, 2017, equations 2 and 3; J. Lim, J. Ye, Geometric GAN, 2017, section 4; A. Jolicoeur-Martineau, The Relativistic
Discriminator, 2018, and N. Huang et al., The GAN is dead; long live the GAN!, 2024, equation 2 (relativistic pairing);
Z. Lin et al., PacGAN: The power of two samples in generative adversarial networks, 2018 (packs).
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from genbench.errors import UserError

Array = jax.Array
SMALL, LARGEST = 1e-4, 1e4  # added to the norm that `balance` divides by; its largest value (VQGAN's code)


@dataclasses.dataclass(frozen=True)
class Loss:
    """A loss of logits (batch,).

    Attributes:
      discriminator: (real, fake) → scalar.
      generator: (real, fake) → scalar; it gets the real ones only if `pairs`.
      pairs: the generator's loss compares each of its images with a real one.
    """

    discriminator: Callable[[Array, Array], Array]
    generator: Callable[[Array, Array], Array]
    pairs: bool = False

    def accuracy(self, real: Array, fake: Array) -> Array:
        """The fraction of images, or of pairs, that the discriminator tells apart rightly."""
        return (real > fake).mean() if self.pairs else ((real > 0).mean() + (fake < 0).mean()) / 2


def apart(real: Callable[[Array], Array], fake: Callable[[Array], Array], generator: Callable[[Array], Array]) -> Loss:
    """A loss that is a sum of one for real logits and one for fake logits."""
    return Loss(lambda x, y: fake(y).mean() + real(x).mean(), lambda _, y: generator(y).mean())


LOSSES = {
    'non_saturating': apart(lambda real: nnx.softplus(-real), nnx.softplus, lambda fake: nnx.softplus(-fake)),
    'wasserstein': apart(jnp.negative, jnp.asarray, jnp.negative),
    'hinge': apart(lambda real: nnx.relu(1 - real), lambda fake: nnx.relu(1 + fake), jnp.negative),
    'relativistic': Loss(
        lambda real, fake: nnx.softplus(fake - real).mean(), lambda real, fake: nnx.softplus(real - fake).mean(), True
    ),
}


def balance(first: Array, second: Array, unit: float = 1.0) -> Array:
    """λ, the weight of a second loss: the norm of the first's gradient in the last layer over that of the second's.

    P. Esser et al., Taming Transformers for High-Resolution Image Synthesis, 2021, equation 7. Their code limits λ.

    Args:
      unit: what a loss of 1 in the official code is in the unit of the first loss. The limit of λ scales with it.
    """
    return jax.lax.stop_gradient(jnp.clip(first / (second + SMALL), 0, LARGEST * unit))


def squared_slope(gradient: Array) -> Array:
    """E ‖∇D‖² of gradients (batch, height, width, channels): R1 on real and R2 on fake images (Mescheder et al. 2018).

    R1 is their equation 9 and R2 their equation 10, both without γ / 2.
    """
    return jnp.square(gradient).sum((1, 2, 3)).mean()


def orthogonality(module: nnx.Module) -> Array:
    """Σ ‖WᵀW ⊙ (1 − I)‖² over kernels W (inputs, outputs) (A. Brock et al., BigGAN, 2019, equation 3).

    It pays for outputs of a layer that depend on its inputs in the same way, whatever their scale.
    """
    found = jnp.zeros(())
    for path, kernel in nnx.to_flat_state(nnx.state(module, nnx.Param)):
        if path[-1] == 'kernel':
            matrix = kernel[...].reshape(-1, kernel.shape[-1])
            products = matrix.T @ matrix
            found += jnp.square(products - jnp.diag(jnp.diag(products))).sum()
    return found


def packed(images: Array, pack: int) -> Array:
    """Packs of images as channels, (batch / pack, height, width, pack · channels) (PacGAN, section 2)."""
    packs = images.reshape(-1, pack, *images.shape[1:])
    return jnp.moveaxis(packs, 1, 3).reshape(len(packs), *images.shape[1:3], -1)


def check(config: Any, conditional: bool) -> None:
    """Raise a UserError for options of a penalty that is not used, and for packs that this config does not allow."""
    for key in ('penalty_falls_to', 'penalty_every') if config.family.penalty == 'none' else ():
        if config.family[key] != 1:
            raise UserError(f'family.{key} is {config.family[key]}, but family.penalty=none pays nothing; use another '
                            'penalty, or 1.')  # fmt: skip
    pack, size = config.family.pack, config.train.batch_size // config.train.accumulate
    if pack > 1 and (conditional or size % pack):
        why = 'has no common condition' if conditional else f'does not divide a (micro-)batch of {size}'
        raise UserError(f'family.pack is {pack}, and a pack of this size {why}; set it to 1.')
    if pack > 1 and config.family.augmentation != 'none':
        raise UserError('Packs are not augmented: set family.pack=1 or family.augmentation=none.')


def annealed(step: Array, steps: int) -> Array:
    """How much of a change over `steps` steps has happened: from 0 to 1 along half a cosine."""
    return (1 - jnp.cos(jnp.pi * jnp.clip(step / max(steps, 1), 0, 1))) / 2


def falling(step: Array, steps: int, end: float) -> Array | float:
    """The factor of a weight that falls from 1 to `end` over `steps` steps."""
    return 1.0 if end == 1 else 1 - (1 - end) * annealed(step, steps)


def sometimes(
    step: Array, every: int, yes: Callable[[Any], Any], no: Callable[[Any], Any], modules: tuple[nnx.Module, ...]
) -> Any:
    """What `yes` returns for the modules on steps divisible by `every`, and on other steps what `no` returns.

    Both return the same shapes. This is lazy regularisation (T. Karras et al., Analyzing and Improving the Image
    Quality of StyleGAN, 2020, section 3.1), with the penalty in the loss of the step and not in a step of its own.
    """
    return yes(modules) if every == 1 else nnx.cond(step % every == 0, yes, no, modules)

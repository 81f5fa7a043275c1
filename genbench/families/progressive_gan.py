"""A GAN that grows from low to high resolution.

T. Karras, T. Aila, S. Laine, J. Lehtinen, Progressive Growing of GANs for Improved Quality, Stability, and Variation,
2018 (section 2, and appendix A.1 for the loss and the lengths of the stages).
"""

from typing import Any

import jax.numpy as jnp
from flax import nnx

from genbench import rng
from genbench.errors import UserError
from genbench.families.base import Array, Batch, Networks, Sampler, Scalars, register
from genbench.families.gan import GAN
from genbench.families.stages import Stage
from genbench.interpolants.options import Options
from genbench.networks import GROWING, progressive, square_size
from genbench.ranges import COUNT_OR_NONE, SHARE


@register('progressive_gan')
class ProgressiveGAN(GAN):
    """Each resolution is a stage. It begins with a part in which the resolution fades in, except for the lowest.

    A new stage takes over all layers of the stage before, and optimizers start afresh, as in the authors' code.
    """

    ranges = {'stage_images': COUNT_OR_NONE, 'fade': SHARE}

    @classmethod
    def defaults(cls) -> dict[str, Any]:
        options = {
            'loss': 'wasserstein', 'penalty': 'gradient_penalty', 'penalty_weight': 10.0, 'drift': 1e-3,
            'stage_images': 0,  # images in each stage between the first and the last; 0: equal parts of the run
            'fade': 0.5,  # share of such a stage in which its resolution fades in; the first stage lacks this part
        }  # fmt: skip
        return {
            'family': {**super().defaults()['family'], **options},
            'network': {'name': 'progressive'},
            'optimizer': {'b1': 0.0, 'b2': 0.99, 'clip_norm': 0.0, 'learning_rate': 1e-3},
        }

    @property
    def _length(self) -> float:
        """The steps of a stage between the first and the last. The last may be longer or shorter."""
        train, options = self.config.train, self.config.family
        parts = len(self.config.network.multipliers) - options.fade
        return options.stage_images / train.batch_size or train.num_steps / parts

    @property
    def stages(self) -> tuple[Stage, ...]:
        network = self.config.network
        if network.name not in GROWING:
            raise UserError(f'network.name is {network.name!r}, which does not grow; use {" or ".join(GROWING)}, or '
                            'family.name=gan for other networks.')  # fmt: skip
        size, resolutions = square_size(network, self.spec), len(network.multipliers)
        found = []
        for number in range(1, resolutions):
            height, end = size >> (resolutions - number), round(self._length * (number - self.config.family.fade))
            found.append(Stage(f'{height}x{height}', max(end, number), shape=(height, height)))
        return (*found, Stage(f'{size}x{size}'))

    @property
    def network(self) -> Any:
        network = self.config.network.copy_and_resolve_references()
        if self.span is not None:
            names = [stage.name for stage in self.span.whole.stages]
            with network.unlocked():
                network.multipliers = network.multipliers[-names.index(self.span.stage.name) - 1 :]
        return network

    @classmethod
    def sampler_options(cls, name: str) -> type[Options]:
        """None: the generator divides z by its length, so that a temperature would change nothing."""
        return Options

    def latents(self, keys: Array, sampler: Sampler) -> Array:
        return rng.normal(keys, 'z', self.latent_shape)

    def carry(self, old: Networks, new: Networks) -> None:
        for name, module in new.items():
            before = dict(nnx.to_flat_state(nnx.state(old[name])))
            kept = [(path, before[path]) for path, _ in nnx.to_flat_state(nnx.state(module)) if path in before]
            nnx.update(module, nnx.from_flat_state(kept))

    def _share(self, step: Array) -> Array:
        """The share of this stage's resolution after `step` updates, which rises from 0 to 1 and then stays."""
        first, part = (0 if self.span is None else self.span.first), self.config.family.fade * self._length
        return jnp.clip((step - first) / part, 0.0, 1.0) if first and part else jnp.ones(())

    def _fade(self, networks: Networks, step: Array) -> None:
        for name in ('generator', 'discriminator'):
            networks[name].fade[...] = self._share(step)

    def discriminator_loss(self, networks: Networks, batch: Batch, key: Array, step: Array) -> tuple[Array, Scalars]:
        self._fade(networks, step)
        return super().discriminator_loss(networks, batch, key, step)

    def generator_loss(self, networks: Networks, batch: Batch, key: Array, step: Array) -> tuple[Array, Scalars]:
        self._fade(networks, step)
        return super().generator_loss(networks, batch, key, step)

    def _real(self, networks: Networks, batch: Batch) -> Array:
        """Real images, which are a mixture with those of the resolution before while theirs fades in."""
        real = super()._real(networks, batch)
        if len(self.network.multipliers) > 1:
            real = progressive.blurred(real, networks['discriminator'].fade[...])
        return real

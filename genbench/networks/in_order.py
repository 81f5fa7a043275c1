"""Networks that predict an image step by step: what each step sees, and how samples are drawn through them."""

from typing import Any

import jax
import jax.numpy as jnp

from genbench.data.conditions import Given

Array = jax.Array


class InOrder:
    """A network (images, given, mask, key) → the parameters of every step, (batch, height, width, outputs per pixel).

    A step is one value, or all channels of one pixel. Its parameters depend on the steps before it only.

    Attributes:
      discrete: the images are integer levels; otherwise they are encoded, as real values.
      masks: the number of orderings; `mask` selects one of them.
      steps: the number of steps of an image, in raster order if the image is flattened.
    """

    discrete = False
    masks = 1
    steps: int

    def __call__(self, x: Array, given: Given = None, mask: Array | int = 0, key: Array | None = None) -> Array:
        raise NotImplementedError

    def fit(self, x: Array, given: Given, key: Array) -> None:
        """Initialise from the first batch, in place, where the network has such an initialisation."""

    def order(self, mask: Array | int) -> Array:
        """The flattened positions (steps,) in the order of sampling."""
        return jnp.arange(self.steps)

    def start(self, count: int) -> Any:
        """What sampling of this many images keeps between its steps."""
        return ()

    def step(self, x: Array, number: Array, kept: Any, given: Given, mask: Array | int) -> tuple[Array, Any]:
        """The parameters (batch, outputs) of step `number`.

        Args:
          x: images (batch, …) in which the steps before are set.
          kept: from `start`, or the step before.

        Returns:
          The parameters, and what the next step takes as `kept`. Here the whole network is evaluated, and the
          parameters of other steps are thrown away.
        """
        h = self(x, given, mask).reshape(len(x), self.steps, -1)
        return h[:, self.order(mask)[number]], kept

"""How one checkpoint samples, for people to look at: WORKDIR/exploration/.

exploration.json lists the contents. Pictures of traces are sprites: PNGs whose cells are images at their own size, one
row per step. The other pictures are enlarged, with gaps.

* denoising: every state of a multi-step sampler and the clean image it predicts there, from noise (`generation`) and
  from real images at some levels of noise (`reconstruction_K`), with the schedule's α, σ and log α²/σ² at its times;
* real: the first images of the evaluated split;
* interpolation: samples along great circles between latents (T. White, Sampling Generative Networks, 2016), for
  families whose samples are a function of a Gaussian latent or of the noise they start from;
* neighbours: samples above the nearest train images in the evaluation's features.
"""

import dataclasses
import functools
import io
import json
import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from PIL import Image

from genbench.data.conditions import Given
from genbench.errors import UserError
from genbench.evaluation import neighbours
from genbench.evaluation.reference import RealSets
from genbench.families.base import Sampler
from genbench.reading import read_json_if_any
from genbench.training import sampling
from genbench.training.files import write_atomically
from genbench.training.state import Blueprint, State

FORMAT = 4  # increment when the contents of a trace, or how they are computed, change
IMAGES = 8  # per row of pictures, and per batch
MOST_STEPS = 100  # a sampler with more steps is traced only if there is no shorter one
MOST_STATES = 41  # how many states of a trace to keep
SHARES = (0.25, 0.5, 0.75)  # how much of the sampler's path remains when a reconstruction begins
ROWS = 4  # interpolations
REAL = 100
NEAREST = 3  # neighbours per sample

Told = Callable[[int, int], Given]


def chosen(samplers: Sequence[Sampler], best: Sampler | None = None) -> Sampler:
    """Choose the sampler to follow: the best if it has several steps but not too many, else the one with the most."""
    if best is not None and 1 < int(best.num_steps) <= MOST_STEPS:
        return best

    def rank(sampler: Sampler) -> tuple[bool, int]:
        steps = int(sampler.num_steps)
        return steps <= MOST_STEPS, steps if steps <= MOST_STEPS else -steps

    return max(samplers, key=rank)


@dataclasses.dataclass(frozen=True)
class Explorer:
    """Draws pictures of one average of a checkpoint. The seed determines everything random.

    Attributes:
      sampler: draws neighbours and interpolations.
      followed: gives the states from noise to image; the same as `sampler` if that has several steps.
    """

    blueprint: Blueprint
    state: State
    sampler: Sampler
    followed: Sampler
    seed: int

    def write(
        self, folder: pathlib.Path, identity: Mapping[str, Any], samples: np.ndarray, told: Told, real: RealSets
    ) -> None:
        """Write whatever this identity does not have yet.

        Args:
          identity: config hash and step of the checkpoint, and further facts to note.
          samples: the first integer images (IMAGES, …) of the sampler.
          told: (shard, count) → conditions, as the evaluation draws them.
        """
        index = folder / 'exploration.json'
        if same(index, identity):
            return
        family = self.blueprint.family
        values = {
            'format': FORMAT, **identity, 'family': family.name, 'shape': family.spec.shape,
            **self.sampler.protocol,
            'images': IMAGES, 'denoising': None, 'interpolation': None, 'neighbours': None,
        }  # fmt: skip
        pictures: dict[str, np.ndarray] = {}
        seen = sampling.to_uint8(real.split.rows(slice(0, REAL))['image'], family.spec)
        save(folder / 'real.png', sampling.grid(seen, 10, scale=max(1, 256 // max(family.spec.shape[:2]) // 8)))
        on_path = family.path is not None and family.from_noise
        if on_path and int(self.followed.num_steps) > 1:
            values['denoising'] = self._denoising(pictures, told, real)
        if on_path or family.latent_shape is not None:
            rows = self._interpolation(told)
            save(folder / 'interpolation.png', _enlarged(sampling.to_uint8(rows, family.spec)))
            values['interpolation'] = {'rows': ROWS, 'columns': IMAGES}
        if 'features' in real.outputs:
            found, distances = _neighbours(samples, real)
            above, below = (_enlarged(sampling.to_uint8(rows, family.spec)) for rows in (found[:1], found[1:]))
            save(folder / 'neighbours.png', np.concatenate([above, below]))
            values['neighbours'] = {'distances': distances, 'features': real.network.name}
        for name, images in pictures.items():
            save(folder / f'{name}.png', _sprite(sampling.to_uint8(images, family.spec)))
        write_atomically(index, json.dumps(values) + '\n')

    def _denoising(self, pictures: dict[str, np.ndarray], told: Told, real: RealSets) -> dict[str, Any]:
        """Return the entry of exploration.json for the traces, and add their pictures to `pictures`."""
        family = self.blueprint.family
        schedule = family.asked(self.blueprint.bind_state(self.state)).path
        assert schedule is not None
        sampler, steps = self.followed, int(self.followed.num_steps)
        kept = np.unique(np.round(np.linspace(0, steps, min(steps + 1, MOST_STATES))).astype(int))
        times = schedule.step(jnp.asarray(steps - kept), steps, sampler.options.spacing)
        alpha, sigma = np.asarray(schedule.alpha(times)), np.asarray(schedule.sigma(times))

        def add(name: str, start: Any, given: Given, place: int) -> None:
            states, predictions = self._trace(sampler, start, self._keys(0, IMAGES), given, kept[place])
            seen = states[kept] / np.sqrt(alpha**2 + sigma**2).reshape(-1, *[1] * start.ndim)
            pictures[f'{name}_states'] = self._decoded(seen[place:])
            pictures[f'{name}_predictions'] = self._decoded(predictions[kept[place:-1]])

        noise = self._noise(0, family.space.shape)
        add('generation', sampler.options.temperature * sigma[0] * noise, told(0, IMAGES), 0)
        places = sorted({int(np.abs(kept - (1 - share) * steps).argmin()) for share in SHARES} - {0, len(kept) - 1})
        rows = real.split.rows(slice(0, IMAGES))
        targets, known = rows['image'], sampling.given(family, rows, 'conditions', self.seed)
        centres = np.asarray(self._encoder(self.state, jnp.asarray(targets)))
        for place in places:
            start = alpha[place] * centres + sigma[place] * noise
            add(f'reconstruction_{place}', start, known, place)
        pictures['targets'] = targets[None]
        return {
            **sampler.protocol, 'schedule': schedule.name, 'kept': kept.tolist(), 'times': _numbers(times),
            'alpha': _numbers(alpha), 'sigma': _numbers(sigma),
            'log_snr': [_log_snr(a, s) for a, s in zip(alpha, sigma, strict=True)],
            'reconstructions': places,
        }  # fmt: skip

    def _interpolation(self, told: Told) -> np.ndarray:
        """Integer images (ROWS, IMAGES, …); along a row only the latent changes."""
        family = self.blueprint.family
        shape = family.latent_shape or family.space.shape
        ends = self.sampler.options.temperature * self._noise(1, shape, 2 * ROWS)
        drawn, keys = told(0, ROWS), self._keys(IMAGES, ROWS)
        rows = []
        for row in range(ROWS):
            latents = slerp(ends[2 * row], ends[2 * row + 1], np.linspace(0, 1, IMAGES))
            given = jax.tree.map(lambda values, row=row: np.repeat(values[row : row + 1], IMAGES, 0), drawn)
            rows.append(self._images(latents, keys[np.full(IMAGES, row)], given))
        return np.stack(rows)

    def _images(self, latents: np.ndarray, keys: jax.Array, given: Given) -> np.ndarray:
        family = self.blueprint.family
        if family.path is None or family.latent_shape is not None:
            return np.asarray(self._generator(self.state, latents, keys, given))
        start = np.asarray(family.path.sigma(jnp.asarray(family.path.t_max))) * latents
        return self._decoded(self._trace(self.sampler, start, keys, given, 0)[0][-1:])[0]

    def _noise(self, purpose: int, shape: tuple[int, ...], count: int = IMAGES) -> np.ndarray:
        """Standard normal numbers (count, *shape)."""
        seeds = self.seed, self.blueprint.family.config.train.seed
        entropy = [number % 2**64 for number in (*seeds, purpose)]
        draw = np.random.Generator(np.random.Philox(np.random.SeedSequence(entropy)))
        return draw.standard_normal((count, *shape), np.float32)

    def _keys(self, first: int, count: int) -> jax.Array:
        """Keys of the noise drawn after the start: one for each image, and one for each row of an interpolation."""
        return sampling.image_keys(self.blueprint.family, 'exploration', self.seed, first, count)

    def _trace(
        self, sampler: Sampler, start: np.ndarray, keys: jax.Array, given: Given, first: int
    ) -> tuple[np.ndarray, np.ndarray]:
        """States (steps + 1, IMAGES, …) and predictions (steps, IMAGES, …) from `start` at step `first` on."""
        arguments = (np.asarray(start, np.float32), keys, given, np.int32(first))
        states, predictions = self._programs[sampler == self.followed](self.state, *arguments)
        return np.asarray(states), np.asarray(predictions)

    def _decoded(self, states: np.ndarray) -> np.ndarray:
        """Integer images of states (…, IMAGES, *shape) in the family's data space."""
        return np.stack([np.asarray(self._decoder(self.state, one)) for one in states])

    @functools.cached_property
    def _decoder(self) -> Callable[..., Any]:
        space = self.blueprint.family.space
        return jax.jit(lambda state, x: space.decode(self.blueprint.bind_state(state), x))

    @functools.cached_property
    def _encoder(self) -> Callable[..., Any]:
        space = self.blueprint.family.space
        return jax.jit(lambda state, images: space.centre(self.blueprint.bind_state(state), images))

    @functools.cached_property
    def _programs(self) -> tuple[Callable[..., Any], Callable[..., Any]]:
        """Functions for `sampler` and for `followed`. Only those that are called get compiled."""

        def program(sampler: Sampler) -> Callable[..., Any]:
            @jax.jit
            def run(state, start, keys, given, first):
                networks = self.blueprint.bind_state(state)
                return self.blueprint.family.trace(networks, start, keys, given, sampler, first)

            return run

        return program(self.sampler), program(self.followed)

    @functools.cached_property
    def _generator(self) -> Callable[..., Any]:
        @jax.jit
        def run(state, latents, keys, given):
            networks = self.blueprint.bind_state(state)
            return self.blueprint.family.generate(networks, latents, keys, given, self.sampler)

        return run


def slerp(one: np.ndarray, other: np.ndarray, shares: np.ndarray) -> np.ndarray:
    """Points (n, …) on the great circle from `one` to `other`, with norms in between. The ends stay as they are."""
    cosine = np.sum(one * other) / (np.linalg.norm(one) * np.linalg.norm(other))
    angle = np.arccos(np.clip(cosine, -1, 1))
    shares = shares.reshape(-1, *[1] * one.ndim)
    if angle < 1e-4:  # a straight line if the sines would vanish
        return ((1 - shares) * one + shares * other).astype(np.float32)
    points = (np.sin((1 - shares) * angle) * one + np.sin(shares * angle) * other) / np.sin(angle)
    return points.astype(np.float32)


def _neighbours(samples: np.ndarray, real: RealSets) -> tuple[np.ndarray, list[list[float]]]:
    """Samples above their nearest train images, (1 + NEAREST, IMAGES, …), and the distances (IMAGES, NEAREST)."""
    train = real.reference.outputs['features']
    points, others = neighbours.centred(real.extract(samples).outputs['features'], train)
    squared = np.zeros((len(points), len(others)))
    for rows, columns, values in neighbours.tiles(points, others):
        squared[rows, columns] = values
    nearest = squared.argsort(1, kind='stable')[:, :NEAREST]
    distances = np.sqrt(np.maximum(np.take_along_axis(squared, nearest, 1), 0))
    pictures = [samples, *(real.train.images[column] for column in nearest.T)]
    return np.stack(pictures), np.round(distances, 4).tolist()


def same(index: pathlib.Path, identity: Mapping[str, Any]) -> bool:
    """Whether the pictures beside this exploration.json show this checkpoint, drawn in this way."""
    try:
        found = read_json_if_any(index, dict) or {}
    except UserError:
        return False  # so it is sampled again
    keys = ('config_hash', 'step', 'average', 'seed', 'noise', 'best')
    return found.get('format') == FORMAT and all(found.get(key) == identity[key] for key in keys)


def _sprite(images: np.ndarray) -> np.ndarray:
    """uint8 images (rows, columns, height, width, channels) → one picture without gaps."""
    rows, columns, height, width, channels = images.shape
    picture = images.transpose(0, 2, 1, 3, 4).reshape(rows * height, columns * width, channels)
    return picture[..., 0] if channels == 1 else picture


def _enlarged(images: np.ndarray) -> np.ndarray:
    """uint8 images (rows, columns, …) → one picture with gaps, small images enlarged to about forty pixels."""
    _, columns, _, width, _ = images.shape
    return sampling.grid(images.reshape(-1, *images.shape[2:]), columns, scale=max(1, 40 // width))


def save(path: pathlib.Path, picture: np.ndarray) -> None:
    """Write a uint8 picture as a PNG."""
    file = io.BytesIO()
    Image.fromarray(picture).save(file, 'PNG', optimize=True)
    write_atomically(path, file.getvalue())


def _log_snr(alpha: float, sigma: float) -> float | None:
    """log α²/σ², or None if it is infinite."""
    return round(float(2 * np.log(alpha / sigma)), 5) if alpha > 0 and sigma > 0 else None


def _numbers(values: Any) -> list[float]:
    return [round(float(value), 6) for value in values]

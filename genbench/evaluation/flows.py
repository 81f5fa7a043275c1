"""How a flow carries points: the distance of where they arrive from data, and the energy spent on the way.

A. Tong et al., Improving and Generalizing Flow-Based Generative Models with Minibatch Optimal Transport, 2024. Both
numbers are in the space that the family models, before anything is rounded to levels.
"""

import dataclasses
import functools
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np

from genbench.data import conditions
from genbench.errors import UserError
from genbench.evaluation.transport import wasserstein
from genbench.families.base import Family, Sampler
from genbench.families.paths import PathFamily
from genbench.interpolants import solvers
from genbench.interpolants.options import ORIGINAL
from genbench.training import processes, sampling
from genbench.training.state import Blueprint

if TYPE_CHECKING:
    from genbench.evaluation.harness import Weights

METRICS = ('w2', 'path_energy')
_SAID = {
    'w2': {'distance': 'W₂ of as many points, by assignment'},
    'path_energy': {'normalised': '|E − W₂²| / W₂²', 'energy': 'Σ |Δx|² / Δt, mean over paths',
                    'transport': 'W₂² from the starts to the data'},
}  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Carried:
    """Points (n, d) where paths start, where they end, data beside them, and the energy of each path (n,)."""

    starts: np.ndarray
    ends: np.ndarray
    data: np.ndarray
    energies: np.ndarray

    def w2(self) -> tuple[float, dict[str, float]]:
        """W₂ between the ends and the data."""
        return wasserstein(self.ends, self.data), {}

    def path_energy(self) -> tuple[float, dict[str, float]]:
        """|E − W₂²| / W₂², which is zero for optimal transport from the starts to the data."""
        energy, least = float(self.energies.mean()), wasserstein(self.starts, self.data) ** 2
        return abs(energy - least) / least, {'energy': energy, 'transport': least}


def score(weights: 'Weights') -> None:
    """Add the rows that the evaluation asks for, for each sampler of these parameters."""
    one, options = weights.evaluation, weights.options
    total, sets = options.sets * options.num_samples, options.sets
    if total > len(one.real.split):
        held = f'{options.split}, which has {len(one.real.split):,}'
        raise UserError(f'{" and ".join(METRICS)} compare {total:,} samples with as many images of {held}; lower '
                        'evaluation.num_samples or evaluation.sets.')  # fmt: skip
    described = {'reference': {'dataset': one.spec.name, 'split': options.split, 'of': len(one.real.split),
                               'taken': 'without replacement', 'row_seed': sampling.NOISE}}  # fmt: skip
    for cell in (cell for cell in one.cells if cell.average == weights.chosen):
        drawn = one.sampling_protocol(cell, weights.average)
        wanted = {name: {**drawn, **described, **_SAID[name]} for name in METRICS if name in options.metrics}
        wanted = {name: protocol for name, protocol in wanted.items() if not one.has(name, protocol)}
        if not processes.agreed(wanted):
            continue
        random = np.random.default_rng([cell.seed, one.run.config.train.seed])
        images = one.real.split.images[random.permutation(len(one.real.split))[:total]]
        given = one.given(0, total, cell.seed)
        whole = carry(weights.blueprint, weights.state, cell.sampler, images, given, cell.seed)
        parts = [
            Carried(*(getattr(whole, field.name)[chosen] for field in dataclasses.fields(Carried)))
            for chosen in np.split(np.arange(total), sets)
        ]
        columns = {'sampler': cell.sampler.name, 'nfe': drawn['nfe'], 'seed': cell.seed, 'kind': 'distance',
                   'n': options.num_samples}  # fmt: skip
        for name, protocol in wanted.items():
            found = [getattr(part, name)() for part in parts]
            values = [value for value, _ in found]
            sd = float(np.std(values, ddof=1)) if sets > 1 else None
            details = {key: [more[key] for _, more in found] for key in found[0][1]}
            row = {'sd': sd, 'std_err': None if sd is None else sd / sets**0.5, 'values': values,
                   'details': details or None, **columns}  # fmt: skip
            processes.first_does(functools.partial(one.add, name, float(np.mean(values)), protocol=protocol, **row))


def check_all(family: Family, options: Any, samplers: Sequence[Sampler]) -> None:
    """`check` for each of the samplers."""
    for sampler in samplers:
        check(family, sampler, options.metrics)


def check(family: Family, sampler: Sampler, metrics: Sequence[str]) -> None:
    """Find out whether these metrics are right for the family's paths under this sampler.

    Raises:
      UserError: the family does not follow paths, or the sampler needs an original. For `path_energy` also: the states
        are not those of an ODE at the same times for all images, or x does not move by the velocity times Δt.
    """
    if not isinstance(family, PathFamily) or family.kind != 'denoiser':
        raise UserError(f'{family.name} does not follow paths from noise to data; leave {" and ".join(METRICS)} out of '
                        'evaluation.metrics.')  # fmt: skip
    if used := {*ORIGINAL} & {*sampler.options.changed}:
        raise UserError(f'{" and ".join(METRICS)} follow whole paths, and the sampler {sampler.name} has {min(used)}; '
                        'leave it out.')  # fmt: skip
    if 'path_energy' not in metrics:
        return
    why = ''
    if not family.sampler_options(sampler.name).on_grid:
        why = f'the sampler {sampler.name} takes other steps for each image'
    elif solvers.draws(family.solver(sampler.name), sampler.options):
        why = f'the sampler {sampler.name} draws noise'
    elif family.schedule.name != 'straight':
        why = f'this schedule is {family.schedule.name}'
    if why:
        raise UserError(f'path_energy needs an ODE on the schedule straight, in steps that all images share, but '
                        f'{why}; leave it out of evaluation.metrics, or use euler.')  # fmt: skip


def carry(
    blueprint: Blueprint, state: Any, sampler: Sampler, images: np.ndarray, given: conditions.Given, seed: int
) -> Carried:
    """Carry as many points as there are integer images (n, …), which become the data beside them.

    The energies are right only where `check` allows `path_energy`.
    """
    family = blueprint.family
    assert isinstance(family, PathFamily), 'check comes first'

    @jax.jit
    def run(state: Any, images: jax.Array, keys: jax.Array, given: conditions.Given) -> tuple[jax.Array, ...]:
        networks = blueprint.bind_state(state)
        start = sampler.options.temperature * family.starts(keys)
        states = family.trace(networks, start, keys, given, sampler, 0).states
        steps = int(sampler.num_steps)
        times = family.asked(networks).schedule.step(steps - jnp.arange(steps + 1), steps, sampler.options.spacing)
        squares = jnp.square(jnp.diff(states, axis=0)).reshape(steps, len(images), -1).sum(-1)
        energies = (squares / (times[:-1] - times[1:])[:, None]).sum(0)
        return start, states[-1], family.space.centre(networks, images), energies

    keys = sampling.image_keys(family, 'flows', seed, 0, len(images))
    found = [np.asarray(part).reshape(len(images), -1) for part in run(state, images, keys, given)]
    starts, ends, data, energies = found
    return Carried(starts, ends, data, energies[:, 0])

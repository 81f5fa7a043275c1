"""Score a model while it trains, with a small protocol that is the same at every step and leaves the state unchanged.

The Fréchet distance of a few samples is more biased than that of a thousand, and a few images say less about a
likelihood than the whole split. These numbers compare the steps of a run. They do not replace `genbench evaluate`.
"""

import functools
import math
import pathlib
from typing import Any

import numpy as np

from genbench import config as configs
from genbench.config import Config
from genbench.data import conditions
from genbench.errors import UserError
from genbench.evaluation import scoring
from genbench.evaluation.likelihood import LikelihoodScorer
from genbench.evaluation.protocol import Protocol
from genbench.evaluation.reference import RealSets
from genbench.evaluation.samples import SHARD, drawn_conditions
from genbench.families import stages
from genbench.families.base import Likelihood
from genbench.training import loop, processes, sampling
from genbench.training import samplers as written
from genbench.training.prepared import Prepared
from genbench.training.state import Blueprint, State

BITS = 'bits_per_dim'


def train(config: Config, workdir: str | pathlib.Path, **options: Any) -> loop.Outcome:
    """`training.loop.train`, scored every `train.evaluate_every` steps."""
    return loop.train(config, workdir, monitor=Monitor, **options)


class Monitor:
    """Scores a run; see `training.observing.Monitor`.

    Raises:
      UserError: there is nothing to compute, or the sampler, the features or the real images are unavailable.
    """

    def __init__(self, ready: Prepared):
        config = ready.config
        self._options, self._family = config.train, stages.after(ready.family, config.train.num_steps)
        values = configs.plain(config)
        split = config.train.evaluate_split or config.evaluation.split
        values['evaluation'] |= {'split': split, 'metrics': ('fd', 'likelihood')}
        self._config = configs.resolve(values)
        self._sampler = self._read_sampler(config.train.evaluate_sampler)
        self._likelihood = next(iter(self._family.likelihoods), None) if config.train.evaluate_images else None
        self._real = RealSets(self._config, True, self._family.fields, self._family.spec)
        self._drawers: dict[Blueprint, sampling.Drawer] = {}
        if config.train.evaluate_samples:  # report an unavailable network before training
            self._distance = scoring.called('fd', self._real.network)
        self.names = (*((self._distance,) if config.train.evaluate_samples else ()),
                      *((BITS,) if self._likelihood else ()))  # fmt: skip
        if not self.names:
            raise UserError('train.evaluate_every has nothing to compute, because train.evaluate_samples is 0 and '
                            f'{self._family.name} has no likelihood, or train.evaluate_images is 0.')  # fmt: skip

    def _read_sampler(self, text: str) -> Any:
        sampler = written.parse(text, self._family) if text else written.default(self._family)
        if getattr(sampler.options, 'guide', ''):
            raise UserError(f'train.evaluate_sampler is {text!r}; a run can be guided by another one only after it has '
                            'finished.')  # fmt: skip
        return sampler

    @functools.cached_property
    def protocol(self) -> dict[str, Any]:
        """{score: everything it depends on except the model}."""
        options, one = self._config.evaluation, self._options
        named = list(conditions.named(self._config.family))
        common = {
            'average': 'ema' if self._family.averages else 'current', 'seed': options.seed, 'noise': sampling.NOISE,
            'given': named or 'nothing', **self._real.resized,
        }  # fmt: skip
        found = {}
        if one.evaluate_samples:
            drawn = {**self._sampler.protocol, 'nfe': self._family.evaluations(self._sampler)}
            measured = {'num_samples': one.evaluate_samples, **self._real.protocol('fd')}
            found[self._distance] = dict(Protocol({**common, **drawn, **measured}))
        if self._likelihood:
            scored = {'method': self._likelihood.method, 'kind': self._likelihood.kind, 'split': options.split,
                      'images': f'the first {self._num_images}', 'levels': self._family.spec.levels}  # fmt: skip
            found[BITS] = dict(Protocol({**common, **self._likelihood.protocol, **scored}))
        return found

    @property
    def _num_images(self) -> int:
        return min(self._options.evaluate_images, len(self._real.split))

    def scores(self, blueprint: Blueprint, state: State) -> dict[str, float | None]:
        """The scores of these parameters; none in a stage whose images differ in size from those of the last stage.

        Each of several processes draws and scores its own part of the images, and all get the same scores.
        """
        if blueprint.family.spec.shape != self._family.spec.shape:
            return {}
        held = sampling.own_copy(sampling.parts(state))
        found: dict[str, float] = {}
        if self._options.evaluate_samples:
            found[self._distance] = self._frechet(blueprint, held)
        scorer = next((one for one in _likelihoods(blueprint) if self._likelihood
                       and one.method == self._likelihood.method), None)  # fmt: skip
        if scorer:
            found[BITS] = self._bits(blueprint, held, scorer)
        return processes.agreed({name: value if math.isfinite(value) else None for name, value in found.items()})

    def _frechet(self, blueprint: Blueprint, state: State) -> float:
        count, options = self._options.evaluate_samples, self._config.evaluation
        if blueprint not in self._drawers:
            self._drawers[blueprint] = sampling.Drawer(blueprint, options.batch_size)
        drawer, (start, stop) = self._drawers[blueprint], processes.part(0, count)
        images = [np.zeros((0, *blueprint.family.spec.shape), int)]
        # The same images as `genbench evaluate` draws.
        for shard in range(start // SHARD, -(-stop // SHARD) if start < stop else 0):
            low, high = max(start - shard * SHARD, 0), min(stop - shard * SHARD, SHARD)
            given = drawn_conditions(blueprint.family, self._real.train, options.seed, shard, SHARD)
            told, first = conditions.cut(given, low, high), shard * SHARD + low
            images.append(drawer.draw(state, self._sampler, high - low, options.seed, told, first=first))
        (fake,) = self._real.extract_sets(np.concatenate(images), 1)
        return scoring.score(self._real.scenes(['fd'], [fake]))['fd']['value']

    def _bits(self, blueprint: Blueprint, state: State, likelihood: Likelihood) -> float:
        options, split = self._config.evaluation, self._real.split.part(slice(0, self._num_images))
        scorer = LikelihoodScorer(blueprint, state, split, options.seed, options.batch_size, quiet=True)
        return float(blueprint.family.spec.bits_per_dim(scorer.nats(likelihood)['log_prob']).mean())


@functools.lru_cache(maxsize=4)
def _likelihoods(blueprint: Blueprint) -> tuple[Likelihood, ...]:
    """The likelihoods of a stage, made once, so that programs compiled for one step serve every step."""
    return blueprint.family.likelihoods

"""Prints, as JSON, the operations of each family's first step as XLA compiled it, over all of 1 and of several devices.

Started by test_devices.py in a process with that many devices.
"""

import json
import sys

import jax

from genbench import config as configs
from genbench import families, rng
from genbench.data import sources
from genbench.families.base import Borrowed
from genbench.training import mesh as meshes
from genbench.training import placement, runs
from genbench.training.loop import make_feed
from genbench.training.state import Blueprint
from genbench.training.step import make_step


def main():
    asked, found = json.loads(sys.argv[1]), {}
    for label, (values, lent) in asked.items():
        config = configs.resolve(values)
        builder = sources.open_builder(config.data.name, '')
        spec = sources.spec_of(builder)
        borrowed = {name: Borrowed(configs.resolve(one), spec) for name, one in lent.items()}
        blueprint = Blueprint(families.get(config.family.name)(config, spec, borrowed))
        for update in blueprint.family.updates:
            name = f'{label}: {update.name}'
            found[name] = [operations(blueprint, builder, update.name, count)
                           for count in (1, jax.device_count())]  # fmt: skip
    print(json.dumps(found))


def operations(blueprint, builder, update, count):
    mesh = meshes.make_mesh(devices=jax.devices()[:count])
    feed = make_feed(blueprint.family, builder, mesh)
    state = runs.abstract_state(blueprint, mesh)
    step = make_step(blueprint, feed, rng.root(0, 'training'), placement.shardings(state))
    constants = meshes.put(feed.constants, meshes.replicated(mesh))
    lowered = step.trace(state, constants, feed.inputs(0), (update,)).lower()
    compiled = lowered.compile({'xla_backend_optimization_level': 0})  # operations are counted before code is made
    return count * compiled.cost_analysis()['flops']


if __name__ == '__main__':
    main()

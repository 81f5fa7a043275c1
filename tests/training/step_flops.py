"""Prints, as JSON, the operations of each family's first step as XLA compiled it, over all of 1 and of several devices.

Started by test_devices.py in a process with that many devices.
"""

import json
import sys

import jax

from genbench import config as configs
from genbench import rng
from genbench.data import sources
from genbench.training import lending, placement
from genbench.training import mesh as meshes
from genbench.training.prepared import prepare
from genbench.training.state import Blueprint
from genbench.training.step import make_step


def main():
    asked, found = json.loads(sys.argv[1]), {}
    for label, (values, lent) in asked.items():
        config = configs.resolve(values)
        spec = sources.spec_by_name(config.data.name, '')
        loans = {name: lending.promise(configs.resolve(one), spec) for name, one in lent.items()}
        for count in (1, jax.device_count()):
            ready = prepare(config, loans, mesh=meshes.make_mesh(devices=jax.devices()[:count]))
            for update in ready.family.updates:
                found.setdefault(f'{label}: {update.name}', []).append(count * operations(ready, update.name))
    print(json.dumps(found))


def operations(ready, update):
    """Of each device."""
    blueprint, feed, mesh = Blueprint(ready.family), ready.feed, ready.mesh
    state = placement.abstract_state(blueprint, mesh)
    places = placement.shardings(state), placement.shardings(ready.places.lent)
    step = make_step(blueprint, feed, rng.root(0, 'training'), *places)
    lowered = step.trace(state, ready.places, feed.inputs(0), (update,)).lower()
    compiled = lowered.compile({'xla_backend_optimization_level': 0})  # operations are counted before code is made
    return compiled.cost_analysis()['flops']


if __name__ == '__main__':
    main()

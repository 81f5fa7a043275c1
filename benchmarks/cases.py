"""What genbench and PyTorch both train and sample: networks, shapes and process, from the configs of the project."""

import collections
import dataclasses
import pathlib
import re
import tempfile
import time
from typing import Any

import numpy as np

ROOT = pathlib.Path(__file__).resolve().parents[1]
IMAGES = 1024  # random images, resident on the device on both sides
MANY = 10  # arrays that a fusion reads


@dataclasses.dataclass(frozen=True)
class Case:
    """A config with its usual batch, and a smaller one that a CPU can do."""

    config: str
    shape: tuple[int, int, int]
    levels: int
    batch: int
    cpu_batch: int
    overrides: tuple[str, ...] = ()


# What the peers in PyTorch leave out, and the sizes of DiT-B.
PLAIN = (
    'data.flip=false',
    'family.conditional=false',
    'family.learned_variance=0',
    'evaluation.samplers=("ddim:50",)',
)
BASE = ('network.width=768', 'network.heads=12')

CASES = {
    'digits': Case('configs/digits/diffusion.py', (8, 8, 1), 17, 128, 128),
    'cifar10': Case('configs/cifar10/diffusion.py', (32, 32, 3), 256, 128, 8, ('data.flip=false', 'network.dropout=0')),
    'dit': Case('configs/cifar10/diffusion_dit.py', (32, 32, 3), 256, 256, 8, PLAIN),
    'dit_b': Case('configs/cifar10/diffusion_dit.py', (32, 32, 3), 256, 256, 2, (*PLAIN, *BASE)),
}


class Genbench:
    """genbench's own training step and sampler on random images."""

    def __init__(self, name: str, batch: int, dtype: str, cpu_devices: int):
        import jax

        from genbench import config as configs
        from genbench import families, startup
        from genbench.data import pipeline, sources
        from genbench.data.spec import DataSpec
        from genbench.training import mesh as meshes
        from genbench.training import placement
        from genbench.training.state import Blueprint, flatten
        from genbench.training.step import Constants, active_updates, make_step

        startup.prepare(lambda cores: cpu_devices or cores)
        case = CASES[name]
        batch = batch or (case.cpu_batch if jax.default_backend() == 'cpu' else case.batch)
        dtype = dtype or ('float32' if jax.default_backend() == 'cpu' else 'bfloat16')
        overrides = [*case.overrides, f'train.batch_size={batch}', f'network.dtype={dtype}', 'optimizer.warmup_steps=0']
        self.config = configs.load(str(ROOT / case.config), [*overrides, 'optimizer.schedule=constant'])
        self.family = families.get(self.config.family.name)(self.config, DataSpec(name, case.shape, case.levels))
        self.blueprint, self.jax = Blueprint(self.family), jax
        mesh = meshes.make_mesh(self.config.mesh)
        images = np.random.Generator(np.random.Philox(0)).integers(0, case.levels, (IMAGES, *case.shape))
        arrays = sources.Arrays(images.astype(np.uint8), np.zeros(IMAGES, np.int32))
        self.feed = pipeline.ResidentFeed(arrays, pipeline.Order(IMAGES, 0), batch, meshes.split_batch(mesh))
        self.constants = Constants(meshes.put(self.feed.constants, meshes.replicated(mesh)), {})
        places = placement.shardings(placement.abstract_state(self.blueprint, mesh))
        first = jax.tree.map(jax.numpy.zeros_like, self.feed.batch(self.constants.feed, self.feed.inputs(0)))
        make = jax.jit(lambda key: self.blueprint.initial_state(key, first, {}), out_shardings=places)
        self.state = make(jax.random.key(0))
        step = make_step(self.blueprint, self.feed, jax.random.key(1), places, {})
        self.traced = step.trace(self.state, self.constants, self.feed.inputs(0), active_updates(self.blueprint, 0))
        self.step, self.root = self.traced.lower().compile(), step.root
        self.number, self.flatten = 0, flatten

    def describe(self) -> dict[str, Any]:
        """What the other side needs to be the same, and what the table says."""
        from genbench.training import telemetry

        jax, schedule, options = self.jax, self.family.schedule, self.config
        t = np.asarray(self.family.time(np.arange(options.family.num_timesteps + 1)), np.float32)
        kind = jax.devices()[0].device_kind
        return {
            'network': dict(options.network),
            'batch': options.train.batch_size,
            'shape': self.family.spec.shape,
            'levels': self.family.spec.levels,
            'prediction': self.family.prediction,
            'dequantise': self.family.path_config.dequantisation == 'uniform',
            'rate': options.optimizer.learning_rate,
            'clip': options.optimizer.clip_norm,
            'decay': options.train.ema_decay,
            'alpha': np.asarray(schedule.alpha(t)),
            'sigma': np.asarray(schedule.sigma(t)),
            'condition': np.asarray(schedule.condition(t)),
            'flops': telemetry.flops_of(self.traced),
            'peak': telemetry.peak_flops(kind, options.network.dtype),
            'device': kind,
            'platform': jax.default_backend(),
        }

    def scrambled(self) -> dict[str, np.ndarray]:
        """Parameters {'conv_in/kernel': …} that are zero nowhere: fresh networks end in zeros."""
        rng = np.random.Generator(np.random.Philox(1))
        shapes = self.flatten(self.state['params']['denoiser'])
        return {name: (0.05 * rng.normal(size=leaf.shape)).astype(np.float32) for name, leaf in shapes.items()}

    def check(self, params: dict[str, np.ndarray], x: np.ndarray, t: np.ndarray) -> tuple[float, float]:
        """Mean square of the output and norm of its gradient, of the network with these parameters in float32."""
        import optax

        from genbench.training.state import Blueprint, unflatten

        jax, state, config = self.jax, self.state, self.config.copy_and_resolve_references()
        config.network.dtype = 'float32'
        blueprint = Blueprint(type(self.family)(config, self.family.spec))
        tree = unflatten(params, state['params']['denoiser'])

        def loss(tree: Any) -> Any:
            network = blueprint.bind({'denoiser': tree}, state['aux'])['denoiser']
            return jax.numpy.square(network(x, t)).mean()

        value, gradient = jax.jit(jax.value_and_grad(loss))(tree)
        return float(value), float(optax.global_norm(gradient))

    def run(self, steps: int) -> float:
        """Seconds of a training step."""
        began = time.perf_counter()
        for _ in range(steps):
            self.state, _ = self.step(self.root, self.state, self.constants, self.feed.inputs(self.number))
            self.number += 1
        self.jax.block_until_ready(self.state)
        return (time.perf_counter() - began) / steps

    def pieces(self) -> dict[str, float]:
        """{kind of instruction: milliseconds of one step, summed over devices}, as jax's profiler sees them on CPU."""
        jax, text = self.jax, self.step.as_text()
        reads = {name: found.count('%') for name, found in re.findall(r'%([\w.-]+) = \S+ fusion\((.*?)\), kind', text)}
        with tempfile.TemporaryDirectory() as folder:
            with jax.profiler.trace(folder):
                self.run(1)
            (trace,) = pathlib.Path(folder).rglob('*.xplane.pb')
            planes = jax.profiler.ProfileData.from_file(str(trace)).planes
            events = [(event, dict(event.stats)) for plane in planes for line in plane.lines for event in line.events]
        found: collections.Counter[str] = collections.Counter()
        for event, stats in events:
            if name := stats.get('hlo_op'):
                found[_kind(str(name), reads.get(str(name), 0))] += event.duration_ns / 1e6
        return dict(found.most_common())


def _kind(name: str, reads: int) -> str:
    """What an instruction of XLA's CPU compiler does, by its name and the number of arrays that it reads."""
    if name.startswith(('ynn_fusion', 'dot')):
        return 'matrix products'
    for kind in ('convolution', 'all-reduce', 'cond', 'copy.', 'transpose'):
        if name.startswith(kind):
            return {'cond': 'optimizer', 'copy.': 'copies'}.get(kind, kind)
    return f'fusions that read {MANY} arrays or more' if reads >= MANY else 'other fusions'


class GenbenchSampler(Genbench):
    """The same with `run` as the sampler."""

    def run(self, steps: int) -> float:
        """Seconds of one batch by DDIM."""
        from genbench.families.base import Sampler
        from genbench.training.sampling import Drawer

        if not hasattr(self, 'drawer'):
            self.drawer = Drawer(self.blueprint, self.config.train.batch_size)
        began = time.perf_counter()
        self.drawer.draw(self.state, Sampler('ddim', steps), self.config.train.batch_size, 0)
        return time.perf_counter() - began

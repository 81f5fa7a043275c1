"""Where tests keep what they compile and prepare, and the tiny runs that several of them read."""

import os
import pathlib
import tempfile

ROOT = pathlib.Path(__file__).resolve().parents[1]
CACHE = pathlib.Path(
    os.environ.get('GENBENCH_TEST_CACHE') or pathlib.Path(tempfile.gettempdir()) / f'genbench-tests-{os.getuid()}'
)
# Before jax reads them; the processes that tests start inherit them.
os.environ['XDG_CACHE_HOME'] = str(CACHE)
os.environ['TFDS_DATA_DIR'] = str(CACHE / 'tensorflow_datasets')
os.environ['JAX_COMPILATION_CACHE_DIR'] = str(CACHE / 'xla')
os.environ['JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS'] = '0.1'
os.environ['PYTHONPATH'] = os.pathsep.join(filter(None, (str(ROOT), os.environ.get('PYTHONPATH'))))

import shutil  # noqa: E402

import pytest  # noqa: E402

from genbench import config as configs  # noqa: E402
from genbench import families, networks  # noqa: E402
from genbench.data import sources  # noqa: E402
from genbench.training.loop import train  # noqa: E402

SMALL_NETWORK = {'channels': 8, 'multipliers': (1,)}
SMALL = {
    'train': {'num_steps': 4, 'batch_size': 32, 'log_every': 1},
    'evaluation': {
        'num_samples': 64,
        'sets': 1,
        'refine_images': 8,
        'iwae_draws': 2,
        'vlb_draws': 2,
        'ode': {'num_steps': 2},
        'classifier': {'num_steps': 5, 'channels': 8},
    },
}


def tiny_config(family, *overrides):
    """The resolved config of a few quick steps of a family on digits, with 'key=value' changes."""
    section = families.get(family).defaults().get('network', {})
    keys = networks.defaults(section.get('name', 'none'))
    network = {key: value for key, value in SMALL_NETWORK.items() if key in keys}
    return configs.resolve({**SMALL, 'family': {'name': family}, 'network': network}, overrides)


@pytest.fixture(scope='session')
def tiny():
    """`tiny(family, 'key=value', …)` → a resolved tiny digits config."""
    return tiny_config


@pytest.fixture
def config_file(tmp_path):
    """`config_file(config)` → the path of a config file that holds it."""

    def write(config, name='config.py'):
        path = tmp_path / name
        path.write_text(f'def get_config():\n    return {configs.plain(config)!r}\n')
        return path

    return write


@pytest.fixture(scope='session')
def diffusion_run(tmp_path_factory):
    """The folder of a finished tiny diffusion run with checkpoints 2 and 4; only to be read."""
    folder = tmp_path_factory.mktemp('runs') / 'diffusion'
    train(tiny_config('diffusion', 'checkpoint.every=2'), folder, quiet=True)
    return folder


@pytest.fixture
def diffusion_copy(diffusion_run, tmp_path):
    """A copy of the tiny diffusion run that a test may change."""
    return pathlib.Path(shutil.copytree(diffusion_run, tmp_path / 'diffusion'))


@pytest.fixture(scope='session')
def digits():
    """(specification, train split, test split) of digits."""
    builder = sources.open_builder('digits')
    return sources.spec_of(builder), sources.load(builder, 'train'), sources.load(builder, 'test')

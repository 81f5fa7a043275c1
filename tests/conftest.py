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
os.environ['JAX_DISABLE_MOST_OPTIMIZATIONS'] = '0'  # see `optimize`
os.environ['PYTHONPATH'] = os.pathsep.join(filter(None, (str(ROOT), os.environ.get('PYTHONPATH'))))

import shutil  # noqa: E402

import jax  # noqa: E402
import pytest  # noqa: E402
import shipped  # noqa: E402

from genbench import config as configs  # noqa: E402
from genbench.data import sources  # noqa: E402
from genbench.training.loop import train  # noqa: E402

LONGEST = ('studies/test_docs.py', 'families/test_contract.py', 'training/test_pinned.py', 'test_rng.py',
           'studies/test_slurm.py', 'training/test_loop.py', 'studies/test_verify.py', 'test_cli.py')  # fmt: skip
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
    network = shipped.network(family, **shipped.SIZES)
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
def trained(tmp_path_factory):
    """`trained(family)` → the folder of a finished tiny run with checkpoints 2 and 4; only to be read."""
    folder = tmp_path_factory.mktemp('runs')

    def run(family):
        if not (folder / family).exists():
            train(tiny_config(family, 'checkpoint.every=2'), folder / family, quiet=True)
        return folder / family

    return run


@pytest.fixture(scope='session')
def diffusion_run(trained):
    """The folder of a finished tiny diffusion run with checkpoints 2 and 4; only to be read."""
    return trained('diffusion')


@pytest.fixture(scope='session')
def lenders(digits):
    """`lenders(family)` → {its name for a run that it builds on: a family that it takes there}."""
    return lambda family: shipped.lenders(family, tiny_config, digits[0])


@pytest.fixture(scope='session')
def on_loans(lenders, trained):
    """`on_loans(family)` → the overrides that name tiny runs for it to build on."""
    return lambda family: [f'family.{name}={trained(lender)}' for name, lender in lenders(family).items()]


@pytest.fixture
def diffusion_copy(diffusion_run, tmp_path):
    """A copy of the tiny diffusion run that a test may change."""
    return pathlib.Path(shutil.copytree(diffusion_run, tmp_path / 'diffusion'))


@pytest.fixture(scope='session')
def digits():
    """(specification, train split, test split) of digits."""
    builder = sources.open_builder('digits')
    return sources.spec_of(builder), sources.load(builder, 'train'), sources.load(builder, 'test')


def optimize(wanted):
    """Optimise programs as users do, or hardly, in this process and in those that it starts.

    Programs of tests run for moments and take long to compile. Where a claim does not depend on how well they are
    compiled, a file is marked `unoptimized`, which takes less than half of the time.
    """
    disabled = str(int(not wanted))
    if os.environ['JAX_DISABLE_MOST_OPTIMIZATIONS'] != disabled:
        os.environ['JAX_DISABLE_MOST_OPTIMIZATIONS'] = disabled
        jax.config.update('jax_disable_most_optimizations', not wanted)
        jax.clear_caches()


def pytest_runtest_setup(item):
    always = item.config.getoption('optimized') or item.config.getoption('pin')
    optimize(always or item.get_closest_marker('unoptimized') is None)


def pytest_collection_modifyitems(items):
    """The longest files first, so that none of them runs alone at the end."""
    places = {ROOT / 'tests' / name: place for place, name in enumerate(LONGEST)}
    items.sort(key=lambda item: places.get(item.path, len(places)))


def pytest_addoption(parser):
    parser.addoption('--pin', action='store_true', help='record the first step of families (test_pinned.py)')
    parser.addoption('--optimized', action='store_true', help='compile all programs as users do (see `unoptimized`)')

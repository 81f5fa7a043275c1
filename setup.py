"""Installation of genbench; tools are configured in pyproject.toml."""

import pathlib
import re
import shutil

import setuptools
from setuptools.command.build_py import build_py

ROOT = pathlib.Path(__file__).parent
VERSION = re.search(r"__version__ = '(.+)'", (ROOT / 'genbench' / '__init__.py').read_text()).group(1)

CORE = [
    'absl-py>=2.1',
    'array-record>=0.8',
    'duckdb>=2.0',
    'flax>=0.12.8',
    'fsspec>=2025.3',
    'grain>=0.2.18',
    'importlib-resources>=6.0',  # needed by tensorflow-datasets, which does not declare it
    'jax>=0.10,<0.13',
    'ml-collections>=1.1',
    'numpy>=2.0',
    'optax>=0.2.8',
    'orbax-checkpoint>=0.12',
    'pillow>=11.0',
    'rich>=14.0',
    'scikit-learn>=1.6',
    'scipy>=1.15',
    'tensorboardX>=2.6.4',
    'tensorflow-datasets>=4.9.10',
    'vl-convert-python>=1.9',
]
WANDB, MLFLOW = ['wandb>=0.31'], ['mlflow-skinny>=3.17']  # trackers.names
ODE = ['diffrax>=0.7']  # adaptive solvers of the probability-flow ODE
SLURM = ['submitit>=1.5.4']  # studies on a cluster
TEXT = ['tokenizers>=0.20']  # family.conditions=caption:tokensN:FILE
HF = ['datasets>=4.0']  # data.name=hf:NAME
REMOTE = ['gcsfs>=2025.3', 's3fs>=2025.3']  # folders in gs:// and s3://

BESIDE = ('configs', 'experiments', 'docs')  # what ships of these goes into the package


class BuildWithShare(build_py):
    """Copies configs, studies and guides into the installed package, as genbench/share."""

    def run(self):
        super().run()
        share = pathlib.Path(self.build_lib) / 'genbench' / 'share'
        shutil.rmtree(share, ignore_errors=True)
        if not self.editable_mode:  # there they are found beside the package
            for folder in BESIDE:
                shutil.copytree(ROOT / folder, share / folder, ignore=shutil.ignore_patterns('__pycache__'))

    def get_source_files(self):
        beside = (path for folder in BESIDE for path in (ROOT / folder).rglob('*.*') if '__pycache__' not in path.parts)
        return [*super().get_source_files(), *(str(path.relative_to(ROOT)) for path in beside)]


setuptools.setup(
    name='genbench',
    version=VERSION,
    description='Generative families as interchangeable modules under one JAX trainer and one evaluation harness.',
    long_description=(ROOT / 'README.md').read_text(),
    long_description_content_type='text/markdown',
    license='Apache-2.0',
    python_requires='>=3.11,<3.14',
    packages=setuptools.find_packages(include=['genbench', 'genbench.*']),
    package_data={
        'genbench': ['baselines.toml', 'py.typed', '*.pyi', 'project/*.*', 'project/*/*.py'],
        'genbench.report': ['*.css', '*.js'],
    },
    install_requires=CORE,
    extras_require={
        'test': [
            'import-linter>=2.4',
            'mypy>=1.15',
            'playwright>=1.65',
            'pytest>=8.3',
            'pytest-xdist>=3.8',
            'ruff>=0.14',
            *ODE,
            *SLURM,
            *WANDB,
            *MLFLOW,
            *TEXT,
        ],  # fmt: skip
        'ode': ODE,
        'wandb': WANDB,
        'mlflow': MLFLOW,
        'slurm': SLURM,
        'hf': HF,
        'text': TEXT,
        'remote': REMOTE,
        'test-remote': [*REMOTE, 'moto[s3,server]>=5.1', 'gcp-storage-emulator>=2026.7'],  # local servers
        'gpu': ['jax[cuda12]>=0.10,<0.13'],
        'tpu': ['jax[tpu]>=0.10,<0.13'],
        'topology-tpu': ['jax[tpu]>=0.10,<0.13'],  # compilers of `--dry-run --topology`
        'topology-gpu': ['jax[cuda12-local]>=0.10,<0.13', 'nvidia-cuda-nvcc-cu12>=12.8'],
        'prepare': ['tensorflow>=2.20'],
    },
    cmdclass={'build_py': BuildWithShare},
    entry_points={'console_scripts': ['genbench = genbench.cli:main']},
)

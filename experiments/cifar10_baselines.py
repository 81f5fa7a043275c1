"""Recipes from papers on CIFAR-10, for accelerators.

genbench run experiments/cifar10_baselines.py --out runs/cifar10_baselines

Each config follows the paper's recipe as far as the paper states it, and its docstring has the paper's numbers. Set
TFDS_DATA_DIR to the folder where cifar10 is prepared. FID needs the weights of the 2015 Inception network
(README.md, "Compare images that genbench did not make").

Cost: 35.7M parameters and 400,000 to 800,000 steps of 128 images, which take days on one current GPU. Not yet run.
"""

from genbench.report.claims import near
from genbench.studies.study import Study, Trial


def get_study() -> Study:
    return Study(
        title='Baselines on CIFAR-10',
        claim='The recipes of the papers reach the numbers of the papers.',
        trials=(
            Trial('diffusion', 'configs/cifar10/diffusion.py'),
            Trial('flow_matching', 'configs/cifar10/flow_matching.py'),
            Trial('gaussian', 'configs/cifar10/gaussian.py'),
        ),
        evaluation={
            'evaluation.num_samples': 50_000,
            'evaluation.sets': 1,
            'evaluation.metrics': ('fid', 'precision', 'recall', 'likelihood', 'speed'),
            'evaluation.features.name': 'inception',
        },
        tests=(
            near('fid', 'diffusion', 3.17, 0.3),  # Ho et al. 2020
            near('fid', 'flow_matching', 3.66, 0.3),  # Tong et al. 2023, independent coupling
            near('bits_per_dim', 'flow_matching', 3.11, 0.05, {'method': 'ode_1'}),  # Lipman et al. 2023
        ),
        baseline='gaussian',
    )

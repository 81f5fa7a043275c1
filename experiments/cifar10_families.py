"""Seven families on CIFAR-10, each with its paper's settings as far as genbench supports them, for an accelerator.

genbench run experiments/cifar10_families.py --out runs/cifar10_families

Set TFDS_DATA_DIR to the folder where cifar10 is prepared. FID needs the weights of the 2015 Inception network
(README.md, "Compare images that genbench did not make"). Each config's docstring gives the numbers of its paper and
says what differs from it. The families do not spend the same number of FLOPs; experiments/fashion_families.py matches
them.

Cost: the largest families have 35.7M parameters and train for 400,000 to 800,000 steps of 128 or 512 images, which
takes days on one current GPU. The study has not yet run.
"""

from genbench.report.claims import less, near
from genbench.studies.study import Study, Trial

ALONE = ('diffusion', 'flow_matching', 'gan', 'vae', 'normalizing_flow')


def get_study() -> Study:
    return Study(
        title='Generative families on CIFAR-10',
        claim='The recipes of the papers reach the numbers of the papers, and each trained family beats the '
        'closed-form Gaussian.',
        trials=(
            *(Trial(name, f'configs/cifar10/{name}.py') for name in ALONE),
            Trial(
                'consistency',
                'configs/cifar10/consistency.py',
                overrides=('family.teacher={trials}/diffusion',),
                after=('diffusion',),
            ),
            Trial('gaussian', 'configs/cifar10/gaussian.py'),
        ),
        evaluation={
            'evaluation.num_samples': 50_000,
            'evaluation.sets': 1,
            'evaluation.metrics': ('fid', 'precision', 'recall', 'likelihood', 'speed'),
            'evaluation.features.name': 'inception',
        },
        tests=(
            # Margins are the ledger's tolerances. The ancestral sampler has the large variance.
            near('fid', 'diffusion', 3.17, 0.16, {'sampler': 'ancestral', 'nfe': 1000}),  # Ho et al. 2020
            near('fid', 'flow_matching', 4.461, 0.22, {'sampler': 'euler', 'nfe': 100}),  # Tong et al. 2024
            near('bits_per_dim', 'normalizing_flow', 3.35, 0.03, {'method': 'density_1'}),  # Kingma & Dhariwal 2018
            *(less('fid', name, 'gaussian') for name in (*ALONE, 'consistency')),
        ),
        baseline='gaussian',
    )

"""Every family on Fashion-MNIST with the same training FLOPs, for an accelerator.

genbench run experiments/fashion_mnist_families.py --out runs/fashion_mnist_families

Set TFDS_DATA_DIR to the folder where fashion_mnist is prepared.

Cost: 2.7e15 operations for each of the 18 trained trials, which is 20,000 steps of the diffusion config. Not yet run.
README.md says what smaller counts give on two cores.
"""

from genbench.report.claims import less, more
from genbench.studies.budget import Budget
from genbench.studies.study import Study, Trial

ON_A_PATH = ('diffusion', 'flow_matching')
OTHERS = ('gan', 'vae', 'normalizing_flow', 'gaussian')


def get_study() -> Study:
    return Study(
        title='Generative families on Fashion-MNIST',
        claim='With the same training FLOPs, families on a path from noise to data give the best samples, and pay for '
        'them with network evaluations that distillation wins back.',
        seeds=(0, 1, 2),
        budget=Budget(training_flops=2.7e15),
        tests=(
            *(less('fd', one, other) for one in ON_A_PATH for other in OTHERS),
            *(more('evaluations_per_image', one, other) for one in ON_A_PATH for other in OTHERS),
            less('fd', 'consistency', 'diffusion', {'nfe': 1}),
        ),
        baseline='gaussian',
        trials=(
            Trial('diffusion', 'configs/fashion_mnist/diffusion.py'),
            Trial('flow_matching', 'configs/fashion_mnist/flow_matching.py'),
            Trial(
                'consistency',
                'configs/fashion_mnist/consistency.py',
                overrides=('family.teacher={trials}/diffusion',),
                after=('diffusion',),
            ),
            Trial('gan', 'configs/fashion_mnist/gan.py'),
            Trial('vae', 'configs/fashion_mnist/vae.py'),
            Trial('normalizing_flow', 'configs/fashion_mnist/normalizing_flow.py'),
            Trial('gaussian', 'configs/fashion_mnist/gaussian.py', matched=False),
        ),
        evaluation={'evaluation.num_samples': 5_000},
    )

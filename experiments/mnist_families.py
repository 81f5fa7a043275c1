"""Eleven families on MNIST, 28×28 and 256 levels, with the same training FLOPs and one seed, for two cores.

genbench run experiments/mnist_families.py --out runs/mnist_families

Set TFDS_DATA_DIR to the folder where mnist is prepared. You can stop the study; the same command resumes it.

Each trained family may spend 2e13 operations, which is about one epoch of the U-Nets. The cost of the distilled model's
teacher comes on top and is recorded separately. The Gaussian has a closed form and stays outside the budget. The study
leaves out the other families of docs/families/README.md. Among them are the VQ-VAE and other first stages, which have
no prior worth sampling, and the autoregressive family.

Samples are scored in the features of a classifier. `class_distance` compares the classes that it sees in samples with
those that it sees in test images. The details of `class_distance` hold the histogram and the classifier's accuracy on
test images.

Expect about 105 minutes on one core. The trained families have FD between 10 and 43 with their best samplers, and the
Gaussian has 72. docs/studies/mnist_families.md has the numbers and what they mean.
"""

from genbench.report.claims import less
from genbench.studies.budget import Budget
from genbench.studies.study import Study, Trial

ALONE = (
    'diffusion', 'flow_matching', 'consistency_training', 'mean_flow', 'shortcut', 'inductive_moment_matching', 'gan',
    'vae', 'normalizing_flow',
)  # fmt: skip


def get_study() -> Study:
    return Study(
        title='Generative families on MNIST',
        claim='With the same training FLOPs, each trained family beats the closed-form Gaussian in the distance '
        'between samples and data, and distillation buys one-step samples that its teacher does not have.',
        seeds=(0,),
        budget=Budget(training_flops=2e13),
        evaluation={
            'evaluation.split': 'test[:2000]',
            'evaluation.num_samples': 1000,
            'evaluation.sets': 2,
            'evaluation.metrics': (
                'fd', 'precision', 'recall', 'coverage', 'class_distance', 'likelihood', 'speed', 'exploration'
            ),
            'evaluation.classifier.num_steps': 5000,
            'evaluation.likelihoods': ('ode_1', 'elbo', 'density_1'),
            'evaluation.ode.num_steps': 8,
        },
        tests=(
            *(less('fd', name, 'gaussian') for name in (*ALONE, 'consistency')),
            less('fd', 'consistency', 'diffusion', {'nfe': 1}),
        ),
        baseline='gaussian',
        trials=(
            *(Trial(name, f'configs/mnist/{name}.py') for name in ALONE),
            Trial(
                'consistency',
                'configs/mnist/consistency.py',
                overrides=('family.teacher={trials}/diffusion',),
                after=('diffusion',),
            ),
            Trial('gaussian', 'configs/mnist/gaussian.py', matched=False),
        ),
    )  # fmt: skip

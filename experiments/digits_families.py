"""Every family on the 8×8 digits, with one trainer, one harness, the same training FLOPs and three seeds.

genbench run experiments/digits_families.py --out runs/digits_families

Each trained family may spend 1.2e12 operations. The cost of the distilled model's teacher comes on top and is recorded
separately. The Gaussian has a closed form and stays outside the budget.

Every family with a likelihood reports its bits per dimension twice: as the log-mean of K = 4 draws, the same number for
all, and with the usual K = 1 (docs/numbers.md). The study can afford four solutions of the ODE per image.

Cost: 47 minutes of CPU time with empty caches (docs/studies/digits_families.md).

Expect 2.94 bits/dim from the full-covariance Gaussian. Expect every trained family to be below it in Fréchet distance,
and in bits/dim if the family has a likelihood.
"""

from genbench.report.claims import less
from genbench.studies.budget import Budget
from genbench.studies.study import Study, Trial

TRAINED = ('diffusion', 'flow_matching', 'consistency', 'gan', 'vae', 'normalizing_flow')
LIKELIHOODS = {'diffusion': 'ode_4', 'flow_matching': 'ode_4', 'vae': 'iwae_4', 'normalizing_flow': 'density_4'}


def get_study() -> Study:
    return Study(
        title='Generative families on handwritten digits',
        claim='With the same training FLOPs, each trained family beats the closed-form Gaussian in the distance '
        'between samples and data, and in bits per dimension where it has a likelihood; distillation buys one-step '
        'samples that its teacher does not have.',
        seeds=(0, 1, 2),
        budget=Budget(training_flops=1.2e12),
        # The same number of draws for every family: density_4, ode_4, iwae_4.
        evaluation={'evaluation.dequantisation_draws': 4, 'evaluation.iwae_draws': 4},
        tests=(
            *(less('fd', name, 'gaussian') for name in TRAINED),
            *(
                less('bits_per_dim', name, 'gaussian', {'method': method}, {'method': 'density_4'})
                for name, method in LIKELIHOODS.items()
            ),
            less('fd', 'consistency', 'diffusion', {'nfe': 1}),
        ),
        baseline='gaussian',
        trials=(
            Trial('diffusion', 'configs/digits/diffusion.py'),
            Trial('flow_matching', 'configs/digits/flow_matching.py'),
            Trial(
                'consistency',
                'configs/digits/consistency.py',
                overrides=('family.teacher={trials}/diffusion',),
                after=('diffusion',),
            ),
            Trial('gan', 'configs/digits/gan.py'),
            Trial('vae', 'configs/digits/vae.py'),
            Trial('normalizing_flow', 'configs/digits/normalizing_flow.py'),
            Trial('gaussian', 'configs/digits/gaussian.py', matched=False),
        ),
    )

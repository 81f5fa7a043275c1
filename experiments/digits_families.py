"""Every family on the 8×8 digits, by one trainer and one harness.

genbench run experiments/digits_families.py --out runs/digits_families

Expect the full-covariance Gaussian at 2.94 bits/dim, and every trained family below it in bits/dim (where it has a
likelihood) and in Fréchet distance.
"""

from genbench.studies.study import Study, Trial


def get_study() -> Study:
    return Study(
        title='Generative families on handwritten digits',
        claim='Each trained family beats the closed-form Gaussian in the distance between samples and data, and in '
        'bits per dimension where it has a likelihood; distillation buys one-step samples that its teacher does not '
        'have.',
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
            Trial('gaussian', 'configs/digits/gaussian.py'),
        ),
    )

"""GANs on the 8×8 digits: losses, penalties, networks and augmentation, with the same training FLOPs and three seeds.

genbench run experiments/gans.py --out runs/gans

Each run may spend 1.2e12 operations, of which a lazy penalty is counted on every step and not only on those that pay
it. A run has diverged if training stopped at numbers that are not finite. It has lost modes if its class shares differ
from those of the data by more than 0.2 in total variation, which is what two of ten missing digits make:

genbench results runs/gans --where 'metric=class_distance' --where 'metric=recall'

The run `style_gan_truncated` is `style_gan` again, sampled with truncation. Its rows are a curve of FD, precision and
recall.

The study is not yet run, and its claims are hypotheses.
"""

from genbench.report.claims import less
from genbench.studies.budget import Budget
from genbench.studies.study import Study, Trial

GAN, STYLE = 'configs/digits/gan.py', 'configs/digits/style_gan.py'
WGAN_GP = {
    'family.loss': 'wasserstein', 'family.penalty': 'gradient_penalty', 'family.penalty_weight': 10.0,
    'family.critic_steps': 5, 'optimizer.b2': 0.9,
}  # fmt: skip
SPECTRAL = {'family.loss': 'hinge', 'family.penalty': 'none', 'network.spectral': True}
TRUNCATION = tuple(f'direct:truncation={psi}' for psi in (0.25, 0.5, 0.75))
NAMES = (
    'wgan_gp', 'hinge_spectral', 'sngan', 'relativistic', 'r3gan', 'style_gan', 'style_gan_augmented', 'style_gan3',
    'no_penalty',
)  # fmt: skip


def get_study() -> Study:
    return Study(
        title='GANs on handwritten digits',
        claim='With the same training FLOPs, a penalty of slopes keeps a GAN from losing digits, whatever the loss; '
        "R3GAN's and StyleGAN2's networks and augmentation lower the distance between samples and data further.",
        seeds=(0, 1, 2),
        budget=Budget(training_flops=1.2e12),
        evaluation={'evaluation.metrics': ('fd', 'kd', 'precision', 'recall', 'coverage', 'class_distance')},
        tests=(
            *(less('class_distance', name, 'no_penalty') for name in ('gan', *NAMES[:-1])),
            *(less('fd', name, 'gan') for name in ('relativistic', 'r3gan', 'style_gan', 'style_gan3')),
            less('fd', 'sngan', 'dcgan'),
            less('fd', 'style_gan_augmented', 'style_gan'),
        ),
        baseline='gan',
        trials=(
            Trial('gan', GAN),
            Trial('no_penalty', GAN, {'family.penalty': 'none'}),
            Trial('wgan_gp', GAN, WGAN_GP),
            Trial('hinge_spectral', GAN, SPECTRAL),
            Trial('relativistic', GAN, {'family.loss': 'relativistic', 'family.penalty': 'r1_r2'}),
            Trial('r3gan', 'configs/digits/r3gan.py'),
            Trial('dcgan', 'configs/digits/dcgan.py'),
            Trial('sngan', 'configs/digits/sngan.py'),
            Trial('style_gan', STYLE),
            Trial('style_gan_truncated', STYLE, {'evaluation.samplers': TRUNCATION}),
            Trial('style_gan3', 'configs/digits/style_gan3.py'),
            Trial('style_gan_augmented', STYLE, {'family.augmentation': 'bgc', 'family.augmentation_images': 50_000}),
        ),
    )

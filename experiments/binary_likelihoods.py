"""Likelihoods of dynamically binarised MNIST in nats: VAEs by importance weights and AIS, and pixels in order.

genbench run experiments/binary_likelihoods.py --out runs/binary_likelihoods --data-dir DIR

Images are binarised afresh at each use (Burda et al. 2016). The probabilities of PixelCNN++ are exact, and the numbers
of the VAEs are lower bounds by K = 1000 draws. AIS estimates the log-likelihood of the VAE for 100 test images:

genbench results runs/binary_likelihoods --where 'metric=bits_per_dim' --pivot variant,kind,method:metric

A bit per dimension is 543.4 nats here. Each family may spend 2e13 operations. The study is not yet run, and its claims
are hypotheses.
"""

from genbench.report.claims import less
from genbench.studies.budget import Budget
from genbench.studies.study import Study, Trial

BINARY = {'family.decoder': 'bernoulli'}


def get_study() -> Study:
    return Study(
        title='Likelihoods of binarised MNIST',
        claim='With the same training FLOPs, more layers of latents improve the bound of a VAE.',
        seeds=(0,),
        budget=Budget(training_flops=2e13),
        evaluation={
            'evaluation.split': 'test[:2000]',
            'evaluation.metrics': ('likelihood', 'ais'),
            'evaluation.iwae_draws': 1000,
            'evaluation.ais.num_steps': 1000,
            'evaluation.ais.num_images': 100,
        },
        tests=(less('bits_per_dim', 'vdvae', 'vae', {'method': 'iwae_1000'}),),
        baseline='vae',
        trials=(
            Trial('vae', 'configs/mnist/vae.py', BINARY),
            Trial('vdvae', 'configs/mnist/vdvae.py'),
            Trial('pixel_cnn', 'configs/mnist/pixel_cnn.py', BINARY),
        ),
    )

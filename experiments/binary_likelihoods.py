"""Likelihoods of dynamically binarised MNIST in nats: VAEs by importance weights and AIS, and pixels in order.

genbench run experiments/binary_likelihoods.py --out runs/binary_likelihoods --config.data.data_dir=DIR

Images are binarised afresh at each use (Burda et al. 2016). The probabilities of models of pixels in order are exact,
and the numbers of the VAEs are lower bounds by K = 1000 draws. AIS estimates the log-likelihood of VAEs with a normal
prior for 100 test images:

genbench results runs/binary_likelihoods --where 'metric=bits_per_dim' --pivot variant,kind,method:metric

A bit per dimension is 543.4 nats here. Each family may spend 2e13 operations. The study is not yet run, and its claims
are hypotheses.
"""

from genbench.report.claims import less
from genbench.studies.budget import Budget
from genbench.studies.study import Study, Trial

BINARY = {'family.decoder': 'bernoulli'}
# Variants of the VAE: k draws of z for a training image (Burda et al. 2016 have k = 5), and as many components of the
# prior as cost little beside a batch (Tomczak & Welling 2018 have 500).
OBJECTIVES = {
    'vae': {},
    'iwae': {'family.objective': 'iwae', 'family.draws': 5},
    'dreg': {'family.objective': 'dreg', 'family.draws': 5},
    'stl': {'family.objective': 'stl'},
}
VAMP = {'family.pseudo_inputs': 100}
METRICS = ('likelihood',)
ANNEALED = {'evaluation.metrics': (*METRICS, 'ais')}  # for decoders p(x | z) with z ~ N(0, I)
IWAE = {'method': 'iwae_1000'}


def get_study() -> Study:
    return Study(
        title='Likelihoods of binarised MNIST',
        claim='With the same training FLOPs, more layers of latents improve the bound of a VAE, and so do importance '
        'weights in training, the doubly reparametrised gradient of their bound, and a VampPrior. PixelCNN++ gives '
        'binary digits a higher probability than MADE.',
        seeds=(0,),
        budget=Budget(training_flops=2e13),
        evaluation={
            'evaluation.split': 'test[:2000]',
            'evaluation.metrics': METRICS,
            'evaluation.iwae_draws': 1000,
            'evaluation.ais.num_steps': 1000,
            'evaluation.ais.num_images': 100,
        },
        tests=(
            less('bits_per_dim', 'vdvae', 'vae', IWAE),
            less('bits_per_dim', 'iwae', 'vae', IWAE),
            less('bits_per_dim', 'dreg', 'iwae', IWAE),
            less('bits_per_dim', 'vamp', 'vae', IWAE),
            less('bits_per_dim', 'pixel_cnn', 'made', {'method': 'autoregression'}),
        ),
        baseline='vae',
        trials=(
            *(Trial(name, 'configs/mnist/vae.py', BINARY | own | ANNEALED) for name, own in OBJECTIVES.items()),
            Trial('vamp', 'configs/mnist/vae.py', BINARY | VAMP),
            Trial('vdvae', 'configs/mnist/vdvae.py', ANNEALED),
            Trial('made', 'configs/digits/autoregressive.py', {'data.name': 'mnist', **BINARY}),
            Trial('pixel_cnn', 'configs/mnist/pixel_cnn.py', BINARY),
        ),
    )

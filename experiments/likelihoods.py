"""Likelihoods of the 8×8 digits: every family that has one, with the same training FLOPs and K = 16 draws.

genbench run experiments/likelihoods.py --out runs/likelihoods

A likelihood is a probability (`exact`), a lower bound on its logarithm, or an estimate, and only numbers of one kind
are ranked. Pixels in order give probabilities. VAEs give bounds by importance weights (`iwae_16`), VQ-VAE by the codes
of its encoder (`elbo`), flows by dequantisation (`density_16`). Diffusion and flow matching give bounds of their chains
(`vlb_…`) and estimates by the ODE (`ode_16`). Annealed importance sampling estimates the log-likelihood of the VAE and
of the VDVAE without their encoders, beside `iwae_16`:

genbench results runs/likelihoods --where 'metric=bits_per_dim' --pivot variant,kind,method:metric

Each trained family may spend 1.2e12 operations. The study is not yet run, and its claims are hypotheses.
"""

from genbench.report.claims import less
from genbench.studies.budget import Budget
from genbench.studies.study import Study, Trial

FLOWS = ('normalizing_flow', 'real_nvp', 'flowpp', 'tarflow', 'jet', 'residual_flow')
BY_NAME = ('pixel_cnn', 'pixel_transformer', 'vq_vae', 'diffusion', 'flow_matching', *FLOWS)
IWAE, DENSITY = {'method': 'iwae_16'}, {'method': 'density_16'}
METRICS = ('fd', 'likelihood')
ANNEALED = {'evaluation.metrics': (*METRICS, 'ais')}  # for decoders p(x | z) with z ~ N(0, I)


def get_study() -> Study:
    return Study(
        title='Likelihoods of handwritten digits',
        claim='With the same training FLOPs, PixelCNN++ gives the digits a higher probability than MADE, more layers '
        'of latents improve the bound of a VAE, and every flow has a better bound than the closed-form Gaussian.',
        seeds=(0,),
        budget=Budget(training_flops=1.2e12),
        evaluation={
            'evaluation.metrics': METRICS,
            'evaluation.dequantisation_draws': 16,
            'evaluation.iwae_draws': 16,
        },
        tests=(
            less('bits_per_dim', 'pixel_cnn', 'made', {'method': 'autoregression'}),
            less('bits_per_dim', 'vdvae', 'vae', IWAE),
            *(less('bits_per_dim', name, 'gaussian', DENSITY) for name in FLOWS),
        ),
        baseline='gaussian',
        trials=(
            Trial('made', 'configs/digits/autoregressive.py'),
            *(Trial(name, f'configs/digits/{name}.py') for name in BY_NAME),
            *(Trial(name, f'configs/digits/{name}.py', ANNEALED) for name in ('vae', 'vdvae')),
            Trial('gaussian', 'configs/digits/gaussian.py', matched=False),
        ),
    )

"""Four noise schedules on one network: linear, cosine, EDM and the straight path.

genbench run experiments/noise_schedules.py --out runs/noise_schedules

All variants predict EDM's preconditioned target, whose scale does not depend on the schedule, from inputs of variance
one. They differ in α(t) and σ(t). Because t is uniform, they also differ in how often each noise level is trained. A
fifth variant uses EDM's own log-normal choice of noise levels.

Cost: 23 minutes of CPU time (docs/studies/noise_schedules.md).

Expect the straight path and the cosine to beat DDPM's linear schedule with few evaluations, because the linear schedule
wastes steps where next to nothing of the image is left.
"""

from genbench.report.claims import less, near
from genbench.studies.study import Study, variants
from genbench.studies.sweep import grid, product, when

OTHERS = ('linear', 'straight', 'edm-uniform', 'edm-log_normal')


def get_study() -> Study:
    sweep = product(
        grid({'family.schedule': ('linear', 'cosine', 'straight', 'edm')}),
        when('family.schedule', 'edm', grid({'family.time_sampler': ('uniform', 'log_normal')})),
    )
    return Study(
        title='Noise schedules on one network',
        claim='With the same network, target and number of steps, the schedule decides how good samples with few '
        'evaluations are; with many, and in bits per dimension, schedules come near each other.',
        trials=variants('configs/digits/diffusion.py', sweep, overrides={'family.prediction': 'preconditioned'}),
        grid=('sampler=ddim,heun', 'nfe=5,10,20,50'),
        evaluation={'evaluation.sets': 2},
        tests=(
            *(less('fd', name, 'linear', {'sampler': 'ddim', 'nfe': 5}) for name in ('cosine', 'straight')),
            *(near('fd', name, 'cosine', 0.5, {'sampler': 'ddim', 'nfe': 50}) for name in OTHERS),
            *(near('bits_per_dim', name, 'cosine', 0.05, {'method': 'ode_1'}) for name in OTHERS),
        ),
        baseline='cosine',
    )

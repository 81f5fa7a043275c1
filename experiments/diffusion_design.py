"""The ladder from DDPM to EDM on one network, with one change a row (Karras et al. 2022, table 2).

genbench run experiments/diffusion_design.py --out runs/diffusion_design

The first rows sample one DDPM in different ways: ancestral sampling, an ODE, EDM's spacing of steps and Heun's rule.
The other rows each train another model: with EDM's preconditioning, then its weight of the loss, its noise levels, its
path, and its augmentation. Until the weight changes, all of them have the weight of L_simple. They have the same
network and the same training FLOPs.

Cost: seven minutes of CPU time (docs/studies/diffusion_design.md).

Expect, with 19 or 20 evaluations, a lower FD than in the row before except in two rows: EDM's spacing of steps with
`ddim` (7.1 after 6.4) and augmentation (11.8 after 5.5). Preconditioning and the weight change it by less than 0.2.
"""

from genbench.report.claims import Comparison, less
from genbench.studies.budget import Budget
from genbench.studies.study import Study, Trial

CONFIG = 'configs/digits/diffusion.py'
SPACED = 'spacing=rho7'
HEUN = tuple(f'heun:{steps}:{SPACED}' for steps in (5, 10, 25))
SOLVERS = tuple(
    sampler for steps in (10, 20, 50) for sampler in (f'ancestral:{steps}', f'ddim:{steps}', f'ddim:{steps}:{SPACED}')
)
DDPM = {'family.schedule': 'linear', 'family.prediction': 'noise'}
PRECONDITIONED = {**DDPM, 'family.prediction': 'preconditioned', 'family.weight': 'p2:gamma=0'}
WEIGHTED = {**PRECONDITIONED, 'family.weight': 'edm'}
LEVELS = {**WEIGHTED, 'family.time_sampler': 'log_normal'}
PATH = {**LEVELS, 'family.schedule': 'edm'}
AUGMENTED = {**PATH, 'family.conditions': ('augmentation:12',)}
TRAINED = {
    'preconditioning': PRECONDITIONED,
    'weight': WEIGHTED,
    'noise_levels': LEVELS,
    'path': PATH,
    'augmentation': AUGMENTED,
}


def _changed_sampling() -> tuple[Comparison, ...]:
    """Each change of the sampler of the first model, at about twenty evaluations."""
    rows = (
        {'sampler': 'ancestral', 'nfe': 20},
        {'sampler': 'ddim', 'nfe': 20, 'spacing': None},
        {'sampler': 'ddim', 'nfe': 20, 'spacing': 'rho7'},
        {'sampler': 'heun', 'nfe': 19},
    )
    return tuple(less('fd', 'ddpm', 'ddpm', new, old) for old, new in zip(rows[:-1], rows[1:], strict=True))


def get_study() -> Study:
    names = ('ddpm', *TRAINED)
    return Study(
        title='From DDPM to EDM, one change at a time',
        claim='Each design choice of EDM improves samples of the same network for the same training FLOPs.',
        budget=Budget(training_flops=2.5e12),
        evaluation={'evaluation.sets': 4, 'evaluation.metrics': ('fd', 'kd')},
        tests=(
            *_changed_sampling(),
            *(
                less('fd', new, old, {'sampler': 'heun', 'nfe': 19})
                for old, new in zip(names[:-1], names[1:], strict=True)
            ),
        ),
        baseline='ddpm',
        trials=(
            Trial('ddpm', CONFIG, {**DDPM, 'evaluation.samplers': (*SOLVERS, *HEUN)}),
            *(Trial(name, CONFIG, {**changes, 'evaluation.samplers': HEUN}) for name, changes in TRAINED.items()),
        ),
    )

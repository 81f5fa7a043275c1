"""How to turn integer pixels into real numbers: uniform noise in their bins, or the centres of the bins.

genbench run experiments/dequantisation.py --out runs/dequantisation

Diffusion and flow matching are each trained twice: on images dequantised by uniform noise, and on bin centres.

Cost: 15 minutes of CPU time (docs/studies/dequantisation.md).

Expect worse ODE bits per dimension from the models of bin centres, whose density is scored at points they never saw.
Expect little difference in Fréchet distance.
"""

from genbench.report.claims import less, near
from genbench.studies.study import Study, variants
from genbench.studies.sweep import grid

FAMILIES = ('diffusion', 'flow_matching')


def get_study() -> Study:
    sweep = grid({'family.dequantisation': ('uniform', 'none')})
    return Study(
        title='Dequantisation',
        claim='Uniform dequantisation is what the ODE likelihood of integer images needs; samples do not depend on it.',
        trials=(
            *variants('configs/digits/diffusion.py', sweep, name='diffusion'),
            *variants('configs/digits/flow_matching.py', sweep, name='flow_matching'),
        ),
        grid=('sampler=heun', 'steps=10'),
        evaluation={'evaluation.sets': 2},
        tests=(
            *(less('bits_per_dim', f'{name}-uniform', f'{name}-none', {'method': 'ode_1'}) for name in FAMILIES),
            *(near('fd', f'{name}-uniform', f'{name}-none', 0.5) for name in FAMILIES),
        ),
        baseline='diffusion-uniform',
    )

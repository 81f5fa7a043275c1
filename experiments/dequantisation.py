"""What becomes of the bins of integer images: uniform noise in them, or their centres.

genbench run experiments/dequantisation.py --out runs/dequantisation

Diffusion and flow matching, with images dequantised by uniform noise or placed at the centres of their bins.

Cost: 15 minutes of CPU time (docs/studies/dequantisation.md).

Expect worse bits per dimension by the ODE from models of bin centres, whose density is scored at points it was never
shown, and little difference in Fréchet distance.
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

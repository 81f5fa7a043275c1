"""Inverse problems on digits: two families, six solvers and three problems, and models that are trained for one.

genbench run experiments/inverse_problems.py --out runs/inverse_problems

Each run is trained once. Held-out digits are degraded and restored, and the results are compared with the true digits
and among each other (docs/editing.md). Beside the solvers, which need no further training, stand models that are
trained for a single problem: Palette (Saharia et al. 2022) for the two masks, and SR3 (Saharia et al. 2021) for the
enlargement. Their rows have the posterior 'trained'.

Cost: not yet measured as a whole.

Expect repeats (RePaint) and ΠGDM to keep the class more often than a single pass of replacement or DDNM, at more
evaluations or with a gradient in each. Expect super-resolution to have a higher PSNR than bicubic enlargement.
"""

from genbench.report.claims import more
from genbench.studies.study import Study, Trial

SAMPLERS = (
    'ancestral:50:posterior=replacement',
    'ancestral:50:posterior=replacement,resample=5',
    'ancestral:50:posterior=ddnm',
    'ancestral:50:posterior=ddnm,resample=5',
    'ancestral:50:posterior=pigdm',
    'ancestral:100:posterior=dps,weight=0.1',
)
METRICS = ('psnr', 'ssim', 'misfit', 'class', 'fd', 'diversity')


def get_study() -> Study:
    return Study(
        title='Inverse problems on handwritten digits',
        claim='Repeated steps and gradients through the denoiser restore more than one pass of replacement.',
        trials=(
            Trial('diffusion', 'configs/digits/diffusion.py'),
            Trial('flow_matching', 'configs/digits/flow_matching.py'),
            Trial('palette_half', 'configs/digits/palette.py'),
            Trial('palette_right', 'configs/digits/palette.py', {'family.conditions': ('degraded:right',)}),
            Trial('super_resolution', 'configs/digits/super_resolution.py'),
        ),
        evaluation={
            'evaluation.metrics': (*(f'restored_{name}' for name in METRICS), 'speed'),
            'evaluation.restoration.problems': ('half', 'right', 'pool2'),
            'evaluation.restoration.samplers': SAMPLERS,
            'evaluation.restoration.trained_samplers': ('ancestral:50',),
        },
        tests=tuple(
            more('restored_class', name, name, _way('replacement', 250), _way('replacement', 50))
            for name in ('diffusion', 'flow_matching')
        ),
    )


def _way(posterior: str, nfe: int) -> dict[str, object]:
    return {'sampler': 'ancestral', 'nfe': nfe, 'problem': 'half', 'posterior': posterior}

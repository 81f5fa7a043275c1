"""What a network should predict: noise, image, v or velocity, under equal weighting.

genbench run experiments/prediction_types.py --out runs/prediction_types

All variants share one network, the cosine schedule and the plain, unweighted squared error of their target. A squared
error of one target is a weighted squared error of another. The variants therefore differ in how they weight noise
levels, and in how they amplify a network's errors where the conversion divides by a small number.

Cost: 16 minutes of CPU time (docs/studies/prediction_types.md).

Expect v and velocity to beat noise in Fréchet distance with few evaluations, because the image that a predicted noise
implies is ill-conditioned where sampling starts. Expect v and velocity to be level, because where α² + σ² = 1 one is a
nearly constant multiple of the other.
"""

from genbench.report.claims import less
from genbench.studies.study import Study, variants
from genbench.studies.sweep import grid


def get_study() -> Study:
    return Study(
        title='Prediction types under equal weighting',
        claim='Predicting v, velocity or the image gives better samples with few evaluations than predicting noise.',
        trials=variants('configs/digits/diffusion.py', grid({'family.prediction': ('noise', 'x', 'v', 'velocity')})),
        grid=('sampler=ddim', 'nfe=5,10,20,50'),
        evaluation={'evaluation.sets': 2},
        tests=[less('fd', name, 'noise', {'nfe': nfe}) for name in ('x', 'v', 'velocity') for nfe in (5, 10)],
        baseline='noise',
    )

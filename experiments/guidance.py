"""Classifier-free guidance on labelled digits: fidelity against diversity.

genbench run experiments/guidance.py --out runs/guidance

One conditional diffusion run is sampled with labels from the train split at several guidance weights w. The prediction
is (1 + w) conditional − w unconditional. An unconditional run is the baseline.

Cost: 9 minutes of CPU time (docs/studies/guidance.md).

Expect precision to rise with w and recall to fall. No weight should improve the Fréchet distance to held-out images.
"""

from genbench.report.claims import less, more
from genbench.studies.study import Study, Trial

GUIDED = ('sampler=heun', 'steps=10', 'guidance=0,0.25,0.5,1,2,4')


def get_study() -> Study:
    return Study(
        title='Classifier-free guidance',
        claim='Guidance buys precision with recall; a little of it, if any, is best for the Fréchet distance.',
        trials=(
            Trial('unconditional', 'configs/digits/diffusion.py', grid=('sampler=heun', 'steps=10')),
            Trial('conditional', 'configs/digits/diffusion.py', {'family.conditional': True}, grid=GUIDED),
        ),
        evaluation={'evaluation.metrics': ('fd', 'kd', 'precision', 'recall', 'likelihood', 'speed')},
        tests=(
            more('precision', 'conditional', 'conditional', {'guidance': 2}, {'guidance': 0}),
            less('recall', 'conditional', 'conditional', {'guidance': 2}, {'guidance': 0}),
            *(less('fd', 'conditional', 'conditional', {'guidance': 0.25}, {'guidance': w}) for w in (1, 2, 4)),
        ),
        baseline='unconditional',
    )

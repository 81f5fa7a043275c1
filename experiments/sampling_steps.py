"""Quality against network evaluations of one checkpoint, for every solver.

genbench run experiments/sampling_steps.py --out runs/sampling_steps

One diffusion model is trained once, and one evaluation compares all solvers on it.

Cost: nine minutes of CPU time (docs/studies/sampling_steps.md).

Expect the deterministic solvers to beat ancestral sampling with few evaluations. Expect Heun's second-order rule to
beat DDIM, which is Euler's rule, once it can afford a few steps. From about fifty evaluations on, all should be level.
"""

from genbench.report.claims import Comparison, less
from genbench.studies.study import Study, Trial


def _lower(one: tuple[str, int], other: tuple[str, int]) -> Comparison:
    """The first sampler has the lower distance."""
    where, against = ({'sampler': name, 'nfe': nfe} for name, nfe in (one, other))
    return less('fd', 'diffusion', 'diffusion', where, against)


def get_study() -> Study:
    return Study(
        title='Solvers and their steps on one checkpoint',
        claim='Deterministic solvers need fewer evaluations than ancestral sampling for the same quality; the order '
        'of a solver pays once its steps are small.',
        trials=(Trial('diffusion', 'configs/digits/diffusion.py'),),
        grid=('sampler=ancestral,ddim,heun', 'nfe=2,5,10,20,50,100'),
        evaluation={'evaluation.metrics': ('fd', 'kd', 'precision', 'recall', 'speed')},
        tests=(
            *(_lower(('ddim', few), ('ancestral', many)) for few, many in ((5, 10), (10, 20), (20, 50))),
            _lower(('heun', 19), ('ddim', 20)),
        ),
        figures=('nfe',),
    )

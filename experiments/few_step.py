"""Samples in 1, 2 and 4 evaluations: every few-step family on the 8×8 digits, with the same training FLOPs.

genbench run experiments/few_step.py --out runs/few_step

Each run may spend 5e12 operations, including those of the teacher that it builds on. A student thus has what its
teacher leaves, which is about half. Reflow also pays for its pairs of noise and image. Progressive distillation learns
one number of steps, so it has a run for each. The diffusion and flow-matching runs of the whole budget show what few
steps of a solver give without distillation.

Cost: 23 minutes of one core a seed without consistency tuning, consistency trajectories, distribution matching and
adversarial distillation, which have not been run in this study. One of the three seeds of the others has run
(docs/studies/few_step.md).

Expect, with one evaluation: FD 6.4 for consistency distillation, 7.1 for consistency training, 7.3 for progressive
distillation, 7.6 to 10.5 for the others, and 189 for a solver of diffusion.
"""

from genbench.report.claims import Comparison, less
from genbench.studies.budget import Budget
from genbench.studies.study import Study, Trial

CONFIGS = 'configs/digits'
ALONE = (
    'consistency_training', 'continuous_consistency', 'mean_flow', 'shortcut', 'inductive_moment_matching',
)  # fmt: skip
BY_DIFFUSION = ('consistency_tuning', 'consistency_trajectory', 'distribution_matching', 'adversarial_distillation')
TAUGHT = ('consistency', *BY_DIFFUSION, 'reflow')
ONLY_ONE = ('distribution_matching',)  # it learns one number of steps, here one
JUMPS = ('multistep_consistency:1', 'multistep_consistency:2', 'multistep_consistency:4')
# The times of two steps are those of the papers; those of four are a choice of ours.
TIMES = {
    'consistency_training': ('80/0.821', '80/4/0.821/0.2'),
    'continuous_consistency': ('1.5645464/1.1', '1.5645464/1.446/1.1/0.381'),
}
SAMPLERS = {
    name: ('multistep_consistency:1', *(f'multistep_consistency:spacing={times}' for times in levels))
    for name, levels in TIMES.items()
}
ONE, FOUR = {'nfe': 1}, {'nfe': 4}


def _progressive(last: int) -> Trial:
    changes = {'family.teacher': '{trials}/teacher', 'family.last': last, 'evaluation.samplers': (f'ddim:{last}',)}
    name = f'progressive_distillation_{last}'
    return Trial(name, f'{CONFIGS}/progressive_distillation.py', changes, after=('teacher',))


def _lower(one: str, other: str, *rows: dict[str, int]) -> tuple[Comparison, ...]:
    return tuple(less('fd', one, other, where) for where in rows)


def get_study() -> Study:
    return Study(
        title='Few-step generation on handwritten digits',
        claim='With the same training FLOPs, a teacher counted, every few-step family has better samples in one '
        'evaluation than a solver of diffusion; a teacher is worth its cost; and further evaluations help.',
        seeds=(0, 1, 2),
        budget=Budget(training_flops=5e12, with_borrowed=True),
        evaluation={'evaluation.metrics': ('fd', 'kd', 'precision', 'recall')},
        tests=(
            *(one for name in (*ALONE, *TAUGHT) for one in _lower(name, 'diffusion', ONE)),
            *(_lower(f'progressive_distillation_{n}', 'diffusion', {'nfe': n})[0] for n in (1, 2, 4)),
            *_lower('consistency', 'consistency_training', ONE),  # at other numbers, their times differ
            *_lower('progressive_distillation_4', 'consistency', FOUR),
            *(less('fd', name, name, FOUR, ONE) for name in (*ALONE, *TAUGHT) if name not in ONLY_ONE),
        ),
        baseline='diffusion',
        figures=('nfe', 'leaderboard', 'samples'),
        trials=(
            Trial('teacher', f'{CONFIGS}/diffusion.py', {'evaluation.samplers': ('ddim:20',)}, matched=False),
            Trial('flow_teacher', f'{CONFIGS}/flow_matching.py', {'evaluation.samplers': ('heun:10',)}, matched=False),
            Trial('diffusion', f'{CONFIGS}/diffusion.py', {'evaluation.samplers': ('ddim:1', 'ddim:2', 'ddim:4')}),
            Trial(
                'flow_matching',
                f'{CONFIGS}/flow_matching.py',
                {'evaluation.samplers': ('euler:1', 'euler:2', 'euler:4')},
            ),
            *(
                Trial(name, f'{CONFIGS}/{name}.py', {'evaluation.samplers': SAMPLERS[name]} if name in SAMPLERS else {})
                for name in ALONE
            ),
            Trial(
                'consistency',
                f'{CONFIGS}/consistency.py',
                {'family.teacher': '{trials}/teacher', 'evaluation.samplers': JUMPS},
                after=('teacher',),
            ),
            *(
                Trial(name, f'{CONFIGS}/{name}.py', {'family.teacher': '{trials}/teacher'}, after=('teacher',))
                for name in BY_DIFFUSION
            ),
            *(_progressive(last) for last in (4, 2, 1)),
            Trial(
                'reflow',
                f'{CONFIGS}/reflow.py',
                {'family.teacher': '{trials}/flow_teacher', 'evaluation.samplers': ('euler:1', 'euler:2', 'euler:4')},
                after=('flow_teacher',),
            ),
        ),
    )

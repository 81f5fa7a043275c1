"""Which learning rate suits the family, with two seeds.

genbench run experiments/learning_rates.py --out runs/learning_rates
"""

from genbench.report.claims import less
from genbench.studies.study import Study, variants
from genbench.studies.sweep import grid


def get_study():
    return Study(
        title='Learning rates',
        claim='In 500 steps a rate of 0.03 reaches fewer bits per dimension than one of 0.003.',
        trials=variants('configs/digits.py', grid({'optimizer.learning_rate': (3e-2, 3e-3)})),
        seeds=(0, 1),
        baseline='learning_rate=0.03',
        tests=[less('bits_per_dim', 'learning_rate=0.03', 'learning_rate=0.003')],
    )

"""How wide a parameter average should be, decided after training (EDM2's power-function averages).

genbench run experiments/ema_widths.py --out runs/ema_widths

Training keeps two power-function averages. Averages of every other width are reconstructed from their snapshots. The
model is trained once with a constant learning rate and once with a cosine that ends at zero.

Cost: 10 minutes of CPU time (docs/studies/ema_widths.md).

Expect a clear best width with the constant learning rate, well ahead of the last parameters. Where the learning rate
decays to zero, narrow averages should hardly matter.
"""

from genbench.report.claims import less, near
from genbench.studies.study import Study, variants
from genbench.studies.sweep import grid

WIDTHS = (0.01, 0.02, 0.05, 0.1, 0.15, 0.2, 0.25)


def get_study() -> Study:
    averages = ','.join(['current', 'ema', *(f'power:{width}' for width in WIDTHS)])
    return Study(
        title='Widths of the average of the parameters',
        claim='Without a decaying learning rate the width of the average decides the quality of samples; a decay to '
        'zero does most of its work.',
        trials=variants(
            'configs/digits/diffusion.py',
            grid({'optimizer.schedule': ('constant', 'cosine')}),
            overrides={'train.power_widths': (0.05, 0.1)},
        ),
        grid=('sampler=heun', 'steps=10', f'average={averages}'),
        evaluation={'evaluation.metrics': ('fd', 'kd', 'precision', 'recall')},
        tests=(
            less('fd', 'constant', 'constant', {'average': 'power:0.1'}, {'average': 'current'}),
            less('fd', 'cosine', 'constant', {'average': 'current'}),
            near('fd', 'cosine', 'cosine', 0.5, {'average': 'power:0.1'}, {'average': 'current'}),
        ),
        baseline='constant',
    )

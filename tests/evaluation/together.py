"""What two processes do together and one alone, whose results test_processes.py compares."""

from genbench.evaluation import draw, standalone
from genbench.evaluation.inputs import Options

CHANGES = ('evaluation.num_samples=50', 'evaluation.sets=3', 'evaluation.batch_size=40',
           'evaluation.metrics=fd,kd,pr,likelihood,speed')  # fmt: skip


def draw_and_compare(folder):
    """What `genbench sample` and `genbench metrics` do, of a run, of arrays, and with moments alone."""
    draw.draw_to_file(str(folder / 'run'), str(folder / 'x.npz'), count=5, sampler='', seed=3, given=())
    options = Options(features='pixels', quiet=True, num_samples=30)
    for name, first, metrics in (('moments', 'a.npz', ['fd']), ('features', 'a.npz', ['kd']), ('run', 'run', ['kd'])):
        standalone.compare(
            str(folder / first), str(folder / 'b.npz'), metrics, options, out=str(folder / f'{name}.json')
        )

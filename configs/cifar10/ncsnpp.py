"""The VE SDE with NCSN++ on CIFAR-10, in continuous time (Y. Song et al. 2021, appendix H): 62.8M parameters.

genbench train --config=configs/cifar10/ncsnpp.py --workdir=runs/cifar10_ncsnpp --config.data.data_dir=DIR

The paper reports FID 2.38 with 1000 steps of predictor and corrector, which are 2000 evaluations. This has not been run
here.

Differs from the paper: times are spread evenly over each batch. Pixels are at the centres of their bins in [−1, 1],
with noise levels doubled. The corrector comes before the predictor, and its step follows each image's own score
(docs/deviations.md). Layers that start near zero in the paper start at zero. The paper scores the checkpoint with the
best FID. The loss is a mean over values; that of the code is half their sum, so its clipping at a norm of 1 acts more
often.
"""

from typing import Any

from genbench import config


def get_config() -> dict[str, Any]:
    values = config.read_file('cifar10/ddpmpp')  # the paper's other model shares the rest
    values['family']['schedule'] = 've'
    del values['train']['ema_decay']  # 0.999 here, the default
    values['network'] |= {'embedding': 'fourier', 'taps': (1, 3, 3, 1), 'pyramid': True}
    values['evaluation'] = {'samplers': ('predictor_corrector:1000',)}
    return values

"""A small StyleGAN2 on Fashion-MNIST.

genbench train --config=configs/fashion_mnist/style_gan.py --workdir=runs/fashion_mnist_style_gan \
    --config.data.data_dir=DIR

The paper has no Fashion-MNIST. This config has not been run.

Differs from the paper: as configs/digits/style_gan.py, with a network and a length of its own.
"""

from typing import Any

from genbench import config


def get_config() -> dict[str, Any]:
    values = config.read_file('digits/style_gan')
    values['data']['name'] = 'fashion_mnist'
    values['network']['multipliers'] = (1, 2, 4)
    values['train'] = {'num_steps': 5000, 'batch_size': 64, 'sample_every': 500, 'ema_decay': 0.995}
    del values['evaluation']
    return values

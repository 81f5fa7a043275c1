"""PixelCNN++ on CIFAR-10 as published: 53.7M parameters, an exact probability of the integer pixels.

genbench train --config=configs/cifar10/pixel_cnn.py --workdir=runs/cifar10_pixel_cnn \
    --config.data.data_dir=DIR

Salimans et al. 2017 report 2.92 bits per dimension. We have not reproduced this yet.

The learning rate, its decay, Adam's decays of 0.95 and 0.9995, the batch of 16 images on each of 8 GPUs, the average
and the largest number of epochs, 5,000, come from the official code. According to its page, training converges in
about five days.

Differs from the paper: the first batch, which initialises the weights, has 128 images instead of 16, and ε = 1e-8 is
added to the root in Adam's denominator instead of under it. The code's loss is a sum of nats over the batch, so
relative to the gradients, ε counts about 27 times as much here. docs/deviations.md lists the other differences.
"""

from ml_collections import ConfigDict


def get_config() -> ConfigDict:
    return ConfigDict(
        {
            'data': {'name': 'cifar10'},
            'family': {'name': 'autoregressive', 'decoder': 'logistic_mixture'},
            'network': {'name': 'pixel_cnn', 'channels': 160, 'blocks': 5, 'scales': 3, 'dropout': 0.5},
            'train': {'num_steps': 1_950_000, 'sample_every': 195_000, 'ema_decay': 0.9995, 'ema_warmup': False},
            'optimizer': {'schedule': 'exponential', 'b1': 0.95, 'b2': 0.9995, 'clip_norm': 0.0},
            'checkpoint': {'every': 10_000},
        }
    )

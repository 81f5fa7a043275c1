"""PixelCNN++ with a mixture of discretised logistics on MNIST.

genbench train --config=configs/mnist/pixel_cnn.py --workdir=runs/mnist_pixel_cnn \
    --config.data.data_dir=DIR

The length is meant for about two hours on two CPU cores. Neither the time nor the result has been measured.

Differs from the paper: images have one channel; three resolutions with one block each instead of five, and 24 channels
instead of 160; Adam with a cosine schedule. docs/deviations.md lists the other differences.
"""

from ml_collections import ConfigDict


def get_config() -> ConfigDict:
    return ConfigDict(
        {
            'data': {'name': 'mnist'},
            'evaluation': {'num_samples': 180, 'sets': 2},
            'family': {'name': 'autoregressive', 'decoder': 'logistic_mixture'},
            'network': {'name': 'pixel_cnn', 'channels': 24, 'blocks': 1, 'scales': 3, 'dropout': 0.1},
            'train': {'num_steps': 6000, 'batch_size': 32, 'sample_every': 3000, 'ema_decay': 0.995},
            'optimizer': {'learning_rate': 2e-3, 'schedule': 'cosine', 'warmup_steps': 100},
        }
    )

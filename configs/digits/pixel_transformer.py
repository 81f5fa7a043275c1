"""A decoder-only transformer over the pixels of digits: exact probabilities, and samples with cached keys and values.

genbench train --config=configs/digits/pixel_transformer.py --workdir=runs/pixel_transformer

One run (seed 0) reached 1.863 ± 0.012 bits per dimension on the test images, which is exact, and an FD of 8.3 ± 1.1, in
about six minutes of CPU time.

Differs from the paper: Child et al. 2019 use sparse attention, 3,072 values of 256 levels and 59 million parameters on
CIFAR-10. Attention is dense here, and images have 64 values of 17 levels.
"""

from ml_collections import ConfigDict


def get_config() -> ConfigDict:
    return ConfigDict(
        {
            'data': {'name': 'digits'},
            'evaluation': {'num_samples': 180, 'sets': 8},
            'family': {'name': 'autoregressive'},
            'network': {'name': 'pixel_transformer', 'dropout': 0.2},
            'train': {'sample_every': 500, 'ema_decay': 0.99},
            'optimizer': {'learning_rate': 2e-3, 'schedule': 'cosine', 'warmup_steps': 50},
        }
    )

"""The full-covariance Gaussian in closed form: 479 steps of 48 digits.

genbench train --config=configs/digits/gaussian.py --workdir=runs/gaussian

docs/studies/digits_families.md says what results to expect. Every image is seen 16 times, so the moments are exact.
No paper to differ from: the moments are the maximum-likelihood estimate.
"""

from ml_collections import ConfigDict


def get_config() -> ConfigDict:
    return ConfigDict(
        {
            'data': {'name': 'digits'},
            'evaluation': {'num_samples': 180, 'sets': 8},
            'family': {'name': 'gaussian'},
            'train': {'num_steps': 479, 'batch_size': 48},
        }
    )

"""Eleven families on Fashion-MNIST, 28×28 and 256 levels, with the same training FLOPs and one seed, for two cores.

genbench run experiments/fashion_families.py --out runs/fashion_families

Set TFDS_DATA_DIR to the folder where fashion_mnist is prepared. You can stop the study; the same command resumes it.

This is the study of experiments/mnist_families.py on other images.

The study has not yet run to its end.
"""

import dataclasses

from genbench.studies import study


def get_study() -> study.Study:
    mnist = study.read_file('mnist_families')
    return dataclasses.replace(
        mnist,
        title='Generative families on Fashion-MNIST',
        trials=[
            dataclasses.replace(trial, config=trial.config.replace('configs/mnist/', 'configs/fashion_mnist/'))
            for trial in mnist.trials
        ],
    )

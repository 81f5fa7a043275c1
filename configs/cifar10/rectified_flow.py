"""Rectified flow on CIFAR-10 with DDPM++ (Liu et al. 2023), with the settings of the official config: 61.8M parameters.

genbench train --config=configs/cifar10/rectified_flow.py --workdir=runs/cifar10_rectified_flow \
    --config.data.data_dir=DIR

The paper reports FID 2.58 with an adaptive solver at 127 evaluations, and 378 with one step of Euler's rule. The code
publishes the checkpoint after 800,000 updates. configs/cifar10/reflow.py straightens the flow. This has not been run
here.

Differs from the paper: networks see 1,000 t and not 999 t. Layers that start near zero in the paper start at zero.
Pixels are at the centres of their bins.
"""

from typing import Any

from genbench import config


def get_config() -> dict[str, Any]:
    ddpmpp = config.read_file('cifar10/ddpmpp')
    train = {key: value for key, value in ddpmpp['train'].items() if key != 'ema_warmup'}  # the average is warmed up
    return {
        'data': ddpmpp['data'],
        'family': {'name': 'flow_matching', 'dequantisation': 'none'},
        'network': {**ddpmpp['network'], 'dropout': 0.15},
        'train': {**train, 'num_steps': 800_000, 'ema_decay': 0.999999},
        'optimizer': ddpmpp['optimizer'],
        'checkpoint': ddpmpp['checkpoint'],
        'evaluation': {'samplers': ('rk45:60:tolerance=1e-5', 'euler:1')},
    }

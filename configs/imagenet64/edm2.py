"""EDM2 on ImageNet 64×64 with labels (Karras et al. 2024, config G, size S): 280.2M parameters.

genbench train --config=configs/imagenet64/edm2.py --workdir=runs/imagenet64_edm2 --config.data.data_dir=DIR

Prepare the images first: genbench data prepare imagenet2012 --size=64 --crop=adm.

The paper reports FID 1.58 at 63 evaluations, for the best width of the average. The sizes M, L and XL have
network.channels=256, 320 and 384, and optimizer.learning_rate=0.009, 0.008 and 0.007 (FID 1.43, 1.33 and 1.33); the
ledger's rows also have their dropout and their lengths. The batch of 2,048 images is meant for 32 accelerators;
train.accumulate splits it on fewer. This has not been run here.

Differs from the paper: u(σ) sees other features of the noise level and starts at zero. The computation is in bfloat16
instead of float16. An update with a non-finite gradient is left out; the paper replaces the non-finite parts. The
official code averages weights before it forces their norm.
"""

from typing import Any

from genbench import config


def get_config() -> dict[str, Any]:
    values = config.read_file('cifar10/edm2')
    values['data'] = {'name': 'imagenet2012', 'size': (64,), 'crop': 'adm'}
    values['network'] |= {'channels': 192, 'multipliers': (1, 2, 3, 4)}
    values['train'] |= {'num_steps': 524_288, 'batch_size': 2048}  # 1,074M images
    values['optimizer'] |= {'learning_rate': 1e-2, 'warmup_steps': 4883}
    values['evaluation']['split'] = 'validation'
    return values

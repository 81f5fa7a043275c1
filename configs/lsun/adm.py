"""ADM on LSUN bedrooms at 256×256 (Dhariwal & Nichol 2021, table 11): 552.8M parameters with learned variances.

genbench train --config=configs/lsun/adm.py --workdir=runs/lsun_adm --config.data.data_dir=DIR

Prepare the images first: genbench data prepare lsun/bedroom --size=256.

The paper reports FID 1.90 with 1,000 ancestral steps, which is computed against the train split. Horses have
data.name=lsun/horse and train.num_steps=250000, FID 2.57. Cats have data.name=lsun/cat and train.num_steps=200000, FID
5.57. The batch of 256 images is meant for many accelerators; train.accumulate splits it on fewer. This has not been run
here.

Differs from the paper: layers start as EDM's. Pixels are at the centres of their bins. The computation is in bfloat16
instead of float16. AdamW without decay is Adam.
"""

from typing import Any

from genbench import config


def get_config() -> dict[str, Any]:
    values = config.read_file('imagenet64/adm')
    values['data'] = {'name': 'lsun/bedroom', 'size': (256,)}
    values['family'] = {
        'name': 'diffusion', 'schedule': 'linear', 'prediction': 'noise', 'learned_variance': 0.001,
        'dequantisation': 'none',
    }  # fmt: skip
    values['network'] |= {'channels': 256, 'multipliers': (1, 1, 2, 2, 4, 4), 'blocks': 2}
    values['train'] |= {'num_steps': 500_000, 'batch_size': 256}
    values['optimizer'] |= {'learning_rate': 1e-4}
    values['evaluation'] = {'samplers': ('ancestral:1000:variance=learned',), 'metrics': ('fid',)}
    return values

"""EDM2 on the latents of ImageNet 512×512 with labels (Karras et al. 2024, config G, size XS): 124.7M parameters.

genbench train --config=configs/imagenet512/edm2.py --workdir=runs/imagenet512_edm2 --config.data.data_dir=DIR

Prepare the images (genbench data prepare imagenet2012 --size=512 --crop=adm) and train the first stage before:
configs/imagenet512/first_stage.py.

The paper reports FID 3.53 at 63 evaluations, for the best width of the average. The sizes S, M, L, XL and XXL have
network.channels=192, 256, 320, 384 and 448, optimizer.learning_rate=0.01, 0.009, 0.008, 0.007 and 0.0065, and FID 2.56,
2.25, 2.06, 1.96 and 1.91. From M on, network.dropout is 0.1. L, XL and XXL see 1792, 1280 and 896 units of 2²⁰ images;
the others see 2048. This has not been run here.

Differs from the paper: the first stage is a run of genbench and not the autoencoder of Stable Diffusion, so numbers
cannot be the paper's. Otherwise as imagenet64/edm2 does.
"""

from typing import Any

from genbench import config


def get_config() -> dict[str, Any]:
    values = config.read_file('imagenet64/edm2')
    values['data'] = {'name': 'imagenet2012', 'size': (512,), 'crop': 'adm'}
    values['family'] |= {
        'first_stage': 'runs/imagenet512_first_stage', 'time_sampler': 'log_normal:mean=-0.4,deviation=1.0',
    }  # fmt: skip
    del values['family']['dequantisation']
    values['network'] |= {'channels': 128}
    values['train'] |= {'num_steps': 1_048_576}  # 2,147M images
    values['optimizer'] |= {'learning_rate': 1.2e-2, 'decay_start': 70_000}
    values['evaluation'] |= {'average': 'power_0.1', 'metrics': ('fid',)}
    del values['evaluation']['likelihoods']
    return values

"""Flow matching on digits with a modern diffusion transformer.

genbench train --config=configs/digits/modern_dit.py --workdir=runs/modern_dit

For comparison, `--config.network.name=dit` trains the transformer of Peebles & Xie 2023 with the same sizes. It has
been built and tested, but no results of this config are recorded.

LightningDiT (J. Yao, X. Wang, Reconstruction vs. Generation, 2025) has the same parts of the network.

Differs from the paper: images of 8×8 pixels instead of latents of ImageNet; places are only rotated and not also added;
four blocks of width 128; Adam with a cosine schedule at 1e-3. The loss has no term for the velocity's direction.
"""

from ml_collections import ConfigDict


def get_config() -> ConfigDict:
    return ConfigDict(
        {
            'data': {'name': 'digits'},
            'family': {'name': 'flow_matching', 'time_sampler': 'logit_normal'},
            'network': {'name': 'modern_dit'},
            'train': {'num_steps': 1200, 'sample_every': 400, 'ema_decay': 0.99},
            'optimizer': {'schedule': 'cosine', 'warmup_steps': 50},
            'evaluation': {'num_samples': 180, 'sets': 8, 'refine_images': 16, 'samplers': ('heun:10',)},
        }
    )

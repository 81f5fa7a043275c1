"""Digits from the bytes of captions, which a small transformer reads; otherwise the model of captions.py.

genbench train --config=configs/digits/captions_transformer.py --workdir=runs/captions_transformer
genbench sample runs/captions_transformer --out=sevens.png --given caption="a bold seven" --sampler=ddim:20:1.5

The transformer is trained together with the U-Net. The U-Net attends to its features, and the last one is added to the
embedding of time (A. Nichol et al., GLIDE: Towards Photorealistic Image Generation and Editing with Text-Guided
Diffusion Models, 2022, section 4.1).

Differs from the paper: two blocks of width 64 read at most 24 bytes instead of 24 blocks of width 2048 that read tokens
of a vocabulary. Blocks of the U-Net attend to captions after, and not within, attention to pixels. A tenth of the
captions is dropped in training from the start, instead of a fifth in a fine-tuning. The data set has 8×8 images.
"""

from ml_collections import ConfigDict


def get_config() -> ConfigDict:
    return ConfigDict(
        {
            'data': {'name': 'digits'},
            'family': {'name': 'diffusion', 'conditions': ('caption:bytes24',)},
            'network': {'multipliers': (1, 1), 'text_depth': 2, 'text_width': 64},
            'train': {'num_steps': 400, 'sample_every': 100, 'ema_decay': 0.99},
            'optimizer': {'learning_rate': 2e-3, 'schedule': 'cosine', 'warmup_steps': 50},
            'evaluation': {
                'num_samples': 180,
                'sets': 8,
                'refine_images': 16,
                'samplers': ('ddim:20', 'ddim:20:1.5'),
            },
        }
    )

"""A small multimodal diffusion transformer that draws digits from the bytes of captions.

genbench train --config=configs/digits/mmdit.py --workdir=runs/mmdit
genbench sample runs/mmdit --out=sevens.png --given caption="a bold seven" --sampler=heun:10:1.5

P. Esser et al., Scaling Rectified Flow Transformers for High-Resolution Image Synthesis, 2024 (Stable Diffusion 3):
straight paths, times from a logit-normal distribution, joint attention of captions and images, and a normalisation of
queries and keys. As in the paper, a network of depth d has the width 64 d and d heads, and d is 2.

Differs from the paper: the captions are read by a transformer that is trained along, instead of two frozen CLIP
encoders and T5; pixels of 8×8 images instead of latents; a tenth of the captions is dropped, instead of each of the
three encoders on its own; Adam at 1e-3 with a cosine schedule instead of AdamW at 1e-4. Times are not shifted with the
resolution.
"""

from ml_collections import ConfigDict


def get_config() -> ConfigDict:
    return ConfigDict(
        {
            'data': {'name': 'digits'},
            'family': {
                'name': 'flow_matching', 'conditions': ('caption:bytes24',), 'time_sampler': 'logit_normal',
            },
            'network': {'name': 'mmdit', 'depth': 2, 'heads': 2, 'text_width': 64},
            'train': {'num_steps': 1200, 'sample_every': 400, 'ema_decay': 0.99},
            'optimizer': {'schedule': 'cosine', 'warmup_steps': 50},
            'evaluation': {
                'num_samples': 180,
                'sets': 8,
                'refine_images': 16,
                'samplers': ('heun:10', 'heun:10:1.5'),
            },
        }
    )  # fmt: skip

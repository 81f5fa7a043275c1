"""Digits from words: the diffusion model of diffusion.py, conditioned on captions such as 'a bold seven'.

genbench train --config=configs/digits/captions.py --workdir=runs/captions
genbench sample runs/captions --out=sevens.png --given caption="a bold seven" --sampler=ddim:20:1.5

Of 64 samples for this caption with this guidance, scikit-learn's SVC (gamma 0.001, C 10), fitted to the train split,
classifies 64 as sevens. All have more ink than the median train image. Without guidance, the counts are 63 and 55.

Training drops a tenth of the captions, so that sampling can be guided (J. Ho, T. Salimans, Classifier-Free Diffusion
Guidance, 2022). Every block of the U-Net attends to the words (R. Rombach et al., High-Resolution Image Synthesis with
Latent Diffusion Models, 2022).

Differs from the paper: it models pixels, not latents. There is no text encoder; word vectors are learned together with
the U-Net. The data set has 8×8 images and the network is small.
"""

from ml_collections import ConfigDict


def get_config() -> ConfigDict:
    return ConfigDict(
        {
            'data': {'name': 'digits'},
            'family': {'name': 'diffusion', 'conditions': ('caption',)},
            'network': {'multipliers': (1, 1)},
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

"""Digits from words: the diffusion model of diffusion.py, told a caption such as 'a bold seven'.

genbench train --config=configs/digits/captions.py --workdir=runs/captions
genbench sample runs/captions --out=sevens.png --given caption="a bold seven" --sampler=ddim:20:1.5

Of 64 samples of these words with this guidance, 64 were sevens to scikit-learn's SVC of the train split (gamma 0.001,
C 10), and all had more ink than the median train image; without guidance 63 and 55 of them.

A tenth of the captions is left out in training, so that sampling can be guided (J. Ho, T. Salimans, Classifier-Free
Diffusion Guidance, 2022). Every block of the U-Net attends to the words (R. Rombach et al., High-Resolution Image
Synthesis with Latent Diffusion Models, 2022).

Differs from the paper: in pixels, not in latents; words have vectors that are learned with the U-Net, and no text
encoder; an 8×8 data set and a small network.
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

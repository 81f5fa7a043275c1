"""PixelCNN++ over the codes of configs/digits/vq_vae.py.

genbench train --config=configs/digits/vq_vae.py --workdir=runs/vq_vae
genbench train --config=configs/digits/code_pixel_cnn.py --workdir=runs/code_pixel_cnn

One run, seed 0, on that first stage of seed 0: FD 7.0 ± 0.4, at most 2.411 ± 0.016 bits per dimension. Each ±
is a standard error: of FD over eight sets of samples, of bits per dimension over the test images.

Differs from the paper: van den Oord et al. 2017 use a PixelCNN, larger images and 512 codes. Here an image is 4×4 codes
of 128.
"""

from ml_collections import ConfigDict


def get_config() -> ConfigDict:
    return ConfigDict(
        {
            'data': {'name': 'digits'},
            'evaluation': {'num_samples': 180, 'sets': 8},
            'family': {'name': 'autoregressive', 'tokeniser': 'runs/vq_vae'},
            'network': {'name': 'pixel_cnn', 'scales': 1, 'blocks': 3, 'dropout': 0.5},
            'train': {'sample_every': 250, 'ema_decay': 0.99},
            'optimizer': {'schedule': 'cosine', 'warmup_steps': 50},
        }
    )

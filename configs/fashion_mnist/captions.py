"""Clothes from captions of several attributes, such as 'a bright large coat'.

genbench train --config=configs/fashion_mnist/captions.py --workdir=runs/fashion_captions
genbench sample runs/fashion_captions --out=coats.png --caption="a bright large coat" --sampler=ddim:20:1

The captions are made from the prepared data set fashion_mnist. benchmarks/attributes.py measures how each part of the
captions is obeyed. It has not been run with this config.

Differs from the paper: as configs/fashion_mnist/diffusion.py. Blocks of the U-Net attend to the words, whose vectors
are learned jointly, and training drops a tenth of the captions.
"""

from typing import Any

from genbench import config


def get_config() -> dict[str, Any]:
    values = config.read_file('fashion_mnist/diffusion')
    values['data']['name'] = 'described_fashion_mnist'
    values['family']['conditions'] = ('caption',)
    values['evaluation']['samplers'] = ('ddim:20', 'ddim:20:1')
    return values

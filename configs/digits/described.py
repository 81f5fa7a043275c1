"""Digits from captions of several attributes, such as 'a bold slanted seven on the left'.

genbench train --config=configs/digits/described.py --workdir=runs/described
genbench sample runs/described --out=sevens.png --caption="a bold slanted seven on the left" --sampler=ddim:20:1.5

With a guidance of 1, 99.1% of 328 samples obey every part of their captions, and 82.0% without guidance, as
benchmarks/attributes.py measures (docs/text.md).

Differs from the paper: as configs/digits/captions.py. The captions also say slant and place, and training is twice as
long.
"""

from typing import Any

from genbench import config


def get_config() -> dict[str, Any]:
    values = config.read_file('digits/captions')
    values['data']['name'] = 'described_digits'
    values['train']['num_steps'] = 800
    return values

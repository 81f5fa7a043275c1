"""SiT-XL/2 on the latents of ImageNet 256×256 with labels (Ma et al. 2024): 674.8M parameters, 256 tokens.

genbench train --config=configs/imagenet256/sit.py --workdir=runs/imagenet256_sit --config.data.data_dir=DIR

Prepare the images and train the first stage before, as for configs/imagenet256/dit.py.

The paper reports FID 2.06 after 7M updates with 250 steps of the SDE and a guidance of 1.5, which is 0.5 here. Its ODE
sampler takes 125 steps of Heun's rule. This has not been run here.

Differs from the paper: as imagenet256/dit does, apart from the variances. The network has no second output, which the
code has and does not use. The SDE's diffusion coefficient is σ at all times, as in the code's default, but its last
step is not a separate one.
"""

from typing import Any

from genbench import config


def get_config() -> dict[str, Any]:
    values = config.read_file('imagenet256/dit')
    values['family'] = {
        'name': 'flow_matching', 'first_stage': 'runs/imagenet256_first_stage', 'conditional': True,
    }  # fmt: skip
    values['evaluation'] |= {'samplers': ('euler_maruyama:250:diffusion=sigma,guidance=0.5', 'heun:125:guidance=0.5')}
    return values

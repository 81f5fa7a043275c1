"""Flow matching on points in the plane. Overrides select other families and sets.

genbench train --config=configs/plane/points.py --workdir=runs/points --config.data.name=pinwheel

--config.family.name=diffusion, gan, vae (with --config.family.decoder=normal --config.family.latent=2) or
normalizing_flow uses the same perceptron. The picture of the samples is a map of their positions.

No paper to differ from: each paper that models such sets uses its own networks and schedules.
"""

from ml_collections import ConfigDict


def get_config() -> ConfigDict:
    return ConfigDict(
        {
            'data': {'name': 'two_moons'},
            'family': {'name': 'flow_matching'},
            'network': {'name': 'mlp'},
            'train': {'num_steps': 4000, 'batch_size': 256, 'log_every': 500, 'steps_per_call': 50, 'ema_decay': 0.995},
            'optimizer': {'learning_rate': 2e-3, 'schedule': 'cosine'},
            'checkpoint': {'every': 2000},
            'evaluation': {
                'batch_size': 2000,
                'metrics': ('sliced_wasserstein', 'likelihood', 'speed', 'exploration'),
                'features': {'name': 'pixels'},
                'ode': {'probes': 0},
                'refine_images': 0,
            },
        }
    )

"""Mode collapse of GANs in the plane: Lin et al. 2018 (PacGAN), table 1, here GAN on the ring of eight normals.

genbench train --config=configs/paper/pacgan_plane.py --workdir=runs/pacgan

The others are

    PacGAN2, 3, 4    --config.family.pack=2 --config.train.batch_size=200, and so on
    grid             --config.data.name=grid --config.network.scale=5

The settings are those of the authors' code (synthetic_data_experiments). The generator has two latents and four layers
of 400 ReLUs with batch normalisation, and the discriminator three layers of 200 maxout units with five pieces. First
weights have a deviation of 0.02. Adam uses a learning rate of 1e-4 and β₁ = 0.8. A batch has 100 packs, and there are
2,500 samples. The networks compute with points of the size that they have there.

Differs from the paper: an epoch has 10,000 points instead of 100,000, so 400,000 updates are 4,000 epochs. The authors
update both networks from the same samples; here the discriminator is updated first. The generator normalises over all
points of a batch; in the authors' code it does so over the first points of all packs, then over the second, and so on.
docs/reproductions/pacgan.md gives the results.
"""

from ml_collections import ConfigDict


def get_config() -> ConfigDict:
    return ConfigDict(
        {
            'data': {'name': 'ring'},
            'family': {'name': 'gan', 'penalty': 'none'},
            'network': {'name': 'maxout', 'scale': 1.25},
            'train': {
                'num_steps': 400_000,
                'batch_size': 100,
                'log_every': 1000,
                'steps_per_call': 100,
                'ema_decay': 0.0,
            },
            'optimizer': {'learning_rate': 1e-4, 'b1': 0.8, 'b2': 0.999},
            'checkpoint': {'every': 5000, 'keep': 1},
            'evaluation': {
                'average': 'current',
                'metrics': ('modes', 'high_quality'),
                'num_samples': 2500,
                'sets': 1,
                'batch_size': 2500,
            },
        }
    )

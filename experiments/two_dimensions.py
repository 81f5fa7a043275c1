"""What each family does in the plane: eight modes on a ring of known density, perceptrons of one size, one seed.

genbench run experiments/two_dimensions.py --out runs/two_dimensions

The picture of a trial's samples is a map of where they are. The modes are narrow and far apart, so the map shows how a
family gets from one to the next: threads between the modes, modes left out, or a disc. The page also shows the
density of each model with a likelihood, and the paths of points through the steps of a sampler.

A model has at least 7.581 bits/dim in the mean: with 4,096 levels along each side of [−1, 1]², the entropy of the ring
is ln 8 + 1 + ln(2π · 0.008²) + 2 ln 2,048 = 10.510 nats. The density itself, in nats, is in `details.nats` of a row,
and −4.739 at the least.

Expect eight spots from the GAN, eight spots joined by threads from diffusion and flow matching, and one thread from the
flow of couplings. For the VAE, the shortcut model and the mean flow 3,000 steps are too few. One seed decides no order.
docs/studies/two_dimensions.md has the picture.

Other sets by `data.name` in SHORT and in the Gaussian's trial: two_moons, grid, checkerboard, pinwheel, swiss_roll. The
checkerboard takes far longer.
"""

from genbench.report.claims import less
from genbench.studies.study import Study, Trial

CONFIG = 'configs/plane/points.py'
SHORT = {'data.name': 'ring', 'train.num_steps': 3000}
PATH = {**SHORT, 'evaluation.samplers': 'ddim:25'}
# With silu, R1 with a weight of 1 and the rate of the others, the GAN is still a cloud after 3,000 steps.
GAN = {
    'family.name': 'gan', 'family.penalty_weight': 0.02, 'network.activation': 'relu', 'optimizer.b1': 0.5,
    'optimizer.learning_rate': 1e-3,
}  # fmt: skip
TRAINED = (
    'diffusion', 'flow_matching', 'consistency', 'consistency_training', 'mean_flow', 'shortcut',
    'inductive_moment_matching', 'gan', 'vae', 'normalizing_flow',
)  # fmt: skip


def get_study() -> Study:
    return Study(
        title='Generative families on a ring of eight modes',
        claim='After seconds of training each family is nearer to the ring than the closed-form Gaussian.',
        seeds=(0,),
        evaluation={'evaluation.likelihoods': ('ode_1', 'elbo', 'density_1')},
        tests=tuple(less('sliced_wasserstein', name, 'gaussian') for name in TRAINED),
        baseline='gaussian',
        trials=(
            Trial('diffusion', CONFIG, {**PATH, 'family.name': 'diffusion'}),
            Trial('flow_matching', CONFIG, PATH),
            Trial(
                'consistency',
                CONFIG,
                {**SHORT, 'family.name': 'consistency', 'family.teacher': '{trials}/diffusion'},
                after=('diffusion',),
            ),
            *(
                Trial(name, CONFIG, {**SHORT, 'family.name': name})
                for name in ('consistency_training', 'shortcut', 'inductive_moment_matching')
            ),
            Trial('mean_flow', CONFIG, {**SHORT, 'family.name': 'mean_flow', 'network.time_scale': 30.0}),
            Trial('gan', CONFIG, {**SHORT, **GAN}),
            Trial(
                'vae',
                CONFIG,
                {**SHORT, 'family.name': 'vae', 'family.decoder': 'normal', 'family.latent': 2,
                 'evaluation.samplers': 'direct'},
            ),
            Trial('normalizing_flow', CONFIG, {**SHORT, 'family.name': 'normalizing_flow'}),
            Trial('gaussian', CONFIG, {'data.name': 'ring', 'family.name': 'gaussian', 'network.name': 'none'}),
        ),
    )  # fmt: skip

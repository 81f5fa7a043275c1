"""Every family on the 8×8 digits in minutes: small networks, short runs, one seed.

genbench run experiments/first_look.py --out runs/first_look

This study shows what genbench does without a long wait. experiments/digits_families.py compares the same families with
three seeds, the same training FLOPs for all, and larger networks. Sample metrics here are means over two sets of 180
images. Each family that has likelihoods computes one of them, with a single draw of the dequantisation noise.

Cost: 7 minutes of CPU time and 1.8 GB of memory, with empty caches and two trials at a time. On two idle cores this
took 3 minutes and 43 seconds, most of it compilation.

Expect recognisable digits from every trained family, and a page that does not rank them: one seed does not show how
much another training would change the numbers.
"""

from genbench.report.claims import less
from genbench.studies.study import Study, Trial

TRAINED = ('diffusion', 'flow_matching', 'consistency', 'gan', 'vae', 'normalizing_flow')
LIKELIHOODS = {'diffusion': 'ode_1', 'flow_matching': 'ode_1', 'vae': 'elbo', 'normalizing_flow': 'density_1'}
SHORT = {'train.batch_size': 64, 'train.sample_every': 0}
DENOISER = {**SHORT, 'network.multipliers': (1,), 'train.num_steps': 300, 'evaluation.samplers': 'ddim:10'}


def get_study() -> Study:
    return Study(
        title='A first look: generative families on handwritten digits',
        claim='After a minute of training each family is nearer to the digits than the closed-form Gaussian, in the '
        'distance between samples and data, and in bits per dimension where it has a likelihood.',
        seeds=(0,),
        evaluation={
            'evaluation.sets': 2,
            'evaluation.batch_size': 100,  # as the grid that training draws, so that one program serves both
            'evaluation.metrics': ('fd', 'precision', 'recall', 'likelihood', 'speed', 'exploration'),
            'evaluation.likelihoods': ('ode_1', 'elbo', 'density_1'),
            'evaluation.ode.solver': 'heun',
            'evaluation.ode.num_steps': 10,
            'evaluation.refine_images': 0,
        },
        tests=(
            *(less('fd', name, 'gaussian') for name in TRAINED),
            *(
                less('bits_per_dim', name, 'gaussian', {'method': method}, {'method': 'density_1'})
                for name, method in LIKELIHOODS.items()
            ),
        ),
        baseline='gaussian',
        trials=(
            Trial('diffusion', 'configs/digits/diffusion.py', DENOISER),
            Trial('flow_matching', 'configs/digits/flow_matching.py', DENOISER),
            Trial(
                'consistency',
                'configs/digits/consistency.py',
                {
                    **SHORT,
                    'family.teacher': '{trials}/diffusion',
                    'train.num_steps': 200,
                    'evaluation.samplers': 'multistep_consistency:4',
                },
                after=('diffusion',),
            ),
            Trial('gan', 'configs/digits/gan.py', {**SHORT, 'train.num_steps': 400}),
            Trial('vae', 'configs/digits/vae.py', {**SHORT, 'train.num_steps': 800, 'evaluation.samplers': 'mean'}),
            Trial(
                'normalizing_flow',
                'configs/digits/normalizing_flow.py',
                {**SHORT, 'train.num_steps': 400, 'network.steps': 4},
            ),
            Trial('gaussian', 'configs/digits/gaussian.py'),
        ),
    )

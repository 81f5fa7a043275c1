"""The config keys that all families and networks share: their defaults and allowed values."""

from typing import Any

from genbench import ranges
from genbench.data import recipe
from genbench.ranges import COUNT, COUNT_OR_NONE, LARGEST, Range

DEFAULTS: dict[str, Any] = {
    'data': {
        'name': 'digits',
        'data_dir': '',  # folder of prepared data; '': the cache for embedded sets, TFDS's own folder for others
        'train_split': 'train',  # images to train on; 'train[:50000]' keeps the others for validation
        'flip': False,  # mirror training images at random
        'random_crop': 0,  # shift training images at random by up to this many pixels, filling in by reflection
        'resident_bytes': 2**30,  # larger data sets are streamed from disk
        'workers': 0,  # processes that read and decode a streamed set; 0: threads of the training process
        **recipe.defaults(),  # how the images are prepared (genbench.data.recipe)
    },
    'family': {
        'name': '',
        'modules': (),  # your modules with families: 'my_family', 'my_project.families' (genbench.families.own)
    },
    'network': {'name': 'none'},
    'train': {
        'num_steps': 1000,
        'batch_size': 128,
        'accumulate': 1,  # micro-batches per batch, to save memory
        'steps_per_call': 0,  # steps in one call of the device; 0: 1 on CPU, 8 on others
        'seed': 0,
        'initial_images': 0,  # images that networks see where their start depends on data; 0: the first batch
        'ema_decay': 0.999,
        'ema_warmup': True,  # use the decay min(decay, (1 + step) / (10 + step)), as few papers do
        'extra_decays': (),  # more averages, e.g. (0.99, 0.9999), named 'ema_0.99', …
        'power_widths': (),  # power-function averages, e.g. (0.05, 0.1): any width can be reconstructed after training
        'snapshot_every': 0,  # steps between the snapshots that this needs; 0: sixteen snapshots in all
        'log_every': 50,
        'sample_every': 0,  # steps between sample grids; 0: one grid at the end
        'evaluate_every': 0,  # steps between scores of the averaged parameters, logged with the losses; 0: none
        'evaluate_samples': 500,  # samples for the Fréchet distance, in the features of `evaluation`; 0: no distance
        'evaluate_images': 64,  # images from the start of the split for the likelihood; 0: no likelihood
        'evaluate_split': '',  # split of the real images; '': evaluation.split
        'evaluate_sampler': '',  # NAME:STEPS…; '': the family's default
        'skip_limit': 20,  # stop after this many non-finite updates in a row
    },
    'optimizer': {
        'name': 'adam',  # or 'adamw', 'adagrad', 'lion', 'muon', 'radam', 'rmsprop', 'sgd'
        'learning_rate': 1e-3,
        # or 'cosine', 'linear': decay to zero over the run; or 'inverse_sqrt', 'steps', 'exponential'
        'schedule': 'constant',
        'warmup_steps': 0,
        'decay_start': 0,  # step from which 'inverse_sqrt' falls; 0: the end of warm-up
        'drops': (),  # steps, counted from the end of warm-up, at which 'steps' multiplies the rate by drop_factor
        'drop_factor': 0.1,
        'decay_rate': 0.999995,  # 'exponential' multiplies the rate by this at every step after warm-up
        'b1': 0.9,
        'b2': 0.999,
        'epsilon': 1e-8,  # of the denominator of Adam and Adagrad
        'weight_decay': 0.0,
        'l2': 0.0,  # multiple of the parameters that is added to their clipped gradients
        'clip_norm': 1.0,  # largest norm of the gradient; 0: no clipping
        'unit_gradients': False,  # scale the gradient of each array of parameters to norm 1 (Yu et al. 2017)
        'skip_norm': 0.0,  # skip updates whose gradient norm exceeds this; 0: skip none
    },
    'mesh': {  # lengths of the mesh axes; one may be -1, which takes the remaining devices
        'data': -1,  # each device processes its part of the batch
        'fsdp': 1,  # like 'data', but each device also keeps only its part of parameters, optimizer state and averages
        'tensor': 1,  # each device computes its part of attention and MLPs
        'rules': (),  # placements tried before the default ones: 'PATTERN=AXIS AXIS …', e.g. 'conv/kernel$=- - fsdp -'
    },
    'checkpoint': {
        'every': 1000,  # steps between checkpoints; the last step is always saved
        'keep': 3,  # number of newest checkpoints to keep
        'keep_every': 0,  # also keep the checkpoints at multiples of this step; 0: none
        'keep_best': 0,  # also keep this many with the best values of best_metric
        'best_metric': '',  # a scalar of metrics.jsonl; '': the first loss
        'best_mode': 'min',  # or 'max'
    },
    'trackers': {  # services that also receive the rows of metrics.jsonl
        'names': (),  # any of 'wandb', 'mlflow'
        'project': 'genbench',
        'run': '',  # the run's name there; '': the name of the run's folder
        'group': '',  # group of runs there; '': the name of the study's folder, for a trial of a study
        'mlflow_uri': '',  # '': MLFLOW_TRACKING_URI, or files in the run's folder if that is not set
    },
    'evaluation': {
        'split': 'test',
        'average': 'ema',  # parameters to evaluate: 'ema', another average, 'current', or 'power:WIDTH' for any width
        'batch_size': 256,
        'num_samples': 1000,  # per set
        'sets': 3,  # number of disjoint sets; a sample metric is the mean over sets, with its standard deviation
        'seed': 0,
        'samplers': (),  # 'name:steps', 'name:steps:guidance', 'name:steps:key=value,…'; (): the family's default
        'metrics': (
            *('fd', 'fd_train', 'kd', 'precision', 'recall', 'memorisation'),
            *('likelihood', 'speed', 'exploration'),
        ),
        'features': {
            # or 'inception', 'dinov2-vitb14', 'dinov2-vitl14', 'clip-vitb32', 'clip-vitl14', 'vgg16', 'pixels'
            'name': 'classifier',
            'convention': '',  # how images become the network's input; '': the network's default
            'weights': '',  # a file; '': the published one
            'weights_sha256': '',  # hash of a file other than the published one
        },
        'classifier': {'num_steps': 300, 'channels': 32, 'seed': 0},  # feature network, trained on the train split
        'likelihoods': (),  # methods of the family, e.g. ('ode_1', 'elbo'); (): all
        'dequantisation_draws': 1,  # K of the bound log 1/K Σ p(x + u_k) of density models
        'truncation': 0.03,  # noise level where densities and continuous bounds stop: σ / α in bin widths
        'iwae_draws': 64,
        'vlb_draws': 20,
        'vlb_variances': ('beta',),  # reverse variances, a bound each: 'beta', 'fixedlarge', 'fixedsmall'; (): none
        'ode': {
            'solver': 'rk4',  # or 'heun' on a fixed grid; 'dopri5' or 'tsit5' with adaptive steps
            'num_steps': 16,  # steps on a fixed grid
            'tolerance': 1e-4,  # relative and absolute tolerance of adaptive steps
            'probes': 1,  # probes of Hutchinson's estimator; 0: the exact divergence
        },
        'refine_images': 64,  # images to score again on a finer grid, for discretisation_error; 0: none
        'ais': {
            'num_steps': 300,  # intermediate distributions
            'chains': 4,
            'leapfrog': 5,  # leapfrog steps per Hamiltonian transition
            'observation_scale': 0.1,  # σ of N(x; G(z), σ²) for generators without an observation model
            'num_images': 50,  # images of the split to score; 0: all
        },
        'path_length': {
            'pairs': 10_000,
            'epsilon': 1e-4,  # distance between the two latents of a pair, as a fraction of their path
            'distance': 'features',  # 'features': in the network of `evaluation.features`; or 'lpips'
            'vgg': '',  # file of torchvision's VGG16, for LPIPS; '': the published one
            'linear': '',  # file vgg.pth of LPIPS 0.1; '': the published one
        },
        'clip_score': {
            'network': 'clip-vitb32',  # or 'clip-vitl14'
            'weights': '',  # file with both towers; '': the published one
            'weights_sha256': '',  # of that file, where it is not the published one
            'tokenizer': '',  # the tokenizer.json that is published with them
        },
        'equivariance': {'num_images': 10_000},  # images to move, rounded up to a multiple of 16
        'restoration': {  # of held-out images, for the metrics restored_…
            'problems': ('half', 'pool2'),
            'samplers': ('ancestral:100:posterior=ddnm', 'ddim:100:posterior=pigdm'),
            'trained_samplers': ('ancestral:100',),  # of models with the condition degraded:PROBLEM, for that problem
            'num_images': 100,
            'draws': 2,  # results for each image
        },
    },
}

RANGES: dict[str, Range] = {  # of the keys above; families and networks state theirs next to their defaults
    **recipe.RANGES,
    'data.data_dir': ranges.PATH,
    'data.random_crop': COUNT_OR_NONE,
    'data.resident_bytes': Range(0, 2**63 - 1),
    'data.workers': Range(0, 1024),
    'family.modules': ranges.TEXTS,
    'train.num_steps': COUNT,
    'train.batch_size': COUNT,
    'train.accumulate': COUNT,
    'train.steps_per_call': COUNT_OR_NONE,
    'train.seed': ranges.SEED,
    'train.initial_images': COUNT_OR_NONE,
    'train.ema_decay': ranges.SHARE,
    'train.extra_decays': ranges.each(ranges.SHARE, float),
    'train.power_widths': ranges.each(Range(0, 12**-0.5, above=True), float),
    'train.snapshot_every': COUNT_OR_NONE,
    'train.log_every': COUNT,
    'train.sample_every': COUNT_OR_NONE,
    'train.evaluate_every': COUNT_OR_NONE,
    'train.evaluate_samples': Range(2, LARGEST, also=(0,)),  # a covariance needs two samples
    'train.evaluate_images': COUNT_OR_NONE,
    'train.skip_limit': COUNT,
    'optimizer.learning_rate': Range(0, 1000, above=True),
    'optimizer.warmup_steps': COUNT_OR_NONE,
    'optimizer.decay_start': COUNT_OR_NONE,
    'optimizer.drops': ranges.each(COUNT, int),
    'optimizer.drop_factor': Range(0, 1, above=True),
    'optimizer.decay_rate': Range(0, 1, above=True),
    'optimizer.epsilon': Range(0, 1, above=True),
    'optimizer.b1': ranges.SHARE,
    'optimizer.b2': ranges.SHARE,
    'optimizer.weight_decay': ranges.NOT_NEGATIVE,
    'optimizer.l2': ranges.NOT_NEGATIVE,
    'optimizer.clip_norm': ranges.NOT_NEGATIVE,
    'optimizer.skip_norm': ranges.NOT_NEGATIVE,
    'mesh.data': Range(1, LARGEST, also=(-1,)),
    'mesh.fsdp': Range(1, LARGEST, also=(-1,)),
    'mesh.tensor': Range(1, LARGEST, also=(-1,)),
    'mesh.rules': ranges.TEXTS,
    'checkpoint.every': COUNT,
    'checkpoint.keep': COUNT,
    'checkpoint.keep_every': COUNT_OR_NONE,
    'checkpoint.keep_best': COUNT_OR_NONE,
    'checkpoint.best_mode': ranges.one_of('min', 'max'),
    'trackers.names': ranges.TEXTS,
    'evaluation.batch_size': COUNT,
    'evaluation.num_samples': Range(2, LARGEST),  # a covariance needs two samples
    'evaluation.sets': COUNT,
    'evaluation.seed': ranges.SEED,
    'evaluation.samplers': ranges.TEXTS,
    'evaluation.metrics': ranges.each(ranges.ANY, str, fewest=1),
    'evaluation.features.weights': ranges.PATH,
    'evaluation.likelihoods': ranges.TEXTS,
    'evaluation.classifier.num_steps': COUNT,
    'evaluation.classifier.channels': COUNT,
    'evaluation.classifier.seed': ranges.SEED,
    'evaluation.dequantisation_draws': COUNT,
    'evaluation.iwae_draws': COUNT,
    'evaluation.vlb_draws': COUNT,
    'evaluation.truncation': ranges.POSITIVE,
    'evaluation.ode.num_steps': COUNT,
    'evaluation.ode.tolerance': Range(0, 1, above=True, below=True),
    'evaluation.ode.probes': COUNT_OR_NONE,
    'evaluation.refine_images': COUNT_OR_NONE,
    'evaluation.ais.num_steps': COUNT,
    'evaluation.ais.chains': COUNT,
    'evaluation.ais.leapfrog': COUNT,
    'evaluation.ais.observation_scale': ranges.POSITIVE,
    'evaluation.ais.num_images': Range(2, LARGEST, also=(0,)),  # the standard error needs two
    'evaluation.path_length.pairs': Range(2, LARGEST),  # the standard error needs two
    'evaluation.path_length.epsilon': Range(0, 1, above=True),
    'evaluation.path_length.distance': ranges.one_of('features', 'lpips'),
    'evaluation.path_length.vgg': ranges.PATH,
    'evaluation.clip_score.network': ranges.one_of('clip-vitb32', 'clip-vitl14'),
    'evaluation.clip_score.weights': ranges.PATH,
    'evaluation.clip_score.tokenizer': ranges.PATH,
    'evaluation.restoration.problems': ranges.TEXTS,
    'evaluation.restoration.samplers': ranges.TEXTS,
    'evaluation.restoration.trained_samplers': ranges.TEXTS,
    'evaluation.restoration.num_images': Range(2, LARGEST),  # the standard error needs two
    'evaluation.restoration.draws': COUNT,
    'evaluation.path_length.linear': ranges.PATH,
    'evaluation.equivariance.num_images': COUNT,
}

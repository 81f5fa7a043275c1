"""Configs: defaults, a file that holds what differs, typed overrides, and the snapshot a run keeps.

A config file defines `get_config()`, which returns a dict or a ConfigDict of the keys that differ from the defaults.
Which keys exist depends on `family.name` and `network.name`: each family and each network brings its own.
"""

import hashlib
import json
import pathlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from ml_collections import ConfigDict

from genbench import families, networks, ranges, reading, scripts, shipped
from genbench import overrides as texts
from genbench.data import recipe
from genbench.errors import UserError
from genbench.families import own
from genbench.families.base import Family
from genbench.ranges import COUNT, COUNT_OR_NONE, LARGEST, Range

Config = Any  # a locked ConfigDict: its keys and types are checked when it is resolved, not by the type checker

DEFAULTS: dict[str, Any] = {
    'data': {
        'name': 'digits',
        'data_dir': '',  # '': the cache for embedded sets, TFDS's own folder for others
        'flip': False,  # mirror training images at random
        'random_crop': 0,  # move training images at random by up to so many pixels, continued by reflection
        'resident_bytes': 2**30,  # larger sets are streamed from disk
        'workers': 0,  # processes that read and decode a streamed set; 0: threads of the training process
        **recipe.defaults(),  # how its images are prepared (genbench.data.recipe)
    },
    'family': {
        'name': '',
        'modules': (),  # of your own that register families: 'my_family', 'my_project.families' (genbench.families.own)
    },
    'network': {'name': 'none'},
    'train': {
        'num_steps': 1000,
        'batch_size': 128,
        'accumulate': 1,  # micro-batches that the batch is worked off in, for less memory
        'steps_per_call': 0,  # steps in one call of the device; 0: 1 on CPU, 8 elsewhere
        'seed': 0,
        'ema_decay': 0.999,
        'ema_warmup': True,  # of the decay: min(decay, (1 + step) / (10 + step)), which few papers have
        'extra_decays': (),  # further averages, e.g. (0.99, 0.9999), called 'ema_0.99', …
        'power_widths': (),  # power-function averages, e.g. (0.05, 0.1): any width can be had after training
        'snapshot_every': 0,  # steps between the snapshots that it is made of; 0: sixteen of them
        'log_every': 50,
        'sample_every': 0,  # steps between sample grids; 0: only at the end
        'evaluate_every': 0,  # steps between scores of the averaged parameters, logged beside the losses; 0: none
        'evaluate_samples': 500,  # whose Fréchet distance is taken, in the features of `evaluation`; 0: not taken
        'evaluate_images': 64,  # the first of the split, whose likelihood is taken; 0: not taken
        'evaluate_split': '',  # of the real images; '': evaluation.split
        'evaluate_sampler': '',  # NAME:STEPS…; '': the family's default
        'skip_limit': 20,  # stop after this many non-finite updates in a row
    },
    'optimizer': {
        'name': 'adam',  # or 'adamw', 'lion', 'muon', 'sgd'
        'learning_rate': 1e-3,
        'schedule': 'constant',  # or 'cosine', 'linear': decay to zero over the run; or 'inverse_sqrt'
        'warmup_steps': 0,
        'decay_start': 0,  # step from which 'inverse_sqrt' falls; 0: the end of warm-up
        'b1': 0.9,
        'b2': 0.999,
        'weight_decay': 0.0,
        'clip_norm': 1.0,  # of the gradient; 0: none
    },
    'mesh': {  # how the devices lie along the axes; one may be -1: the rest
        'data': -1,  # each works on its part of the batch
        'fsdp': 1,  # as 'data', and each keeps its part of the parameters, optimizer state and averages
        'tensor': 1,  # each computes its part of attention and perceptrons
        'rules': (),  # placements before the default ones: 'PATTERN=AXIS AXIS …', e.g. 'conv/kernel$=- - fsdp -'
    },
    'checkpoint': {
        'every': 1000,  # steps; the last step is always saved
        'keep': 3,  # the newest stay
        'keep_every': 0,  # those at multiples of this many steps stay too; 0: none
        'keep_best': 0,  # this many with the best values of best_metric stay too
        'best_metric': '',  # a scalar of metrics.jsonl; '': the first loss
        'best_mode': 'min',  # or 'max'
    },
    'trackers': {  # that get the rows of metrics.jsonl too
        'names': (),  # of 'wandb', 'mlflow'
        'project': 'genbench',
        'run': '',  # its name there; '': the name of the run's folder
        'group': '',  # of runs there; '': the name of the study's folder, for a trial of one
        'mlflow_uri': '',  # '': MLFLOW_TRACKING_URI, else files in the run's folder
    },
    'evaluation': {
        'split': 'test',
        'average': 'ema',  # which parameters: 'ema', another average, 'current', or 'power:WIDTH' for any width
        'batch_size': 256,
        'num_samples': 1000,  # in a set
        'sets': 3,  # disjoint sets of samples: every sample metric is their mean, with its standard deviation
        'seed': 0,
        'samplers': (),  # 'name:steps', 'name:steps:guidance', 'name:steps:key=value,…'; (): the family's default
        'metrics': (
            *('fd', 'fd_train', 'kd', 'precision', 'recall', 'memorisation'),
            *('likelihood', 'speed', 'exploration'),
        ),
        'features': {
            'name': 'classifier',  # or 'inception', 'dinov2-vitb14', 'dinov2-vitl14', 'pixels'
            'convention': '',  # how images become the network's input; '': its own first
            'weights': '',  # a file; '': the published one
            'weights_sha256': '',  # of a file that is not the published one
        },
        'classifier': {'num_steps': 300, 'channels': 32, 'seed': 0},  # the feature network, trained on the train split
        'likelihoods': (),  # methods, e.g. ('ode_1', 'elbo'), of those that a family has; (): all
        'dequantisation_draws': 1,  # K of the bound log 1/K Σ p(x + u_k) of density models
        'truncation': 0.03,  # noise at which densities and continuous bounds stop, σ / α in widths of a bin
        'iwae_draws': 64,
        'vlb_draws': 20,
        'vlb_variances': ('beta',),  # of the reverse steps, a bound each: 'beta', 'fixedlarge', 'fixedsmall'; (): none
        'ode': {
            'solver': 'rk4',  # or 'heun' on a fixed grid; 'dopri5' or 'tsit5' with adaptive steps
            'num_steps': 16,  # of a fixed grid
            'tolerance': 1e-4,  # of adaptive steps, relative and absolute
            'probes': 1,  # of Hutchinson's estimate; 0 for the exact divergence
        },
        'refine_images': 64,  # how many images are scored again, finer, for discretisation_error; 0: none
        'ais': {
            'num_steps': 300,  # intermediate distributions
            'chains': 4,
            'leapfrog': 5,  # steps of a Hamiltonian transition
            'observation_scale': 0.1,  # σ of N(x; G(z), σ²) for generators without an observation model
            'num_images': 50,  # of the split; 0: all
        },
    },
}

RANGES: dict[str, Range] = {  # what the keys above may hold; a family's and a network's stand beside their defaults
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
    'train.ema_decay': ranges.SHARE,
    'train.extra_decays': ranges.each(ranges.SHARE, float),
    'train.power_widths': ranges.each(Range(0, 12**-0.5, above=True), float),
    'train.snapshot_every': COUNT_OR_NONE,
    'train.log_every': COUNT,
    'train.sample_every': COUNT_OR_NONE,
    'train.evaluate_every': COUNT_OR_NONE,
    'train.evaluate_samples': Range(2, LARGEST, also=(0,)),  # a covariance needs two
    'train.evaluate_images': COUNT_OR_NONE,
    'train.skip_limit': COUNT,
    'optimizer.learning_rate': Range(0, 1000, above=True),
    'optimizer.warmup_steps': COUNT_OR_NONE,
    'optimizer.decay_start': COUNT_OR_NONE,
    'optimizer.b1': ranges.SHARE,
    'optimizer.b2': ranges.SHARE,
    'optimizer.weight_decay': ranges.NOT_NEGATIVE,
    'optimizer.clip_norm': ranges.NOT_NEGATIVE,
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
    'evaluation.num_samples': Range(2, LARGEST),  # a covariance needs two
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
    'evaluation.ais.num_images': Range(2, LARGEST, also=(0,)),  # an error of the mean needs two
}

_DEEPEST = 8  # sections in sections

# What may change without making another experiment of a run.
_FREE = ('data.data_dir', 'data.resident_bytes', 'data.workers', 'checkpoint', 'evaluation', 'mesh', 'trackers',
         'train.log_every', 'train.sample_every', 'train.evaluate_', 'train.steps_per_call')  # fmt: skip

# Keys that came later: at these values they do not count, so that the hashes of older runs stay.
_LATER = {'family.modules': (), 'data.random_crop': 0, **{f'data.{key}': one for key, one in recipe.defaults().items()}}


def load(path: str, overrides: Sequence[str] = ()) -> Config:
    """The resolved config of a file, or of a name that ships, and 'key=value' overrides."""
    return resolve(read_file(path), overrides, shipped.find(path, shipped.CONFIGS))


def read_file(path: str) -> dict[str, Any]:
    """What `get_config()` of a config file returns.

    Raises:
      UserError: no such file, no get_config, or an error inside the file.
    """
    return scripts.call(path, shipped.CONFIGS, 'get_config', 'config file', _returned)


def _returned(values: Any) -> dict[str, Any]:
    if not isinstance(values, Mapping | ConfigDict):
        raise UserError(f'get_config() should return a ConfigDict or a dict, not {type(values).__name__}.')
    return plain(values)


def resolve(values: Mapping[str, Any], overrides: Sequence[str] = (), near: pathlib.Path | None = None) -> Config:
    """Defaults, then the family's and the network's, then `values`, then 'key=value' overrides, each type-checked.

    Args:
      near: the file that `values` are from; `family.modules` are looked for in its folder and above.
    """
    pairs = [texts.split(override) for override in overrides]
    given = {**dict(flatten(values)), **dict(pairs)}
    modules = own.load(given.get('family.modules', ()), near)
    family = families.get(str(given.get('family.name', '')))
    sections = family.defaults()
    network = given.get('network.name', sections.get('network', {}).get('name', 'none'))
    config = ConfigDict(plain(DEFAULTS))
    config.family = ConfigDict({'name': family.name, 'modules': ()})
    config.network = ConfigDict(networks.defaults(str(network)))
    allowed = limits(family, str(network))
    for key, value in flatten(sections):
        section, name = key.split('.', 1)
        if name not in ('name',):
            _assign(config, key, value, allowed, add=section in ('family', 'network'))
    for key, value in flatten(values):
        _assign(config, key, value, allowed)
    for key, text in pairs:
        _assign(config, key, texts.parse(key, text, _lookup(config, key)), allowed)
    config.family.modules = modules
    _check(config, allowed)
    return config.lock()


def limits(family: type[Family], network: str) -> dict[str, Range]:
    """The range of every key of a config with this family and network that states one."""
    own = {f'family.{name}': one for name, one in family.all_ranges().items()}
    return {**RANGES, **own, **{f'network.{name}': one for name, one in networks.ranges(network).items()}}


def _check(config: Config, allowed: Mapping[str, Range]) -> None:
    for key, value in flatten(config):
        allowed.get(key, ranges.ANY).check(key, value)
    recipe.of(config.data)
    if config.train.batch_size % config.train.accumulate:
        raise UserError(f'train.accumulate ({config.train.accumulate}) does not divide train.batch_size '
                        f'({config.train.batch_size}).')  # fmt: skip


def defaults_of(section: str) -> Config:
    """The default values of a dotted section, e.g. 'evaluation.classifier'."""
    return _section(ConfigDict(plain(DEFAULTS)), section)


def locate(path: str) -> Config:
    """The resolved config of a config file, or of a run folder."""
    snapshot = pathlib.Path(ranges.check_path(path, 'The path')) / 'config.json'
    return read(snapshot) if snapshot.exists() else load(path)


def flatten(values: Mapping[str, Any] | ConfigDict, prefix: str = '') -> Iterator[tuple[str, Any]]:
    """('section.key', value) pairs in order."""
    for key, value in values.items():
        if isinstance(value, Mapping | ConfigDict):
            yield from flatten(value, f'{prefix}{key}.')
        else:
            yield f'{prefix}{key}', value


def plain(values: Any, depth: int = 0) -> Any:
    """Nested dicts and tuples instead of ConfigDicts and lists.

    Raises:
      UserError: sections lie in each other without end, as in a dict that holds itself.
    """
    if depth > _DEEPEST:
        raise UserError(f'Its sections nest more than {_DEEPEST} deep; a section may not hold itself.')
    if isinstance(values, Mapping | ConfigDict):
        return {key: plain(value, depth + 1) for key, value in values.items()}
    return tuple(values) if isinstance(values, list | tuple) else values


def _lookup(config: Config, key: str) -> Any:
    value = config
    for part in key.split('.'):
        if not isinstance(value, ConfigDict) or part not in value:
            known = [name for name, _ in flatten(config)]
            hint = _of_another(config, key) or texts.nearest(key, known)
            raise UserError(f'There is no config key {key!r}. {hint}')
        value = value[part]
    if isinstance(value, ConfigDict):
        inside = ', '.join(f'{key}.{name}' for name in value)
        raise UserError(f'{key!r} is a section of the config, not a key. It holds {inside}.')
    return value


def _of_another(config: Config, key: str) -> str:
    """What to say of a key of another network or family than the config has; '' for one that none of them has."""
    section, _, name = key.partition('.')
    if section == 'network':
        owners = [one for one, keys in networks.DEFAULTS.items() if name in keys]
    elif section == 'family':
        owners = [one for one in families.names() if name in families.get(one).defaults().get('family', {})]
    else:
        return ''
    if not owners:
        return ''
    chosen = config[section].name
    own = ', '.join(f'{section}.{one}' for one in config[section] if one != 'name') or 'no key but its name'
    return f'{section}.name is {chosen!r}, and {key} belongs to {", ".join(owners)}; {chosen} has {own}.'


def _assign(config: Config, key: str, value: Any, allowed: Mapping[str, Range], add: bool = False) -> None:
    section, _, name = key.rpartition('.')
    if add and name not in _section(config, section):
        _section(config, section)[name] = value
        return
    old = _lookup(config, key)
    _section(config, section)[name] = texts.coerce(key, value, old, allowed.get(key, ranges.ANY))


def _section(config: Config, dotted: str) -> Config:
    for part in dotted.split('.'):
        config = config[part]
    return config


def to_json(config: Config) -> str:
    """The snapshot a run keeps; `read` reads it back."""
    return json.dumps(plain(config), indent=2) + '\n'


def read(path: pathlib.Path) -> Config:
    """The config of a snapshot.

    Raises:
      UserError: it is damaged, or of another version of genbench.
    """
    values = reading.read_json(path, dict)
    try:
        return resolve(plain(values), near=path)
    except UserError as error:
        raise UserError(f'{path} is no config of this version of genbench: {error}') from None


def difference(left: Mapping[str, Any] | ConfigDict, right: Mapping[str, Any] | ConfigDict) -> dict[str, tuple]:
    """Keys whose values differ → (left, right); a missing key reads as None."""
    a, b = dict(flatten(left)), dict(flatten(right))
    keys = [*a, *(key for key in b if key not in a)]
    return {key: (a.get(key), b.get(key)) for key in keys if a.get(key) != b.get(key)}


def identity(config: Config) -> dict[str, Any]:
    """The keys that make an experiment what it is: all but folders, logging, checkpointing and evaluation."""
    values = {key: value for key, value in flatten(config) if not key.startswith(_FREE)}
    values['family.modules'] = own.names(values['family.modules'])  # which may move
    return {key: value for key, value in values.items() if key not in _LATER or value != _LATER[key]}


def lasting(config: Config) -> dict[str, Any]:
    """`identity` without the folders of borrowed runs, which may move; of RUN@AVERAGE the average stays.

    What was borrowed is in the manifest, by the hash of its state.
    """
    values = identity(config)
    for name, text in borrowed(config).items():
        values.pop(f'family.{name}', None)
        if average := split_run(text)[1]:
            values[f'family.{name}'] = average
    return values


def borrowed(config: Config) -> dict[str, str]:
    """The runs that a config builds on: the family's name for each → RUN or RUN@AVERAGE."""
    return families.get(config.family.name).borrows(config)


def split_run(text: str) -> tuple[str, str]:
    """RUN or RUN@AVERAGE → (folder, average), '' for the average where none is named."""
    path, at, average = text.rpartition('@')
    return (path, average) if at and '/' not in average else (text, '')


def config_hash(config: Config) -> str:
    """Twelve hexadecimal digits of the SHA-256 of `lasting`."""
    return digest(lasting(config))


def digest(values: Any) -> str:
    """Twelve hexadecimal digits of the SHA-256 of values in canonical order."""
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()[:12]

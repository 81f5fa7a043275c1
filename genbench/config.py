"""Configs: defaults, a file that holds what differs, typed overrides, and the snapshot a run keeps.

A config file defines `get_config()`, which returns a dict or a ConfigDict of the keys that differ from the defaults.
Which keys exist depends on `family.name` and `network.name`: each family and each network brings its own.
"""

import ast
import hashlib
import importlib.util
import json
import pathlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from ml_collections import ConfigDict

from genbench import families, networks
from genbench.errors import UserError, did_you_mean

Config = Any  # a locked ConfigDict: its keys and types are checked when it is resolved, not by the type checker

DEFAULTS: dict[str, Any] = {
    'data': {
        'name': 'digits',
        'data_dir': '',  # '': the cache for embedded sets, TFDS's own folder for others
        'flip': False,  # mirror training images at random
        'resident_bytes': 2**30,  # larger sets are streamed from disk
        'workers': 0,  # processes that read and decode a streamed set; 0: threads of the training process
    },
    'family': {'name': ''},
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
        'dequantisation_draws': 1,  # K of the bound log 1/K Σ p(x + u_k) of density models
        'truncation': 0.03,  # noise at which densities and continuous bounds stop, σ / α in widths of a bin
        'iwae_draws': 64,
        'vlb_draws': 20,
        'vlb_variances': ('beta',),  # of the reverse steps, a bound each: 'beta', 'fixedlarge', 'fixedsmall'; (): none
        'ode': {
            'solver': 'heun',  # or 'rk4' on a fixed grid; 'dopri5' or 'tsit5' with adaptive steps
            'num_steps': 32,  # of a fixed grid
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

_AT_LEAST_ONE = (
    'train.num_steps', 'train.batch_size', 'train.accumulate', 'train.log_every', 'train.skip_limit',
    'checkpoint.every', 'checkpoint.keep', 'evaluation.batch_size', 'evaluation.num_samples', 'evaluation.sets',
    'evaluation.iwae_draws', 'evaluation.vlb_draws', 'evaluation.dequantisation_draws', 'evaluation.ode.num_steps',
    'evaluation.classifier.num_steps', 'evaluation.ais.num_steps', 'evaluation.ais.chains', 'evaluation.ais.leapfrog',
)  # fmt: skip
_AT_LEAST_ZERO = (
    'data.workers', 'train.sample_every', 'train.snapshot_every', 'train.steps_per_call', 'checkpoint.keep_every',
    'checkpoint.keep_best',
)  # fmt: skip

# What may change without making another experiment of a run.
_FREE = ('data.data_dir', 'data.resident_bytes', 'data.workers', 'checkpoint', 'evaluation', 'mesh', 'trackers',
         'train.log_every', 'train.sample_every', 'train.steps_per_call')  # fmt: skip


def load(path: str, overrides: Sequence[str] = ()) -> Config:
    """The resolved config of a file and 'key=value' overrides."""
    return resolve(read_file(path), overrides)


def read_file(path: str) -> dict[str, Any]:
    """What `get_config()` of a config file returns.

    Raises:
      UserError: no such file, no get_config, or an error inside the file.
    """
    file = pathlib.Path(path)
    if not file.is_file():
        near = [str(p) for p in file.parent.glob('*.py')] if file.parent.is_dir() else []
        raise UserError(f'There is no config file {path}. {did_you_mean(path, near) if near else ""}'.strip())
    module_spec = importlib.util.spec_from_file_location('genbench_config', file)
    if module_spec is None or module_spec.loader is None:
        raise UserError(f'{path} is not a Python file; a config file ends in .py and defines get_config().')
    module = importlib.util.module_from_spec(module_spec)
    try:
        module_spec.loader.exec_module(module)
        get_config = getattr(module, 'get_config', None)
        if get_config is None:
            raise UserError(f'The config file {path} does not define get_config().')
        values = get_config()
    except UserError:
        raise
    except Exception as error:
        raise UserError(f'The config file {path} cannot be read: {type(error).__name__}: {error}.') from None
    if not isinstance(values, Mapping | ConfigDict):
        raise UserError(f'get_config() of {path} should return a ConfigDict or a dict, not {type(values).__name__}.')
    return plain(values)


def resolve(values: Mapping[str, Any], overrides: Sequence[str] = ()) -> Config:
    """Defaults, then the family's and the network's, then `values`, then 'key=value' overrides, each type-checked."""
    pairs = [_split(override) for override in overrides]
    given = {**dict(flatten(values)), **dict(pairs)}
    family = families.get(str(given.get('family.name', '')))
    sections = family.defaults()
    network = given.get('network.name', sections.get('network', {}).get('name', 'none'))
    config = ConfigDict(plain(DEFAULTS))
    config.family = ConfigDict({'name': family.name})
    config.network = ConfigDict(networks.defaults(str(network)))
    for key, value in flatten(sections):
        section, name = key.split('.', 1)
        if name not in ('name',):
            _assign(config, key, value, add=section in ('family', 'network'))
    for key, value in flatten(values):
        _assign(config, key, value)
    for key, text in pairs:
        _assign(config, key, _parse(key, text, _lookup(config, key)))
    _check_ranges(config)
    return config.lock()


def _check_ranges(config: Config) -> None:
    for keys, least in ((_AT_LEAST_ONE, 1), (_AT_LEAST_ZERO, 0)):
        for key in keys:
            value = _lookup(config, key)
            if value < least:
                raise UserError(f'{key} is {value}; it should be at least {least}.')
    if config.train.batch_size % config.train.accumulate:
        raise UserError(f'train.accumulate ({config.train.accumulate}) does not divide train.batch_size '
                        f'({config.train.batch_size}).')  # fmt: skip
    if config.checkpoint.best_mode not in ('min', 'max'):
        raise UserError(f'checkpoint.best_mode is {config.checkpoint.best_mode!r}; it can be min or max.')


def defaults_of(section: str) -> Config:
    """The default values of a dotted section, e.g. 'evaluation.classifier'."""
    return _section(ConfigDict(plain(DEFAULTS)), section)


def locate(path: str) -> Config:
    """The resolved config of a config file, or of a run folder."""
    snapshot = pathlib.Path(path) / 'config.json'
    return from_json(snapshot.read_text()) if snapshot.is_file() else load(path)


def flatten(values: Mapping[str, Any] | ConfigDict, prefix: str = '') -> Iterator[tuple[str, Any]]:
    """('section.key', value) pairs in order."""
    for key, value in values.items():
        if isinstance(value, Mapping | ConfigDict):
            yield from flatten(value, f'{prefix}{key}.')
        else:
            yield f'{prefix}{key}', value


def plain(values: Any) -> Any:
    """Nested dicts and tuples instead of ConfigDicts and lists."""
    if isinstance(values, Mapping | ConfigDict):
        return {key: plain(value) for key, value in values.items()}
    return tuple(values) if isinstance(values, list | tuple) else values


def _split(override: str) -> tuple[str, str]:
    key, equals, text = override.partition('=')
    if not equals:
        raise UserError(f'The override {override!r} has no value; write --config.{key}=VALUE.')
    return key, text


def _lookup(config: Config, key: str) -> Any:
    value = config
    for part in key.split('.'):
        if not isinstance(value, ConfigDict) or part not in value:
            known = [name for name, _ in flatten(config)]
            raise UserError(f'There is no config key {key!r}. {_nearest(key, known)}')
        value = value[part]
    if isinstance(value, ConfigDict):
        inside = ', '.join(f'{key}.{name}' for name in value)
        raise UserError(f'{key!r} is a section of the config, not a key. It holds {inside}.')
    return value


def _nearest(key: str, known: list[str]) -> str:
    last = [name for name in known if name.split('.')[-1] == key.split('.')[-1]]
    return f'Did you mean {" or ".join(last)}?' if last else did_you_mean(key, known)


def _assign(config: Config, key: str, value: Any, add: bool = False) -> None:
    section, _, name = key.rpartition('.')
    if add and name not in _section(config, section):
        _section(config, section)[name] = value
        return
    old = _lookup(config, key)
    _section(config, section)[name] = _coerce(key, value, old)


def _section(config: Config, dotted: str) -> Config:
    for part in dotted.split('.'):
        config = config[part]
    return config


def _coerce(key: str, value: Any, old: Any) -> Any:
    """`value` as the type of `old`; whole floats are fine integers and integers are fine floats."""
    kind = type(old)
    if kind is int and isinstance(value, float) and value.is_integer():
        return int(value)
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if kind is tuple:
        value = tuple(value) if isinstance(value, list | tuple) else (value,)
        if old and any(type(item) is not type(old[0]) for item in value):
            raise UserError(f'{key} expects a tuple of {type(old[0]).__name__}, for example {old}; got {value!r}.')
        return value
    if type(value) is not kind:
        raise UserError(f'{key} expects {_article(kind)}; got {value!r}.')
    return value


def _parse(key: str, text: str, old: Any) -> Any:
    """The text of an override as a value for a key that holds `old`."""
    if isinstance(old, str):
        return text
    if isinstance(old, bool):
        words = {'true': True, '1': True, 'yes': True, 'false': False, '0': False, 'no': False}
        if text.lower() not in words:
            raise UserError(f'{key} expects true or false; got {text!r}.')
        return words[text.lower()]
    if isinstance(old, tuple):
        try:
            value = ast.literal_eval(text)
        except (ValueError, SyntaxError):
            value = tuple(part for part in text.strip('()').split(',') if part)
        return value if isinstance(value, tuple | list) else (value,)
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        raise UserError(f'{key} expects {_article(type(old))}; got {text!r}.') from None


def _article(kind: type) -> str:
    name = {'int': 'integer', 'str': 'string', 'bool': 'boolean'}.get(kind.__name__, kind.__name__)
    return f'an {name}' if name[0] in 'aeiou' else f'a {name}'


def to_json(config: Config) -> str:
    """The snapshot a run keeps; `from_json` reads it back."""
    return json.dumps(plain(config), indent=2) + '\n'


def from_json(text: str) -> Config:
    return resolve(plain(json.loads(text)))


def difference(left: Mapping[str, Any] | ConfigDict, right: Mapping[str, Any] | ConfigDict) -> dict[str, tuple]:
    """Keys whose values differ → (left, right); a missing key reads as None."""
    a, b = dict(flatten(left)), dict(flatten(right))
    keys = [*a, *(key for key in b if key not in a)]
    return {key: (a.get(key), b.get(key)) for key in keys if a.get(key) != b.get(key)}


def identity(config: Config) -> dict[str, Any]:
    """The keys that make an experiment what it is: all but folders, logging, checkpointing and evaluation."""
    return {key: value for key, value in flatten(config) if not key.startswith(_FREE)}


def config_hash(config: Config) -> str:
    """Twelve hexadecimal digits of the SHA-256 of `identity` without the folders of borrowed runs.

    What was borrowed is in the manifest, by the hash of its state.
    """
    folders = {f'family.{name}' for name in families.get(config.family.name).borrows(config)}
    named = {key: value for key, value in identity(config).items() if key not in folders}
    return digest(named)


def digest(values: Any) -> str:
    """Twelve hexadecimal digits of the SHA-256 of values in canonical order."""
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()[:12]

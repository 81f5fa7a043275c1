"""Configs: the defaults, a file with the keys that differ, typed overrides, and the snapshot that a run keeps.

A config file defines `get_config()`, which returns a dict or a ConfigDict of the keys that differ from the defaults.
Which keys exist depends on `family.name` and `network.name`: each family and each network adds its own.
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
from genbench.ranges import Range
from genbench.settings import DEFAULTS, RANGES

Config = Any  # a locked ConfigDict; resolving it checks keys and types; the type checker does not

_DEEPEST = 8  # levels of nested sections

# A run stays the same experiment when these keys change.
_FREE = ('data.data_dir', 'data.resident_bytes', 'data.workers', 'checkpoint', 'evaluation', 'mesh', 'trackers',
         'train.log_every', 'train.sample_every', 'train.evaluate_', 'train.steps_per_call')  # fmt: skip

# Keys added later. At these values they do not enter the hash, so older runs keep theirs.
_LATER = {
    'family.text_encoder': '', 'family.text_skip': 0, 'family.control_blocks': 0,
    'family.modules': (), 'data.random_crop': 0, 'data.train_split': 'train', 'family.objective': 'elbo',
    'family.draws': 1, 'family.noise': 'fresh', 'family.covariance': 'full', 'family.offset_noise': 0.0,
    'family.scale': 1.0, 'family.source': '', 'family.path_noise': 0.0, 'family.data_noise': 0.0,
    'family.components': 10, 'optimizer.decay_rate': 0.999995, 'network.pixels': 'logits', 'network.scale': 'tanh',
    'network.mixing': 'reversal', 'network.normalised': False, 'network.prior': 'standard',
    'family.kl_warmup': 0, 'family.free_nats': 0.0, 'family.pseudo_inputs': 0,
    'network.time': 'sinusoids', 'optimizer.drops': (), 'optimizer.drop_factor': 0.1, 'optimizer.epsilon': 1e-8,
    'optimizer.skip_norm': 0.0, 'family.classifier': False, 'family.tokeniser': '',
    'train.initial_images': 0, 'family.mean_image': False, 'family.drift': 0.0, 'family.penalty_target': 1.0,
    'network.text_depth': 0, 'network.text_width': 0, 'network.text_heads': 4,
    'family.perceptual_vgg': '', 'family.perceptual_linear': '', 'family.perceptual_weight': 1.0,
    'network.middle': False, 'network.decoder_blocks': 0,
    'network.decoder_hidden': (), 'network.latent': 0, 'network.initial': 'glorot', 'family.pack': 1,
    'network.scale_shift': False, 'optimizer.unit_gradients': False,
    'family.guidance': 0.0, 'family.mixed': 0.0, 'family.guided_within': (0.0, 1.0),
    'family.distil': False, 'family.decrement_in': 'time',
    **{f'data.{key}': one for key, one in recipe.defaults().items()},
}  # fmt: skip

# The same for networks of this name, where others have had the key for longer. For families, `Family.later` says it.
_LATER_OF: dict[str, dict[str, Any]] = {'autoencoder': {'network.attention': ()}}


def load(path: str, overrides: Sequence[str] = ()) -> Config:
    """Resolve a config file, or a config that ships, with 'key=value' overrides."""
    return resolve(read_file(path), overrides, shipped.find(path, shipped.CONFIGS))


def read_file(path: str) -> dict[str, Any]:
    """The result of `get_config()` in a config file.

    Raises:
      UserError: there is no such file, it has no get_config, or it raises an error.
    """
    return scripts.call(path, shipped.CONFIGS, 'get_config', 'config file', _returned)


def _returned(values: Any) -> dict[str, Any]:
    if not isinstance(values, Mapping | ConfigDict):
        raise UserError(f'get_config() should return a ConfigDict or a dict, not {type(values).__name__}.')
    return plain(values)


def resolve(values: Mapping[str, Any], overrides: Sequence[str] = (), near: pathlib.Path | None = None) -> Config:
    """Merge the defaults, those of the family and the network, `values` and 'key=value' overrides, in this order, with
    types checked.

    Args:
      near: the file that `values` come from. `family.modules` are searched for in its folder and the folders above.
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
    """The range of every key that states one, for configs with this family and network."""
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
    """The default values of a dotted section, such as 'evaluation.classifier'."""
    return _section(ConfigDict(plain(DEFAULTS)), section)


def locate(path: str) -> Config:
    """The resolved config of a config file or of a run folder."""
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
    """Convert ConfigDicts and lists to nested dicts and tuples.

    Raises:
      UserError: sections nest without end, as in a dict that contains itself.
    """
    if depth > _DEEPEST:
        raise UserError(f'Its sections nest more than {_DEEPEST} levels deep; a section must not contain itself.')
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
        raise UserError(f'{key!r} is a section of the config, not a key. Its keys are {inside}.')
    return value


def _of_another(config: Config, key: str) -> str:
    """What to say about a key that belongs to another network or family; '' for a key that none of them has."""
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
    own = ', '.join(f'{section}.{one}' for one in config[section] if one != 'name') or 'no other keys'
    return f'{section}.name is {chosen!r}, but {key} belongs to {", ".join(owners)}; {chosen} has {own}.'


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
    """The snapshot that a run keeps. `read` reads it back."""
    return json.dumps(plain(config), indent=2) + '\n'


def read(path: pathlib.Path) -> Config:
    """The config in a snapshot.

    Raises:
      UserError: the snapshot is damaged, or from another version of genbench.
    """
    values = reading.read_json(path, dict)
    try:
        return resolve(plain(values), near=path)
    except UserError as error:
        raise UserError(f'{path} is not a config of this version of genbench: {error}') from None


def difference(left: Mapping[str, Any] | ConfigDict, right: Mapping[str, Any] | ConfigDict) -> dict[str, tuple]:
    """{key: (left, right)} for the keys whose values differ. A missing key reads as None."""
    a, b = dict(flatten(left)), dict(flatten(right))
    keys = [*a, *(key for key in b if key not in a)]
    return {key: (a.get(key), b.get(key)) for key in keys if a.get(key) != b.get(key)}


def identity(config: Config) -> dict[str, Any]:
    """The keys that define an experiment: all but folders, logging, checkpointing and evaluation."""
    values = {key: value for key, value in flatten(config) if not key.startswith(_FREE)}
    values['family.modules'] = own.names(values['family.modules'])  # so that a module may move
    since = {f'family.{key}': value for key, value in families.get(config.family.name).later.items()}
    later = _LATER | _LATER_OF.get(values['network.name'], {}) | since
    return {key: value for key, value in values.items() if key not in later or value != later[key]}


def lasting(config: Config) -> dict[str, Any]:
    """`identity` without the folders of borrowed runs, which may move. RUN@AVERAGE keeps its average.

    The manifest records what was borrowed, by the hash of its state.
    """
    values = identity(config)
    for name, text in borrowed(config).items():
        values.pop(f'family.{name}', None)
        if average := split_run(text)[1]:
            values[f'family.{name}'] = average
    return values


def borrowed(config: Config) -> dict[str, str]:
    """The runs that a config builds on: {the family's name for the run: RUN or RUN@AVERAGE}."""
    return families.get(config.family.name).borrows(config)


def split_run(text: str) -> tuple[str, str]:
    """Split RUN or RUN@AVERAGE into (folder, average). The average is '' if none is named."""
    path, at, average = text.rpartition('@')
    return (path, average) if at and '/' not in average else (text, '')


def config_hash(config: Config) -> str:
    """Twelve hexadecimal digits of the SHA-256 of `lasting`."""
    return digest(lasting(config))


def digest(values: Any) -> str:
    """Twelve hexadecimal digits of the SHA-256 of values in canonical order."""
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()[:12]

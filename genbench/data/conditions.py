"""Conditions: the information about an image that a model may take as input, described as data.

A kind of condition defines the fields of a row that it needs, how it is made from them, and its form in networks. A
model's conditions are a mapping `given` from names to arrays (batch, …), or None for an unconditional model. Configs
name conditions as KIND or KIND:NUMBER, e.g. family.conditions=('label', 'low_resolution:4'). The range of
guidance_weight is written LOW-HIGH, and `captions` says how captions are read.
"""

import dataclasses
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from genbench import rng
from genbench.data import augmentation, captions, degradations, keypoints, shown
from genbench.data.spec import TEXT, DataSpec
from genbench.errors import UserError, did_you_mean

Array = jax.Array
Rows = Mapping[str, Any]  # fields of rows by name, each (batch, …)
Given = Mapping[str, Any] | None  # arrays on the host or on devices

WEIGHT, HEAVIEST = 'guidance_weight', 60  # the fastest sine of the embedding, of w / 10, repeats after 62.8


@dataclasses.dataclass(frozen=True)
class Form:
    """The type and shape of one image's condition, which a network must be built for.

    Attributes:
      type: 'classes', an integer in [0, size); 'tokens', integers (length,) in [0, size), with 0 for none; 'image',
        real values (height, width, channels); 'features', real values (length, width) of tokens; 'vector', real values
        (length,); or 'number', one real value.
      limits: the limits of a number.
      nothing: the tokens of the empty text, where these are not all 0.
    """

    type: str
    shape: tuple[int, ...] = ()
    size: int = 0
    limits: tuple[float, float] = (0.0, 0.0)
    nothing: tuple[int, ...] = ()

    def null(self, count: int) -> Array:
        """The null condition (count, *shape), which stands for no information: an extra class, the empty text, or
        zeros."""
        if self.nothing:
            return jnp.tile(jnp.asarray(self.nothing, jnp.int32), (count, 1))
        kind = jnp.int32 if self.size else jnp.float32
        return jnp.full((count, *self.shape), self.size if self.type == 'classes' else 0, kind)


@dataclasses.dataclass(frozen=True)
class Condition:
    """A kind of condition for one data set.

    Attributes:
      name: the name of the kind, and of the condition in `given`.
      form: the form that networks must be built for.
      fields: the fields of a row that `make` needs. NAME:WAY is a text that is read as `captions.reading(WAY)` says.
      make: (rows, one key per image) → arrays (batch, *form.shape).
      read: the user's input, a text or the path of a picture → the rows of one image, for `make`.
      augment: (integer images, one key per image) → images to train on, and their condition: the change that was made,
        or a number drawn for each image. Such a condition is never dropped. It is zero in sampling and scoring.
    """

    name: str
    form: Form
    fields: tuple[str, ...]
    make: Callable[[Rows, Array], Array]
    read: Callable[[str], Rows]
    augment: Callable[[Array, Array], tuple[Array, Array]] | None = None


def named(options: Any) -> tuple[str, ...]:
    """The names of the conditions in the section `family` of a config."""
    return (*(('label',) if options.get('conditional') else ()), *options.get('conditions', ()))


def resolve(names: Iterable[str], spec: DataSpec) -> dict[str, Condition]:
    """The conditions that a config names, by name.

    Raises:
      UserError: a kind does not exist, is named twice, or does not suit the data.
    """
    found: dict[str, Condition] = {}
    for text in names:
        name, _, number = text.partition(':')
        if name not in KINDS:
            raise UserError(f'There is no condition {text!r} (family.conditions). {did_you_mean(name, KINDS)}')
        if name in found:
            raise UserError(f'family.conditions names {name} twice.')
        found[name] = KINDS[name](spec, number)
    return found


def make(conditions: Mapping[str, Condition], rows: Rows, keys: Array) -> Given:
    """Make these conditions for the images of `rows`; None if there are no conditions.

    Args:
      keys: one key per image, for random parts such as the place of a mask.
    """
    return {name: one.make(rows, rng.named(keys, name)) for name, one in conditions.items()} or None


def augmented(conditions: Mapping[str, Condition], batch: dict[str, Any], key: Array) -> dict[str, Any]:
    """The rows to train on, with the images changed if a condition does so.

    Args:
      key: the key of the step.
    """
    for name, one in conditions.items():
        if one.augment is not None:
            keys = rng.of_images(rng.named(key, name), 0, len(batch['image']))
            image, told = one.augment(batch['image'], keys)
            batch = {**batch, 'image': image, name: told}
    return batch


def kept(spec: DataSpec) -> dict[str, Condition]:
    """Conditions that only samplers read: 'original', an image, and 'known', which is white where pixels are kept."""
    white = lambda x, _: (x.mean(-1, keepdims=True) > 0).astype(jnp.float32)  # noqa: E731
    channels = spec.shape[2]
    return {
        'original': _of_image('original', spec, channels, lambda x, _: x),
        'known': _of_image('known', spec, 1, white),
    }


def apart(given: Given) -> tuple[Given, dict[str, Array]]:
    """Split the conditions into those for networks and those that only samplers read: 'original' and 'known';
    'observed', what is known of the images under the sampler's `problem`; and 'noise', N(0, I), that takes the place of
    the noise where sampling starts."""
    if given is None:
        return None, {}
    held = {name: given[name] for name in ('original', 'known', 'observed', 'noise') if name in given}
    return {name: values for name, values in given.items() if name not in held} or None, held


def stated(conditions: Mapping[str, Condition], text: str, count: int) -> dict[str, Array]:
    """The condition that users write as KIND=VALUE, the same for `count` images.

    Raises:
      UserError: the model does not have this condition, the value is invalid, or the condition is a picture.
    """
    name, equals, value = text.partition('=')
    written = [known for known, one in conditions.items() if one.form.type in ('classes', 'tokens')]
    if not equals or name not in written:
        known = ', '.join(f'{one}=…' for one in written) or 'no condition that --given or --caption can set'
        raise UserError(f'{text!r} is not a condition of this model, which takes {known}.')
    one = conditions[name]
    made = one.make(one.read(value), jax.random.split(jax.random.key(0), 1))
    return {name: jnp.broadcast_to(made, (count, *made.shape[1:]))}


def weighed(given: Given, weight: float) -> Given:
    """`given` with a sampler's guidance weight as the condition `guidance_weight`; 0 leaves `given` unchanged."""
    if given is None or not weight:
        return given
    return {**given, WEIGHT: jnp.full(len(jax.tree.leaves(given)[0]), weight, jnp.float32)}


def drop(conditions: Mapping[str, Condition], given: Given, dropped: Array) -> Given:
    """`given` with null conditions for the images where `dropped` (batch,) is true."""
    if given is None:
        return None

    def one(values: Array, condition: Condition) -> Array:
        if condition.augment is not None:  # without its parameters, the change would leak into samples
            return values
        return jnp.where(dropped.reshape(-1, *[1] * (values.ndim - 1)), condition.form.null(len(values)), values)

    return {name: one(values, conditions[name]) for name, values in given.items()}


def told(given: Given, name: str, form: Form, count: int) -> Array:
    """One condition (count, *shape), or its null value if it is not given."""
    return given[name] if given is not None and name in given else form.null(count)


def cut(given: Given, start: int, stop: int) -> Given:
    """The conditions of images start … stop − 1. Past the end, the first images repeat."""
    if given is None:
        return None
    return {name: np.resize(values[start:stop], (stop - start, *values.shape[1:])) for name, values in given.items()}


def combinations(forms: Mapping[str, Form]) -> int:
    """The number of combinations of these conditions' classes; 1 without conditions."""
    check_classes(forms)
    return int(np.prod([form.size for form in forms.values()], dtype=int))


def combined(forms: Mapping[str, Form], given: Given, count: int) -> Array:
    """The number (count,) of each image's combination of classes."""
    index = jnp.zeros(count, jnp.int32)
    for name, form in forms.items():
        index = index * form.size + told(given, name, form, count)
    return index


def check_classes(forms: Mapping[str, Form]) -> None:
    """Raise a UserError if a condition is not of classes, for a network that takes no other conditions."""
    for name, form in forms.items():
        if form.type != 'classes':
            raise UserError(f'This network cannot take the condition {name}: it takes class labels, but {name} '
                            f'comes as {form.type}. Use a unet or a dit.')  # fmt: skip


# Kinds.


def _label(spec: DataSpec, number: str) -> Condition:
    _no_number('label', number)
    if not spec.classes:
        raise UserError(f'family.conditional needs labels, but {spec.name} has none.')

    def read(text: str) -> Rows:
        if not text.isdecimal() or int(text) >= spec.classes:
            raise UserError(f'{text!r} is not a label; the labels of {spec.name} are 0 to {spec.classes - 1}.')
        return {'label': np.asarray([int(text)], np.int32)}

    form = Form('classes', (), spec.classes)
    return Condition('label', form, ('label',), lambda rows, keys: jnp.asarray(rows['label'], jnp.int32), read)


def _caption(spec: DataSpec, way: str) -> Condition:
    if spec.field('caption') != TEXT:
        raise UserError(f'The condition caption needs a text field "caption", but {spec.name} has none.')
    reading, field = captions.reading(way), f'caption:{way}' if way else 'caption'
    form = Form('tokens', (reading.length,), reading.size, nothing=reading.nothing)
    return Condition('caption', form, (field,), lambda rows, keys: jnp.asarray(rows[field], jnp.int32),
                     lambda text: {field: reading.number(text)})  # fmt: skip


def _of_image(name: str, spec: DataSpec, channels: int, function: Callable[[Array, Array], Array]) -> Condition:
    """A condition that is a picture in [−1, 1], made from the image itself."""

    def build(rows: Rows, keys: Array) -> Array:
        return function(spec.dequantise(jnp.asarray(rows['image'])), keys)

    def read(text: str) -> Rows:
        from genbench.data import pictures  # imported here because few commands need it

        return {'image': pictures.image(text, spec)[None]}

    return Condition(name, Form('image', (*spec.shape[:2], channels)), ('image',), build, read)


def _low_resolution(spec: DataSpec, number: str) -> Condition:
    """The image averaged over squares with sides of this many pixels, at its original size."""
    side = _whole('low_resolution', number or '4', 2, min(spec.shape[:2]))
    height, width, channels = spec.shape
    if height % side or width % side:
        raise UserError(f'low_resolution:{side} needs images with sides divisible by {side}; {spec.name} has '
                        f'{height}×{width}.')  # fmt: skip

    return _of_image('low_resolution', spec, channels, lambda x, _: shown.averaged(x, side))


def _grey(spec: DataSpec, number: str) -> Condition:
    _no_number('grey', number)
    if spec.shape[2] == 1:
        raise UserError(f'The condition grey needs colour images, but those of {spec.name} are grey.')
    return _of_image('grey', spec, 1, lambda x, _: x.mean(-1, keepdims=True))


def _edges(spec: DataSpec, number: str) -> Condition:
    _no_number('edges', number)
    return _of_image('edges', spec, 1, lambda x, _: shown.sobel(x))


def _keypoints(spec: DataSpec, number: str) -> Condition:
    """Dots at the centres of the ink in each quadrant. The ink is the mean of the colours, in levels."""
    _no_number('keypoints', number)

    def dots(x: Array, _: Array) -> Array:
        levels = (x.mean(-1) + 1) * spec.levels / 2 - 0.5
        return keypoints.drawn(jnp.where(levels > 0.25, levels, 0))[..., None]

    return _of_image('keypoints', spec, 1, dots)


def _masked(spec: DataSpec, number: str) -> Condition:
    """The image with zeros in a rectangle of this percentage of its area, and a channel that is 1 outside of it."""
    share = _whole('masked', number or '25', 1, 99) / 100
    height, width, channels = spec.shape
    rows, columns = (max(1, round(side * share**0.5)) for side in (height, width))

    return _of_image('masked', spec, channels + 1, lambda x, keys: shown.masked(x, keys, rows, columns))


def _degraded(spec: DataSpec, problem: str) -> Condition:
    """What a problem without noise shows of the image, for models that are trained to solve it."""
    if problem in ('', 'noise', degradations.GIVEN):
        raise UserError(f'family.conditions has degraded:{problem}; write degraded:PROBLEM with a problem that shows a '
                        'part of the image, such as degraded:half.')  # fmt: skip
    known = degradations.make(problem, spec.shape)

    def show(x: Array, _: Array) -> Array:
        return known.picture(known(x), spec.shape)

    channels = jax.eval_shape(show, jax.ShapeDtypeStruct((1, *spec.shape), jnp.float32), None).shape[-1]
    return _of_image('degraded', spec, channels, show)


def _augmentation(spec: DataSpec, number: str) -> Condition:
    """The parameters of an image's augmentation in training. Each change has this probability in percent."""
    share = _whole('augmentation', number or '12', 1, 100) / 100

    def make(rows: Rows, keys: Array) -> Array:
        return rows['augmentation'] if 'augmentation' in rows else jnp.zeros((len(keys), augmentation.PARAMETERS))

    form = Form('vector', (augmentation.PARAMETERS,))
    return Condition('augmentation', form, (), make, lambda text: {},
                     lambda images, keys: augmentation.augment(images, keys, share))  # fmt: skip


def _guidance_weight(spec: DataSpec, text: str) -> Condition:
    """w of classifier-free guidance, for a model that gives the guided prediction in one evaluation. In training it is
    uniform over its limits (C. Meng et al., On Distillation of Guided Diffusion Models, 2023, section 3.1); 0 is no
    guidance."""
    low, high = _limits(text or '0-4')
    form = Form('number', limits=(low, high))

    def make(rows: Rows, keys: Array) -> Array:
        return jnp.asarray(rows[WEIGHT], jnp.float32) if WEIGHT in rows else jnp.zeros(len(keys))

    def read(written: str) -> Rows:
        return {WEIGHT: np.asarray([check_weight(form, _number(written), f'--given {WEIGHT}')], np.float32)}

    def drawn(images: Array, keys: Array) -> tuple[Array, Array]:
        return images, low + (high - low) * rng.uniform(keys, 'weight')

    return Condition(WEIGHT, form, (), make, read, drawn)


def check_weight(form: Form, weight: float, what: str) -> float:
    """The weight itself, or a UserError if a model of this form was not trained with it."""
    low, high = form.limits
    if not low <= weight <= high:
        raise UserError(f'{what} is {weight:g}; this model was trained with guidance weights from {low:g} to {high:g}.')
    return weight


def _limits(text: str) -> tuple[float, float]:
    low, high = (_number(part) for part in text.partition('-')[::2])
    if not 0 <= low < high <= HEAVIEST:
        raise UserError(f'family.conditions has {WEIGHT}:{text}; write a range LOW-HIGH within 0 to '
                        f'{HEAVIEST}, such as 0-4.')  # fmt: skip
    return low, high


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return np.nan


def _no_number(name: str, number: str) -> None:
    if number:
        raise UserError(f'The condition {name} takes no number (family.conditions has {name}:{number}).')


def _whole(name: str, number: str, least: int, most: int) -> int:
    if not number.isdecimal() or not least <= int(number) <= most:
        raise UserError(f'family.conditions has {name}:{number}; the number should be between {least} and {most}.')
    return int(number)


KINDS: dict[str, Callable[[DataSpec, str], Condition]] = {
    'label': _label,
    'caption': _caption,
    'low_resolution': _low_resolution,
    'grey': _grey,
    'edges': _edges,
    'keypoints': _keypoints,
    'masked': _masked,
    'degraded': _degraded,
    'augmentation': _augmentation,
    WEIGHT: _guidance_weight,
}

"""Feature networks: what images are compared in. `get` opens one by name.

Metrics in the features of the published Inception are called FID, KID and so on; in any other features they are `fd`,
`kd`, …, and compare only with themselves.
"""

from typing import Any

from genbench.data.sources import Arrays
from genbench.data.spec import DataSpec
from genbench.errors import UserError, did_you_mean
from genbench.evaluation.features import clip, dinov2, inception, pixels, vgg
from genbench.evaluation.features.fitted import classifier
from genbench.evaluation.features.network import FeatureNetwork
from genbench.evaluation.features.weights import FILE

__all__ = ['NAMES', 'FeatureNetwork', 'classifier', 'get']

NAMES = ('inception', *dinov2.ARCHITECTURES, *clip.ARCHITECTURES, 'vgg16', 'classifier', 'pixels')
FOLLOWS_PAPERS = (
    'inception',
    *dinov2.ARCHITECTURES,
    *clip.ARCHITECTURES,
    'vgg16',
)  # papers use the train split as the reference for these
ALIASES = {'dinov2': 'dinov2-vitb14'}


def get(
    name: str,
    *,
    convention: str = '',
    weights: str = '',
    weights_sha256: str = '',
    batch_size: int = 64,
    spec: DataSpec | None = None,
    train: Arrays | None = None,
    classifier_options: Any = None,
    quiet: bool = False,
) -> FeatureNetwork:
    """The feature network of a name: see `NAMES`.

    Args:
      convention: how images become the network's input; '' for its first: 'ttur' of 'ttur', 'pytorch-fid' and 'clean'
        for the Inception, 'dgm-eval' of 'dgm-eval' and 'clean' for DINOv2 and VGG16. The others have one.
      weights: a file of weights; '' for the published ones, which are fetched once.
      weights_sha256: the hash of that file, where it is not the published one.
      batch_size: at most this many images at a time; on CPU the large networks take fewer.
      spec, train, classifier_options: the data set, its train split, and `evaluation.classifier` of a config, for the
        classifier.

    Raises:
      UserError: no such network or convention; weights that are not there or wrong; a classifier without labels.
    """
    chosen = ALIASES.get(name, name)
    if chosen not in NAMES:
        raise UserError(f'There is no feature network {name!r} (evaluation.features.name or --features). '
                        f'{did_you_mean(name, (*NAMES, *ALIASES))}')  # fmt: skip
    convention = _convention(chosen, convention)
    if chosen in ('classifier', 'pixels') and (weights or weights_sha256):
        raise UserError(f'The features {chosen!r} do not use {FILE}.')
    if chosen == 'pixels':
        return pixels.open_network(batch_size=batch_size)
    if chosen == 'classifier':
        if spec is None or train is None or classifier_options is None:
            raise UserError("The features 'classifier' need a data set to train on, but there is none here.")
        return classifier(spec, train, classifier_options, quiet=quiet)
    options: dict[str, Any] = {'batch_size': batch_size, 'quiet': quiet}
    if chosen == 'inception':
        return inception.open_network(convention, weights, weights_sha256, **options)
    if chosen == 'vgg16':
        return vgg.open_network(convention, weights, weights_sha256, **options)
    if chosen in clip.ARCHITECTURES:
        return clip.open_network(chosen, weights, weights_sha256, **options)
    return dinov2.open_network(chosen, convention, weights, weights_sha256, **options)


def reference_split(name: str) -> str:
    """Which real images features of this name suit as a reference, 'train' as in papers or 'held_out'.

    The features of a network that was fitted to the train split tell its images from new ones, and copies of them have
    a distance of 0 to them in any features; only held-out images are a reference that copying does not come near to.
    """
    return 'train' if ALIASES.get(name, name) in FOLLOWS_PAPERS else 'held_out'


def _convention(name: str, convention: str) -> str:
    """The convention that is asked of a network, or its first; '' for those that have none."""
    known: tuple[str, ...] = ('',)
    if name == 'inception':
        known = tuple(inception.CONVENTIONS)
    elif name in (*dinov2.ARCHITECTURES, 'vgg16'):
        known = tuple(dinov2.CONVENTIONS)
    if convention and convention not in known:
        has = f'has {", ".join(known)}' if known[0] else 'has none'
        raise UserError(f'{name} {has}, not the convention {convention!r} (evaluation.features.convention or '
                        '--convention).')  # fmt: skip
    return convention or known[0]

"""CLIP score: how well images fit their captions (J. Hessel et al., CLIPScore, 2021, with the factor 100).

The score of an image is max(100 cos, 0), of the cosine between CLIP's embeddings of the image and of its caption. Its
mean over images is the metric `clip_score`. Hessel et al. multiply by 2.5 instead of 100, and put 'A photo depicts'
before each caption, which is not done here. As in their code, captions of more than 77 tokens are cut.
"""

import functools
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from genbench.data import captions
from genbench.errors import UserError
from genbench.evaluation.features import clip, weights
from genbench.evaluation.samples import SHARD, drawn_rows
from genbench.families.base import Family
from genbench.networks.clip import LENGTH, TEXTS, VOCABULARY, TextEncoder
from genbench.training import processes, sampling

if TYPE_CHECKING:
    from genbench.evaluation.harness import Weights

METRICS, CAPTION = ('clip_score',), 'caption'
BATCH = 64  # texts at a time
BESIDE = ('vision_model.', 'visual_projection.', 'logit_scale')  # what the files contain besides the text tower


def fields(family: Family, options: Any) -> tuple[str, ...]:
    """The field of rows that holds the captions for CLIP, if the metric is asked for.

    Raises:
      UserError: the model has no captions, there is no such tokenizer, or it is not CLIP's.
    """
    if 'clip_score' not in options.metrics:
        return ()
    if CAPTION not in family.conditions:
        raise UserError('clip_score compares images with their captions, and this model has none; remove it from '
                        'evaluation.metrics.')  # fmt: skip
    if not options.clip_score.tokenizer:
        raise UserError('clip_score needs evaluation.clip_score.tokenizer, the tokenizer.json that is published with '
                        'the weights.')  # fmt: skip
    known = captions.tokenizer(options.clip_score.tokenizer, 'evaluation.clip_score.tokenizer')
    end = TEXTS[options.clip_score.network].get('end', VOCABULARY - 1)
    if end not in known.encode('').ids:
        raise UserError(f'The tokenizer {options.clip_score.tokenizer} (evaluation.clip_score.tokenizer) does not end '
                        f'captions with the token {end}, as CLIP needs; give the tokenizer.json that is published with '
                        'the weights.')  # fmt: skip
    return (field(options),)


def field(options: Any) -> str:
    return f'{CAPTION}:tokens{LENGTH}:{options.clip_score.tokenizer}:cut'


def texts(name: str, path: str = '', sha256: str = '', *, quiet: bool = False, options: Any = None) -> Any:
    """A function from ids (n, length), 0 for padding and else 1 + the id of a token, to CLIP's embeddings of texts.

    Args:
      options: of a `TextEncoder` that is not a published one.

    Raises:
      UserError: the weights are not there, have another hash, or are of another network.
    """
    sizes = {'embedding': TEXTS[name]['size'], **TEXTS[name]}
    chosen = options or {'vocabulary': VOCABULARY, 'length': LENGTH, 'end': VOCABULARY - 1, **sizes}
    file = weights.find(clip.ARCHITECTURES['clip-vitb32' if options else name].published, path, sha256, quiet=quiet)
    definition, params = weights.filled(lambda: TextEncoder(**chosen), file, unused=('position_ids',), beside=BESIDE)

    @jax.jit
    def embed(params: Any, ids: jax.Array) -> jax.Array:
        with jax.default_matmul_precision('highest'):
            return nnx.merge(definition, params)(jnp.where(ids > 0, ids - 1, chosen['end']))[1]

    return functools.partial(embed, params)


def scores(images: np.ndarray, texts: np.ndarray) -> np.ndarray:
    """max(100 cos, 0) of each row of two arrays of embeddings (n, d) → (n,)."""
    images, texts = images.astype(np.float64), texts.astype(np.float64)
    norms = np.linalg.norm(images, axis=1) * np.linalg.norm(texts, axis=1)
    return np.maximum(100 * (images * texts).sum(1) / norms, 0)


def score(weights: 'Weights') -> None:
    """Add a row for each sampler of these parameters."""
    one, options = weights.evaluation, weights.options.clip_score
    given = options.network, options.weights, options.weights_sha256
    seen = clip.open_network(*given, batch_size=weights.options.batch_size, quiet=one.quiet)
    read = texts(*given, quiet=one.quiet)
    total = weights.options.sets * weights.options.num_samples
    said = {**seen.protocol, 'text': 'the caption alone', 'scale': 'max(100 cos, 0)'}
    for cell in (cell for cell in one.cells if cell.average == weights.chosen):
        drawn = one.sampling_protocol(cell, weights.average)
        protocol = {**drawn, **said}
        if processes.agreed(one.has('clip_score', protocol)):
            continue
        first, stop = processes.part(0, total)
        rows = _captions(weights, cell.seed, first, stop)
        images = sampling.to_uint8(weights.store(cell).images(first, stop), one.spec)
        known, place = np.unique(rows, axis=0, return_inverse=True)
        batches = [np.resize(known[at : at + BATCH], (BATCH, LENGTH)) for at in range(0, len(known), BATCH)]
        embedded = np.concatenate([np.asarray(read(batch)) for batch in batches])[: len(known)]
        found = processes.gathered(scores(seen(images), embedded[place.reshape(-1)]))
        error = float(found.std(ddof=1) / np.sqrt(len(found)))
        row = {'std_err': error, 'kind': 'score', 'n': total, 'split': 'train', 'nfe': drawn['nfe'],
               'sampler': cell.sampler.name, 'seed': cell.seed,
               'details': {'hessel_2021': float(found.mean() / 40)}}  # fmt: skip
        processes.first_does(functools.partial(one.add, 'clip_score', float(found.mean()), protocol=protocol, **row))


def _captions(weights: 'Weights', seed: int, first: int, stop: int) -> np.ndarray:
    """The captions, as ids for CLIP, that the images first … stop − 1 of a seed were drawn for."""
    one, found = weights.evaluation, []
    for shard in range(first // SHARD, -(-stop // SHARD)):
        rows = drawn_rows(one.family, one.real.train, seed, shard, SHARD)[field(weights.options)]
        found.append(rows[max(first - shard * SHARD, 0) : min(stop - shard * SHARD, SHARD)])
    return np.concatenate(found)

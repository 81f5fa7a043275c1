"""A DiT in the layout of Hugging Face diffusers: the class DiTTransformer2DModel of its version 0.42.

Both are the transformer of Peebles & Xie 2023. In diffusers, every block has its own copy of the embeddings of time and
class. diffusers also spaces the frequencies of time so that the last is exactly 1/10,000, whereas genbench and the
official code of DiT leave that end out. No weights can compensate for this, so a loaded network needs `FREQUENCIES`
first.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np

from genbench.data.conditions import Form
from genbench.errors import UserError
from genbench.exchange import diffusers
from genbench.exchange.diffusers import Arrays, Tree
from genbench.networks.dit import DiT

CLASS, FOLDER = 'DiTTransformer2DModel', 'transformer'
FREQUENCIES = (
    'for block in transformer.transformer_blocks:',
    '    block.norm1.emb.time_proj.downscale_freq_shift = 0',
)
EXPANSION = 4  # expansion of the MLPs; diffusers has no setting for it


def check(config: Any, name: str, module: DiT, forms: Mapping[str, Form]) -> None:
    """Raise a UserError with the reason if the layout cannot hold this network of a run."""
    diffusers.check_inputs(CLASS, name, module, forms)
    refuse = f"diffusers' layout cannot hold the network {name}:"
    if module.grid[0] != module.grid[1]:
        raise UserError(f'{refuse} its images are not square, but {CLASS} has one size. Use --format=safetensors.')
    if config.expansion != EXPANSION:
        raise UserError(f'{refuse} network.expansion is {config.expansion}, but {CLASS} always has {EXPANSION}. Use '
                        '--format=safetensors.')  # fmt: skip


def settings(config: Any, module: DiT, size: int, channels: int, classes: int) -> dict[str, Any]:
    """The file config.json of the transformer.

    Args:
      config: the section `network` of the run's config.
      size, channels: the size and channels of the images.
      classes: the number of the condition's classes, without the one that stands for no class. It is 0 without a
        condition, which diffusers represents by one class.
    """
    return {
        '_class_name': CLASS,
        '_diffusers_version': diffusers.VERSION,
        'sample_size': size,
        'in_channels': channels,
        'out_channels': module.output.kernel.shape[-1] // config.patch**2,
        'num_layers': config.depth,
        'num_attention_heads': config.heads,
        'attention_head_dim': config.width // config.heads,
        'patch_size': config.patch,
        'activation_fn': 'gelu-approximate',
        'num_embeds_ada_norm': max(classes, 1),
        'norm_type': 'ada_norm_zero',
        'norm_elementwise_affine': False,
        'norm_eps': 1e-6,
    }


def weights(params: Tree, config: Any, one_late: bool) -> Arrays:
    """The parameters of a DiT by their names in diffusers.

    Args:
      params: nested dicts, as in the training state.
      config: the section `network` of the run's config.
      one_late: step n in diffusers is step n + 1 here.
    """
    patch, tokens = config.patch, params['tokens']
    kernel = np.asarray(tokens['kernel']).reshape(patch, patch, -1, config.width).transpose(3, 2, 0, 1)
    found: Arrays = {'pos_embed.proj.weight': kernel, 'pos_embed.proj.bias': np.asarray(tokens['bias'])}
    embedding = _embedding(params['conditioning'], config.width, one_late)
    for index, key in enumerate(sorted(params['blocks'], key=int)):
        block, into = params['blocks'][key], f'transformer_blocks.{index}'
        found |= {f'{into}.norm1.emb.{name}': value for name, value in embedding.items()}
        found |= diffusers.linear(f'{into}.norm1.linear', block['modulation'])
        found |= diffusers.queries_keys_values(f'{into}.attn1', block['attention']['inputs'])
        found |= diffusers.linear(f'{into}.attn1.to_out.0', block['attention']['output'])
        found |= diffusers.linear(f'{into}.ff.net.0.proj', block['mlp']['hidden'])
        found |= diffusers.linear(f'{into}.ff.net.2', block['mlp']['output'])
    found |= diffusers.linear('proj_out_1', params['modulation'])
    return found | diffusers.linear('proj_out_2', params['output'])


def _embedding(params: Tree, width: int, one_late: bool) -> Arrays:
    hidden = diffusers.linear('timestep_embedder.linear_1', params['hidden'])
    weight = hidden['timestep_embedder.linear_1.weight']
    weight = diffusers.rotated(weight, 1, endpoint=False) if one_late else weight
    hidden['timestep_embedder.linear_1.weight'] = np.roll(weight, weight.shape[1] // 2, axis=1)  # cosines first
    table = np.zeros((2, width), np.float32)
    for entry in params.get('entries', {}).values():
        table = np.asarray(entry['embedding'])
    return {
        **hidden,
        **diffusers.linear('timestep_embedder.linear_2', params['output']),
        'class_embedder.embedding_table.weight': table,
    }

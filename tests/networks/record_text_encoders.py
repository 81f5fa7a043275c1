"""Record what transformers computes with small random text encoders: CLIP's two towers, and the encoder of T5 1.1.

    pip install numpy torch==2.13.0 transformers==5.24.0
    python tests/networks/record_text_encoders.py

Both sides fill their networks by `seeded_weights` of tests/evaluation/features/record_inception.py. Writes
fixtures/text_encoders.npz.
"""

import pathlib
import sys

import numpy as np

HERE = pathlib.Path(__file__).parent
sys.path.insert(0, str(HERE.parent / 'evaluation' / 'features'))

from record_inception import seeded_weights  # noqa: E402

CLIP = {'vocabulary': 40, 'size': 12, 'depth': 3, 'heads': 3, 'length': 9, 'end': 39, 'embedding': 5}
IMAGES = {'size': 8, 'depth': 2, 'heads': 2, 'patch': 8, 'embedding': 5, 'image': 16}
T5 = {'vocabulary': 40, 'size': 12, 'depth': 3, 'heads': 3, 'inner': 6, 'hidden': 20}
CLIP_IDS = np.array([
    [38, 4, 39, 39, 39, 39, 39, 39, 39], [38, 1, 2, 3, 4, 5, 6, 7, 39], [38, 39, 5, 39, 2, 1, 0, 0, 0],
])  # fmt: skip
LONG = 300  # tokens, so that distances exceed those that have buckets of their own


def t5_ids():
    """Token ids (2, LONG), of which the second text is short."""
    ids = np.random.Generator(np.random.Philox(5)).integers(1, T5['vocabulary'], (2, LONG))
    ids[1, 7:] = 0
    return ids


def pixels():
    """Scaled images (3, 16, 16, 3)."""
    return np.random.Generator(np.random.Philox(6)).normal(size=(3, 16, 16, 3)).astype(np.float32)


def _fill(module, leave=('position_ids',)):
    import torch

    shapes = {name: tuple(value.shape) for name, value in module.state_dict().items() if not name.endswith(leave)}
    tensors = {name: torch.from_numpy(value) for name, value in seeded_weights(shapes).items()}
    module.load_state_dict(tensors, strict=False)
    return module.eval(), np.array([f'{name} {shape}' for name, shape in sorted(shapes.items())])


def record_clip():
    import torch
    from transformers import CLIPConfig, CLIPModel

    text = dict(
        vocab_size=CLIP['vocabulary'], hidden_size=CLIP['size'], intermediate_size=4 * CLIP['size'],
        num_hidden_layers=CLIP['depth'], num_attention_heads=CLIP['heads'], max_position_embeddings=CLIP['length'],
        bos_token_id=38, eos_token_id=39, pad_token_id=39,
    )  # fmt: skip
    vision = dict(
        hidden_size=IMAGES['size'], intermediate_size=4 * IMAGES['size'], num_hidden_layers=IMAGES['depth'],
        num_attention_heads=IMAGES['heads'], image_size=IMAGES['image'], patch_size=IMAGES['patch'],
    )  # fmt: skip
    config = CLIPConfig(text_config=text, vision_config=vision, projection_dim=CLIP['embedding'])
    model, names = _fill(CLIPModel(config), ('position_ids', 'logit_scale'))
    ids, images = torch.from_numpy(CLIP_IDS), torch.from_numpy(pixels().transpose(0, 3, 1, 2).copy())
    with torch.no_grad():
        told = model.text_model(ids, output_hidden_states=True)
        whole = model(input_ids=ids, pixel_values=images)
        projected = model.text_projection(told.pooler_output)
        cosines = whole.logits_per_image / model.logit_scale.exp()
    return {
        'clip names': names, 'clip last': told.last_hidden_state, 'clip before': told.hidden_states[-2],
        'clip pooled': told.pooler_output, 'clip projected': projected, 'clip cosines': cosines,
    }  # fmt: skip


def record_t5():
    import torch
    from transformers import T5Config, T5EncoderModel

    model, names = _fill(T5EncoderModel(T5Config(
        vocab_size=T5['vocabulary'], d_model=T5['size'], d_kv=T5['inner'] // T5['heads'], d_ff=T5['hidden'],
        num_layers=T5['depth'], num_heads=T5['heads'], feed_forward_proj='gated-gelu',
    )), ('embed_tokens.weight',))  # fmt: skip
    ids = torch.from_numpy(t5_ids())
    with torch.no_grad():
        found = model(input_ids=ids, attention_mask=(ids > 0).long()).last_hidden_state
    return {'t5 names': names, 't5 first': found[0, ::7], 't5 second': found[1, :7]}


if __name__ == '__main__':
    found = {**record_clip(), **record_t5()}
    np.savez_compressed(HERE / 'fixtures' / 'text_encoders.npz', **{k: np.asarray(v) for k, v in found.items()})

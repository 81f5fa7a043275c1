"""The vision transformer against a forward pass written out, and the names of the published weights."""

import math

import numpy as np
import pytest
from PIL import Image

from genbench.errors import UserError
from genbench.evaluation import features
from genbench.evaluation.features import dinov2


def forward(tensors, image):
    """One image (224, 224, 3) through the tiny network, patch by patch and head by head, in double precision."""
    get = {name: value.astype(np.float64) for name, value in tensors.items()}

    def dense(x, name):
        return x @ get[f'{name}.weight'].T + get[f'{name}.bias']

    def norm(x, name):
        normal = (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-6)
        return normal * get[f'{name}.weight'] + get[f'{name}.bias']

    def gelu(x):
        return np.vectorize(lambda value: value * 0.5 * (1 + math.erf(value / math.sqrt(2))))(x)

    kernel = get['patch_embed.proj.weight']
    tokens = [get['cls_token'][0, 0]]
    for row in range(16):
        for column in range(16):
            patch = image[14 * row : 14 * row + 14, 14 * column : 14 * column + 14]
            tokens.append((kernel * patch.transpose(2, 0, 1)).sum((1, 2, 3)) + get['patch_embed.proj.bias'])
    x = np.stack(tokens) + dinov2.fitted_positions(tensors['pos_embed'], 16)[0]
    for block in range(2):
        at = f'blocks.{block}'
        qkv = dense(norm(x, f'{at}.norm1'), f'{at}.attn.qkv')
        heads = []
        for head in range(3):
            q, k, v = (qkv[:, 12 * part + 4 * head : 12 * part + 4 * head + 4] for part in range(3))
            scores = np.exp(q @ k.T / 2)
            heads.append(scores / scores.sum(1, keepdims=True) @ v)
        x = x + dense(np.concatenate(heads, 1), f'{at}.attn.proj') * get[f'{at}.ls1.gamma']
        hidden = gelu(dense(norm(x, f'{at}.norm2'), f'{at}.mlp.fc1'))
        x = x + dense(hidden, f'{at}.mlp.fc2') * get[f'{at}.ls2.gamma']
    return norm(x[0], 'norm')


@pytest.mark.parametrize(('convention', 'channels'), [('dgm-eval', 3), ('clean', 3), ('dgm-eval', 1)])
def test_the_class_token_is_that_of_the_formula(tiny_vit, convention, channels):
    architecture, tensors, path, sha256 = tiny_vit
    network = dinov2.open_network('tiny', convention, path, sha256, architecture=architecture, batch_size=2)
    images = np.random.Generator(np.random.Philox(7)).integers(0, 256, (2, 32, 32, channels), dtype=np.uint8)
    found = network(images)
    for image, token in zip(images, found, strict=True):
        wanted = forward(tensors, pillows(np.broadcast_to(image, (32, 32, 3)), convention))
        np.testing.assert_allclose(token, wanted, atol=2e-5)


def pillows(image, convention):
    """dgm-eval's transform, by Pillow: of the image, or with `clean` of each channel in float32."""
    if convention == 'dgm-eval':
        resized = np.asarray(Image.fromarray(image).resize((224, 224), Image.Resampling.BICUBIC), np.float64)
    else:
        planes = [Image.fromarray(image[..., c].astype(np.float32)) for c in range(3)]
        resized = np.stack([np.asarray(plane.resize((224, 224), Image.Resampling.BICUBIC)) for plane in planes], -1)
        resized = resized.clip(0, 255).astype(np.float64)
    return (resized / 255 - (0.485, 0.456, 0.406)) / (0.229, 0.224, 0.225)


@pytest.mark.parametrize(
    ('name', 'size', 'depth', 'numbers'),
    [('dinov2-vitb14', 768, 12, 86_580_480), ('dinov2-vitl14', 1024, 24, 304_368_640)],
)
def test_names_and_shapes_are_those_of_the_published_files(vit_shapes_of, name, size, depth, numbers):
    """By the modules of facebookresearch/dinov2 for image size 518 and init_values; `numbers` counts the mask token."""
    block = {
        'norm1.weight': (size,), 'norm1.bias': (size,), 'norm2.weight': (size,), 'norm2.bias': (size,),
        'attn.qkv.weight': (3 * size, size), 'attn.qkv.bias': (3 * size,),
        'attn.proj.weight': (size, size), 'attn.proj.bias': (size,), 'ls1.gamma': (size,), 'ls2.gamma': (size,),
        'mlp.fc1.weight': (4 * size, size), 'mlp.fc1.bias': (4 * size,),
        'mlp.fc2.weight': (size, 4 * size), 'mlp.fc2.bias': (size,),
    }  # fmt: skip
    wanted = {
        'cls_token': (1, 1, size), 'pos_embed': (1, 1 + 37 * 37, size), 'norm.weight': (size,), 'norm.bias': (size,),
        'patch_embed.proj.weight': (size, 3, 14, 14), 'patch_embed.proj.bias': (size,),
        **{f'blocks.{i}.{part}': shape for i in range(depth) for part, shape in block.items()},
    }  # fmt: skip
    architecture = dinov2.ARCHITECTURES[name]
    found = vit_shapes_of(architecture)
    assert found == wanted
    assert sum(int(np.prod(shape)) for shape in found.values()) + size == numbers
    assert architecture.size // architecture.heads == 64


def test_weights_of_another_size_are_one_sentence(tiny_vit):
    _, _, path, sha256 = tiny_vit
    with pytest.raises(UserError, match=r'has the shape \(12,\), but this network needs \(768,\)'):
        features.get('dinov2', weights=path, weights_sha256=sha256)

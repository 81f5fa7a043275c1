"""Record what the public packages compute with small random networks: CLIP's image tower, VGG16 and LPIPS.

    pip install numpy pillow torch==2.13.0 torchvision==0.28.0 transformers==5.24.0 lpips==0.1.4
    python tests/evaluation/features/record_networks.py

Both sides fill their networks by `seeded_weights` of record_inception.py. CLIP's images are prepared by the transforms
that its own code composes (torchvision's, on Pillow images), and embedded by CLIPVisionModelWithProjection of
transformers. VGG16 is torchvision's, with fewer channels for the hidden layers and with its own for LPIPS. Writes
networks.npz.
"""

import pathlib
import sys

import numpy as np

HERE = pathlib.Path(__file__).parent
sys.path.insert(0, str(HERE))

from record_inception import seeded_weights  # noqa: E402

CLIP = {'size': 12, 'depth': 2, 'heads': 3, 'patch': 16, 'embedding': 5, 'image': 64}
CLIP_IMAGES = {'wide': (50, 81, 3), 'high and grey': (70, 30, 1), 'of its size': (64, 64, 3)}
STAGES, HIDDEN = ((3, 2), (4, 2), (4, 3), (5, 3), (4, 3)), 9
LPIPS_IMAGES = {'even': (32, 48, 3), 'odd': (37, 33, 3)}
LINEAR = {f'lin{stage}.model.1.weight': (1, channels, 1, 1) for stage, channels in enumerate((64, 128, 256, 512, 512))}


def images(shape, count=2):
    """uint8 images (count, *shape) with edges, saturated areas and noise, other ones for each shape."""
    draw = np.random.Generator(np.random.Philox(sum(shape)))
    coarse = draw.uniform(-40, 295, (count, 5, 5, shape[2]))
    blocks = coarse[:, np.arange(shape[0]) * 5 // shape[0]][:, :, np.arange(shape[1]) * 5 // shape[1]]
    return np.clip(blocks + draw.normal(0, 12, (count, *shape)), 0, 255).astype(np.uint8)


def linear_weights():
    """Of the linear layers of LPIPS, which are not negative."""
    return {name: np.abs(value) for name, value in seeded_weights(LINEAR).items()}


def _fill(module):
    import torch

    shapes = {name: tuple(value.shape) for name, value in module.state_dict().items() if 'position_ids' not in name}
    tensors = {name: torch.from_numpy(value) for name, value in seeded_weights(shapes).items()}
    module.load_state_dict(tensors, strict=False)
    return module.eval()


def record_clip():
    import torch
    from PIL import Image
    from torchvision import transforms
    from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection

    config = CLIPVisionConfig(
        hidden_size=CLIP['size'], intermediate_size=4 * CLIP['size'], projection_dim=CLIP['embedding'],
        num_hidden_layers=CLIP['depth'], num_attention_heads=CLIP['heads'], image_size=CLIP['image'],
        patch_size=CLIP['patch'],
    )  # fmt: skip
    network = _fill(CLIPVisionModelWithProjection(config))
    prepare = transforms.Compose([
        transforms.Resize(CLIP['image'], interpolation=transforms.InterpolationMode.BICUBIC),
        transforms.CenterCrop(CLIP['image']),
        lambda image: image.convert('RGB'),
        transforms.ToTensor(),
        transforms.Normalize((0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)),
    ])  # fmt: skip
    found = {'clip names': np.array([f'{name} {tuple(v.shape)}' for name, v in network.state_dict().items()])}
    for name, shape in CLIP_IMAGES.items():
        pictures = [Image.fromarray(image[..., 0] if shape[2] == 1 else image) for image in images(shape)]
        x = torch.stack([prepare(picture) for picture in pictures])
        with torch.no_grad():
            found[f'clip {name}'] = network(x).image_embeds.numpy()
        found[f'clip pixels {name}'] = x.numpy().transpose(0, 2, 3, 1)[:, ::9, ::7]
    return found


def record_vgg():
    import torch
    from torchvision.models import vgg

    plan = [part for channels, depth in STAGES for part in [channels] * depth + ['M']]
    network = vgg.VGG(vgg.make_layers(plan), num_classes=3, init_weights=False)
    network.classifier[0] = torch.nn.Linear(STAGES[-1][0] * 7 * 7, HIDDEN)
    network.classifier[3], network.classifier[6] = torch.nn.Linear(HIDDEN, HIDDEN), torch.nn.Linear(HIDDEN, 3)
    _fill(network)
    x = torch.from_numpy(images((224, 224, 3)).transpose(0, 3, 1, 2)).float() / 255
    x = (x - torch.tensor((0.485, 0.456, 0.406)).view(3, 1, 1)) / torch.tensor((0.229, 0.224, 0.225)).view(3, 1, 1)
    with torch.no_grad():
        hidden = network.classifier[:5](network.avgpool(network.features(x)).flatten(1))
    names = [f'{name} {tuple(v.shape)}' for name, v in vgg.vgg16(init_weights=False).state_dict().items()]
    return {'vgg hidden': hidden.numpy(), 'vgg names': np.array(names)}


def record_lpips():
    import lpips
    import torch
    from torchvision.models import vgg

    network = lpips.LPIPS(net='vgg', pnet_rand=True, pretrained=False, verbose=False)
    filled = _fill(torch.nn.ModuleDict({'features': vgg.vgg16(init_weights=False).features})).state_dict()
    own = network.net.state_dict()  # slice3.12.weight of features.12.weight
    network.net.load_state_dict({name: filled[f'features.{name.partition(".")[2]}'] for name in own})
    missing = network.load_state_dict({k: torch.from_numpy(v) for k, v in linear_weights().items()}, strict=False)
    assert not missing.unexpected_keys
    network.eval()
    found = {}
    for name, shape in LPIPS_IMAGES.items():
        x, y = (torch.from_numpy(part.transpose(0, 3, 1, 2)).float() / 127.5 - 1 for part in
                np.split(images(shape, 6), 2))  # fmt: skip
        with torch.no_grad():
            found[f'lpips {name}'] = network(x, y).numpy().reshape(-1)
    return found


if __name__ == '__main__':
    np.savez_compressed(HERE / 'networks.npz', **record_clip(), **record_vgg(), **record_lpips())

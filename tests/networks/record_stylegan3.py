"""Records what StyleGAN3's official code computes, its networks and its measures of equivariance.

It needs torch, scipy and a checkout of NVlabs/stylegan3 (c233a91), and no genbench. Parameters and buffers are random
and recorded too. Only the filters are those of the code.

    python tests/networks/record_stylegan3.py STYLEGAN3 tests/networks/fixtures/stylegan3.npz \
        tests/evaluation/fixtures/equivariance.npz
"""

import sys

import numpy as np
import torch

SIZE, LAYERS, FEATURES, CHANNELS, MOST = 16, 5, 5, 4, 8
VARIANTS = {'t': {'conv_kernel': 3}, 'r': {'conv_kernel': 1, 'use_radial_filters': True}}


def drawn(numbers, name, shape):
    low, high = (0.5, 2) if name.endswith('magnitude_ema') else (-0.1, 0.1) if is_bias(name) else (-1, 1)
    return np.asarray(numbers.uniform(low, high, shape), np.float32)


def is_bias(name):
    return name.endswith('bias') and 'affine' not in name


def counts(kind, variant, times, size, base):
    options = {**VARIANTS[variant], 'channel_base': times * base, 'channel_max': 512 * times}
    network = kind(512, 0, 512, size, 3, mapping_kwargs={'num_layers': 2}, **options)
    return sum(parameter.numel() for parameter in network.parameters())


def equivariance(out):
    """Moved images, and which of their pixels count."""
    from metrics import equivariance

    images = np.random.RandomState(0).normal(size=(2, 2, 24, 24)).astype(np.float32)
    angle, shift, found = 0.7, (0.085, -0.06), {}
    moves = {
        'turned': equivariance.apply_fractional_rotation(torch.tensor(images), angle),
        'as_if_turned': equivariance.apply_fractional_pseudo_rotation(torch.tensor(images), angle),
        'shifted': equivariance.apply_fractional_translation(torch.tensor(images), *shift),
        'whole': equivariance.apply_integer_translation(torch.tensor(images), 2 / 24, -3 / 24),
    }
    for name, (moved, mask) in moves.items():
        found[name], found[f'{name} mask'] = moved.permute(0, 2, 3, 1).numpy(), mask[0, 0].numpy()
    np.savez_compressed(out, images=images.transpose(0, 2, 3, 1), angle=angle, shift=shift, **found)


def main(checkout, out, measures):
    sys.path.insert(0, checkout)
    equivariance(measures)
    from training.networks_stylegan3 import Generator, SynthesisNetwork

    found = {}
    for variant, times in (('t', 1), ('r', 2)):
        numbers, options = np.random.RandomState(0), {'channel_base': times * CHANNELS * SIZE, 'conv_clamp': None}
        network = SynthesisNetwork(
            FEATURES, SIZE, 3, num_layers=LAYERS, channel_max=times * MOST, **options, **VARIANTS[variant]
        )
        state = network.state_dict()
        kept = {name for name in state if name.endswith(('filter', 'transform'))}
        new = {name: drawn(numbers, name, value.shape) for name, value in state.items() if name not in kept}
        network.load_state_dict({**state, **{name: torch.tensor(value) for name, value in new.items()}})
        w = numbers.normal(size=(2, LAYERS + 2, FEATURES)).astype(np.float32)
        angle, move = 0.3, (0.06, -0.11)
        transform = torch.tensor([[np.cos(angle), -np.sin(angle), move[0]], [np.sin(angle), np.cos(angle), move[1]],
                                  [0, 0, 1]], dtype=torch.float32)  # fmt: skip
        with torch.no_grad():
            y = network(torch.tensor(w))
            network.input.transform.copy_(transform)
            moved = network(torch.tensor(w))
            network.input.transform.copy_(torch.eye(3))
            trained = network(torch.tensor(w), update_emas=True)
        images = {'y': y, 'moved': moved, 'trained': trained}
        found |= {f'{variant} {name}': one.permute(0, 2, 3, 1).numpy() for name, one in images.items()}
        found |= {f'{variant} {name}': value.numpy() for name, value in state.items() if name.endswith('filter')}
        found |= {f'{variant} {name}': value for name, value in new.items()}
        found |= {f'{variant} w': w, 'transform': transform.numpy()}
        found[f'{variant} 1024'] = counts(Generator, variant, times, 1024, 32768)
        found[f'{variant} 256'] = counts(Generator, variant, times, 256, 16384)
    np.savez_compressed(out, origin=f'NVlabs/stylegan3 c233a91, torch {torch.__version__}', **found)


if __name__ == '__main__':
    main(*sys.argv[1:])

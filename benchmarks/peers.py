"""The networks of genbench in PyTorch, and the same training step and sampler. Submodules carry genbench's names."""

import math
import shutil
import time
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn


def embedding(t: torch.Tensor, size: int, endpoint: bool) -> torch.Tensor:
    half = size // 2
    falling = torch.arange(half, device=t.device) / (half - 1 if endpoint else half)
    angles = 1000 * t[:, None] * torch.exp(-math.log(1e4) * falling)
    return torch.cat([angles.sin(), angles.cos()], dim=-1)


class Conditioning(nn.Module):
    def __init__(self, features: int, outputs: int, endpoint: bool):
        super().__init__()
        self.features, self.endpoint = features, endpoint
        self.hidden, self.output = nn.Linear(features, outputs), nn.Linear(outputs, outputs)

    def forward(self, t):
        return F.silu(self.output(F.silu(self.hidden(embedding(t, self.features, self.endpoint)))))


def norm(channels: int, groups: int) -> nn.GroupNorm:
    return nn.GroupNorm(math.gcd(groups, channels), channels, eps=1e-6)


class ResidualBlock(nn.Module):
    def __init__(self, inputs: int, outputs: int, condition: int, groups: int):
        super().__init__()
        self.norm_in, self.conv_in = norm(inputs, groups), nn.Conv2d(inputs, outputs, 3, padding=1)
        self.condition = nn.Linear(condition, outputs)
        self.norm_out, self.conv_out = norm(outputs, groups), nn.Conv2d(outputs, outputs, 3, padding=1)
        self.shortcut = nn.Conv2d(inputs, outputs, 1) if inputs != outputs else nn.Identity()

    def forward(self, x, condition):
        h = self.conv_in(F.silu(self.norm_in(x))) + self.condition(condition)[:, :, None, None]
        return self.shortcut(x) + self.conv_out(F.silu(self.norm_out(h)))


class PixelAttention(nn.Module):
    def __init__(self, channels: int, heads: int, groups: int):
        super().__init__()
        self.heads, self.norm = heads, norm(channels, groups)
        self.inputs, self.output = nn.Linear(channels, 3 * channels), nn.Linear(channels, channels)

    def forward(self, x):
        tokens = self.norm(x).flatten(2).transpose(1, 2)
        return x + self.output(attend(self.inputs(tokens), self.heads)).transpose(1, 2).reshape(x.shape)


def attend(qkv: torch.Tensor, heads: int) -> torch.Tensor:
    batch, tokens, width = qkv.shape
    q, k, v = qkv.reshape(batch, tokens, 3, heads, width // 3 // heads).permute(2, 0, 3, 1, 4)
    return F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(batch, tokens, width // 3)


class Level(nn.Module):
    def __init__(self, inputs: int, outputs: int, attention: bool, o: dict):
        super().__init__()
        self.block = ResidualBlock(inputs, outputs, 4 * o['channels'], o['groups'])
        self.attention = PixelAttention(outputs, o['heads'], o['groups']) if attention else nn.Identity()

    def forward(self, x, condition):
        return self.attention(self.block(x, condition))


class Resample(nn.Module):
    def __init__(self, channels: int, up: bool):
        super().__init__()
        self.up, self.conv = up, nn.Conv2d(channels, channels, 3, padding=int(up), stride=1 if up else 2)

    def forward(self, x):
        return self.conv(F.interpolate(x, scale_factor=2) if self.up else F.pad(x, (0, 1, 0, 1)))


class UNet(nn.Module):
    def __init__(self, shape: tuple, o: dict):
        super().__init__()
        size, channels, width = shape[0], o['channels'], o['channels']
        self.conditioning = Conditioning(channels, 4 * channels, endpoint=True)
        self.conv_in = nn.Conv2d(shape[2], width, 3, padding=1)
        self.down, self.up, skips = nn.ModuleList(), nn.ModuleList(), [width]
        for depth, multiplier in enumerate(o['multipliers']):
            if depth:
                self.down.append(Resample(width, up=False))
                skips.append(width)
            for _ in range(o['blocks']):
                self.down.append(Level(width, channels * multiplier, size >> depth in o['attention'], o))
                width = channels * multiplier
                skips.append(width)
        self.middle = nn.ModuleList([Level(width, width, bool(o['attention']), o), Level(width, width, False, o)])
        for depth, multiplier in reversed(list(enumerate(o['multipliers']))):
            for _ in range(o['blocks'] + 1):
                inputs = width + skips.pop()
                self.up.append(Level(inputs, channels * multiplier, size >> depth in o['attention'], o))
                width = channels * multiplier
            if depth:
                self.up.append(Resample(width, up=True))
        self.norm_out, self.conv_out = norm(width, o['groups']), nn.Conv2d(width, shape[2], 3, padding=1)

    def forward(self, x, t):
        condition, h = self.conditioning(t), self.conv_in(x)
        skips = [h]
        for layer in self.down:
            h = layer(h, condition) if isinstance(layer, Level) else layer(h)
            skips.append(h)
        for layer in self.middle:
            h = layer(h, condition)
        for layer in self.up:
            h = layer(torch.cat([h, skips.pop()], 1), condition) if isinstance(layer, Level) else layer(h)
        return self.conv_out(F.silu(self.norm_out(h)))


class Attention(nn.Module):
    def __init__(self, width: int, heads: int):
        super().__init__()
        self.heads, self.inputs, self.output = heads, nn.Linear(width, 3 * width), nn.Linear(width, width)

    def forward(self, x):
        return self.output(attend(self.inputs(x), self.heads))


class Perceptron(nn.Module):
    def __init__(self, width: int, hidden: int):
        super().__init__()
        self.hidden, self.output = nn.Linear(width, hidden), nn.Linear(hidden, width)

    def forward(self, x):
        return self.output(F.gelu(self.hidden(x), approximate='tanh'))


def modulate(x, shift, scale):
    return F.layer_norm(x, x.shape[-1:], eps=1e-6) * (1 + scale[:, None]) + shift[:, None]


class Block(nn.Module):
    def __init__(self, width: int, heads: int, expansion: int):
        super().__init__()
        self.modulation = nn.Linear(width, 6 * width)
        self.attention, self.mlp = Attention(width, heads), Perceptron(width, expansion * width)

    def forward(self, x, condition):
        shift, scale, gate, shift_mlp, scale_mlp, gate_mlp = self.modulation(condition).chunk(6, dim=-1)
        x = x + gate[:, None] * self.attention(modulate(x, shift, scale))
        return x + gate_mlp[:, None] * self.mlp(modulate(x, shift_mlp, scale_mlp))


class DiT(nn.Module):
    def __init__(self, shape: tuple, o: dict):
        super().__init__()
        from genbench.networks.dit import TIME_FEATURES, positions

        width, patch, pixels = o['width'], o['patch'], o['patch'] ** 2 * shape[2]
        self.patch, self.grid = patch, shape[0] // patch
        self.register_buffer('positions', torch.from_numpy(positions(self.grid, self.grid, width)))
        self.conditioning = Conditioning(TIME_FEATURES, width, endpoint=False)
        self.tokens = nn.Linear(pixels, width)
        self.blocks = nn.ModuleList([Block(width, o['heads'], o['expansion']) for _ in range(o['depth'])])
        self.modulation, self.output = nn.Linear(width, 2 * width), nn.Linear(width, pixels)

    def forward(self, x, t):
        batch, channels, side, _ = x.shape
        grid, patch, condition = self.grid, self.patch, self.conditioning(t)
        tokens = x.reshape(batch, channels, grid, patch, grid, patch).permute(0, 2, 4, 3, 5, 1)
        h = self.tokens(tokens.reshape(batch, grid * grid, -1)) + self.positions
        for block in self.blocks:
            h = block(h, condition)
        y = self.output(modulate(h, *self.modulation(condition).chunk(2, dim=-1)))
        y = y.reshape(batch, grid, grid, patch, patch, channels).permute(0, 5, 1, 3, 2, 4)
        return y.reshape(batch, channels, side, side)


def load(network: nn.Module, params: dict[str, np.ndarray]) -> None:
    """Copy genbench's parameters {'conv_in/kernel': …}; every parameter of the network must get one."""
    missing = {name for name, _ in network.named_parameters()}
    for path, value in params.items():
        owner, _, leaf = path.replace('/', '.').rpartition('.')
        name = f'{owner}.{"bias" if leaf == "bias" else "weight"}'
        own = network.get_parameter(name)
        if leaf == 'kernel':
            value = value.transpose(3, 2, 0, 1) if value.ndim == 4 else value.T
        own.data.copy_(torch.from_numpy(np.ascontiguousarray(value)).reshape(own.shape))
        missing.remove(name)
    assert not missing, f'without a value: {sorted(missing)}'


def can_compile() -> bool:
    """Whether torch.compile has what it needs: a C++ compiler on CPU."""
    return torch.cuda.is_available() or any(shutil.which(name) for name in ('g++', 'clang++', 'c++'))


class Torch:
    """One training step of the loss of DDPM with Adam, clipping and an average."""

    def __init__(self, told: dict[str, Any], compiled: bool):
        self.told, gpu = told, torch.cuda.is_available()
        self.device = torch.device('cuda' if gpu else 'cpu')
        torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = True
        torch.backends.cudnn.benchmark = True
        build = {'unet': UNet, 'dit': DiT}[told['network']['name']]
        self.network = build(told['shape'], told['network']).to(self.device)
        if gpu:
            self.network = self.network.to(memory_format=torch.channels_last)
        self.call = torch.compile(self.network) if compiled else self.network
        self.half = told['network']['dtype'] == 'bfloat16'
        parameters = list(self.network.parameters())
        self.optimizer = torch.optim.Adam(parameters, told['rate'], fused=True)
        self.average = [value.detach().clone() for value in parameters]
        height, width, channels = told['shape']
        self.images = torch.randint(0, told['levels'], (1024, channels, height, width), device=self.device)
        self.tables = [torch.from_numpy(told[name]).to(self.device) for name in ('alpha', 'sigma', 'condition')]

    def count(self) -> int:
        return sum(value.numel() for value in self.network.parameters())

    def check(self, params: dict[str, np.ndarray], x: np.ndarray, t: np.ndarray) -> tuple[float, float]:
        """Mean square of the output and norm of its gradient, of the network with these parameters in float32."""
        kept = {name: value.clone() for name, value in self.network.state_dict().items()}
        load(self.network, params)
        image = torch.from_numpy(np.ascontiguousarray(x.transpose(0, 3, 1, 2))).to(self.device)
        loss = self.network(image, torch.from_numpy(t).to(self.device)).float().square().mean()
        gradient = torch.autograd.grad(loss, list(self.network.parameters()))
        self.network.load_state_dict(kept)
        return float(loss.detach()), float(torch.sqrt(sum(part.square().sum() for part in gradient)))

    def predict(self, x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.half):
            return self.call(x, t).float()

    def step(self) -> None:
        told, batch = self.told, self.told['batch']
        levels = told['levels']
        x = self.images[torch.randint(0, len(self.images), (batch,), device=self.device)].float()
        x = 2 * (x + (torch.rand_like(x) if told['dequantise'] else 0.5)) / levels - 1
        n = torch.randint(1, len(self.tables[0]), (batch,), device=self.device)
        alpha, sigma, t = (table[n] for table in self.tables)
        alpha, sigma, noise = alpha[:, None, None, None], sigma[:, None, None, None], torch.randn_like(x)
        target = alpha * noise - sigma * x if told['prediction'] == 'v' else noise
        loss = F.mse_loss(self.predict(alpha * x + sigma * noise, t), target)
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.network.parameters(), told['clip'])
        self.optimizer.step()
        with torch.no_grad():
            torch._foreach_lerp_(self.average, list(self.network.parameters()), 1 - told['decay'])

    def wait(self) -> None:
        if self.device.type == 'cuda':
            torch.cuda.synchronize()

    def run(self, steps: int) -> float:
        """Seconds of a training step."""
        self.wait()
        began = time.perf_counter()
        for _ in range(steps):
            self.step()
        self.wait()
        return (time.perf_counter() - began) / steps


class TorchSampler(Torch):
    """The same with `run` as the sampler."""

    @torch.inference_mode()
    def run(self, steps: int) -> float:
        """Seconds of one batch by DDIM (Song et al. 2021, equation 12 with η = 0), as integers on the host."""
        told, (height, width, channels) = self.told, self.told['shape']
        began = time.perf_counter()
        x = torch.randn((told['batch'], channels, height, width), device=self.device)
        last = len(self.tables[0]) - 1
        grid = [round(last * (steps - index) / steps) for index in range(steps + 1)]
        for now, then in zip(grid[:-1], grid[1:], strict=True):
            (a, s, t), (a_next, s_next, _) = ([table[n] for table in self.tables] for n in (now, then))
            y = self.predict(x, t.expand(len(x)))
            image, noise = (a * x - s * y, s * x + a * y) if told['prediction'] == 'v' else ((x - s * y) / a, y)
            x = a_next * image + s_next * noise
        ((x.clamp(-1, 1) + 1) / 2 * (told['levels'] - 1)).round().to(torch.int32).cpu().numpy()
        return time.perf_counter() - began

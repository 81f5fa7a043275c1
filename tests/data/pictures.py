"""Pictures of many sizes and kinds, made where they are needed."""

import pathlib

import numpy as np
from PIL import Image, ImageDraw

MODES = ('RGB', 'L', 'RGBA', 'P', 'I;16', 'CMYK', 'LA', '1')
CLASSES = ('discs', 'squares', 'кресты')


def drawn(number, size):
    """A disc, a square or a cross of some colour on a soft ground, (height, width, 3) uint8."""
    rng = np.random.default_rng(number)
    height, width = size
    ground = np.linspace(rng.uniform(0, 90), rng.uniform(90, 180), width)[None, :, None] * rng.uniform(0.5, 1, 3)
    picture = Image.fromarray(np.broadcast_to(ground, (height, width, 3)).astype(np.uint8))
    draw, colour = ImageDraw.Draw(picture), tuple(rng.integers(120, 256, 3).tolist())
    side = min(size) * rng.uniform(0.2, 0.4)
    x, y = width / 2, height / 2
    box = (x - side, y - side, x + side, y + side)
    if number % 3 == 0:
        draw.ellipse(box, fill=colour)
    elif number % 3 == 1:
        draw.rectangle(box, fill=colour)
    else:
        draw.line(box, fill=colour, width=3)
        draw.line((box[0], box[3], box[2], box[1]), fill=colour, width=3)
    return np.asarray(picture)


def save(path, number, mode='RGB', size=(24, 24)):
    """One picture as a file of this mode."""
    image = Image.fromarray(drawn(number, size))
    if mode == 'I;16':
        image = Image.fromarray(np.asarray(image.convert('L')).astype(np.uint16) * 257)
    elif mode != 'RGB':
        image = image.convert(mode)
    path.parent.mkdir(parents=True, exist_ok=True)
    image.save(path.with_suffix('.jpg' if mode == 'CMYK' else '.png'))


def mixed(folder, count, classes=CLASSES, seed=0):
    """`count` pictures of all modes and sizes from 20 to 60 in class folders, with captions, and what is none."""
    rng, folder = np.random.default_rng(seed), pathlib.Path(folder)
    lines = ['file_name,caption']
    for number in range(count):
        mode, size = MODES[number // 3 % len(MODES)], tuple(rng.integers(20, 61, 2).tolist())
        name = f'{classes[number % len(classes)]}/{number:05d}'
        save(folder / name, number, mode, size)
        lines.append(f'{name}.{"jpg" if mode == "CMYK" else "png"},"a picture, number {number}"')
    (folder / 'captions.csv').write_text('\n'.join(lines))
    (folder / 'notes.txt').write_text('no picture')
    (folder / classes[0] / 'broken.png').write_bytes(b'\x89PNG\r\n\x1a\n no picture')
    return folder

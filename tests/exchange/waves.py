"""Arrays and inputs from formulas, the same wherever they are computed; numpy alone."""

import numpy as np

SIZE, CHANNELS, CLASSES = 8, 3, 3
LEVELS = np.array([0.02, 0.3, 2.0, 40.0], np.float32)  # noise levels σ / α
TIMES = np.array([0.001, 0.1, 0.5, 1.0], np.float32)  # of score SDE's VP
SIGMAS = np.array([0.05, 0.3, 2.0, 40.0], np.float32)  # of score SDE's VE, of pixels in [0, 1]
STEPS = 6
CHURN = {'churn': 40.0, 'tmin': 0.05, 'tmax': 50.0, 'noise': 1.003}  # EDM's for ImageNet-64, as S_churn, S_tmin, …


def fill(index, shape):
    """The array with this number in a state dict: weights near zero, the rest near one."""
    scale = 0.5 if len(shape) == 1 else 1.2 / np.sqrt(np.prod(shape[1:]))
    wave = np.sin(np.arange(np.prod(shape)) * (0.7 + 0.013 * index) + index)
    return (scale * wave + (len(shape) == 1)).reshape(shape).astype(np.float32)


def filled(shapes):
    """{name: array} of {name: shape} in the order of a state dict."""
    return {name: fill(index, shape) for index, (name, shape) in enumerate(shapes.items())}


def images():
    """(4, height, width, channels) that vary like images."""
    return np.cos(np.arange(4 * SIZE * SIZE * CHANNELS) * 0.37).reshape(4, SIZE, SIZE, CHANNELS).astype(np.float32)


def noise(step):
    """Of a step of a sampler, shaped like the images, of mean zero and variance one."""
    wave = np.sin(np.arange(4 * SIZE * SIZE * CHANNELS) * (1.3 + 0.11 * step) + step)
    return (np.sqrt(2) * wave).reshape(4, SIZE, SIZE, CHANNELS).astype(np.float32)


def labels():
    """Classes, the last of which is none."""
    return np.array([0, 1, 2, CLASSES])


def changes():
    """What was done to an image to train on it, (4, 9); zeros where nothing was."""
    return (np.sin(np.arange(36).reshape(4, 9)) * np.array([[1], [0], [1], [0]])).astype(np.float32)

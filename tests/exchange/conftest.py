"""What diffusers computed, which the tests of both layouts compare with."""

import pathlib

import numpy as np
import pytest


@pytest.fixture(scope='session')
def recorded():
    """By diffusers 0.42.1: names and shapes of its state dicts, outputs, ᾱ of its DDPM scheduler.

    The frequencies of its DiT are set as the card of an export says.
    """
    with np.load(pathlib.Path(__file__).parent / 'fixtures' / 'diffusers.npz') as file:
        return {name: file[name] for name in file.files}

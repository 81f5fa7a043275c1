"""What a process sets before it uses jax."""

import os
import subprocess
import sys

import pytest

from genbench import config as configs
from genbench.training import mesh

COUNT = 'from genbench import startup; startup.prepare({}); import jax; print(jax.device_count(), startup.cores())'


def _devices(fit: str = '', **environment: str) -> list[int]:
    inherited = {key: value for key, value in os.environ.items() if key != 'JAX_NUM_CPU_DEVICES'}
    command = [sys.executable, '-c', COUNT.format(fit)]
    done = subprocess.run(
        command, env={**inherited, 'JAX_PLATFORMS': 'cpu', **environment}, capture_output=True, text=True, check=True
    )
    return [int(word) for word in done.stdout.split()]


def test_a_core_is_a_device_on_cpu():
    devices, cores = _devices()
    assert devices == min(cores, 8)
    assert _devices('lambda most: most + 1')[0] == devices + 1
    assert _devices(JAX_NUM_CPU_DEVICES='3')[0] == 3


@pytest.mark.parametrize(
    ('overrides', 'most', 'expected'),
    [
        ({}, 8, 8),
        ({'train.batch_size': 100}, 8, 5),
        ({'train.batch_size': 64, 'train.accumulate': 16}, 8, 4),
        ({'train.batch_size': 7}, 4, 1),
        ({'mesh.tensor': 2}, 7, 4),
        ({'mesh.data': 1}, 8, 1),
        ({'mesh.data': 2, 'mesh.fsdp': 2}, 8, 4),
        ({'mesh.data': 2, 'mesh.fsdp': 8}, 8, 1),
    ],
)
def test_so_many_devices_that_batch_and_mesh_can_use(overrides, most, expected):
    config = configs.resolve({'family': {'name': 'gaussian'}}, [f'{key}={value}' for key, value in overrides.items()])
    assert mesh.fitting(config, most) == expected

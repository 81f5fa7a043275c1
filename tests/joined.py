"""Processes that a test starts and joins into one run on this machine."""

import os
import socket
import subprocess
import sys


def start(words, devices, number=1):
    """The processes of one run on this machine; they end with each other, whatever happens."""
    environment = {**os.environ, 'JAX_PLATFORMS': 'cpu', 'JAX_NUM_CPU_DEVICES': str(devices)}
    with socket.socket() as free:
        free.bind(('127.0.0.1', 0))
        address = f'127.0.0.1:{free.getsockname()[1]}'
    joined = [[f'--coordinator={address}', f'--num-processes={number}', f'--process-id={i}'] for i in range(number)]
    options = {'env': environment, 'stdout': subprocess.PIPE, 'stderr': subprocess.PIPE, 'text': True}
    return [subprocess.Popen([sys.executable, *words, *(flags * (number > 1))], **options) for flags in joined]


def finish(started, status=0):
    """Output of each process, all of which end with this status within a few minutes."""
    try:
        said = [process.communicate(timeout=240) for process in started]
    finally:
        for process in started:
            process.kill()
    assert [process.returncode for process in started] == [status] * len(started), said
    return [out for out, _ in said]

"""A separate process that compiles programs for devices that this machine lacks.

jax chooses its devices once per process, and compiling without devices needs different settings from training. The
compiler therefore runs in a child process. The parent keeps its own devices, and the compiler's messages on stderr
stay hidden.
"""

import importlib
import json
import os
import pathlib
import subprocess
import sys
import tempfile
from typing import Any

from genbench.errors import UserError
from genbench.networks import platforms
from genbench.training import topologies
from genbench.training.topologies import Target

CUDNN = 91000  # the cuDNN version in the descriptions of GPUs, as cuDNN numbers it
SAID = 'genbench: '  # prefix of the stderr lines to show to the user


def ask(function: str, arguments: Any, target: Target) -> Any:
    """Call 'module:function' with (arguments, target) in a process that can compile for the target.

    Args:
      arguments: values that JSON can hold. The result must be one, too.

    Raises:
      UserError: the compiler is not installed, or the function raised a UserError.
    """
    topologies.check_installed(target)
    question = {
        'function': function, 'arguments': arguments, 'kind': target.kind, 'sides': target.sides,
        'slices': target.slices,
    }  # fmt: skip
    alone = {'JAX_PLATFORMS': 'cpu', 'JAX_NUM_CPU_DEVICES': '1', **target.environment}
    with tempfile.TemporaryDirectory() as folder:
        asked, answered = pathlib.Path(folder) / 'asked.json', pathlib.Path(folder) / 'answered.json'
        asked.write_text(json.dumps(question))
        command = [sys.executable, '-m', 'genbench.training.compile_only', str(asked), str(answered)]
        with subprocess.Popen(command, env={**os.environ, **alone}, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                              stderr=subprocess.PIPE, text=True, errors='replace') as child:  # fmt: skip
            assert child.stderr is not None
            noise = [line for line in child.stderr if not _say(line)]
        if child.returncode or not answered.is_file():
            told = ''.join(noise[-20:])
            raise RuntimeError(f'The process that compiles for {target.name} failed with {child.returncode}:\n{told}')
        answer = json.loads(answered.read_text())
    if 'error' in answer:
        raise UserError(answer['error'])
    return answer['answer']


def _say(line: str) -> bool:
    """Pass on a line that is meant for the user. False for any other line."""
    if line.startswith(SAID):
        print(line, end='', file=sys.stderr, flush=True)
    return line.startswith(SAID)


def main(asked: str, answered: str) -> None:
    """Read the question from one file and write the answer to another."""
    import jax

    from genbench import startup

    startup.prepare()
    jax.config.update('jax_enable_compilation_cache', False)  # it cannot read such programs back
    question = json.loads(pathlib.Path(asked).read_text())
    target = Target(question['kind'], tuple(question['sides']), question['slices'])
    module, _, name = question['function'].partition(':')
    platform = 'gpu' if target.known.platform == 'cuda' else 'tpu'
    if platform == 'gpu':
        _promise_cudnn()
    try:
        with platforms.compiled_for(platform):
            answer = {'answer': getattr(importlib.import_module(module), name)(question['arguments'], target)}
    except UserError as error:
        answer = {'error': str(error)}
    pathlib.Path(answered).write_text(json.dumps(answer))


def _promise_cudnn() -> None:
    """Let jax emit calls to cuDNN's attention although cuDNN is missing here: the machine with the GPU has it."""
    from jax._src.cudnn import fused_attention_stablehlo as attention

    try:
        attention.check_cudnn_version()
    except RuntimeError:
        attention.check_cudnn_version = lambda: CUDNN


if __name__ == '__main__':
    main(*sys.argv[1:])

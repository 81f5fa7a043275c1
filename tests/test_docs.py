"""Every command and every file of the guides in docs/, run as a reader would, in a copy of the project.

Blocks begin with ```sh (commands) or ```LANGUAGE PATH (a file). ```text is what cannot be run here. Trainings are cut
to a few steps by overrides after the written command, which otherwise stays as it is.
"""

import os
import pathlib
import re
import shlex
import shutil
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[1]
GUIDES = sorted(path.name for path in (ROOT / 'docs').glob('*.md'))
BLOCK = re.compile(r'^```(\w+)(?: +(\S+))?\n(.*?)^```$', re.MULTILINE | re.DOTALL)
FEWER = {
    'train': ('train.num_steps=4', 'evaluation.num_samples=64'),
    'run': ('train.num_steps=4', 'evaluation.num_samples=64', 'evaluation.sets=1', 'evaluation.refine_images=2',
            'evaluation.ode.num_steps=2', 'evaluation.vlb_draws=1', 'evaluation.classifier.num_steps=5'),
    'evaluate': ('evaluation.num_samples=64', 'evaluation.sets=1', 'evaluation.refine_images=2',
                 'evaluation.ode.num_steps=2', 'evaluation.vlb_draws=1', 'evaluation.classifier.num_steps=5'),
}  # fmt: skip


def blocks(guide):
    """(language, path or tag, text) of every fenced block."""
    return BLOCK.findall((ROOT / 'docs' / guide).read_text())


def command(line):
    """(environment, arguments) of a written line; a training is made short."""
    words = shlex.split(line)
    environment = {}
    while '=' in words[0] and not words[0].startswith('-'):
        name, _, environment[name] = words.pop(0).partition('=')
    tool, *rest = words
    assert tool in ('genbench', 'pytest'), f'{line}: only genbench and pytest are run'
    if tool == 'pytest':
        return environment, [sys.executable, '-m', 'pytest', '-n', '0', '-p', 'no:cacheprovider', *rest]
    return environment, [
        sys.executable,
        '-m',
        'genbench',
        *rest,
        *(f'--config.{key}' for key in FEWER.get(rest[0], ())),
    ]


@pytest.fixture(scope='module')
def project(tmp_path_factory):
    """A copy that guides may write into."""
    copy = tmp_path_factory.mktemp('docs') / 'project'
    for name in ('genbench', 'configs', 'experiments', 'tests'):
        shutil.copytree(ROOT / name, copy / name, ignore=shutil.ignore_patterns('__pycache__'))
    shutil.copy(ROOT / 'pyproject.toml', copy)
    return copy


@pytest.mark.slow
@pytest.mark.parametrize('guide', GUIDES)
def test_what_a_guide_says_runs(guide, project):
    ran = 0
    for language, path, text in blocks(guide):
        if language == 'python':
            (project / path).write_text(text)
        if language != 'sh' or path == 'slurm':  # those are run in tests/studies/test_slurm.py
            continue
        for line in text.replace('\\\n', ' ').splitlines():
            environment, arguments = command(line)
            inherited = {**os.environ, 'PYTHONPATH': str(project), **environment}
            done = subprocess.run(arguments, cwd=project, env=inherited, capture_output=True, text=True, check=False)
            assert done.returncode == 0, f'{line}\n{done.stdout[-2000:]}\n{done.stderr[-3000:]}'
            ran += 1
    assert ran, f'{guide} has no command that is run'


def test_guides_name_files_that_exist():
    for guide in GUIDES:
        for target in re.findall(r'\]\(([\w./-]+)\)', (ROOT / 'docs' / guide).read_text()):
            assert (ROOT / 'docs' / target).exists(), f'{guide} points to {target}'

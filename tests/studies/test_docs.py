"""Every command and every file of the guides in docs/, run as a reader would, in a copy of the project.

Blocks begin with ```sh (commands), ```sh slurm (commands for a cluster) or ```LANGUAGE PATH (a file). ```text is what
cannot be run here. Trainings, edits and watermarks are cut to a few steps, and studies to one metric, by overrides
after the written command, which otherwise stays as it is; the studies of docs/studies are only planned. No
number is looked at, so programs are compiled with few optimisations, which is faster.
"""

import os
import pathlib
import re
import shlex
import shutil
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

ROOT = pathlib.Path(__file__).resolve().parents[2]
GUIDES = sorted(str(path.relative_to(ROOT / 'docs')) for path in (ROOT / 'docs').rglob('*.md'))
CHANGES = 'changelog.md'  # has no commands
BLOCK = re.compile(r'^```(\w+)(?: +(\S+))?\n(.*?)^```$', re.MULTILINE | re.DOTALL)
FEWER = {
    'train': ('train.num_steps=4', 'evaluation.num_samples=64'),
    'evaluate': ('evaluation.num_samples=64', 'evaluation.sets=1', 'evaluation.refine_images=2',
                 'evaluation.ode.num_steps=2', 'evaluation.vlb_draws=1', 'evaluation.classifier.num_steps=5',
                 'evaluation.restoration.samplers=ancestral:2:posterior=ddnm'),
    'run': ('train.num_steps=4', 'train.batch_size=16', 'train.sample_every=0', 'network.channels=8',
            'network.multipliers=(1,)',
            'evaluation.num_samples=64', 'evaluation.sets=1', 'evaluation.classifier.num_steps=5',
            'evaluation.metrics=fd'),
}  # fmt: skip


def blocks(guide):
    """(language, path or tag, text) of every fenced block."""
    return BLOCK.findall((ROOT / 'docs' / guide).read_text())


def command(line, *more):
    """(environment, arguments) of a written line; a training is made short."""
    words = shlex.split(line)
    environment = {}
    while '=' in words[0] and not words[0].startswith('-'):
        name, _, environment[name] = words.pop(0).partition('=')
    tool, *rest = words
    assert tool in ('genbench', 'pytest'), f'{line}: only genbench and pytest are run'
    if tool == 'pytest':
        return environment, [sys.executable, '-m', 'pytest', '-n', '0', '-p', 'no:cacheprovider', *rest]
    return environment, [sys.executable, '-m', 'genbench', *rest, *more]


def shortened(line):
    """The same, with little to train."""
    verb = shlex.split(line)[1:2]
    if verb == ['edit'] and '--sampler' not in line:
        return command(line, '--sampler=ddim:2')
    if verb == ['watermark'] and ' embed ' in line:
        return command(line, '--sampler=ddim:2', '--count=20')
    return command(line, *(f'--config.{key}' for key in FEWER.get(verb[0] if verb else '', ())))


def run(project, line, environment, arguments):
    inherited = {**os.environ, 'JAX_DISABLE_MOST_OPTIMIZATIONS': '1', 'PYTHONPATH': str(project), **environment}
    done = subprocess.run(arguments, cwd=project, env=inherited, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f'{line}\n{done.stdout[-2000:]}\n{done.stderr[-3000:]}'
    return done.stdout


def lines(text):
    return text.replace('\\\n', ' ').splitlines()


@pytest.fixture(scope='module')
def project(tmp_path_factory):
    """A copy that guides may write into."""
    copy = tmp_path_factory.mktemp('docs') / 'project'
    for name in ('genbench', 'configs', 'experiments', 'tests'):
        shutil.copytree(ROOT / name, copy / name, ignore=shutil.ignore_patterns('__pycache__'))
    shutil.copy(ROOT / 'pyproject.toml', copy)
    photos(copy / 'photos')
    return copy


def photos(folder):
    """A reader's own, of two classes."""
    pixels = np.random.default_rng(0).integers(0, 256, (1500, 20, 24, 3)).astype(np.uint8)
    for number, image in enumerate(pixels):
        path = folder / ('cats', 'dogs')[number % 2] / f'{number:04d}.png'
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(path)


@pytest.mark.slow
@pytest.mark.parametrize('guide', [guide for guide in GUIDES if '/' not in guide and guide != CHANGES])
def test_what_a_guide_says_runs(guide, project):
    ran = 0
    for language, path, text in blocks(guide):
        if language == 'python':
            (project / path).write_text(text)
        if language == 'sh' and path != 'slurm':
            for line in lines(text):
                run(project, line, *shortened(line))
                ran += 1
    assert ran, f'{guide} has no command that is run'


@pytest.mark.slow
@pytest.mark.parametrize('guide', [guide for guide in GUIDES if guide.startswith('studies/')])
def test_the_studies_that_are_told_of_can_be_planned(guide, project):
    (line, *_) = [line for _, _, text in blocks(guide) for line in lines(text)]
    assert 'to run.' in run(project, line, *command(line, '--dry-run'))


@pytest.mark.slow
def test_what_the_guide_to_clusters_says_runs_on_one(project, cluster):
    written = [line for _, tag, text in blocks('clusters.md') if tag == 'slurm' for line in lines(text)]
    try:
        steps = '--config.train.num_steps=4'
        *_, last = [run(project, line, *command(line, *([steps] if ' run ' in line else []))) for line in written]
        assert 'queued' in last or 'running' in last
    finally:
        cluster.ask('scancel', '--user=root')


def test_guides_name_files_that_exist():
    for page in (ROOT / 'README.md', *(ROOT / 'docs' / guide for guide in GUIDES)):
        for target in re.findall(r'\]\(([\w./-]+)\)', page.read_text()):
            assert page.parent.joinpath(target).exists(), f'{page.name} points to {target}'

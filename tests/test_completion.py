"""Completion in the shells: what bash offers, and that all verbs, actions and config keys are in every script."""

import os
import shutil
import subprocess

import pytest

from genbench import cli, completion

ASK = """
source "$0"
line="$1"; COMP_LINE="$line"; COMP_POINT=${#line}
read -ra COMP_WORDS <<< "$line"
[[ "$line" == *" " ]] && COMP_WORDS+=("")
COMP_CWORD=$((${#COMP_WORDS[@]} - 1))
_genbench
echo "${COMPREPLY[*]}"
"""


@pytest.fixture(scope='module')
def scripts(tmp_path_factory):
    """{shell: file}"""
    folder = tmp_path_factory.mktemp('completion')
    for shell in ('bash', 'zsh', 'fish'):
        (folder / shell).write_text(completion.script(shell, cli.parser()))
    return {path.name: path for path in folder.iterdir()}


@pytest.mark.parametrize(
    ('line', 'offered'),
    [
        ('genbench tr', 'train'),
        ('genbench train --work', '--workdir'),
        ('genbench train --config.optimizer.le', '--config.optimizer.learning_rate='),
        ('genbench evaluate runs/x --config.network.mul', '--config.network.multipliers='),
        ('genbench data ', '--help list prepare show'),
        ('genbench data prepare --si', '--size'),
        ('genbench completion f', 'fish'),
        ('genbench status runs/', ''),
    ],
)
def test_bash_offers_what_may_follow(scripts, line, offered):
    bash = shutil.which('bash')
    if bash is None:
        pytest.skip('bash is not installed')
    words, env = [bash, '--norc', '-c', ASK, scripts['bash'], line], {'PATH': os.environ['PATH']}
    done = subprocess.run(words, capture_output=True, text=True, check=True, env=env)
    assert done.stdout.strip() == offered


@pytest.mark.parametrize('shell', ['bash', 'zsh', 'fish'])
def test_every_verb_and_key_is_in_the_script_and_the_shell_can_read_it(scripts, shell):
    text = scripts[shell].read_text()
    keys = ('optimizer.learning_rate', 'family.teacher', 'network.heads')
    for word in (*cli.VERBS, *(f'--config.{key}=' for key in keys)):
        assert word in text
    if program := shutil.which(shell):
        subprocess.run([program, '-n', scripts[shell]], check=True)


def test_the_verb_prints_the_script(scripts, capsys):
    assert cli.main(['completion', 'zsh']) == 0
    assert capsys.readouterr().out == scripts['zsh'].read_text()

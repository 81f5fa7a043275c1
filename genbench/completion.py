"""Command-line completion for bash, zsh and fish, as a script that is generated once and then needs no Python."""

import argparse
from collections.abc import Iterable, Iterator, Sequence


def script(shell: str, parser: argparse.ArgumentParser) -> str:
    """A script that completes a parser's verbs, actions and flags, and `--config.KEY=`."""
    words = dict(_words(parser, ()))
    return {'bash': _bash, 'zsh': _zsh, 'fish': _fish}[shell](words, [f'--config.{key}=' for key in _keys()])


def _keys() -> list[str]:
    """The config keys of every family and network."""
    from genbench import config, families, networks, settings

    sections = [settings.DEFAULTS, *(families.get(name).defaults() for name in families.names())]
    sections += [{'network': keys} for keys in networks.DEFAULTS.values()]
    return sorted({key for section in sections for key, _ in config.flatten(section)})


def _words(parser: argparse.ArgumentParser, path: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], list[str]]]:
    """(verb and action, the words that may follow) for a parser and its subparsers."""
    found = [flag for action in parser._actions for flag in action.option_strings if flag.startswith('--')]
    found += ['--config.'] * ('--config.' in (parser.epilog or ''))
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            found += action.choices
            for name, below in action.choices.items():
                yield from _words(below, (*path, name))
        elif action.choices and not action.option_strings:
            found += action.choices
    yield path, found


def _bash(words: dict[tuple[str, ...], list[str]], keys: Sequence[str]) -> str:
    cases = '\n'.join(f'    {_quoted(" ".join(path))}) words={_quoted(" ".join(words[path]))} ;;' for path in words)
    return f"""_genbench() {{
  local word="${{COMP_LINE:0:COMP_POINT}}" at="${{COMP_WORDS[1]}}" words="" keys={_quoted(' '.join(keys))}
  word="${{word##* }}"
  case " {_nested(words)} " in *" $at "*) [ "$COMP_CWORD" -gt 2 ] && at="$at ${{COMP_WORDS[2]}}" ;; esac
  [ "$COMP_CWORD" -lt 2 ] && at=""
  case "$at" in
{cases}
  esac
  case "$word" in --config.*) words="$keys" ;; esac
  COMPREPLY=($(compgen -W "$words" -- "$word"))
  case "$COMPREPLY" in *= | *.) compopt -o nospace 2> /dev/null ;; esac
}}
complete -o default -o bashdefault -F _genbench genbench
"""


def _zsh(words: dict[tuple[str, ...], list[str]], keys: Sequence[str]) -> str:
    cases = '\n'.join(f'    {_quoted(" ".join(path))}) found=({" ".join(words[path])}) ;;' for path in words)
    return f"""#compdef genbench
_genbench() {{
  local at="" found=() keys=({' '.join(map(_quoted, keys))})
  (( CURRENT > 2 )) && at="$words[2]"
  (( CURRENT > 3 )) && [[ " {_nested(words)} " == *" $at "* ]] && at="$at $words[3]"
  case "$at" in
{cases}
  esac
  if [[ "$words[CURRENT]" == --config.* ]]; then compadd -S '' -a keys; else compadd -a found; _files; fi
}}
if [ "$funcstack[1]" = "_genbench" ]; then _genbench "$@"; else compdef _genbench genbench; fi
"""


def _fish(words: dict[tuple[str, ...], list[str]], keys: Sequence[str]) -> str:
    lines = [_fish_line('__fish_use_subcommand', words[()])]
    for path in words:
        if path:
            seen = '; and '.join(f'__fish_seen_subcommand_from {name}' for name in path)
            lines.append(_fish_line(seen, words[path]))
    lines.append(_fish_line('string match -q -- "--config.*" (commandline -ct)', keys))
    return '\n'.join(lines) + '\n'


def _fish_line(condition: str, words: Iterable[str]) -> str:
    return f'complete -c genbench -n {_quoted(condition)} -a {_quoted(" ".join(words))}'


def _nested(words: Iterable[tuple[str, ...]]) -> str:
    """The verbs that have actions."""
    return ' '.join(sorted({path[0] for path in words if len(path) > 1}))


def _quoted(text: str) -> str:
    return f"'{text}'"

"""Completion: the shell asks the program itself, so that what it offers is never out of date."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from cl_core.commands.own import CompletionConfig, Program
from cl_core.commands.recipes import recipe_names
from cl_core.commands.vocabulary import CommandTable, find_command, options_of
from cl_core.errors import InputError

__all__ = ["ASKED", "candidates", "completion_script"]

ASKED = "CL_COMPLETE"
"""The environment variable by which a shell says that it asks, not the user."""

_SCRIPTS = {
    "bash": """\
{function}() {{
    local IFS=$'\\n'
    COMPREPLY=($({asked}=bash {name} "${{COMP_WORDS[@]:1:COMP_CWORD}}" 2>/dev/null))
}}
complete -o default -F {function} {name}""",
    "zsh": """\
{function}() {{
    local -a found
    found=(${{(f)"$({asked}=zsh {name} "${{(@)words[2,CURRENT]}}" 2>/dev/null)"}})
    if (( $#found )); then compadd -a found; else _files; fi
}}
(( $+functions[compdef] )) || {{ autoload -Uz compinit && compinit }}
compdef {function} {name}""",
    "fish": """\
function {function}
    set -l typed (commandline -opc)
    env {asked}=fish {name} $typed[2..] (commandline -ct | string collect -a) 2>/dev/null
end
complete -c {name} -a '({function})'""",
}


def completion_script(program: Program, config: CompletionConfig) -> str:
    """The lines that a shell evaluates to complete the program's words."""
    function = "_" + program.name.replace("-", "_")
    return _SCRIPTS[config.shell].format(name=program.name, function=function, asked=ASKED)


def candidates(commands: CommandTable, words: Sequence[str]) -> list[str]:
    """What the last of the words, which may be empty, can become; nothing where a file is meant.

    Args:
        commands: All verbs of the program.
        words: What was typed after the program's name.
    """
    *before, last = words or [""]
    try:
        taken, entry = find_command(commands, before)
    except InputError:
        return []
    if isinstance(entry, Mapping):
        found = [*entry, "--help", "--version"] if len(taken) == len(before) else []
    else:
        found = list(_of_command(entry[0], before[len(taken) :], last))
    return [word for word in found if word.startswith(last)]


def _of_command(config_class: type, before: Sequence[str], last: str) -> Iterator[str]:
    options = options_of(config_class)
    asked = before[-1] if before else ""
    if asked in ("--help", "-h"):
        yield from dict.fromkeys(option.group for option in options if option.nested)
        yield "all"
    for option in options:
        if asked.replace("-", "_") == f"__{option.name}" and not last.startswith("--"):
            yield from (str(word) for word in option.choices)
            if option.name == "recipe":
                yield from recipe_names(config_class)
            if not option.is_switch:
                return
    words = getattr(config_class, "words", "")
    yield from (str(w) for option in options if option.name == words for w in option.choices)
    if last.startswith("-"):
        yield from (f"--{option.name}" for option in options)
        yield from ("--config", "--print_config", "--quiet", "--help")

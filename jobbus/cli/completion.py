"""`completion`: scripts for bash, zsh and fish, and the words that they ask for.

The scripts call `jobbus __complete` with the words of the line so far, the last of them begun. It
prints one candidate a line, behind a tab what it is. Without a service only commands and
options are completed.
"""

import asyncio
from collections.abc import Iterable, Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

from bus.errors import BusError
from bus.wording import did_you_mean, quoted
from jobbus.cli.exits import CliError, Exit

if TYPE_CHECKING:
    from cyclopts import App

    from jobbus.cli.target import Target
    from jobbus.client.client import Client

SHELLS = ("bash", "zsh", "fish")
ASK = "__complete"
"""The hidden command of the scripts."""

_ANSWER_S_MAX = 3.0
_EXECUTIONS_MAX = 50

_JOBS = frozenset({"start", "run"})
_LIVE = frozenset({"stop", "restart", "cancel"})
_ALL = frozenset({"logs", "status", "inspect", "wait", "retry", "delete", "command"})
_WORDS = {"maintenance": ("on", "off"), "clock": ("believe",), "completion": SHELLS}
_VALUES = {
    "--stream": ("out", "err"),
    "--role": ("viewer", "operator", "admin"),
}

Candidate = tuple[str, str]

_BASH = """\
_jobbus() {
    local line=${COMP_LINE:0:COMP_POINT} word=${COMP_WORDS[COMP_CWORD]} found
    local -a words
    read -ra words <<< "$line"
    [[ $line == *[[:space:]] ]] && words+=("")
    local whole=${words[-1]}
    # What bash takes for the word begins behind = and :, which a whole word may hold.
    case $word in =|:) word= ;; esac
    local before=${whole%"$word"}
    COMPREPLY=()
    while IFS=$'\\t' read -r found _; do
        COMPREPLY+=("${found#"$before"}")
    done < <(jobbus __complete "${words[@]:1}" 2>/dev/null)
    [[ ${#COMPREPLY[@]} == 1 && ${COMPREPLY[0]} == *= ]] && compopt -o nospace
}
complete -o default -o nosort -F _jobbus jobbus
"""
_ZSH = """\
#compdef jobbus
_jobbus() {
    local -a found shown
    local line
    for line in "${(@f)$(jobbus __complete "${(@)words[2,CURRENT]}" 2>/dev/null)}"; do
        [[ -z $line ]] && continue
        found+=("${line%%$'\\t'*}")
        shown+=("${line//$'\\t'/  }")
    done
    if (( $#found )); then compadd -Q -l -d shown -a found; else _files; fi
}
if [[ $funcstack[1] == _jobbus ]]; then _jobbus "$@"; else compdef _jobbus jobbus; fi
"""
_FISH = """\
function __jobbus_complete
    set -l words (commandline -opc) (commandline -ct)
    jobbus __complete $words[2..-1] 2>/dev/null
end
complete -c jobbus -f -a '(__jobbus_complete)'
"""
_SCRIPTS = {"bash": _BASH, "zsh": _ZSH, "fish": _FISH}
_HOW = {
    "bash": "source <(jobbus completion bash)    in ~/.bashrc",
    "zsh": "source <(jobbus completion zsh)    in ~/.zshrc, behind compinit",
    "fish": "jobbus completion fish > ~/.config/fish/completions/jobbus.fish",
}


def completion(shell: str, /) -> int:
    """Print the script that completes jobs, ids, variables and options in a shell.

    Parameters
    ----------
    shell
        bash, zsh or fish.
    """
    if shell not in SHELLS:
        hint = did_you_mean(shell, SHELLS)
        raise CliError(f"{quoted(shell)} is no shell that can be completed for{hint}", Exit.USAGE)
    from jobbus.cli.show import on_terminal, say  # here, since completion itself needs neither

    print(_SCRIPTS[shell], end="", flush=True)
    if on_terminal():
        say(f"jobbus: to use it: {_HOW[shell]}")
    return Exit.OK


def complete(app: "App", words: Sequence[str]) -> int:
    """The candidates for the last of the words were printed: none, if something goes wrong."""
    *before, begun = words or ("",)
    try:
        for word, about in _candidates(app, before, begun):
            if word.startswith(begun):
                print(f"{word}\t{about}" if about else word)
    except (BusError, OSError, TimeoutError, ExceptionGroup):
        return Exit.OK
    return Exit.OK


def _candidates(app: "App", before: Sequence[str], begun: str) -> Iterable[Candidate]:
    if not before:
        from jobbus.cli.main import COMMANDS

        return [(name, about) for name, (_, about) in COMMANDS.items()]
    command, *rest = before
    if command not in _names(app):
        return ()
    chosen = app[command]
    inner = _names(chosen)
    if inner and not rest:
        return [(name, _about(chosen[name])) for name in inner]
    if inner:
        chosen = chosen[rest[0]] if rest[0] in inner else chosen
    if begun.startswith("-") and not begun.startswith("-V"):
        return _options(chosen)
    last = rest[-1] if rest else ""
    if last in _VALUES:
        return [(word, "") for word in _VALUES[last]]
    if last == "--status":
        from jobbus.cli.list import STATES

        return [(state.lower(), "") for state in STATES]
    if last in ("--var", "-V") or last == "--job" or not _takes_value(chosen, last):
        return asyncio.run(_asked(command, rest, last))
    return ()


def _names(app: "App") -> list[str]:
    """The commands below, in the order of the help."""
    return [name for name in app if not name.startswith("-")]


def _about(app: "App") -> str:
    return str(app.help or "").strip().partition("\n")[0]


def _options(app: "App") -> Iterator[Candidate]:
    for argument in app.assemble_argument_collection():
        for name in argument.names:
            if name.startswith("--"):
                yield name, (argument.parameter.help or "").replace("\n", " ")
    yield "--help", ""


def _takes_value(app: "App", option: str) -> bool:
    if not option.startswith("-"):
        return False
    for argument in app.assemble_argument_collection():
        if option in argument.names:
            return argument.hint is not bool and "bool" not in str(argument.hint)
    return False


async def _asked(command: str, rest: Sequence[str], last: str) -> list[Candidate]:
    """What the service knows: jobs, executions, variables."""
    if command in _WORDS:
        return [(word, "") for word in _WORDS[command]]
    if last not in ("--var", "-V", "--job") and command not in _JOBS | _LIVE | _ALL:
        return []
    from jobbus.cli.target import client_of, locate
    from jobbus.client.errors import JobbusError

    try:
        place = locate(_target(rest))
        if place.url is None:
            return []
        async with asyncio.timeout(_ANSWER_S_MAX), client_of(place) as client:
            if last in ("--var", "-V"):
                return await _variables(client, rest)
            found = await _jobs(client)
            if last != "--job" and command not in _JOBS:
                found += await _executions(client, live=command in _LIVE)
            return found
    except JobbusError:
        return []


async def _jobs(client: "Client") -> list[Candidate]:
    return [(job.job_id, job.description) for job in (await client.jobs()).items]


async def _executions(client: "Client", *, live: bool) -> list[Candidate]:
    from jobbus.cli.naming import LIVE
    from jobbus.cli.words import plain_ending, short_ids

    page = await client.executions(status=LIVE if live else (), limit=_EXECUTIONS_MAX)
    shown = short_ids(each.execution_id for each in page.items)
    return [
        (shown[each.execution_id], f"{each.job_id} {plain_ending(each)}") for each in page.items
    ]


async def _variables(client: "Client", rest: Sequence[str]) -> list[Candidate]:
    """`NAME=` for each variable of the job, and `NAME=CHOICE` where it has choices."""
    name = next((word for word in rest if "/" in word), None)
    if name is None:
        return []
    found: list[Candidate] = []
    for variable, spec in (await client.job(name)).variables.items():
        choices = ("true", "false") if spec.type == "boolean" else spec.choices
        about = spec.description or spec.type
        found += [(f"{variable}={each}", about) for each in choices] or [(f"{variable}=", about)]
    return found


def _target(rest: Sequence[str]) -> "Target":
    """The service that the words of the line name."""
    from jobbus.cli.target import Target

    given = dict(pairwise(rest))
    token_file, data = given.get("--token-file"), given.get("--data")
    return Target(
        url=given.get("--url"),
        token_file=Path(token_file) if token_file else None,
        data=Path(data) if data else None,
    )

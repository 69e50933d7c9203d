"""The command `jobbus`: its list of commands, and how errors reach people.

The modules of the commands are imported when they run, so that `jobbus --help` stays quick.
"""

import asyncio
import errno
import inspect
import os
import stat
import sys
from collections.abc import Iterator, Sequence
from enum import StrEnum
from io import TextIOWrapper
from pathlib import Path

from cyclopts import (
    App,
    CoercionError,
    CycloptsError,
    MissingArgumentError,
    UnknownCommandError,
    UnusedCliTokensError,
)

from bus.errors import BusError
from bus.visible_text import visible
from bus.wording import did_you_mean, quoted

COMMANDS = {
    "serve": (
        "jobbus.cli.serving:serve",
        "Run the service; SIGTERM or Ctrl-C ends it and leaves executions running.",
    ),
    "demo": ("jobbus.cli.demo:demo", "Serve the example apps and run a real job at once."),
    "start": ("jobbus.cli.commands:start", "Start a job once; prints the execution's id."),
    "stop": ("jobbus.cli.commands:stop", "Stop executions; with --all every one of a job."),
    "restart": ("jobbus.cli.commands:restart", "Stop what runs and start it again."),
    "cancel": ("jobbus.cli.commands:cancel", "Take back what still waits for its turn."),
    "retry": ("jobbus.cli.commands:retry", "Start an ended execution's job again as it was."),
    "delete": ("jobbus.cli.commands:delete", "Forget an ended execution and its output."),
    "run": ("jobbus.cli.run:run", "Start a job and follow it to its end; Ctrl-C only detaches."),
    "wait": ("jobbus.cli.run:wait", "Wait until executions have ended."),
    "status": ("jobbus.cli.status:status", "Show jobs or executions."),
    "inspect": ("jobbus.cli.details:inspect", "Print everything about them as JSON."),
    "jobs": ("jobbus.cli.jobs:jobs", "List the jobs: what runs, how the last ones ended."),
    "apps": ("jobbus.cli.jobs:apps", "List the apps, and what they say of themselves."),
    "ps": ("jobbus.cli.list:ps", "List what runs; with -a what has ended too."),
    "logs": ("jobbus.cli.logs:logs", "Show what executions print."),
    "artifacts": ("jobbus.cli.artifacts:artifacts", "List or fetch the files that one left."),
    "events": ("jobbus.cli.events:events", "Follow all changes."),
    "command": ("jobbus.cli.details:command", "Show a command."),
    "commands": ("jobbus.cli.list:commands", "List the commands, newest first."),
    "schedule": (
        "jobbus.cli.schedule:app",
        "Show what runs by itself; hold it, run it, make up for it.",
    ),
    "groups": ("jobbus.cli.queues:groups", "List groups of slots: how many run, how many wait."),
    "queue": (
        "jobbus.cli.queues:app",
        "Hold the queue of a job or of a group, and let it go on.",
    ),
    "maintenance": (
        "jobbus.cli.maintenance:maintenance",
        "Begin or end a maintenance: nothing starts.",
    ),
    "clock": (
        "jobbus.cli.clock:clock",
        "Show whether the clock is believed, or say that it is right.",
    ),
    "check": (
        "jobbus.cli.checking:check",
        "Check definitions and settings; needs no service.",
    ),
    "new": (
        "jobbus.cli.new:new",
        "Write a commented definition for a new job; needs no service.",
    ),
    "schema": (
        "jobbus.cli.schema:schema",
        "Print the JSON schema of job.toml or jobbus.toml, for editors.",
    ),
    "doctor": ("jobbus.cli.doctor:doctor", "Check a data directory, and repair what is safe."),
    "import": (
        "jobbus.cli.importing:import_jobs",
        "Write jobs from a crontab, supervisord, pm2 or PSWebHost.",
    ),
    "audit": ("jobbus.cli.auditing:audit", "Show who did what, newest first."),
    "completion": (
        "jobbus.cli.completion:completion",
        "Print the script that completes words in bash, zsh or fish.",
    ),
    "token": ("jobbus.cli.tokens:app", "Make, list and revoke the tokens of people and services."),
}
"""Name, where it is, what it does: in the order of the help."""


def main() -> None:
    """Runs the command line and exits with the code of the contract."""
    if None in (sys.stdin, sys.stdout, sys.stderr):
        from jobbus.service.stdio import open_missing_streams  # here, for it is hardly ever needed

        open_missing_streams()
    if isinstance(sys.stdout, TextIOWrapper):
        # A sign that a locale's character set lacks must not end what shows words of others.
        sys.stdout.reconfigure(errors="replace")
    sys.exit(run(sys.argv[1:]))


def run(arguments: Sequence[str]) -> int:
    """The exit code of `jobbus` with these arguments; errors become a sentence on stderr."""
    try:
        if arguments and arguments[0] == "__complete":
            from jobbus.cli.completion import complete  # here: for scripts of shells alone

            return complete(_app(), arguments[1:])
        return _call(arguments)
    except KeyboardInterrupt:
        return 130
    except CycloptsError as error:
        words = _usage_sentence(error)
        stop = "" if words.endswith((".", "?")) else "."
        _say(f"{words}{stop} See: {' '.join(('jobbus', *(error.command_chain or ())))} --help")
        return 2
    except BrokenPipeError:
        _drop_output()  # its reader has had enough
        return 0
    except (Exception, BaseExceptionGroup) as error:
        code = _explain(error)
        try:
            sys.stdout.flush()
        except OSError:
            _drop_output()
        return code


def _drop_output() -> None:
    """What stdout still holds goes nowhere: else the flush at exit fails, and complains."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)


def _usage_sentence(error: CycloptsError) -> str:
    """What is wrong with the words of a call, without the types of the library and of Python."""
    match error:
        case CoercionError(token=token, target_type=wanted) if token is not None:
            kind = {int: "a whole number", float: "a number"}.get(wanted or str)
            must = f"must be {kind}" if kind is not None else _one_of(wanted)
            return f"{token.keyword or 'the value'} {must}, not {quoted(token.value)}"
        case UnusedCliTokensError(unused_tokens=words):
            hint = next(
                (f"; a variable is given as --var {w}" for w in words or () if "=" in w), ""
            )
            return f"too many words: {', '.join(map(quoted, words or ()))}{hint}"
        case MissingArgumentError(argument=argument) if argument is not None:
            name = argument.name
            return f"{name} needs a value" if name.startswith("-") else f"{name} is missing"
        case UnknownCommandError(unused_tokens=words) if words and words[0].startswith("-"):
            return f"options come after the command: jobbus COMMAND {words[0]}"
        case UnknownCommandError(unused_tokens=words) if words:
            near = did_you_mean(words[0], COMMANDS)
            return f"there is no command {quoted(words[0])}{near if 'mean' in near else ''}"
        case _:
            return str(error)


def _one_of(wanted: object) -> str:
    """What is right where only some words are."""
    if isinstance(wanted, type) and issubclass(wanted, StrEnum):
        return f"must be one of {', '.join(wanted)}"
    return "takes no such value"


def _call(arguments: Sequence[str]) -> int:
    command, bound, _ = _app().parse_args(list(arguments), exit_on_error=False, print_error=False)
    result = command(*bound.args, **bound.kwargs)
    if inspect.iscoroutine(result):
        result = asyncio.run(result)
    sys.stdout.flush()
    return int(result or 0)


def _app() -> App:
    app = App(
        name="jobbus",
        help="Start, stop, restart and watch jobs, safely and live.",
        help_epilogue=(
            "The service is found by --url or JOBBUS_URL with --token-file or JOBBUS_TOKEN, "
            "else by its data directory: --data or JOBBUS_DATA, else ./jobbus-data."
        ),
        version=_version,
        help_formatter="default" if sys.stdout.isatty() else "plain",
    )
    for order, (name, (place, words)) in enumerate(COMMANDS.items()):
        app.command(place, name=name, help=words, sort_key=order)
    return app


def _version() -> str:
    from importlib.metadata import PackageNotFoundError, version  # here: 15 ms of each command

    try:
        return version("jobbus")
    except PackageNotFoundError:
        return "0+unknown"


def _explain(error: BaseException) -> int:
    """What went wrong was said in a sentence, with how to see more; the exit code."""
    from jobbus.cli.exits import exit_of  # here, since it loads the client's records
    from jobbus.client.errors import JobbusError

    ours = (BusError, JobbusError)
    known = [leaf for leaf in _leaves(error) if isinstance(leaf, (*ours, OSError, MemoryError))]
    if os.environ.get("JOBBUS_DEBUG"):
        raise error
    if not known:
        _say(
            "a fault of jobbus itself ended this call; JOBBUS_DEBUG=1 shows where, for a report of "
            "it"
        )
        return 1
    first = known[0]
    if isinstance(first, BusError | JobbusError):
        _say(str(first))
        return exit_of(first)
    _say(_sentence(first))
    return 1


def _sentence(error: BaseException) -> str:
    """Without the numbers of the system: what is missing, or which file is to blame for what."""
    from bus.scarcity import lack_of, reason_of  # here, since a call that succeeds needs it not

    if (lack := lack_of(error)) is not None:
        return lack
    place = getattr(error, "filename", None)
    if place is None and isinstance(error, OSError) and error.errno == errno.ENOSPC:
        return f"no room is left for what was to be written{_where_output_goes()}"
    return f"{place}: {reason_of(error)}" if place else reason_of(error)


def _where_output_goes() -> str:
    """The end of the sentence that names the file, if stdout is a file: it may be what is full."""
    try:
        mode = os.fstat(1).st_mode
        if stat.S_ISREG(mode) or stat.S_ISCHR(mode):
            return f"; the output goes to {Path('/proc/self/fd/1').readlink()}"
    except OSError:
        return ""
    return ""


def _leaves(error: BaseException) -> Iterator[BaseException]:
    if isinstance(error, BaseExceptionGroup):
        for inner in error.exceptions:
            yield from _leaves(inner)
    else:
        yield error


def _say(text: str) -> None:
    # It may repeat words of others: of a definition, of a service.
    print(f"jobbus: {visible(text, lines=True)}", file=sys.stderr)

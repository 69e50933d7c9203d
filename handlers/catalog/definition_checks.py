"""What a decoded definition must keep to beyond its types: one small generator a topic. Pure.

Each yields `Problem`s: the path of the faulty key and a sentence that says what would be right.
"""

import re
from collections.abc import Callable, Iterator
from pathlib import PurePosixPath

from bus.job_definition import UMASK, JobSpec, VariableType
from bus.wording import did_you_mean, quoted
from handlers.catalog.chain_checks import followers
from handlers.catalog.policy_checks import policies
from handlers.catalog.problem import SECONDS_MAX, Problem, expression, shown, within
from handlers.catalog.program_call import RESERVED_NAMES, RESERVED_PREFIX
from handlers.catalog.schedule_checks import schedules
from handlers.catalog.templates import names_in
from handlers.catalog.variable_checks import references, texts, variables

SIGNALS = frozenset(
    ("ABRT", "ALRM", "HUP", "INT", "KILL", "PIPE", "PWR", "QUIT", "TERM", "USR1", "USR2", "WINCH")
)
"""What may be sent to ask a program to end; those that pause it or ask nothing are left out."""

CODE_FLAGS = {
    re.compile(r"(?:ba|da|z|k|mk|a|fi|c|tc)?sh|busybox"): re.compile(r"-[A-Za-z]*c"),
    re.compile(r"python[0-9.]*|pypy[0-9.]*"): re.compile(r"-[A-Za-z]*c"),
    re.compile(r"perl|ruby|node|lua"): re.compile(r"-[A-Za-z]*e|--eval"),
    re.compile(r"pwsh|powershell(?:\.exe)?"): re.compile(r"(?i)-c(?:ommand)?"),
}
"""Programs that run code given as an argument, and the flag before that argument."""


def problems_of(spec: JobSpec) -> Iterator[Problem]:
    """Everything that is wrong with a definition whose types are right."""
    for check in _CHECKS:
        yield from check(spec)


# What the service does not build yet: a job that uses it is refused. To lift one, take its word
# out of NOT_BUILT.

NOT_BUILT = frozenset(("schedule.only", "schedule.except", "user", "ready"))

_USES: dict[str, Callable[[JobSpec], bool]] = {
    "user": lambda spec: spec.user is not None,
    "ready": lambda spec: spec.ready.partition(":")[0] in ("tcp", "output"),
}


def _not_built(spec: JobSpec) -> Iterator[Problem]:
    for word, uses in _USES.items():
        if word in NOT_BUILT and uses(spec):
            more = ' (only "spawn", "notify" and "after_s:N" are)' if word == "ready" else ""
            yield Problem((word,), f"{word} is not built yet in this version{more}")


def _calendars_not_built(spec: JobSpec) -> Iterator[Problem]:
    for index, schedule in enumerate(spec.schedule):
        for key, given in (("only", schedule.only), ("except", schedule.except_)):
            if given and f"schedule.{key}" in NOT_BUILT:
                yield Problem(("schedule", index, key), f"{key} is not built yet in this version")


def _command(spec: JobSpec) -> Iterator[Problem]:
    if not spec.command:
        yield Problem(("command",), 'command is empty: give a program, e.g. ["./run.sh"]')
        return
    if not spec.command[0]:
        yield Problem(("command", 0), "the program of command is empty")
    for name in names_in(spec.command[0]):
        if _is_text(spec, name):
            yield Problem(
                ("command", 0),
                f"{{{{{name}}}}} would let a text choose the program; use type choice",
                (("variables", name),),
            )
    for index in _code_arguments(spec.command):
        for name in names_in(spec.command[index]):
            if _is_text(spec, name):
                yield Problem(
                    ("command", index),
                    f"{{{{{name}}}}} would become code here; read JOBBUS_VAR_{name} from the "
                    "environment, or pass it as an argument of its own",
                    (("variables", name), ("command", 0), ("command", index - 1)),
                )


def _code_arguments(command: tuple[str, ...]) -> Iterator[int]:
    """Where an interpreter takes its next argument as code."""
    program = PurePosixPath(command[0]).name
    for interpreter, flag in CODE_FLAGS.items():
        if interpreter.fullmatch(program):
            for index, element in enumerate(command[1:-1], 1):
                if flag.fullmatch(element):
                    yield index + 1


def _is_text(spec: JobSpec, name: str) -> bool:
    return name in spec.variables and spec.variables[name].type is VariableType.STRING


def _plain_texts(spec: JobSpec) -> Iterator[Problem]:
    for path, text in (*texts(spec), (("name",), spec.name), (("cwd",), spec.cwd)):
        if "\0" in text:
            yield Problem(path, f"{shown(path)} holds a NUL character")
    if not spec.cwd:
        yield Problem(("cwd",), 'cwd is empty; "." is the folder of the job')


def _environment(spec: JobSpec) -> Iterator[Problem]:
    for name in spec.env:
        path = ("env", name)
        if not name or "=" in name or "\0" in name:
            yield Problem(path, f"{quoted(name)} cannot be the name of an environment variable")
        elif name.startswith(RESERVED_PREFIX) or name in RESERVED_NAMES:
            yield Problem(path, f"{name} is set by jobbus itself; choose another name")


def _numbers(spec: JobSpec) -> Iterator[Problem]:
    times = ("timeout_s", "start_timeout_s", "watchdog_s", "stop_grace_s")
    for name in times:
        yield from within((name,), getattr(spec, name), 0, SECONDS_MAX)
    yield from within(("max_running",), spec.max_running, 1, 10_000)
    yield from within(("output", "max_bytes"), spec.output.max_bytes, 1, 2**50)
    if not spec.success_codes:
        yield Problem(("success_codes",), "success_codes is empty: no end would be a success")
    for index, code in enumerate(spec.success_codes):
        yield from within(("success_codes", index), code, 0, 255)


def _signal(spec: JobSpec) -> Iterator[Problem]:
    if spec.stop_signal not in SIGNALS:
        hint = did_you_mean(spec.stop_signal.removeprefix("SIG"), sorted(SIGNALS))
        path = ("stop_signal",)
        yield Problem(path, f"stop_signal knows no {quoted(spec.stop_signal)}{hint}")


def _ready(spec: JobSpec) -> Iterator[Problem]:
    path = ("ready",)
    kind, colon, rest = spec.ready.partition(":")
    match kind:
        case "spawn" | "notify" if not colon:
            return
        case "after_s" if colon:
            if not re.fullmatch(r"[0-9]{1,9}(\.[0-9]{1,9})?", rest):
                yield Problem(path, f'ready = "after_s:N" needs seconds, not {quoted(rest)}')
        case "tcp" if colon:
            if not re.fullmatch(r"[0-9]{1,5}", rest) or not 1 <= int(rest) <= 65_535:
                yield Problem(path, f'ready = "tcp:PORT" needs 1 to 65535, not {quoted(rest)}')
        case "output" if colon:
            yield from expression(path, rest)
        case _:
            ways = '"spawn", "notify", "after_s:N", "tcp:PORT" or "output:REGEX"'
            yield Problem(path, f"ready must be {ways}, not {quoted(spec.ready)}")


def _account(spec: JobSpec) -> Iterator[Problem]:
    if spec.user is not None and not spec.user.strip():
        yield Problem(("user",), "user is empty; leave it out to run as the service does")
    yield from within(("limits", "memory_bytes"), spec.limits.memory_bytes, 1, 2**60)
    yield from within(("limits", "cpu_s"), spec.limits.cpu_s, 1, SECONDS_MAX)
    yield from within(("limits", "nice"), spec.limits.nice, -20, 19)
    yield from within(("limits", "open_files"), spec.limits.open_files, 16, 2**30)
    if spec.umask is not None and not re.fullmatch(UMASK, spec.umask):
        yield Problem(("umask",), f'umask must be text such as "0027", not {quoted(spec.umask)}')


def _roles(spec: JobSpec) -> Iterator[Problem]:
    for key in ("view", "start", "stop", "restart", "output"):
        for index, role in enumerate(getattr(spec.roles, key) or ()):
            if not role.strip():
                yield Problem(("roles", key, index), "a role is empty")


_CHECKS: tuple[Callable[[JobSpec], Iterator[Problem]], ...] = (
    _command,
    _plain_texts,
    _environment,
    variables,
    references,
    _numbers,
    _signal,
    _ready,
    _roles,
    policies,
    followers,
    schedules,
    _account,
    _not_built,
    _calendars_not_built,
)

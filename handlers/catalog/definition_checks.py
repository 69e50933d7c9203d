"""What a decoded definition must keep to beyond its types: one small generator a topic. Pure.

Each yields `Problem`s: the path of the faulty key and a sentence that says what would be right.
"""

from collections.abc import Callable, Iterator

from bus.job_definition import JobSpec
from bus.wording import did_you_mean, quoted
from handlers.catalog.chain_checks import followers
from handlers.catalog.command_checks import command
from handlers.catalog.former_names import names
from handlers.catalog.limit_checks import accounts_and_limits
from handlers.catalog.liveness_checks import health, ready
from handlers.catalog.policy_checks import policies
from handlers.catalog.problem import SECONDS_MAX, Problem, shown, within
from handlers.catalog.program_call import is_reserved
from handlers.catalog.schedule_checks import schedules
from handlers.catalog.slot_checks import slots
from handlers.catalog.variable_checks import references, texts, variables

SIGNALS = frozenset(
    ("ABRT", "ALRM", "HUP", "INT", "KILL", "PIPE", "PWR", "QUIT", "TERM", "USR1", "USR2", "WINCH")
)
"""What may be sent to ask a program to end; those that pause it or ask nothing are left out."""


def problems_of(spec: JobSpec) -> Iterator[Problem]:
    """Everything that is wrong with a definition whose types are right."""
    for check in _CHECKS:
        yield from check(spec)


def _plain_texts(spec: JobSpec) -> Iterator[Problem]:
    files = (((key,), getattr(spec, key) or "") for key in ("env_file", "stdin"))
    for path, text in (*texts(spec), (("name",), spec.name), (("cwd",), spec.cwd), *files):
        if "\0" in text:
            yield Problem(path, f"{shown(path)} holds a NUL character")
    if not spec.cwd:
        yield Problem(("cwd",), 'cwd is empty; "." is the folder of the job')


def _environment(spec: JobSpec) -> Iterator[Problem]:
    for name in spec.env:
        path = ("env", name)
        if not name or "=" in name or "\0" in name:
            yield Problem(path, f"{quoted(name)} cannot be the name of an environment variable")
        elif is_reserved(name):
            yield Problem(path, f"{name} is set by jobbus itself; choose another name")


def _inputs(spec: JobSpec) -> Iterator[Problem]:
    if spec.env_file is not None and not spec.env_file.removeprefix("?").strip():
        yield Problem(
            ("env_file",),
            'env_file is empty; e.g. "settings.env", "?" before it if it may be missing',
        )
    path = ("stdin",)
    kind, colon, rest = spec.stdin.partition(":")
    match kind:
        case "null" if not colon:
            return
        case "file" if colon:
            if not rest:
                yield Problem(path, 'stdin = "file:PATH" needs a path, from the job\'s folder on')
        case "variable" if colon:
            if rest not in spec.variables:
                hint = did_you_mean(rest, spec.variables)
                yield Problem(
                    path, f"stdin names a variable that is not declared: {quoted(rest)}{hint}"
                )
        case _:
            ways = '"null", "file:PATH" or "variable:NAME"'
            yield Problem(path, f"stdin must be {ways}, not {quoted(spec.stdin)}")


def _numbers(spec: JobSpec) -> Iterator[Problem]:
    times = ("timeout_s", "start_timeout_s", "watchdog_s", "stop_grace_s")
    for name in times:
        yield from within((name,), getattr(spec, name), 0, SECONDS_MAX)
    yield from within(("max_running",), spec.max_running, 1, 10_000)
    yield from within(("output", "max_bytes"), spec.output.max_bytes, 1, 2**50)
    yield from within(("artifacts", "max_files"), spec.artifacts.max_files, 0, 10_000)
    yield from within(("artifacts", "max_bytes"), spec.artifacts.max_bytes, 0, 2**50)
    if not spec.success_codes:
        yield Problem(("success_codes",), "success_codes is empty: no end would be a success")
    for index, code in enumerate(spec.success_codes):
        yield from within(("success_codes", index), code, 0, 255)


def _signal(spec: JobSpec) -> Iterator[Problem]:
    if spec.stop_signal not in SIGNALS:
        hint = did_you_mean(spec.stop_signal.removeprefix("SIG"), sorted(SIGNALS))
        path = ("stop_signal",)
        yield Problem(path, f"stop_signal knows no {quoted(spec.stop_signal)}{hint}")


def _roles(spec: JobSpec) -> Iterator[Problem]:
    for key in ("view", "start", "stop", "restart", "output"):
        for index, role in enumerate(getattr(spec.roles, key) or ()):
            if not role.strip():
                yield Problem(("roles", key, index), "a role is empty")


_CHECKS: tuple[Callable[[JobSpec], Iterator[Problem]], ...] = (
    command,
    _plain_texts,
    _environment,
    variables,
    references,
    _inputs,
    _numbers,
    _signal,
    ready,
    health,
    _roles,
    policies,
    followers,
    names,
    schedules,
    accounts_and_limits,
    slots,
)

"""What a decoded definition must keep to beyond its types: one small generator a topic. Pure.

Each yields `Problem`s: the path of the faulty key and a sentence that says what would be right.
"""

import re
from collections.abc import Callable, Iterator

from bus.job_definition import UMASK, JobSpec
from bus.wording import did_you_mean, quoted
from handlers.catalog.chain_checks import followers
from handlers.catalog.command_checks import command
from handlers.catalog.liveness_checks import health, ready
from handlers.catalog.policy_checks import policies
from handlers.catalog.problem import SECONDS_MAX, Problem, shown, within
from handlers.catalog.program_call import RESERVED_NAMES, RESERVED_PREFIX
from handlers.catalog.schedule_checks import schedules
from handlers.catalog.variable_checks import references, texts, variables

SIGNALS = frozenset(
    ("ABRT", "ALRM", "HUP", "INT", "KILL", "PIPE", "PWR", "QUIT", "TERM", "USR1", "USR2", "WINCH")
)
"""What may be sent to ask a program to end; those that pause it or ask nothing are left out."""


def problems_of(spec: JobSpec) -> Iterator[Problem]:
    """Everything that is wrong with a definition whose types are right."""
    for check in _CHECKS:
        yield from check(spec)


# What the service does not build yet: a job that uses it is refused. To lift one, take its word
# out of NOT_BUILT.

NOT_BUILT = frozenset(("user",))

_USES: dict[str, Callable[[JobSpec], bool]] = {
    "user": lambda spec: spec.user is not None,
}


def _not_built(spec: JobSpec) -> Iterator[Problem]:
    for word, uses in _USES.items():
        if word in NOT_BUILT and uses(spec):
            yield Problem((word,), f"{word} is not built yet in this version")


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
    command,
    _plain_texts,
    _environment,
    variables,
    references,
    _numbers,
    _signal,
    ready,
    health,
    _roles,
    policies,
    followers,
    schedules,
    _account,
    _not_built,
)

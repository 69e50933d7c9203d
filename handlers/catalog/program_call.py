"""What exactly is executed for an execution: arguments, folder, environment. Pure, no IO.

Values reach the program as whole arguments and as environment variables, never through a shell.
`handlers.catalog.templates.spell` says how each type is written.
"""

import hashlib
from collections.abc import Mapping
from pathlib import PurePosixPath
from types import MappingProxyType

import msgspec

from bus.job_definition import JobSpec
from bus.model import Execution, SecretRef, Value
from handlers.catalog.templates import render, spell

BASE_NAMES = ("PATH", "HOME", "LANG", "TZ", "USER", "LOGNAME", "SHELL")
"""All that a job inherits; nothing else of the service's environment reaches it."""

BASE_DEFAULTS = {
    "PATH": "/usr/local/bin:/usr/bin:/bin",
    "LANG": "C.UTF-8",
    "PYTHONUNBUFFERED": "1",
}
"""For a service that was started without them, e.g. by cron; and Python writes to its pipe at once,
so that its output is live. `[env]` may say otherwise."""

VARIABLE_PREFIX = "JOBBUS_VAR_"

RESERVED_NAMES = ("NOTIFY_SOCKET", "TRACEPARENT")
RESERVED_PREFIX = "JOBBUS_"
"""Names that `[env]` and `env_file` may not set: the job would read something untrue about
itself."""


def is_reserved(name: str) -> bool:
    """Whether a variable of that name is set by jobbus alone."""
    return name.startswith(RESERVED_PREFIX) or name in RESERVED_NAMES


class Launch(msgspec.Struct, frozen=True, kw_only=True):
    """A program call; `argv[0]` is looked up in the `PATH` of `env`, with a slash below `cwd`."""

    argv: tuple[str, ...]
    cwd: str
    env: dict[str, str]


def build_launch(
    execution: Execution,
    spec: JobSpec,
    *,
    base_env: Mapping[str, str],
    notify_socket: str,
    progress_file: str,
    result_file: str,
    artifacts_folder: str,
    instance: str = "",
    secrets: Mapping[str, str] = MappingProxyType({}),
    env_file: Mapping[str, str] = MappingProxyType({}),
) -> Launch:
    """The call for `execution`, whose variables are resolved and whose definition was checked.

    Of `base_env` only `BASE_NAMES` are taken, so the service's whole environment may be passed.
    Later ones win: base, what stands in `env_file`, `[env]`, what jobbus says. `secrets` are the
    values of the variables that hold references: they get into the environment and nowhere else.
    """
    values = execution.variables
    with_secrets: Mapping[str, Value] = {**values, **secrets}
    return Launch(
        argv=tuple(render(element, values) for element in spec.command),
        cwd=str(PurePosixPath(spec.directory) / spec.cwd),
        env={
            **BASE_DEFAULTS,
            **{name: base_env[name] for name in BASE_NAMES if name in base_env},
            **env_file,
            **{name: render(text, with_secrets) for name, text in spec.env.items()},
            **_own_environment(execution, instance),
            "JOBBUS_PROGRESS": progress_file,
            "JOBBUS_RESULT": result_file,
            "JOBBUS_ARTIFACTS": artifacts_folder,
            "NOTIFY_SOCKET": notify_socket,
            **_variables(with_secrets),
        },
    )


def _own_environment(execution: Execution, instance: str) -> dict[str, str]:
    own = {
        "JOBBUS_EXECUTION_ID": execution.id,
        "JOBBUS_JOB_ID": execution.job_id,
        "JOBBUS_COMMAND_ID": execution.command_id,
        "JOBBUS_USER_ID": _plain(execution.user_id),
        "JOBBUS_ATTEMPT": str(execution.attempt),
    }
    if execution.scheduled_at is not None:
        own["JOBBUS_SCHEDULED_AT"] = execution.scheduled_at
    if instance:
        own["JOBBUS_INSTANCE"] = instance
    if execution.caused_by is not None:
        own["JOBBUS_CAUSED_BY"] = execution.caused_by
    if execution.traceparent is not None:
        own["TRACEPARENT"] = child_of(execution.traceparent, execution.id)
    return own


def child_of(traceparent: str, execution_id: str) -> str:
    """The context of the execution in the trace of the caller (W3C Trace Context §3.2).

    Its span id is made of the execution's id, so that others can compute it too.
    """
    version, _, rest = _plain(traceparent).partition("-")
    trace_id, _, rest = rest.partition("-")
    span_id = hashlib.blake2b(execution_id.encode(), digest_size=8).hexdigest()
    return "-".join((version, trace_id, span_id, rest.rpartition("-")[2]))


def _variables(values: Mapping[str, Value]) -> dict[str, str]:
    return {
        VARIABLE_PREFIX + name: spell(value)
        for name, value in values.items()
        if not isinstance(value, SecretRef)
    }


def _plain(text: str) -> str:
    """`text` from outside as an environment can hold it: no NUL, nothing that cannot be encoded."""
    return text.replace("\0", "").encode("utf-8", "replace").decode()

"""What people import: the client of a jobbus service, its records, frames and errors.

    from jobbus import Client

    async with Client("http://127.0.0.1:8765", token) as client:
        execution = await client.run("Reports/Nightly", {"Day": "2026-11-24"})

The names are loaded when they are first used: the command line, which lives in this package too,
would otherwise load the HTTP client (200 ms) for `jobbus --help`.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from jobbus.client.client import Client
    from jobbus.client.command_records import (
        BackfillSchedule,
        CancelCommand,
        CommandRequest,
        DeleteExecution,
        GetStatus,
        PauseQueue,
        PauseSchedule,
        RestartJob,
        ResumeQueue,
        ResumeSchedule,
        RetryExecution,
        RunSchedule,
        SecretRef,
        StartJob,
        StopJob,
        Value,
    )
    from jobbus.client.errors import (
        ApiProblem,
        BadAddress,
        BadFrame,
        BadToken,
        CommandFailed,
        JobbusError,
        NotOpen,
        Unreachable,
        WaitTimeout,
    )
    from jobbus.client.frames import (
        Bookmark,
        Change,
        End,
        Frame,
        Gap,
        Hello,
        Output,
        OutputLine,
        ProblemFrame,
        Reset,
        Snapshot,
        SnapshotEnd,
    )
    from jobbus.client.records import (
        Agenda,
        App,
        AppPage,
        AuditEntry,
        AuditPage,
        Command,
        CommandPage,
        DeletedExecution,
        Execution,
        ExecutionPage,
        Fault,
        Group,
        GroupPage,
        Job,
        JobPage,
        Mistake,
        NewToken,
        Pause,
        Permission,
        Planned,
        Progress,
        Record,
        RemovedGroup,
        RemovedJob,
        SignInCode,
        StartLimit,
        Stop,
        Token,
        Variable,
    )
    from jobbus.client.state import StateMap
    from jobbus.client.stream import StreamTiming

    __version__: str

__all__ = [
    "__version__",
    "Agenda",
    "ApiProblem",
    "App",
    "AppPage",
    "AuditEntry",
    "AuditPage",
    "BackfillSchedule",
    "BadAddress",
    "BadFrame",
    "BadToken",
    "Bookmark",
    "CancelCommand",
    "Change",
    "Client",
    "Command",
    "CommandFailed",
    "CommandPage",
    "CommandRequest",
    "DeleteExecution",
    "DeletedExecution",
    "End",
    "Execution",
    "ExecutionPage",
    "Fault",
    "Frame",
    "Gap",
    "GetStatus",
    "Group",
    "GroupPage",
    "Hello",
    "Job",
    "JobPage",
    "JobbusError",
    "Mistake",
    "NewToken",
    "NotOpen",
    "Output",
    "OutputLine",
    "Pause",
    "PauseQueue",
    "PauseSchedule",
    "Permission",
    "Planned",
    "ProblemFrame",
    "Progress",
    "Record",
    "RemovedGroup",
    "RemovedJob",
    "Reset",
    "RestartJob",
    "ResumeQueue",
    "ResumeSchedule",
    "RetryExecution",
    "RunSchedule",
    "SecretRef",
    "SignInCode",
    "Snapshot",
    "SnapshotEnd",
    "StartJob",
    "StartLimit",
    "StateMap",
    "Stop",
    "StopJob",
    "StreamTiming",
    "Token",
    "Unreachable",
    "Value",
    "Variable",
    "WaitTimeout",
]

_MODULES = ("errors", "command_records", "records", "frames", "state", "stream", "client")
"""Where the names are, those that load the least first."""


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from importlib.metadata import version  # here: 15 ms that few need

        return version("jobbus")
    if name not in __all__:
        raise AttributeError(f"module 'jobbus' has no name {name!r}")
    found = (vars(import_module(f"jobbus.client.{module}")) for module in _MODULES)
    value = next(names[name] for names in found if name in names)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})

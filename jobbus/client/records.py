"""What the service tells about commands, executions and jobs, as a client gets it. No IO.

The records of `bus.views` are used as they are; here is what differs on the client's side.
"""

import msgspec

from bus.views import ExecutionView, JobView


class CommandAnswer(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """A command as the service tells it; right after publishing only id and status are known."""

    command_id: str
    status: str
    outcome: str | None = None
    error_code: str | None = None
    error: str | None = None
    command: str = ""
    job_id: str | None = None
    user_id: str | None = None
    submitted_at: str | None = None
    processed_at: str | None = None
    execution_id: str | None = None
    result: msgspec.Raw = msgspec.Raw(b"null")
    version: int = 0


class RemovedJob(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """A job that is no longer in the catalog."""

    job_id: str
    version: int = 0


class DeletedExecution(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """An execution that was forgotten."""

    execution_id: str
    version: int = 0


Record = ExecutionView | CommandAnswer | JobView | RemovedJob | DeletedExecution
"""What a change or a snapshot is about. Apply it if its `version` is higher than what you hold."""


class ExecutionPage(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """Executions, newest first; `next` is the cursor of the rest, `as_of` a position to follow."""

    items: tuple[ExecutionView, ...]
    next: str | None = None
    as_of: str = ""


class CommandPage(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    items: tuple[CommandAnswer, ...]
    next: str | None = None
    as_of: str = ""


class JobPage(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    items: tuple[JobView, ...]
    next: str | None = None
    as_of: str = ""

"""What may be published, as typed records that encode to bodies of `POST /commands`. No IO."""

import os
import re

import msgspec

Scalar = str | int | float | bool
"""What most variables hold."""


class SecretRef(msgspec.Struct, frozen=True, kw_only=True):
    """A secret by its name: its value stays on the service's machine."""

    secret: str


Value = Scalar | SecretRef | None
"""The value of a variable; None stands for the default of its job."""


class StartJob(
    msgspec.Struct,
    frozen=True,
    kw_only=True,
    tag="start",
    tag_field="command",
    rename="camel",
    omit_defaults=True,
):
    """Start the job once; with `not_before`, an RFC 3339 time with its zone, not before then."""

    job_id: str
    variables: dict[str, Value] = {}
    not_before: str | None = None


class StopJob(
    msgspec.Struct,
    frozen=True,
    kw_only=True,
    tag="stop",
    tag_field="command",
    rename={"job_id": "jobId", "execution_id": "executionId", "grace_s": "graceS"},
    omit_defaults=True,
):
    """Stop one execution, or without `execution_id` all of the job's.

    `grace_s` (seconds) shortens or lengthens the job's own grace; `kill` skips it.
    """

    job_id: str | None = None
    execution_id: str | None = None
    grace_s: float | None = None
    kill: bool = False


class RestartJob(
    msgspec.Struct,
    frozen=True,
    kw_only=True,
    tag="restart",
    tag_field="command",
    rename={"job_id": "jobId", "execution_id": "executionId", "grace_s": "graceS"},
    omit_defaults=True,
):
    """Stop what runs and start it again, as one command. `variables` of None keeps the old ones."""

    job_id: str | None = None
    execution_id: str | None = None
    variables: dict[str, Value] | None = None
    grace_s: float | None = None
    kill: bool = False


class GetStatus(
    msgspec.Struct, frozen=True, kw_only=True, tag="status", tag_field="command", rename="camel"
):
    """Answer with the job's entry; changes nothing."""

    job_id: str


class CancelCommand(
    msgspec.Struct, frozen=True, kw_only=True, tag="cancel", tag_field="command", rename="camel"
):
    """Take back a command whose execution has not started."""

    target_id: str


class RetryExecution(
    msgspec.Struct,
    frozen=True,
    kw_only=True,
    tag="retry",
    tag_field="command",
    rename="camel",
    omit_defaults=True,
):
    """Start the job of an ended execution again with the same variables; see `StartJob`."""

    execution_id: str
    not_before: str | None = None


class DeleteExecution(
    msgspec.Struct, frozen=True, kw_only=True, tag="delete", tag_field="command", rename="camel"
):
    """Forget an ended execution and remove its output."""

    execution_id: str


class PauseSchedule(
    msgspec.Struct,
    frozen=True,
    kw_only=True,
    tag="schedule.pause",
    tag_field="command",
    rename="camel",
    omit_defaults=True,
):
    """Start nothing by a schedule of the job, or without `schedule` by any of them.

    With `until`, an RFC 3339 time with its zone, it goes on by itself then.
    """

    job_id: str
    schedule: str | None = None
    reason: str = ""
    until: str | None = None


class ResumeSchedule(
    msgspec.Struct,
    frozen=True,
    kw_only=True,
    tag="schedule.resume",
    tag_field="command",
    rename="camel",
    omit_defaults=True,
):
    """Let a schedule of the job go on, or without `schedule` all of them."""

    job_id: str
    schedule: str | None = None


class RunSchedule(
    msgspec.Struct,
    frozen=True,
    kw_only=True,
    tag="schedule.run",
    tag_field="command",
    rename="camel",
    omit_defaults=True,
):
    """Start the job now, with the variables of a schedule; `schedule` if it has several."""

    job_id: str
    schedule: str | None = None


class BackfillSchedule(
    msgspec.Struct,
    frozen=True,
    kw_only=True,
    tag="schedule.backfill",
    tag_field="command",
    rename={"job_id": "jobId", "begin": "from", "end": "to"},
    omit_defaults=True,
):
    """Start the job for each instant in a span for which it was not started, 100 at a time.

    `begin` and `end` are RFC 3339 times with their zone; with `preview` nothing is started.
    """

    job_id: str
    schedule: str | None = None
    begin: str
    end: str
    preview: bool = False


class PauseQueue(
    msgspec.Struct,
    frozen=True,
    kw_only=True,
    tag="queue.pause",
    tag_field="command",
    rename="camel",
    omit_defaults=True,
):
    """Start nothing more that waits in the queue of a job, or that needs a slot of a group.

    With `until`, an RFC 3339 time, the queue goes on by itself then.
    """

    job_id: str | None = None
    group: str | None = None
    reason: str = ""
    until: str | None = None


class ResumeQueue(
    msgspec.Struct,
    frozen=True,
    kw_only=True,
    tag="queue.resume",
    tag_field="command",
    rename="camel",
    omit_defaults=True,
):
    """Let the queue of a job or of a group go on."""

    job_id: str | None = None
    group: str | None = None


CommandRequest = (
    StartJob
    | StopJob
    | RestartJob
    | GetStatus
    | CancelCommand
    | RetryExecution
    | DeleteExecution
    | PauseSchedule
    | ResumeSchedule
    | RunSchedule
    | BackfillSchedule
    | PauseQueue
    | ResumeQueue
)
"""Everything that may be published."""

_encoder = msgspec.json.Encoder()
_Fields = dict[str, msgspec.Raw]
_UUID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}\Z")


def encode_body(command: CommandRequest, command_id: str) -> bytes:
    """The body of `POST /commands`."""
    fields = msgspec.json.decode(_encoder.encode(command), type=_Fields)
    return _encoder.encode({"commandId": command_id, **fields})


def word_of(command: CommandRequest) -> str:
    """The command's word on the wire, e.g. `start`."""
    tag = type(command).__struct_config__.tag
    assert isinstance(tag, str)
    return tag


def new_command_id(now_ms: int) -> str:
    """A UUIDv7 (RFC 9562 §5.7): 48 bits of milliseconds, the rest random; sorts by time."""
    raw = bytearray(now_ms.to_bytes(6, "big") + os.urandom(10))
    raw[6] = (raw[6] & 0x0F) | 0x70
    raw[8] = (raw[8] & 0x3F) | 0x80
    text = raw.hex()
    return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"


def canonical_id(text: str) -> str:
    """`text` in lower case, if it is a UUID in the usual form with dashes.

    Raises:
        ValueError: it is not; nothing else may become part of a path.
    """
    lowered = text.lower() if len(text) == 36 else ""
    if not _UUID.match(lowered):
        raise ValueError("not a UUID such as 0190a1b2-c3d4-7e5f-8a9b-0c1d2e3f4a5b")
    return lowered

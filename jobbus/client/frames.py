"""The frames of a stream as a client gets them: frozen records, decoded leniently. No IO.

What a newer service adds (fields, kinds, types) is passed over, so that old clients go on.
"""

from typing import Any

import msgspec

from jobbus.client.errors import BadFrame, ProblemBody
from jobbus.client.records import (
    Command,
    DeletedExecution,
    Execution,
    Group,
    Job,
    Record,
    RemovedGroup,
    RemovedJob,
    ScheduleDecision,
)
from jobbus.client.sse import SseEvent


class Hello(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """The first frame of each connection; `resumed` says that nothing was lost since the last."""

    epoch: str = ""
    resumed: bool = False
    heartbeat_s: float = msgspec.field(default=15.0, name="heartbeatS")
    version: str = ""
    user: str = ""


class Snapshot(msgspec.Struct, frozen=True, kw_only=True):
    """Some records as they are; drop what you hold and is in none of them at `SnapshotEnd`.

    `raw` is the frame's JSON as it came, for those who hand it on.
    """

    records: tuple[Record, ...]
    raw: str = ""


class SnapshotEnd(msgspec.Struct, frozen=True, kw_only=True):
    """The snapshot is whole; `id` is where the changes go on."""

    id: str
    count: int = 0


class Change(msgspec.Struct, frozen=True, kw_only=True):
    """One change: a CloudEvent. `record` is None for a type that this client does not know, and for
    the `decision` about an instant of a schedule, which is no record of anything that lasts.

    `raw` is the event's JSON as it came, for those who hand it on.
    """

    id: str
    type: str
    subject: str
    time: str
    record: Record | None
    raw: str
    job: str | None = None
    execution: str | None = None
    user: str | None = None
    decision: ScheduleDecision | None = None


class Bookmark(msgspec.Struct, frozen=True, kw_only=True):
    """Nothing for you up to `id`."""

    id: str


class Reset(msgspec.Struct, frozen=True, kw_only=True):
    """Changes were lost: drop everything you hold; a snapshot follows."""

    reason: str = ""


class OutputLine(msgspec.Struct, frozen=True, kw_only=True):
    """One line, or a piece of one. `at` and `end` are byte offsets, `number` counts from 1.

    A `partial` line comes again under its number and then replaces what was shown of it; a
    `continued` one follows the piece before; with `more` a further piece follows.
    """

    number: int
    at: int
    end: int
    text: str
    stream: str = "out"
    time: str | None = None
    partial: bool = False
    continued: bool = False
    more: bool = False


class Output(msgspec.Struct, frozen=True, kw_only=True):
    """What an execution printed: the bytes from `start` to `end` of its output.

    `text` holds the whole lines and comes once; `lines` are the same with time and stream, and
    behind them those that are still open.
    """

    id: str
    start: int
    end: int
    text: str
    lines: tuple[OutputLine, ...] = ()


class OutputPage(msgspec.Struct, frozen=True, kw_only=True):
    """Lines of an output as one answer. The next page begins at `next`; the output ends at `end`
    now, and with `complete` nothing will ever come after this page."""

    next: int = msgspec.field(default=0, name="to")
    end: int = 0
    complete: bool = False
    lines: tuple[OutputLine, ...] = ()


class Gap(msgspec.Struct, frozen=True, kw_only=True):
    """Output that is no longer kept, or was skipped: the bytes from `start` to `end`."""

    start: int
    end: int


class ProblemFrame(msgspec.Struct, frozen=True, kw_only=True):
    """The stream cannot go on; it is closed after this."""

    problem: ProblemBody


class End(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """The connection ends; only after `terminal` the stream does too."""

    reason: str = ""
    retry_ms: int | None = None


Frame = (
    Hello | Snapshot | SnapshotEnd | Change | Bookmark | Reset | Output | Gap | ProblemFrame | End
)
"""Everything that a stream may bring; `match` it by class, see examples/client/follow_job.py."""


class _Event(msgspec.Struct, frozen=True, kw_only=True):
    id: str
    type: str
    data: msgspec.Raw
    subject: str = ""
    time: str = ""
    job: str | None = None
    execution: str | None = None
    user: str | None = None


class _Items(msgspec.Struct, frozen=True, kw_only=True):
    items: tuple[msgspec.Raw, ...] = ()


class _Count(msgspec.Struct, frozen=True, kw_only=True):
    count: int = 0


class _Span(msgspec.Struct, frozen=True, kw_only=True):
    start: int = msgspec.field(name="from")
    end: int = msgspec.field(name="to")
    text: str = ""
    lines: tuple[OutputLine, ...] = ()


class _Subject(msgspec.Struct, frozen=True, kw_only=True):
    subject: str


def decode_frame(event: SseEvent) -> Frame | None:
    """The event as a frame; None for a kind that this client does not know.

    Raises:
        BadFrame: the kind is known and its data is not what the contract says.
    """
    try:
        return _decode(event)
    except (msgspec.DecodeError, UnicodeError, RecursionError) as exc:
        raise BadFrame(f"the service sent a broken {event.event!r} frame: {exc}") from exc


def output_after(output: Output, seen_to: int) -> Output | None:
    """What of `output` lies after the offset `seen_to`; None if nothing does.

    Only a reset can bring bytes again. Where replaced characters hide how text and bytes belong
    together, the whole is given: better twice than lost.
    """
    lines = tuple(line for line in output.lines if line.partial or line.end > seen_to)
    if output.end <= seen_to:
        if not lines:
            return None
        return Output(id=output.id, start=output.end, end=output.end, text="", lines=lines)
    raw = output.text.encode()
    if output.start >= seen_to or len(raw) != output.end - output.start:
        return output
    text = raw[seen_to - output.start :].decode("utf-8", "replace")
    return Output(id=output.id, start=seen_to, end=output.end, text=text, lines=lines)


def _decode(event: SseEvent) -> Frame | None:
    data = event.data.encode()
    match event.event:
        case "hello":
            return msgspec.json.decode(data, type=Hello)
        case "snapshot":
            items = msgspec.json.decode(data, type=_Items).items
            records = (_record(raw) for raw in items)
            known = tuple(record for record in records if record is not None)
            return Snapshot(records=known, raw=event.data)
        case "snapshot_end":
            return SnapshotEnd(id=event.id, count=msgspec.json.decode(data, type=_Count).count)
        case "change":
            return _change(event, data)
        case "bookmark":
            return Bookmark(id=event.id)
        case "reset":
            return msgspec.json.decode(data, type=Reset)
        case "output":
            span = msgspec.json.decode(data, type=_Span)
            return Output(
                id=event.id, start=span.start, end=span.end, text=span.text, lines=span.lines
            )
        case "gap":
            span = msgspec.json.decode(data, type=_Span)
            return Gap(start=span.start, end=span.end)
        case "problem":
            return ProblemFrame(problem=msgspec.json.decode(data, type=ProblemBody))
        case "end":
            return msgspec.json.decode(data, type=End)
        case _:
            return None


def _change(event: SseEvent, data: bytes) -> Change:
    change = msgspec.json.decode(data, type=_Event)
    kind: Any = _RECORD_OF.get(change.type) or _RECORD_OF.get(change.type.partition(".")[0])
    return Change(
        id=event.id,
        type=change.type,
        subject=change.subject,
        time=change.time,
        record=msgspec.json.decode(change.data, type=kind) if kind is not None else None,
        raw=event.data,
        job=change.job,
        execution=change.execution,
        user=change.user,
        decision=(
            msgspec.json.decode(change.data, type=ScheduleDecision)
            if change.type == "schedule.decided"
            else None
        ),
    )


_RECORD_OF: dict[str, Any] = {
    "execution": Execution,
    "command": Command,
    "job": Job,
    "job.removed": RemovedJob,
    "execution.deleted": DeletedExecution,
    "group": Group,
    "group.removed": RemovedGroup,
}
_RECORD_AT: dict[str, Any] = {
    "executions": Execution,
    "commands": Command,
    "jobs": Job,
}


def _record(raw: msgspec.Raw) -> Record | None:
    """The record of a snapshot: its `subject` says what it is, e.g. `jobs/Demo/Checksum`."""
    subject = msgspec.json.decode(raw, type=_Subject).subject
    kind: Any = _RECORD_AT.get(subject.partition("/")[0])
    return msgspec.json.decode(raw, type=kind) if kind is not None else None

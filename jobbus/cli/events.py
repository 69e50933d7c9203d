"""`events`: all changes, followed until the person has seen enough."""

from contextlib import aclosing
from typing import Annotated

import msgspec
from cyclopts import Parameter

from jobbus.cli.exits import CliError
from jobbus.cli.naming import job_called
from jobbus.cli.run import following_client
from jobbus.cli.show import Json, clean, say, show_json_line
from jobbus.cli.target import HERE, Target, service_at
from jobbus.cli.words import fault_word, local_time, percent_word, plain_ending
from jobbus.client.frames import Change, Frame, Reset, Snapshot, SnapshotEnd
from jobbus.client.records import (
    Command,
    DeletedExecution,
    Execution,
    Group,
    Job,
    Record,
    RemovedGroup,
    ScheduleDecision,
)


async def events(
    *,
    job: Annotated[tuple[str, ...], Parameter(negative=(), help="Only of this job")] = (),
    execution: Annotated[tuple[str, ...], Parameter(negative=())] = (),
    user: Annotated[tuple[str, ...], Parameter(negative=())] = (),
    type_: Annotated[
        tuple[str, ...],
        Parameter(name="--type", negative=(), help="e.g. execution.ended, or execution.*"),
    ] = (),
    snapshot: Annotated[
        bool, Parameter(negative=(), help="First the state that the changes apply to")
    ] = False,
    after: Annotated[
        str | None, Parameter(help="Go on after this id of an event", show_default=False)
    ] = None,
    as_json: Json = False,
    target: Target = HERE,
) -> int:
    """Follow all changes; with --json one frame a line, as the API's NDJSON has them."""
    async with following_client(*service_at(target)) as client:
        for name in job:
            try:
                await job_called(client, name)
            except CliError as error:
                say(f"jobbus: {error} Its changes are shown once there is one.")
        frames = client.events(
            job=job,
            execution=execution,
            user=user,
            type=type_,
            start="snapshot" if snapshot else "now",
            last_event_id=after or "",
        )
        async with aclosing(frames):
            async for frame in frames:
                if as_json:
                    _show_frame_json(frame)
                else:
                    _show_frame(frame)
    return 0


_WHY_RESET = {
    "epoch_changed": ": the service's directory was restored or moved",
    "history_gone": ": they are not kept any more",
    "cursor_ahead": ": --after names a change that has not been yet",
    "cursor_invalid": ": --after is no id of a change",
    "gap_too_large": ": they were too many",
}


def _show_frame(frame: Frame) -> None:
    match frame:
        case Change(time=time, type=type_, subject=subject, decision=decided) if decided:
            words = (local_time(time), type_.ljust(20), subject, _decided(decided))
            print(clean("  ".join(words)).rstrip(), flush=True)
        case Change(time=time, type=type_, subject=subject, record=record):
            words = (local_time(time), type_.ljust(20), subject, _about(record))
            print(clean("  ".join(words)).rstrip(), flush=True)
        case Snapshot(records=records):
            for record in records:
                print(clean(f"{_name(record)}  {_about(record)}").rstrip(), flush=True)
        case Reset(reason=reason):
            say(f"changes were missed{_WHY_RESET.get(reason, '')}; what follows is the state now")
        case _:
            pass


def _show_frame_json(frame: Frame) -> None:
    match frame:
        case Change(id=id_, raw=raw):
            event = msgspec.Raw(raw.encode())
            show_json_line({"op": "change", "id": id_, "data": event})
        case Snapshot(raw=raw):
            show_json_line({"op": "snapshot", "data": msgspec.Raw(raw.encode())})
        case SnapshotEnd(id=id_, count=count):
            show_json_line({"op": "snapshot_end", "id": id_, "data": {"count": count}})
        case Reset(reason=reason):
            show_json_line({"op": "reset", "data": {"reason": reason}})
        case _:
            pass


def _name(record: Record) -> str:
    match record:
        case Execution(execution_id=id_) | DeletedExecution(execution_id=id_):
            return f"executions/{id_}"
        case Command(command_id=id_):
            return f"commands/{id_}"
        case Group(name=name) | RemovedGroup(name=name):
            return f"groups/{name}"
        case _:
            return f"jobs/{record.job_id}"


def _decided(decision: ScheduleDecision) -> str:
    what = f"{decision.schedule}, {local_time(decision.scheduled_at)}: {decision.verdict}"
    if decision.first_at is not None:
        count = f"{decision.count} or more" if decision.more else str(decision.count)
        what = f"{decision.schedule}, {count} until {local_time(decision.scheduled_at)}: "
        what += decision.verdict
    return what + (f" ({decision.error or decision.why})" if decision.why else "")


def _about(record: Record | None) -> str:
    match record:
        case Execution():
            words = (record.job_id, plain_ending(record), percent_word(record.progress))
            return " ".join(words).rstrip()
        case Command():
            fields = (record.command, record.job_id, record.status, record.error_code)
            return " ".join(word for word in fields if word)
        case Job(fault=fault) if fault is not None:
            return fault_word(record)
        case Job(gave_up_at=at) if at is not None:
            return "restarted too often; a person must start it"
        case Group():
            paused = ", paused" if record.paused is not None else ""
            taken = f"{record.running} of {record.max_running} running"
            return f"{taken}, {record.waiting} waiting{paused}"
        case _:
            return ""

"""`run`, `logs`, `events`: what goes on until it ends or the person has seen enough."""

import shutil
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing
from pathlib import Path
from typing import Annotated

import msgspec
from cyclopts import Parameter

from bus.endings import exit_code_of
from bus.model import ExecutionStatus
from jobbus.cli.commands import Json, Variables, declared_variables, job_or_execution
from jobbus.cli.exits import CliError, Exit, exit_of_command
from jobbus.cli.progress import progress_display
from jobbus.cli.show import (
    clean,
    ending_word,
    local_time,
    percent_word,
    say,
    show_json,
    waiting_word,
)
from jobbus.cli.target import HERE, Place, Target, service_at
from jobbus.cli.terminal import Harmless
from jobbus.cli.values import variables_of
from jobbus.client.client import Client
from jobbus.client.frames import (
    Change,
    Frame,
    Gap,
    Output,
    Reset,
    Snapshot,
    SnapshotEnd,
)
from jobbus.client.records import Command, DeletedExecution, Execution, Job, Record
from jobbus.client.stream import StreamTiming

LOST_S_MAX = 300.0
"""How long a lost service is tried again before that is exit code 5."""

_TIMING = StreamTiming(give_up_s=LOST_S_MAX, patient=False)


async def run(
    job: str,
    /,
    *,
    var: Variables = (),
    exit_code: Annotated[
        bool,
        Parameter(
            negative=(), help="Exit with the job's own code; 128 + n: a signal, 124: its time limit"
        ),
    ] = False,
    target: Target = HERE,
) -> int:
    """Start a job, show its output and progress, and exit 0 if it succeeded. Ctrl-C only detaches.
    Retries that its definition orders are followed too: the last one counts.

    Parameters
    ----------
    job
        The job's id, App/Job.
    """
    url, token, certificate = service_at(target)
    async with following_client(url, token, certificate) as client:
        place = Place(url=url, token=token, certificate=certificate)
        values = variables_of(var, await declared_variables(place, job, var))
        accepted = await client.start(job, values)
        command = await client.wait_execution_id(accepted.command_id)
        if command.execution_id is None:
            say(command.error or f"the command ended as {command.status}")
            return exit_of_command(command) or Exit.ERROR
        try:
            execution = await _show_attempts(client, command.execution_id)
        except BaseException:  # also Ctrl-C, which comes as a cancellation
            say(f"the job goes on: jobbus logs -f {command.execution_id}")
            raise
    say(f"{execution.job_id}: {ending_word(execution)}")
    if exit_code:
        return exit_code_of(execution.status, execution.exit_code, execution.signal)
    return Exit.OK if execution.status == ExecutionStatus.SUCCEEDED else Exit.ERROR


async def logs(
    what: str,
    /,
    *,
    follow: Annotated[
        bool, Parameter(name=("--follow", "-f"), negative=(), help="Go on until it has ended")
    ] = False,
    tail: Annotated[
        int | None, Parameter(help="Only the last lines, 0 to 10000", show_default=False)
    ] = None,
    raw: Annotated[
        bool, Parameter(negative=(), help="On a terminal, too, every byte as it was printed")
    ] = False,
    target: Target = HERE,
) -> int:
    """Show what an execution has printed. On a terminal, whatever but colours would command it is
    shown as a sign.

    Parameters
    ----------
    what
        An execution's id; or a job's, App/Job, for its newest execution.
    """
    async with following_client(*service_at(target)) as client:
        execution_id = await _newest(client, what)
        if follow:
            await show_output(client, execution_id, tail=tail, raw=raw)
            return Exit.OK
        pieces = client.output(execution_id, tail=tail)
        async with aclosing(pieces):
            await _show_bytes(pieces, raw=raw)
    return Exit.OK


async def _show_bytes(pieces: AsyncIterator[bytes], *, raw: bool) -> None:
    if raw or not sys.stdout.isatty():
        async for piece in pieces:
            sys.stdout.buffer.write(piece)
            sys.stdout.buffer.flush()
        return
    harmless = Harmless()
    async for piece in pieces:
        _write(harmless.of_bytes(piece))
    _write(harmless.end())


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
    return Exit.OK


def following_client(url: str, token: str, certificate: Path | None = None) -> Client:
    """A client whose streams say on stderr when they are lost and tried again."""

    def lost(why: str, pause_s: float) -> None:
        if why != "the service closed the stream":
            say(f"{why}; trying again in {pause_s:.0f} s")

    return Client(url, token, certificate, timing=_TIMING, on_retry=lost)


async def show_execution(client: Client, execution_id: str) -> Execution:
    """The ended execution; its output went to stdout, its progress to stderr."""
    last: Execution | None = None
    with progress_display() as display:
        frames = client.follow(execution_id)
        async with aclosing(frames):
            async for frame in frames:
                _print_output(frame, display.write)
                for record in _records(frame):
                    if isinstance(record, Execution):
                        last = record
                        display.show(record)
    if last is None or not last.has_ended:
        last = await client.execution(execution_id)
    return last


async def _show_attempts(client: Client, execution_id: str) -> Execution:
    """The ended execution, or the last of those that followed it as retries."""
    while True:
        execution = await show_execution(client, execution_id)
        retry = await client.retry_of(execution)
        if retry is None:
            return execution
        say(f"{execution.job_id}: {ending_word(execution)}; {waiting_word(retry) or 'retry'}")
        execution_id = retry.execution_id


async def show_output(
    client: Client, execution_id: str, *, tail: int | None = None, raw: bool = False
) -> None:
    """All output went to stdout, up to the end of the execution."""
    frames = client.follow(execution_id, tail=tail)
    screen = Screen(_write) if sys.stdout.isatty() else None
    harmless = Harmless() if screen is not None and not raw else None

    def write(text: str) -> None:
        _write(harmless.of(text) if harmless is not None else text)

    async with aclosing(frames):
        async for frame in frames:
            if screen is not None:
                screen.clear(frame)
            _print_output(frame, write)
            if screen is not None:
                screen.show(frame)
    if harmless is not None:
        _write(harmless.end())


class Screen:
    """The open line at the end of a terminal: shown while it is open, replaced by what becomes of
    it. Where there is no terminal, lines are printed once they are whole."""

    def __init__(self, write: Callable[[str], None]) -> None:
        self._write = write
        self._shown = False

    def clear(self, frame: Frame) -> None:
        """Room for what the frame says instead of the open line."""
        if self._shown and isinstance(frame, Output | Gap):
            self._write("\r\x1b[K")
            self._shown = False

    def show(self, frame: Frame) -> None:
        """The frame's open line stands at the end, cut to what can be cleared again."""
        if not isinstance(frame, Output) or not frame.lines:
            return
        last = frame.lines[-1]
        if last.partial and not last.continued:
            width = shutil.get_terminal_size().columns
            self._write(clean(last.text)[: width - 1])
            self._shown = True


def _write(text: str) -> None:
    sys.stdout.write(text)
    sys.stdout.flush()


def _print_output(frame: Frame, write: Callable[[str], None]) -> None:
    match frame:
        case Output(text=text):
            write(text)
        case Gap(start=start, end=end):
            say(f"[{end - start} bytes of output are no longer kept]")
        case _:
            pass


def _records(frame: Frame) -> tuple[Record, ...]:
    match frame:
        case Snapshot(records=records):
            return records
        case Change(record=record) if record is not None:
            return (record,)
        case _:
            return ()


async def _newest(client: Client, what: str) -> str:
    job_id, execution_id = job_or_execution(what)
    if execution_id is not None:
        return execution_id
    page = await client.executions(job=job_id, limit=1)
    if not page.items:
        raise CliError(f"{job_id} has no executions", Exit.NOT_FOUND)
    return page.items[0].execution_id


def _show_frame(frame: Frame) -> None:
    match frame:
        case Change(time=time, type=type_, subject=subject, record=record):
            words = (local_time(time), type_.ljust(20), subject, _about(record))
            print(clean("  ".join(words)).rstrip(), flush=True)
        case Snapshot(records=records):
            for record in records:
                print(clean(f"{_name(record)}  {_about(record)}").rstrip(), flush=True)
        case Reset(reason=reason):
            say(f"changes were missed ({reason}); what follows is the state now")
        case _:
            pass


def _show_frame_json(frame: Frame) -> None:
    match frame:
        case Change(id=id_, raw=raw):
            event = msgspec.Raw(raw.encode())
            show_json({"op": "change", "id": id_, "data": event})
        case Snapshot(raw=raw):
            show_json({"op": "snapshot", "data": msgspec.Raw(raw.encode())})
        case SnapshotEnd(id=id_, count=count):
            show_json({"op": "snapshot_end", "id": id_, "data": {"count": count}})
        case Reset(reason=reason):
            show_json({"op": "reset", "data": {"reason": reason}})
        case _:
            pass


def _name(record: Record) -> str:
    match record:
        case Execution(execution_id=id_):
            return f"executions/{id_}"
        case Command(command_id=id_):
            return f"commands/{id_}"
        case DeletedExecution(execution_id=id_):
            return f"executions/{id_}"
        case _:
            return f"jobs/{record.job_id}"


def _about(record: Record | None) -> str:
    match record:
        case Execution():
            return f"{record.job_id} {ending_word(record)} {percent_word(record.progress)}".rstrip()
        case Command():
            words = (record.command, record.job_id, record.status, record.error_code)
            return " ".join(word for word in words if word)
        case Job(fault=fault) if fault is not None:
            return f"{fault.file}:{fault.line}: {fault.reason}"
        case Job(gave_up_at=at) if at is not None:
            return "restarted too often; a person must start it"
        case _:
            return ""

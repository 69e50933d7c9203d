"""`run` and `wait`: an execution is followed to its end, and how it ended is the exit code."""

import asyncio
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import aclosing, contextmanager
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from bus.endings import duration, exit_code_of
from jobbus.cli.answers import (
    check_timeout,
    refusal_word,
    show_failure,
    shown_execution,
)
from jobbus.cli.commands import Variables, declared_variables
from jobbus.cli.exits import Exit, exit_of_command
from jobbus.cli.naming import execution_meant, for_each, job_expected, meaning
from jobbus.cli.progress import progress_display
from jobbus.cli.show import Json, on_terminal, say, show_json, show_line
from jobbus.cli.target import HERE, Target, service_at
from jobbus.cli.values import variables_of
from jobbus.cli.words import plain_ending, run_seconds, short_id, waiting_word
from jobbus.client.client import Client
from jobbus.client.errors import WaitTimeout
from jobbus.client.frames import Change, Frame, Gap, Output, Snapshot
from jobbus.client.records import Command, Execution, Record
from jobbus.client.stream import StreamTiming

LOST_S_MAX = 300.0
"""How long a lost service is tried again before that is exit code 5."""

_TIMING = StreamTiming(give_up_s=LOST_S_MAX, patient=False)
_SEEN_LINES = 10
"""Last lines of output that count as still in view."""

OwnCode = Annotated[
    bool,
    Parameter(
        name="--exit-code",
        negative=(),
        help="Exit with the job's own code; 128 + n: a signal, 124: its time limit",
    ),
]


async def run(
    job: str,
    /,
    *,
    var: Variables = (),
    exit_code: OwnCode = False,
    as_json: Json = False,
    target: Target = HERE,
) -> int:
    """Start a job, show its output and progress, and exit 0 if it succeeded. Ctrl-C only detaches.
    Retries that its definition orders are followed too: the last attempt counts. With --json the
    ended execution with its result is printed, instead of its output.

    Parameters
    ----------
    job
        The job's id, App/Job.
    """
    url, token, certificate = service_at(target)
    async with following_client(url, token, certificate) as client:
        async with job_expected(client, job):
            values = variables_of(var, await declared_variables(client, job, var))
            accepted = await client.start(job, values)
        command = await client.wait_execution_id(accepted.command_id)
        if command.execution_id is None:
            say(f"jobbus: {refusal_word(command)}")
            return exit_of_command(command) or Exit.ERROR
        execution, seen = await _show_attempts(client, command.execution_id, all_output=not as_json)
        if as_json:
            show_json(execution)
        say(last_word(execution))
        await show_failure(client, execution, seen=seen if on_terminal() else ())
    return _exit_of(execution, own_code=exit_code)


async def wait(
    what: tuple[str, ...],
    /,
    *,
    timeout: Annotated[
        float | None,
        Parameter(help="Seconds to wait at most; then exit code 124", show_default=False),
    ] = None,
    exit_code: OwnCode = False,
    as_json: Json = False,
    target: Target = HERE,
) -> int:
    """Wait until executions have ended; exit 0 if all of them succeeded.

    Parameters
    ----------
    what
        Ids of executions, of commands, or of jobs (App/Job), for the newest.
    """
    check_timeout(timeout)
    async with following_client(*service_at(target)) as client:
        loop = asyncio.get_running_loop()
        ends_s = loop.time() + timeout if timeout is not None else None

        async def wait_for(word: str) -> int:
            meant = await meaning(client, word)
            left_s = max(0.0, ends_s - loop.time()) if ends_s is not None else None
            if isinstance(meant, Command):
                with _late(f"command {short_id(meant.command_id)}", timeout):
                    ended = await client.wait_command(meant.command_id, timeout_s=left_s)
                show_json(ended) if as_json else show_line(ended.command_id, ended.status.lower())
                return exit_of_command(ended)
            found = meant if isinstance(meant, Execution) else await execution_meant(client, word)
            try:
                with _late(f"{short_id(found.execution_id)} {found.job_id}", timeout):
                    execution = await client.wait_execution(found.execution_id, timeout_s=left_s)
            except asyncio.CancelledError:
                say(still_running(found.execution_id))
                raise
            _show_ended(execution, as_json=as_json)
            return _exit_of(execution, own_code=exit_code)

        return await for_each(what, wait_for)


@contextmanager
def _late(name: str, timeout_s: float | None) -> Iterator[None]:
    """A wait that takes too long says the time that was given, not what was left of it."""
    try:
        yield
    except WaitTimeout as late:
        assert timeout_s is not None
        raise WaitTimeout(f"{name} has not ended within {timeout_s:g} s; it goes on") from late


def following_client(url: str, token: str, certificate: Path | None = None) -> Client:
    """A client whose streams say on stderr when they are lost and tried again."""

    def lost(why: str, pause_s: float) -> None:
        if why != "the service closed the stream":
            say(f"{why}; trying again in {pause_s:.0f} s")

    return Client(url, token, certificate, timing=_TIMING, on_retry=lost)


def still_running(execution_id: str) -> str:
    """What goes on without the person who ends the watching."""
    id_ = short_id(execution_id)
    return f"still running: jobbus logs -f {id_}   stop: jobbus stop {id_}"


async def show_execution(
    client: Client, execution_id: str, *, all_output: bool = True
) -> tuple[Execution, list[str]]:
    """The ended execution and the lines it printed last; its progress went to stderr and, with
    `all_output`, what it printed to stdout."""
    last: Execution | None = None
    seen: deque[str] = deque(maxlen=_SEEN_LINES)
    with progress_display() as display:
        frames = client.follow(execution_id)
        async with aclosing(frames):
            async for frame in frames:
                if all_output:
                    print_output(frame, display.write)
                if isinstance(frame, Output):
                    seen.extend(line.text for line in frame.lines if not line.partial)
                for record in records_of(frame):
                    if isinstance(record, Execution):
                        last = record
                        display.show(record)
    if last is None or not last.has_ended:
        last = await client.execution(execution_id)
    return last, list(seen)


def print_output(frame: Frame, write: Callable[[str], None]) -> None:
    """The output that the frame brings was written; what is missing was named."""
    match frame:
        case Output(text=text):
            write(text)
        case Gap(start=start, end=end):
            say(f"[{end - start} bytes of output are no longer kept]")
        case _:
            pass


def records_of(frame: Frame) -> tuple[Record, ...]:
    """The records that the frame brings."""
    match frame:
        case Snapshot(records=records):
            return records
        case Change(record=record) if record is not None:
            return (record,)
        case _:
            return ()


async def _show_attempts(
    client: Client, execution_id: str, *, all_output: bool
) -> tuple[Execution, list[str]]:
    """The ended execution, or the last of those that followed it as retries."""
    while True:
        try:
            execution, seen = await show_execution(client, execution_id, all_output=all_output)
        except BaseException:  # also Ctrl-C, which comes as a cancellation
            say(still_running(execution_id))
            raise
        retry = await client.retry_of(execution)
        if retry is None:
            return execution, seen
        follows = waiting_word(retry, time.time()) or "retry"
        say(f"{execution.job_id}: {plain_ending(execution)}; {follows}")
        execution_id = retry.execution_id


def _show_ended(execution: Execution, *, as_json: bool) -> None:
    if as_json:
        show_json(execution)
    elif on_terminal():
        show_line(*shown_execution(execution))
    else:
        show_line(execution.execution_id, plain_ending(execution))


def last_word(execution: Execution) -> str:
    """E.g. `T/Talk: failed: exit code 3 (after 3.1 s)`."""
    ran_s = run_seconds(execution, 0.0)
    after = f" (after {duration(ran_s)})" if ran_s is not None else ""
    return f"{execution.job_id}: {plain_ending(execution)}{after}"


def _exit_of(execution: Execution, *, own_code: bool) -> int:
    if own_code:
        return exit_code_of(execution.status, execution.exit_code, execution.signal)
    return Exit.OK if execution.status == "Succeeded" else Exit.ERROR

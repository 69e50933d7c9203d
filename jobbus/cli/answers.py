"""How a command goes out and what is said of it: by HTTP, or into the data directory.

On a terminal a line with the short id and what can be done next; on a pipe the id of the execution
alone; with --json the command as HTTP answers it.
"""

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

from cyclopts import Parameter
from msgspec import structs

from bus.endings import duration
from jobbus.cli.exits import CliError, Exit, exit_of_command
from jobbus.cli.naming import LIVE
from jobbus.cli.offline import leave_command
from jobbus.cli.show import STYLES, Cell, on_terminal, say, show_json, show_line
from jobbus.cli.show import Json as Json
from jobbus.cli.target import Place, Target, client_of, locate
from jobbus.cli.words import (
    clock_word,
    command_word,
    median_s,
    plain_ending,
    run_seconds,
    short_id,
    waiting_word,
)
from jobbus.client.calls import WAIT_S_MAX
from jobbus.client.client import Client
from jobbus.client.command_records import CommandRequest
from jobbus.client.errors import ApiProblem, WaitTimeout
from jobbus.client.records import Command, Execution

DECISION_S_MAX = 5.0
"""How long the decision about a command is waited for, so that its execution can be named."""

DECISION_POLL_S = 0.03

SETTLE_S = 0.3
"""How long a program that was started is looked at, in case it fails at once."""

ERROR_LINES = 5
"""Last lines of stderr that are shown of a program that failed."""


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class Reply:
    """The flags that say what is reported of a command, and when."""

    wait: Annotated[bool, Parameter(negative=(), help="Wait until the command has ended")] = False
    timeout: Annotated[
        float | None,
        Parameter(help="With --wait: seconds at most; then exit code 124", show_default=False),
    ] = None
    as_json: Json = False

    def check(self) -> None:
        """Raises CliError for a combination without a meaning."""
        if self.timeout is not None and not self.wait:
            raise CliError("--timeout counts only together with --wait", Exit.USAGE)
        check_timeout(self.timeout)


AT_ONCE = Reply()


def check_timeout(timeout_s: float | None) -> None:
    """Raises CliError for a time that cannot be waited for."""
    if timeout_s is not None and not 0 <= timeout_s < 1e9:
        raise CliError("--timeout must be a number of seconds, 0 or more", Exit.USAGE)


async def published(client: Client, request: CommandRequest, reply: Reply) -> Command:
    """The command after it was decided about, or with --wait, after it has ended."""
    begun_s = time.monotonic()
    if not reply.wait:
        return await _decided(client, await client.publish(request))
    timeout_s = reply.timeout
    wait_s = WAIT_S_MAX if timeout_s is None else min(int(timeout_s), WAIT_S_MAX)
    answer = await client.publish(request, wait_s=wait_s)
    left_s = None if timeout_s is None else timeout_s - (time.monotonic() - begun_s)
    try:
        return await client.wait_command(answer.command_id, timeout_s=left_s)
    except WaitTimeout as late:
        raise WaitTimeout(
            f"command {answer.command_id} has not ended within {timeout_s:g} s; it goes on"
        ) from late
    except asyncio.CancelledError:
        say(f"the command goes on: jobbus command {short_id(answer.command_id)}")
        raise


async def _decided(client: Client, sent: Command) -> Command:
    """The command once it was decided about; as it was sent if that takes too long."""
    answer, ends_s = sent, time.monotonic() + DECISION_S_MAX
    while time.monotonic() < ends_s:
        try:
            answer = await client.command(sent.command_id)
        except ApiProblem as problem:
            if problem.status != 404:
                raise  # what was accepted is on record a moment later
        if answer.has_ended or answer.execution_id or answer.status == "Running":
            break
        await asyncio.sleep(DECISION_POLL_S)
    return answer if answer.command else structs.replace(answer, command=sent.command)


async def left_in_directory(place: Place, request: CommandRequest, reply: Reply) -> int:
    """The command waits in the data directory; the exit code."""
    assert place.layout is not None
    answer = await asyncio.to_thread(leave_command, place.layout, request)
    say(f"no service runs for {place.layout.root}; the command waits there for the next")
    show_json(answer) if reply.as_json else show_line(answer.command_id)
    if reply.wait:
        raise CliError("there is no service to wait for", Exit.UNREACHABLE)
    return Exit.OK


async def show_answer(client: Client, answer: Command, reply: Reply) -> int:
    """What became of the command was shown; the exit code.

    A start whose program has failed meanwhile did not reach its aim, whatever its status says.
    """
    execution = await _execution_of(client, answer)
    if reply.wait and execution is not None and not execution.has_ended:
        execution = await _settled(client, execution)
    if reply.as_json:
        show_json(answer)
    code = exit_of_command(answer)
    if code != Exit.OK:
        say(f"jobbus: {refusal_word(answer)}")
        if execution is not None:
            await show_failure(client, execution)
        return code
    if not reply.as_json:
        await _show(client, answer, execution)
    if execution is None or answer.command not in ("start", "restart", "retry"):
        return Exit.OK
    if not execution.has_ended or execution.status == "Succeeded":
        return Exit.OK
    if reply.as_json or not on_terminal():
        say(f"{execution.job_id}: {plain_ending(execution)}")
    await show_failure(client, execution)
    return Exit.ERROR


def refusal_word(answer: Command) -> str:
    """Why a command did not reach its aim."""
    return answer.error or f"the {command_word(answer)} ended: {answer.status.lower()}"


def shown_execution(execution: Execution) -> tuple[Cell | str, ...]:
    """The line on one execution: short id, job, how it stands."""
    style = STYLES.get(execution.status, "")
    return (
        Cell(short_id(execution.execution_id), "bold"),
        execution.job_id,
        Cell(plain_ending(execution), style),
    )


def next_steps(execution: Execution) -> str:
    """What can be done with an execution, as commands to copy."""
    id_ = short_id(execution.execution_id)
    if not execution.has_ended:
        return f"follow: jobbus logs -f {id_}   stop: jobbus stop {id_}"
    if execution.status == "Succeeded":
        return f"output: jobbus logs {id_}   everything about it: jobbus inspect {id_}"
    return f"again: jobbus retry {id_}   everything about it: jobbus inspect {id_}"


async def show_failure(client: Client, execution: Execution, *, seen: Sequence[str] = ()) -> None:
    """Why it failed and what to do next, on stderr; lines that were `seen` are not repeated."""
    if execution.status == "Succeeded":
        return
    lines = await error_lines(client, execution)
    if lines and not set(lines) <= set(seen):
        say("  the last lines of its stderr:")
        for line in lines:
            say(f"  | {line}")
    say(f"  {next_steps(execution)}")


async def error_lines(client: Client, execution: Execution) -> list[str]:
    """The last lines that it wrote to stderr; none if they may not be read."""
    if execution.start_time is None:
        return []
    try:
        page = await client.output_lines(execution.execution_id, tail=200, stream="err")
    except ApiProblem:
        return []  # may be shown to others only, or is not kept any more
    return [line.text for line in page.lines][-ERROR_LINES:]


async def _execution_of(client: Client, answer: Command) -> Execution | None:
    if answer.execution_id is None:
        return None
    try:
        return await client.execution(answer.execution_id)
    except ApiProblem as problem:
        if problem.status not in (403, 404):
            raise
        return None  # deleted, or not to be seen by who sent the command


async def _settled(client: Client, execution: Execution) -> Execution:
    """The execution a moment later: a program that fails at once is not reported as running."""
    try:
        return await client.wait_execution(execution.execution_id, timeout_s=SETTLE_S)
    except WaitTimeout:
        return execution


async def _show(client: Client, answer: Command, execution: Execution | None) -> None:
    if not on_terminal():
        show_line(answer.execution_id or answer.command_id)
        return
    if execution is None:
        show_line(Cell(short_id(answer.command_id), "bold"), _accepted(answer))
        return
    *names, state = shown_execution(execution)
    assert isinstance(state, Cell)
    words = await _why_not_yet(client, execution) if execution.status == "Queued" else ""
    note = {"noop": " (nothing was to be done)", "merged": " (joined with an earlier command)"}
    text = f"{state.text}{f': {words}' if words else ''}{note.get(answer.outcome or '', '')}"
    show_line(*names, Cell(text, state.style))
    say(f"  command: {answer.command_id}")
    if not execution.has_ended or execution.status == "Succeeded":
        say(f"  {next_steps(execution)}")  # else they come with the reason


def _accepted(answer: Command) -> str:
    what = command_word(answer)
    if answer.outcome == "noop":
        return f"the {what} had nothing to do"
    return f"the {what} is {'done' if answer.has_ended else 'accepted'}"


async def _why_not_yet(client: Client, queued: Execution) -> str:
    """What a queued execution waits for."""
    now_s = time.time()
    if queued.not_before is not None or queued.waiting_for.partition(" a slot of ")[1] == "":
        return waiting_word(queued, now_s)
    page = await client.executions(job=queued.job_id, limit=50)
    running = [each for each in page.items if each.status in LIVE and each.start_time]
    if not running:
        return ""
    usual_s = median_s(page.items)
    ran = clock_word(run_seconds(running[0], now_s) or 0)
    of = f" of about {duration(usual_s)}" if usual_s is not None else ""
    count = "one is" if len(running) == 1 else f"{len(running)} are"
    return f"{count} running already ({short_id(running[0].execution_id)}, {ran}{of})"


async def ordered(request: CommandRequest, reply: Reply, target: Target, done: str) -> int:
    """The command was sent, and a line says what came of it: `done`, or why not; the exit code.

    Without a service it is left in the directory.
    """
    reply.check()
    place = locate(target)
    if place.url is None:
        return await left_in_directory(place, request, reply)
    async with client_of(place) as client:
        answer = await published(client, request, reply)
    if reply.as_json:
        show_json(answer)
    elif answer.status == "Completed":
        show_line(done if answer.outcome == "done" else "nothing was to be done")
    else:
        say(f"jobbus: {refusal_word(answer)}")
    return exit_of_command(answer) if answer.has_ended else Exit.OK

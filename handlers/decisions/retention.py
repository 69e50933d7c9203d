"""What is forgotten when more is kept than `[keep]` says. Pure.

Finding it looks at every record, so it is done on a frozen table, in slices, away from the loop.
What was found is looked at once more when the owner decides: the table may have moved on.
"""

from collections import Counter
from collections.abc import Container, Iterable, Iterator, Sequence

import msgspec

from bus.commands import Forget
from bus.events import SystemForgotten
from bus.jobs import Job, KeepSpec, OutputSpec
from bus.keeping import DAY_MS, Keeping
from bus.model import CommandRecord, Execution
from handlers.decisions.decision import NOTHING, Circumstances, Decision, ForgetFiles
from handlers.decisions.readable_table import ReadableTable
from handlers.decisions.records import awaited
from handlers.decisions.table_content import TableContent

BATCH_MAX = 500
"""Records forgotten with one event."""
SLICE = 5000
"""Records looked at in one go."""
SETTLED_MS = 60_000
"""So long every ended command is kept: whoever sent it can ask for it, its result is written."""


class Past(msgspec.Struct, frozen=True):
    """What is looked at. Without `by_age` the clock is not trusted and only counts and bytes count.

    Ids of commands submitted at `waiting_since_ms` or later stay remembered: the horizon must not
    pass what still waits.
    """

    content: TableContent
    id_times_ms: Sequence[int]
    now_ms: int
    by_age: bool = True
    waiting_since_ms: int | None = None


def to_forget(past: Past, keeping: Keeping) -> Iterator[Forget | None]:
    """One report for each batch, oldest first; None after each slice without one."""
    executions: list[str] = []
    for execution_id in _executions(past, keeping):
        if execution_id is None:
            yield None
        else:
            executions.append(execution_id)
    commands: list[str] = []
    for command_id in _commands(past, keeping):
        if command_id is None:
            yield None
        else:
            commands.append(command_id)
    for batch in _batches(executions[::-1]):
        yield Forget(executions=batch)
    for batch in _batches(commands[::-1]):
        yield Forget(commands=batch)
    dropped, horizon_ms = _ids(past, keeping, len(commands))
    if dropped:
        yield Forget(ids_dropped=past.content.remembered.first + dropped, horizon_ms=horizon_ms)


def forget(table: ReadableTable, report: Forget, _: Circumstances) -> Decision:
    """As much of the report as still holds."""
    awaited_now = _awaited(table.unfinished_commands())
    executions = [
        execution
        for i in dict.fromkeys(report.executions)
        if (execution := table.execution(i)) is not None
        and execution.is_final
        and i not in awaited_now
    ]
    commands = [
        command
        for i in dict.fromkeys(report.commands)
        if (command := table.command(i)) is not None and command.is_final
    ]
    dropped = report.ids_dropped if report.ids_dropped > table.remembered.first else 0
    if not (executions or commands or dropped):
        return NOTHING
    event = SystemForgotten(
        executions=tuple(execution.id for execution in executions),
        commands=tuple(command.id for command in commands),
        ids_dropped=dropped,
        horizon_ms=report.horizon_ms if dropped else 0,
    )
    spellings = tuple(command.id_text or command.id for command in commands)
    return Decision((event,), (ForgetFiles(event.executions, event.commands, spellings),))


def _executions(past: Past, keeping: Keeping) -> Iterator[str | None]:
    """Ended executions that are too many, too old or hold too much, newest first."""
    jobs = {job.id: job for job in past.content.jobs}
    needed = _awaited(c for c in past.content.commands if not c.is_final)
    kept: Counter[str] = Counter()
    held_bytes = 0
    for number, execution in enumerate(reversed(past.content.executions), 1):
        if number % SLICE == 0:
            yield None
        if not execution.is_final or execution.id in needed:
            continue
        job = jobs.get(execution.job_id)
        limits = _limits_of(job, keeping)
        size = _size_of(execution, job)
        if (
            kept[execution.job_id] >= limits.executions
            or (past.by_age and _age_ms(execution.end_ms, past) > limits.age_ms)
            or held_bytes + size > keeping.output_bytes
        ):
            yield execution.id
        else:
            kept[execution.job_id] += 1
            held_bytes += size


def _commands(past: Past, keeping: Keeping) -> Iterator[str | None]:
    """Ended commands that are too many, too old or hold too much, newest first."""
    kept = held_bytes = 0
    for number, command in enumerate(reversed(past.content.commands), 1):
        if number % SLICE == 0:
            yield None
        age_ms = _age_ms(command.processed_ms, past)
        if not command.is_final or abs(age_ms) < SETTLED_MS:
            continue
        days_ms = keeping.command_days * DAY_MS
        most_ms = keeping.status_s * 1000 if command.kind == "status" else days_ms
        size = _size_of_command(command)
        if (
            kept >= keeping.commands
            or (past.by_age and age_ms > most_ms)
            or held_bytes + size > keeping.command_bytes
        ):
            yield command.id
        else:
            kept += 1
            held_bytes += size


def _ids(past: Past, keeping: Keeping, more: int) -> tuple[int, int]:
    """How many of the oldest ids go, and the time up to which commands may have been among them."""
    times = past.id_times_ms
    too_many = max(0, len(times) + more - keeping.ids)
    oldest_ms = past.now_ms - keeping.id_days * DAY_MS if past.by_age else float("-inf")
    newest_ms = past.waiting_since_ms if past.waiting_since_ms is not None else float("inf")
    dropped, horizon_ms = 0, 0
    for time_ms in times:
        if not (dropped < too_many or time_ms < oldest_ms) or time_ms >= newest_ms:
            break
        dropped += 1
        horizon_ms = max(horizon_ms, time_ms)
    return dropped, horizon_ms


class _Limits(msgspec.Struct, frozen=True):
    executions: int
    age_ms: float


def _limits_of(job: Job | None, keeping: Keeping) -> _Limits:
    """The job's own `[keep]` before the configured one; that of a removed job is not known."""
    own = job.spec.keep if job is not None and job.spec is not None else KeepSpec()
    days = keeping.days if own.days is None else own.days
    most = keeping.executions if own.executions is None else own.executions
    return _Limits(most, days * DAY_MS)


def _size_of(execution: Execution, job: Job | None) -> int:
    """What its output takes on the disk, as far as the record tells."""
    spec = job.spec if job is not None else None
    cap = spec.output.max_bytes if spec is not None else OutputSpec().max_bytes
    return min(execution.output_end or 0, cap)


def _size_of_command(command: CommandRecord) -> int:
    """What in it was as long as somebody liked; the rest of a record is small."""
    texts = [command.error or "", *command.roles]
    for name, value in (command.variables or {}).items():
        texts += (name, value) if isinstance(value, str) else (name,)
    return len(memoryview(command.result)) + sum(map(_utf8_size, texts))


def _utf8_size(text: str) -> int:
    return len(text) if text.isascii() else len(text.encode("utf-8", "surrogatepass"))


def _age_ms(ended_ms: int | None, past: Past) -> int:
    return past.now_ms - ended_ms if ended_ms is not None else 0


def _awaited(commands: Iterable[CommandRecord]) -> Container[str]:
    """Executions whose end still decides about a command."""
    return {execution_id for command in commands for execution_id in awaited(command)}


def _batches(ids: Sequence[str]) -> Iterator[tuple[str, ...]]:
    for begin in range(0, len(ids), BATCH_MAX):
        yield tuple(ids[begin : begin + BATCH_MAX])

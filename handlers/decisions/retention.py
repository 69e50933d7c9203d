"""What is forgotten when more is kept than `[keep]` says. Pure.

Finding it looks at every record, so it is done on a frozen table, in slices, away from the loop.
What was found is looked at once more when the owner decides: the table may have moved on.
"""

from collections import Counter
from collections.abc import Container, Iterable, Iterator, Sequence

import msgspec

from bus.commands import Forget
from bus.events import SystemForgotten
from bus.job_definition import Job, KeepSpec, OutputSpec
from bus.model import CommandRecord, Execution
from bus.retention_settings import DAY_MS, RetentionSettings
from handlers.decisions.decision import NOTHING, Context, Decision, DeleteFiles
from handlers.decisions.kept_commands import Holdings, fair_share, had_effect, size_of
from handlers.decisions.readable_table import ReadableTable
from handlers.decisions.records import awaited
from handlers.decisions.remembered import DAYS_CUT, TURNS, Turn
from handlers.decisions.table_content import TableContent

BATCH_MAX = 500
"""Records forgotten with one event."""
SLICE = 5000
"""Records looked at in one go."""
SETTLED_MS = 60_000
"""So long every ended command is kept: its sender can ask for it, its result is written."""
READ_SETTLED_MS = 5_000
"""The same of one without an effect: more of these come than of any other."""
READS_COUNT_PART, READS_BYTES_PART = 10, 4
"""Commands without an effect have a tenth of the number for themselves, a quarter of the bytes."""


class Past(msgspec.Struct, frozen=True):
    """What is looked at. Without `by_age` the clock is not trusted and only counts and bytes count.

    Ids of commands submitted at `waiting_since_ms` or later stay remembered: the horizon must not
    pass what still waits. `running_ms` have passed since the last turn, or since the service came
    up, on a clock that does not jump.
    """

    content: TableContent
    id_times_ms: Sequence[int]
    now_ms: int
    by_age: bool = True
    waiting_since_ms: int | None = None
    running_ms: int = 0


def to_forget(past: Past, keeping: RetentionSettings) -> Iterator[Forget | None]:
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
    yield from _ids(past, keeping)


def forget(table: ReadableTable, report: Forget, _: Context) -> Decision:
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
    at_most_ms = report.horizon_at_most_ms
    if at_most_ms is not None and table.horizon_ms <= at_most_ms:
        at_most_ms = None
    if not (executions or commands or dropped or report.turned or at_most_ms is not None):
        return NOTHING
    event = SystemForgotten(
        executions=tuple(execution.id for execution in executions),
        commands=tuple(command.id for command in commands if had_effect(command)),
        ids_dropped=dropped,
        horizon_ms=report.horizon_ms if dropped else 0,
        traceless=tuple(command.id for command in commands if not had_effect(command)),
        horizon_at_most_ms=at_most_ms,
        turned=report.turned,
    )
    ids = tuple(command.id for command in commands)
    spellings = tuple(command.id_text or command.id for command in commands)
    files = DeleteFiles(execution_ids=event.executions, command_ids=ids, spellings=spellings)
    return Decision((event,), (files,))


def _executions(past: Past, keeping: RetentionSettings) -> Iterator[str | None]:
    """Ended executions that are too many, too old or hold too much, newest first."""
    jobs = {job.id: job for job in past.content.jobs}
    for job in past.content.jobs:
        for name in job.spec.formerly if job.spec is not None else ():
            jobs.setdefault(name, job)
    needed = _awaited(c for c in past.content.commands if not c.is_final)
    kept: Counter[str] = Counter()
    held_bytes = results_bytes = 0
    for number, execution in enumerate(reversed(past.content.executions), 1):
        if number % SLICE == 0:
            yield None
        if not execution.is_final or execution.id in needed:
            continue
        its_job = jobs.get(execution.job_id)
        name = execution.job_id if its_job is None else its_job.id
        limits = _limits_of(its_job, keeping)
        size, result_size = _size_of(execution, its_job), len(bytes(execution.result))
        if (
            kept[name] >= limits.executions
            or (past.by_age and _age_ms(execution.end_ms, past) > limits.age_ms)
            or held_bytes + size > keeping.output_bytes
            or results_bytes + result_size > keeping.result_bytes
        ):
            yield execution.id
        else:
            kept[name] += 1
            held_bytes += size
            results_bytes += result_size


class _Kind(msgspec.Struct, frozen=True):
    """How much is kept of commands of one kind, with or without an effect."""

    count: int
    size_bytes: int
    settled_ms: int


class _Room:
    """What each principal may keep of one kind: who has little keeps it, whatever others send."""

    def __init__(self, kind: _Kind) -> None:
        self._kind = kind
        self._all = Holdings()
        self._kept = Holdings()
        self._count = self._size_bytes = 0

    def see(self, command: CommandRecord) -> None:
        self._all.change(command.user_id, 1, size_of(command))

    def settle(self) -> None:
        """All were seen."""
        held = self._all.each()
        self._count = fair_share((each.count for each in held), self._kind.count)
        self._size_bytes = fair_share((each.size_bytes for each in held), self._kind.size_bytes)

    def takes(self, command: CommandRecord, age_ms: float) -> bool:
        """Whether the command is kept; the newest are asked for first."""
        size, kept = size_of(command), self._kept.of(command.user_id)
        fits = kept.count < self._count and kept.size_bytes + size <= self._size_bytes
        if fits or abs(age_ms) < self._kind.settled_ms:
            self._kept.change(command.user_id, 1, size)
            return True
        return False


def _commands(past: Past, keeping: RetentionSettings) -> Iterator[str | None]:
    """Ended commands that are too many, too old or hold too much, newest first."""
    reads = _Room(
        _Kind(
            max(1, keeping.commands // READS_COUNT_PART),
            max(1, keeping.command_bytes // READS_BYTES_PART),
            READ_SETTLED_MS,
        )
    )
    others = _Room(_Kind(keeping.commands, keeping.command_bytes, SETTLED_MS))
    for number, command in enumerate(past.content.commands, 1):
        if number % SLICE == 0:
            yield None
        if command.is_final:
            (others if had_effect(command) else reads).see(command)
    reads.settle()
    others.settle()
    for number, command in enumerate(reversed(past.content.commands), 1):
        if number % SLICE == 0:
            yield None
        if not command.is_final:
            continue
        age_ms = _age_ms(command.processed_ms, past)
        days_ms = keeping.command_days * DAY_MS
        most_ms = keeping.status_s * 1000 if command.kind == "status" else days_ms
        room = others if had_effect(command) else reads
        is_old = past.by_age and age_ms > max(most_ms, SETTLED_MS)
        if is_old or not room.takes(command, age_ms):
            yield command.id


def _ids(past: Past, keeping: RetentionSettings) -> Iterator[Forget]:
    """A turn that is due, the ids that are old enough by now, a horizon that cannot be true."""
    content = past.content
    turns = content.remembered.turns
    part_ms = keeping.id_days * DAY_MS / DAYS_CUT
    horizon_ms = content.horizon_ms
    if horizon_ms > past.now_ms:
        # The clock was ahead when it was set, or is behind now. Ids are kept for longer than this,
        # so no command that is refused below it could be among the dropped.
        yield Forget(horizon_at_most_ms=past.now_ms - int(keeping.id_days * DAY_MS))
    if past.id_times_ms and _is_turn_due(past, turns, part_ms):
        yield Forget(turned=True)
    count = turns[0].ids - content.remembered.first if len(turns) > TURNS else 0
    if count > 0:
        newest_ms = max(past.id_times_ms[:count])
        newest_ms = min(newest_ms, past.now_ms - int(keeping.id_days * DAY_MS))
        if past.waiting_since_ms is None or newest_ms < past.waiting_since_ms:
            yield Forget(ids_dropped=turns[0].ids, horizon_ms=newest_ms)


def _is_turn_due(past: Past, turns: Sequence[Turn], part_ms: float) -> bool:
    """By the wall clock, which also counts while the service is down, or by the time it has run.

    A wall clock that jumps makes one turn early, however far it jumps: what comes after is measured
    from there.
    """
    if not turns:
        return True
    passed_ms = past.now_ms - turns[-1].at_ms
    return passed_ms >= part_ms or passed_ms < -part_ms or past.running_ms >= part_ms


class _Limits(msgspec.Struct, frozen=True):
    executions: int
    age_ms: float


def _limits_of(job: Job | None, keeping: RetentionSettings) -> _Limits:
    """The job's own `[keep]` before the configured one; that of a removed job is not known."""
    own = job.spec.keep if job is not None and job.spec is not None else KeepSpec()
    days = keeping.days if own.days is None else own.days
    most = keeping.executions if own.executions is None else own.executions
    return _Limits(most, days * DAY_MS)


def _size_of(execution: Execution, job: Job | None) -> int:
    """What its output and its files take on the disk, as far as the record shows."""
    spec = job.spec if job is not None else None
    cap = spec.output.max_bytes if spec is not None else OutputSpec().max_bytes
    return min(execution.output_end or 0, cap) + execution.artifact_bytes


def _age_ms(ended_ms: int | None, past: Past) -> int:
    return past.now_ms - ended_ms if ended_ms is not None else 0


def _awaited(commands: Iterable[CommandRecord]) -> Container[str]:
    """Executions whose end still decides about a command."""
    return {execution_id for command in commands for execution_id in awaited(command)}


def _batches(ids: Sequence[str]) -> Iterator[tuple[str, ...]]:
    for begin in range(0, len(ids), BATCH_MAX):
        yield tuple(ids[begin : begin + BATCH_MAX])

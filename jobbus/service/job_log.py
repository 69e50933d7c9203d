"""What the log says about jobs, for those who run them: started, ended and how, adopted, defined.

One line for each, as a sentence; the fields are for programs. In a rush, lines are counted instead.
"""

import asyncio
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from functools import partial

import structlog

from bus.clock import Clock, rfc3339
from bus.commands import Definition
from bus.endings import duration, ending
from bus.events import (
    ExecutionCaused,
    ExecutionEnded,
    ExecutionHealth,
    ExecutionQueued,
    ExecutionRunning,
    ExecutionStopping,
    ExecutionUnknown,
    GroupDefined,
    GroupPaused,
    GroupRemoved,
    GroupResumed,
    JobChanged,
    JobDefined,
    JobGaveUp,
    JobInvalid,
    JobPaused,
    JobRemoved,
    JobResumed,
    Published,
    ScheduleDecided,
    SystemMaintenance,
)
from bus.health import HealthStatus
from bus.job_definition import DefinitionFault
from bus.model import Caused, Execution, ExecutionStatus
from bus.ports import TableReader
from bus.schedules import Verdict, Why

LINES_BURST = 200
LINES_PER_S = 20.0
"""So many lines at once, and so many a second for long; what is more is counted."""

SUMMARY_S = 5.0
"""So long is counted before the log says how many lines are missing."""

EACH_MAX = 20
"""So many definitions of one change are named each."""

_CHANGES = (
    (JobDefined, "has a definition"),
    (JobChanged, "has a new definition"),
    (JobRemoved, "has no definition any more"),
)
_BAD = (ExecutionStatus.FAILED, ExecutionStatus.TIMED_OUT, ExecutionStatus.LOST)

_NOT_MEANT = (Why.MISSED, Why.NO_SPACE, Why.QUEUE_FULL, Why.REFUSED)
"""Why nothing was started, where no person asked for that."""

log = structlog.get_logger("jobbus.jobs")


class JobLog:
    """Implements `bus.ports.ChangeListener`. Lives in the event loop.

    `_room` is how many lines may be written at `_at_s`, refilled with time; `_left_out` counts by
    kind what was not written since the last summary, which `run` writes. `_said` are the faults
    that stand in this log, by job.
    """

    def __init__(self, table: TableReader, clock: Clock) -> None:
        self._table = table
        self._clock = clock
        self._room = float(LINES_BURST)
        self._at_s = clock.monotonic_s()
        self._left_out: Counter[str] = Counter()
        self._has_left_out = asyncio.Event()
        self._said: dict[str, DefinitionFault] = {}

    def __call__(self, batch: Sequence[Published]) -> None:
        self._definitions(batch)
        for published in batch:
            match published.event:
                case ExecutionRunning(execution_id=id_):
                    self._on(id_, "started", self._started)
                case ExecutionEnded(execution_id=id_):
                    self._on(id_, "ended", self._ended)
                case ExecutionStopping(execution_id=id_):
                    self._on(id_, "stopping", self._stopping)
                case ExecutionHealth(execution_id=id_):
                    self._on(id_, "health", self._checked)
                case ExecutionUnknown(execution_id=id_):
                    self._on(id_, "unknown", self._unknown)
                case ExecutionQueued(execution_id=id_) as queued if queued.not_before_ms:
                    self._on(id_, "delayed", self._delayed)
                case ExecutionCaused(execution_id=id_, caused=caused) if caused.error_code:
                    self._on(id_, "refused", partial(_not_started, caused))
                case JobGaveUp() as gave_up:
                    _warn(
                        f"{gave_up.job_id} was restarted {gave_up.restarts} times within "
                        f"{duration(gave_up.window_s)} and is not started again; a person must "
                        "start it",
                        job=gave_up.job_id,
                    )
                case ScheduleDecided() as decided if decided.verdict is not Verdict.STARTED:
                    self._not_started(decided)
                case JobPaused() | JobResumed() | GroupPaused() | GroupResumed() as order:
                    _note(_of_queue(order), by=order.by)
                case GroupDefined(name=name, max_running=most):
                    _note(f"group {name} has {most} slot{'s' * (most != 1)}")
                case GroupRemoved(name=name):
                    _note(f"group {name} is not in the settings any more")
                case SystemMaintenance(on=True) as begun:
                    why = f": {begun.reason}" if begun.reason else ""
                    _note(f"maintenance begins, nothing is started{why}", by=begun.by)
                case SystemMaintenance() as over:
                    _note("maintenance ends", by=over.by)
                case _:
                    pass

    def begun(self, live: Iterable[Execution], definitions: Sequence[Definition]) -> None:
        """The start has looked at what the last service left: what `live` was then and is now."""
        found = [(then, self._table.execution(then.id)) for then in live]
        going_on = [now for _, now in found if now is not None and not now.is_final]
        for execution in going_on[:EACH_MAX]:
            _note(
                f"{execution.job_id} goes on and is watched again",
                **_fields(execution),
                pid=execution.pid,
            )
        if found:
            _note(
                f"adopted: {len(going_on)} executions go on, {len(found) - len(going_on)} ended "
                "without a service"
            )
        faulty = [(each.job_id, each.fault) for each in definitions if each.fault is not None]
        broken = f", {len(faulty)} definitions are faulty" if faulty else ""
        _note(f"jobs that are defined: {len(definitions) - len(faulty)}{broken}")
        self._faults([(job, fault) for job, fault in faulty if self._said.get(job) != fault])

    async def run(self) -> None:
        """Says now and then how many lines were left out, for ever."""
        while True:
            await self._has_left_out.wait()
            await asyncio.sleep(SUMMARY_S)
            counts, self._left_out = self._left_out, Counter()
            self._has_left_out.clear()
            _note("more happened than is logged one by one", **counts)

    def _on(self, execution_id: str, kind: str, say: Callable[[Execution], None], /) -> None:
        execution = self._table.execution(execution_id)
        if execution is None:
            return
        if self._may_write():
            say(execution)
        else:
            self._left_out[kind] += 1
            self._has_left_out.set()

    def _not_started(self, decided: ScheduleDecided) -> None:
        """An instant that has started nothing of its own; starts have their own lines."""
        if not self._may_write():
            self._left_out["by schedule"] += 1
            self._has_left_out.set()
            return
        count = f"{decided.count} times until " if decided.first_ms is not None else ""
        why = decided.error or (decided.why.value.replace("_", " ") if decided.why else "")
        say = _warn if decided.why in _NOT_MEANT else _note
        say(
            f"{decided.job_id} was due {count}{rfc3339(decided.instant_ms)} and is "
            f"{decided.verdict}{f': {why}' if why else ''}",
            job=decided.job_id,
            schedule=decided.schedule,
            execution=decided.execution_id,
        )

    def _may_write(self) -> bool:
        now_s = self._clock.monotonic_s()
        self._room = min(LINES_BURST, self._room + (now_s - self._at_s) * LINES_PER_S)
        self._at_s = now_s
        if self._room < 1:
            return False
        self._room -= 1
        return True

    def _started(self, execution: Execution) -> None:
        tries = max(execution.attempts, execution.attempt)
        which = f", attempt {execution.attempt} of {tries}" if tries > 1 else ""
        _note(
            f"{execution.job_id} started{which}",
            **_fields(execution),
            pid=execution.pid,
            user=execution.user_id,
        )

    def _ended(self, execution: Execution) -> None:
        begin_ms, end_ms = execution.start_ms, execution.end_ms
        taken_s = (end_ms - begin_ms) / 1000 if begin_ms and end_ms else None
        took = f", after {duration(taken_s)}" if taken_s is not None else ""
        write = _warn if execution.status in _BAD else _note
        write(
            f"{execution.job_id} {ending(execution)}{took}",
            **_fields(execution),
            status=execution.status.value,
            duration_s=taken_s,
        )

    def _stopping(self, execution: Execution) -> None:
        assert execution.stop is not None
        _note(
            f"{execution.job_id} is being stopped",
            **_fields(execution),
            by=execution.stop.by,
            reason=execution.stop.reason.value,
        )

    def _checked(self, execution: Execution) -> None:
        health = execution.health
        assert health is not None
        said = f": {health.message}" if health.message else ""
        write = _warn if health.status is HealthStatus.UNHEALTHY else _note
        write(f"{execution.job_id} is {health.status}{said}", **_fields(execution))

    def _unknown(self, execution: Execution) -> None:
        _warn(
            f"{execution.job_id} runs without its watcher; it is looked at from outside until it "
            "ends",
            **_fields(execution),
        )

    def _delayed(self, execution: Execution) -> None:
        wait_ms = (execution.not_before_ms or 0) - self._clock.now_ms()
        what = execution.cause.rpartition(":")[2] or "start"
        _note(
            f"{execution.job_id} waits for its {what}, {duration(max(0, wait_ms) / 1000)}",
            **_fields(execution),
        )

    def _definitions(self, batch: Sequence[Published]) -> None:
        """All of one change of the catalog is in one batch."""
        for kind, word in _CHANGES:
            jobs = [p.event.job_id for p in batch if isinstance(p.event, kind)]
            for job_id in jobs[:EACH_MAX]:
                was_faulty = self._said.pop(job_id, None) is not None and kind is not JobRemoved
                _note(
                    f"{job_id} {word}" + (", which is right again" if was_faulty else ""),
                    job=job_id,
                )
            if len(jobs) > EACH_MAX:
                _note(f"and {len(jobs) - EACH_MAX} more, each of which {word}")
        self._faults(
            [(p.event.job_id, p.event.fault) for p in batch if isinstance(p.event, JobInvalid)]
        )

    def _faults(self, faults: Sequence[tuple[str, DefinitionFault]]) -> None:
        self._said.update(faults)
        for job_id, fault in faults[:EACH_MAX]:
            job = self._table.job(job_id)
            kept = "; the last good version is in force" if job is not None and job.spec else ""
            _warn(f"{fault}{kept}", job=job_id)
        if len(faults) > EACH_MAX:
            _warn(f"and {len(faults) - EACH_MAX} more faulty definitions: jobbus jobs")


def _not_started(caused: Caused, execution: Execution) -> None:
    _warn(
        f"{caused.job_id} was not started after {execution.job_id}: "
        f"{caused.error or caused.error_code}",
        **_fields(execution),
        command=caused.command_id,
    )


def _of_queue(order: JobPaused | JobResumed | GroupPaused | GroupResumed) -> str:
    if isinstance(order, JobPaused | JobResumed):
        what = f"the queue of {order.job_id}"
    else:
        what = f"group {order.name}"
    if isinstance(order, JobResumed | GroupResumed):
        return f"{what} goes on"
    why = f": {order.reason}" if order.reason else ""
    return f"{what} is paused, nothing more of it is started{why}"


def _fields(execution: Execution) -> dict[str, str]:
    return {"job": execution.job_id, "execution": execution.id}


def _note(sentence: str, **fields: object) -> None:
    log.info(sentence, **fields)


def _warn(sentence: str, **fields: object) -> None:
    log.warning(sentence, **fields)

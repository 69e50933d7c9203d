"""How events change the job table: catalog, executions and commands. No IO, no clock.

There are two of these in a service: the *working* table, one decision ahead, and the *published*
table, which holds only what is durable. Both fold the same events, so replay(journal) == published.
"""

from collections.abc import Iterable, Sequence
from typing import Any

from msgspec.structs import replace

from bus.events import (
    CommandAccepted,
    CommandEnded,
    ExecutionCaused,
    ExecutionDeleted,
    ExecutionEnded,
    ExecutionHealth,
    ExecutionProgress,
    ExecutionQueued,
    ExecutionRunning,
    ExecutionStarted,
    ExecutionStopping,
    ExecutionUnknown,
    GroupDefined,
    GroupEvent,
    GroupPaused,
    GroupRemoved,
    GroupResumed,
    JobChanged,
    JobCleared,
    JobDefined,
    JobEvent,
    JobGaveUp,
    JobInvalid,
    JobPaused,
    JobRemoved,
    JobResumed,
    Published,
    ScheduleBegun,
    ScheduleDecided,
    SchedulePaused,
    ScheduleResumed,
    SystemClock,
    SystemForgotten,
    SystemMaintenance,
)
from bus.groups import OVERDUE_MS, Group, JobQueue
from bus.job_definition import Job, JobSpec, RolesSpec
from bus.model import HOLDS_SLOT, CommandRecord, Execution, ExecutionStatus, Maintenance
from bus.schedules import ClockDoubt
from handlers.decisions import records, schedule_records
from handlers.decisions.kept_commands import Holdings, had_effect, is_counted, size_of
from handlers.decisions.lines import Lines
from handlers.decisions.readable_table import ReadableTable
from handlers.decisions.records import awaited, pause
from handlers.decisions.schedule_records import ScheduleEvent
from handlers.decisions.table_content import TableContent
from handlers.decisions.waiting_reasons import waiting_for

GONE_JOBS_MAX = 1000
"""Removed jobs whose schedules are still known."""
LAST_QUEUES_MAX = 10_000
"""Removed jobs whose pause and newest starts are remembered."""


class JobTable(ReadableTable):
    """A table that takes events in. What only decides gets it as a `ReadableTable`.

    All maps are changed by `apply` alone, called by the owner and by a replay.
    """

    def apply(self, published: Published) -> None:
        """Folds one event in. Cannot wait and cannot fail half-way.

        Raises:
            AssertionError: the event does not fit the table, which no decision may ever cause.
        """
        seq, at_ms = published.seq, published.at_ms
        match published.event:
            case CommandAccepted() as event:
                self._accept(event, seq)
            case CommandEnded() as event:
                self._end_command(event, seq, at_ms)
            case ExecutionQueued() as event:
                self._queue(event, seq, at_ms)
            case ExecutionStarted(execution_id=i) as event:
                self._start(self._executions[i], event, seq, at_ms)
            case (
                ExecutionRunning()
                | ExecutionProgress()
                | ExecutionHealth()
                | ExecutionStopping()
                | ExecutionCaused()
            ) as event:
                before = self._executions[event.execution_id]
                self._executions[before.id] = records.changed(before, event, seq, at_ms)
            case ExecutionUnknown(execution_id=i):
                self._move(i, ExecutionStatus.UNKNOWN, seq)
            case ExecutionEnded() as event:
                self._end_execution(event, seq)
            case ExecutionDeleted(execution_id=i, job_id=job_id):
                assert self._executions[i].is_final, i
                self._drop_execution(i, job_id)
            case (
                JobGaveUp()
                | JobCleared()
                | JobDefined()
                | JobChanged()
                | JobInvalid()
                | JobRemoved()
                | JobPaused()
                | JobResumed()
            ) as event:
                self._change_job(event, seq, at_ms)
            case GroupDefined() | GroupRemoved() | GroupPaused() | GroupResumed() as event:
                self._change_group(event, seq, at_ms)
            case (
                ScheduleBegun() | ScheduleDecided() | SchedulePaused() | ScheduleResumed()
            ) as event:
                self._change_schedule(event, at_ms)
            case (SystemForgotten() | SystemClock() | SystemMaintenance()) as event:
                self._change_system(event, seq, at_ms)

    def _change_system(
        self, event: SystemForgotten | SystemClock | SystemMaintenance, seq: int, at_ms: int
    ) -> None:
        match event:
            case SystemForgotten():
                self._forget(event, seq, at_ms)
            case SystemClock(doubted=doubted, shown_ms=shown_ms, believed_ms=believed_ms):
                doubt = ClockDoubt(shown_ms=shown_ms, believed_ms=believed_ms)
                self.doubt = doubt if doubted else None
            case SystemMaintenance(on=on, reason=reason, by=by):
                self.maintenance = Maintenance(reason=reason, by=by, since_ms=at_ms) if on else None

    def _change_job(self, event: JobEvent, seq: int, at_ms: int) -> None:
        match event:
            case JobGaveUp(job_id=job_id):
                self._replace_job(replace(self._jobs[job_id], gave_up_ms=at_ms, version=seq))
            case JobCleared(job_id=job_id):
                cleared = replace(self._jobs[job_id], gave_up_ms=None, restarts_ms=(), version=seq)
                self._replace_job(cleared)
            case JobDefined() | JobChanged():
                self._define(event, seq)
            case JobInvalid():
                self._replace_job(
                    replace(self._entry(event.job_id), fault=event.fault, version=seq)
                )
            case JobRemoved():
                self._remove_job(self._jobs.pop(event.job_id), at_ms)
            case JobPaused(job_id=job_id):
                self._set_queue(job_id, replace(self.queue_of(job_id), paused=pause(event, at_ms)))
                self._touch_job(job_id, seq)
            case JobResumed(job_id=job_id):
                self._set_queue(job_id, replace(self.queue_of(job_id), paused=None))
                self._touch_job(job_id, seq)

    def _entry(self, job_id: str) -> Job:
        """The job's entry; a new one has the pause and the starts that it had when it was there."""
        known = self._jobs.get(job_id)
        if known is not None:
            return known
        return Job(id=job_id, spec=None, queue=self._last_queues.pop(job_id, JobQueue()))

    def _inherited_queue(self, own: JobQueue, job_id: str, formerly: Sequence[str]) -> JobQueue:
        """With what removed jobs have left whose names this one had."""
        for name in formerly:
            if name in self._last_queues and self.name_now(name) == job_id:
                own = records.joined_queue(own, self._last_queues.pop(name))
        return own

    def _remove_job(self, removed: Job, at_ms: int) -> None:
        self._schedules_gone(removed.id, at_ms)
        self._note_names(removed.id, removed.spec, None)
        if removed.spec is not None and removed.spec.roles != RolesSpec():
            self._last_roles[removed.id] = removed.spec.roles
        self._forget_spec(removed.id, removed.revision)
        self._leave_queue_to_heir(removed)
        self._place_again(removed.id, *(removed.spec.formerly if removed.spec else ()))

    def _leave_queue_to_heir(self, removed: Job) -> None:
        """Under the name that a renamed job has now, its pause and its starts go on."""
        heir = self._jobs.get(self.name_now(removed.id))
        if heir is not None:
            queue = records.joined_queue(heir.queue, removed.queue)
            self._jobs[heir.id] = replace(heir, queue=queue)
        elif removed.queue != JobQueue():
            self._set_queue(removed.id, removed.queue)

    def _set_queue(self, job_id: str, queue: JobQueue) -> None:
        job = self._jobs.get(job_id)
        if job is not None:
            self._jobs[job_id] = replace(job, queue=queue)
            return
        self._last_queues.pop(job_id, None)
        if queue != JobQueue():
            self._last_queues[job_id] = queue
        if len(self._last_queues) > LAST_QUEUES_MAX:
            del self._last_queues[next(iter(self._last_queues))]

    def _touch_job(self, job_id: str, seq: int) -> None:
        job = self._jobs.get(job_id)
        if job is not None:
            self._jobs[job_id] = replace(job, version=seq)

    def _change_group(self, event: GroupEvent, seq: int, at_ms: int) -> None:
        before = self._groups.get(event.name) or Group(name=event.name, max_running=0)
        after = self._groups[event.name] = records.group(before, event, seq, at_ms)
        if not after.is_defined and not self.is_used(event.name):
            del self._groups[event.name]

    def _define(self, event: JobDefined | JobChanged, seq: int) -> None:
        self._specs[event.job_id, event.revision] = event.spec
        self._last_roles.pop(event.job_id, None)
        states = self._schedules.get(event.job_id, {})
        for name in states.keys() - {each.name for each in event.spec.schedule}:
            del states[name]
        entry = self._entry(event.job_id)
        self._note_names(event.job_id, entry.spec, event.spec)
        queue = self._inherited_queue(entry.queue, event.job_id, event.spec.formerly)
        self._replace_job(
            replace(
                entry,
                spec=event.spec,
                revision=event.revision,
                fault=None,
                queue=queue,
                version=seq,
            )
        )
        before = entry.spec.formerly if entry.spec else ()
        self._place_again(event.job_id, *before, *event.spec.formerly)

    def _place_again(self, *names: str) -> None:
        """What waits under these names stands in the lines of the groups that it is in now."""
        for execution_id in [i for name in names for i in self._queues.get(name, ())]:
            execution = self._executions[execution_id]
            self.lines.take_out(execution)
            self.lines.add(execution, self.spec_of(execution))

    def _change_schedule(self, event: ScheduleEvent, at_ms: int) -> None:
        states = self._schedules.setdefault(event.job_id, {})
        before = states.get(event.schedule)
        if isinstance(event, ScheduleBegun) and event.formerly is not None:
            left = self._schedules.get(event.formerly, {}).pop(event.schedule, None)
            before = schedule_records.inherited(before, left)
        states[event.schedule] = schedule_records.changed(before, event, at_ms)

    def _schedules_gone(self, job_id: str, at_ms: int) -> None:
        """The states of a removed job are the newest of those that go first."""
        states = self._schedules.pop(job_id, None)
        if states is None:
            return
        gone = {name: replace(state, gone_ms=at_ms) for name, state in states.items()}
        self._schedules[job_id] = gone
        removed = [each for each in self._schedules if each not in self._jobs]
        for oldest in removed[:-GONE_JOBS_MAX]:
            del self._schedules[oldest]

    def _accept(self, event: CommandAccepted, seq: int) -> None:
        assert event.command_id not in self._commands, event.command_id
        record = records.accepted(event, seq)
        self._commands[record.id] = record
        self._count(record, 1)
        self._note_waiting(record)
        if event.supersedes_ns and event.job_id is not None:
            before_ns = self._stopped_ns.get(event.job_id, 0)
            self._stopped_ns[event.job_id] = max(before_ns, event.supersedes_ns)

    def _end_command(self, event: CommandEnded, seq: int, at_ms: int) -> None:
        before = self._commands[event.command_id]
        after = self._commands[before.id] = records.answered(before, event, seq, at_ms)
        self._count(before, -1)
        self._count(after, 1)
        for execution_id in awaited(before):
            waiting = self._waiting.get(execution_id, {})
            waiting.pop(before.id, None)
            if not waiting:
                self._waiting.pop(execution_id, None)

    def _queue(self, event: ExecutionQueued, seq: int, at_ms: int) -> None:
        assert event.execution_id not in self._executions, event.execution_id
        self._arrival_ms += min(max(at_ms - self._arrived_at_ms, 0), OVERDUE_MS)
        self._arrived_at_ms = at_ms
        execution = records.queued(event, seq, at_ms, self._arrival_ms)
        self._executions[execution.id] = execution
        self._remember(execution)
        queue = self._queues.setdefault(execution.job_id, [])
        queue.insert(0 if event.first else len(queue), execution.id)
        job = self._jobs.get(event.job_id)
        if job is not None:
            self._jobs[job.id] = records.with_start(job, event, at_ms)

    def _start(self, waited: Execution, event: ExecutionStarted, seq: int, at_ms: int) -> None:
        self._leave_queue(waited)
        after = self._executions[waited.id] = records.started(waited, event, seq)
        self._hold_slots(after)
        job = self._jobs.get(self.name_now(waited.job_id))
        if job is not None and job.spec is not None:
            self._jobs[job.id] = records.with_program_start(job, job.spec, at_ms)
        if event.revision:
            self._forget_spec(waited.job_id, waited.revision)

    def _leave_queue(self, waited: Execution) -> None:
        queue = self._queues[waited.job_id]
        queue.remove(waited.id)
        if not queue:
            del self._queues[waited.job_id]
        self.lines.take_out(waited)

    def _hold_slots(self, execution: Execution) -> None:
        for group in execution.groups:
            self._holders.setdefault(group, {})[execution.id] = None

    def _end_execution(self, event: ExecutionEnded, seq: int) -> None:
        before = self._executions[event.execution_id]
        if before.status is ExecutionStatus.QUEUED:
            self._leave_queue(before)
        for group in before.groups:
            self._holders[group].pop(before.id, None)
            if not self._holders[group]:
                del self._holders[group]
        self._executions[before.id] = records.ended(before, event, seq)
        del self._live[before.id]
        del self._live_by_job[before.job_id][before.id]
        if not self._live_by_job[before.job_id]:
            del self._live_by_job[before.job_id]
        self._forget_spec(before.job_id, before.revision)

    def _count(self, command: CommandRecord, sign: int) -> None:
        """The command takes a place of its principal from now on, or does not any more."""
        if not is_counted(command):
            return
        if had_effect(command):
            self.with_effect.change(command.user_id, sign)
        else:
            self.without_effect.change(command.user_id, sign, sign * size_of(command))

    def _forget(self, event: SystemForgotten, seq: int, at_ms: int) -> None:
        for execution_id in event.executions:
            assert self._executions[execution_id].is_final, execution_id
            self._drop_execution(execution_id, self._executions[execution_id].job_id)
        commands = [self._let_go(command_id) for command_id in event.commands]
        for command_id in event.traceless:
            self._let_go(command_id)
        turned_ms = at_ms if event.turned else None
        self.remembered.take(seq, commands, event.ids_dropped, turned_ms)
        # No command was submitted after it was forgotten, whatever some clock said.
        self.horizon_ms = max(self.horizon_ms, min(event.horizon_ms, at_ms))
        if event.horizon_at_most_ms is not None:
            self.horizon_ms = min(self.horizon_ms, event.horizon_at_most_ms)

    def _let_go(self, command_id: str) -> CommandRecord:
        command = self._commands.pop(command_id)
        assert command.is_final, command_id
        self._count(command, -1)
        return command

    def _drop_execution(self, execution_id: str, job_id: str) -> None:
        del self._executions[execution_id]
        of_job = self._by_job[job_id]
        del of_job[execution_id]
        if not of_job:
            del self._by_job[job_id]

    def _move(self, execution_id: str, after: ExecutionStatus, seq: int) -> None:
        self._executions[execution_id] = records.moved(self._executions[execution_id], after, seq)

    def _remember(self, execution: Execution) -> None:
        """Puts a kept execution into the indexes."""
        self._by_job.setdefault(execution.job_id, {})[execution.id] = None
        if not execution.is_final:
            self._live[execution.id] = None
            self._live_by_job.setdefault(execution.job_id, {})[execution.id] = None
        if execution.status is ExecutionStatus.QUEUED:
            self.lines.add(execution, self.spec_of(execution))
        elif execution.status in HOLDS_SLOT:
            self._hold_slots(execution)

    def _note_waiting(self, command: CommandRecord) -> None:
        for execution_id in awaited(command):
            self._waiting.setdefault(execution_id, {})[command.id] = None

    def _note_names(self, job_id: str, before: JobSpec | None, after: JobSpec | None) -> None:
        """The job had other names, or has given some up."""
        for name in () if before is None else before.formerly:
            if self._renamed.get(name) == job_id:
                del self._renamed[name]
        for name in () if after is None else after.formerly:
            self._renamed.setdefault(name, job_id)

    def _replace_job(self, job: Job) -> None:
        before = self._jobs.get(job.id)
        self._jobs[job.id] = job
        if before is not None and before.revision != job.revision:
            self._forget_spec(before.id, before.revision)

    def _forget_spec(self, job_id: str, revision: str) -> None:
        """Drops a definition that is neither in force nor used by a live execution."""
        job = self._jobs.get(job_id)
        if job is not None and job.revision == revision:
            return
        if not any(e.revision == revision for e in self.live_of(job_id)):
            self._specs.pop((job_id, revision), None)

    def waiting_for(self, execution: Execution, now_ms: int) -> str:
        """See `bus.ports.TableReader`."""
        return waiting_for(self, execution, now_ms)

    # -- snapshots -------------------------------------------------------------------------------

    def freeze(self) -> TableContent:
        """The whole table as frozen records; cheap, to be encoded elsewhere."""
        return TableContent(
            jobs=tuple(self._jobs.values()),
            specs=tuple((job, rev, spec) for (job, rev), spec in self._specs.items()),
            queues=tuple((job, tuple(ids)) for job, ids in self._queues.items()),
            executions=tuple(self._executions.values()),
            commands=tuple(self._commands.values()),
            remembered=self.remembered.freeze(),
            horizon_ms=self.horizon_ms,
            maintenance=self.maintenance,
            stopped_ns=dict(self._stopped_ns),
            last_roles=dict(self._last_roles),
            doubt=self.doubt,
            schedules=tuple(self.schedules()),
            groups=tuple(self._groups.values()),
            last_queues=dict(self._last_queues),
            arrival_ms=self._arrival_ms,
            arrived_at_ms=self._arrived_at_ms,
        )

    def twin(self) -> "JobTable":
        """A second table that is equal to this one and takes in each event before it."""
        twin = JobTable()
        for name, value in vars(self).items():
            setattr(twin, name, _copied(value))
        twin.remembered = self.remembered
        return twin

    @classmethod
    def thaw(cls, parts: Iterable[TableContent]) -> "JobTable":
        """The table whose content was given out in these parts, in their order."""
        table = cls()
        for content in parts:
            table._take(content)
        table.remembered.thawed()
        return table

    def _take(self, content: TableContent) -> None:
        self._jobs.update({job.id: job for job in content.jobs})
        for job in content.jobs:
            self._note_names(job.id, None, job.spec)
        self._specs.update({(job, rev): spec for job, rev, spec in content.specs})
        self._queues.update({job: list(ids) for job, ids in content.queues})
        self.remembered.thaw(content.remembered)
        self.horizon_ms = max(self.horizon_ms, content.horizon_ms)
        self.maintenance = content.maintenance or self.maintenance
        self._stopped_ns.update(content.stopped_ns)
        self._last_roles.update(content.last_roles)
        self.doubt = content.doubt or self.doubt
        for job_id, name, state in content.schedules:
            self._schedules.setdefault(job_id, {})[name] = state
        self._groups.update({group.name: group for group in content.groups})
        self._last_queues.update(content.last_queues)
        self._arrival_ms = max(self._arrival_ms, content.arrival_ms)
        self._arrived_at_ms = content.arrived_at_ms or self._arrived_at_ms
        for execution in content.executions:
            self._executions[execution.id] = execution
            self._remember(execution)
        for command in content.commands:
            self._commands[command.id] = command
            self._count(command, 1)
            if not command.is_final:
                self._note_waiting(command)


def _copied(value: Any) -> Any:
    """A copy of one of the table's own maps; the records in it are frozen and shared."""
    if isinstance(value, Holdings | Lines):
        return value.copy()
    if not isinstance(value, dict):
        return value
    return {k: v.copy() if isinstance(v, dict | list) else v for k, v in value.items()}

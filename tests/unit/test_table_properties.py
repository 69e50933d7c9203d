"""Whatever people ask for and whatever happens, in any order: the invariants of the job table."""

from collections.abc import Iterable, Sequence

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, invariant, multiple, rule

from bus.clock import rfc3339
from bus.commands import (
    CancelCommand,
    DeleteExecution,
    PassTime,
    PauseQueue,
    ReportHealth,
    ReportLost,
    ReportSpawnFailed,
    ReportUnknown,
    RestartJob,
    ResumeQueue,
    RetryExecution,
    SetGroups,
    SetMaintenance,
    StartJob,
    StopJob,
)
from bus.events import ExecutionEnded, ExecutionStarted
from bus.groups import OVERDUE_MS, StartLimitSpec
from bus.health import HealthAction, HealthSpec, HealthStatus
from bus.job_definition import (
    AfterSpec,
    Overlap,
    RestartPolicy,
    RestartSpec,
    RetrySpec,
    VariableSpec,
    VariableType,
)
from bus.lifecycle import EXECUTION_TRANSITIONS
from bus.model import FINAL_EXECUTION, HOLDS_SLOT, Execution, ExecutionStatus, Reason, Value
from handlers.decisions.delays import is_delayed_start, is_due, unattended_spec
from handlers.decisions.table import JobTable
from handlers.decisions.table_content import parts_of
from handlers.decisions.timing import next_deadline_ms
from tests.decision_fixture import Decider

JOBS = ("Demo/A", "Demo/B", "Demo/C")
GROUPS = ("one", "two")
job_ids = st.sampled_from(JOBS)
numbers = st.sampled_from([1, 2])
DECISIONS_MAX = 10
"""So often at most something follows at one moment from nothing but its having come."""
NUMBER = {"N": VariableSpec(type=VariableType.INTEGER, default=1)}


def chained(job_id: str, on: Iterable[ExecutionStatus]) -> tuple[AfterSpec, ...]:
    """The first job starts the second, with its number."""
    after = AfterSpec(start=JOBS[1], on=tuple(on), variables={"N": "{{N}}"})
    return (after,) if job_id == JOBS[0] and after.on else ()


class TableMachine(RuleBasedStateMachine):
    """Random commands and reports against the pure decisions."""

    executions = Bundle("executions")
    commands = Bundle("commands")

    def __init__(self) -> None:
        super().__init__()
        self.decider = Decider()
        self.slots = dict.fromkeys(JOBS, 1)
        self.names = {job_id: job_id for job_id in JOBS}
        self.limits = dict.fromkeys(GROUPS, 1)
        self.decider.report(SetGroups(limits=self.limits))
        for job_id in JOBS:
            self.decider.define(job_id, variables=NUMBER, after=chained(job_id, FINAL_EXECUTION))

    @rule(
        job_id=job_ids,
        overlap=st.sampled_from(list(Overlap)),
        slots=st.integers(1, 3),
        attempts=st.integers(1, 3),
        policy=st.sampled_from(list(RestartPolicy)),
        action=st.sampled_from(list(HealthAction)),
        disabled=st.booleans(),
        on=st.sets(st.sampled_from(sorted(FINAL_EXECUTION))),
        groups=st.sets(st.sampled_from(GROUPS)),
        priority=st.sampled_from([-100, 0, 100]),
        start_limit=st.sampled_from([None, StartLimitSpec(count=2, within_s=5.0)]),
    )
    def define(
        self,
        job_id: str,
        overlap: Overlap,
        slots: int,
        attempts: int,
        policy: RestartPolicy,
        action: HealthAction,
        disabled: bool,
        on: set[ExecutionStatus],
        groups: set[str],
        priority: int,
        start_limit: StartLimitSpec | None,
    ) -> None:
        # A smaller number than what runs now is in force for what comes.
        name = self.names[job_id]
        self.slots[job_id] = max(slots, len(self.decider.table.in_slots(name)))
        job = self.decider.table.job(name)
        self.decider.define(
            name,
            formerly=job.spec.formerly if job is not None and job.spec is not None else (),
            overlap=overlap,
            max_running=slots,
            retry=RetrySpec(attempts=attempts),
            restart=RestartSpec(policy=policy, limit=3),
            health=HealthSpec(url="http://localhost/", action=action),
            disabled=disabled,
            after=chained(job_id, on),
            variables=NUMBER,
            groups=tuple(sorted(groups)),
            priority=priority,
            start_limit=start_limit,
        )
        self.looks()

    def looks(self) -> None:
        """What the timekeeper does when something that waited ended, or waits for something else:
        slots may have been kept for it."""
        self.decider.report(PassTime())

    @rule(one=st.none() | st.integers(1, 3), two=st.none() | st.integers(1, 3))
    def limit_groups(self, one: int | None, two: int | None) -> None:
        found = {"one": one, "two": two}
        new = {name: most for name, most in found.items() if most is not None}
        self.decider.report(SetGroups(limits=new))
        table = self.decider.table
        for group in table.groups():
            # A smaller number than what runs now is in force for what comes.
            held = len(table.in_group(group.name))
            self.limits[group.name] = max(group.max_running, held)

    @rule(
        job_id=st.none() | job_ids,
        group=st.sampled_from(GROUPS),
        until_s=st.none() | st.floats(0.001, 10),
        pauses=st.booleans(),
    )
    def hold_queue(
        self, job_id: str | None, group: str, until_s: float | None, pauses: bool
    ) -> None:
        named = group if job_id is None else None
        now_ms = self.decider.clock.now_ms()
        until = rfc3339(now_ms + int(until_s * 1000)) if until_s is not None else None
        pause = PauseQueue(
            job_id=self.names.get(job_id or ""), group=named, reason="why", until=until
        )
        self.decider.send(
            pause if pauses else ResumeQueue(job_id=self.names.get(job_id or ""), group=named)
        )

    @rule(job_id=job_ids)
    def rename(self, job_id: str) -> None:
        """It has the other one of its two names from now on."""
        old = self.names[job_id]
        self.names[job_id] = new = job_id if old != job_id else f"{job_id}-renamed"
        self.decider.rename(old, new)
        self.looks()

    @rule(target=executions, job_id=job_ids, expires=st.booleans(), number=numbers)
    def start(self, job_id: str, expires: bool, number: int) -> object:
        due = self.decider.clock.now_ms() + 5000 if expires else None
        command = StartJob(job_id=self.names[job_id], variables={"N": number})
        record = self.decider.send(command, expires_ms=due)
        return record.execution_id if record.execution_id else multiple()

    @rule(
        target=commands,
        job_id=job_ids,
        seconds=st.integers(-5, 15),
        number=numbers,
        expires=st.booleans(),
    )
    def start_later(self, job_id: str, seconds: int, number: int, expires: bool) -> str:
        at_ms = self.decider.clock.now_ms() + seconds * 1000
        command = StartJob(
            job_id=self.names[job_id], variables={"N": number}, not_before=rfc3339(at_ms)
        )
        return self.decider.send(command, expires_ms=at_ms + 5000 if expires else None).id

    @rule(target=commands, job_id=job_ids)
    def start_to_cancel(self, job_id: str) -> str:
        return self.decider.send(StartJob(job_id=self.names[job_id])).id

    @rule(job_id=job_ids, grace_s=st.none() | st.floats(0, 60), kill=st.booleans())
    def stop(self, job_id: str, grace_s: float | None, kill: bool) -> None:
        self.decider.send(StopJob(job_id=self.names[job_id], grace_s=grace_s, kill=kill))
        self.looks()

    @rule(execution_id=executions)
    def stop_one(self, execution_id: str) -> None:
        self.decider.send(StopJob(execution_id=execution_id))
        self.looks()

    @rule(target=executions, job_id=job_ids, number=st.none() | numbers)
    def restart(self, job_id: str, number: int | None) -> object:
        variables: dict[str, Value] | None = {"N": number} if number is not None else None
        record = self.decider.send(RestartJob(job_id=self.names[job_id], variables=variables))
        return record.execution_id if record.execution_id else multiple()

    @rule(command_id=commands)
    def cancel(self, command_id: str) -> None:
        self.decider.send(CancelCommand(target_id=command_id))
        self.looks()

    @rule(execution_id=executions)
    def runs(self, execution_id: str) -> None:
        if self._took_slot(execution_id):
            self.decider.runs(execution_id)

    @rule(
        execution_id=executions,
        exit_code=st.integers(0, 2),
        cause=st.sampled_from([None, Reason.RUN_TIMEOUT, Reason.WATCHDOG, Reason.UNHEALTHY]),
        contained=st.booleans(),
    )
    def ends(
        self, execution_id: str, exit_code: int, cause: Reason | None, contained: bool
    ) -> None:
        if self._took_slot(execution_id):
            self.decider.ends(execution_id, exit_code, cause=cause, contained=contained)

    @rule(
        execution_id=executions,
        status=st.sampled_from(list(HealthStatus)),
    )
    def is_checked(self, execution_id: str, status: HealthStatus) -> None:
        before = self.decider.table.execution(execution_id)
        events = self.decider.report(
            ReportHealth(execution_id=execution_id, status=status, message="said")
        )
        is_running = before is not None and before.status is ExecutionStatus.RUNNING
        assert is_running or not events

    @rule(execution_id=executions)
    def unknown(self, execution_id: str) -> None:
        if self._took_slot(execution_id):
            self.decider.report(ReportUnknown(execution_id=execution_id))

    @rule(execution_id=executions)
    def lost(self, execution_id: str) -> None:
        if self._took_slot(execution_id):
            self.decider.report(ReportLost(execution_id=execution_id, reason="no_exit_record"))

    @rule(execution_id=executions)
    def cannot_be_spawned(self, execution_id: str) -> None:
        if self._took_slot(execution_id):
            self.decider.report(ReportSpawnFailed(execution_id=execution_id, error="nope"))

    @rule(execution_id=executions)
    def retry(self, execution_id: str) -> None:
        self.decider.send(RetryExecution(execution_id=execution_id))

    @rule(execution_id=executions)
    def delete(self, execution_id: str) -> None:
        self.decider.send(DeleteExecution(execution_id=execution_id))

    @rule(on=st.booleans())
    def maintain(self, on: bool) -> None:
        self.decider.report(SetMaintenance(on=on, by="root"))

    @rule(hours=st.sampled_from([-48, -1, 1, 48]))
    def clock_is_set(self, hours: int) -> None:
        self.decider.clock.jump_wall_s(hours * 3600)
        self.decider.report(PassTime())

    @rule(seconds=st.floats(0, 10))
    def time_passes(self, seconds: float) -> None:
        self.decider.clock.advance_s(seconds)
        now_ms = self.decider.clock.now_ms()
        for _ in range(DECISIONS_MAX):
            self.decider.report(PassTime())
            deadline_ms = next_deadline_ms(self.decider.table, now_ms)
            if deadline_ms is None or deadline_ms > now_ms:
                return
        raise AssertionError("there is always something more to decide at one moment")

    @invariant()
    def slots_are_never_exceeded(self) -> None:
        for job_id, name in self.names.items():
            assert len(self.decider.table.in_slots(name)) <= self.slots[job_id]

    @invariant()
    def slots_of_groups_are_never_exceeded(self) -> None:
        table = self.decider.table
        for group in table.groups():
            held = [e for e in table.live_executions() if group.name in e.groups]
            assert sorted(e.id for e in held) == sorted(e.id for e in table.in_group(group.name))
            assert len(held) <= self.limits[group.name]
            self.limits[group.name] = max(group.max_running, len(held))

    @invariant()
    def nothing_waits_beside_a_free_slot(self) -> None:
        waiting = [e for name in self.names.values() for e in self.decider.table.queued(name)]
        assert not [e for e in waiting if self._could_start(e)]

    def _could_start(self, execution: Execution) -> bool:
        """By the words of the documentation, and not as the code finds it."""
        table, now_ms = self.decider.table, self.decider.clock.now_ms()
        spec = table.spec_of(execution)
        assert spec is not None
        busy, job = (
            table.in_slots(table.name_now(execution.job_id)),
            table.job(table.name_now(execution.job_id)),
        )
        takes_a_place = execution.replaces is not None
        groups = [g for name in spec.groups if (g := table.group(name)) is not None]
        pauses = [table.queue_of(execution.job_id).paused, *(group.paused for group in groups)]
        limit, starts_ms = spec.start_limit, table.queue_of(execution.job_id).starts_ms
        recent = [t for t in starts_ms if limit and now_ms - limit.within_s * 1000 < t <= now_ms]
        return (
            table.maintenance is None
            and not (is_delayed_start(execution) and unattended_spec(job) is None)
            and is_due(execution, now_ms)
            and execution.replaces not in {e.id for e in busy}
            and len(busy) < spec.max_running
            and (takes_a_place or not any(pauses))
            and (limit is None or len(recent) < limit.count)
            and all(len(table.in_group(g.name)) < g.max_running for g in groups)
            and not any(self._keeps_slots(e, spec.groups) for e in self._others(execution))
        )

    def _others(self, execution: Execution) -> list[Execution]:
        waiting = [e for name in self.names.values() for e in self.decider.table.queued(name)]
        return [e for e in waiting if e.id != execution.id]

    def _keeps_slots(self, other: Execution, groups: Sequence[str]) -> bool:
        """Whether it has waited so long for several groups that slots are kept for it."""
        spec = self.decider.table.spec_of(other)
        shared = spec is not None and len(spec.groups) > 1 and set(spec.groups) & set(groups)
        return bool(shared) and self.decider.clock.now_ms() - other.queued_ms >= OVERDUE_MS

    @invariant()
    def lines_are_those_of_a_table_that_was_read_back(self) -> None:
        table = self.decider.table
        read_back = JobTable.thaw(parts_of(table.freeze()))
        for group in GROUPS:
            found = (table, read_back)
            assert len({t.lines.length(group) for t in found}) == 1
            assert len({tuple(sorted(t.lines.jobs_before(group))) for t in found}) == 1
            assert len({tuple(sorted(e.id for e in t.in_group(group))) for t in found}) == 1
            for execution in table.live_executions():
                assert len({t.lines.position(group, execution.id) for t in found}) == 1

    @invariant()
    def nothing_starts_before_its_moment(self) -> None:
        for published in self.decider.log:
            match published.event:
                case ExecutionStarted(execution_id=execution_id):
                    execution = self.decider.table.execution(execution_id)
                    if execution is not None and is_delayed_start(execution):
                        assert published.at_ms >= (execution.not_before_ms or 0)
                case _:
                    pass

    @invariant()
    def one_at_a_time_waits_to_replace_an_execution(self) -> None:
        for name in self.names.values():
            replaced = [e.replaces for e in self.decider.table.queued(name) if e.replaces]
            assert len(replaced) == len(set(replaced))

    @invariant()
    def replayed_log_is_the_table(self) -> None:
        replayed = JobTable()
        for published in self.decider.log:
            replayed.apply(published)
        assert replayed.freeze() == self.decider.table.freeze()

    @invariant()
    def every_execution_ends_at_most_once(self) -> None:
        ended = [e.execution_id for e in self.decider.events if isinstance(e, ExecutionEnded)]
        assert len(ended) == len(set(ended))

    @invariant()
    def nothing_is_followed_twice_by_itself(self) -> None:
        by_policy = [e.previous for e in self.decider.table.executions() if e.cause]
        assert len(by_policy) == len(set(by_policy))

    @invariant()
    def an_end_sets_going_at_most_once_and_both_ends_say_so(self) -> None:
        caused = [e for e in self.decider.table.executions() if e.caused_by is not None]
        for second in caused:
            first = self.decider.table.execution(second.caused_by or "")
            if first is None or second.cause:
                continue  # deleted; or a retry of what was set going
            assert first.is_final
            assert [each.execution_id for each in first.caused] == [second.id]
            assert second.variables == first.variables
        for first in self.decider.table.executions():
            assert len(first.caused) <= 1
            assert not first.caused or first.is_final

    @invariant()
    def commands_of_final_executions_are_final(self) -> None:
        for command in self.decider.table.commands():
            execution = (
                self.decider.table.execution(command.execution_id) if command.execution_id else None
            )
            if execution is None or command.waits_for:
                continue
            if execution.is_final:
                assert command.is_final, (command, execution)

    @invariant()
    def stops_end_with_what_they_wait_for(self) -> None:
        for command in self.decider.table.commands():
            if not command.waits_for:
                continue
            found = [self.decider.table.execution(i) for i in command.waits_for]
            assert command.is_final == all(e is None or e.is_final for e in found)

    def _took_slot(self, execution_id: str) -> bool:
        execution = self.decider.table.execution(execution_id)
        return (execution is None or execution.status in HOLDS_SLOT | FINAL_EXECUTION) and any(
            getattr(effect, "execution_id", None) == execution_id for effect in self.decider.effects
        )


TestTable = TableMachine.TestCase
TestTable.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)


def test_final_states_have_no_way_out() -> None:
    assert not FINAL_EXECUTION & set(EXECUTION_TRANSITIONS)
    reachable = {after for ends in EXECUTION_TRANSITIONS.values() for after in ends}
    assert reachable | {ExecutionStatus.QUEUED} == set(ExecutionStatus)

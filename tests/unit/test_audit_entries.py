"""Which events make an entry of the audit, and what stands in it."""

import msgspec

from bus.audit import AUTOMATIC, COMMAND, REFUSED, TEXT_MAX, AuditEntry
from bus.commands import (
    ApplyCatalog,
    Definition,
    GetStatus,
    ReportLost,
    ReportStopping,
    ReportUnknown,
    RestartJob,
    RetryExecution,
    SetMaintenance,
    StartJob,
    StopJob,
)
from bus.envelope import seal
from bus.errors import ErrorCode, Refused
from bus.job_definition import DefinitionFault, RetrySpec
from bus.model import Principal, Reason, StopRequest
from handlers.audit.coalescer import WINDOW_S, Coalescer
from handlers.audit.entries.fold import AuditFold
from handlers.audit.entries.refusals import entry_of_refusal
from handlers.decisions.table import JobTable
from tests.decision_fixture import VIEWER, Decider

JOB = "Demo/Job"


class Audited:
    """A decider and the entries that its events make, made after the table has taken them in."""

    def __init__(self, **settings: object) -> None:
        self.decider = Decider()
        self.fold = AuditFold()
        self.fold.begin(JobTable())
        self._seen = 0
        self.decider.define(JOB, **settings)
        self.entries()

    def entries(self) -> list[AuditEntry]:
        """Those of the events since the last call."""
        fresh = self.decider.log[self._seen :]
        self._seen = len(self.decider.log)
        found = [self.fold.take(published) for published in fresh]
        return [entry for entry in found if entry is not None]

    def running(self) -> str:
        execution_id = self.decider.send(StartJob(job_id=JOB)).execution_id
        assert execution_id is not None
        self.decider.runs(execution_id)
        return execution_id

    def limit(self, execution_id: str) -> None:
        stop = StopRequest(reason=Reason.RUN_TIMEOUT, by="system:limits", at_ms=0, grace_s=1.0)
        self.decider.report(ReportStopping(execution_id=execution_id, stop=stop))


def test_a_start_is_one_entry_when_it_has_ended() -> None:
    audited = Audited()
    command = audited.decider.send(StartJob(job_id=JOB))
    assert audited.entries() == []
    assert command.execution_id is not None
    audited.decider.runs(command.execution_id)
    [entry] = audited.entries()
    assert (entry.kind, entry.actor, entry.roles) == (COMMAND, "olga", ("operator",))
    assert (entry.action, entry.job, entry.command) == ("start", JOB, command.id)
    assert (entry.status, entry.outcome, entry.before, entry.after) == (
        "Completed", "done", None, "Running",
    )  # fmt: skip
    assert entry.seq == len(audited.decider.log)


def test_a_stop_has_the_states_before_and_after_and_is_one_entry() -> None:
    audited = Audited()
    execution_id = audited.running()
    audited.entries()
    audited.decider.send(StopJob(execution_id=execution_id))
    audited.decider.ends(execution_id, signal=15, exit_code=None, cause=Reason.USER)
    [entry] = audited.entries()
    assert (entry.action, entry.before, entry.after) == ("stop", "Running", "Stopped")


def test_a_restart_acts_on_what_it_replaces() -> None:
    audited = Audited()
    old = audited.running()
    audited.entries()
    new = audited.decider.send(RestartJob(job_id=JOB)).execution_id
    audited.decider.ends(old, signal=15, exit_code=None, cause=Reason.REPLACED)
    assert new is not None
    audited.decider.runs(new)
    [entry] = audited.entries()
    assert (entry.action, entry.execution, entry.before) == ("restart", new, "Running")


def test_a_refused_file_and_a_command_that_only_asks_are_entries_too() -> None:
    audited = Audited()
    audited.decider.send(StartJob(job_id=JOB), VIEWER)
    audited.decider.send(GetStatus(job_id=JOB), VIEWER)
    refused, asked = audited.entries()
    assert (refused.kind, refused.status, refused.error_code) == (
        REFUSED, "Rejected", "not_permitted",
    )  # fmt: skip
    assert (asked.kind, asked.action, asked.status) == (COMMAND, "status", "Completed")


def test_a_retry_by_policy_names_the_policy_and_whose_attempt_it_follows() -> None:
    audited = Audited(retry=RetrySpec(attempts=2))
    execution_id = audited.running()
    audited.entries()
    audited.decider.ends(execution_id, 1)
    [entry] = audited.entries()
    assert (entry.kind, entry.actor, entry.cause) == (AUTOMATIC, "policy:retry", "policy:retry")
    assert entry.detail == {"attempt": "2", "previous": execution_id}
    assert (entry.before, entry.after) == ("Failed", "Queued")


def test_a_retry_by_a_person_is_the_persons() -> None:
    audited = Audited()
    execution_id = audited.running()
    audited.decider.ends(execution_id, 1)
    audited.entries()
    again = audited.decider.send(RetryExecution(execution_id=execution_id)).execution_id
    assert again is not None
    audited.decider.runs(again)
    [entry] = audited.entries()
    assert (entry.kind, entry.actor, entry.action) == (COMMAND, "olga", "retry")


def test_a_stop_by_a_limit_is_an_act_of_the_limits_and_has_one_entry() -> None:
    audited = Audited(timeout_s=1)
    execution_id = audited.running()
    audited.entries()
    audited.limit(execution_id)
    audited.decider.ends(execution_id, signal=15, exit_code=None, cause=Reason.RUN_TIMEOUT)
    [entry] = audited.entries()
    assert (entry.actor, entry.cause) == ("system:limits", "run_timeout")
    assert (entry.before, entry.after) == ("Running", "Stopping")


def test_a_stop_by_a_limit_has_an_entry_even_if_the_end_was_reported_first() -> None:
    audited = Audited(timeout_s=1)
    execution_id = audited.running()
    audited.entries()
    audited.decider.ends(execution_id, signal=15, exit_code=None, cause=Reason.RUN_TIMEOUT)
    [entry] = audited.entries()
    assert (entry.actor, entry.before, entry.after) == ("system:limits", "Running", "TimedOut")
    assert entry.detail["ending"].startswith("timed out after ")


def test_what_is_settled_without_an_exit_record_is_the_adoptions() -> None:
    audited = Audited()
    execution_id = audited.running()
    audited.entries()
    audited.decider.report(ReportUnknown(execution_id=execution_id))
    lost = ReportLost(execution_id=execution_id, reason=Reason.HOST_RESTART)
    audited.decider.report(lost)
    unknown, gone = audited.entries()
    assert (unknown.actor, unknown.before, unknown.after) == ("system:adopt", "Running", "Unknown")
    assert (gone.cause, gone.before, gone.after) == ("host_restart", "Unknown", "Lost")
    assert gone.detail == {
        "ending": "lost: how it ended is unknown since the machine restarted",
    }


def test_changes_of_the_catalog_have_the_revisions() -> None:
    audited = Audited()
    audited.decider.define(max_running=2)
    fault = DefinitionFault(file="job.toml", line=3, reason="x" * 1000)
    audited.decider.report(ApplyCatalog(definitions=(Definition(job_id=JOB, fault=fault),)))
    audited.decider.report(ApplyCatalog(definitions=()))
    changed, invalid, removed = audited.entries()
    assert {entry.actor for entry in (changed, invalid, removed)} == {"system:catalog"}
    assert (changed.action, invalid.action, removed.action) == (
        "job.changed", "job.invalid", "job.removed",
    )  # fmt: skip
    assert changed.before != changed.after == invalid.before == removed.before
    assert removed.after is None
    assert len(invalid.cause or "") == TEXT_MAX


def test_a_maintenance_is_whose_it_is() -> None:
    audited = Audited()
    audited.decider.report(SetMaintenance(on=True, by="ada", reason="disk"))
    audited.decider.report(SetMaintenance(on=False, by="ada"))
    begun, over = audited.entries()
    assert (begun.actor, begun.action, begun.cause) == ("ada", "maintenance.on", "disk")
    assert (over.action, over.before, over.after) == ("maintenance.off", "on", "off")


def test_ordinary_ends_and_steps_make_no_entry() -> None:
    audited = Audited()
    execution_id = audited.running()
    audited.entries()
    audited.decider.ends(execution_id, 0)
    assert audited.entries() == []


def test_a_fold_that_begins_with_a_table_knows_whose_commands_wait() -> None:
    audited = Audited()
    command = audited.decider.send(StartJob(job_id=JOB))
    later = AuditFold()
    later.begin(audited.decider.table)
    audited.entries()
    assert command.execution_id is not None
    audited.decider.runs(command.execution_id)
    [entry] = [e for p in audited.decider.log[-2:] if (e := later.take(p)) is not None]
    [whole] = audited.entries()
    assert msgspec.structs.replace(entry, before=whole.before) == whole


def test_variables_stand_in_no_entry() -> None:
    assert not any("variable" in name for name in AuditEntry.__struct_fields__)


def refusal(actor: str = "eve", job: str = JOB) -> AuditEntry:
    principal = Principal(user_id=actor, roles=("viewer",), via="http")
    envelope = seal(StartJob(job_id=job), principal, now_ms=0)
    return entry_of_refusal(envelope, Refused(ErrorCode.NOT_PERMITTED, "no"), 0)


def test_a_refusal_before_anything_was_written_is_cut_to_size() -> None:
    entry = refusal(actor="e" * 1000, job="j" * 100_000)
    assert (len(entry.actor), len(entry.job or "")) == (TEXT_MAX, TEXT_MAX)
    assert (entry.kind, entry.error_code, entry.action) == (REFUSED, "not_permitted", "start")


def test_equal_refusals_within_a_minute_are_two_entries_with_their_number() -> None:
    coalescer = Coalescer()
    firsts = [coalescer.is_first(refusal(), float(second)) for second in range(50)]
    assert firsts == [True] + [False] * 49
    assert list(coalescer.due(WINDOW_S - 1)) == []
    [rest] = coalescer.due(WINDOW_S)
    assert rest.count == 49
    assert coalescer.is_first(refusal(), WINDOW_S + 1)


def test_different_refusals_are_kept_apart_and_bounded() -> None:
    coalescer = Coalescer()
    assert coalescer.is_first(refusal(), 0.0)
    assert coalescer.is_first(refusal(job="A/B"), 0.0)
    assert all(coalescer.is_first(refusal(job=f"A/{n}"), 0.0) for n in range(20_000))
    assert len(coalescer) <= 10_000


def test_asking_early_writes_what_was_counted_so_far_and_nothing_twice() -> None:
    coalescer = Coalescer()
    for second in range(3):
        coalescer.is_first(refusal(), float(second))
    assert [entry.count for entry in coalescer.due(None)] == [2]
    assert list(coalescer.due(None)) == []
    assert not coalescer.is_first(refusal(), 4.0)
    assert [entry.count for entry in coalescer.due(WINDOW_S)] == [1]

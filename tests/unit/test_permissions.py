"""Who may do what, as decisions on a table without a disk: what is hidden cannot be touched."""

import pytest

from bus.commands import ApplyCatalog, CancelCommand, Definition, RestartJob, StartJob, StopJob
from bus.errors import ErrorCode
from bus.job_definition import DefinitionFault, Overlap, RolesSpec
from bus.model import ExecutionStatus, Principal
from bus.ports import Policy
from handlers.decisions.table import JobTable
from tests.decision_fixture import ROLELESS, VIEWER, Decider

START = StartJob(job_id="Demo/Job")
RESTART = RestartJob(job_id="Demo/Job")
HIDDEN = RolesSpec(view=("staff",))


HOST = Principal(user_id="alice", roles=("debug", "authenticated"), via="directory")


@pytest.fixture
def decider() -> Decider:
    return Decider()


def test_who_may_not_view_a_job_cannot_stop_or_cancel_it_either(decider: Decider) -> None:
    decider.define(roles=HIDDEN, overlap=Overlap.QUEUE)
    staff = Principal(user_id="stan", roles=("staff", "operator"), via="http")
    running, waiting = decider.send(START, staff), decider.send(START, staff)
    stop = decider.send(StopJob(job_id="Demo/Job"))
    cancel = decider.send(CancelCommand(target_id=waiting.id))
    assert (stop.error_code, cancel.error_code) == (
        ErrorCode.UNKNOWN_JOB,
        ErrorCode.UNKNOWN_COMMAND,
    )
    assert decider.execution(running.execution_id).stop is None
    assert decider.status(waiting.execution_id) is ExecutionStatus.QUEUED


def test_cancel_by_a_user_who_may_only_view_the_command_is_not_permitted(decider: Decider) -> None:
    decider.define(overlap=Overlap.QUEUE)
    decider.send(START)
    cancel = decider.send(CancelCommand(target_id=decider.send(START).id), VIEWER)
    assert cancel.error_code == ErrorCode.NOT_PERMITTED


def test_who_may_not_restart_is_refused_and_does_not_learn_how_many_run(decider: Decider) -> None:
    decider.define(max_running=2)
    for _ in range(2):
        decider.send(START)
    assert decider.send(RESTART, VIEWER).error_code == ErrorCode.NOT_PERMITTED


def test_what_a_job_hid_stays_hidden_when_it_is_gone_and_when_it_comes_back_faulty(
    decider: Decider,
) -> None:
    decider.define(roles=HIDDEN)
    decider.report(ApplyCatalog(definitions=()))
    assert decider.table.roles("Demo/Job") == HIDDEN
    assert JobTable.thaw([decider.table.freeze()]).roles("Demo/Job") == HIDDEN
    fault = DefinitionFault(file="job.toml", line=1, reason="?")
    decider.report(ApplyCatalog(definitions=(Definition(job_id="Demo/Job", fault=fault),)))
    assert decider.table.roles("Demo/Job") == HIDDEN
    decider.define()
    assert decider.table.roles("Demo/Job") == RolesSpec()


def refusal_of(decider: Decider, job_id: str, principal: Principal) -> str:
    record = decider.send(StartJob(job_id=job_id), principal)
    assert record.error is not None
    return record.error


@pytest.mark.parametrize("written", ["Demo\\Job", "demo/job", " DEMO/JOB/ ", "/demo\\Job"])
def test_another_spelling_of_a_job_is_named_to_who_may_see_it(
    decider: Decider, written: str
) -> None:
    decider.define()
    assert refusal_of(decider, written, VIEWER).endswith('; did you mean "Demo/Job"?')
    assert "did you mean" not in refusal_of(decider, written, ROLELESS)


def test_job_named_without_its_app_is_named_whole_to_who_may_see_it(decider: Decider) -> None:
    decider.define()
    assert refusal_of(decider, "job", VIEWER).endswith('; did you mean "Demo/Job"?')
    assert refusal_of(decider, "Job", ROLELESS).endswith("; a job's id is App/Job")
    assert refusal_of(decider, "Jobs", VIEWER).endswith("; a job's id is App/Job")


def test_who_sees_no_such_job_is_named_and_learns_nothing_else(decider: Decider) -> None:
    decider.define(roles=HIDDEN)
    assert refusal_of(decider, "Demo/Job", VIEWER) == 'no job "Demo/Job" that vera may see'
    assert refusal_of(decider, "Demo/None", VIEWER) == 'no job "Demo/None" that vera may see'


def test_role_words_of_a_file_that_nothing_knows_are_named_with_what_to_do() -> None:
    decider = Decider(Policy(mapped_roles=frozenset({"authenticated"})))
    decider.define("Demo/Hidden", roles=HIDDEN)
    refused = refusal_of(decider, "Demo/Hidden", HOST)
    assert 'knows the roles "debug"' in refused
    assert '"debug" = ["operator"]' in refused
    assert "[directory.role_map]" in refused
    decider.define("Demo/Debug", roles=RolesSpec(view=("debug",), start=("staff",)))
    assert refusal_of(decider, "Demo/Hidden", HOST).endswith('count are "debug", "authenticated"')
    may_not = decider.send(StartJob(job_id="Demo/Debug"), HOST)
    assert may_not.error_code == ErrorCode.NOT_PERMITTED


def test_role_words_are_named_only_to_the_writer_of_a_file_that_is_trusted() -> None:
    decider = Decider()
    for principal in (
        Principal(user_id="uid:1001", roles=("odd",), via="directory"),
        Principal(user_id="alice", roles=("odd",), via="http"),
    ):
        assert refusal_of(decider, "A/B", principal).endswith("may see")

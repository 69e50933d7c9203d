"""What ends set going, decided with them: once each, on the table as it is after the end."""

from collections.abc import Callable
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import Raw
from msgspec.structs import replace

from bus.commands import (
    CancelCommand,
    ReportEnded,
    ReportLost,
    ReportSpawnFailed,
    SetMaintenance,
    StartJob,
    StopJob,
)
from bus.envelope import derived_uuid
from bus.events import ExecutionCaused, ExecutionEnded
from bus.job_definition import (
    AfterSpec,
    JobSpec,
    Overlap,
    RetrySpec,
    VariableSpec,
    VariableType,
)
from bus.model import (
    FINAL_EXECUTION,
    CommandStatus,
    Execution,
    ExecutionStatus,
    ExitRecord,
    Reason,
    SecretRef,
    Value,
)
from handlers.catalog.chain_checks import Cycle, cycles, followers
from handlers.catalog.handed_on import handed_on
from handlers.decisions.chains import HOPS_MAX
from tests.decision_fixture import Decider

ALL = tuple(sorted(FINAL_EXECUTION))


def after(start: str, *on: ExecutionStatus, **variables: Value) -> AfterSpec:
    return AfterSpec(start=start, on=on or ALL, variables=variables)


def started(decider: Decider, job_id: str = "A/First") -> str:
    command = decider.send(StartJob(job_id=job_id))
    assert command.execution_id is not None
    return command.execution_id


def executions(decider: Decider, job_id: str) -> list[Execution]:
    return list(decider.table.executions_of(job_id))


def succeed(decider: Decider, execution_id: str) -> None:
    decider.runs(execution_id)
    decider.ends(execution_id)


def fail(decider: Decider, execution_id: str) -> None:
    decider.runs(execution_id)
    decider.ends(execution_id, 1)


def not_spawn(decider: Decider, execution_id: str) -> None:
    decider.report(ReportSpawnFailed(execution_id=execution_id, error="no such program"))


def time_out(decider: Decider, execution_id: str) -> None:
    decider.runs(execution_id)
    decider.ends(execution_id, None, signal=15, cause=Reason.RUN_TIMEOUT)


def stop(decider: Decider, execution_id: str) -> None:
    decider.runs(execution_id)
    decider.send(StopJob(execution_id=execution_id))
    decider.ends(execution_id, None, signal=15)


def lose(decider: Decider, execution_id: str) -> None:
    decider.report(ReportLost(execution_id=execution_id, reason=Reason.HOST_RESTART))


WAYS: dict[str, tuple[Callable[[Decider, str], None], ExecutionStatus]] = {
    "succeeds": (succeed, ExecutionStatus.SUCCEEDED),
    "fails": (fail, ExecutionStatus.FAILED),
    "cannot start": (not_spawn, ExecutionStatus.FAILED),
    "times out": (time_out, ExecutionStatus.TIMED_OUT),
    "is stopped": (stop, ExecutionStatus.STOPPED),
    "is lost": (lose, ExecutionStatus.LOST),
}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("on", ALL)
def test_an_end_sets_going_what_is_ordered_for_its_state(way: str, on: ExecutionStatus) -> None:
    decider = Decider()
    decider.define("A/Second")
    decider.define("A/First", after=(after("A/Second", on),))
    end, status = WAYS[way]
    first = started(decider)
    end(decider, first)
    assert decider.status(first) is status
    found = executions(decider, "A/Second")
    assert [each.caused_by for each in found] == ([first] if on is status else [])
    assert [c.execution_id for c in decider.execution(first).caused] == [e.id for e in found]


def test_what_is_cancelled_or_skipped_while_it_waits_sets_going_too() -> None:
    decider = Decider()
    decider.define("A/Second", max_running=9)
    retry = RetrySpec(attempts=2, on=(ExecutionStatus.FAILED,))
    ordered = (after("A/Second", ExecutionStatus.CANCELLED, ExecutionStatus.SKIPPED),)
    decider.define("A/First", after=ordered, retry=retry, overlap=Overlap.QUEUE)
    running = started(decider)
    waiting = decider.send(StartJob(job_id="A/First"))
    decider.send(CancelCommand(target_id=waiting.id))
    fail(decider, running)  # and is retried
    decider.define("A/First", after=ordered, disabled=True)
    retried = executions(decider, "A/First")[0]
    assert retried.status is ExecutionStatus.SKIPPED
    causes = [each.caused_by for each in executions(decider, "A/Second")]
    assert causes == [retried.id, waiting.execution_id]


def test_the_start_is_recorded_in_the_unit_of_the_end_and_never_again() -> None:
    decider = Decider()
    decider.define("A/Second")
    decider.define("A/First", after=(after("A/Second"),))
    first = started(decider)
    exit_ = ExitRecord(ended_ms=5, started_ms=4, exit_code=0)
    events = decider.report(ReportEnded(execution_id=first, exit=exit_))
    kinds = [type(event) for event in events]
    assert kinds.index(ExecutionEnded) < kinds.index(ExecutionCaused)
    assert decider.execution(first).caused[0].command_id == derived_uuid("chain", first, "0")
    assert decider.report(ReportEnded(execution_id=first, exit=exit_)) == []
    assert len(executions(decider, "A/Second")) == 1


def test_two_starts_of_one_end_see_one_another() -> None:
    decider = Decider()
    decider.define("A/Second", variables={"N": VariableSpec()})
    decider.define("A/First", after=(after("A/Second", N="1"), after("A/Second", N="2")))
    first = started(decider)
    succeed(decider, first)
    assert len(decider.table.in_slots("A/Second")) == 1
    codes = [each.error_code for each in decider.execution(first).caused]
    assert codes == [None, "already_running"]


def test_what_was_pushed_aside_by_a_chain_ends_with_its_own_chain() -> None:
    decider = Decider()
    decider.define("A/Third")
    pushed = (after("A/Third", ExecutionStatus.CANCELLED),)
    variables = {"N": VariableSpec()}
    decider.define("A/Second", after=pushed, overlap=Overlap.REPLACE, variables=variables)
    decider.define("A/First", after=(after("A/Second", N="new"),))
    decider.runs(started(decider, "A/Second"))
    decider.send(StartJob(job_id="A/Second", variables={"N": "waits"}))
    first = started(decider)
    succeed(decider, first)
    assert len(executions(decider, "A/Third")) == 1


def test_a_chain_ends_after_so_many_hops_and_says_so() -> None:
    decider = Decider()
    decider.define("A/First", after=(after("A/Second"),))
    decider.define("A/Second", after=(after("A/First"),))
    now = started(decider)
    hops: list[int] = []
    while True:
        succeed(decider, now)
        hops.append(decider.execution(now).hops)
        (caused,) = decider.execution(now).caused
        if caused.execution_id is None:
            break
        now = caused.execution_id
    assert hops == list(range(HOPS_MAX + 1))
    assert caused.error_code == "chain_too_long"
    assert decider.command(caused.command_id).status is CommandStatus.REJECTED
    again = started(decider)
    assert decider.execution(again).hops == 0


def test_maintenance_and_a_copy_of_the_directory_set_nothing_going() -> None:
    decider = Decider()
    decider.define("A/Second")
    decider.define("A/First", after=(after("A/Second"),), max_running=2)
    first, second = started(decider), started(decider)
    decider.report(ReportLost(execution_id=second, reason=Reason.NO_EXIT_RECORD, elsewhere=True))
    assert decider.execution(second).caused == ()
    decider.report(SetMaintenance(on=True, by="admin", reason="new disk"))
    succeed(decider, first)
    (refused,) = decider.execution(first).caused
    assert refused.error_code == "maintenance"
    assert refused.error == "nothing is started during maintenance: new disk"
    assert executions(decider, "A/Second") == []


def test_a_retry_of_a_chained_execution_is_still_of_the_chain() -> None:
    decider = Decider()
    decider.define("A/Second", retry=RetrySpec(attempts=2))
    decider.define("A/First", after=(after("A/Second"),))
    first = started(decider)
    succeed(decider, first)
    fail(decider, executions(decider, "A/Second")[0].id)
    again = executions(decider, "A/Second")[0]
    assert (again.attempt, again.caused_by, again.hops) == (2, first, 1)


SPEC = JobSpec(
    command=("true",),
    variables={
        "Text": VariableSpec(),
        "Key": VariableSpec(type=VariableType.SECRET),
    },
)
VALUES: dict[str, Value] = {"Text": "a b", "Key": SecretRef(secret="KEY"), "N": 3, "On": True}
RESULT = {"n": 12, "f": 2.5, "no": None, "in": {"a-b": ["x"]}, "text": "{{Text}}", "on": False}


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("plain", "plain"),
        ("{{Text}}", "a b"),
        (" {{ Text }} ", "a b"),
        ("{{N}}", 3),
        ("{{On}}", True),
        ("{{Key}}", SecretRef(secret="KEY")),
        ("{{result.n}}", 12),
        ("{{result.f}}", 2.5),
        ("{{result.on}}", False),
        ("{{result.text}}", "{{Text}}"),
        ("{{result.in.a-b}}", '["x"]'),
        ("{{result.in}}", '{"a-b":["x"]}'),
        ("n={{result.n}} {{Text}} {{result.text}}", "n=12 a b {{Text}}"),
        ("{{result.none}}.", "."),
        ("{{.Names}} {{result}}", "{{.Names}} "),
        (7, 7),
    ],
)
def test_a_value_is_handed_on_with_its_type(text: Value, value: Value) -> None:
    given = handed_on(AfterSpec(start="A/B", variables={"V": text}), VALUES, RESULT)
    assert given == {"V": value}


@pytest.mark.parametrize("text", ["{{result.no}}", "{{result.none.n}}", "{{result.n.n}}", "{{X}}"])
def test_what_the_first_job_has_no_value_for_is_not_given(text: str) -> None:
    assert handed_on(AfterSpec(start="A/B", variables={"V": text}), VALUES, RESULT) == {}
    assert handed_on(AfterSpec(start="A/B", variables={"V": text}), {}, None) == {}


def test_a_large_result_is_decoded_from_the_record_of_its_end() -> None:
    decider = Decider()
    decider.define("A/Second", variables={"V": VariableSpec()})
    decider.define("A/First", after=(after("A/Second", V="{{result.v}}"),))
    first = started(decider)
    exit_ = ExitRecord(ended_ms=5, started_ms=4, exit_code=0, result={"v": "x" * 4000})
    decider.report(ReportEnded(execution_id=first, exit=exit_))
    assert decider.execution(first).result == Raw(b'{"v":"' + b"x" * 4000 + b'"}')
    assert executions(decider, "A/Second")[0].variables == {"V": "x" * 4000}


@pytest.mark.parametrize(
    ("wrong", "reason"),
    [
        (AfterSpec(start="Next"), 'start must be a job id such as "App/Job", not "Next"'),
        (AfterSpec(start="A/{{Text}}"), "start must be a job id"),
        (AfterSpec(start="A/B", on=()), "on is empty"),
        (AfterSpec(start="A/B", on=(ExecutionStatus.RUNNING,)), "Running is no final state"),
        (after("A/B", V="{{Tex}}"), 'which this job does not declare; did you mean "Text"?'),
        (after("A/B", V="k={{Key}}"), "is a secret and is handed on by its name only"),
    ],
)
def test_a_wrong_after_is_refused_with_what_would_be_right(wrong: AfterSpec, reason: str) -> None:
    spec = JobSpec(command=SPEC.command, variables=SPEC.variables, after=(wrong,))
    assert [p.reason for p in followers(spec) if reason in p.reason], list(followers(spec))


def chained(**onward: str) -> dict[str, JobSpec]:
    """Jobs by letters: `a="bc"` starts b and c after a."""
    return {
        name: JobSpec(command=("true",), after=tuple(AfterSpec(start=to) for to in others))
        for name, others in onward.items()
    }


def test_the_shortest_way_back_is_named() -> None:
    assert cycles(chained(a="b", b="c", c="")) == {}
    assert cycles(chained(a="a")) == {"a": Cycle(0, ("a", "a"))}
    assert cycles(chained(a="xb", b="ca", c="b", d="a")) == {
        "a": Cycle(1, ("a", "b", "a")),
        "b": Cycle(0, ("b", "c", "b")),
        "c": Cycle(0, ("c", "b", "c")),
    }


def test_a_circle_that_leads_over_a_former_name_is_found() -> None:
    renamed = {"b": replace(chained(b="a")["b"], formerly=("old",))}
    started_as = {"a": JobSpec(command=("true",), after=(AfterSpec(start="old"),))}
    assert cycles(started_as | renamed) == {
        "a": Cycle(0, ("a", "b", "a")),
        "b": Cycle(0, ("b", "a", "b")),
    }


@given(
    st.dictionaries(st.sampled_from("abcdefg"), st.lists(st.sampled_from("abcdefg"), max_size=3))
)
def test_without_the_jobs_of_circles_every_chain_comes_to_an_end(
    onward: dict[str, list[str]],
) -> None:
    specs = chained(**{name: "".join(to) for name, to in onward.items()})
    found = cycles(specs)
    for name, (place, way) in found.items():
        assert way[0] == way[-1] == name
        assert specs[name].after[place].start == way[1]
        assert all(there in onward[here] for here, there in pairwise(way))
    left = {name: to for name, to in onward.items() if name not in found}
    while left:
        leaves = [name for name, to in left.items() if not any(each in left for each in to)]
        assert leaves, left
        left = {name: to for name, to in left.items() if name not in leaves}

"""What earlier versions wrote is read for ever: golden files with every event and every field.

A test that fails here says: a tag, a field or its meaning was changed, and journals out there can
no longer be read. New fields get defaults. Until the first release the files are written again by
`PYTHONPATH=. python tests/unit/test_journal_golden.py`; after it old files stay as they are, and
what is new goes into `journal-2.log`.
"""

from pathlib import Path
from typing import Any, get_args

import msgspec
import pytest

from bus.events import (
    AnyEvent,
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
    GroupPaused,
    GroupRemoved,
    GroupResumed,
    JobChanged,
    JobCleared,
    JobDefined,
    JobGaveUp,
    JobInvalid,
    JobPaused,
    JobRemoved,
    JobResumed,
    ScheduleBegun,
    ScheduleDecided,
    SchedulePaused,
    ScheduleResumed,
    SystemClock,
    SystemForgotten,
    SystemMaintenance,
    type_of,
)
from bus.groups import Group, JobQueue, Pause, StartLimitSpec
from bus.health import Health, HealthAction, HealthSpec, HealthStatus
from bus.job_definition import (
    AfterSpec,
    ArtifactsSpec,
    DefinitionFault,
    Job,
    JobSpec,
    KeepSpec,
    Leftover,
    LimitsSpec,
    Mistake,
    OutputSpec,
    Overlap,
    RestartPolicy,
    RestartSpec,
    RetrySpec,
    RolesSpec,
    StopTarget,
    VariableSpec,
    VariableType,
)
from bus.model import (
    Caused,
    CommandRecord,
    CommandStatus,
    Execution,
    ExecutionStatus,
    Maintenance,
    Outcome,
    Progress,
    Reason,
    SecretRef,
    StopRequest,
    Usage,
    Value,
)
from bus.schedules import (
    ClockDoubt,
    Dst,
    Fold,
    Gap,
    LastDecision,
    MissedPolicy,
    SchedulePause,
    ScheduleSpec,
    ScheduleState,
    Verdict,
    Why,
)
from handlers.decisions.remembered import RememberedContent, Turn
from handlers.decisions.table_content import TableContent
from handlers.journal.format import Record, decode_line, encode_line, frame_line, unframe_line

GOLDEN = Path(__file__).parent / "golden"

VARIABLES: dict[str, Value] = {
    "text": "ä\u2028\n",
    "count": 30,
    "share": 0.5,
    "on": True,
    "none": None,
    "key": SecretRef(secret="KEY"),
}
PROGRESS = Progress(
    percent=42.5, message="copying", data={"files": [1, {"of": None}]}, note="no", reloading=True
)
STOP = StopRequest(
    reason=Reason.USER, by="alice", at_ms=5, grace_s=2.5, kill=True, command_id="c-1"
)
RESULT = msgspec.Raw(b'{"status":"Idle","list":[1,2]}')
FAULT = DefinitionFault(
    file="apps/Demo/jobs/Job/job.toml",
    line=3,
    reason="unknown key",
    key="timout_s",
    more=(Mistake(file="apps/defaults.toml", line=4, reason="is missing", key="retry.on"),),
)
CAUSED = Caused(
    job_id="Demo/Next",
    command_id="c-2",
    execution_id="e-2",
    error_code="disabled",
    error="Demo/Next is disabled",
    is_hidden=True,
)
SPEC = JobSpec(
    command=("sh", "-c", "echo {{text}}"),
    name="Job",
    description="about",
    tags=("a", "b"),
    cwd="sub",
    env={"A": "1"},
    max_running=2,
    overlap=Overlap.QUEUE,
    timeout_s=60.0,
    start_timeout_s=30.0,
    ready="notify",
    health=HealthSpec(
        command=("./check.sh",),
        url="http://localhost/",
        every_s=7.0,
        timeout_s=2.0,
        failures=5,
        successes=2,
        action=HealthAction.RESTART,
        start_after_s=3.0,
    ),
    watchdog_s=5.0,
    stop_signal="INT",
    stop_to=StopTarget.GROUP,
    stop_grace_s=3.5,
    leftover=Leftover.WAIT,
    success_codes=(0, 3),
    formerly=("Demo/Old",),
    disabled=True,
    variables={
        "count": VariableSpec(
            type=VariableType.INTEGER,
            default=5,
            required=True,
            min=1,
            max=10.5,
            max_length=12,
            pattern="[0-9]+",
            choices=("1", "2"),
            description="how many",
            allow_dash=True,
        )
    },
    roles=RolesSpec(view=("v",), start=("s",), stop=(), restart=("r",), output=("o",)),
    retry=RetrySpec(
        attempts=3,
        delay_s=2.0,
        backoff=3.0,
        delay_s_max=30.0,
        jitter=0.5,
        on=(ExecutionStatus.LOST,),
    ),
    restart=RestartSpec(policy=RestartPolicy.ON_FAILURE, limit=4, limit_window_s=60.0),
    schedule=(
        ScheduleSpec(
            name="often",
            cron="*/5 * * * *",
            every_s=60,
            anchor="2026-01-01T00:00:00Z",
            at=("2026-12-24T18:00:00",),
            calendar="Mon..Fri 09:00",
            zone="Europe/Berlin",
            variables={"count": 1},
            missed=MissedPolicy.ALL,
            missed_within_s=60.0,
            jitter_s=1.5,
            dst=Dst.AUTO,
            dst_gap=Gap.SKIP,
            dst_fold=Fold.TWICE,
            only=("workdays",),
            except_=("holidays",),
        ),
    ),
    output=OutputSpec(max_bytes=1024),
    artifacts=ArtifactsSpec(max_files=3, max_bytes=1000),
    keep=KeepSpec(executions=5, days=1.5),
    after=(AfterSpec(start="Demo/Next", on=(ExecutionStatus.FAILED,), variables={"a": "{{b}}"}),),
    user="nobody",
    group=65534,
    nice=5,
    oom_score_adj=100,
    env_file="?more.env",
    stdin="variable:count",
    limits=LimitsSpec(
        memory="512M",
        memory_bytes=1 << 30,
        cpu_s=10,
        cpu_weight=50,
        pids=20,
        open_files=64,
        nice=5,
        oom_score_adj=100,
    ),
    umask="0027",
    origins={"timeout_s": "apps/defaults.toml:3"},
    directory="/apps/Demo/jobs/Job",
    groups=("database",),
    priority=7,
    start_limit=StartLimitSpec(count=5, within_s=60.0),
)
PAUSE = Pause(reason="new disk", by="admin", since_ms=5, until_ms=6)
QUEUE = JobQueue(paused=PAUSE, starts_ms=(3, 4))

EVENTS: tuple[AnyEvent, ...] = (
    CommandAccepted(
        command_id="c-1",
        kind="start",
        user_id="alice",
        submitted_ms=1,
        body_hash="ab12",
        job_id="Demo/Job",
        roles=("operator",),
        via="http",
        variables=VARIABLES,
        submitted_text="2026-01-26T10:00:00.0000000-08:00",
        id_text="C-1",
        execution_id="e-1",
        waits_for=("e-0",),
        merged=True,
        attempted=False,
        supersedes_ns=7,
        traceparent="00-ab-cd-01",
    ),
    CommandEnded(
        command_id="c-1",
        status=CommandStatus.COMPLETED,
        outcome=Outcome.MERGED,
        error_code="expired",
        error="too late",
        execution_id="e-1",
        result=RESULT,
    ),
    ExecutionQueued(
        execution_id="e-1",
        job_id="Demo/Job",
        command_id="c-1",
        user_id="alice",
        revision="r1",
        variables=VARIABLES,
        attempt=2,
        previous="e-0",
        first=True,
        replaces="e-0",
        not_before_ms=7,
        cause="policy:retry",
        expires_ms=8,
        traceparent="00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
        attempts=3,
        caused_by="e-9",
        hops=2,
        scheduled_at="2026-01-01T01:00:00+01:00",
    ),
    ExecutionStarted(execution_id="e-1", revision="r2", variables=VARIABLES, groups=("database",)),
    ExecutionRunning(execution_id="e-1", started_ms=9, pid=4711),
    ExecutionProgress(execution_id="e-1", progress=PROGRESS),
    ExecutionStopping(execution_id="e-1", stop=STOP),
    ExecutionUnknown(execution_id="e-1"),
    ExecutionEnded(
        execution_id="e-1",
        status=ExecutionStatus.TIMED_OUT,
        reason=Reason.RUN_TIMEOUT,
        ended_ms=10,
        exit_code=1,
        signal=9,
        error="no",
        contained=False,
        survivors=(5, 6),
        containment="cgroup",
        output_end=1000,
        progress=PROGRESS,
        result=RESULT,
        result_note="the result is too long",
        artifacts=2,
        artifact_bytes=300,
        artifacts_note="1 artifacts were not kept",
        usage=Usage(cpu_s=0.25, memory_bytes_max=4096, oom_kills=1),
        core_dumped=True,
    ),
    ExecutionCaused(execution_id="e-1", by="chain:Demo/Job", caused=CAUSED),
    ExecutionDeleted(execution_id="e-1", job_id="Demo/Job", user_id="alice"),
    JobGaveUp(job_id="Demo/Job", restarts=10, window_s=600.0),
    JobCleared(job_id="Demo/Job"),
    JobDefined(job_id="Demo/Job", revision="r1", spec=SPEC),
    JobChanged(job_id="Demo/Job", revision="r2", spec=SPEC),
    JobInvalid(job_id="Demo/Job", fault=FAULT),
    JobRemoved(job_id="Demo/Job"),
    SystemForgotten(
        executions=("e-1",),
        commands=("c-1",),
        ids_dropped=3,
        horizon_ms=4,
        traceless=("c-2",),
        horizon_at_most_ms=5,
        turned=True,
    ),
    SystemMaintenance(on=True, by="admin", reason="new disk"),
    ScheduleBegun(
        job_id="Demo/Job",
        schedule="often",
        mark="ab12",
        from_ms=7,
        boot="b-1",
        formerly="Demo/Old",
    ),
    SchedulePaused(job_id="Demo/Job", schedule="often", by="olga", reason="new disk", until_ms=11),
    ScheduleResumed(job_id="Demo/Job", schedule="often", by="olga"),
    ScheduleDecided(
        job_id="Demo/Job",
        schedule="often",
        instant_ms=9,
        verdict=Verdict.COALESCED,
        why=Why.OVERLAP,
        command_id="c-1",
        execution_id="e-1",
        error="no",
        first_ms=8,
        count=2,
        more=True,
        boot="b-2",
    ),
    SystemClock(doubted=True, shown_ms=9, believed_ms=8, by="admin"),
    ExecutionHealth(execution_id="e-1", status=HealthStatus.UNHEALTHY, message="down"),
    JobPaused(job_id="Demo/Job", by="admin", reason="new disk", until_ms=6),
    JobResumed(job_id="Demo/Job", by="admin"),
    GroupDefined(name="database", max_running=2),
    GroupRemoved(name="database"),
    GroupPaused(name="database", by="admin", reason="new disk", until_ms=6),
    GroupResumed(name="database", by="admin"),
)
RECORDS = (
    *(Record(seq=seq, at_ms=100 + seq, events=(event,)) for seq, event in enumerate(EVENTS, 1)),
    Record(seq=119, at_ms=120, events=EVENTS[3:5], reserved=65552, projected=12, batch=17),
    Record(seq=121, at_ms=130, clean=True),
)

CONTENT = TableContent(
    jobs=(
        Job(
            id="Demo/Job",
            spec=SPEC,
            revision="r1",
            fault=FAULT,
            restarts_ms=(1, 2),
            gave_up_ms=3,
            version=4,
            queue=QUEUE,
        ),
    ),
    specs=(("Demo/Job", "r1", SPEC),),
    queues=(("Demo/Job", ("e-1",)),),
    executions=(
        Execution(
            id="e-1",
            job_id="Demo/Job",
            command_id="c-1",
            user_id="alice",
            status=ExecutionStatus.FAILED,
            revision="r1",
            queued_ms=1,
            variables=VARIABLES,
            attempt=2,
            previous="e-0",
            replaces="e-0",
            not_before_ms=7,
            cause="policy:retry",
            start_ms=2,
            end_ms=3,
            pid=4711,
            progress=PROGRESS,
            reason=Reason.EXIT_CODE,
            exit_code=1,
            signal=9,
            error="no",
            contained=False,
            survivors=(5,),
            containment="session",
            output_end=1000,
            stop=STOP,
            expires_ms=8,
            traceparent="00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
            attempts=3,
            result=RESULT,
            result_note="the result is too long",
            artifacts=2,
            artifact_bytes=300,
            artifacts_note="1 artifacts were not kept",
            caused_by="e-9",
            hops=2,
            caused=(CAUSED,),
            scheduled_at="2026-01-01T01:00:00+01:00",
            usage=Usage(cpu_s=0.25, memory_bytes_max=4096, oom_kills=1),
            core_dumped=True,
            version=11,
            health=Health(status=HealthStatus.HEALTHY, since_ms=2, message="up"),
            arrival_ms=12,
            groups=("database",),
        ),
    ),
    commands=(
        CommandRecord(
            id="c-1",
            kind="status",
            user_id="alice",
            submitted_ms=1,
            body_hash="ab12",
            status=CommandStatus.COMPLETED,
            job_id="Demo/Job",
            roles=("operator",),
            via="http",
            variables=VARIABLES,
            submitted_text="then",
            id_text="C-1",
            waits_for=("e-0",),
            merged=True,
            execution_id="e-1",
            outcome=Outcome.NOOP,
            error_code="expired",
            error="too late",
            result=RESULT,
            processed_ms=12,
            traceparent="00-ab-cd-01",
            version=13,
        ),
    ),
    remembered=RememberedContent(
        first=3,
        seq=14,
        users=("alice",),
        entries=(b"packed",),
        times_ms=b"times",
        turns=(Turn(ids=3, at_ms=15),),
    ),
    horizon_ms=4,
    maintenance=Maintenance(reason="new disk", by="admin", since_ms=5),
    stopped_ns={"Demo/Job": 6},
    last_roles={"Demo/Gone": SPEC.roles},
    doubt=ClockDoubt(shown_ms=9, believed_ms=8),
    schedules=(
        (
            "Demo/Job",
            "often",
            ScheduleState(
                mark="ab12",
                decided_ms=9,
                boot="b-1",
                gone_ms=10,
                last=LastDecision(
                    instant_ms=9,
                    verdict=Verdict.SKIPPED,
                    why=Why.MISSED,
                    execution_id="e-1",
                ),
                pause=SchedulePause(reason="new disk", by="olga", since_ms=10, until_ms=11),
            ),
        ),
    ),
    groups=(Group(name="database", max_running=2, paused=PAUSE, is_defined=False, version=9),),
    last_queues={"Demo/Gone": QUEUE},
    arrival_ms=12,
    arrived_at_ms=13,
)


def structs_in(value: Any) -> list[msgspec.Struct]:
    """All records within one, itself included."""
    if isinstance(value, msgspec.Struct):
        inner = [getattr(value, name) for name in value.__struct_fields__]
        return [value, *(struct for one in inner for struct in structs_in(one))]
    if isinstance(value, dict):
        return [struct for one in value.values() for struct in structs_in(one)]
    if isinstance(value, tuple):
        return [struct for one in value for struct in structs_in(one)]
    return []


def test_journal_of_the_first_version_is_read_and_written_as_ever() -> None:
    lines = (GOLDEN / "journal-1.log").read_bytes().splitlines(keepends=True)
    assert [decode_line(line) for line in lines] == list(RECORDS)
    assert [encode_line(record) for record in RECORDS] == lines


def test_snapshot_of_the_first_version_is_read_and_written_as_ever() -> None:
    line = (GOLDEN / "snapshot-1.log").read_bytes()
    assert msgspec.json.decode(unframe_line(line), type=TableContent) == CONTENT
    assert frame_line(msgspec.json.encode(CONTENT)) == line


def test_nothing_is_lost_of_what_was_written_before_schedules_were_built() -> None:
    """`journal-0.log` and `snapshot-0.log` are as the version before wrote them."""
    for line in (GOLDEN / "journal-0.log").read_bytes().splitlines(keepends=True):
        again = unframe_line(encode_line(decode_line(line)))
        assert_holds(msgspec.json.decode(again), msgspec.json.decode(unframe_line(line)))
    old = unframe_line((GOLDEN / "snapshot-0.log").read_bytes())
    new = msgspec.json.encode(msgspec.json.decode(old, type=TableContent))
    assert_holds(msgspec.json.decode(new), msgspec.json.decode(old))


def assert_holds(new: Any, old: Any) -> None:
    """All that stands in `old` stands in `new`, with the same value."""
    if isinstance(old, dict):
        for key, value in old.items():
            assert key in new, key
            assert_holds(new[key], value)
    elif isinstance(old, list):
        assert len(new) == len(old)
        for one, other in zip(new, old, strict=True):
            assert_holds(one, other)
    else:
        assert new == old


def test_every_kind_of_event_is_in_the_golden_file() -> None:
    assert {type(event) for event in EVENTS} == set(get_args(AnyEvent))


@pytest.mark.parametrize("event", EVENTS, ids=type_of)
def test_every_field_of_an_event_is_in_the_golden_file(event: AnyEvent) -> None:
    for struct in structs_in(event):
        assert_no_default(struct)


def test_every_field_of_the_table_is_in_the_golden_file() -> None:
    for struct in structs_in(CONTENT):
        assert_no_default(struct)


def assert_no_default(struct: msgspec.Struct) -> None:
    for info in msgspec.structs.fields(struct):
        value = getattr(struct, info.name)
        default = info.default if info.default_factory is msgspec.NODEFAULT else []
        assert value != default, f"{type(struct).__name__}.{info.name} is not in the golden file"


if __name__ == "__main__":
    (GOLDEN / "journal-1.log").write_bytes(b"".join(map(encode_line, RECORDS)))
    (GOLDEN / "snapshot-1.log").write_bytes(frame_line(msgspec.json.encode(CONTENT)))

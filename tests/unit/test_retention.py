"""What is forgotten and what never: pure decisions on a table driven by hand."""

from collections import Counter

import msgspec
import pytest

from bus.commands import CancelCommand, Forget, GetStatus, StartJob, StopJob
from bus.envelope import seal
from bus.errors import ErrorCode
from bus.events import SystemForgotten
from bus.job_definition import KeepSpec, RetrySpec, VariableSpec
from bus.model import CommandStatus, Principal
from bus.ports import Policy
from bus.retention_settings import RetentionSettings
from handlers.decisions import registry, retention
from handlers.decisions.decision import DeleteFiles
from handlers.decisions.kept_commands import Holding
from handlers.decisions.retention import Past, to_forget
from handlers.decisions.table import JobTable
from handlers.decisions.table_content import TableContent, parts_of
from tests.decision_fixture import OPERATOR, VIEWER, Decider

DAY_S = 86_400.0


def past_of(decider: Decider, *, by_age: bool = True, waiting_since_ms: int | None = None) -> Past:
    return Past(
        content=decider.table.freeze(),
        id_times_ms=decider.table.remembered.times_ms(),
        now_ms=decider.clock.now_ms(),
        by_age=by_age,
        waiting_since_ms=waiting_since_ms,
    )


def look(decider: Decider, keeping: RetentionSettings, **around: object) -> list[Forget]:
    """What a look finds, after the owner has taken it in."""
    found = [r for r in to_forget(past_of(decider, **around), keeping) if r is not None]  # type: ignore[arg-type]
    for report in found:
        decider.report(report)
    return found


def decider_with(count: int, job_id: str = "Demo/Job", *, every_s: float = 1.0) -> Decider:
    decider = Decider()
    decider.define(job_id)
    ended(decider, count, job_id, every_s=every_s)
    return decider


def ended(decider: Decider, count: int, job_id: str, *, every_s: float = 1.0) -> list[str]:
    ids = []
    for _ in range(count):
        execution_id = decider.send(StartJob(job_id=job_id)).execution_id
        assert execution_id is not None
        decider.runs(execution_id)
        decider.ends(execution_id)
        decider.clock.advance_s(every_s)
        ids.append(execution_id)
    return ids


def kept(decider: Decider) -> int:
    return len(list(decider.table.executions()))


def test_nothing_is_forgotten_while_there_is_no_more_than_is_kept() -> None:
    decider = decider_with(10)
    assert look(decider, RetentionSettings(executions=10)) == []


def test_the_oldest_of_a_job_go_when_there_are_too_many_of_it() -> None:
    decider = Decider()
    decider.define("Demo/A")
    decider.define("Demo/B")
    first, few = ended(decider, 8, "Demo/A"), ended(decider, 3, "Demo/B")
    look(decider, RetentionSettings(executions=5))
    left = {execution.id for execution in decider.table.executions()}
    assert left == {*first[3:], *few}
    assert [e.id for e in decider.table.executions_of("Demo/A")] == first[:2:-1]


def test_a_jobs_own_keep_goes_before_the_configured_one() -> None:
    decider = Decider()
    decider.define("Demo/A", keep=KeepSpec(executions=2))
    decider.define("Demo/B", keep=KeepSpec(days=1))
    ended(decider, 5, "Demo/A")
    ended(decider, 5, "Demo/B")
    look(decider, RetentionSettings(executions=4))
    assert [len(list(decider.table.executions_of(job))) for job in ("Demo/A", "Demo/B")] == [2, 4]
    decider.clock.advance_s(DAY_S + 1)
    look(decider, RetentionSettings(executions=4))
    assert [len(list(decider.table.executions_of(job))) for job in ("Demo/A", "Demo/B")] == [2, 0]


def test_old_executions_and_commands_go_each_after_its_days() -> None:
    decider = decider_with(3)
    status = decider.send(GetStatus(job_id="Demo/Job"))
    decider.clock.advance_s(3601)
    look(decider, RetentionSettings())
    assert decider.table.command(status.id) is None
    assert (kept(decider), len(list(decider.table.commands()))) == (3, 3)
    decider.clock.advance_s(7 * DAY_S)
    look(decider, RetentionSettings())
    assert (kept(decider), len(list(decider.table.commands()))) == (3, 0)
    decider.clock.advance_s(23 * DAY_S)
    look(decider, RetentionSettings())
    assert kept(decider) == 0


def test_nothing_is_too_old_while_the_clock_is_not_trusted() -> None:
    decider = decider_with(3)
    decider.clock.advance_s(400 * DAY_S)
    assert look(decider, RetentionSettings(), by_age=False) == []
    look(decider, RetentionSettings(executions=1), by_age=False)
    assert kept(decider) == 1


def test_the_oldest_go_when_all_output_together_is_too_much() -> None:
    decider = decider_with(6)
    content = decider.table.freeze()
    big = tuple(msgspec.structs.replace(e, output_end=1000) for e in content.executions)
    past = msgspec.structs.replace(content, executions=big)
    found = list(
        to_forget(Past(past, (), decider.clock.now_ms()), RetentionSettings(output_bytes=3500))
    )
    assert [r.executions for r in found if r] == [tuple(e.id for e in big[:3])]


def test_the_oldest_commands_go_when_they_hold_too_much_together() -> None:
    decider = Decider()
    decider.define("Demo/Job", variables={"Text": VariableSpec()})
    ids = []
    for text in ("é" * 500, "a" * 1000, "b" * 1000):
        sent = decider.send(StartJob(job_id="Demo/Job", variables={"Text": text}))
        decider.runs(sent.execution_id or "")
        decider.ends(sent.execution_id or "")
        ids.append(sent.id)
    decider.clock.advance_s(61)
    assert look(decider, RetentionSettings(command_bytes=3100)) == []
    [report] = look(decider, RetentionSettings(command_bytes=3000))
    assert report.commands == (ids[0],)


def test_live_executions_and_waiting_commands_are_never_forgotten() -> None:
    decider = Decider()
    decider.define("Demo/Job", max_running=3, retry=RetrySpec(attempts=3, delay_s=1e9))
    running = decider.send(StartJob(job_id="Demo/Job"))
    decider.runs(running.execution_id or "")
    stop = decider.send(StopJob(job_id="Demo/Job"))
    decider.clock.advance_s(400 * DAY_S)
    look(decider, RetentionSettings(executions=1, commands=1))
    assert [e.id for e in decider.table.executions()] == [running.execution_id]
    assert [c.id for c in decider.table.commands()] == [stop.id]


def test_an_end_that_a_command_still_waits_with_is_kept() -> None:
    decider = Decider()
    decider.define("Demo/Job", max_running=2, keep=KeepSpec(executions=0))
    first, second = (decider.send(StartJob(job_id="Demo/Job")).execution_id or "" for _ in "12")
    decider.runs(first)
    decider.runs(second)
    stop = decider.send(StopJob(job_id="Demo/Job"))
    decider.ends(first, signal=9, exit_code=None, contained=False)
    look(decider, RetentionSettings())
    decider.report(Forget(executions=(first,)))
    assert decider.execution(first).is_final
    decider.ends(second, signal=15, exit_code=None)
    assert decider.command(stop.id).status is CommandStatus.FAILED
    look(decider, RetentionSettings())
    assert kept(decider) == 0


def test_just_ended_commands_are_kept_whatever_their_number() -> None:
    decider = decider_with(20, every_s=0.1)
    assert look(decider, RetentionSettings(commands=1)) == []
    decider.clock.advance_s(61)
    look(decider, RetentionSettings(commands=5))
    assert len(list(decider.table.commands())) == 5


def test_a_report_that_is_out_of_date_forgets_only_what_still_can_be() -> None:
    decider = decider_with(2)
    live = decider.send(StartJob(job_id="Demo/Job"))
    ids = tuple(e.id for e in decider.table.executions())
    gone = decider.send(StopJob(job_id="Demo/Job"))
    [event] = decider.report(Forget(executions=(*ids, *ids, "unknown"), commands=(gone.id, "none")))
    assert isinstance(event, SystemForgotten)
    assert (len(event.executions), event.commands) == (2, ())
    assert decider.execution(live.execution_id) is not None
    assert decider.report(Forget(executions=ids[1:])) == []


def test_files_are_named_as_the_writers_spelled_the_ids() -> None:
    decider = decider_with(1)
    spelled = "F1D02C3E-9A4B-4C5D-8E6F-7A8B9C0D1E2F"
    envelope = seal(
        GetStatus(job_id="Demo/Job"),
        OPERATOR,
        now_ms=decider.clock.now_ms(),
        command_id=spelled.lower(),
    )
    decider.take(msgspec.structs.replace(envelope, id_text=spelled))
    decider.report(Forget(commands=(spelled.lower(),)))
    assert decider.effects[-1] == DeleteFiles(command_ids=(spelled.lower(),), spellings=(spelled,))


def test_a_repeat_of_a_forgotten_command_is_not_run_again() -> None:
    decider = decider_with(0)
    envelope = seal(StartJob(job_id="Demo/Job"), OPERATOR, now_ms=decider.clock.now_ms())
    execution_id = decider.take(envelope).execution_id or ""
    decider.runs(execution_id)
    decider.ends(execution_id)
    decider.clock.advance_s(8 * DAY_S)
    look(decider, RetentionSettings())
    before = len(decider.events)
    with pytest.raises(AssertionError):
        decider.take(envelope)  # there is no record to give back
    assert len(decider.events) == before
    known = decider.table.forgotten(envelope.id)
    assert known is not None
    assert (known.body_hash, known.user_id) == (envelope.body_hash, "olga")


def pass_days(
    decider: Decider, days: int, keeping: RetentionSettings, *, every_s: float = DAY_S
) -> None:
    """So many days pass, and each is looked at."""
    for _ in range(days):
        decider.clock.advance_s(every_s)
        look(decider, keeping)


def test_ids_go_after_their_days_and_what_was_submitted_with_them_expires() -> None:
    decider = decider_with(4)
    late = seal(StartJob(job_id="Demo/Job"), OPERATOR, now_ms=decider.clock.now_ms() - 2000)
    pass_days(decider, 37, RetentionSettings())
    assert len(decider.table.remembered) == 4
    pass_days(decider, 4, RetentionSettings())
    assert len(decider.table.remembered) == 0
    assert decider.take(late).status is CommandStatus.EXPIRED
    fresh = decider.send(StartJob(job_id="Demo/Job"))
    assert fresh.status is CommandStatus.RUNNING


def test_no_number_of_later_commands_drops_an_id_before_its_time() -> None:
    decider = decider_with(5)
    [first, *_] = [command.id for command in decider.table.freeze().commands]
    keeping = RetentionSettings(commands=1)
    for _ in range(20):
        ended(decider, 50, "Demo/Job", every_s=0.1)
        pass_days(decider, 1, keeping)
    assert decider.table.forgotten(first) is not None
    assert len(decider.table.remembered) == 1004


def test_the_horizon_does_not_pass_what_still_waits() -> None:
    decider = decider_with(10)
    begun_ms = decider.clock.now_ms() - 10_000
    pass_days(decider, 40, RetentionSettings())
    before = len(decider.table.remembered)
    decider.clock.advance_s(5 * DAY_S)
    for _ in range(3):
        look(decider, RetentionSettings(), waiting_since_ms=begun_ms + 2000)
    assert len(decider.table.remembered) == before == 10
    look(decider, RetentionSettings())
    assert (len(decider.table.remembered), decider.table.horizon_ms) == (0, begun_ms + 9000)


@pytest.mark.parametrize("jump_s", [3 * 3600, 2 * DAY_S, 3650 * DAY_S, -365 * DAY_S])
def test_a_clock_that_was_wrong_drops_no_id_and_refuses_nothing_submitted_after_it(
    jump_s: float,
) -> None:
    decider = decider_with(3)
    for jump in (0.0, jump_s, -jump_s):
        decider.clock.jump_wall_s(jump)
        ended(decider, 3, "Demo/Job")
        pass_days(decider, 9, RetentionSettings(commands=2))
    assert len(decider.table.remembered) == 12
    pass_days(decider, 40, RetentionSettings(commands=2))
    assert decider.send(StartJob(job_id="Demo/Job")).status is CommandStatus.RUNNING
    assert decider.table.horizon_ms <= decider.clock.now_ms()


@pytest.mark.parametrize("restarts", [False, True])
def test_turns_come_by_the_time_that_runs_where_the_wall_clock_says_nothing(
    *, restarts: bool
) -> None:
    decider = decider_with(3)
    pass_days(decider, 8, RetentionSettings())
    turns = len(decider.table.remembered.turns)
    decider.clock.jump_wall_s(-3600)
    past = past_of(decider)
    running_ms = 0 if restarts else int(DAY_S * 1000)
    found = list(
        to_forget(msgspec.structs.replace(past, running_ms=running_ms), RetentionSettings())
    )
    assert any(report.turned for report in found if report) is not restarts
    assert turns == 1


def test_a_horizon_that_lies_ahead_refuses_nothing_and_is_lowered_at_the_first_look() -> None:
    decider = decider_with(1)
    now_ms = decider.clock.now_ms()
    decider.table.horizon_ms = now_ms + 3 * 3_600_000  # as an older version could leave it
    assert decider.send(StartJob(job_id="Demo/Job")).status is CommandStatus.RUNNING
    look(decider, RetentionSettings())
    assert decider.table.horizon_ms == now_ms - 30 * int(DAY_S * 1000)
    waiting = seal(StopJob(job_id="Demo/Job"), OPERATOR, now_ms=now_ms + 1000)
    decider.clock.advance_s(4 * 3600)
    assert decider.take(waiting).status is CommandStatus.RUNNING


def test_stops_and_cancels_are_never_too_old() -> None:
    decider = decider_with(2)
    pass_days(decider, 45, RetentionSettings())
    assert decider.table.horizon_ms > 0
    start = decider.send(StartJob(job_id="Demo/Job"))
    decider.runs(start.execution_id or "")
    for command in (StopJob(job_id="Demo/Job"), CancelCommand(target_id=start.id)):
        old = decider.take(seal(command, OPERATOR, now_ms=0))
        assert old.status is not CommandStatus.EXPIRED
    assert decider.execution(start.execution_id).stop is not None


def test_reads_and_refusals_leave_no_id() -> None:
    decider = decider_with(1)
    sent = [decider.send(GetStatus(job_id="Demo/Job")) for _ in range(3)]
    sent += [decider.send(StartJob(job_id="Demo/Job"), VIEWER) for _ in range(3)]
    sent.append(decider.send(StartJob(job_id="Demo/None")))
    decider.clock.advance_s(8 * DAY_S)
    look(decider, RetentionSettings())
    assert all(decider.table.command(one.id) is None for one in sent)
    assert all(decider.table.forgotten(one.id) is None for one in sent)
    assert len(decider.table.remembered) == 1
    assert decider.table.without_effect.in_all == Holding()


@pytest.mark.parametrize("limit", [{"commands": 40}, {"command_bytes": 20_000}])
def test_who_sends_much_without_an_effect_pushes_nothing_of_others_out(
    limit: dict[str, int],
) -> None:
    decider = decider_with(3)
    own = [decider.send(GetStatus(job_id="Demo/Job"), OPERATOR) for _ in range(2)]
    for _ in range(200):
        decider.send(GetStatus(job_id="Demo/Job"), VIEWER)
        decider.send(StartJob(job_id="Demo/Job"), VIEWER)
    decider.clock.advance_s(61)
    look(decider, RetentionSettings(**limit))
    kept = list(decider.table.commands())
    assert sum(command.kind == "start" and command.user_id == "olga" for command in kept) == 3
    assert all(decider.table.command(one.id) for one in own)
    assert sum(command.user_id == "vera" for command in kept) < 20


def test_who_has_most_gives_way_first_among_those_with_an_effect() -> None:
    decider = Decider()
    decider.define("Demo/Job", max_running=1000)
    other = Principal(user_id="otto", roles=("operator",), via="http")
    for number in range(60):
        sent = decider.send(StartJob(job_id="Demo/Job"), OPERATOR if number % 10 else other)
        decider.runs(sent.execution_id or "")
    decider.clock.advance_s(61)
    look(decider, RetentionSettings(commands=20))
    kept = Counter(command.user_id for command in decider.table.commands())
    assert kept == {"otto": 6, "olga": 14}


def test_a_principal_with_all_its_ids_starts_nothing_more_but_stops_and_hinders_no_other() -> None:
    decider = Decider(Policy(keeping=RetentionSettings(ids=5)))
    decider.define()
    ended(decider, 5, "Demo/Job")
    decider.clock.advance_s(8 * DAY_S)
    look(decider, RetentionSettings(ids=5))
    refused = decider.send(StartJob(job_id="Demo/Job"))
    assert (refused.status, refused.error_code) == (
        CommandStatus.REJECTED,
        ErrorCode.TOO_MANY_COMMANDS,
    )
    assert decider.send(GetStatus(job_id="Demo/Job")).status is CommandStatus.COMPLETED
    otto = Principal(user_id="otto", roles=("operator",), via="http")
    running = decider.send(StartJob(job_id="Demo/Job"), otto)
    decider.runs(running.execution_id or "")
    assert decider.send(StopJob(job_id="Demo/Job")).status is CommandStatus.RUNNING
    pass_days(decider, 35, RetentionSettings(ids=5))
    decider.ends(running.execution_id or "")
    assert decider.send(StartJob(job_id="Demo/Job")).status is CommandStatus.RUNNING


def test_stops_that_change_nothing_take_no_more_than_twice_the_ids_and_the_others_always_pass() -> (
    None
):
    decider = Decider(Policy(keeping=RetentionSettings(ids=3)))
    decider.define()
    for _ in range(6):
        assert decider.send(StopJob(job_id="Demo/Job")).status is CommandStatus.COMPLETED
    refused = decider.send(StopJob(job_id="Demo/Job"))
    assert refused.error_code == ErrorCode.TOO_MANY_COMMANDS
    otto = Principal(user_id="otto", roles=("operator",), via="http")
    started = decider.send(StartJob(job_id="Demo/Job"), otto)
    decider.runs(started.execution_id or "")
    assert decider.send(StopJob(job_id="Demo/Job")).status is CommandStatus.RUNNING
    merged = decider.send(StopJob(job_id="Demo/Job"))
    assert merged.error_code == ErrorCode.TOO_MANY_COMMANDS
    assert decider.send(StopJob(job_id="Demo/Job", kill=True)).status is CommandStatus.RUNNING


def test_id_of_what_the_service_died_of_is_remembered_and_that_of_a_refusal_is_not() -> None:
    decider = decider_with(1)
    start = seal(StartJob(job_id="Demo/Job"), OPERATOR, now_ms=decider.clock.now_ms())
    poison = decider.take(msgspec.structs.replace(start, poison="two starts died of it"))
    refused = decider.send(StartJob(job_id="Demo/Unknown"))
    assert poison.status is refused.status is CommandStatus.REJECTED
    pass_days(decider, 8, RetentionSettings())
    assert [decider.table.command(each.id) for each in (poison, refused)] == [None, None]
    assert decider.table.forgotten(poison.id) is not None
    assert decider.table.forgotten(refused.id) is None


def test_when_all_together_have_too_many_ids_only_who_has_more_than_a_part_is_refused() -> None:
    decider = Decider(Policy(keeping=RetentionSettings(ids_in_all=10)))
    decider.define()
    ended(decider, 9, "Demo/Job")
    otto = Principal(user_id="otto", roles=("operator",), via="http")
    first = decider.send(StartJob(job_id="Demo/Job"), otto)
    decider.runs(first.execution_id or "")
    decider.ends(first.execution_id or "")
    assert decider.send(StartJob(job_id="Demo/Job")).error_code == ErrorCode.TOO_MANY_COMMANDS
    assert decider.send(StartJob(job_id="Demo/Job"), otto).status is CommandStatus.RUNNING


def test_reads_are_refused_when_their_answers_come_faster_than_they_go() -> None:
    decider = decider_with(1)
    for _ in range(3):
        decider.send(GetStatus(job_id="Demo/Job"), VIEWER)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(registry, "READS_MAX", 3)
        refused = decider.send(GetStatus(job_id="Demo/Job"), VIEWER)
        assert refused.error_code == ErrorCode.TOO_MANY_COMMANDS
        assert decider.send(GetStatus(job_id="Demo/Job")).status is CommandStatus.COMPLETED


def test_replay_and_snapshot_make_the_same_table_as_forgetting_did() -> None:
    decider = decider_with(30)
    decider.clock.advance_s(8 * DAY_S)
    look(decider, RetentionSettings(executions=4, commands=3))
    ended(decider, 3, "Demo/Job")
    decider.clock.advance_s(8 * DAY_S)
    look(decider, RetentionSettings(executions=4, commands=1))
    pass_days(decider, 33, RetentionSettings(executions=4))
    decider.send(GetStatus(job_id="Demo/Job"), VIEWER)
    replayed = JobTable()
    for published in decider.log:
        replayed.apply(published)
    assert replayed.freeze() == decider.table.freeze()
    encoded = [msgspec.json.encode(part) for part in parts_of(decider.table.freeze())]
    thawed = JobTable.thaw([msgspec.json.decode(p, type=TableContent) for p in encoded])
    assert thawed.freeze() == decider.table.freeze()
    for table in (replayed, thawed):
        for user_id in ("olga", "vera"):
            assert table.ids_of(user_id) == decider.table.ids_of(user_id)
            assert table.without_effect.of(user_id) == decider.table.without_effect.of(user_id)


def test_a_look_at_a_large_past_comes_in_slices_and_batches() -> None:
    decider = decider_with(1)
    [one] = decider.table.freeze().executions
    many = tuple(msgspec.structs.replace(one, id=f"e{n}") for n in range(12_000))
    past = past_of(decider)
    past = Past(msgspec.structs.replace(past.content, executions=many), (), past.now_ms)
    steps = list(to_forget(past, RetentionSettings()))
    assert [step for step in steps if step is None] == [None] * (12_000 // retention.SLICE)
    sizes = [len(step.executions) for step in steps if step is not None]
    assert (sum(sizes), max(sizes)) == (11_900, retention.BATCH_MAX)
    assert next(step for step in steps if step).executions[0] == "e0"


def test_twin_tables_share_the_ids_and_stay_equal() -> None:
    decider = decider_with(5)
    decider.clock.advance_s(8 * DAY_S)
    published = decider.table.twin()
    before = len(decider.log)
    look(decider, RetentionSettings(executions=1))
    assert published.command(next(iter(decider.table.freeze().remembered.users), "")) is None
    for change in decider.log[before:]:
        published.apply(change)
    assert published.freeze() == decider.table.freeze()

"""The map of a follower: whatever is repeated, late or lost, it ends up with the truth."""

from hypothesis import given
from hypothesis import strategies as st

from jobbus.client.frames import (
    Change,
    Frame,
    Hello,
    Reset,
    Snapshot,
    SnapshotEnd,
    decode_frame,
)
from jobbus.client.records import Command, DeletedExecution, Record
from jobbus.client.sse import SseEvent
from jobbus.client.state import StateMap


def command(name: str, version: int) -> Command:
    return Command(command_id=name, status="Running", version=version)


def change(record: Record, type_: str = "command.ended") -> Change:
    return Change(id="e-1", type=type_, subject="", time="", record=record, raw="{}")


def after(*frames: Frame) -> StateMap:
    state = StateMap()
    for frame in frames:
        state.take(frame)
    return state


def versions(state: StateMap) -> dict[str, int]:
    return {key: record.version for key, record in state.records.items()}


def test_only_what_is_newer_counts() -> None:
    state = after(change(command("a", 5)), change(command("a", 4)), change(command("a", 5)))
    assert versions(state) == {"commands/a": 5}
    assert state.take(change(command("a", 5))) == ()
    assert state.take(change(command("a", 6))) == ("commands/a",)


def test_a_reset_forgets_and_the_snapshot_after_it_counts() -> None:
    state = after(change(command("a", 50)), change(command("b", 60)))
    assert set(state.take(Reset(reason="epoch_changed"))) == {"commands/a", "commands/b"}
    state.take(Snapshot(records=(command("a", 3),)))
    state.take(SnapshotEnd(id="f-3", count=1))
    assert versions(state) == {"commands/a": 3}


def test_what_a_whole_snapshot_does_not_name_is_gone() -> None:
    state = after(change(command("a", 1)), change(command("b", 2)))
    state.take(Snapshot(records=(command("b", 2),)))
    assert set(state.records) == {"commands/a", "commands/b"}
    assert state.take(SnapshotEnd(id="e-9")) == ("commands/a",)


def test_a_snapshot_that_was_cut_off_drops_nothing() -> None:
    state = after(change(command("a", 1)), Hello(), Snapshot(records=(command("b", 2),)), Hello())
    assert set(state.records) == {"commands/a", "commands/b"}


def test_late_news_do_not_revive_what_is_gone() -> None:
    gone = DeletedExecution(execution_id="x", version=9)
    state = after(change(gone, "execution.deleted"))
    assert state.take(change(DeletedExecution(execution_id="x", version=8))) == ()
    assert dict(state.records) == {}


def test_a_deleted_execution_is_a_frame_like_any_other() -> None:
    data = (
        '{"id":"e-9","type":"execution.deleted","subject":"executions/x",'
        '"data":{"executionId":"x","version":9}}'
    )
    frame = decode_frame(SseEvent(event="change", data=data, id="e-9"))
    assert isinstance(frame, Change)
    assert frame.record == DeletedExecution(execution_id="x", version=9)


@given(
    st.lists(st.tuples(st.sampled_from("abc"), st.integers(1, 30)), max_size=40),
    st.randoms(use_true_random=False),
)
def test_order_and_repeats_make_no_difference(
    changes: list[tuple[str, int]], random: object
) -> None:
    newest: dict[str, int] = {}
    for name, version in changes:
        newest[f"commands/{name}"] = max(version, newest.get(f"commands/{name}", 0))
    shuffled = [*changes, *changes]
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    assert versions(after(*(change(command(*one)) for one in shuffled))) == newest

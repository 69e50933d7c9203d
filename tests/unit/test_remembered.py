"""Ids of forgotten commands: found as long as they are kept, small, and whole after a snapshot."""

import sys
import uuid

import msgspec
import pytest

from bus.envelope import new_uuid
from bus.model import CommandRecord, CommandStatus
from handlers.decisions import remembered
from handlers.decisions.remembered import Remembered, RememberedContent, as_record


def command(number: int = 0, *, id_: str | None = None, user: str = "olga") -> CommandRecord:
    return CommandRecord(
        id=id_ or new_uuid(1_000_000 + number),
        kind="start",
        user_id=user,
        submitted_ms=1_000_000 + number,
        body_hash=uuid.uuid4().hex,
        status=CommandStatus.COMPLETED,
        processed_ms=1_000_005 + number,
    )


def test_a_taken_command_is_found_with_its_body_and_its_user() -> None:
    store = Remembered()
    commands = [command(n, user=f"user{n % 3}") for n in range(1000)]
    store.take(1, commands, 0)
    for one in commands:
        found = store.find(one.id)
        assert found is not None
        assert (found.body_hash, found.user_id) == (one.body_hash, one.user_id)
        assert as_record(found).is_final
    assert store.find(new_uuid(5)) is None
    assert store.find("not an id") is None


def test_the_oldest_ids_go_first_and_their_room_is_used_again() -> None:
    store = Remembered()
    commands = [command(n) for n in range(30_000)]
    for seq, begin in enumerate(range(0, 30_000, 500), 1):
        store.take(seq, commands[begin : begin + 500], max(0, begin - 1000))
    assert (len(store), store.first) == (1500, 28_500)
    assert [store.find(one.id) is not None for one in commands] == [False] * 28_500 + [True] * 1500
    # Every bucket that was written to again has lost its dead entries.
    assert store.size_bytes < 30_000 * 52 // 3


def test_an_event_that_both_tables_take_in_counts_once() -> None:
    store = Remembered()
    first, second = command(1), command(2)
    store.take(7, [first], 0)
    store.take(8, [second], 1)
    store.take(7, [first], 0)
    store.take(8, [second], 1)
    assert (len(store), store.find(first.id)) == (1, None)


def test_parts_of_a_snapshot_make_the_same_store() -> None:
    store = Remembered()
    commands = [command(n, user=f"user{n % 5}") for n in range(5000)]
    store.take(3, commands, 700)
    encoded = [msgspec.json.encode(p) for p in remembered.parts_of(store.freeze(), 10_000)]
    assert len(encoded) > 10
    again = Remembered()
    for part in encoded:
        again.thaw(msgspec.json.decode(part, type=RememberedContent))
    again.thawed()
    assert [again.find(one.id) for one in commands] == [store.find(one.id) for one in commands]
    assert list(again.times_ms()) == list(store.times_ms())
    again.take(4, [command(9999)], 701)
    assert (len(again), again.first) == (len(store), 701)


def test_an_id_takes_less_than_64_bytes() -> None:
    store = Remembered()
    count = 50_000
    store.take(1, [command(n) for n in range(count)], 0)
    buckets = sum(sys.getsizeof(bucket) for bucket in store.freeze().entries)
    assert (buckets + 12 * count) / count < 64


@pytest.mark.parametrize("jump_ms", [0, 10**9])
def test_a_writers_clock_does_not_carry_the_time_of_an_id_away(jump_ms: int) -> None:
    store = Remembered()
    one = msgspec.structs.replace(command(), submitted_ms=2_000_000 + jump_ms)
    store.take(1, [one], 0)
    assert list(store.times_ms()) == [one.processed_ms]


def test_counts_are_each_principals_own_also_after_a_snapshot_and_what_is_dropped() -> None:
    store = Remembered()
    store.take(1, [command(n, user="ann") for n in range(3)], 0)
    store.take(2, [command(n, user="bob") for n in range(2)], 0)
    again = Remembered()
    for part in remembered.parts_of(store.freeze(), 100):
        again.thaw(part)
    again.thawed()
    for one in (store, again):
        assert (one.count_of("ann"), one.count_of("bob"), one.count_of("eve")) == (3, 2, 0)
        one.take(3, [], 4)
        assert (one.count_of("ann"), one.count_of("bob"), one.principals) == (0, 1, 1)


def test_names_of_principals_without_ids_take_no_room() -> None:
    store = Remembered()
    for number in range(1000):
        store.take(number + 1, [command(number, user=f"user{number}")], number)
    one = command(1000, user="last")
    store.take(2000, [one], 1000)
    assert len(store.freeze().users) <= 3
    found = store.find(one.id)
    assert found is not None
    assert found.user_id == "last"

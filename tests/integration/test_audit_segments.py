"""The audit on the real disk: appended, numbered, cut by days, readable after any tear."""

import asyncio
import errno
import json
import os
from pathlib import Path

import msgspec
import pytest

from bus.audit import COMMAND, AuditEntry, AuditQuery
from bus.clock import from_rfc3339, rfc3339
from bus.errors import StorageFailed
from bus.retention_settings import DAY_MS
from handlers.audit.entries.fold import AuditFold
from handlers.audit.reading import day_of, page, pieces, segments_of
from handlers.audit.segments import AuditSegments
from handlers.audit.trail import Audit
from tests.fakes import ManualClock

NOON = from_rfc3339("2026-03-01T12:00:00Z")
ALL = AuditQuery()


def entries(number: int, at_ms: int = NOON, seq: int = 1, **fields: str) -> list[AuditEntry]:
    given = {"actor": "ada", "action": "start", **fields}
    return [
        AuditEntry(at=rfc3339(at_ms), kind="note", seq=seq + i, **given)  # type: ignore[arg-type]
        for i in range(number)
    ]


def acts(number: int, seq: int) -> list[AuditEntry]:
    return [msgspec.structs.replace(e, kind=COMMAND) for e in entries(number, seq=seq)]


def numbers(directory: Path, query: AuditQuery = ALL, limit: int = 1000) -> list[int]:
    found = page(directory, query, limit)
    return [json.loads(bytes(item))["n"] for item in found.items]


def test_a_restart_goes_on_with_numbers_and_knows_the_last_event(tmp_path: Path) -> None:
    first = AuditSegments.open(tmp_path)
    first.append(entries(3, seq=10), NOON)
    first.close()
    again = AuditSegments.open(tmp_path)
    assert (again.next_n, again.last_seq) == (4, 12)
    again.append(entries(1, seq=20), NOON)
    again.close()
    assert numbers(tmp_path) == [4, 3, 2, 1]
    assert {path.stat().st_mode & 0o777 for path in tmp_path.iterdir()} == {0o600}


@pytest.mark.parametrize("cut", [1, 20, 60])
def test_a_torn_line_is_passed_over_and_its_number_given_again(tmp_path: Path, cut: int) -> None:
    torn = AuditSegments.open(tmp_path)
    torn.append(entries(3), NOON)
    torn.close()
    [path] = tmp_path.iterdir()
    path.write_bytes(path.read_bytes()[:-cut])
    again = AuditSegments.open(tmp_path)
    assert (again.next_n, again.last_seq) == (3, 2)
    again.append(entries(1), NOON)
    again.close()
    assert numbers(tmp_path) == [3, 2, 1]


def test_damage_in_the_middle_hides_its_line_only(tmp_path: Path) -> None:
    written = AuditSegments.open(tmp_path)
    written.append(entries(3), NOON)
    written.close()
    [path] = tmp_path.iterdir()
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(lines[0] + b"x" + lines[1][1:] + lines[2])
    assert numbers(tmp_path) == [3, 1]


def test_days_and_size_begin_new_segments_and_old_days_go(tmp_path: Path) -> None:
    written = AuditSegments.open(tmp_path, segment_bytes=300)
    for day in range(4):
        for _ in range(3):
            written.append(entries(2, NOON + day * DAY_MS), NOON + day * DAY_MS)
    written.close()
    names = [path.name for path in segments_of(tmp_path)]
    assert names[0] == "20260301-000000000001.log"
    assert len({name[:8] for name in names}) == 4
    assert len(names) > 4
    assert AuditSegments.open(tmp_path).drop_before(NOON + 2 * DAY_MS, NOON + 5 * DAY_MS) > 0
    kept = numbers(tmp_path)
    assert kept[0] == 24
    assert 13 in kept
    assert 1 not in kept


def test_the_newest_segment_stays_however_old_it_is(tmp_path: Path) -> None:
    written = AuditSegments.open(tmp_path)
    written.append(entries(1), NOON)
    written.close()
    assert written.drop_before(NOON + 1000 * DAY_MS, NOON + 1001 * DAY_MS) == 0
    assert AuditSegments.open(tmp_path).next_n == 2


@pytest.mark.parametrize(
    ("begun", "left"),
    [
        ((0, 4000, 1, 9, 10), (1, 9, 10)),
        ((9, -20_000, 10), (9, -20_000, 10)),
        ((0, 4000), (0, 4000)),
    ],
    ids=["ahead", "behind", "ahead now"],
)
def test_a_segment_of_a_wrong_clock_keeps_and_takes_no_others(
    tmp_path: Path, begun: tuple[int, ...], left: tuple[int, ...]
) -> None:
    for day in begun:
        written = AuditSegments.open(tmp_path)
        written.append(entries(1), NOON + day * DAY_MS)
        written.close()
    AuditSegments.open(tmp_path).drop_before(NOON + 5 * DAY_MS, NOON + 10 * DAY_MS)
    kept = [path.name[:8] for path in segments_of(tmp_path)]
    assert kept == [day_of(NOON + day * DAY_MS) for day in left]


async def test_a_clock_that_is_not_trusted_makes_no_entry_too_old(tmp_path: Path) -> None:
    for day in range(3):
        written = AuditSegments.open(tmp_path)
        written.append(entries(1), NOON + day * DAY_MS)
        written.close()
    clock, asked = ManualClock(NOON + 1000 * DAY_MS), asyncio.Event()

    def is_trusted() -> bool:
        asked.set()
        return False

    segments = AuditSegments.open(tmp_path)
    audit = Audit(tmp_path, segments, AuditFold(), (), clock, is_trusted=is_trusted)
    running = asyncio.create_task(audit.run())
    async with asyncio.timeout(10):
        await asked.wait()
    running.cancel()
    await asyncio.wait([running])
    await audit.aclose()
    assert len(segments_of(tmp_path)) == 3


def test_a_full_disk_leaves_no_half_line_and_a_second_try_writes_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written = AuditSegments.open(tmp_path)
    written.append(entries(2), NOON)
    real, left = os.write, [30]

    def scarce(descriptor: int, data: memoryview) -> int:
        if not left[0]:
            raise OSError(errno.ENOSPC, "full")
        part = data[: left[0]]
        left[0] -= len(part)
        return real(descriptor, part)

    monkeypatch.setattr(os, "write", scarce)
    with pytest.raises(OSError, match="full"):
        written.append(entries(2), NOON)
    monkeypatch.setattr(os, "write", real)
    written.append(entries(2), NOON)
    written.close()
    assert numbers(tmp_path) == [4, 3, 2, 1]


def test_questions_are_answered_by_actor_job_action_and_time(tmp_path: Path) -> None:
    written = AuditSegments.open(tmp_path)
    written.append(entries(1, actor="ada"), NOON)
    written.append(entries(1, actor="bob", job="A/J"), NOON)
    written.append(entries(1, NOON + DAY_MS, action="stop"), NOON + DAY_MS)
    written.close()
    assert numbers(tmp_path, AuditQuery(actors=frozenset({"bob"}))) == [2]
    assert numbers(tmp_path, AuditQuery(jobs=frozenset({"A/J"}))) == [2]
    assert numbers(tmp_path, AuditQuery(actions=frozenset({"stop", "start"}))) == [3, 2, 1]
    assert numbers(tmp_path, AuditQuery(since_ms=NOON + 1)) == [3]
    assert numbers(tmp_path, AuditQuery(until_ms=NOON + DAY_MS)) == [2, 1]
    assert numbers(tmp_path, AuditQuery(before_n=3)) == [2, 1]


async def test_the_export_is_in_order_and_in_pieces(tmp_path: Path) -> None:
    written = AuditSegments.open(tmp_path, segment_bytes=500)
    for _ in range(10):
        written.append(entries(5), NOON)
    written.close()
    found = [piece async for piece in pieces(tmp_path, ALL, 200)]
    assert len(found) > 5
    numbers = [json.loads(line)["n"] for line in b"".join(found).splitlines()]
    assert numbers == list(range(1, 51))


# -- what a crash leaves -------------------------------------------------------------------------


def test_behind_a_hole_only_what_is_there_counts_as_written(tmp_path: Path) -> None:
    written = AuditSegments.open(tmp_path)
    written.append(acts(9, seq=11), NOON)
    written.close()
    [path] = tmp_path.iterdir()
    lines = path.read_bytes().splitlines(keepends=True)
    lost = bytes(len(lines[4]) + len(lines[5]))  # pages that never reached the disk
    path.write_bytes(b"".join((*lines[:4], lost, *lines[6:])))
    past = AuditSegments.open(tmp_path).resume_point
    assert (past.next_n, past.written_until) == (10, 14)
    assert past.written_behind == {18, 19}  # the line of 17 begins in the hole: it cannot be read


def test_who_dies_while_a_hole_is_filled_fills_the_rest_of_it_later(tmp_path: Path) -> None:
    written = AuditSegments.open(tmp_path)
    written.append(acts(9, seq=11), NOON)
    written.close()
    [path] = tmp_path.iterdir()
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join((*lines[:2], *lines[6:])))
    filling = AuditSegments.open(tmp_path)
    assert filling.resume_point.written_until == 12
    filling.append(acts(2, seq=13), NOON)
    filling.close()
    past = AuditSegments.open(tmp_path).resume_point
    assert past.written_until == 14
    assert past.written_behind == {17, 18, 19}


def test_a_failed_sync_is_never_taken_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    segments = AuditSegments.open(tmp_path)
    segments.append(acts(1, seq=1), NOON)
    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", _refused)
        with pytest.raises(StorageFailed, match="could not be synced"):
            segments.sync()
    with pytest.raises(StorageFailed):  # now the disk would report success for what it lost
        segments.sync()


def _refused(_: int) -> None:
    raise OSError(errno.EIO, os.strerror(errno.EIO))

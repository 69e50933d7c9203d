"""The held-back room on real small disks: it is given as files that have it, to those in need."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from bus.audit import AuditQuery
from bus.errors import NoSpace
from bus.files import replace_file, write_new
from bus.layout import DataLayout
from bus.reserve import Reserve
from bus.reserve_spares import SPARE_BYTES, SPARES, Need, give_back, make_way, take
from handlers.audit.reading import page
from handlers.audit.segments import AuditSegments
from handlers.journal.journal import Journal
from jobbus.service.instance import prepare
from tests.integration.test_audit_segments import NOON, entries
from tests.journal_fixture import NOW_MS, record, reopen, seqs
from tests.small_disk import Filler, mounted

ROOMY = "size=90m,nr_inodes=4000,mode=0700"


@pytest.fixture
def layout(tmp_path: Path) -> Iterator[DataLayout]:
    """A data directory on a small disk, with its reserve."""
    with mounted(tmp_path, ROOMY) as place:
        layout = DataLayout(place / "data")
        prepare(layout)
        assert Reserve(layout).hold()
        yield layout


BYTES_ONLY = pytest.mark.parametrize("filler", [False], indirect=True, ids=["bytes"])


@pytest.fixture(params=[False, True], ids=["bytes", "inodes"])
def filler(layout: DataLayout, request: pytest.FixtureRequest) -> Filler:
    """The disk of `layout` is full."""
    filler = Filler(layout.root.parent / "others")
    filler.fill(inodes=request.param)
    return filler


@contextmanager
def opened(folder: Path) -> Iterator[int]:
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        yield handle
    finally:
        os.close(handle)


def spares(folder: Path) -> int:
    return len(list((folder / ".reserve").glob("spare-*")))


def test_spares_take_what_nothing_else_takes_however_greedy_the_others_are(
    layout: DataLayout, filler: Filler
) -> None:
    data = b"x" * SPARE_BYTES
    with opened(layout.status) as inside:
        for number in range(20):
            filler.go_on()
            with pytest.raises(OSError, match="No space"):
                write_new(f"{number}.json", inside, data)
            assert not (layout.status / f"{number}.json").exists()
            write_new(f"{number}.json", inside, data, need=Need.STOP, finish=os.fsync)
    assert {path.read_bytes() for path in layout.status.iterdir()} == {data}
    assert {path.stat().st_mode & 0o777 for path in layout.status.iterdir()} == {0o600}
    assert spares(layout.root) == SPARES - 20


@BYTES_ONLY
def test_what_is_larger_than_a_spare_is_refused_and_leaves_nothing(
    layout: DataLayout, filler: Filler
) -> None:
    filler.go_on()
    with opened(layout.status) as inside, pytest.raises(OSError, match="No space"):
        write_new("large.json", inside, bytes(1 << 24), need=Need.STOP)
    assert list(layout.status.iterdir()) == []


def test_who_needs_spares_less_leaves_some_to_who_needs_them_more(layout: DataLayout) -> None:
    with opened(layout.status) as inside:
        for need in (Need.PROJECTION, Need.RECORD, Need.STOP):
            taken = 0
            while (handle := take(f"{need.name}-{taken}", inside, need)) is not None:
                os.close(handle)
                taken += 1
            assert spares(layout.root) == need
        assert not make_way(inside)


def test_a_reserve_that_another_account_made_is_none_of_ours(
    layout: DataLayout, filler: Filler
) -> None:
    planted = layout.queue / ".reserve"
    for path in (layout.root / ".reserve").iterdir():
        path.unlink()
    filler.go_on()
    planted.parent.chmod(0o1777)
    (layout.root / ".reserve").rename(planted)
    planted.chmod(0o777)
    with opened(layout.queue) as inside:
        assert take("x.json", inside, Need.STOP) is None


def test_a_file_that_is_not_ours_alone_is_no_spare(layout: DataLayout) -> None:
    place = layout.root / ".reserve"
    for path in place.iterdir():
        path.unlink()
    (place / "spare-000").symlink_to("/etc/passwd")
    (place / "spare-001").touch()
    (place / "second name").hardlink_to(place / "spare-001")
    with opened(layout.status) as inside:
        assert take("x.json", inside, Need.STOP) is None
    assert list(layout.status.iterdir()) == []


def test_what_is_used_is_taken_back_when_there_is_room_and_not_before(
    layout: DataLayout, filler: Filler
) -> None:
    reserve = Reserve(layout)
    with opened(layout.status) as inside:
        write_new("a.json", inside, b"{}", need=Need.STOP)
    assert (reserve.hold(), reserve.is_held) == (False, False)
    filler.let_go()
    (layout.root / ".reserve" / "unfinished").touch()  # a death left it
    assert (reserve.hold(), reserve.is_held) == (True, True)
    assert not (layout.root / ".reserve" / "unfinished").exists()


def test_spares_that_are_given_back_last_however_many_files_come_and_go(
    layout: DataLayout, filler: Filler
) -> None:
    with opened(layout.queue) as inside:
        for number in range(2 * SPARES):
            filler.go_on()
            write_new("a.json", inside, b"x" * (1 + number % 600), need=Need.RECORD)
            assert give_back("a.json", inside)
        assert os.listdir(layout.queue) == [".tmp"]
        filler.go_on()
        write_new("b.json", inside, b"{}", need=Need.STOP)
        assert (layout.queue / "b.json").read_bytes() == b"{}"


def test_what_never_was_a_spare_or_is_not_missing_is_not_given_back(
    layout: DataLayout,
) -> None:
    (layout.queue / "small.json").write_bytes(b"{}")
    (layout.queue / "large.json").write_bytes(bytes(SPARE_BYTES))
    with opened(layout.queue) as inside:
        assert not give_back("small.json", inside)
        assert not give_back("large.json", inside)  # the reserve is whole
    assert len(os.listdir(layout.queue)) == 3


def test_each_file_system_has_spares_of_its_own(layout: DataLayout) -> None:
    with mounted(layout.output, ROOMY):
        reserve = Reserve(layout)
        assert not reserve.is_held
        assert reserve.hold()
        assert spares(layout.output) == spares(layout.root) == SPARES
        filler = Filler(layout.output / "others")
        filler.fill(inodes=False)
        folder = layout.execution("one").root
        with pytest.raises(OSError, match="No space"), opened(layout.output) as inside:
            write_new("x", inside, b"x")
        folder.mkdir()
        with opened(folder) as inside:
            write_new("control", inside, b"{}", need=Need.STOP)
        assert (spares(layout.output), spares(layout.root)) == (SPARES - 1, SPARES)


def test_private_files_are_replaced_on_a_full_disk(layout: DataLayout, filler: Filler) -> None:
    for content in (b"first", b"second"):
        filler.go_on()
        replace_file(layout.tokens, content)
        assert layout.tokens.read_bytes() == content


@BYTES_ONLY
def test_journal_goes_on_in_its_ballast_which_no_other_program_can_take(
    layout: DataLayout, filler: Filler
) -> None:
    filler.let_go()
    journal = Journal.open(layout.journal, now_ms=NOW_MS, segment_bytes=1 << 20).journal
    assert journal.ballast.is_held
    journal.append([record(1)])
    filler.go_on()
    seq = 2
    while seq < 1 << 20:
        filler.go_on()
        try:
            journal.append([record(seq, size=1000)])
        except NoSpace:
            break
        seq += 1000
    assert not (layout.journal / ".ballast").exists()
    assert sum(path.stat().st_size for path in journal.segments) > 8 << 20
    found = reopen(layout.journal)
    assert found.continuous
    assert seqs(found)[-1] == seq - 1000
    filler.let_go()
    journal.append([record(seq)])
    assert journal.ballast.hold()


def test_audit_goes_on_and_begins_again_on_a_full_disk(layout: DataLayout, filler: Filler) -> None:
    filler.let_go()
    first = AuditSegments.open(layout.audit)
    first.append(entries(1), NOON)
    filler.go_on()
    first.append(entries(50, seq=2), NOON)
    filler.go_on()
    first.append(entries(50, seq=52), NOON)
    again = AuditSegments.open(layout.audit)  # the first one's service died
    filler.go_on()
    again.append(entries(10, seq=102), NOON)
    assert len(page(layout.audit, AuditQuery(), 1000).items) == 111


def test_segments_of_the_audit_give_back_what_they_did_not_use(layout: DataLayout) -> None:
    died = AuditSegments.open(layout.audit)
    died.append(entries(1), NOON)
    [path] = layout.audit.iterdir()
    assert path.stat().st_blocks * 512 > 100_000
    AuditSegments.open(layout.audit)
    assert path.stat().st_blocks * 512 <= 4096
    ended = AuditSegments.open(layout.audit)
    ended.append(entries(1), NOON)
    ended.close()
    assert all(path.stat().st_blocks * 512 <= 4096 for path in layout.audit.iterdir())

"""A journal in a real folder, and short ways to ask what it holds."""

from pathlib import Path

from bus.events import JobRemoved
from handlers.journal.format import Record
from handlers.journal.journal import Journal, Recovered
from handlers.journal.snapshots import SnapshotHead

NOW_MS = 1_800_000_000_000
LONG_AGO_MS = NOW_MS - 3_600_000


def record(
    seq: int, *, reserved: int | None = None, projected: int | None = None, size: int = 1
) -> Record:
    """One decision with `size` events."""
    events = tuple(JobRemoved(job_id=f"Demo/J{seq + n}") for n in range(size))
    return Record(seq=seq, at_ms=NOW_MS, events=events, reserved=reserved, projected=projected)


def reopen(directory: Path, *, segment_bytes: int = 16 << 20, keep_ms: int = 900_000) -> Recovered:
    """The journal as a start finds it; without ballast, which has tests of its own."""
    return Journal.open(
        directory, now_ms=NOW_MS, segment_bytes=segment_bytes, keep_ms=keep_ms, ballast_bytes=0
    )


def written(directory: Path, last: int, *, segment_bytes: int = 16 << 20) -> Recovered:
    """A journal with the decisions 1 to `last`, each synced by itself, and not closed."""
    found = reopen(directory, segment_bytes=segment_bytes)
    for seq in range(1, last + 1):
        found.journal.append([record(seq)])
    return found


def snapshot(journal: Journal, seq: int, content: bytes, at_ms: int = LONG_AGO_MS) -> None:
    journal.write_snapshot(SnapshotHead(seq=seq, at_ms=at_ms), [content])


def seqs(found: Recovered) -> list[int]:
    """The numbers of the decisions to be replayed."""
    return [each.seq for each in found.records if each.events]


def snapshot_of(found: Recovered) -> list[bytes] | None:
    return None if found.snapshot is None else list(found.snapshot)


def log_files(directory: Path) -> list[Path]:
    return sorted(directory.glob("*.log"))


def content_of(path: Path) -> bytes:
    """The lines of a segment, without the zeros prepared behind them."""
    return path.read_bytes().rstrip(b"\0")


def patch(path: Path, offset: int, content: bytes) -> None:
    """Overwrites in place, as a disk does: the file stays the same file."""
    with path.open("r+b") as file:
        file.seek(offset)
        file.write(content)

"""Reading the audit's segments: what is there, and what of it a question is about.

A page is read in a thread of its caller; an export reads by itself, piece by piece."""

from collections.abc import AsyncGenerator, Iterable, Iterator
from datetime import UTC, datetime
from pathlib import Path

import aiofiles
import msgspec

from bus.audit import AuditEntry, AuditPage, AuditQuery
from bus.clock import rfc3339
from bus.retention_settings import DAY_MS
from bus.threads import READS
from handlers.journal.format import Torn, unframe_line

LINE_MAX = 1024 * 1024
"""Bytes of a line, with plenty to spare."""

LINES_A_PAGE = 50_000
"""Lines that one question looks at before it answers with what it found."""

_decoder = msgspec.json.Decoder(AuditEntry)


def page(directory: Path, query: AuditQuery, limit: int) -> AuditPage:
    """The newest `limit` entries that are wanted, newest first."""
    items: list[msgspec.Raw] = []
    looked = 0
    for path in reversed(segments_of(directory)):
        if not _may_hold(path, query):
            continue
        for line in reversed(lines_of(path)):
            entry = entry_in(line)
            if entry is None or (query.before_n is not None and entry.n >= query.before_n):
                continue
            looked += 1
            if is_wanted(entry, query):
                items.append(msgspec.Raw(unframe_line(line)))
            if len(items) == limit or looked == LINES_A_PAGE:
                return AuditPage(items=tuple(items), next=entry.n if entry.n > 1 else None)
    return AuditPage(items=tuple(items), next=None)


async def pieces(directory: Path, query: AuditQuery, size: int) -> AsyncGenerator[bytes, None]:
    """All wanted entries, oldest first, as NDJSON: those of about `size` bytes of a file each."""
    for path in await READS.run(segments_of, directory):
        if not _may_hold(path, query):
            continue
        try:
            async with aiofiles.open(path, "rb", buffering=0, executor=READS.executor()) as file:
                rest = b""
                while block := await file.read(size):
                    *lines, rest = (rest + block).split(b"\n")
                    rest = rest[:LINE_MAX]  # more without an end is no line of ours
                    if piece := b"".join(_wanted(lines, query)):
                        yield piece
        except FileNotFoundError:
            continue  # dropped meanwhile


def _wanted(lines: Iterable[bytes], query: AuditQuery) -> Iterator[bytes]:
    """The wanted entries of whole lines, as NDJSON."""
    for line in lines:
        entry = entry_in(line + b"\n")
        if entry is not None and is_wanted(entry, query):
            yield unframe_line(line + b"\n") + b"\n"


def is_wanted(entry: AuditEntry, query: AuditQuery) -> bool:
    """Whether the question asks for this one."""
    return (
        (not query.actors or entry.actor in query.actors)
        and (not query.jobs or entry.job in query.jobs)
        and (not query.actions or entry.action in query.actions)
        and (query.since_ms is None or entry.at >= rfc3339(query.since_ms))
        and (query.until_ms is None or entry.at < rfc3339(query.until_ms))
    )


def segments_of(directory: Path) -> list[Path]:
    """The segments in order of their entries, whatever the clock did."""
    found = [path for path in directory.glob("*.log") if _is_name(path.stem)]
    return sorted(found, key=lambda path: int(path.stem[9:]))


def _is_name(stem: str) -> bool:
    day, dash, number = stem.partition("-")
    return len(day) == 8 and day.isdecimal() and bool(dash) and number.isdecimal()


def _may_hold(path: Path, query: AuditQuery) -> bool:
    """By its name, with a day to spare on both sides: entries hold the time of the act, not of the
    write."""
    if query.before_n is not None and int(path.stem[9:]) >= query.before_n:
        return False
    day = path.name[:8]
    if query.since_ms is not None and day < day_of(query.since_ms - DAY_MS):
        return False
    return query.until_ms is None or day <= day_of(query.until_ms + 2 * DAY_MS)


def lines_of(path: Path) -> list[bytes]:
    try:
        return path.read_bytes().splitlines(keepends=True)
    except FileNotFoundError:
        return []  # dropped meanwhile


def entry_in(line: bytes) -> AuditEntry | None:
    if not line.endswith(b"\n"):
        return None
    try:
        return _decoder.decode(unframe_line(line))
    except (Torn, msgspec.MsgspecError):
        return None


def day_of(at_ms: int) -> str:
    return f"{datetime.fromtimestamp(max(0, at_ms) / 1000, tz=UTC):%Y%m%d}"

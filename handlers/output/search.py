"""Questions about an output that is open: its tail, its lines, where a text stands. Blocking IO."""

import threading
from collections.abc import Iterator

from bus.ports import OutputHits, OutputLine, OutputPage
from handlers.output.index import RecordCursor
from handlers.output.lines import LINE_MAX, Piece, Rest, decode, split
from handlers.output.output_files import OutputFiles

PAGE_MIN = 4 * LINE_MAX
PAGE_MAX = 1024 * 1024
PAGE_LINES_MAX = 10_000
"""A page ends after that many pieces: a MiB of empty lines would be a million records."""

TAIL_BYTES_MAX = 64 * 1024 * 1024
"""How far back the beginning of the last lines is looked for; lines may be endless."""

CARRY_MAX = 1024 * 1024
"""A line longer than this is searched in parts."""


def offset_of_tail(files: OutputFiles, lines: int) -> int:
    """Where the last `lines` lines begin, an open last line being one.

    Never before a gap, and not further back than `TAIL_BYTES_MAX`. Lines that were cut off at the
    end are no lines any more: the last ones are those before that gap.
    """
    if lines <= 0:
        return files.end
    end = lowest = files.kept_end
    wanted = lines + (files.byte_before(end) == b"\n")  # that newline ends the last line
    for offset, block in files.backward(end):
        newlines = block.count(b"\n")
        if newlines >= wanted:
            at = len(block)
            for _ in range(wanted):
                at = block.rindex(b"\n", 0, at)
            return offset + at + 1
        wanted -= newlines
        lowest = offset
        if end - lowest >= TAIL_BYTES_MAX:
            break
    return lowest


def page_of(
    files: OutputFiles, start: int, limit_bytes: int, *, is_live: bool, stream: str | None
) -> OutputPage:
    """See `bus.ports.OutputLineReader.page`."""
    chunk = files.read(start, min(max(limit_bytes, PAGE_MIN), PAGE_MAX))
    if not chunk.data:
        return OutputPage(lines=(), next=chunk.end, end=files.end, gap=chunk.gap)
    if chunk.end < files.end:
        # A line cannot go on behind a gap: what stands before one is as whole as it will ever be.
        rest = Rest.CUT if files.kept_from(chunk.end) == chunk.end else Rest.FINAL
    else:
        rest = Rest.OPEN if is_live else Rest.FINAL
    before = files.byte_before(chunk.start)
    continued = chunk.start > 0 and before not in (b"\n", b"\r")
    number = files.line_at(chunk.start)
    pieces = split(chunk.data, chunk.start, number, continued=continued, rest=rest)
    known_until = files.index.covered if is_live and files.index.is_valid else files.end
    lines: list[OutputLine] = []
    reached, after = chunk.start, None
    cursor = RecordCursor(files.index)
    for count, piece in enumerate(pieces, 1):
        # What the index does not cover yet may turn out to be of the other stream.
        is_partial = piece.is_open or piece.end > known_until
        lines.extend(_lines(piece, cursor, is_partial=is_partial))
        reached = piece.end
        if is_partial and after is None:
            after = piece.at
        if count >= PAGE_LINES_MAX or reached - chunk.start >= limit_bytes:
            break
    else:
        reached = _reached(reached, chunk.start, chunk.end, rest)
    return OutputPage(
        lines=tuple(line for line in lines if stream in (None, line.stream)),
        next=reached if after is None else after,
        end=files.end,
        gap=chunk.gap,
    )


def _reached(reached: int, start: int, end: int, rest: Rest) -> int:
    """Where to go on after all pieces of a window; never where it began."""
    return end if reached == start or rest is not Rest.CUT else reached


def _lines(piece: Piece, cursor: RecordCursor, *, is_partial: bool) -> Iterator[OutputLine]:
    """The piece as lines of one stream each."""
    spans = list(cursor.spans(piece.shown, piece.shown + len(piece.text)))
    starts = [span.start for span in spans[1:]]
    for index, (span, end) in enumerate(
        zip(spans, [*starts, piece.shown + len(piece.text)], strict=True)
    ):
        text = piece.text[span.start - piece.shown : end - piece.shown]
        is_last = index == len(spans) - 1
        yield OutputLine(
            number=piece.number,
            at=piece.at if index == 0 else span.start,
            end=piece.end if is_last else end,
            text=decode(text, is_open=piece.is_open and is_last),
            stream=span.stream,
            time_ms=span.time_ms,
            partial=is_partial,
            continued=piece.continued or index > 0,
            more=piece.more or not is_last,
        )


def search(
    files: OutputFiles,
    needle: str,
    limit: int,
    *,
    start: int,
    stream: str | None,
    abandoned: threading.Event,
) -> OutputHits:
    """See `bus.ports.OutputLineReader.search`; ends early, with what it has, once `abandoned`."""
    wanted = needle.encode("utf-8", "replace")
    if not wanted or b"\n" in wanted:
        return OutputHits(lines=(), next=files.end, end=files.end)
    cursor = RecordCursor(files.index)
    found: list[OutputLine] = []
    for base, number, buffer in _whole_lines(files, start, len(wanted) - 1):
        if abandoned.is_set() and base > start:  # who asks again from there gets on, at the slowest
            return OutputHits(lines=tuple(found), next=base, end=files.end)
        for line in _matches(buffer, base, number, wanted, cursor):
            repeated = bool(found) and found[-1].number == line.number
            if repeated or stream not in (None, line.stream):
                continue
            if len(found) == limit:
                return OutputHits(lines=tuple(found), next=line.at, end=files.end)
            found.append(line)
    return OutputHits(lines=tuple(found), next=files.end, end=files.end)


def _whole_lines(files: OutputFiles, start: int, overlap: int) -> Iterator[tuple[int, int, bytes]]:
    """The output in buffers that end at a line's end: offset, number of the first line, bytes.

    A line over `CARRY_MAX` comes in parts that overlap by `overlap` bytes.
    """
    carry, number, expected = b"", files.line_at(start) if start else 1, start
    for offset, block in files.forward(start, files.end):
        if offset != expected:
            if carry:
                yield expected - len(carry), number, carry
            carry, number = b"", files.line_at(offset)
        expected = offset + len(block)
        buffer = carry + block
        base = expected - len(buffer)
        cut = kept = buffer.rfind(b"\n") + 1
        if not cut and len(buffer) > CARRY_MAX:
            cut = len(buffer)
            kept = cut - overlap
        if cut:
            yield base, number, buffer[:cut]
        number += buffer.count(b"\n")
        carry = buffer[kept:]
    if carry:
        yield expected - len(carry), number, carry


def _matches(
    buffer: bytes, base: int, number: int, wanted: bytes, cursor: RecordCursor
) -> Iterator[OutputLine]:
    """The lines of `buffer` that hold `wanted`, in order."""
    counted = 0
    at = buffer.find(wanted)
    while at >= 0:
        begin = buffer.rfind(b"\n", 0, at) + 1
        end = buffer.find(b"\n", at)
        end = len(buffer) if end < 0 else end
        number += buffer.count(b"\n", counted, begin)
        counted = begin
        redraw = max(buffer.rfind(b"\r", begin, at) + 1, begin)
        redraw_end = buffer.find(b"\r", at, end)
        low, high = _around(at, redraw, end if redraw_end < 0 else redraw_end)
        (span,) = list(cursor.spans(base + at, base + at + 1))
        yield OutputLine(
            number=number,
            at=base + begin,
            end=base + min(end + 1, len(buffer)),
            text=decode(buffer[low:high], is_open=False),
            stream=span.stream,
            time_ms=span.time_ms,
            continued=low > redraw,
        )
        at = buffer.find(wanted, end)


def _around(at: int, low: int, high: int) -> tuple[int, int]:
    """At most `LINE_MAX` bytes between `low` and `high` that show what stands at `at`."""
    if high - low > LINE_MAX:
        low = max(low, min(at - LINE_MAX // 4, high - LINE_MAX))
        high = min(high, low + LINE_MAX)
    return low, high

"""Bytes of output become text that is whole at its edges. No IO."""

import codecs

from bus.ports import OutputChunk


def whole_text(chunk: OutputChunk, *, at_end: bool) -> tuple[str, int]:
    """The chunk's text and the offset after it.

    A character cut by the chunk's end is left for the next one, unless nothing will follow
    (`at_end`); what is no UTF-8 becomes U+FFFD.
    """
    decoder = codecs.getincrementaldecoder("utf-8")("replace")
    text = decoder.decode(chunk.data, final=at_end)
    kept_back, _ = decoder.getstate()
    return text, chunk.end - len(kept_back)


def lines_of(chunk: OutputChunk) -> list[dict[str, object]]:
    """The chunk line by line with offsets; `partial` marks a last line without its newline.

    Only LF ends a line: `bytes.splitlines` would break at carriage returns as well.
    """
    lines: list[dict[str, object]] = []
    pieces = chunk.data.split(b"\n")
    at = chunk.start
    for index, raw in enumerate(pieces):
        last = index == len(pieces) - 1
        if last and not raw:
            break
        end = at + len(raw) + (0 if last else 1)
        line: dict[str, object] = {"at": at, "end": end, "text": raw.decode("utf-8", "replace")}
        lines.append(line | {"partial": True} if last else line)
        at = end
    return lines

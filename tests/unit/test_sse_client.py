"""The parser of event streams: the standard's rules, any cut into chunks, bounded memory."""

import itertools
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobbus.client.sse import EventTooLarge, SseEvent, SseParser


def parsed(*chunks: bytes) -> list[tuple[str, str, str]]:
    parser = SseParser()
    return [(e.event, e.data, e.id) for chunk in chunks for e in parser.feed(chunk)]


@pytest.mark.parametrize(
    ("stream", "events"),
    [
        (b"data: a\n\n", [("message", "a", "")]),
        (b"data:a\ndata: b\ndata\n\n", [("message", "a\nb\n", "")]),
        (b"data:  two blanks\n\n", [("message", " two blanks", "")]),
        (b"data\n\n", [("message", "", "")]),
        (b"event: change\nid: e-1\ndata: x\n\n", [("change", "x", "e-1")]),
        (b"event: change\n\ndata: x\n\n", [("message", "x", "")]),
        (b"id: e-1\n\ndata: x\n\n", [("message", "x", "e-1")]),
        (b"id: e-1\ndata: x\n\nid\ndata: y\n\n", [("message", "x", "e-1"), ("message", "y", "")]),
        (b"id: a\0b\ndata: x\n\n", [("message", "x", "")]),
        (b": talk\n:\nretry: 5\n\ndata: x\n\n", [("message", "x", "")]),
        (b"Data: x\ndata : x\n data: x\n\n", []),
        (b"data: a\r\rdata: b\r\n\r\ndata: c\n\n", [("message", c, "") for c in "abc"]),
        (b"data: a\r\n\n", [("message", "a", "")]),
        (b"\xef\xbb\xbfdata: a\n\n", [("message", "a", "")]),
        (b"data: \xef\xbb\xbfa\n\n", [("message", "\ufeffa", "")]),
        (b"\n\n\n\ndata: a\n\n\n\n", [("message", "a", "")]),
        (b"data: \xe2\x82\n\n", [("message", "\ufffd", "")]),
        (b"data: not ended\n", []),
    ],
)
def test_parser_follows_the_standard(stream: bytes, events: list[tuple[str, str, str]]) -> None:
    assert parsed(stream) == events


def test_event_without_its_blank_line_moves_no_cursor() -> None:
    parser = SseParser(last_event_id="e-1")
    parser.feed(b"id: e-2\ndata: x\n")
    assert parser.last_event_id == "e-1"
    parser.feed(b"\n")
    assert parser.last_event_id == "e-2"


@pytest.mark.parametrize(
    ("text", "retry_ms"),
    [("0", 0), ("1500", 1500), ("0001500", 1500), ("9" * 5000, 3_600_000)]
    + [(text, None) for text in ("", "-1", "1.5", "1s", "\u0661")],
)
def test_retry_is_digits_only_and_bounded(text: str, retry_ms: int | None) -> None:
    parser = SseParser()
    parser.feed(f"retry: {text}\n\n".encode())
    assert parser.retry_ms == retry_ms


@pytest.mark.parametrize("stream", [b"x" * 101, b"data: 12345678\n" * 30, b"data: " + b"y" * 200])
def test_oversized_event_is_refused_whole_or_in_pieces(stream: bytes) -> None:
    with pytest.raises(EventTooLarge):
        SseParser(size_max=100).feed(stream)
    parser = SseParser(size_max=100)
    with pytest.raises(EventTooLarge):
        list(map(parser.feed, (stream[at : at + 1] for at in range(len(stream)))))


def test_many_small_events_fit_below_the_limit() -> None:
    parser = SseParser(size_max=100)
    assert len(parser.feed(b"data: 0123456789\n\n" * 1000)) == 1000


FIELDS = st.sampled_from([b"data", b"event", b"id", b"retry", b"", b"other"])
PIECES = st.one_of(
    FIELDS,
    st.sampled_from([b":", b": ", b"\n", b"\r", b"\r\n", b"\n\n", b"\0", b"\xef\xbb\xbf", b"7"]),
    st.text(max_size=4).map(lambda text: text.encode("utf-8", "surrogatepass")),
    st.binary(max_size=3),
)
STREAMS = st.lists(PIECES, max_size=40).map(b"".join)


@given(STREAMS, st.lists(st.integers(0, 200), max_size=12))
def test_any_cut_into_chunks_gives_the_same_events(stream: bytes, cuts: list[int]) -> None:
    edges = sorted({0, len(stream), *(cut for cut in cuts if cut <= len(stream))})
    parser, whole = SseParser(), SseParser()
    events = [e for a, b in itertools.pairwise(edges) for e in parser.feed(stream[a:b])]
    assert events == whole.feed(stream)
    assert parser.last_event_id == whole.last_event_id
    assert parser.retry_ms == whole.retry_ms


@given(STREAMS)
def test_one_byte_at_a_time_gives_what_the_standard_says(stream: bytes) -> None:
    parser = SseParser()
    events = [event for byte in stream for event in parser.feed(bytes([byte]))]
    assert events == by_the_book(stream)


def by_the_book(stream: bytes) -> list[SseEvent]:
    """The standard read sentence by sentence: decode all, split all, interpret each line."""
    text = stream.decode("utf-8", "replace").removeprefix("\ufeff")
    events: list[SseEvent] = []
    data = kind = last_id = ""
    for line in re.split("\r\n|\r|\n", text)[:-1]:
        name, colon, value = line.partition(":")
        value = value[1:] if value.startswith(" ") else value
        if not line:
            if data:
                events.append(SseEvent(event=kind or "message", data=data[:-1], id=last_id))
            data = kind = ""
        elif colon and not name:
            continue
        elif name == "data":
            data += value + "\n"
        elif name == "event":
            kind = value
        elif name == "id" and "\0" not in value:
            last_id = value
    return events

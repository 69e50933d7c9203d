"""Frames of the WebSocket as bytes: ours as another library reads them, a client's as we do."""

import json
from collections.abc import Generator
from typing import TypeVar

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from websockets.frames import Frame, Opcode
from websockets.streams import StreamReader

from tests.raw_socket import CONTINUATION, PING, TEXT, client_frame
from transports.http.sockets.encoding import SocketEncoding, server_frame, text_frame
from transports.http.sockets.requests import BadFrame, Ping, Publish, Subscribe, decode
from transports.http.web.masking import PIECES_MAX, FrameCheck

T = TypeVar("T")


class Listening:
    """Stands where aiohttp's reader stands, and keeps what it is given."""

    def __init__(self) -> None:
        self.received = b""
        self.eof = False

    def feed_data(self, data: bytes) -> tuple[bool, bytes]:
        self.received += data
        return False, b""

    def feed_eof(self) -> None:
        self.eof = True


def read_by_websockets(data: bytes) -> list[Frame]:
    """The unmasked frames in `data`, all of it used up."""
    stream = StreamReader()
    stream.feed_data(data)
    stream.feed_eof()
    frames: list[Frame] = []
    while not run(stream.at_eof()):
        frames.append(run(Frame.parse(stream.read_exact, mask=False)))
    return frames


def run(parsing: Generator[None, None, T]) -> T:
    """What a parser of that library returns, with all its input there."""
    try:
        next(parsing)
    except StopIteration as done:
        result: T = done.value
        return result
    raise AssertionError("it wants more than there is")


@pytest.mark.parametrize("size", [0, 1, 125, 126, 127, 65_535, 65_536, 70_000])
def test_a_text_frame_of_any_length_is_read_by_another_library(size: int) -> None:
    payload = b"x" * size
    (frame,) = read_by_websockets(text_frame(payload))
    assert (frame.opcode, frame.fin, frame.data) == (Opcode.TEXT, True, payload)


def test_joined_frames_stay_apart() -> None:
    encoding = SocketEncoding("a.b:c-1_2")
    data = (
        encoding.hello(b'{"epoch":"e"}', resumed=True)
        + encoding.frame("bookmark", b"{}", id="abc-1")
        + server_frame("pong", n=1)
    )
    said = [json.loads(bytes(frame.data)) for frame in read_by_websockets(data)]
    assert said == [
        {"op": "subscribed", "sub": "a.b:c-1_2", "resumed": True},
        {"op": "hello", "sub": "a.b:c-1_2", "data": {"epoch": "e"}},
        {"op": "bookmark", "sub": "a.b:c-1_2", "id": "abc-1", "data": {}},
        {"op": "pong", "n": 1},
    ]


def test_subscriptions_with_equal_names_share_their_bytes() -> None:
    assert SocketEncoding("a") == SocketEncoding("a")
    assert hash(SocketEncoding("a")) == hash(SocketEncoding("a"))
    assert SocketEncoding("a") != SocketEncoding("b")


FRAMES = st.lists(
    st.builds(
        client_frame,
        st.one_of(st.binary(max_size=200), st.sampled_from([b"x" * 300, b"y" * 70_000])),
        st.sampled_from([TEXT, CONTINUATION, PING]),
        fin=st.booleans(),
    ),
    max_size=6,
)
CUTS = st.lists(st.integers(min_value=0, max_value=1_000), max_size=30)


def cut(data: bytes, places: list[int]) -> list[bytes]:
    """`data` in pieces; the places wander through it, mostly by small steps."""
    pieces, at = [], 0
    for place in places:
        pieces.append(data[at : at + place % 17])
        at += place % 17
    return [*pieces, data[at:]]


@given(frames=FRAMES, places=CUTS)
def test_masked_frames_pass_the_check_unchanged_however_they_are_cut(
    frames: list[bytes], places: list[int]
) -> None:
    listening = Listening()
    check = FrameCheck(listening)
    for piece in cut(b"".join(frames), places):
        check.feed_data(piece)
    check.feed_eof()
    assert listening.received == b"".join(frames)
    assert listening.eof


@given(frames=FRAMES, places=CUTS, rest=st.binary(max_size=50))
def test_nothing_of_a_frame_without_a_mask_passes(
    frames: list[bytes], places: list[int], rest: bytes
) -> None:
    good = b"".join(frames)
    listening = Listening()
    check = FrameCheck(listening)
    for piece in cut(good + client_frame(b"evil", masked=False) + rest, places):
        check.feed_data(piece)
    assert listening.received.startswith(good)
    refusal = listening.received[len(good) :]
    assert refusal[0] & 0x70, "a frame that every reader refuses"
    assert b"evil" not in refusal


def test_a_message_in_endless_pieces_is_cut_off() -> None:
    listening = Listening()
    check = FrameCheck(listening)
    check.feed_data(client_frame(b"", TEXT, fin=False))
    for _ in range(PIECES_MAX * 2):
        check.feed_data(client_frame(b"", CONTINUATION, fin=False))
    assert len(listening.received) <= PIECES_MAX * 6 + 6


ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text() | st.just("op"), inner),
    max_leaves=10,
)


@given(st.one_of(st.text(), ANYTHING.map(json.dumps)))
def test_any_text_is_a_record_or_a_reported_problem(text: str) -> None:
    bad = refusal_of(text)
    if bad is not None:
        assert bad.problem.status in (400, 422)
        assert bad.problem.detail
        assert bad.is_json or not bad.about


def refusal_of(text: str) -> BadFrame | None:
    try:
        decode(text)
    except BadFrame as bad:
        return bad
    return None


def test_the_frames_of_the_contract_are_read() -> None:
    subscribe = decode(
        '{"op":"subscribe","sub":"a","topic":"events","filter":{"job":["A/B"],"type":"execution.*"},'
        '"after":"abc-1","start":"now"}'
    )
    output = decode(
        '{"op":"subscribe","sub":"o","topic":"output","execution":"x","from":7,"follow":"all"}'
    )
    publish = decode(
        '{"op":"publish","ref":"r","command":{"command":"start"},"idempotencyKey":"k","wait":3}'
    )
    assert isinstance(subscribe, Subscribe)
    assert subscribe.filter is not None
    assert (subscribe.filter.job, subscribe.filter.type) == (("A/B",), "execution.*")
    assert isinstance(output, Subscribe)
    assert (output.start_at, output.follow) == (7, "all")
    assert isinstance(publish, Publish)
    assert (publish.idempotency_key, publish.wait) == ("k", 3)
    assert publish.command == {"command": msgspec.Raw(b'"start"')}
    assert decode('{"op":"ping","n":-1}') == Ping(n=-1)

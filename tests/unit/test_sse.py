"""The bytes of Server-Sent Events: exact, and impossible to forge."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from transports.http.streams import sse


def test_opening_has_no_blank_line() -> None:
    assert sse.opening(1500) == b"retry: 1500\n:ok\n"


def test_event_has_its_fields_in_order_and_one_blank_line() -> None:
    expected = b'id: abc123-7\nevent: change\ndata: {"a":1}\n\n'
    assert sse.event("change", b'{"a":1}', id="abc123-7") == expected
    assert sse.event("hello", b"{}") == b"event: hello\ndata: {}\n\n"


@pytest.mark.parametrize(
    "id", ["", "a\nb", "a\rb", "a\0b", "a b", "A-1", "abc:1", "é-1", "a" * 41, "a\n"]
)
def test_an_id_of_other_characters_raises(id: str) -> None:
    with pytest.raises(ValueError, match="id"):
        sse.event("change", b"{}", id=id)


@pytest.mark.parametrize("kind", ["", "a\nb", "a\rid: x", "a\0", "message", "open", "error", "A"])
def test_an_event_name_of_other_characters_raises(kind: str) -> None:
    with pytest.raises(ValueError, match="name"):
        sse.event(kind, b"{}")


@pytest.mark.parametrize("data", [b"{}\n", b"{\r}", b"\n\nid: 1", b"\0"])
def test_data_of_more_than_one_line_raises(data: bytes) -> None:
    with pytest.raises(ValueError, match="line"):
        sse.event("change", data)


@pytest.mark.parametrize("retry_ms", [-1, 600_001])
def test_a_retry_out_of_bounds_raises(retry_ms: int) -> None:
    with pytest.raises(ValueError, match="retry"):
        sse.opening(retry_ms)


@given(kind=st.text(), data=st.binary(), id=st.none() | st.text())
def test_whatever_comes_in_is_one_block_or_an_error(kind: str, data: bytes, id: str | None) -> None:
    try:
        block = sse.event(kind, data, id=id)
    except ValueError:
        return
    assert block.endswith(b"\n\n")
    assert block.count(b"\n") == (3 if id is None else 4)
    assert b"\r" not in block

"""A line of output is found however the output is cut into pieces."""

from hypothesis import given
from hypothesis import strategies as st

from handlers.output.line_search import LINE_MAX, LineSearch

pieces = st.lists(st.sampled_from([b"ready", b"\n", b"\r\n", b"x", b"not ", b"\xff"]), max_size=20)


@given(pieces=pieces)
def test_it_is_found_exactly_if_a_whole_line_holds_it(pieces: list[bytes]) -> None:
    search = LineSearch("^ready$")
    found = [search.finds(search.position, piece) for piece in pieces]
    lines = b"".join(pieces).split(b"\n")[:-1]
    assert any(found) == any(line.removesuffix(b"\r") == b"ready" for line in lines)


def test_a_line_that_a_gap_has_cut_is_not_put_together() -> None:
    search = LineSearch("ab")
    assert not search.finds(0, b"a")
    assert not search.finds(5, b"b\n")
    assert search.finds(7, b"ab\n")


def test_what_is_kept_of_a_line_without_an_end_is_bounded() -> None:
    search = LineSearch("z")
    for n in range(20):
        assert not search.finds(n * LINE_MAX, b"x" * LINE_MAX)
    assert len(search._line) == 4 * LINE_MAX
    assert not search.finds(search.position, b"z\n")
    assert search.finds(search.position, b"z\n")

"""Secrets are taken out of a stream however it is cut, and nothing else is."""

import base64
import json
from itertools import pairwise
from urllib.parse import quote, quote_plus

import pytest
from hypothesis import given
from hypothesis import strategies as st

from handlers.shim.masking import BYTES_MIN, MASK, MaskedStream, Masking

SECRET = "hunter2/long+secret =?"


def masked(data: bytes, *pieces: int, values: tuple[str, ...] = (SECRET,)) -> bytes:
    """`data` through a stream, cut at `pieces`."""
    stream = Masking(values).stream()
    cuts = [0, *sorted(pieces), len(data)]
    said = [stream.feed(data[a:b]) for a, b in pairwise(cuts)]
    return b"".join(said) + stream.end()


@pytest.mark.parametrize("at", range(len(SECRET) + 12))
def test_a_secret_is_masked_wherever_the_reads_cut_it(at: int) -> None:
    assert masked(b"token=" + SECRET.encode() + b"\nbye\n", at) == b"token=***\nbye\n"


def test_a_secret_that_comes_byte_by_byte_is_masked() -> None:
    data = b"a" + SECRET.encode() * 3 + b"b"
    assert masked(data, *range(len(data))) == b"a***" + b"***" * 2 + b"b"


def test_no_byte_of_a_beginning_is_said_before_it_is_known_to_be_none() -> None:
    stream = Masking((SECRET,)).stream()
    assert stream.feed(b"x" + SECRET[:-1].encode()) == b"x"
    assert stream.feed(b"!") == SECRET[:-1].encode() + b"!"


def test_at_the_end_a_short_beginning_is_said_and_a_long_one_is_not() -> None:
    assert masked(b"x" + SECRET[:5].encode()) == b"x" + SECRET[:5].encode()
    assert masked(b"x" + SECRET[:-1].encode()) == b"x***"


def test_what_does_not_look_like_a_secret_goes_through_at_once() -> None:
    stream = Masking((SECRET,)).stream()
    assert stream.feed(b"a line\n") == b"a line\n"
    assert stream.feed(b"another, ending in h") == b"another, ending in "


@pytest.mark.parametrize(
    "spelled",
    [
        quote(SECRET),
        quote(SECRET, safe=""),
        quote_plus(SECRET),
        json.dumps(SECRET)[1:-1],
        SECRET.encode().hex(),
        SECRET.encode().hex().upper(),
    ],
)
def test_other_spellings_are_masked(spelled: str) -> None:
    assert masked(f"<{spelled}>".encode()) == b"<***>"


@pytest.mark.parametrize("before", ["", "u:", "user:"])
@pytest.mark.parametrize("encode", [base64.b64encode, base64.urlsafe_b64encode])
def test_base64_is_masked_at_every_alignment(before: str, encode: object) -> None:
    assert callable(encode)
    encoded: bytes = encode(f"{before}{SECRET}:after".encode())
    said = masked(encoded)
    assert MASK in said
    assert len(said) - len(MASK) <= len(encoded) - len(SECRET)


def test_lines_of_a_secret_are_masked_one_by_one() -> None:
    key = "-----BEGIN-----\nfirst line of it\r\nshort\nlast line of it\n"
    said = masked(b"first line of it | last line of it | short", values=(key,))
    assert said == b"*** | *** | short"
    assert masked(key.encode(), values=(key,)) == b"***\n"


def test_short_values_are_not_masked() -> None:
    assert not Masking(["x" * (BYTES_MIN - 1)])
    assert masked(b"the number 12345 and 12345678", values=("12345", "12345678")) == (
        b"the number 12345 and ***"
    )


def test_progress_is_masked_in_texts_and_names_at_any_depth() -> None:
    content = {"message": f"at {SECRET}", "data": {SECRET: [1, None, {"k": SECRET}]}}
    assert Masking([SECRET]).tree(content) == {
        "message": "at ***",
        "data": {"***": [1, None, {"k": "***"}]},
    }


@given(
    st.lists(st.text("ab", min_size=2, max_size=5), min_size=1, max_size=3, unique=True),
    st.text("abc", max_size=30),
    st.lists(st.integers(1, 30), max_size=8),
)
def test_exactly_the_bytes_of_secrets_are_taken_out(
    secrets: list[str], text: str, cuts: list[int]
) -> None:
    needles = tuple(sorted((one.encode() for one in secrets), key=len, reverse=True))
    data = text.encode() + b"Z"  # nothing is held at the end
    covered = bytearray(len(data))
    for needle in needles:
        for at in range(len(data)):
            if data.startswith(needle, at):
                covered[at : at + len(needle)] = b"\1" * len(needle)
    stream = MaskedStream(needles)
    places = [0, *sorted(min(cut, len(data)) for cut in cuts), len(data)]
    said = b"".join(stream.feed(data[a:b]) for a, b in pairwise(places))
    kept = bytes(byte for byte, is_secret in zip(data, covered, strict=True) if not is_secret)
    assert said.replace(MASK, b"") == kept
    assert (MASK in said) == any(covered)


def test_what_is_held_never_grows_beyond_a_secret() -> None:
    stream = Masking(["a" * 8]).stream()
    said = b"".join(stream.feed(b"a" * 1000) for _ in range(100))
    assert said == MASK
    assert len(stream._held) < 16

"""Output on a terminal: colours pass, commands are shown and never obeyed."""

import re
import sys
from io import BytesIO, TextIOWrapper

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bus.cli.main import main
from bus.cli.terminal import Harmless

SGR = re.compile(r"\x1b\[[0-9;:]*m")


def shown(*pieces: bytes) -> str:
    stream = Harmless()
    return "".join(map(stream.of_bytes, pieces)) + stream.end()


@pytest.mark.parametrize(
    ("said", "told"),
    [
        (b"plain \xc3\xa4\t|\r\n", "plain \u00e4\t|\r\n"),
        (b"\x1b[1;31mred\x1b[0m", "\x1b[1;31mred\x1b[0m\x1b[0m"),
        (b"\x1b]52;c;cm0gLXJm\x07", "\u241b]52;c;cm0gLXJm\u2407"),
        (b"\x1b]0;owned\x1b\\", "\u241b]0;owned\u241b\\"),
        (b"\x1b[2J\x1b[1A\x1b[6n\x1bc", "\u241b[2J\u241b[1A\u241b[6n\u241bc"),
        ("\x9b2J\x85\u202eevil\u2066".encode(), "\ufffd2J\ufffd\ufffdevil\ufffd"),
        (b"a\x08b\x00\x7f\xff", "a\u2408b\u2400\u2421\ufffd"),
        (b"\x1b", "\u241b"),
        (b"\x1b[31", "\u241b[31"),
    ],
)
def test_what_commands_a_terminal_is_shown_instead(said: bytes, told: str) -> None:
    assert shown(said) == told


pieces = st.lists(
    st.binary(max_size=6)
    | st.sampled_from([b"\x1b", b"[", b"31m", b"\x1b[3", b"m", b"\xc2", b"\x9b"]),
    max_size=20,
)


@given(pieces)
def test_it_is_the_same_in_whatever_pieces_it_came_and_holds_no_command(said: list[bytes]) -> None:
    told = shown(*said)
    assert told == shown(b"".join(said))
    left = SGR.sub("", told)
    assert not [c for c in left if c not in "\n\t\r" and not c.isprintable() and _is_control(c)]


def _is_control(character: str) -> bool:
    return ord(character) < 0x20 or 0x7F <= ord(character) < 0xA0 or character in "\u202e\u2066"


@given(st.text(st.characters(categories=["L", "N", "P", "S", "Zs"], include_characters="\n\t\r")))
def test_ordinary_text_passes_as_it_is(text: str) -> None:
    assert shown(text.encode()) == text


def test_a_sign_that_the_locale_lacks_ends_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    stdout = BytesIO()
    monkeypatch.setattr(sys, "stdout", TextIOWrapper(stdout, encoding="latin-1"))
    monkeypatch.setattr(sys, "argv", ["jobbus", "--version"])
    with pytest.raises(SystemExit):
        main()
    print("a \N{RIGHTWARDS ARROW} \xe4", flush=True)
    assert stdout.getvalue().endswith(b"a ? \xe4\n")

"""Output on a terminal: colours pass, commands are shown and never obeyed."""

import json
import re
import sys
from io import BytesIO, TextIOWrapper

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bus.envelope import can_be_user
from bus.wording import quoted
from jobbus.cli.main import main
from jobbus.cli.show import say, show_json, show_pairs, show_table
from jobbus.cli.terminal import Harmless

SGR = re.compile(r"\x1b\[[0-9;:]*m")


def shown(*pieces: bytes) -> str:
    stream = Harmless()
    return "".join(map(stream.of_bytes, pieces)) + stream.end()


@pytest.mark.parametrize(
    ("said", "on_screen"),
    [
        (b"plain \xc3\xa4\t|\r\n", "plain \u00e4\t|\r\n"),
        (b"\x1b[1;31mred\x1b[0m", "\x1b[1;31mred\x1b[0m\x1b[0m"),
        (b"\x1b]52;c;cm0gLXJm\x07", "\u241b]52;c;cm0gLXJm\u2407"),
        (b"\x1b]0;owned\x1b\\", "\u241b]0;owned\u241b\\"),
        (b"\x1b[2J\x1b[1A\x1b[6n\x1bc", "\u241b[2J\u241b[1A\u241b[6n\u241bc"),
        ("\x9b2J\x85\u202eevil\u2066".encode(), "\ufffd2J\ufffd\ufffdevil\ufffd"),
        (b"a\x1b[8mhidden\x1b[28;1;8;31mb", "ahidden\x1b[1;31mb\x1b[0m"),
        (b"\x1b[5;6mblinks", "blinks"),
        (b"\x1b[mx", "\x1b[0mx\x1b[0m"),
        (b"\x1b[38;5;9;48:2::0:0:200mx", "\x1b[38;5;9;48;2;0;0;200mx\x1b[0m"),
        (b"\x1b[38;5;8mgrey \x1b[38;8mx", "\x1b[38;5;8mgrey x\x1b[0m"),
        (b"\x1b[4:3mx\x1b[8:1my", "\x1b[4:3mxy\x1b[0m"),
        # Ink is invisible if it is of the paper's colour, whichever way it is written.
        (b"\x1b[30;40mx", "\x1b[30;40m\x1b[39;49mx\x1b[0m"),
        (b"\x1b[41m\x1b[31mx", "\x1b[41m\x1b[31m\x1b[39;49mx\x1b[0m"),
        (
            b"\x1b[48;5;231;38;2;250;255;255mx",
            "\x1b[48;5;231;38;2;250;255;255m\x1b[39;49mx\x1b[0m",
        ),
        (
            "a\u200bb\u061c\u200f\u00ad\u3164\U000e0041\ufe0fc\u2028".encode(),
            "a\ufffdb\ufffd\ufffd\ufffd\ufffd\ufffd\ufffdc\ufffd",
        ),
        (
            "\u26a0\ufe0f 1\ufe0f \u0645\u06cc\u200c\u062e \U0001f468\u200d\U0001f4bb".encode(),
            "\u26a0\ufe0f 1\ufe0f \u0645\u06cc\u200c\u062e \U0001f468\u200d\U0001f4bb",
        ),
        ("\u26a0\ufe0f\ufe0f\ufe0e".encode(), "\u26a0\ufe0f\ufffd\ufffd"),
        (
            b"\x1b]8;;http://evil\x1b\\link\x1b]8;;\x1b\\",
            "\u241b]8;;http://evil\u241b\\link\u241b]8;;\u241b\\",
        ),
        (b"a\x08b\x00\x7f\xff", "a\u2408b\u2400\u2421\ufffd"),
        (b"\x1b", "\u241b"),
        (b"\x1b[31", "\u241b[31"),
    ],
)
def test_what_commands_a_terminal_is_shown_instead(said: bytes, on_screen: str) -> None:
    assert shown(said) == on_screen


pieces = st.lists(
    st.binary(max_size=6)
    | st.sampled_from([b"\x1b", b"[", b"31m", b"\x1b[3", b"m", b"\xc2", b"\x9b"]),
    max_size=20,
)


@given(pieces)
def test_it_is_the_same_in_whatever_pieces_it_came_and_holds_no_command(said: list[bytes]) -> None:
    on_screen = shown(*said)
    assert on_screen == shown(b"".join(said))
    left = SGR.sub("", on_screen)
    assert not [c for c in left if c not in "\n\t\r" and not c.isprintable() and _is_control(c)]


def _is_control(character: str) -> bool:
    return ord(character) < 0x20 or 0x7F <= ord(character) < 0xA0 or character in "\u202e\u2066"


@given(st.lists(st.integers(0, 110) | st.sampled_from(["8", "38;5;8", "38;2;1;1;1", ""])))
def test_what_is_let_through_of_colours_never_conceals(codes: list[int | str]) -> None:
    on_screen = shown(f"\x1b[{';'.join(map(str, codes))}mx".encode())
    kept = ";".join(each for one in SGR.findall(on_screen) for each in [one[2:-1]])
    kept = re.sub(r"[345]8;(5;\d+|2;\d+;\d+;\d+)", "0", kept)
    assert not {"5", "6", "8"} & set(kept.split(";"))


VISIBLE = st.characters(
    categories=["L", "N", "P", "S", "Zs"],
    include_characters="\n\t\r",
    exclude_characters="\u115f\u1160\u2800\u3164\uffa0",
)


@given(st.text(VISIBLE))
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


@pytest.mark.parametrize(
    "hidden", [*"\u202e\u2066\u200b\u200d\ufe0f\u3164\u00ad\x9b\x1b\x7f", "\U000e0041"]
)
def test_what_is_invisible_is_shown_in_every_form_of_the_command_line(
    hidden: str, capsys: pytest.CaptureFixture[str]
) -> None:
    text = f"adm{hidden}in"
    say(text)
    show_table(("NAME",), [(text,)])
    show_pairs([("name", text)])
    show_json({"name": text})
    on_screen = capsys.readouterr()
    assert hidden not in on_screen.out + on_screen.err
    *_, document = on_screen.out.splitlines()
    assert json.loads(document) == {"name": text}
    assert quoted(text) != f'"{text}"'
    assert not can_be_user(text)

"""The open line at the end of a terminal: shown, and replaced without a trace."""

import pytest

from jobbus.cli.logs import Screen
from jobbus.cli.run import print_output
from jobbus.cli.words import percent_word
from jobbus.client.frames import Bookmark, Frame, Output, OutputLine
from jobbus.client.records import Progress


def shown(*frames: Frame) -> str:
    """What a terminal of any width shows in the end: CR and erase clear the last line."""
    text = ""

    def write(piece: str) -> None:
        nonlocal text
        kept, *redrawn = piece.split("\r\x1b[K")
        text += kept
        for part in redrawn:
            text = text[: text.rfind("\n") + 1] + part

    screen = Screen(write)
    for frame in frames:
        screen.clear(frame)
        print_output(frame, write)
        screen.show(frame)
    return text


def output(text: str, *lines: OutputLine) -> Output:
    return Output(id="e-1", start=0, end=len(text), text=text, lines=lines)


def opened(text: str) -> OutputLine:
    return OutputLine(number=2, at=2, end=2 + len(text), text=text, partial=True)


def test_an_open_line_is_shown_and_replaced() -> None:
    assert shown(output("a\n"), output("", opened("10%"))) == "a\n10%"
    assert shown(output("a\n"), output("", opened("10%")), output("", opened("99%"))) == "a\n99%"
    on_screen = shown(output("a\n", opened("10%")), Bookmark(id="e-2"), output("done\n"))
    assert on_screen == "a\ndone\n"


def test_an_open_line_cannot_steer_the_terminal() -> None:
    assert "\x1b" not in shown(output("", opened("\x1b[2Jgone")))


@pytest.mark.parametrize(
    ("percent", "word"),
    [
        (0, "0 %"),
        (0.04, "< 0.1 %"),
        (0.5, "0.5 %"),
        (0.99, "0.9 %"),
        (1, "1 %"),
        (42.7, "42 %"),
        (99.99, "99 %"),
        (100, "100 %"),
        (None, ""),
    ],
)
def test_percent_is_never_rounded_up(percent: float | None, word: str) -> None:
    assert percent_word(Progress(percent=percent)) == word

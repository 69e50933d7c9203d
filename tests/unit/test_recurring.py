"""Lines that may come back at every try: the first is logged, the others are counted."""

import logging

import pytest

from bus.recurring import SUBJECTS_MAX, Backoff, Recurring

log = logging.getLogger("test.recurring")


class Now:
    def __init__(self) -> None:
        self.s = 0.0

    def __call__(self) -> float:
        return self.s


@pytest.fixture
def said(caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    caplog.set_level(logging.INFO)
    return caplog


def test_a_line_is_said_once_then_counted(said: pytest.LogCaptureFixture) -> None:
    now = Now()
    lines = Recurring(log, now_s=now)
    for _ in range(3600):
        lines.say("the disk is away")
        now.s += 1.0
    texts = said.messages
    assert texts[0] == "the disk is away"
    assert len(texts) < 8
    counts = [int(text.split("(again ")[1].split()[0]) for text in texts[1:]]
    assert sum(counts) <= 3599
    assert counts == sorted(counts)


def test_what_comes_back_after_it_was_over_is_new(said: pytest.LogCaptureFixture) -> None:
    lines = Recurring(log, now_s=Now())
    lines.over("nothing was wrong")
    lines.say("the disk is away")
    lines.say("the disk is away")
    lines.over("the disk is back")
    lines.over("the disk is back")
    lines.say("the disk is away")
    assert said.messages == [
        "the disk is away",
        "the disk is back (after 2 times)",
        "the disk is away",
    ]


def test_names_that_others_choose_fill_neither_log_nor_memory(
    said: pytest.LogCaptureFixture,
) -> None:
    lines = Recurring(log, now_s=Now())
    for number in range(100_000):
        lines.say(f"cannot take {number}", str(number))
    assert len(said.messages) == SUBJECTS_MAX + 1
    assert len(lines._subjects) == SUBJECTS_MAX + 1


def test_pauses_grow_to_the_longest_and_begin_short_after_a_success() -> None:
    pauses = Backoff(0.5, 5.0)
    assert [pauses.next_s() for _ in range(6)] == [0.5, 1.0, 2.0, 4.0, 5.0, 5.0]
    pauses.reset()
    assert pauses.next_s() == 0.5

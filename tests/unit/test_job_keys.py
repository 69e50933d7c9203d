"""Keys of job.toml whose meaning is a computation: what comes of the text, without a service."""

from datetime import UTC, datetime

import pytest

from bus.job_definition import JobSpec
from handlers.catalog.definition_decoding import decode_definition
from handlers.decisions.decision import Context
from handlers.decisions.retries import delay_of
from handlers.schedule.rules import due_between, rule_of
from tests.decision_fixture import Decider

COMMAND = 'command = ["x"]\n'


def spec_of(text: str) -> JobSpec:
    found = decode_definition((COMMAND + text).encode(), file="job.toml", directory="/x")
    assert isinstance(found, JobSpec), found
    return found


def due(schedule: str, day: str) -> list[str]:
    """When it is due on that day of UTC, as hours and minutes of UTC."""
    (written,) = spec_of(f"[[schedule]]\n{schedule}\n").schedule
    begin = datetime.fromisoformat(f"{day}T00:00:00+00:00")
    instants = due_between(rule_of(written), begin, begin.replace(hour=23, minute=59))
    return [instant.astimezone(UTC).strftime("%H:%M") for instant in instants]


GAP, FOLD = "2027-03-28", "2026-10-25"
"""Clocks of Berlin skip from 2 to 3, and go from 3 back to 2."""


@pytest.mark.parametrize(
    ("keys", "day", "instants"),
    [
        ('dst = "auto"', GAP, ["01:00"]),
        ("", GAP, ["01:00"]),
        ('dst_gap = "run"', GAP, ["01:00"]),
        ('dst_gap = "skip"', GAP, []),
        ('dst = "auto"', FOLD, ["00:30"]),
        ('dst_fold = "once"', FOLD, ["00:30"]),
        ('dst_fold = "twice"', FOLD, ["00:30", "01:30"]),
    ],
)
def test_time_that_clocks_skip_or_show_twice_is_due_as_the_keys_say(
    keys: str, day: str, instants: list[str]
) -> None:
    at_half_past_two = """
        cron = "30 2 * * *"
        zone = "Europe/Berlin"
    """
    assert due(f"{at_half_past_two}\n{keys}", day) == instants


def test_seconds_are_counted_from_the_anchor() -> None:
    every = "every_s = 28800\n"
    assert due(every, "2026-06-01") == ["08:00", "16:00"]
    assert due(every + 'anchor = "2026-01-01T01:30:00"', "2026-06-01") == [
        "01:30",
        "09:30",
        "17:30",
    ]


def test_delays_of_retries_grow_by_the_keys_up_to_the_longest() -> None:
    retry = spec_of(
        """
        [retry]
        attempts = 9
        delay_s = 2
        backoff = 3
        delay_s_max = 50
        jitter = 0.5
        """
    ).retry

    def delays(random: float) -> list[float]:
        context = Context(0, lambda: "", Decider().policy, lambda: random)
        return [delay_of(retry, step, context) for step in (1, 2, 3, 4, 5)]

    assert delays(0.0) == [2, 6, 18, 50, 50]
    assert delays(1.0) == [3, 9, 27, 75, 75]

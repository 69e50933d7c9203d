"""When the wall clock is believed, as far as starts by schedule depend on it."""

import pytest

from handlers.schedule.clock_trust import (
    BUILT_MS,
    DAY_MS,
    HOUR_MS,
    JUMP_MS_MAX,
    OUTAGE_MS_MAX,
    STEADY_S,
    ClockTrust,
)

NOW_MS = BUILT_MS + 400 * DAY_MS
YEAR_MS = 365 * DAY_MS


def running() -> ClockTrust:
    """It was believed at `NOW_MS`, when the steady clock showed 1000."""
    trust = ClockTrust(NOW_MS, 1000.0)
    assert trust.look(NOW_MS, 1000.0)
    return trust


@pytest.mark.parametrize(
    ("found_ms", "is_believed"),
    [
        (NOW_MS, True),
        (NOW_MS + OUTAGE_MS_MAX, True),
        (NOW_MS + OUTAGE_MS_MAX + 1, False),
        (NOW_MS + YEAR_MS, False),
        (NOW_MS - HOUR_MS, True),
        (NOW_MS - HOUR_MS - 1, False),
        (0, False),
    ],
)
def test_start_believes_a_clock_that_is_ahead_of_the_last_service_by_an_outage(
    found_ms: int, *, is_believed: bool
) -> None:
    assert ClockTrust(NOW_MS, 5.0).look(found_ms, 5.0) is is_believed


def test_first_start_ever_believes_what_is_later_than_the_program() -> None:
    assert ClockTrust(None, 5.0).look(NOW_MS, 5.0)
    assert not ClockTrust(None, 5.0).look(BUILT_MS - 1, 5.0)


@pytest.mark.parametrize(
    ("jump_ms", "is_believed"),
    [
        (JUMP_MS_MAX, True),
        (-JUMP_MS_MAX, True),
        (JUMP_MS_MAX + 1, False),
        (-JUMP_MS_MAX - 1, False),
        (YEAR_MS, False),
        (-DAY_MS, False),
    ],
)
def test_running_service_believes_small_corrections_alone(
    jump_ms: int, *, is_believed: bool
) -> None:
    assert running().look(NOW_MS + 60_000 + jump_ms, 1060.0) is is_believed


def test_long_time_without_a_look_is_no_jump() -> None:
    assert running().look(NOW_MS + YEAR_MS, 1000.0 + YEAR_MS / 1000)


def test_clock_that_comes_back_is_believed_at_once() -> None:
    trust = running()
    assert not trust.look(NOW_MS + YEAR_MS, 1000.0)
    assert trust.believed_ms == NOW_MS
    assert trust.look(NOW_MS + 60_000, 1060.0)


def test_clock_that_goes_on_steadily_for_a_day_is_believed_and_one_that_jumps_again_is_not() -> (
    None
):
    trust = running()
    day_ms = int(STEADY_S * 1000)
    assert not trust.look(NOW_MS + YEAR_MS, 1000.0)
    assert not trust.look(NOW_MS + YEAR_MS + day_ms - 1000, 1000.0 + STEADY_S - 1)
    assert not trust.look(NOW_MS + 2 * YEAR_MS, 1000.0 + STEADY_S)
    assert not trust.look(NOW_MS + 2 * YEAR_MS + day_ms - 1000, 1000.0 + 2 * STEADY_S - 1)
    assert trust.look(NOW_MS + 2 * YEAR_MS + day_ms, 1000.0 + 2 * STEADY_S)
    assert trust.look(NOW_MS + 2 * YEAR_MS + 2 * day_ms, 1000.0 + 3 * STEADY_S)


def test_person_who_says_that_it_is_right_is_believed() -> None:
    trust = running()
    assert not trust.look(NOW_MS - YEAR_MS + 1, 1000.0)
    trust.believe(NOW_MS, 1000.0)
    assert trust.look(NOW_MS, 1000.0)

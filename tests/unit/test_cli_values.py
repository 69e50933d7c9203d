"""`-V NAME=VALUE`: text becomes what the job declares, or a sentence about what is wrong."""

import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime

import pytest

from jobbus.cli.exits import CliError, Exit, exit_of_command
from jobbus.cli.values import coming_moment, looks_typed, variables_of
from jobbus.client.command_records import SecretRef
from jobbus.client.records import Command, Variable


def declared(kind: str) -> Variable:
    return Variable(type=kind)


DECLARED = {kind: declared(kind) for kind in ("string", "integer", "number", "boolean", "secret")}


@pytest.mark.parametrize(
    ("assignment", "name", "value"),
    [
        ("string=30", "string", "30"),
        ("string=", "string", ""),
        ("string=a=b", "string", "a=b"),
        ("string=-x\ny", "string", "-x\ny"),
        ("integer=-30", "integer", -30),
        ("number=1e3", "number", 1000.0),
        ("boolean=yes", "boolean", True),
        ("boolean=False", "boolean", False),
        ("secret=DB", "secret", SecretRef(secret="DB")),
        ('secret={"secret": "DB"}', "secret", SecretRef(secret="DB")),
        ("unknown=1", "unknown", "1"),
        ("string:=1", "string", 1),
        ("integer:=null", "integer", None),
        ('x:="text"', "x", "text"),
        ('x:={"secret": "DB"}', "x", SecretRef(secret="DB")),
    ],
)
def test_value_is_typed_by_the_definition(assignment: str, name: str, value: object) -> None:
    assert variables_of([assignment], DECLARED) == {name: value}


@pytest.mark.parametrize(
    "assignment",
    [
        *("x", "=1", "1x=1", "a b=1", "integer=1.5", "integer=٣", "integer=1_0", "number=nan"),
        *("number=x", "boolean=2", "x:=", "x:={]", "x:=[1]", 'x:={"a": 1}'),
    ],
)
def test_what_cannot_be_meant_is_a_usage_error(assignment: str) -> None:
    with pytest.raises(CliError) as caught:
        variables_of([assignment], DECLARED)
    assert caught.value.exit_code == Exit.USAGE


def test_variable_given_twice_is_refused() -> None:
    with pytest.raises(CliError, match="twice"):
        variables_of(["a=1", "a:=2"], None)


def test_without_a_definition_plain_values_stay_text() -> None:
    assert variables_of(["a=1", "b:=1"], None) == {"a": "1", "b": 1}
    assert [a for a in ("a=1", "a=-1.5", "a=true", "a=x", "a:=1") if looks_typed(a)] == [
        "a=1",
        "a=-1.5",
        "a=true",
    ]


@pytest.mark.parametrize(
    ("status", "code", "expected"),
    [
        ("Pending", None, 0),
        ("Completed", None, 0),
        ("Failed", "spawn_error", 1),
        ("Rejected", "unknown_job", 3),
        ("Rejected", "not_permitted", 4),
        ("Rejected", "bad_variables", 2),
        ("Rejected", "already_running", 6),
        ("Expired", "expired", 1),
        ("Rejected", "a_word_of_a_newer_service", 1),
    ],
)
def test_ended_command_has_its_exit_code(status: str, code: str | None, expected: int) -> None:
    answer = Command(command_id="c", status=status, error_code=code)
    assert exit_of_command(answer) == expected


NOW = datetime(2026, 11, 29, 15, 30, tzinfo=UTC)

Zone = Callable[[str], None]


@pytest.fixture
def zone(monkeypatch: pytest.MonkeyPatch) -> Iterator[Zone]:
    """Sets the zone of this machine's clock for one test."""

    def set_zone(name: str) -> None:
        monkeypatch.setenv("TZ", name)
        time.tzset()

    yield set_zone
    monkeypatch.undo()
    time.tzset()


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("18:00", "2026-11-29T18:00:00"),
        ("15:30", "2026-11-30T15:30:00"),
        ("6:05:07", "2026-11-30T06:05:07"),
        ("+2h", "2026-11-29T17:30:00"),
        ("+ 90 min", "2026-11-29T17:00:00"),
        ("+1.5d", "2026-12-01T03:30:00"),
        ("2026-12-24 18:00", "2026-12-24T18:00:00"),
    ],
)
def test_moment_ahead_is_written_in_many_ways(text: str, shown: str, zone: Zone) -> None:
    zone("UTC")
    assert coming_moment("--at", text, NOW.timestamp()) == f"{shown}+00:00"


def test_moment_that_names_its_zone_keeps_it() -> None:
    moment = "2026-12-24T18:00:00+02:00"
    assert coming_moment("--at", moment, NOW.timestamp()) == moment


def test_time_of_day_that_the_clock_skips_is_the_next_that_exists(zone: Zone) -> None:
    zone("Europe/Berlin")
    before_gap = datetime(2026, 3, 28, 23, 0, tzinfo=UTC)
    assert coming_moment("--at", "02:30", before_gap.timestamp()) == "2026-03-29T03:30:00+02:00"


@pytest.mark.parametrize(
    "text", ["", "soon", "24:00", "12:60", "-2h", "2h", "2026-12-24", "2026-11-29 15:30", "+0s"]
)
def test_what_is_no_moment_ahead_is_a_usage_error(text: str, zone: Zone) -> None:
    zone("UTC")
    with pytest.raises(CliError) as caught:
        coming_moment("--at", text, NOW.timestamp())
    assert caught.value.exit_code == Exit.USAGE

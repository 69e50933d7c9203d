"""`-V NAME=VALUE`: text becomes what the job declares, or a sentence about what is wrong."""

import pytest

from jobbus.cli.exits import CliError, Exit, exit_of_command
from jobbus.cli.values import looks_typed, variables_of
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

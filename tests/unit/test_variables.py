"""What a command's variables must be, and how values are spelled."""

import json
import math
import re

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bus.errors import ErrorCode, Refused
from bus.job_definition import JobSpec, VariableSpec, VariableType
from bus.model import SecretRef, Value
from handlers.catalog.expressions import matches
from handlers.catalog.templates import names_in, render, spell
from handlers.catalog.variables import resolve_variables

STRING, INTEGER, NUMBER, BOOLEAN, CHOICE, SECRET = VariableType
SECRET_TEXT = "hunter2-hunter2"


def job(**variables: VariableSpec) -> JobSpec:
    return JobSpec(command=("run",), variables=variables)


def refused(spec: JobSpec, given: dict[str, Value]) -> Refused:
    with pytest.raises(Refused) as caught:
        resolve_variables(spec, given)
    str(caught.value).encode()  # whatever came in, the sentence can be sent
    assert caught.value.pointer is not None
    caught.value.pointer.encode()
    return caught.value


def test_defaults_are_filled_in_and_the_order_is_the_definitions() -> None:
    spec = job(
        A=VariableSpec(default="x"), B=VariableSpec(), C=VariableSpec(type=INTEGER, default=3)
    )
    assert list(resolve_variables(spec, {"C": 4}).items()) == [("A", "x"), ("C", 4)]


def test_null_is_the_same_as_not_given() -> None:
    spec = job(A=VariableSpec(default="x"), B=VariableSpec())
    assert resolve_variables(spec, {"A": None, "B": None}) == {"A": "x"}
    assert "is required" in refused(job(A=VariableSpec(required=True)), {"A": None}).message
    day = VariableSpec(required=True, pattern=r"\d{4}-\d{2}")
    assert refused(job(Day=day), {}).message == (
        r'variable "Day" is required: must match \d{4}-\d{2} as a whole'
    )


def test_an_undeclared_name_is_refused_with_the_nearest_one() -> None:
    refusal = refused(job(Interval=VariableSpec()), {"intervall": 3})
    assert refusal.code == ErrorCode.BAD_VARIABLES
    assert refusal.message == 'the job has no variable "intervall"; did you mean "Interval"?'
    assert refusal.pointer == "/variables/intervall"
    assert "it declares none" in refused(job(), {"X": 1}).message


@pytest.mark.parametrize(
    "name",
    ["\ud800", "x" * 10_000_000, "a\0b\nc", "~/"],
    ids=["half", "long", "control", "pointer"],
)
def test_any_name_can_be_shown_in_a_sentence(name: str) -> None:
    refusal = refused(job(X=VariableSpec()), {name: 1})
    assert len(refusal.message) < 500
    assert refusal.message.isprintable()


def test_the_pointer_is_a_json_pointer() -> None:
    assert refused(job(), {"a/b~c": 1}).pointer == "/variables/a~1b~0c"


@pytest.mark.parametrize(
    ("variable", "value", "sentence"),
    [
        (VariableSpec(type=INTEGER), "30", "must be an integer such as 30, without quotes"),
        (VariableSpec(type=INTEGER), True, "not true"),
        (VariableSpec(type=INTEGER), 1.5, "not 1.5"),
        (VariableSpec(type=INTEGER), 1e300, "must be an integer"),
        (VariableSpec(type=INTEGER), 2**63, "64 bits"),
        (VariableSpec(type=INTEGER), -(2**63) - 1, "64 bits"),
        (VariableSpec(type=INTEGER, min=1), 0, "must be at least 1, not 0"),
        (VariableSpec(type=INTEGER, max=9), 10, "must be at most 9, not 10"),
        (VariableSpec(type=NUMBER), False, "not false"),
        (VariableSpec(type=NUMBER), "2.5", "must be a number"),
        (VariableSpec(type=NUMBER), math.nan, "finite"),
        (VariableSpec(type=NUMBER), math.inf, "finite"),
        (VariableSpec(type=NUMBER, min=0.5), 0.4, "at least 0.5"),
        (VariableSpec(type=BOOLEAN), 1, "must be true or false, without quotes, not an integer"),
        (VariableSpec(type=BOOLEAN), "true", "not text"),
        (VariableSpec(), 30, 'must be text such as "abc", not an integer'),
        (VariableSpec(), False, "not false"),
        (VariableSpec(max_length=3), "abcd", "may have 3 characters, not 4"),
        (VariableSpec(), "a\0", "NUL"),
        (VariableSpec(), "\udfff", "surrogate"),
        (VariableSpec(), "-rf", "allow_dash = true"),
        (VariableSpec(pattern="[a-z]+"), "abc!", "must match [a-z]+ as a whole"),
        (VariableSpec(pattern="[a-z]+"), "abc\n", "as a whole"),
        (VariableSpec(type=CHOICE, choices=("fast", "slow")), "fats", 'did you mean "fast"?'),
        (VariableSpec(type=CHOICE, choices=("1", "2")), 1, 'must be one of "1", "2"'),
        (VariableSpec(), SecretRef(secret="S"), "takes no reference"),
    ],
)
def test_a_value_that_does_not_fit_is_refused(
    variable: VariableSpec, value: Value, sentence: str
) -> None:
    refusal = refused(job(X=variable), {"X": value})
    assert refusal.code == ErrorCode.BAD_VARIABLES
    assert refusal.pointer == "/variables/X"
    assert sentence in refusal.message


@pytest.mark.parametrize(
    ("variable", "value", "result"),
    [
        (VariableSpec(type=INTEGER), 30.0, 30),
        (VariableSpec(type=INTEGER, min=-5, max=5), -5, -5),
        (VariableSpec(type=NUMBER), 3, 3),
        (VariableSpec(allow_dash=True), "-x", "-x"),
        (VariableSpec(pattern="a|ab"), "ab", "ab"),
        (VariableSpec(max_length=2), "éé", "éé"),
        (VariableSpec(type=CHOICE, choices=("-x",)), "-x", "-x"),
        (VariableSpec(type=BOOLEAN), False, False),
        (VariableSpec(), "", ""),
    ],
)
def test_a_value_that_fits_is_taken(variable: VariableSpec, value: Value, result: Value) -> None:
    resolved = resolve_variables(job(X=variable), {"X": value})["X"]
    assert (type(resolved), resolved) == (type(result), result)


def test_a_number_too_long_to_print_is_refused_all_the_same() -> None:
    for kind in (INTEGER, NUMBER):
        assert "64 bits" in refused(job(X=VariableSpec(type=kind)), {"X": 10**5000}).message
    assert "not an integer" in refused(job(X=VariableSpec()), {"X": 10**5000}).message


@pytest.mark.parametrize(
    ("pattern", "text"),
    [
        ("(a+)+b", "a" * 4000),
        ("(a|aa)+b", "a" * 4000),
        (r"(\w+\s?)*!", "word " * 800),
        ("(.*a){20}b", "a" * 4000),
        ("(?:a?){30}a{30}a*b", "a" * 4000),
        (r"([\p{L} ]+)+\.", "é " * 2000),
    ],
)
def test_a_pattern_that_goes_back_without_end_elsewhere_answers(pattern: str, text: str) -> None:
    """With an engine that tries all ways it would take longer than the universe is old."""
    spec = VariableSpec(pattern=pattern)
    assert f"must match {pattern} as a whole" in refused(job(X=spec), {"X": text}).message
    accepted = text[:-1] + pattern[-1]
    assert resolve_variables(job(X=spec), {"X": accepted}) == {"X": accepted}


@given(
    st.from_regex(r"([ab](\?|\*|\+|\{1,3\})?|\[\^?[ab]\]|\(a\|b?\)\*?|\.|\|){0,6}", fullmatch=True),
    st.text("ab\n", max_size=6),
)
def test_patterns_mean_what_they_mean_to_python(pattern: str, text: str) -> None:
    assert matches(pattern, text) == (re.fullmatch(pattern, text) is not None)


def test_a_pattern_of_an_earlier_version_that_cannot_be_used_is_a_refusal() -> None:
    message = refused(job(X=VariableSpec(pattern="(?!-).+")), {"X": "a"}).message
    assert "cannot be checked: its pattern is no regular expression: (?! looks ahead" in message


@pytest.mark.parametrize("value", [SECRET_TEXT, 7, True, ""])
def test_a_secret_by_value_is_refused_without_repeating_it(value: Value) -> None:
    spec = job(Other=VariableSpec(type=INTEGER), Password=VariableSpec(type=SECRET))
    refusal = refused(spec, {"Unknown": 1, "Other": "wrong", "Password": value})
    assert refusal.code == ErrorCode.SECRET_BY_VALUE
    assert SECRET_TEXT not in refusal.message
    assert refusal.pointer == "/variables/Password"


def test_a_secret_by_name_is_taken() -> None:
    spec = job(Password=VariableSpec(type=SECRET, required=True))
    reference = SecretRef(secret="DB_PASSWORD")
    assert resolve_variables(spec, {"Password": reference}) == {"Password": reference}
    assert refused(spec, {"Password": SecretRef(secret="../x")}).code == ErrorCode.BAD_VARIABLES
    assert "is required" in refused(spec, {}).message


values = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.text(st.characters(), max_size=8),
    st.builds(SecretRef, secret=st.text(max_size=4)),
)
variables = st.builds(
    VariableSpec,
    type=st.sampled_from(VariableType),
    required=st.booleans(),
    min=st.none() | st.integers(-5, 0),
    max=st.none() | st.integers(1, 100),
    max_length=st.integers(1, 8),
    pattern=st.sampled_from([None, "[a-z]*", ".*"]),
    choices=st.just(("a", "b")),
    allow_dash=st.booleans(),
)


@given(
    declared=st.dictionaries(st.sampled_from("ABC"), variables),
    given_values=st.dictionaries(st.sampled_from("ABCD"), values),
)
def test_whatever_is_given_is_refused_or_resolved_for_good(
    declared: dict[str, VariableSpec], given_values: dict[str, Value]
) -> None:
    spec = JobSpec(command=("run",), variables=declared)
    refusal: Refused | None = None
    resolved: dict[str, Value] = {}
    try:
        resolved = resolve_variables(spec, given_values)
    except Refused as exc:
        refusal = exc
    if refusal is not None:
        assert refusal.code in (ErrorCode.BAD_VARIABLES, ErrorCode.SECRET_BY_VALUE)
        refusal.message.encode()
        return
    assert resolve_variables(spec, resolved) == resolved
    msgspec.json.encode(resolved)
    assert None not in resolved.values()
    assert set(resolved) <= set(declared)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (True, "true"),
        (False, "false"),
        (30, "30"),
        (30.0, "30"),
        (-0.0, "0"),
        (0.1, "0.1"),
        (1e-7, "0.0000001"),
        (1e22, "10000000000000000000000"),
        (120.0, "120"),
        (None, ""),
        ("é {{X}}", "é {{X}}"),
    ],
)
def test_values_are_spelled_as_documented(value: Value, text: str) -> None:
    assert spell(value) == text


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_a_spelled_number_reads_back_as_itself(value: float) -> None:
    text = spell(value)
    assert "e" not in text.lower()
    assert float(text) == float(json.loads(text)) == value


def test_references_may_have_blanks_and_other_braces_are_text() -> None:
    text = "{{A}} {{ B }} {{.Names}} {{A B}} {A} {{}} {{1}}"
    assert names_in(text) == ("A", "B")
    assert render(text, {"A": 1, "B": "{{A}}"}) == "1 {{A}} {{.Names}} {{A B}} {A} {{}} {{1}}"

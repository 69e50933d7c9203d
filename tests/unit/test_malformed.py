"""Why bytes are no JSON, and values do not fit: the place, and what would belong there."""

import json
from typing import Annotated, Literal

import msgspec
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from bus.malformed import NAMES_MAX, why_ambiguous, why_no_json, why_no_value, why_unfit
from jobbus.cli.exits import CliError
from jobbus.cli.values import variables_of
from tests.wrong_bodies import broken, found_in

WHOLE = b'{"command":"start","jobId":"W/Job"}'


@pytest.mark.parametrize(
    ("raw", "words"),
    [
        (b'{\n  "a": "Gr\xfcn"\n}', ["line 2, column 11", "byte 0xFC", "in UTF-8, please"]),
        ('{"ü": 1,}'.encode(), ["line 1, column 9", "comma"]),
        (b"{'a': 1}", ["line 1, column 2", "double quotes"]),
        (b'{"a": True}', ["line 1, column 7", "write true, in small letters"]),
        (b'{"a": None}', ["write null"]),
        (b'{"a": NaN}', ["finite"]),
        (b'{"a": yes}', ["double quotes"]),
        (b'{"a": 1} // b', ["line 1, column 11", "follows the end"]),
        (b'{// b\n"a": 1}', ["line 1, column 2"]),
        (b'{"a": /* b */ 1}', ["no comments"]),
        (b'{"a": "C:\\Temp"}', ["line 1, column 12", "backslash", "twice"]),
        (b'{"a": "\\u00"}', ["four digits"]),
        (b'{"a": "x\ty"}', ["\\t"]),
        (b'{"a": "\\ud83d"}', ["half of a surrogate pair"]),
        (b'{"a": 1\n"b": 2}', ["line 2, column 1", "comma is missing"]),
        (b'{"a" 1}', ["colon"]),
        (b'{"a": 01}', ["number as JSON writes it"]),
        (b'{"a":\n"b', ["ends at line 2, column 3", "not closed"]),
        (b" \r\n", ["empty"]),
        (b"{\0", ["line 1, column 2", "UTF-16"]),
        (b"\n<Objs/>", ["XML"]),
        (b'{"a":' * 5000, ["nested"]),
        (b'{"a": 1e999}', ["too large"]),
    ],
)
def test_the_place_and_what_belongs_there_are_named(raw: bytes, words: list[str]) -> None:
    reason = why_no_json(raw, "in UTF-8, please")
    assert [word for word in words if word not in reason] == [], reason
    assert found_in(reason) == []


@given(st.binary() | st.text().map(lambda text: json.dumps({"a": text})[:-1].encode()))
@example(b"\xff")
@example(b'{"a":"\\ud800\\ud800"}')
def test_whatever_the_bytes_there_is_a_sentence(raw: bytes) -> None:
    reason = why_no_json(raw)
    assert reason
    assert reason.isprintable()


def test_no_sentence_about_broken_bytes_is_a_librarys() -> None:
    for name, raw in broken(WHOLE):
        assert found_in(why_no_json(raw)) == [], name


class Record(msgspec.Struct, forbid_unknown_fields=True):
    text: str
    count: Annotated[int, msgspec.Meta(ge=0, le=9)] = 0
    name: Annotated[str, msgspec.Meta(min_length=1, max_length=3)] = "x"
    word: Annotated[str, msgspec.Meta(pattern="^a+$")] = "a"
    which: Literal["one", "two"] = "one"
    flag: bool | None = None
    many: tuple[int, ...] = ()
    either: int | str = 0
    number: float = 0.0


@pytest.mark.parametrize(
    ("fields", "steps", "sentence"),
    [
        ({}, ("text",), "missing"),
        ({"text": "", "x": 1}, ("x",), "unknown field"),
        ({"text": 1}, ("text",), "must be text, not a number"),
        ({"text": None}, ("text",), "must be text, not null"),
        ({"text": "", "count": -1}, ("count",), "must be at least 0"),
        ({"text": "", "count": 10}, ("count",), "must be at most 9"),
        ({"text": "", "count": 1.5}, ("count",), "must be a whole number, not a number"),
        ({"text": "", "name": ""}, ("name",), "must have at least 1 characters"),
        ({"text": "", "name": "abcd"}, ("name",), "must have at most 3 characters"),
        ({"text": "", "word": "b"}, ("word",), "must match ^a+$"),
        ({"text": "", "which": "x"}, ("which",), '"x" is none of the words that may stand here'),
        ({"text": "", "flag": "x"}, ("flag",), "must be true or false, not text"),
        ({"text": "", "many": [1, "x"]}, ("many", "1"), "must be a whole number, not text"),
        ({"text": "", "many": {}}, ("many",), "must be a list in brackets, not an object"),
        ({"text": "", "either": []}, ("either",), "must be a whole number or text, not a list"),
    ],
)
def test_what_does_not_fit_is_named_with_its_place(
    fields: dict[str, object], steps: tuple[str, ...], sentence: str
) -> None:
    with pytest.raises(msgspec.ValidationError) as caught:
        msgspec.json.decode(json.dumps(fields), type=Record)
    assert why_unfit(caught.value) == (steps, sentence)


@pytest.mark.parametrize("value", [[1], {"a": 1}, {}, {"secret": 1}, {"secret": "k", "x": 1}])
def test_a_value_that_no_variable_may_have_is_not_repeated(value: object) -> None:
    reason = why_no_value("Count", value)
    assert reason is not None
    assert reason.startswith('variable "Count" must be text, a number, true, false or')
    assert found_in(reason) == []


@pytest.mark.parametrize("value", ["x", 1, 1.5, True, None, {"secret": "k"}, 9**99])
def test_other_values_are_left_to_the_job(value: object) -> None:
    assert why_no_value("Count", value) is None


@pytest.mark.parametrize(
    "text",
    ["[1]", "{", "{'a':1}", "True", '{"secret":1}', '{"a":1}', "", "1e999", '"\\ud800"', "x"],
)
def test_a_wrong_value_on_the_command_line_is_explained(text: str) -> None:
    with pytest.raises(CliError) as caught:
        variables_of([f"Count:={text}"], None)
    assert found_in(str(caught.value)) == []


names = st.text(st.sampled_from('ab"\\:,{} \u00e9'), max_size=3)
values = st.recursive(
    st.sampled_from(["1", "null", '"a"', '"\\":"', '"a\\\\"', '","']),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3).map(lambda items: f"[{','.join(items)}]"),
        st.lists(st.tuples(names, inner, st.booleans()), max_size=4).map(
            lambda members: written(members)
        ),
    ),
    max_leaves=12,
)


def written(members: list[tuple[str, str, bool]]) -> str:
    """An object of these members; a name may be spelled in escapes, and with room behind it."""
    spelled = (
        (_in_escapes(name) if odd else json.dumps(name), value) for name, value, odd in members
    )
    return "{" + ",".join(f"{name}:{value}" for name, value in spelled) + "}"


def _in_escapes(name: str) -> str:
    return '"' + "".join(rf"\u{ord(sign):04x}" for sign in name) + '" '


@given(text=values)
@example(text='{"a":{"secret":"x"},"b":{"secret":"y"}}')
@example(text='{"a":1,"b":{"a":1,"\\u0061":1}}')
def test_a_name_that_stands_twice_in_one_object_is_found_and_no_other(text: str) -> None:
    twice: list[bool] = []

    def look(pairs: list[tuple[str, object]]) -> None:
        twice.append(len({name for name, _ in pairs}) < len(pairs))

    json.loads(text, object_pairs_hook=look)
    assert (why_ambiguous(text.encode()) is not None) == any(twice)


def test_very_many_names_are_only_distinguished_where_each_stands_once() -> None:
    once = json.dumps({f"n{number}": 1 for number in range(2 * NAMES_MAX)})
    again = json.dumps([{"a": 1}] * (NAMES_MAX + 1))
    assert why_ambiguous(once.encode()) is None
    assert f"{NAMES_MAX}" in (why_ambiguous(again.encode()) or "")
    assert why_ambiguous(json.dumps({"text": once}).encode()) is None

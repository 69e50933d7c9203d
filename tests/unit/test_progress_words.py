"""What programs write as progress: understood, or said to be not. Pure."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from handlers.shim.progress_words import newest_in, parse_record

percents = st.integers(0, 100)


@pytest.mark.parametrize(
    ("record", "progress"),
    [
        ("42", {"percent": 42.0}),
        ("\ufeff 42 \0", {"percent": 42.0}),
        ("42,5", {"percent": 42.5}),
        ("42,125000 %", {"percent": 42.125}),
        ("0.5", {"percent": 0.5}),
        ("1e1", {"percent": 10.0}),
        ("100.00000000000001", {"percent": 100.0}),
        ("42 % copying", {"percent": 42.0, "message": "copying"}),
        ("42\tcopying", {"percent": 42.0, "message": "copying"}),
        ("45/100", {"percent": 45.0}),
        (" 45%|██▎  | 45/100 [00:01]", {"percent": 45.0, "message": "|██▎  | 45/100 [00:01]"}),
        ("45%, 3 left", {"percent": 45.0, "message": ", 3 left"}),
        ("3 of 10 files", {"percent": 30.0, "message": "files"}),
        ("5 of them failed", {"percent": 5.0, "message": "of them failed"}),
        ('{"Percent": "42,5 %", "MESSAGE": "m"}', {"percent": 42.5, "message": "m"}),
        ('{"percent": 1, "Percent": 2}', {"percent": 1}),
        ('{"percent": null, "message": "m"}', {"message": "m"}),
    ],
)
def test_record_is_understood(record: str, progress: dict[str, Any]) -> None:
    assert parse_record(record) == (progress, None)


@pytest.mark.parametrize(
    ("record", "progress", "sentence"),
    [
        ("copying files", None, '"copying files" was not understood as progress: write a number'),
        ("1,000", None, "was not understood"),  # a thousand, or one? The program has not said
        ("4_2", None, "was not understood"),
        ("45%5", None, "was not understood"),
        ("45|", None, "was not understood"),
        ("nan", None, "was not understood"),
        ("[42]", None, "was not understood"),
        ('"42"', None, "was not understood"),
        ("150 copying", None, 'percent "150 copying" was not taken: it is a number from 0 to 100'),
        ("-3", None, "from 0 to 100"),
        ("7/0", None, "from 0 to 100"),
        ("12/10", None, "from 0 to 100"),
        ('{"percent": 150, "message": "m"}', {"message": "m"}, "from 0 to 100"),
        ('{"percent": true}', None, "from 0 to 100"),
        ('{"percent": "half"}', None, "was not understood"),
        ('{"percent": NaN}', None, "from 0 to 100"),
        ('{"pct": 42}', None, "a JSON object with percent, message, data"),
        ("{'percent': 42}", None, "was not understood"),
        ('{"percent": 4, "message": 5}', {"percent": 4}, 'message "5" is no text'),
        ('{"percent": 4, "data": [1]}', {"percent": 4}, "data was not taken"),
        (f'{{"percent": 4, "data": {{"a": "{"x" * 17_000}"}}}}', {"percent": 4}, "16 KiB"),
        ("4" + " " * 70_000 + "x", None, "longer than 64 KiB"),
    ],
)
def test_near_miss_is_said_to_be_one(
    record: str, progress: dict[str, Any] | None, sentence: str
) -> None:
    found, miss = parse_record(record)
    assert found == progress
    assert miss is not None
    assert sentence in miss
    assert len(miss) < 300


@pytest.mark.parametrize(
    ("text", "percent"),
    [
        ("57\r58\r", 58),
        ("57\r\n58\r\n", 58),
        ("57\n58", 57),
        ("\0\0\0" + "7\n", 7),
        ('{"percent":1}{"percent":2}', 2),
        ('{"percent":1}\n{\r\n  "percent": 2\r\n}\r\n', 2),
        ("{oops\n50\n", 50),
        ('{"percent": 5,\n}\n7\n', 7),
        ("[\n 17\n]\n", None),
        ("{'list': [\n 17\n]}\n", None),  # as Python prints it: no JSON
        ('9\n{"list": [\n 17,\n 18\n', 9),
        ('{"percent": 3} 50\n', None),
    ],
)
def test_newest_whole_record_counts(text: str, percent: float | None) -> None:
    found = newest_in(text, is_whole=False).progress
    assert (found or {}).get("percent") == percent


@given(st.lists(percents, min_size=1, max_size=300), st.sampled_from("\r\n"), st.data())
def test_any_beginning_of_lines_says_only_what_was_said(
    numbers: list[int], line_end: str, data: st.DataObject
) -> None:
    text = "".join(f"{number}{line_end}" for number in numbers)
    cut = text[: data.draw(st.integers(0, len(text)))]
    whole = cut.count(line_end)
    found = newest_in(cut, is_whole=False).progress
    assert found == ({"percent": numbers[whole - 1]} if whole else None)


texts = st.text(st.sampled_from('{}[]":,\\x9 \n'), max_size=9)
values = st.recursive(
    st.none() | st.booleans() | percents | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=9,
)


@given(
    st.lists(st.tuples(percents, values), min_size=1, max_size=4),
    st.sampled_from([None, 0, 2]),
    st.sampled_from(["\n", "\r\n", ""]),
    st.data(),
)
def test_any_beginning_of_objects_over_lines_says_only_what_was_said(
    objects: list[tuple[int, Any]], indent: int | None, between: str, data: st.DataObject
) -> None:
    pieces = [
        json.dumps({"data": {"v": value}, "percent": percent}, indent=indent) + between
        for percent, value in objects
    ]
    text = "".join(pieces)
    at = data.draw(st.integers(0, len(text)))
    found = newest_in(text[:at], is_whole=False)
    whole = 0
    while whole < len(pieces) and len("".join(pieces[: whole + 1]).rstrip()) <= at:
        whole += 1
    said = None if found.progress is None else found.progress["percent"]
    assert said == (objects[whole - 1][0] if whole else None)
    assert found.miss is None
    # Nor does an object that will never be whole.
    cut = newest_in(text[:at], is_whole=True).progress
    assert (None if cut is None else cut["percent"]) == said


@given(st.text(st.sampled_from('{}[]":,\\4 \r\n-e.tru%/'), max_size=40), st.booleans())
def test_any_text_is_read_to_an_end(text: str, is_whole: bool) -> None:
    found = newest_in(text, is_whole=is_whole)
    assert 0 <= found.end <= len(text)
    if found.progress is not None:
        assert 0.0 <= found.progress.get("percent", 0.0) <= 100.0

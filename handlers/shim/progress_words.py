"""What a program's words about its progress mean: the newest that is whole. Stdlib only, no IO.

A record is a line (`42`, `42% copying`, `45/100`) or a JSON object, over as many lines as it likes.
Everything comes from the job and may be hostile: sizes are bounded.
"""

import json
import math
import re
from collections.abc import Callable
from typing import Any, NamedTuple

RECORD_CHARS_MAX = 65_536
RECENT_CHARS = 16_384
"""Of lines without JSON only the last ones are read: the newest counts."""
MESSAGE_MAX = 1000
DATA_BYTES_MAX = 16_384
DATA_LEVELS_MAX = 32
"""Every reader of it recurses, each from a stack of another depth."""
ROUNDING = 0.01
"""Sums of floats end a little above 100."""

JobProgress = dict[str, Any]
"""`percent`, `message`, `data`, `note`: the fields of `bus.model.Progress` that were given."""

_QUOTED_MAX = 60
_NUMBER = r"[+-]?(?:\d+(?:[.,]\d*)?|[.,]\d+)(?:[eE][+-]?\d+)?"
_LINE = re.compile(
    rf"({_NUMBER})(?:\s*(?:/|of\b)\s*({_NUMBER}))?\s*(?:%(?=[|,:;])|%?(?:\s+|$))(.*)",
    re.ASCII | re.DOTALL,
)
"""Bars as `tqdm` draws them go on behind the sign at once: `45%|████▌     | 45/100`."""
_THOUSANDS = re.compile(r"[+-]?\d{1,3}(?:,\d{3})+", re.ASCII)
_BETWEEN = re.compile("[ \t\r\n\f\v\0\ufeff]*")
_LINE_END = re.compile(r"[\r\n]")
_AFTER_OBJECT = re.compile("[ \t\0\ufeff]*(?:[\r\n{[]|$)")
_TOKEN = re.compile(r'[ \t\r\n]*(?:("(?:[^"\\\x00-\x1f]|\\.)*")|([{}\[\],:])|([-+.\w]+))', re.ASCII)
_OPEN_STRING = re.compile(r'[ \t\r\n]*(?:"(?:[^"\\\x00-\x1f]|\\.)*\\?)?')
_WORD = re.compile(r"-?\d+(?:\.\d+)?(?:[eE][+-]?\d+)?|true|false|null|NaN|-?Infinity", re.ASCII)
_BRACE = re.compile(r'"(?:[^"\\\r\n]|\\.)*"|[{}]')
_decoder = json.JSONDecoder()


class Said(NamedTuple):
    """`progress`: the newest; `miss`: what the first record lacks that was not understood.

    Up to `end` all records are ended by a line end or a brace; what follows may still grow.
    """

    progress: JobProgress | None
    miss: str | None
    end: int


def newest_in(
    text: str, *, is_whole: bool, clean: Callable[[str], str] = lambda text: text
) -> Said:
    """What `text`, which begins with a record, says last. `clean` is applied to each record.

    `is_whole`: nothing is being added, so a last line without its end counts, too. Otherwise its
    number may be the first digits of another.
    """
    at = _recent(text)
    end = at
    newest, first_miss = None, None
    while True:
        begin = _BETWEEN.match(text, at).end()  # type: ignore[union-attr] # matches nothing, too
        if begin == len(text):
            return Said(newest, first_miss, end if at > end else begin)
        after, is_ended = _record_end(text, begin)
        if not is_ended and not is_whole:
            return Said(newest, first_miss, end)
        progress, miss = parse_record(clean(text[begin:after]))
        newest = progress or newest
        first_miss = first_miss or miss
        at = after
        if is_ended:
            end = after


def parse_record(text: str) -> tuple[JobProgress | None, str | None]:
    """One record as progress, and what is wrong with it; both where a part was understood."""
    text = text.strip(" \t\r\n\f\v\0\ufeff")
    if len(text) > RECORD_CHARS_MAX:
        return None, f"{quoted(text)} is longer than 64 KiB"
    if text.startswith("{"):
        return _from_object(text)
    percent, message, miss = _from_line(text)
    if percent is None:
        return None, miss
    return _progress(percent, message, None), miss


def _recent(text: str) -> int:
    """Where the lines begin that are worth a look."""
    if "{" in text or len(text) <= RECENT_CHARS:
        return 0
    line_end = _LINE_END.search(text, len(text) - RECENT_CHARS)
    return 0 if line_end is None else line_end.end()


def _record_end(text: str, begin: int) -> tuple[int, bool]:
    """Where the record ends that begins there, and whether nothing can be added to it."""
    if text[begin] not in "{[":
        return _line_end(text, begin)
    try:
        _, end = _decoder.raw_decode(text, begin)
    except (ValueError, RecursionError):
        if _is_open_object(text, begin):
            return len(text), False
        return _end_of_damaged(text, begin)
    return (end, True) if _AFTER_OBJECT.match(text, end) else _line_end(text, end)


def _line_end(text: str, at: int) -> tuple[int, bool]:
    found = _LINE_END.search(text, at)
    return (len(text), False) if found is None else (found.start(), True)


def _end_of_damaged(text: str, begin: int) -> tuple[int, bool]:
    """The end of what was meant as an object: its own brace, or else that of its line."""
    depth = 0
    for mark in _BRACE.finditer(text, begin):
        depth += {"{": 1, "}": -1}.get(mark[0], 0)
        if depth == 0 and mark[0] == "}":
            return _line_end(text, mark.end())
    return _line_end(text, begin)


def _is_open_object(text: str, begin: int) -> bool:
    """Whether more text could make JSON of it.

    Then its lines are no records, however much one of them looks like a number.
    """
    stack: list[str] = []
    expected = "value"
    at = begin
    while (token := _TOKEN.match(text, at)) is not None:
        at = token.end()
        string, mark, word = token.groups()
        if word is not None:
            if expected not in _VALUE or not (at == len(text) or _WORD.fullmatch(word)):
                return False
            expected = "comma"
        elif string is not None:
            if expected not in _VALUE | _KEY:
                return False
            expected = "colon" if expected in _KEY else "comma"
        elif not (expected := _after_mark(mark, expected, stack)):
            return False
    return _OPEN_STRING.fullmatch(text, at) is not None


_VALUE = frozenset({"value", "first value"})
_KEY = frozenset({"key", "first key"})


def _after_mark(mark: str, expected: str, stack: list[str]) -> str:
    """What is to follow the mark; nothing if it may not stand there or ends the whole."""
    opened = stack[-1] if stack else ""
    if mark in "{[" and expected in _VALUE:
        stack.append(mark)
        return "first key" if mark == "{" else "first value"
    if opened + mark in ("{}", "[]") and expected in ("comma", "first key", "first value"):
        stack.pop()
        return "comma" if stack else ""
    if mark == ":" and expected == "colon":
        return "value"
    if mark == "," and expected == "comma":
        return "key" if opened == "{" else "value"
    return ""


def _from_line(text: str) -> tuple[float | None, str, str | None]:
    """Percent, message, and what is wrong."""
    parts = _LINE.fullmatch(text)
    if parts is None:
        return None, "", _not_understood(text)
    number, whole, message = parts.groups()
    if any(each is not None and _THOUSANDS.fullmatch(each) for each in (number, whole)):
        return None, "", _not_understood(text)
    value = _float(number)
    if whole is not None:
        total = _float(whole)
        value = 100 * value / total if total > 0 else math.nan
    percent = _in_range(value)
    return percent, message.strip(), None if percent is not None else _beyond(text)


def _from_object(text: str) -> tuple[JobProgress | None, str | None]:
    try:
        content = json.loads(text)
    except (ValueError, RecursionError):
        return None, _not_understood(text)
    fields = {key.casefold(): value for key, value in content.items()} | content
    given = [fields[key] for key in ("percent", "message", "data") if key in fields]
    if content and not given:
        return None, _not_understood(text)
    percent, miss = _percent_of(fields.get("percent"))
    message, data = fields.get("message"), fields.get("data")
    if message is not None and not isinstance(message, str):
        message, miss = None, miss or f"message {quoted(json.dumps(message))} is no text"
    if data is not None and not (isinstance(data, dict) and _is_fit(data, text)):
        data, miss = (
            None,
            miss
            or (
                f"data was not taken: it is an object of at most {DATA_BYTES_MAX >> 10} KiB"
                f" and {DATA_LEVELS_MAX} levels"
            ),
        )
    return _progress(percent, message or "", data), miss


def _percent_of(value: object) -> tuple[float | None, str | None]:
    if value is None:
        return None, None
    if isinstance(value, str):
        percent, message, miss = _from_line(value.strip())
        return (percent, miss) if not message else (None, _beyond(value))
    # A truth value would be 1 or 0, which was not meant.
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None, _beyond(json.dumps(value))
    try:
        percent = _in_range(float(value))
    except OverflowError:
        percent = None
    return percent, None if percent is not None else _beyond(str(value)[:_QUOTED_MAX])


def _progress(
    percent: float | None, message: str, data: dict[str, Any] | None
) -> JobProgress | None:
    made: JobProgress = {}
    if percent is not None:
        made["percent"] = percent
    if message:
        # A lone surrogate from a JSON escape could not be encoded by any reader later.
        made["message"] = message[:MESSAGE_MAX].encode("utf-8", "replace").decode()
    if data is not None:
        made["data"] = data
    return made or None


def _float(number: str) -> float:
    return float(number.replace(",", "."))


def _in_range(value: float) -> float | None:
    is_percent = math.isfinite(value) and -ROUNDING <= value <= 100 + ROUNDING
    return min(100.0, max(0.0, value)) if is_percent else None


def _is_fit(data: dict[str, Any], text: str) -> bool:
    return (
        len(text) <= DATA_BYTES_MAX and not is_deeper(data, DATA_LEVELS_MAX) and is_encodable(data)
    )


def is_deeper(value: object, levels: int) -> bool:
    """Whether objects and lists are nested in more than so many levels."""
    if isinstance(value, dict):
        value = list(value.values())
    if not isinstance(value, list):
        return False
    return levels == 0 or any(is_deeper(each, levels - 1) for each in value)


def is_encodable(data: dict[str, Any]) -> bool:
    """Whether every reader of JSON takes it."""
    try:
        json.dumps(data, ensure_ascii=False, allow_nan=False).encode()
    except (ValueError, RecursionError):
        return False
    return True


def _not_understood(text: str) -> str:
    return (
        f"{quoted(text)} was not understood as progress: write a number from 0 to 100, alone or"
        ' before a text ("42 copying"), or a JSON object with percent, message, data'
    )


def _beyond(text: str) -> str:
    return f"percent {quoted(text)} was not taken: it is a number from 0 to 100"


def quoted(text: str) -> str:
    """The beginning of what a program wrote, as a sentence can repeat it."""
    text = " ".join(text.split())
    short = text if len(text) <= _QUOTED_MAX else text[: _QUOTED_MAX - 1] + "…"
    return '"' + short.encode("utf-8", "replace").decode() + '"'

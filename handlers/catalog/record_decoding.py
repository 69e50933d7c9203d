"""From tables of TOML to our records, key by key: all that does not fit, with its path. Pure."""

import types
from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime
from enum import StrEnum
from functools import cache
from typing import Any, NamedTuple, TypeVar, Union, get_args, get_origin

import msgspec

from bus.schedules import Moment
from bus.wording import did_you_mean, nearest, quoted
from handlers.catalog.problem import Problem, shown
from handlers.catalog.toml_lines import Path
from handlers.catalog.variables import INTEGER_MAX, INTEGER_MIN

NOT_FROM_FILES = frozenset(("directory", "origins"))
"""The catalog's own fields of JobSpec."""

INSTEAD = {
    "shell": '; there is no shell unless command names one: ["sh", "-c", "…"], in whose text a '
    'variable is "$JOBBUS_VAR_NAME"',
}
"""Keys that people expect, and what to write."""

_WORDS: dict[type, str] = {
    str: 'text such as "abc"',
    bool: "true or false",
    int: "an integer",
    float: "a number",
    list: "a list",
    dict: "a table",
}


_R = TypeVar("_R", bound=msgspec.Struct)


def decoded_at_once(
    table: Mapping[str, Any], record: type[_R], own: Mapping[str, Any]
) -> _R | None:
    """The record if nothing is wrong with the table, much quicker than key by key; else None.

    `own` are fields that no file gives.
    """
    if not _is_known(table, record) or _holds_long_number(table):
        return None
    try:
        return msgspec.convert({**table, **own}, record)
    except (msgspec.ValidationError, TypeError):
        return None


def _is_known(table: Any, record: type[msgspec.Struct]) -> bool:
    """Whether each key of the table, and of those in it, is one of the record."""
    if not isinstance(table, dict) or not table.keys() <= fields_of(record).keys():
        return False
    inner = _records_in(record)
    for key in table.keys() & inner.keys():
        among, value = inner[key], table[key]
        match value:
            case list():
                tables = value
            case dict():
                tables = [value] if among.is_one else list(value.values())
            case _:
                return False
        if not all(_is_known(each, among.record) for each in tables):
            return False
    return True


def _holds_long_number(value: Any) -> bool:
    """Whether there is a number of more than 64 bits, see `_leaf`."""
    match value:
        case dict():
            return any(map(_holds_long_number, value.values()))
        case list():
            return any(map(_holds_long_number, value))
        case int():
            return not INTEGER_MIN <= value <= INTEGER_MAX
        case _:
            return False


class _Inner(NamedTuple):
    """Tables that stand in a record: one, or several by name or in a list."""

    record: type[msgspec.Struct]
    is_one: bool


@cache
def _records_in(record: type[msgspec.Struct]) -> Mapping[str, _Inner]:
    found = {}
    for key, field in fields_of(record).items():
        hint = _without_none(field.type)
        arguments = [each for each in get_args(hint) if each is not Ellipsis]
        kinds = (hint,) if get_origin(hint) is None else arguments[-1:]
        for kind in kinds:
            if isinstance(kind, type) and issubclass(kind, msgspec.Struct):
                found[key] = _Inner(kind, is_one=kind is hint)
    return found


class RecordDecoder:
    """Builds the frozen records key by key, so that each fault knows its path. What cannot be
    decoded is noted and left at its default, so that the rest can be checked as well.

    `_doubtful` are the keys that are faulty or missing, and those that an unknown key was likely
    meant as.
    """

    def __init__(self) -> None:
        self.problems: list[Problem] = []
        self._doubtful: list[Path] = []

    def fields(
        self, record: type[msgspec.Struct], table: Mapping[str, Any], path: Path
    ) -> dict[str, Any]:
        """The record's fields that `table` has, decoded; unknown and missing keys are noted."""
        fields = fields_of(record)
        meant: set[str] = set()
        for key in table:
            if key in fields:
                continue
            place = f" in {shown(path)}" if path else ""
            hint = INSTEAD.get(key, "") or did_you_mean(key, fields)
            self.note((*path, key), f"unknown key {quoted(key)}{place}{hint}")
            near = nearest(key, fields)
            if near is not None:
                meant.add(near)
                self._doubtful.append((*path, near))
        for name, field in fields.items():
            # An unknown key is most likely the missing one, misspelled.
            if field.required and name not in table and name not in meant:
                self.note((*path, name), f"{shown((*path, name))} is missing")
        values = {
            fields[key].name: self._decoded(fields[key].type, raw, (*path, key))
            for key, raw in table.items()
            if key in fields
        }
        decoded = {key: value for key, value in values.items() if value is not _FAULTY}
        for field in fields.values():
            if field.required and field.name not in decoded:
                decoded[field.name] = placeholder(field.type)
        return decoded

    def _decoded(self, hint: Any, raw: Any, path: Path) -> Any:
        hint = _without_none(hint)
        if hint == Moment and isinstance(raw, datetime):
            return raw.isoformat()
        if isinstance(hint, type) and issubclass(hint, msgspec.Struct):
            return self._record(hint, raw, path)
        origin, arguments = get_origin(hint), get_args(hint)
        if origin is tuple:
            if arguments[0] == Moment and isinstance(raw, str | datetime):
                raw = [raw]
            if not self._is_a(list, raw, path):
                return _FAULTY
            return tuple(self._element(arguments[0], r, (*path, i)) for i, r in enumerate(raw))
        if origin is dict:
            if not self._is_a(dict, raw, path):
                return _FAULTY
            return {key: self._element(arguments[1], r, (*path, key)) for key, r in raw.items()}
        return self._leaf(hint, raw, path)

    def _element(self, hint: Any, raw: Any, path: Path) -> Any:
        """As `_decoded`; what is faulty keeps its place, so that others keep theirs."""
        value = self._decoded(hint, raw, path)
        return placeholder(hint) if value is _FAULTY else value

    def _record(self, record: type[msgspec.Struct], raw: Any, path: Path) -> Any:
        if not self._is_a(dict, raw, path):
            return _FAULTY
        return record(**self.fields(record, raw, path))

    def _leaf(self, hint: Any, raw: Any, path: Path) -> Any:
        if isinstance(raw, int) and not INTEGER_MIN <= raw <= INTEGER_MAX:
            # TOML knows longer ones; the journal could not hold it, nor any sentence repeat it.
            self.note(path, f"{shown(path)} is a number of more than 64 bits")
            return _FAULTY
        try:
            return msgspec.convert(raw, hint)
        except msgspec.ValidationError:
            if isinstance(hint, type) and issubclass(hint, StrEnum) and isinstance(raw, str):
                reason = f"{shown(path)} knows no {quoted(raw)}{did_you_mean(raw, hint)}"
            else:
                reason = f"{shown(path)} must be {_expected(hint)}, not {_described(raw)}"
            self.note(path, reason)
            return _FAULTY

    def _is_a(self, kind: type, raw: Any, path: Path) -> bool:
        if isinstance(raw, kind):
            return True
        example = ' such as ["./run.sh", "--fast"]' if path == ("command",) else ""
        self.note(path, f"{shown(path)} must be {_WORDS[kind]}{example}, not {_described(raw)}")
        return False

    def note(self, path: Path, reason: str) -> None:
        """Something that is wrong, beside what decoding itself finds."""
        self.problems.append(Problem(path, reason))
        self._doubtful.append(path)

    def sound(self, problems: Iterable[Problem]) -> Iterator[Problem]:
        """Those of the problems of a decoded record that do not follow from a key that could not
        be decoded."""
        for problem in problems:
            concerned = (problem.path, *problem.rests_on)
            if not any(_touch(path, other) for path in concerned for other in self._doubtful):
                yield problem


def _touch(path: Path, other: Path) -> bool:
    """Whether one is the other, or lies in it."""
    length = min(len(path), len(other))
    return path[:length] == other[:length]


_FAULTY = object()
"""What became of a value that could not be decoded."""


@cache
def fields_of(record: type[msgspec.Struct]) -> Mapping[str, msgspec.structs.FieldInfo]:
    """What may stand in a table of this kind; looking it up costs more than decoding it."""
    found = msgspec.structs.fields(record)
    return {f.encode_name: f for f in found if f.name not in NOT_FROM_FILES}


def placeholder(hint: Any) -> Any:
    """A value of that type, which stands where none could be decoded."""
    if type(None) in get_args(hint):
        return None
    if isinstance(hint, type) and issubclass(hint, msgspec.Struct):
        needed = {f.name: placeholder(f.type) for f in fields_of(hint).values() if f.required}
        return hint(**needed)
    if isinstance(hint, type) and issubclass(hint, StrEnum):
        return next(iter(hint))
    if hint == Moment:
        return ""
    kind = get_origin(hint) or hint
    if kind in (Union, types.UnionType):
        return placeholder(get_args(hint)[0])
    return kind()


def _without_none(hint: Any) -> Any:
    """`X` for `X | None`; other unions as they are."""
    if get_origin(hint) not in (Union, types.UnionType):
        return hint
    rest = [argument for argument in get_args(hint) if argument is not type(None)]
    return rest[0] if len(rest) == 1 else hint


def _expected(hint: Any) -> str:
    if isinstance(hint, type) and issubclass(hint, StrEnum):
        return f"one of {', '.join(quoted(word) for word in hint)}"
    return " or ".join(dict.fromkeys(_alternatives(hint)))


def _alternatives(hint: Any) -> Iterator[str]:
    if hint == Moment:
        yield 'a date and time such as "2026-12-24T18:00:00"'
        return
    for kind in get_args(hint) or (hint,):
        if isinstance(kind, type) and issubclass(kind, msgspec.Struct):
            yield '{ secret = "NAME" }'
        elif kind is not type(None):
            yield _WORDS[kind]


def _described(raw: Any) -> str:
    match raw:
        case bool():
            return "true" if raw else "false"
        case str():
            return "text"
        case int():
            return "an integer"
        case float():
            return "a number"
        case list():
            return "a list"
        case dict():
            return "a table"
        case _:
            return "a date or time"

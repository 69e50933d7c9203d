"""From the text of one `job.toml` to a `JobSpec`, or to what is wrong with it and where. Pure."""

import hashlib
import types
from collections.abc import Iterator
from enum import StrEnum
from typing import Any, Union, get_args, get_origin

import msgspec

from bus.job_definition import DefinitionFault, JobSpec
from bus.toml_text import TomlFault, parse_toml, toml_text
from bus.wording import did_you_mean, quoted
from handlers.catalog.definition_checks import problems_of
from handlers.catalog.problem import Problem, shown
from handlers.catalog.toml_lines import Path, key_lines, line_of
from handlers.catalog.variables import INTEGER_MAX, INTEGER_MIN

SIZE_MAX = 256 * 1024
"""Bytes of a `job.toml`."""

_NOT_FROM_FILE = "directory"  # the catalog's own field of JobSpec

_WORDS: dict[type, str] = {
    str: 'text such as "abc"',
    bool: "true or false",
    int: "an integer",
    float: "a number",
    list: "a list",
    dict: "a table",
}


def decode_definition(content: bytes, *, file: str, directory: str) -> JobSpec | DefinitionFault:
    """The job that `content` defines, or its first fault by line.

    `file` is how faults name the file; `directory` is the absolute path of the job's folder.
    """
    try:
        text = _text(content)
        document = parse_toml(text)
        decoder = _Decoder()
        spec = decoder.job(document, directory)
        problems = decoder.problems or list(problems_of(spec))
        if not problems:
            return spec
        lines = key_lines(text)
    except TomlFault as fault:
        return DefinitionFault(file=file, line=fault.line, reason=fault.reason)
    except RecursionError:
        return DefinitionFault(file=file, line=0, reason="lists or tables are nested too deeply")
    first = min(problems, key=lambda problem: line_of(problem.path, lines))
    return DefinitionFault(file=file, line=line_of(first.path, lines), reason=first.reason)


def revision_of(content: bytes, directory: str) -> str:
    """12 hex digits that change with the definition or the place of its folder."""
    return hashlib.blake2b(content + b"\0" + directory.encode(), digest_size=6).hexdigest()


def _text(content: bytes) -> str:
    if len(content) > SIZE_MAX:
        raise TomlFault(0, 0, f"is larger than {SIZE_MAX // 1024} KiB")
    return toml_text(content)


class _Decoder:
    """Builds the frozen records key by key, so that each fault knows its path."""

    def __init__(self) -> None:
        self.problems: list[Problem] = []

    def job(self, document: dict[str, Any], directory: str) -> JobSpec:
        """The spec; with `problems` it is only half true and must not be used."""
        values = self._fields(JobSpec, document, ())
        values.setdefault("command", ())
        return JobSpec(**values, directory=directory)

    def _fields(
        self, record: type[msgspec.Struct], table: dict[str, Any], path: Path
    ) -> dict[str, Any]:
        """The record's fields that `table` has, decoded; unknown and missing keys are noted."""
        fields = {f.name: f for f in msgspec.structs.fields(record) if f.name != _NOT_FROM_FILE}
        unknown = [key for key in table if key not in fields]
        for key in unknown:
            place = f" in {shown(path)}" if path else ""
            hint = did_you_mean(key, fields)
            self._note((*path, key), f"unknown key {quoted(key)}{place}{hint}")
        for name, field in fields.items():
            # An unknown key is most likely the missing one, misspelled.
            if field.required and name not in table and not unknown:
                self._note(path, f"{shown((*path, name))} is missing")
        return {
            key: self._decoded(fields[key].type, raw, (*path, key))
            for key, raw in table.items()
            if key in fields
        }

    def _decoded(self, hint: Any, raw: Any, path: Path) -> Any:
        hint = _without_none(hint)
        if isinstance(hint, type) and issubclass(hint, msgspec.Struct):
            return self._record(hint, raw, path)
        origin, arguments = get_origin(hint), get_args(hint)
        if origin is tuple:
            if not self._is_a(list, raw, path):
                return ()
            return tuple(self._decoded(arguments[0], r, (*path, i)) for i, r in enumerate(raw))
        if origin is dict:
            if not self._is_a(dict, raw, path):
                return {}
            return {key: self._decoded(arguments[1], r, (*path, key)) for key, r in raw.items()}
        return self._leaf(hint, raw, path)

    def _record(self, record: type[msgspec.Struct], raw: Any, path: Path) -> Any:
        if not self._is_a(dict, raw, path):
            return None
        before = len(self.problems)
        values = self._fields(record, raw, path)
        return record(**values) if len(self.problems) == before else None

    def _leaf(self, hint: Any, raw: Any, path: Path) -> Any:
        if isinstance(raw, int) and not INTEGER_MIN <= raw <= INTEGER_MAX:
            # TOML knows longer ones; the journal could not hold it, nor any sentence repeat it.
            self._note(path, f"{shown(path)} is a number of more than 64 bits")
            return None
        try:
            return msgspec.convert(raw, hint)
        except msgspec.ValidationError:
            if isinstance(hint, type) and issubclass(hint, StrEnum) and isinstance(raw, str):
                reason = f"{shown(path)} knows no {quoted(raw)}{did_you_mean(raw, hint)}"
            else:
                reason = f"{shown(path)} must be {_expected(hint)}, not {_described(raw)}"
            self._note(path, reason)
            return None

    def _is_a(self, kind: type, raw: Any, path: Path) -> bool:
        if isinstance(raw, kind):
            return True
        example = ' such as ["./run.sh", "--fast"]' if path == ("command",) else ""
        self._note(path, f"{shown(path)} must be {_WORDS[kind]}{example}, not {_described(raw)}")
        return False

    def _note(self, path: Path, reason: str) -> None:
        self.problems.append(Problem(path, reason))


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

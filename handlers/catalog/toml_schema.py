"""JSON schemas of TOML files, made of our records and of what the checks say, for editors. Pure.

Draft 7, which taplo knows. A file that the schema refuses is refused by the checks as well; they
know more than a schema can say.
"""

import re
import types
from collections.abc import Callable, Iterable, Mapping
from enum import StrEnum
from pathlib import PurePath
from typing import Any, Final, Union, get_args, get_origin

import msgspec

from bus.apps import AppSpec
from bus.job_definition import UMASK, JobSpec, VariableSpec
from bus.model import FINAL_EXECUTION
from bus.schedules import Moment
from handlers.catalog.chain_checks import JOB_ID
from handlers.catalog.definition_checks import SIGNALS, problems_of
from handlers.catalog.limit_checks import ID_MAX
from handlers.catalog.program_call import RESERVED_NAMES, RESERVED_PREFIX
from handlers.catalog.record_decoding import fields_of, placeholder
from handlers.catalog.variable_checks import ONLY_FOR, VARIABLE_NAME

Schema = dict[str, Any]
Span = tuple[float, float]

DRAFT: Final = "http://json-schema.org/draft-07/schema#"
_RANGE: Final = re.compile(r"must be from (\S+) to (\S+?),")
_OUT_OF_ALL: Final = -1_000_000
"""Below each number that may stand anywhere."""

_TYPES: Final[dict[Any, str]] = {str: "string", bool: "boolean", int: "integer", float: "number"}
_JOB_ID: Final = f"^{JOB_ID.pattern}$"
_NOT_BLANK: Final[Schema] = {"items": {"type": "string", "pattern": r"\S"}}
_ENDS: Final[Schema] = {"items": {"enum": sorted(FINAL_EXECUTION)}}
_ACCOUNT: Final[Schema] = {"pattern": r"\S", "minimum": 0, "maximum": ID_MAX}
_OURS: Final = "|".join((RESERVED_PREFIX, *(f"{name}$" for name in RESERVED_NAMES)))

_MORE: Final[Mapping[str, Schema]] = {
    "command": {
        "minItems": 1,
        "items": [{"type": "string", "minLength": 1}],
        "additionalItems": {"type": "string"},
    },
    "cwd": {"minLength": 1},
    "env_file": {"pattern": r"^\??.*\S", "not": {"pattern": r"^\s*\?\s*$"}},
    "stdin": {"pattern": r"^(null$|file:.|variable:.)"},
    "ready": {"pattern": r"^(spawn$|notify$|after_s:[0-9]|tcp:.|https?:.|output:.)"},
    "formerly": {"items": {"type": "string", "pattern": _JOB_ID}},
    "user": _ACCOUNT,
    "group": _ACCOUNT,
    "health": {"allOf": [{"anyOf": [{"required": ["command"]}, {"required": ["url"]}]}]},
    "env": {"propertyNames": {"pattern": f"^(?!{_OURS})[^=]+$"}},
    "stop_signal": {"enum": sorted(SIGNALS)},
    "success_codes": {"minItems": 1, "items": {"type": "integer", "minimum": 0, "maximum": 255}},
    "umask": {"pattern": f"^({UMASK})$"},
    "variables": {"propertyNames": {"pattern": f"^{VARIABLE_NAME.pattern}$"}},
    "retry.on": _ENDS,
    "after.on": _ENDS,
    "after.start": {"pattern": _JOB_ID},
    **{f"roles.{name}": _NOT_BLANK for name in ("view", "start", "stop", "restart", "output")},
}
"""What the types do not say and the checks do."""


def job_schema(tables: Mapping[str, str], keys: Mapping[str, str], *, whole: bool = True) -> Schema:
    """Of `job.toml`, or of `defaults.toml`, which is not `whole`: there nothing is required.

    `tables` and `keys` are the words that describe them, by name.
    """
    schema = _Maker(tables, keys, _MORE, range_of).table(JobSpec, "")
    schema["properties"]["variables"]["additionalProperties"]["allOf"] = _only_for()
    # Of a list of tables the nearer file has all or nothing, so this holds in defaults, too.
    rules = [{"required": [key]} for key in ("cron", "every_s", "at", "calendar")]
    schema["properties"]["schedule"]["items"]["oneOf"] = rules
    title = "job.toml" if whole else "defaults.toml"
    if not whole:
        _without_required(schema)
    return {"$schema": DRAFT, "title": f"{title} of jobbus"} | schema


def app_schema(keys: Mapping[str, str]) -> Schema:
    """Of `app.toml`."""
    schema = _Maker({}, keys, {}, lambda record, name, path: None).table(AppSpec, "")
    return {"$schema": DRAFT, "title": "app.toml of jobbus"} | schema


def sections_schema(
    title: str,
    sections: Mapping[str, type[msgspec.Struct]],
    named: Mapping[str, type[msgspec.Struct]],
    tables: Mapping[str, str],
    keys: Mapping[str, str],
    span_of: "SpanOf",
) -> Schema:
    """Of a file of sections; the keys of the `named` ones are names, each with a table."""
    maker = _Maker(tables, keys, {}, span_of)
    properties = {name: maker.table(record, name) for name, record in sections.items()}
    for name, record in named.items():
        properties[name] = {
            "type": "object",
            "description": _plain(tables[name]),
            "additionalProperties": maker.table(record, name),
        }
    return {
        "$schema": DRAFT,
        "title": title,
        "type": "object",
        "properties": properties,
        "additionalProperties": False,
    }


def range_of(record: type[msgspec.Struct], name: str, path: str) -> Span | None:
    """From where to where a number of a definition may go, as the checks themselves say."""
    section = path.rpartition(".")[0]
    needed = {key: placeholder(f.type) for key, f in fields_of(record).items() if f.required}
    values = needed | {name: _OUT_OF_ALL}
    if record is not JobSpec:
        found: Any = record(**values)
        kind = get_origin(fields_of(JobSpec)[section.partition(".")[0]].type)
        found = (found,) if kind is tuple else {"X": found} if kind is dict else found
        values = {section.partition(".")[0]: found}
    spec = JobSpec(**{"command": ("x",)} | values)
    return first_span(each.reason for each in problems_of(spec) if each.path[-1] == name)


def first_span(sentences: Iterable[str]) -> Span | None:
    """The limits in the first sentence that names some."""
    for sentence in sentences:
        found = _RANGE.search(sentence)
        if found is not None:
            return float(found[1]), float(found[2])
    return None


SpanOf = Callable[[type[msgspec.Struct], str, str], Span | None]
"""From a record, the name of one of its numbers, and the path of that."""


class _Maker:
    """Makes schemas of records, with words and limits looked up by the path of each key."""

    def __init__(
        self,
        tables: Mapping[str, str],
        keys: Mapping[str, str],
        more: Mapping[str, Schema],
        span_of: SpanOf,
    ) -> None:
        self._tables = tables
        self._keys = keys
        self._more = more
        self._span_of = span_of

    def table(self, record: type[msgspec.Struct], path: str) -> Schema:
        schema: Schema = {
            "type": "object",
            "properties": {
                name: self._key(record, field, f"{path}.{name}" if path else name)
                for name, field in fields_of(record).items()
            },
            "additionalProperties": False,
        }
        if path in self._tables:
            schema["description"] = _plain(self._tables[path])
        needed = [name for name, field in fields_of(record).items() if field.required]
        return schema | ({"required": needed} if needed else {})

    def _key(
        self, record: type[msgspec.Struct], field: msgspec.structs.FieldInfo, path: str
    ) -> Schema:
        schema = self._value(field.type, path)
        about = (self._keys.get(path), self._tables.get(path), self._tables.get(f"{path}.NAME"))
        words = next(filter(None, about), None)
        if words is not None:
            schema["description"] = _plain(words)
        if schema.get("type") in ("integer", "number"):
            span = self._span_of(record, field.name, path)
            if span is not None:
                low, high = span
                schema |= {"minimum": _number(low), "maximum": _number(high)}
        default = _default(field)
        if default is not None:
            schema["default"] = default
        more = self._more.get(path, {})
        if "enum" in more:
            schema.pop("type", None)
        return schema | more

    def _value(self, hint: Any, path: str) -> Schema:
        kinds = [kind for kind in get_args(hint) if kind is not type(None)]
        origin = get_origin(hint)
        if origin in (Union, types.UnionType):
            if len(kinds) == 1:
                return self._value(kinds[0], path)
            return _any_of([self._value(kind, path) for kind in kinds])
        if hint == Moment:
            return {"type": "string"}
        if origin is tuple and kinds[0] == Moment:
            return {"type": ["string", "array"], "items": {"type": "string"}}
        if origin is tuple:
            return {"type": "array", "items": self._value(kinds[0], path)}
        if origin is dict:
            inner = f"{path}.NAME" if kinds[1] is VariableSpec else path
            return {"type": "object", "additionalProperties": self._value(kinds[1], inner)}
        if isinstance(hint, type) and issubclass(hint, msgspec.Struct):
            return self.table(hint, path)
        if isinstance(hint, type) and issubclass(hint, StrEnum):
            return {"enum": [word.value for word in hint]}
        if isinstance(hint, type) and issubclass(hint, PurePath):
            return {"type": "string"}
        return {"type": _TYPES[hint]}


def _any_of(parts: list[Schema]) -> Schema:
    """One schema of several types, where that says it all."""
    if all(part.keys() == {"type"} for part in parts):
        return {"type": [part["type"] for part in parts]}
    return {"anyOf": parts}


def _only_for() -> list[Schema]:
    """Which keys of a variable go with which types, and that a choice has choices."""
    rules: list[Schema] = [
        {
            "if": {"required": [key]},
            "then": {
                "properties": {"type": {"enum": [kind.value for kind in kinds]}},
                **({} if "string" in kinds else {"required": ["type"]}),
            },
        }
        for key, kinds in ONLY_FOR.items()
    ]
    choice = {"properties": {"type": {"const": "choice"}}, "required": ["type"]}
    return [*rules, {"if": choice, "then": {"required": ["choices"]}}]


def _default(field: msgspec.structs.FieldInfo) -> Any:
    """The default as JSON has it; None where there is none to show."""
    value = field.default_factory() if callable(field.default_factory) else field.default
    if value in (msgspec.NODEFAULT, msgspec.UNSET, None) or isinstance(value, msgspec.Struct):
        return None
    plain = msgspec.to_builtins(value, enc_hook=str)
    return list(plain) if isinstance(plain, tuple) else plain


def _without_required(schema: Any) -> None:
    """Nothing in it is required: another file may give it."""
    if isinstance(schema, dict):
        schema.pop("required", None) if "properties" in schema else None
        schema.pop("allOf", None)
        for each in schema.values():
            _without_required(each)


def _number(value: float) -> int | float:
    return int(value) if value.is_integer() else value


def _plain(words: str) -> str:
    """The words of the pages without their links: `[text](page)` is `text`."""
    return re.sub(r"\[([^\]]+)\]\([^)]+\)", r"\1", words)

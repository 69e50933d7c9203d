"""What an ended execution hands on to the job that its `[[after]]` starts. Pure.

`{{Name}}` stands for a variable of the first job, `{{result.key}}` for a part of its result. Alone
in a text it keeps its type, and a secret is handed on by its name; within a text it is spelled as
in arguments. What came of it is given like anybody's variables: the second job checks it.
"""

import re
from collections.abc import Iterator, Mapping
from typing import Any

import msgspec

from bus.job_definition import AfterSpec
from bus.model import SecretRef, Value
from handlers.catalog.templates import spell

RESULT = "result"
_NAME = r"[A-Za-z_][A-Za-z0-9_]*"
_KEYS = r"(?:\.[A-Za-z0-9_-]+)+"
_REFERENCE = re.compile(rf"\{{\{{[ \t]*({RESULT}{_KEYS}|{_NAME})[ \t]*\}}\}}")

Result = Mapping[str, Any]


def references_in(text: str) -> Iterator[str]:
    """The names of variables in `text`; parts of the result begin with `result.`."""
    return (match[1] for match in _REFERENCE.finditer(text))


def is_whole(text: str) -> bool:
    """Whether `text` is one reference and nothing else."""
    return _REFERENCE.fullmatch(text.strip(" \t")) is not None


def handed_on(
    after: AfterSpec, variables: Mapping[str, Value], result: Result | None
) -> dict[str, Value]:
    """The variables of the start; one for which the first job has no value is not given."""
    given = {name: _value(value, variables, result) for name, value in after.variables.items()}
    return {name: value for name, value in given.items() if value is not None}


def _value(value: Value, variables: Mapping[str, Value], result: Result | None) -> Value:
    if not isinstance(value, str):
        return value
    if is_whole(value):
        return _found(next(references_in(value)), variables, result)
    return _REFERENCE.sub(lambda match: _spelled(match[1], variables, result), value)


def _found(name: str, variables: Mapping[str, Value], result: Result | None) -> Value:
    """The value; a list or an object is given as JSON."""
    first, *keys = name.split(".")
    if not keys:
        return variables.get(first)
    part: Any = result
    for key in keys:
        part = part.get(key) if isinstance(part, dict) else None
    return msgspec.json.encode(part).decode() if isinstance(part, list | dict) else part


def _spelled(name: str, variables: Mapping[str, Value], result: Result | None) -> str:
    value = _found(name, variables, result)
    assert not isinstance(value, SecretRef), "a definition with a secret within a text is refused"
    return spell(value)

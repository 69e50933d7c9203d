"""The document of the API, OpenAPI 3.1: made of the table of operations and the records. No IO."""

import http
from collections.abc import Iterable, Iterator
from typing import Any

from bus.commands import GRACE_S_MAX, Command
from bus.model import Value
from transports.http.operations import OPERATIONS
from transports.http.web.json_schemas import REF, Schemas
from transports.http.web.operation import Audience, Operation, Parameter, Types
from transports.http.web.problems import (
    PROBLEM_TYPE,
    ProblemDocument,
    code_of,
    known_slugs,
    type_of,
)

_NAMED = {"CommandRequest": Command, "VariableValue": Value}
_BESIDE: dict[str, Any] = {
    "commandId": {"type": ["string", "null"], "format": "uuid"},
    "expiresAt": {"type": ["string", "null"], "format": "date-time"},
}
"""What may stand in the body of any command beside its own fields."""

_REFINED: dict[str, dict[str, Any]] = {
    "executionId": {"format": "uuid"},
    "targetId": {"format": "uuid"},
    "graceS": {"minimum": 0, "maximum": GRACE_S_MAX},
}
"""What commands check of their fields beyond the types of the records."""

_ABOUT = """\
Start, stop, restart and watch jobs. What you may not view does not exist: 404, and absent from lists and streams.
Paths that exist answer HEAD where they answer GET. Other paths and methods: 404 and 405, as problems too.
"""  # noqa: E501


def document(version: str, operations: Iterable[Operation] = OPERATIONS) -> dict[str, Any]:
    """The whole document, ready to be encoded."""
    table = tuple(operation for operation in operations if operation.documented)
    schemas = Schemas(_types(table), _NAMED)
    for kind in Command.__args__:
        _refine(schemas.components[kind.__name__])
    _describe_problems(schemas.components["Problem"]["properties"])
    paths: dict[str, dict[str, Any]] = {}
    for operation in table:
        paths.setdefault(operation.path, {})[operation.method.lower()] = _entry(operation, schemas)
    refused = sorted({status for operation in table for status in operation.refuses})
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "jobbus",
            "version": version,
            "description": _ABOUT,
            "license": {"name": "MIT", "identifier": "MIT"},
        },
        "servers": [{"url": "/"}],
        "paths": paths,
        "components": {
            "schemas": dict(sorted(schemas.components.items())),
            "responses": {f"Problem{status}": _problem(status) for status in refused},
            "securitySchemes": {
                "bearer": {"type": "http", "scheme": "bearer"},
            },
        },
        "security": [{"bearer": []}],
    }


def _types(operations: Iterable[Operation]) -> Iterator[Any]:
    """All types that parameters, bodies and answers have."""
    yield ProblemDocument
    for operation in operations:
        yield from (parameter.type for parameter in operation.parameters)
        for content in (operation.body, *operation.answers.values()):
            yield from (type_ for _, type_ in content if type_ is not None)


def _refine(command: dict[str, Any]) -> None:
    """The schema of a command as the body of a request, where null is as absent."""
    for name, schema in command["properties"].items():
        schema.update(_REFINED.get(name, {}))
        if name not in command["required"] and isinstance(schema.get("type"), str):
            schema["type"] = [schema["type"], "null"]
    command["properties"].update(_BESIDE)


def _describe_problems(fields: dict[str, Any]) -> None:
    """Open sets: what is refused for a new reason must not break those who read it."""
    slugs = known_slugs()
    fields["type"]["description"] = f"Known: {', '.join(type_of(slug) for slug in slugs)}"
    fields["code"]["description"] = f"Known: {', '.join(code_of(slug) for slug in slugs)}"


def _entry(operation: Operation, schemas: Schemas) -> dict[str, Any]:
    entry: dict[str, Any] = {
        "operationId": operation.id,
        "summary": operation.summary,
        "tags": [_tag(operation.path)],
        "responses": dict(_responses(operation, schemas)),
    }
    if operation.audience in (Audience.PUBLIC, Audience.SIGNING_IN):
        entry["security"] = []
    if operation.audience in (Audience.ADMIN, Audience.METRICS):
        entry["description"] = f"Needs {operation.audience.value}."
    if operation.parameters:
        entry["parameters"] = [_parameter(each, schemas) for each in operation.parameters]
    if operation.body:
        entry["requestBody"] = {
            "required": operation.body_required,
            "content": _content(operation.body, schemas),
        }
    return entry


def _responses(operation: Operation, schemas: Schemas) -> Iterator[tuple[str, dict[str, Any]]]:
    for status, types in operation.answers.items():
        answer: dict[str, Any] = {"description": http.HTTPStatus(status).phrase}
        if types:
            answer["content"] = _content(types, schemas)
        yield str(status), answer
    for status in sorted(operation.refuses):
        yield str(status), {"$ref": f"#/components/responses/Problem{status}"}


def _content(types: Types, schemas: Schemas) -> dict[str, Any]:
    return {
        kind: {"schema": {"type": "string"} if type_ is None else schemas.of(type_)}
        for kind, type_ in types
    }


def _problem(status: int) -> dict[str, Any]:
    return {
        "description": http.HTTPStatus(status).phrase,
        "content": {PROBLEM_TYPE: {"schema": {"$ref": f"{REF}Problem"}}},
    }


def _parameter(parameter: Parameter, schemas: Schemas) -> dict[str, Any]:
    return {
        "name": parameter.name,
        "in": parameter.place,
        "description": parameter.about,
        "required": parameter.place == "path",
        "schema": schemas.of(parameter.type),
    }


def _tag(path: str) -> str:
    rest = path.removeprefix("/api/v1/")
    return rest.split("/")[0].removesuffix(".json") if rest != path else "service"

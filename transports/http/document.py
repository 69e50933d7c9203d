"""The API's document, OpenAPI 3.1: generated from the table of routes and the records. No IO."""

import http
from collections.abc import Iterable, Iterator
from typing import Any

import msgspec
from aiohttp import web

from bus.commands import GRACE_S_MAX, Command
from transports.http.access.caller import principal_of
from transports.http.api.schemas import Problem
from transports.http.settings import GatewaySettings
from transports.http.table import OPERATIONS, Access, Operation, Parameter, Types
from transports.http.web.answers import conditional
from transports.http.web.problems import PROBLEM_TYPE, code_of, known_slugs, type_of
from transports.http.web.query import Query

PATH = "/api/v1/openapi.json"
_REF = "#/components/schemas/{name}"
_BESIDE: dict[str, Any] = {
    "commandId": {"anyOf": [{"type": "string", "format": "uuid"}, {"type": "null"}]},
    "expiresAt": {"anyOf": [{"type": "string", "format": "date-time"}, {"type": "null"}]},
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


class DocumentRoutes:
    """The document is the same for everybody, and for those with a credential only: it will name
    the commands of apps."""

    def __init__(self, settings: GatewaySettings) -> None:
        self._settings = settings
        self._document: dict[str, Any] | None = None

    def routes(self) -> list[web.RouteDef]:
        return [web.get(PATH, self.show)]

    async def show(self, request: web.Request) -> web.Response:
        Query(request)
        principal_of(request)
        if self._document is None:
            self._document = document(self._settings.version_shown)
        return conditional(request, self._document)


def document(version: str, operations: Iterable[Operation] = OPERATIONS) -> dict[str, Any]:
    """The whole document, ready to be encoded."""
    table = tuple(operations)
    schemas = _Schemas(table)
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
            "schemas": schemas.components,
            "responses": {f"Problem{status}": _problem(status) for status in refused},
            "securitySchemes": {
                "bearer": {"type": "http", "scheme": "bearer"},
            },
        },
        "security": [{"bearer": []}],
    }


class _Schemas:
    """The schemas of all types in a table, and where to find each."""

    def __init__(self, operations: tuple[Operation, ...]) -> None:
        types = dict.fromkeys(
            type_
            for operation in operations
            for content in (operation.body, *operation.answers.values())
            for _, type_ in content
            if type_ is not None
        )
        wanted = [*types, Problem]
        made, self.components = msgspec.json.schema_components(wanted, ref_template=_REF)
        self._of = dict(zip(wanted, made, strict=True))
        for kind in Command.__args__:
            _refine(self.components[kind.__name__])
        _name_all_problems(self.components[Problem.__name__]["properties"])

    def content(self, types: Types) -> dict[str, Any]:
        return {
            kind: {"schema": {"type": "string"} if type_ is None else self._of[type_]}
            for kind, type_ in types
        }


def _refine(command: dict[str, Any]) -> None:
    """The schema of a command as the body of a request, where null is as absent."""
    for name, schema in command["properties"].items():
        if name not in command["required"] and "anyOf" not in schema:
            default = {"default": schema.pop("default")} if "default" in schema else {}
            of_value = dict(schema)
            schema.clear()
            schema.update(anyOf=[of_value, {"type": "null"}], **default)
        for part in (schema, *schema.get("anyOf", ())):
            if part.get("type") in ("string", "number"):
                part.update(_REFINED.get(name, {}))
    command["properties"].update(_BESIDE)


def _name_all_problems(fields: dict[str, Any]) -> None:
    slugs = known_slugs()
    fields["type"]["enum"] = [type_of(slug) for slug in slugs]
    fields["code"]["enum"] = [code_of(slug) for slug in slugs]


def _entry(operation: Operation, schemas: _Schemas) -> dict[str, Any]:
    entry: dict[str, Any] = {
        "operationId": _operation_id(operation),
        "summary": operation.summary,
        "tags": [_tag(operation.path)],
        "responses": dict(_responses(operation, schemas)),
    }
    if operation.access is Access.PUBLIC:
        entry["security"] = []
    if operation.access is Access.ADMIN:
        entry["description"] = f"Needs {operation.access.value}."
    if operation.parameters:
        entry["parameters"] = [_parameter(parameter) for parameter in operation.parameters]
    if operation.body:
        entry["requestBody"] = {
            "required": operation.body_required,
            "content": schemas.content(operation.body),
        }
    return entry


def _responses(operation: Operation, schemas: _Schemas) -> Iterator[tuple[str, dict[str, Any]]]:
    for status, types in operation.answers.items():
        answer: dict[str, Any] = {"description": http.HTTPStatus(status).phrase}
        if types:
            answer["content"] = schemas.content(types)
        yield str(status), answer
    for status in sorted(operation.refuses):
        yield str(status), {"$ref": f"#/components/responses/Problem{status}"}


def _problem(status: int) -> dict[str, Any]:
    schema = {"$ref": _REF.format(name="Problem")}
    return {
        "description": http.HTTPStatus(status).phrase,
        "content": {PROBLEM_TYPE: {"schema": schema}},
    }


def _parameter(parameter: Parameter) -> dict[str, Any]:
    return {
        "name": parameter.name,
        "in": parameter.place,
        "description": parameter.about,
        "required": parameter.place == "path",
        "schema": parameter.schema,
    }


def _operation_id(operation: Operation) -> str:
    words = operation.path.removeprefix("/api/v1").replace("{", "").replace("}", "")
    return "_".join([operation.method.lower(), *words.replace(".", "/").strip("/").split("/")])


def _tag(path: str) -> str:
    rest = path.removeprefix("/api/v1/")
    return rest.split("/")[0] if rest != path else "service"

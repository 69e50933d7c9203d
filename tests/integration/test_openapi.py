"""The document of the API: it names every operation and nothing else, valid OpenAPI 3.1, in the
forms that generators of clients take best."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from openapi_spec_validator import validate

from bus.commands import Command
from tests.gateway_fixture import ADMIN, ROLELESS, Backend, bearer, serving
from transports.http.document import document
from transports.http.operations import OPERATIONS
from transports.http.web.problems import STATUS_OF_REFUSAL, known_slugs

PATH = "/api/v1/openapi.json"
DOCUMENTED = [operation for operation in OPERATIONS if operation.documented]


@pytest.fixture(scope="module")
def spoken() -> Any:
    """The document as it is sent."""
    return json.loads(json.dumps(document("test")))


async def test_document_is_valid_and_sent_to_any_principal() -> None:
    async with serving(Backend()) as (_, session):
        anonymous = await session.get(PATH)
        somebody = await session.get(PATH, headers=bearer(ROLELESS))
        sent = await somebody.json()
        again = await session.get(
            PATH, headers=bearer(ADMIN) | {"If-None-Match": somebody.headers["ETag"]}
        )
    assert (anonymous.status, somebody.status, again.status) == (401, 200, 304)
    validate(sent)
    assert sent["openapi"] == "3.1.0"
    assert sent["info"]["version"] == "test"


def test_document_has_the_operations_of_the_table(spoken: Any) -> None:
    entries = {
        (method.upper(), path, entry["operationId"])
        for path, methods in spoken["paths"].items()
        for method, entry in methods.items()
    }
    assert entries == {(each.method, each.path, each.id) for each in DOCUMENTED}
    assert len({each.id for each in DOCUMENTED}) == len(DOCUMENTED) == len(entries)


@pytest.mark.parametrize("operation", DOCUMENTED, ids=lambda each: each.id)
def test_operation_is_named_by_a_verb_and_a_noun(operation: Any) -> None:
    verbs = (
        "get list create delete publish cancel start stop restart retry follow open revoke rotate "
        "set explain"
    )
    assert re.fullmatch(rf"(?:{verbs.replace(' ', '|')})(?:[A-Z][a-z]+)+", operation.id)
    assert operation.summary


def test_every_problem_that_any_answer_may_carry_is_described_and_others_may_come(
    spoken: Any,
) -> None:
    """Those in the code, by their literal names, and those that are refusals of the owner."""
    source = "\n".join(path.read_text() for path in Path("transports/http").rglob("*.py"))
    raised = set(re.findall(r'\bProblem\(\s*\d{3},\s*"([a-z-]+)"', source))
    raised |= {code.value.replace("_", "-") for code in STATUS_OF_REFUSAL}
    fields = spoken["components"]["schemas"]["Problem"]["properties"]
    known = fields["type"]["description"]
    assert len(raised) > 40
    assert [slug for slug in raised if f"/problems/{slug}" not in known] == []
    assert len(fields["code"]["description"].split(", ")) == len(known_slugs())
    assert not {"enum", "const"} & (fields["type"].keys() | fields["code"].keys())


def test_every_reference_leads_somewhere_and_every_component_is_used(spoken: Any) -> None:
    names = set(re.findall(r'"\$ref": "#/components/(\w+)/(\w+)"', json.dumps(spoken)))
    assert names
    assert [name for kind, name in names if name not in spoken["components"][kind]] == []
    for kind in ("schemas", "responses"):
        assert spoken["components"][kind].keys() - {name for of, name in names if of == kind} == (
            set()
        )


def test_commands_are_one_union_with_its_discriminator(spoken: Any) -> None:
    schemas = spoken["components"]["schemas"]
    union = schemas["CommandRequest"]
    publish = spoken["paths"]["/api/v1/commands"]["post"]["requestBody"]["content"]
    assert publish["application/json"]["schema"] == {"$ref": "#/components/schemas/CommandRequest"}
    assert union["discriminator"]["propertyName"] == "command"
    mapping = union["discriminator"]["mapping"]
    assert sorted(mapping.values()) == sorted(each["$ref"] for each in union["oneOf"])
    assert mapping.keys() == {str(kind.__struct_config__.tag) for kind in Command.__args__}
    for word, at in mapping.items():
        member = schemas[at.rpartition("/")[2]]
        assert member["properties"]["command"]["const"] == word
        assert "command" in member["required"]


def test_unions_are_one_of_and_what_may_be_null_says_so_in_its_type(spoken: Any) -> None:
    """Of two schemas in a union never both fit, and only a name needs a union to be nullable."""
    unions = [schema["oneOf"] for schema in _schemas(spoken) if "oneOf" in schema]
    assert len(unions) > 5
    for union in unions:
        inline = [part for part in union if "$ref" not in part]
        assert len(inline) <= 1, union
        assert len(union) >= 2, union
    assert [schema for schema in _schemas(spoken) if "anyOf" in schema] == []


def test_words_are_named_once(spoken: Any) -> None:
    """What may be said in a place is a component; the same words are no second one."""
    components = spoken["components"]["schemas"]
    inside = [
        schema
        for schema in _schemas(spoken)
        if "enum" in schema and not any(schema is each for each in components.values())
    ]
    assert inside == []
    sets = [tuple(schema["enum"]) for schema in components.values() if "enum" in schema]
    assert len(sets) == len(set(sets)) > 8
    assert all(schema["type"] == "string" for schema in components.values() if "enum" in schema)


def test_names_of_records_are_those_of_what_they_are(spoken: Any) -> None:
    schemas = spoken["components"]["schemas"]
    names = schemas.keys()
    assert {"Execution", "Command", "Job", "Token", "Session", "Event", "Output"} <= names
    assert [name for name in names if re.search("(?:Told|View|Struct|Spec)$", name)] == []
    assert all(
        schema.get("title", name) == name
        for name, schema in spoken["components"]["schemas"].items()
    )


def _schemas(part: Any) -> Iterator[dict[str, Any]]:
    if isinstance(part, dict):
        yield part
    values = part.values() if isinstance(part, dict) else part if isinstance(part, list) else ()
    for value in values:
        yield from _schemas(value)

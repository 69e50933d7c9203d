"""The API's document: it names every route and nothing else, and it is valid OpenAPI 3.1."""

import json
import re
from pathlib import Path

from openapi_spec_validator import validate

from tests.gateway_fixture import ADMIN, STRANGER, World, bearer, serving
from transports.http.app import Gateway
from transports.http.document import PATH, document
from transports.http.table import OPERATIONS
from transports.http.web.problems import STATUS_OF_REFUSAL, known_slugs

PAGES = {("GET", "/"), ("GET", "/console/{file}")}
"""What is for browsers is no part of the API."""


async def test_every_route_is_in_the_document_and_everything_in_it_is_a_route() -> None:
    served = {
        (route.method, route.resource.canonical)
        for route in Gateway(World().ports())._application().router.routes()
        if route.resource is not None and route.method not in ("HEAD", "OPTIONS")
    }
    told = {(operation.method, operation.path) for operation in OPERATIONS}
    assert len(told) == len(OPERATIONS)
    assert served - PAGES == told


async def test_document_is_valid_and_told_to_whoever_has_a_credential() -> None:
    async with serving(World()) as (_, session):
        nobody = await session.get(PATH)
        somebody = await session.get(PATH, headers=bearer(STRANGER))
        told = await somebody.json()
        again = await session.get(
            PATH, headers=bearer(ADMIN) | {"If-None-Match": somebody.headers["ETag"]}
        )
    assert (nobody.status, somebody.status, again.status) == (401, 200, 304)
    validate(told)
    assert told["openapi"] == "3.1.0"
    assert told["info"]["version"] == "test"


def test_every_problem_that_any_answer_may_carry_is_named() -> None:
    """Those in the code, by their literal names, and those that are refusals of the owner."""
    source = "\n".join(path.read_text() for path in Path("transports/http").rglob("*.py"))
    raised = set(re.findall(r'\bProblem\(\s*\d{3},\s*"([a-z-]+)"', source))
    raised |= {code.value.replace("_", "-") for code in STATUS_OF_REFUSAL}
    fields = document("test")["components"]["schemas"]["Problem"]["properties"]
    assert len(raised) > 40
    assert {f"/problems/{slug}" for slug in raised} <= set(fields["type"]["enum"])
    assert len(fields["code"]["enum"]) == len(fields["type"]["enum"]) == len(known_slugs())


def test_every_reference_leads_somewhere_and_no_operation_shares_its_id() -> None:
    told = document("test")
    names = re.findall(r'"\$ref": "#/components/(\w+)/(\w+)"', json.dumps(told))
    assert names
    assert [name for kind, name in names if name not in told["components"][kind]] == []
    ids = [entry["operationId"] for path in told["paths"].values() for entry in path.values()]
    assert len(ids) == len(set(ids)) == len(OPERATIONS)

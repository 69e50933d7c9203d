"""One table drives routes, access and query parameters: what it says is what is enforced."""

import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import aiohttp
import pytest
from aiohttp import web

from bus.model import Principal
from tests.gateway_fixture import ADMIN, ROLELESS, Backend, bearer, serving
from transports.http.app import Gateway
from transports.http.operations import OPERATIONS, by_route, routes_of
from transports.http.settings import GatewaySettings
from transports.http.web.operation import Audience, Operation

READER = "jb_reader_secret"
"""Of a principal with the role `metrics`."""

ANSWERED = {
    Audience.PUBLIC: {"", ROLELESS, READER, ADMIN},
    Audience.SIGNING_IN: {"", ROLELESS, READER, ADMIN},
    Audience.CONNECTING: {"", ROLELESS, READER, ADMIN},
    Audience.PRINCIPAL: {ROLELESS, READER, ADMIN},
    Audience.METRICS: {READER, ADMIN},
    Audience.ADMIN: {ADMIN},
}


def path_of(operation: Operation) -> str:
    places = {"id": str(uuid.uuid4()), "app": "A", "job": "J", "slug": "malformed", "path": "a/b"}
    return operation.path.format(**places, file="style.css")


@asynccontextmanager
async def backend() -> AsyncIterator[aiohttp.ClientSession]:
    backend = Backend()
    backend.define("A/J")
    backend.principals[READER] = Principal(user_id="prometheus", roles=("metrics",), via="http")
    async with serving(backend) as (_, session):
        yield session


async def test_every_route_stands_in_the_table_and_every_entry_is_a_route() -> None:
    routes = Gateway(Backend().ports())._application().router.routes()
    served = {
        (route.method, route.resource.canonical)
        for route in routes
        if route.resource is not None and route.method != "HEAD"
    }
    assert served == by_route(OPERATIONS).keys()
    assert len(served) == len(OPERATIONS)


async def test_a_route_without_an_entry_is_answered_to_no_client(
    caplog: pytest.LogCaptureFixture,
) -> None:
    reached = []

    class Extended(Gateway):
        def _application(self) -> web.Application:
            app = super()._application()
            app.router.add_get("/api/v1/extra", self._extra)
            return app

        async def _extra(self, request: web.Request) -> web.Response:
            reached.append(request)
            return web.Response(text="extra")

    gateway = Extended(Backend().ports(), GatewaySettings(version="test"))
    url = await gateway.start("127.0.0.1", 0)
    try:
        async with aiohttp.ClientSession(base_url=url) as session:
            for headers in ({}, bearer(ADMIN)):
                response = await session.get("/api/v1/extra", headers=headers)
                assert response.status == 500
                assert (await response.json())["code"] == "internal"
    finally:
        await gateway.aclose()
    assert reached == []


async def test_an_entry_without_its_handler_stops_the_start() -> None:
    with pytest.raises(AssertionError, match="listJobs"):
        routes_of([each for each in OPERATIONS if each.id == "listJobs"], [])


async def test_each_operation_is_answered_for_the_audience_that_its_entry_names() -> None:
    """Two words refuse somebody: 401, or 403 with the code forbidden."""
    wrong: list[tuple[str, str, str, int]] = []
    tried = 0
    async with backend() as session:
        for operation in OPERATIONS:
            heads = ("GET", "HEAD") if operation.method == "GET" else (operation.method,)
            for method in heads if 101 not in operation.answers else ("GET",):
                for token in ("", ROLELESS, READER, ADMIN):
                    async with session.request(
                        method,
                        path_of(operation),
                        headers=bearer(token) if token else {},
                        timeout=aiohttp.ClientTimeout(10),
                    ) as response:
                        tried += 1
                        refused = response.status in (401, 403)
                        expected = token not in ANSWERED[operation.audience]
                        if refused is not expected:
                            wrong.append((method, operation.path, token, response.status))
                        if expected and not token:
                            assert response.status == 401, (method, operation.path)
    assert wrong == []
    assert tried > 200


async def test_each_operation_takes_the_query_parameters_of_its_entry_and_no_other() -> None:
    async with backend() as session:
        for operation in OPERATIONS:
            for name in (*operation.query_names, "nonsense"):
                async with session.request(
                    operation.method,
                    path_of(operation),
                    params={name: "x"},
                    headers=bearer(ADMIN),
                    timeout=aiohttp.ClientTimeout(10),
                ) as response:
                    is_problem = response.content_type == "application/problem+json"
                    code = (await response.json())["code"] if is_problem else ""
                unknown = name not in operation.query_names and not operation.any_query
                assert (code == "unknown_parameter") is unknown, (operation.id, name, code)

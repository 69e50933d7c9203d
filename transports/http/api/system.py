"""Health, version, the state of the service, and what each problem means."""

from collections.abc import Callable
from typing import Annotated, Any

import msgspec
from aiohttp import web
from msgspec import Meta

from bus.commands import SetMaintenance
from transports.http.access.caller import principal_of
from transports.http.api import bodies
from transports.http.ports import GatewayPorts
from transports.http.settings import GatewaySettings
from transports.http.web.answers import conditional, json_response
from transports.http.web.body import decode_field, read_fields, refuse_unknown
from transports.http.web.operation import (
    JSON,
    PUBLIC,
    READ,
    TEXT,
    WRITE,
    Audience,
    Operation,
    Parameter,
)
from transports.http.web.problems import Problem, invalid, is_known_slug, not_found, title_of
from transports.http.web.query import Query

REASON_MAX = 500


class SystemRoutes:
    def __init__(
        self,
        ports: GatewayPorts,
        settings: GatewaySettings,
        streams: Callable[[], dict[str, object]],
        why_not_ready: Callable[[], str | None],
        make_document: Callable[[str], dict[str, Any]],
    ) -> None:
        self._ports = ports
        self._settings = settings
        self._streams = streams
        self._why_not_ready = why_not_ready
        self._make_document = make_document
        self._document: dict[str, Any] | None = None

    # A probe's query is not refused: `?verbose` is usual with those of
    # Kubernetes itself, and after a 400 the pod would be started again.

    async def live(self, _: web.Request) -> web.Response:
        return web.Response(text="alive\n")

    async def ready(self, _: web.Request) -> web.Response:
        why_not = self._why_not_ready()
        if why_not is not None:
            raise Problem(503, "not-ready", why_not, headers={"Retry-After": "1"})
        in_maintenance = self._ports.table.maintenance is not None
        return web.Response(text="ready, in maintenance\n" if in_maintenance else "ready\n")

    async def version(self, request: web.Request) -> web.Response:
        Query(request)
        return json_response(
            {"name": "jobbus", "version": self._settings.version_shown, "api": "v1"}
        )

    async def system(self, request: web.Request) -> web.Response:
        Query(request)
        own = {"version": self._settings.version_shown, "instance": self._ports.instance}
        return json_response(own | self._ports.system() | {"streams": self._streams()})

    async def document(self, request: web.Request) -> web.Response:
        """The same for every principal; never public: it will name the commands of apps."""
        Query(request)
        if self._document is None:
            self._document = self._make_document(self._settings.version_shown)
        return conditional(request, self._document)

    async def maintain(self, request: web.Request) -> web.Response:
        """Nothing is started any more, or things go on; on record when this answers."""
        Query(request)
        principal = principal_of(request)
        fields = await read_fields(request)
        refuse_unknown(fields, ("on", "reason"))
        on = decode_field(fields, "on", bool)
        if on is None:
            raise invalid("/on", "missing; true begins a maintenance, false ends it")
        reason = decode_field(fields, "reason", str) or ""
        if len(reason) > REASON_MAX:
            raise invalid("/reason", f"must not be longer than {REASON_MAX} characters")
        if self._ports.maintain is None:
            raise not_found("maintenance here")
        await self._ports.maintain(SetMaintenance(on=on, by=principal.user_id, reason=reason))
        return json_response({"maintenance": self._ports.system().get("maintenance")})

    async def schema(self, request: web.Request) -> web.Response:
        """The same for everybody, for editors have no token; it says nothing of this service."""
        Query(request)
        name = request.match_info["file"]
        raw = self._ports.schemas(name.removesuffix(".json"))
        if raw is None or not name.endswith(".json"):
            raise not_found("such schema")
        return conditional(request, msgspec.Raw(raw))

    async def believe(self, request: web.Request) -> web.Response:
        """The wall clock is right, says an admin; on record when this answers."""
        Query(request)
        principal = principal_of(request)
        fields = await read_fields(request)
        refuse_unknown(fields, ("believed",))
        if decode_field(fields, "believed", bool) is not True:
            raise invalid("/believed", "must be true: it says that the clock is right")
        if self._ports.believe_clock is None:
            raise not_found("clock here")
        await self._ports.believe_clock(principal.user_id)
        return json_response({"clock": self._ports.system().get("clock")})

    async def problem(self, request: web.Request) -> web.Response:
        Query(request)
        slug = request.match_info["slug"]
        if not is_known_slug(slug):
            raise not_found("such problem")
        return web.Response(text=f"{slug}: {title_of(slug, 400)}\n")


_SchemaName = Annotated[str, Meta(pattern=r"^[a-z]+\.toml\.json$", max_length=64)]
_Slug = Annotated[str, Meta(pattern="^[a-z]+(-[a-z]+)*$", max_length=64)]

OPERATIONS = (
    Operation(
        method="GET",
        path="/api/v1/openapi.json",
        id="getDocument",
        handler=SystemRoutes.document,
        summary="This document",
        answers={200: ((JSON, dict[str, Any]),), 304: ()},
        refuses=READ,
    ),
    Operation(
        method="GET",
        path="/api/v1/system",
        id="getSystem",
        handler=SystemRoutes.system,
        summary="The state of the service",
        audience=Audience.ADMIN,
        answers={200: ((JSON, dict[str, Any]),)},
        refuses=READ,
    ),
    Operation(
        method="POST",
        path="/api/v1/system/maintenance",
        id="setMaintenance",
        handler=SystemRoutes.maintain,
        summary="From now on nothing is started, or all is as usual again",
        audience=Audience.ADMIN,
        body=((JSON, bodies.MaintenanceRequest),),
        answers={200: ((JSON, bodies.Maintenance),)},
        refuses=WRITE | {404},
    ),
    Operation(
        method="POST",
        path="/api/v1/system/clock",
        id="setClock",
        handler=SystemRoutes.believe,
        summary="The wall clock is right: schedules go on",
        audience=Audience.ADMIN,
        body=((JSON, bodies.ClockRequest),),
        answers={200: ((JSON, bodies.Clock),)},
        refuses=WRITE | {404},
    ),
    Operation(
        method="GET",
        path="/livez",
        id="getLiveness",
        handler=SystemRoutes.live,
        summary="The service answers",
        audience=Audience.PUBLIC,
        any_query=True,
        answers={200: ((TEXT, None),)},
        refuses=PUBLIC,
    ),
    Operation(
        method="GET",
        path="/readyz",
        id="getReadiness",
        handler=SystemRoutes.ready,
        summary="The service takes commands",
        audience=Audience.PUBLIC,
        any_query=True,
        answers={200: ((TEXT, None),)},
        refuses=PUBLIC | {503},
    ),
    Operation(
        method="GET",
        path="/version",
        id="getVersion",
        handler=SystemRoutes.version,
        summary="What is installed",
        audience=Audience.PUBLIC,
        answers={200: ((JSON, bodies.Version),)},
        refuses=PUBLIC,
    ),
    Operation(
        method="GET",
        path="/schemas/{file}",
        id="getSchema",
        handler=SystemRoutes.schema,
        summary="The JSON schema of a file that people write, for editors",
        audience=Audience.PUBLIC,
        parameters=(
            Parameter(
                name="file",
                about="The name of the file with .json, such as job.toml.json.",
                place="path",
                type=_SchemaName,
            ),
        ),
        answers={200: ((JSON, dict[str, Any]),), 304: ()},
        refuses=PUBLIC | {404},
    ),
    Operation(
        method="GET",
        path="/problems/{slug}",
        id="explainProblem",
        handler=SystemRoutes.problem,
        summary="What a problem's type means",
        audience=Audience.PUBLIC,
        parameters=(
            Parameter(name="slug", about="The end of the type.", place="path", type=_Slug),
        ),
        answers={200: ((TEXT, None),)},
        refuses=PUBLIC | {404},
    ),
)

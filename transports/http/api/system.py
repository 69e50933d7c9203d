"""Health, version, the state of the service, and what each problem means."""

from collections.abc import Callable

from aiohttp import web

from bus.commands import SetMaintenance
from transports.http.access.caller import need_admin, principal_of
from transports.http.ports import GatewayPorts
from transports.http.settings import GatewaySettings
from transports.http.web.answers import json_response
from transports.http.web.body import decode_field, read_fields, refuse_unknown
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
    ) -> None:
        self._ports = ports
        self._settings = settings
        self._streams = streams
        self._why_not_ready = why_not_ready

    def routes(self) -> list[web.RouteDef]:
        return [
            web.get("/livez", self.live),
            web.get("/readyz", self.ready),
            web.get("/version", self.version),
            web.get("/problems/{slug}", self.problem),
            web.get("/api/v1/system", self.system),
            web.post("/api/v1/system/maintenance", self.maintain),
        ]

    # A probe's query is nobody's mistake to be refused: `?verbose` is usual with those of
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
        need_admin(principal_of(request))
        own = {"version": self._settings.version_shown, "instance": self._ports.instance}
        return json_response(own | self._ports.system() | {"streams": self._streams()})

    async def maintain(self, request: web.Request) -> web.Response:
        """Nothing is started any more, or things go on; on record when this answers."""
        Query(request)
        principal = principal_of(request)
        need_admin(principal)
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

    async def problem(self, request: web.Request) -> web.Response:
        Query(request)
        slug = request.match_info["slug"]
        if not is_known_slug(slug):
            raise not_found("such problem")
        return web.Response(text=f"{slug}: {title_of(slug, 400)}\n")

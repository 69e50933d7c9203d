"""Health, version, the state of the service, and what each problem means."""

from collections.abc import Callable

from aiohttp import web

from transports.http.auth import need_admin, principal_of
from transports.http.problems import Problem, is_known_slug, not_found, title_of
from transports.http.publishing import json_response
from transports.http.query import Query
from transports.http.settings import GatewayPorts, GatewaySettings


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
        ]

    async def live(self, request: web.Request) -> web.Response:
        Query(request)
        return web.Response(text="alive\n")

    async def ready(self, request: web.Request) -> web.Response:
        Query(request)
        why_not = self._why_not_ready()
        if why_not is not None:
            raise Problem(503, "not-ready", why_not, headers={"Retry-After": "1"})
        return web.Response(text="ready\n")

    async def version(self, request: web.Request) -> web.Response:
        Query(request)
        return json_response({"name": "jobbus", "version": self._settings.version, "api": "v1"})

    async def system(self, request: web.Request) -> web.Response:
        Query(request)
        need_admin(principal_of(request))
        own = {"version": self._settings.version, "instance": self._ports.instance}
        return json_response(own | self._ports.system() | {"streams": self._streams()})

    async def problem(self, request: web.Request) -> web.Response:
        Query(request)
        slug = request.match_info["slug"]
        if not is_known_slug(slug):
            raise not_found("such problem")
        return web.Response(text=f"{slug}: {title_of(slug, 400)}\n")

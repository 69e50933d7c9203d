"""The gateway as one object: routes put together, a listening socket, an orderly end."""

from aiohttp import web
from aiohttp.typedefs import Middleware

from transports.http.accesslog import AccessLogger
from transports.http.commands import CommandRoutes
from transports.http.executions import ExecutionRoutes
from transports.http.jobs import JobRoutes
from transports.http.middleware import (
    add_headers,
    allowed_hosts,
    authentication,
    host_check,
    problems,
)
from transports.http.origin import OriginRoutes
from transports.http.output import OutputRoutes
from transports.http.publishing import Publishing
from transports.http.server import ProblemRunner
from transports.http.settings import GatewayPorts, GatewaySettings
from transports.http.system import SystemRoutes
from transports.http.visibility import Visibility

__all__ = ["Gateway", "GatewayPorts", "GatewaySettings"]

PUBLIC = frozenset({"/livez", "/readyz", "/version", "/problems/{slug}", "/", "/console/{file}"})
"""Path templates served without a credential; they hold nothing of anybody."""

_CLEANUP_S = 0.5


class Gateway:
    """The HTTP side of one service. `start` it once, `aclose` it once."""

    def __init__(self, ports: GatewayPorts, settings: GatewaySettings | None = None) -> None:
        self._ports = ports
        self._settings = settings or GatewaySettings()
        self._hosts = allowed_hosts("127.0.0.1", self._settings.hosts)
        self._visibility = Visibility(ports.table, ports.roles)
        self._publishing = Publishing(ports, self._settings)
        self._runner: ProblemRunner | None = None

    async def start(self, host: str, port: int) -> str:
        """Listens and returns the URL; port 0 takes a free one."""
        assert self._runner is None, "a gateway starts once"
        self._hosts = allowed_hosts(host, self._settings.hosts)
        settings = self._settings
        self._runner = ProblemRunner(
            self._application(),
            handle_signals=False,
            access_log_class=AccessLogger,
            keepalive_timeout=settings.keepalive_s,
            shutdown_timeout=_CLEANUP_S,
            max_line_size=settings.header_line_max,
            max_field_size=settings.header_line_max,
        )
        await self._runner.setup()
        site = web.TCPSite(self._runner, host, port)
        await site.start()
        bound = self._runner.addresses[0]
        name = f"[{bound[0]}]" if ":" in bound[0] else bound[0]
        return f"http://{name}:{bound[1]}"

    async def aclose(self) -> None:
        """Takes nothing more, ends waits and streams, then closes what is left."""
        if self._runner is None:
            return
        self._publishing.closing.set()
        await self._runner.cleanup()
        self._runner = None

    def _application(self) -> web.Application:
        middlewares: list[Middleware] = [
            problems(),
            host_check(lambda: self._hosts),
            authentication(self._ports, PUBLIC),
        ]
        app = web.Application(client_max_size=self._settings.body_max, middlewares=middlewares)
        ports, settings, visibility = self._ports, self._settings, self._visibility
        for part in (
            CommandRoutes(ports, self._publishing, visibility),
            OriginRoutes(self._publishing),
            JobRoutes(ports, visibility),
            ExecutionRoutes(ports, self._publishing, visibility),
            OutputRoutes(ports, settings, visibility),
            SystemRoutes(ports, settings, dict, self._publishing.closing.is_set),
        ):
            app.add_routes(part.routes())
        app.on_response_prepare.append(add_headers)
        return app

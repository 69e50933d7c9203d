"""The listening side of aiohttp, changed in two points: unreadable requests get a problem, too, and
the frames of WebSockets are looked at before they are read.
"""

from collections.abc import Callable
from typing import Any

import structlog
from aiohttp import web

from transports.http.middleware import HEADERS, request_id_of
from transports.http.problems import Problem, problem_response
from transports.http.socket_masking import FrameCheck

_log = structlog.get_logger("jobbus.http")


class ProblemProtocol(web.RequestHandler):
    """One connection."""

    __slots__ = ()

    def set_parser(self, parser: Any, data_received_cb: Callable[[], None] | None = None) -> None:
        """aiohttp calls this when a connection becomes a WebSocket."""
        super().set_parser(FrameCheck(parser), data_received_cb)  # type: ignore[arg-type]  # same use

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        """Answers what the HTTP parser could not read; everything else never comes here."""
        request_id = request_id_of(request)
        if request.writer.output_size > 0:
            raise ConnectionError("the answer had begun when it broke") from exc
        if status >= 500:
            _log.error("request failed", request_id=request_id, exc_info=exc)
            problem = Problem(status, "internal", f"see the log of the service for {request_id}")
        else:
            detail = (message or "the request is not valid HTTP").strip().partition("\n")[0]
            _log.info("unreadable request", request_id=request_id, reason=detail)
            problem = Problem(status, "malformed", detail)
        response = problem_response(problem, request_id)
        response.headers.update(HEADERS)
        response.headers["Server"] = "jobbus"
        response.headers["X-Request-Id"] = request_id
        response.force_close()
        return response


class ProblemServer(web.Server):
    def __call__(self) -> web.RequestHandler:
        return ProblemProtocol(self, loop=self._loop, **self._kwargs)


class ProblemRunner(web.AppRunner):
    """An AppRunner whose connections are `ProblemProtocol`s.

    aiohttp has no public place for this; a test sends an unreadable request and would notice.
    """

    async def _make_server(self) -> web.Server:
        made = await super()._make_server()
        kwargs: dict[str, Any] = made._kwargs
        return ProblemServer(made.request_handler, request_factory=made.request_factory, **kwargs)

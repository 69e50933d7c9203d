"""One line a request: who, which route, how long; never the query string, it may hold secrets.

Requests that went well and quickly are logged at level debug.
"""

import logging

import structlog
from aiohttp import web
from aiohttp.abc import AbstractAccessLogger

from transports.http.access.caller import known_principal
from transports.http.web.leases import may_say
from transports.http.web.middleware import request_id_of, template_of

_NAME = "jobbus.access"
log = structlog.get_logger(_NAME)
_level = logging.getLogger(_NAME)

_METHOD_MAX = 32

SLOW_S = 1.0
"""What took longer is worth a line even if it went well."""


class AccessLogger(AbstractAccessLogger):
    """What aiohttp calls after each answer."""

    def log(self, request: web.BaseRequest, response: web.StreamResponse, time: float) -> None:
        # A line costs more than many an answer: what went well is logged at debug only. The audit
        # has who did what, the metrics how much and how fast.
        notable = response.status >= 400 or time >= SLOW_S
        if not notable and not _level.isEnabledFor(logging.DEBUG):
            return
        principal = known_principal(request)
        extra = {} if principal is not None else may_say(request)
        if extra is None:
            return
        write = log.info if notable else log.debug
        write(
            "request",
            method=request.method[:_METHOD_MAX],
            route=template_of(request),
            status=response.status,
            bytes=response.body_length,
            duration_ms=round(time * 1000, 1),
            user=principal.user_id if principal is not None else None,
            request_id=request_id_of(request),
            **extra,
        )

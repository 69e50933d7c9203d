"""`/audit`: who did what, for admins: pages, newest first, or all of it as NDJSON in order."""

import asyncio
from contextlib import aclosing

from aiohttp import web

from bus.audit import AuditQuery, AuditTrail
from bus.clock import from_rfc3339
from transports.http.access.caller import check_while_sending
from transports.http.api import bodies
from transports.http.ports import GatewayPorts
from transports.http.settings import GatewaySettings
from transports.http.web.accept import preferred_type
from transports.http.web.answers import json_response
from transports.http.web.operation import JSON, NDJSON, READ, Audience, Operation, Parameter
from transports.http.web.parameters import CURSOR, JOB, LIMIT, Time, Words
from transports.http.web.problems import bad_parameter, not_found
from transports.http.web.query import Query


class AuditRoutes:
    def __init__(self, ports: GatewayPorts, settings: GatewaySettings) -> None:
        self._audit = ports.audit
        self._settings = settings

    async def show(self, request: web.Request) -> web.StreamResponse:
        query = Query(request)
        if self._audit is None:
            raise not_found("audit here")
        wanted = _query_of(query)
        if preferred_type(request, (JSON, NDJSON)) == NDJSON:
            if query.text("limit") is not None or query.text("cursor") is not None:
                raise bad_parameter("limit", "and cursor are for pages; NDJSON has all entries")
            return await self._export(request, self._audit, wanted)
        page = await self._audit.page(wanted, query.number("limit", low=1, high=500) or 50)
        following = str(page.next) if page.next is not None else None
        headers = {}
        if following is not None:
            url = request.rel_url.update_query(cursor=following)
            headers["Link"] = f'<{url}>; rel="next"'
        return json_response({"items": page.items, "next": following}, headers=headers)

    async def _export(
        self, request: web.Request, audit: AuditTrail, wanted: AuditQuery
    ) -> web.StreamResponse:
        """Ends with the last entry, or when the sender may not read the audit any more."""
        response = web.StreamResponse(headers={"Content-Type": NDJSON})
        if request.method == "HEAD":
            return response
        await response.prepare(request)
        async with aclosing(audit.export(wanted)) as pieces:
            async for piece in pieces:
                check_while_sending(request)
                async with asyncio.timeout(self._settings.write_timeout_s):
                    await response.write(piece)
        await response.write_eof()
        return response


def _query_of(query: Query) -> AuditQuery:
    return AuditQuery(
        actors=query.texts("actor"),
        jobs=query.texts("job"),
        actions=query.texts("action"),
        since_ms=_time(query, "since"),
        until_ms=_time(query, "until"),
        before_n=_cursor(query),
    )


def _time(query: Query, name: str) -> int | None:
    text = query.text(name)
    if text is None:
        return None
    try:
        at_ms = from_rfc3339(text)
    except (ValueError, OverflowError):
        at_ms = -1
    if not 0 <= at_ms < 1 << 47:
        raise bad_parameter(name, "must be a time such as 2026-01-26T18:00:00Z (RFC 3339)")
    return at_ms


def _cursor(query: Query) -> int | None:
    text = query.text("cursor")
    if text is None:
        return None
    if not (text.isascii() and text.isdigit() and len(text) <= 15):
        raise bad_parameter("cursor", "use `next` of an earlier page as it is")
    return int(text)


OPERATIONS = (
    Operation(
        method="GET",
        path="/api/v1/audit",
        id="listAudit",
        handler=AuditRoutes.show,
        summary="Who did what: a page, newest first, or as NDJSON all of it in order",
        audience=Audience.ADMIN,
        parameters=(
            Parameter(name="actor", about="Users; any will do.", type=Words),
            JOB,
            Parameter(name="action", about="Actions; any will do.", type=Words),
            Parameter(name="since", about="From this time on.", type=Time),
            Parameter(name="until", about="Before this time.", type=Time),
            LIMIT,
            CURSOR,
        ),
        answers={200: ((JSON, bodies.AuditPage), (NDJSON, None))},
        refuses=READ | {404, 406},
    ),
)

"""`/executions/{id}/output`: ranges of what an execution printed, never the whole in memory."""

import asyncio
import re
from dataclasses import dataclass

import msgspec
from aiohttp import web

from bus.model import Execution
from bus.ports import OutputChunk
from transports.http.auth import principal_of
from transports.http.executions import may_read_output, visible_execution
from transports.http.problems import Problem, bad_parameter
from transports.http.query import Query
from transports.http.settings import GatewayPorts, GatewaySettings
from transports.http.textparts import lines_of, whole_text
from transports.http.visibility import Visibility

LIMIT_MAX = 1024 * 1024
LIMIT_DEFAULT = 256 * 1024
TAIL_MAX = 10_000
PIECE = 256 * 1024
OFFSET_MAX = 2**63 - 1
_RANGE = re.compile(r"\s*bytes\s*=\s*(\d{0,18})\s*-\s*(\d{0,18})\s*\Z", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Span:
    """The bytes an answer is about; `complete` says that none will ever come after `end`."""

    start: int
    end: int
    complete: bool


class OutputRoutes:
    def __init__(
        self, ports: GatewayPorts, settings: GatewaySettings, visibility: Visibility
    ) -> None:
        self._ports = ports
        self._settings = settings
        self._visibility = visibility

    def routes(self) -> list[web.RouteDef]:
        return [web.get("/api/v1/executions/{id}/output", self.show)]

    async def show(self, request: web.Request) -> web.StreamResponse:
        query = Query(request, ("from", "tail", "limit", "format"))
        execution = visible_execution(request, self._ports, self._visibility)
        may_read_output(principal_of(request), execution, self._visibility)
        form = query.choice("format", ("text", "json", "ndjson"), "text")
        limit = query.number("limit", low=1, high=LIMIT_MAX)
        wanted = _asked_range(request) if form == "text" else None
        if wanted is not None:
            if request.query.keys() - {"format"}:
                raise Problem(400, "malformed", "send either Range or from, tail and limit")
            return await self._partial(request, execution, wanted)
        span = await self._span(execution, await self._start(execution, query))
        if form == "text" and limit is None:
            return await self._whole(request, execution, span)
        read_max = min(limit or LIMIT_DEFAULT, max(span.end - span.start, 0))
        chunk = await self._ports.output.read(execution.id, span.start, read_max)
        return _answer(form, execution, span, chunk)

    async def _start(self, execution: Execution, query: Query) -> int:
        start = query.number("from", low=0, high=OFFSET_MAX)
        tail = query.number("tail", low=0, high=TAIL_MAX)
        if tail is None:
            return start or 0
        if start is not None:
            raise bad_parameter("tail", "send either from or tail")
        return await self._ports.output.offset_of_tail(execution.id, tail)

    async def _span(self, execution: Execution, start: int) -> Span:
        """What can be read from `start` on at this moment."""
        size = await self._ports.output.size(execution.id)
        ended_at = execution.output_end if execution.is_final else None
        complete = execution.is_final and (ended_at is None or size >= ended_at)
        return Span(start, max(size, start), complete)

    async def _whole(
        self, request: web.Request, execution: Execution, span: Span
    ) -> web.StreamResponse:
        """All that can be read now, piece by piece; a dropped middle is named in its place."""
        chunk = await self._ports.output.read(execution.id, span.start, _next(span.start, span.end))
        response = web.StreamResponse(
            headers=_headers(chunk.start, span.end, span.complete)
            | {"Content-Type": "text/plain; charset=utf-8"}
        )
        await response.prepare(request)
        if request.method == "HEAD":
            return response
        while True:
            if chunk.gap is not None:
                await self._write(response, request, _marker(chunk.gap))
            await self._write(response, request, chunk.data)
            if not chunk.data or chunk.end >= span.end:
                break
            left = _next(chunk.end, span.end)
            chunk = await self._ports.output.read(execution.id, chunk.end, left)
        await response.write_eof()
        return response

    async def _partial(
        self, request: web.Request, execution: Execution, wanted: tuple[int | None, int | None]
    ) -> web.StreamResponse:
        """206 for one range (RFC 9110 §14), as long as asked and never all in memory."""
        span = await self._span(execution, 0)
        start, end = _resolve(wanted, span.end)
        chunk = await self._ports.output.read(execution.id, start, _next(start, end))
        if chunk.gap is not None or not chunk.data:
            raise Problem(
                410, "output-expired", f"bytes {start} to {chunk.start} of the output were dropped"
            )
        headers = _headers(start, end, span.complete and end == span.end) | {
            "Content-Type": "text/plain; charset=utf-8",
            "Content-Range": f"bytes {start}-{end - 1}/{span.end}",
            "Content-Length": str(end - start),
        }
        response = web.StreamResponse(status=206, headers=headers)
        await response.prepare(request)
        while request.method != "HEAD":
            await self._write(response, request, chunk.data)
            if chunk.end >= end:
                break
            chunk = await self._ports.output.read(execution.id, chunk.end, _next(chunk.end, end))
            if chunk.gap is not None or not chunk.data:
                # The length is promised: only a broken connection says that it was not kept.
                _abort(request)
                break
        return response

    async def _write(self, response: web.StreamResponse, request: web.Request, data: bytes) -> None:
        try:
            async with asyncio.timeout(self._settings.write_timeout_s):
                await response.write(data)
        except TimeoutError:
            _abort(request)
            raise ConnectionResetError("the reader takes nothing") from None


def _answer(form: str, execution: Execution, span: Span, chunk: OutputChunk) -> web.Response:
    """One bounded piece in the form asked for."""
    gap = {"from": chunk.gap[0], "to": chunk.gap[1]} if chunk.gap is not None else None
    last = span.complete and chunk.end >= span.end
    if form == "json":
        text, end = whole_text(chunk, at_end=last)
        complete = last and end >= span.end
        body = {
            "executionId": execution.id,
            "from": chunk.start,
            "to": end,
            "complete": complete,
            "gap": gap,
            "text": text,
        }
        return web.Response(
            body=msgspec.json.encode(body),
            content_type="application/json",
            headers=_headers(chunk.start, end, complete),
        )
    headers = _headers(chunk.start, chunk.end, last)
    if form == "text":
        return web.Response(
            body=chunk.data, content_type="text/plain", charset="utf-8", headers=headers
        )
    items: list[object] = [{"gap": gap}] if gap is not None else []
    items.extend(lines_of(chunk))
    lines = b"".join(msgspec.json.encode(item) + b"\n" for item in items)
    return web.Response(body=lines, content_type="application/x-ndjson", headers=headers)


def _headers(start: int, end: int, complete: bool) -> dict[str, str]:
    return {
        "Accept-Ranges": "bytes",
        "Output-From": str(start),
        "Output-To": str(end),
        "Output-Complete": "true" if complete else "false",
    }


def _asked_range(request: web.Request) -> tuple[int | None, int | None] | None:
    """First and last byte of a single byte range; None if the whole is to be served.

    Several ranges, other units and what cannot be read are ignored (RFC 9110 §14.2), and so is a
    range with `If-Range`, since outputs have no validator.
    """
    header = request.headers.get("Range")
    if header is None or "If-Range" in request.headers:
        return None
    match = _RANGE.match(header)
    if match is None or not (match[1] or match[2]):
        return None
    first = int(match[1]) if match[1] else None
    last = int(match[2]) if match[2] else None
    if first is not None and last is not None and last < first:
        return None
    return first, last


def _resolve(wanted: tuple[int | None, int | None], size: int) -> tuple[int, int]:
    """The range as start and end (exclusive).

    Raises:
        Problem: 416; nothing of it exists.
    """
    first, last = wanted
    if first is None:
        first, last = max(size - (last or 0), 0), size - 1
    end = size if last is None else min(last + 1, size)
    if first >= end:
        raise Problem(
            416,
            "range-not-satisfiable",
            f"the output has {size} bytes",
            headers={"Content-Range": f"bytes */{size}"},
        )
    return first, end


def _next(start: int, end: int) -> int:
    return min(PIECE, max(end - start, 0))


def _marker(gap: tuple[int, int]) -> bytes:
    return f"\n[jobbus: bytes {gap[0]} to {gap[1]} of the output were dropped]\n".encode()


def _abort(request: web.Request) -> None:
    if request.transport is not None:
        request.transport.abort()

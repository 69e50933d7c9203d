"""Outputs sent as they were written, piece by piece and never the whole in memory."""

import asyncio
import re
from contextlib import aclosing

import msgspec
from aiohttp import web

from bus.model import Execution
from bus.ports import OutputLine
from transports.http.access.caller import check_while_sending, cut_off, principal_of
from transports.http.access.visibility import Visibility, visible_execution
from transports.http.ports import GatewayPorts
from transports.http.settings import GatewaySettings
from transports.http.web.problems import Problem

PIECE = 256 * 1024
_RANGE = re.compile(r"\s*bytes\s*=\s*(\d{0,18})\s*-\s*(\d{0,18})\s*\Z", re.IGNORECASE)

ByteRange = tuple[int | None, int | None]
"""First and last byte; without a first, the last so many bytes."""


class Span(msgspec.Struct, frozen=True):
    """The bytes an answer is about; `complete` says that none will ever come after `end`."""

    start: int
    end: int
    complete: bool


class Downloads:
    def __init__(
        self, ports: GatewayPorts, settings: GatewaySettings, visibility: Visibility
    ) -> None:
        self._output = ports.output
        self._settings = settings
        self._visibility = visibility

    async def whole(
        self, request: web.Request, execution: Execution, span: Span
    ) -> web.StreamResponse:
        """All that can be read now, piece by piece; a dropped middle is named in its place."""
        async with aclosing(
            self._output.pieces(execution.id, span.start, span.end, PIECE)
        ) as chunks:
            chunk = await anext(chunks, None)
            response = web.StreamResponse(
                headers=headers_of(chunk.start if chunk else span.start, span.end, span.complete)
                | {"Content-Type": "text/plain; charset=utf-8"}
            )
            await response.prepare(request)
            while chunk is not None and request.method != "HEAD":
                if chunk.gap is not None:
                    await self.send(response, request, _marker(chunk.gap))
                await self.send(response, request, chunk.data)
                chunk = await anext(chunks, None)
        if request.method != "HEAD":
            await response.write_eof()
        return response

    async def partial(
        self, request: web.Request, execution: Execution, span: Span, wanted: ByteRange
    ) -> web.StreamResponse:
        """206 for one range (RFC 9110 §14), as long as asked and never all in memory."""
        start, end = resolve(wanted, span.end)
        async with aclosing(self._output.pieces(execution.id, start, end, PIECE)) as chunks:
            chunk = await anext(chunks, None)
            if chunk is None or chunk.gap is not None or not chunk.data:
                to = chunk.start if chunk is not None else end
                raise Problem(
                    410, "output-expired", f"bytes {start} to {to} of the output were dropped"
                )
            headers = headers_of(start, end, span.complete and end == span.end) | {
                "Content-Type": "text/plain; charset=utf-8",
                "Content-Range": f"bytes {start}-{end - 1}/{span.end}",
                "Content-Length": str(end - start),
            }
            response = web.StreamResponse(status=206, headers=headers)
            await response.prepare(request)
            while request.method != "HEAD":
                await self.send(response, request, chunk.data)
                if chunk.end >= end:
                    break
                chunk = await anext(chunks, None)
                if chunk is None or chunk.gap is not None or not chunk.data:
                    cut_off(request, "bytes of the promised length were dropped meanwhile")
        return response

    async def whole_stream(
        self, request: web.Request, execution: Execution, span: Span, stream: str | None
    ) -> web.StreamResponse:
        """All lines of one stream as text, page by page."""
        response = web.StreamResponse(
            headers=headers_of(span.start, span.end, span.complete)
            | {"Content-Type": "text/plain; charset=utf-8"}
        )
        await response.prepare(request)
        at = span.start
        while request.method != "HEAD" and at < span.end:
            page = await self._output.page(execution.id, at, PIECE, stream=stream)
            if page.gap is not None:
                await self.send(response, request, _marker(page.gap))
            # Open lines come again on the page that begins with them, and that is the last.
            is_last = page.next <= at
            lines = tuple(line for line in page.lines if is_last or not line.partial)
            data = await self.bytes_of(execution, lines)
            if data:
                await self.send(response, request, data)
            if is_last:
                break
            at = page.next
        await response.write_eof()
        return response

    async def bytes_of(self, execution: Execution, lines: tuple[OutputLine, ...]) -> bytes:
        """What was written, not what can be read of it: `text` of a line is for people."""
        if not lines:
            return b""
        base, end = lines[0].at, lines[-1].end
        window = bytearray()
        while base + len(window) < end:
            at = base + len(window)
            chunk = await self._output.read(execution.id, at, end - at)
            if chunk.gap is not None or not chunk.data:
                break  # dropped meanwhile
            window += chunk.data
        return b"".join(window[line.at - base : line.end - base] for line in lines)

    async def send(self, response: web.StreamResponse, request: web.Request, data: bytes) -> None:
        """A long output is sent for longer than a grant may last: checked again for each piece.

        Raises:
            ConnectionError: who reads may not any more, or takes nothing, and was cut off.
        """
        check_while_sending(request)
        try:
            execution = visible_execution(request, self._visibility)
            self._visibility.check_output(principal_of(request), execution)
        except Problem:
            cut_off(request, "the right to the output ended while it was sent")
        try:
            async with asyncio.timeout(self._settings.write_timeout_s):
                await response.write(data)
        except TimeoutError:
            cut_off(request, "the reader takes nothing")


def headers_of(start: int, end: int, complete: bool) -> dict[str, str]:
    return {
        "Accept-Ranges": "bytes",
        "Output-From": str(start),
        "Output-To": str(end),
        "Output-Complete": "true" if complete else "false",
    }


def asked_range(request: web.Request, tag: str = "") -> ByteRange | None:
    """First and last byte of a single byte range; None if the whole is to be served.

    Several ranges, other units and what cannot be read are ignored (RFC 9110 §14.2), and so is a
    range with an `If-Range` that is not `tag`; outputs have none.
    """
    header = request.headers.get("Range")
    if header is None or request.headers.get("If-Range", tag) != tag:
        return None
    match = _RANGE.match(header)
    if match is None or not (match[1] or match[2]):
        return None
    first = int(match[1]) if match[1] else None
    last = int(match[2]) if match[2] else None
    if first is not None and last is not None and last < first:
        return None
    return first, last


def resolve(wanted: ByteRange, size: int, what: str = "output") -> tuple[int, int]:
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
            f"the {what} has {size} bytes",
            headers={"Content-Range": f"bytes */{size}"},
        )
    return first, end


def _marker(gap: tuple[int, int]) -> bytes:
    return f"\n[jobbus: bytes {gap[0]} to {gap[1]} of the output were dropped]\n".encode()

"""`/executions/{id}/output`: ranges of what an execution printed, never the whole in memory."""

from enum import StrEnum
from typing import Annotated

import msgspec
from aiohttp import web
from msgspec import Meta

from bus.model import Execution
from bus.ports import OutputPage
from transports.http.access.caller import check_again, principal_of
from transports.http.access.visibility import Visibility, visible_execution
from transports.http.output.downloads import Downloads, Span, asked_range, headers_of
from transports.http.output.lines import LineView, gap_data, line_view, lines_json, text_json
from transports.http.output.search import HITS_MAX, OutputSearch, Search
from transports.http.ports import GatewayPorts
from transports.http.settings import GatewaySettings
from transports.http.web.accept import preferred_type
from transports.http.web.operation import JSON, NDJSON, READ, TEXT, Operation, Parameter
from transports.http.web.parameters import FROM, TAIL, Uuid, id_of
from transports.http.web.problems import Problem, bad_parameter
from transports.http.web.query import Query, is_cache_buster

LIMIT_MAX = 1024 * 1024
LIMIT_DEFAULT = 256 * 1024
TAIL_MAX = 10_000
OFFSET_MAX = 2**63 - 1


class OutputFormat(StrEnum):
    TEXT = "text"
    JSON = "json"
    NDJSON = "ndjson"


class OutputStream(StrEnum):
    OUT = "out"
    ERR = "err"


_FORMS: dict[str, str] = {
    TEXT: OutputFormat.TEXT,
    JSON: OutputFormat.JSON,
    NDJSON: OutputFormat.NDJSON,
}
"""Without `format`, what `Accept` asks for."""


class OutputRoutes:
    def __init__(
        self, ports: GatewayPorts, settings: GatewaySettings, visibility: Visibility
    ) -> None:
        self._ports = ports
        self._settings = settings
        self._visibility = visibility
        self._searches = OutputSearch(ports, settings)
        self._downloads = Downloads(ports, settings, visibility)

    async def show(self, request: web.Request) -> web.StreamResponse:
        query = Query(request)
        execution = visible_execution(request, self._visibility)
        self._visibility.check_output(principal_of(request), execution)
        form = query.choice("format", tuple(OutputFormat), "")
        if not form:
            form = _FORMS[preferred_type(request, tuple(_FORMS))]
        stream = query.choice("stream", tuple(OutputStream), "") or None
        wanted = asked_range(request) if form == "text" else None
        if wanted is not None:
            others = {name for name in request.query if not is_cache_buster(name)}
            if others - {"format"}:
                raise Problem(400, "malformed", "send either Range or from, tail, line and limit")
            span = await self._span(execution, 0)
            return await self._downloads.partial(request, execution, span, wanted)
        needle = query.text("grep")
        if needle is not None:
            most = query.number("limit", low=1, high=HITS_MAX) or HITS_MAX
            asked = Search(needle, await self._start(execution, query), most, stream, form)
            found = await self._searches.answer(principal_of(request), execution, asked)
            check_again(request)
            return found
        limit = query.number("limit", low=1, high=LIMIT_MAX)
        span = await self._span(execution, await self._start(execution, query))
        if form != "text" or stream is not None:
            return await self._lines(request, execution, span, stream, form, limit)
        if limit is None:
            return await self._downloads.whole(request, execution, span)
        read_max = min(limit, max(span.end - span.start, 0))
        chunk = await self._ports.output.read(execution.id, span.start, read_max)
        headers = headers_of(chunk.start, chunk.end, span.complete and chunk.end >= span.end)
        return web.Response(
            body=chunk.data, content_type="text/plain", charset="utf-8", headers=headers
        )

    async def _start(self, execution: Execution, query: Query) -> int:
        """The offset that `from`, `line` or `tail` name; the beginning without any."""
        start = query.number("from", low=0, high=OFFSET_MAX)
        line = query.number("line", low=1, high=OFFSET_MAX)
        tail = query.number("tail", low=0, high=TAIL_MAX)
        if sum(value is not None for value in (start, line, tail)) > 1:
            raise bad_parameter("tail", "send either from, line or tail")
        if tail is not None:
            return await self._ports.output.offset_of_tail(execution.id, tail)
        if line is not None:
            return await self._ports.output.offset_of_line(execution.id, line)
        return start or 0

    async def _lines(
        self,
        request: web.Request,
        execution: Execution,
        span: Span,
        stream: str | None,
        form: str,
        limit: int | None,
    ) -> web.StreamResponse:
        """Lines, of one stream or of both: one page of JSON, or as text, all there is."""
        if form == "text" and limit is None:
            return await self._downloads.whole_stream(request, execution, span, stream)
        page = await self._ports.output.page(
            execution.id, span.start, limit or LIMIT_DEFAULT, stream=stream
        )
        complete = span.complete and page.next >= page.end
        headers = headers_of(span.start, page.next, complete)
        if page.lines:
            headers["Output-First-Line"] = str(page.lines[0].number)
        if form == "text":
            return web.Response(
                body=await self._downloads.bytes_of(execution, page.lines),
                content_type="text/plain",
                charset="utf-8",
                headers=headers,
            )
        if form == "json":
            body = _page_json(execution, page, page.gap[1] if page.gap else span.start, complete)
            return web.Response(body=body, content_type="application/json", headers=headers)
        gap = b'{"gap":%s}\n' % gap_data(page.gap, None) if page.gap is not None else b""
        lines = b"".join(msgspec.json.encode(line_view(line)) + b"\n" for line in page.lines)
        return web.Response(body=gap + lines, content_type="application/x-ndjson", headers=headers)

    async def _span(self, execution: Execution, start: int) -> Span:
        """What can be read from `start` on at this moment."""
        size = await self._ports.output.size(execution.id)
        ended_at = execution.output_end if execution.is_final else None
        complete = execution.is_final and (ended_at is None or size >= ended_at)
        return Span(start, max(size, start), complete)


def _page_json(execution: Execution, page: OutputPage, start: int, complete: bool) -> bytes:
    """`to` is where to read on, `end` where the output ends now."""
    gap = b"null" if page.gap is None else gap_data(page.gap, None)
    return (
        b'{"executionId":"%s","from":%d,"to":%d,"end":%d,"complete":%s,"gap":%s,'
        b'"text":%s,"lines":%s}'
    ) % (
        execution.id.encode(),
        start,
        page.next,
        page.end,
        b"true" if complete else b"false",
        gap,
        text_json(page),
        lines_json(page.lines),
    )


class Gap(msgspec.Struct, frozen=True):
    """Bytes of an output that were dropped."""

    start: int = msgspec.field(name="from")
    to: int


class Output(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """A piece of an output. `to` is where to read on, `end` where the output ends now."""

    execution_id: Uuid
    start: int = msgspec.field(name="from")
    to: int
    end: int
    lines: tuple[LineView, ...]
    complete: bool = False
    gap: Gap | None = None
    text: str = ""


_Line = Annotated[int, Meta(ge=1, le=OFFSET_MAX)]
_Limit = Annotated[int, Meta(ge=1, le=LIMIT_MAX)]
_Needle = Annotated[str, Meta(min_length=1, max_length=1000)]

OPERATIONS = (
    Operation(
        method="GET",
        path="/api/v1/executions/{id}/output",
        id="getOutput",
        handler=OutputRoutes.show,
        summary="A range of what it printed, by bytes or by lines",
        parameters=(
            id_of("execution"),
            FROM,
            TAIL,
            Parameter(name="line", about="The first line; this, from or tail.", type=_Line),
            Parameter(name="limit", about="Bytes, or hits.", type=_Limit),
            Parameter(name="stream", about="One of the two.", type=OutputStream),
            Parameter(
                name="grep",
                about="Only lines that hold this text; limit is up to 1000 then.",
                type=_Needle,
            ),
            Parameter(name="format", about="Wins over `Accept`; text.", type=OutputFormat),
            Parameter(name="Range", about="One range of bytes, for text.", place="header"),
        ),
        answers={200: ((TEXT, None), (JSON, Output), (NDJSON, None)), 206: ((TEXT, None),)},
        refuses=READ | {404, 406, 410, 416},
    ),
)

"""`/executions/{id}/stream`: state, progress and output of one execution, until its end."""

from enum import StrEnum

from aiohttp import web

from bus.model import Execution
from transports.http.access.caller import principal_of
from transports.http.access.visibility import Visibility, visible_execution
from transports.http.output.follower import Place, parse_cursor
from transports.http.output.followers import Followers
from transports.http.output.routes import OFFSET_MAX, TAIL_MAX
from transports.http.ports import GatewayPorts
from transports.http.settings import GatewaySettings
from transports.http.streams import encodings
from transports.http.streams.encodings import Encoding
from transports.http.streams.events import cursor_of
from transports.http.streams.reader_frames import Framing
from transports.http.streams.registry import StreamRegistry
from transports.http.streams.streams import Stream
from transports.http.web.accept import preferred_type
from transports.http.web.operation import NDJSON, SSE, STREAM, Operation, Parameter
from transports.http.web.parameters import FROM, POSITION, TAIL, id_of
from transports.http.web.problems import bad_parameter
from transports.http.web.query import Query

_ENCODINGS: dict[str, Encoding] = {SSE: encodings.SSE, NDJSON: encodings.NDJSON}


class FollowMode(StrEnum):
    ALL = "all"
    LATEST = "latest"


class FollowRoutes:
    def __init__(
        self,
        ports: GatewayPorts,
        settings: GatewaySettings,
        visibility: Visibility,
        registry: StreamRegistry,
        followers: Followers,
        framing: Framing,
    ) -> None:
        self._ports = ports
        self._settings = settings
        self._visibility = visibility
        self._registry = registry
        self._followers = followers
        self._framing = framing

    async def show(self, request: web.Request) -> web.StreamResponse:
        query = Query(request)
        execution = visible_execution(request, self._visibility)
        principal = principal_of(request)
        self._visibility.check_output(principal, execution)
        kind = preferred_type(request, tuple(_ENCODINGS))
        if request.method == "HEAD":
            return web.Response(headers={"Content-Type": kind})
        cursor = cursor_of(request, query)
        if cursor is not None and self._knows_all(cursor, execution):
            return web.Response(status=204)
        latest = query.choice("follow", tuple(FollowMode), FollowMode.ALL) == FollowMode.LATEST
        start = await self._start(execution, query)
        self._registry.admit(principal)
        stream = Stream(request, _ENCODINGS[kind], self._framing, self._ports.clock, self._settings)
        self._registry.add(stream)
        try:
            end = await self._followers.follow(execution.id, stream, cursor, start, latest=latest)
            return await stream.close(end)
        finally:
            self._registry.remove(stream)

    async def _start(self, execution: Execution, query: Query) -> int:
        """Where the output begins for a reader without a cursor: at its first byte, unless said."""
        start = query.number("from", low=0, high=OFFSET_MAX)
        tail = query.number("tail", low=0, high=TAIL_MAX)
        if tail is None:
            return start or 0
        if start is not None:
            raise bad_parameter("tail", "send either from or tail")
        return await self._ports.output.offset_of_tail(execution.id, tail)

    def _knows_all(self, cursor: str, execution: Execution) -> bool:
        """Whether the cursor is that of the stream's end: then coming back is pointless."""
        place = parse_cursor(cursor, self._ports.feed.epoch)
        return (
            isinstance(place, Place)
            and execution.is_final
            and place.seq >= execution.version
            and place.offset >= (execution.output_end or 0)
        )


OPERATIONS = (
    Operation(
        method="GET",
        path="/api/v1/executions/{id}/stream",
        id="followExecution",
        handler=FollowRoutes.show,
        summary="State, progress and output of one execution until its end",
        stays_open=True,
        parameters=(
            id_of("execution"),
            FROM,
            TAIL,
            Parameter(
                name="follow", about="`latest`: skip ahead when too far behind.", type=FollowMode
            ),
            *POSITION,
        ),
        answers={200: ((SSE, None), (NDJSON, None)), 204: ()},
        refuses=STREAM | {404},
    ),
)

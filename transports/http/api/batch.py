"""`POST /commands` with many commands: one JSON object a line in, one result a line out, in order.

The lines are checked together and become durable together; one that is refused refuses no other.
Each counts like a command of its own for how much its principal may send.
"""

import asyncio
from collections.abc import Callable

import msgspec
from aiohttp import web

from bus.envelope import Envelope, seal
from bus.errors import BusError
from bus.model import Principal
from bus.ports import Receipt
from transports.http.access.caller import principal_of
from transports.http.api.command_bodies import command_of_line
from transports.http.api.publishing import command_links, request_of
from transports.http.ports import GatewayPorts
from transports.http.web.body import read_lines
from transports.http.web.headers import idempotency_key, preferred_wait_s, traceparent_of
from transports.http.web.middleware import request_id_of
from transports.http.web.problems import Problem, from_bus_error, invalid, problem_body

NDJSON_TYPE = "application/x-ndjson"
LINES_MAX = 1_000
_SLICE = 50
"""Lines decoded before others may run."""


def is_batch(request: web.Request) -> bool:
    return request.content_type == NDJSON_TYPE


class Batches:
    """`id_of` makes the command id of an idempotency key, as for a single command; `count` one more
    command of a principal, or raises."""

    def __init__(
        self,
        ports: GatewayPorts,
        id_of: Callable[[str, str], str],
        count: Callable[[Principal], None],
    ) -> None:
        self._ports = ports
        self._count = count
        self._slice = asyncio.Lock()
        self._id_of = id_of

    async def publish(self, request: web.Request) -> web.Response:
        """A result line for each line: what a 202 would say, or `{"problem": …}`.

        Raises:
            Problem: nothing of it was looked at: not a service's request, too long, no lines.
        """
        if "Authorization" not in request.headers:
            raise Problem(403, "forbidden", "batches are for services: send a bearer token")
        if preferred_wait_s(request, 1) is not None:
            raise Problem(400, "malformed", "a batch does not wait; ask for each command")
        lines = await read_lines(request, NDJSON_TYPE, LINES_MAX)
        envelopes = await self._envelopes(request, lines)
        published = await self._ports.publisher.publish_many(
            [envelope for envelope in envelopes if isinstance(envelope, Envelope)]
        )
        answers = iter(published)
        request_id, key = request_id_of(request), idempotency_key(request)
        results = [
            _line(envelope if isinstance(envelope, Problem) else next(answers), request_id, key)
            for envelope in envelopes
        ]
        return web.Response(body=b"".join(results), content_type=NDJSON_TYPE)

    async def _envelopes(
        self, request: web.Request, lines: list[bytes]
    ) -> list[Envelope | Problem]:
        key = idempotency_key(request)
        traceparent = traceparent_of(request)
        sealed: list[Envelope | Problem] = []
        seen: set[str] = set()
        for begin in range(0, len(lines), _SLICE):
            # One slice of all batches a turn: who sends one command gets in between.
            async with self._slice:
                for number, line in enumerate(lines[begin : begin + _SLICE], begin + 1):
                    try:
                        if number > 1:  # the request itself counted for the first
                            self._count(principal_of(request))
                        own_key = key and f"{key}\n{number}"
                        envelope = self._seal(request, line, own_key, traceparent)
                        if envelope.id in seen:
                            raise invalid("/commandId", "an earlier line of this batch has this id")
                    except Problem as problem:
                        sealed.append(problem)
                    else:
                        seen.add(envelope.id)
                        sealed.append(envelope)
                await asyncio.sleep(0)
        return sealed

    def _seal(
        self, request: web.Request, line: bytes, key: str | None, traceparent: str | None
    ) -> Envelope:
        command, command_id, expires_at = command_of_line(line)
        beside = request_of(command_id, expires_at)
        if key is not None and beside.command_id is not None:
            raise invalid("/commandId", "send either commandId or the header Idempotency-Key")
        principal = principal_of(request)
        chosen = beside.command_id
        return seal(
            command,
            principal,
            now_ms=self._ports.clock.now_ms(),
            command_id=self._id_of(principal.user_id, key) if key is not None else chosen,
            expires_ms=beside.expires_ms,
            traceparent=traceparent,
        )


def _line(answer: Receipt | BusError | Problem, request_id: str, key: str | None) -> bytes:
    if isinstance(answer, BusError):
        answer = from_bus_error(answer, key)
    if isinstance(answer, Problem):
        return b'{"problem":%s}\n' % problem_body(answer, request_id)
    result: dict[str, object] = {
        "commandId": answer.command_id,
        "status": "Pending",
        "links": command_links(answer.command_id, None),
    }
    if answer.replayed:
        result["replayed"] = True
    return msgspec.json.encode(result) + b"\n"

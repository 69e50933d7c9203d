"""`grep=` on an output: the whole file is searched by the service, a few searches at a time."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import msgspec
from aiohttp import web

from bus.model import Execution, Principal
from bus.ports import OutputHits
from transports.http.access.auth import too_many
from transports.http.output.lines import line_view, lines_json
from transports.http.ports import GatewayPorts
from transports.http.settings import GatewaySettings
from transports.http.web.problems import bad_parameter
from transports.http.web.rate import Places

HITS_MAX = 1_000
NEEDLE_MAX = 1_000
SEARCHES_MAX = 2
"""Searches that read at the same time; more would take the threads of everybody else."""

WAITING_MAX = 200
WAITING_EACH = 8
"""Searches that wait for their turn, and of one principal: further ones get 429."""


class Search(msgspec.Struct, frozen=True):
    """What is searched for, from the offset `start` on."""

    needle: str
    start: int
    limit: int
    stream: str | None
    form: str


class Turns:
    """Some at a time, and a single one of each principal: who asks for many waits for their own
    searches, and holds up no other principal."""

    def __init__(self, most: int, waiting: Places) -> None:
        self._all = asyncio.Semaphore(most)
        self._waiting = waiting
        self._own: dict[str, tuple[asyncio.Lock, int]] = {}

    @asynccontextmanager
    async def one_for(self, key: str) -> AsyncIterator[None]:
        """It is the turn of `key` inside the block.

        Raises:
            Problem: 429; too many wait.
        """
        with self._waiting.one_for(key) as any_place:
            if not any_place:
                raise too_many("too many searches wait already", 5.0)
            lock, users = self._own.get(key, (asyncio.Lock(), 0))
            self._own[key] = (lock, users + 1)
            try:
                async with lock, self._all:
                    yield
            finally:
                lock, users = self._own.pop(key)
                if users > 1:
                    self._own[key] = (lock, users - 1)


class OutputSearch:
    def __init__(self, ports: GatewayPorts, settings: GatewaySettings) -> None:
        self._ports = ports
        self._settings = settings
        self._turns = Turns(SEARCHES_MAX, Places(WAITING_MAX, WAITING_EACH))

    async def answer(
        self, principal: Principal, execution: Execution, asked: Search
    ) -> web.Response:
        """The lines that hold the text. A search that took too long or found too much says where
        to go on: `to`, which is `end` once all was searched."""
        if not 0 < len(asked.needle) <= NEEDLE_MAX or "\n" in asked.needle:
            raise bad_parameter("grep", f"must be 1 to {NEEDLE_MAX} characters of one line")
        async with self._turns.one_for(principal.user_id):
            hits = await self._ports.output.search(
                execution.id,
                asked.needle,
                asked.limit,
                start=asked.start,
                stream=asked.stream,
                time_s=self._settings.search_s,
            )
        is_over = hits.next >= hits.end
        headers = {
            "Output-From": str(asked.start),
            "Output-To": str(hits.next),
            "Output-Complete": "true" if is_over and execution.is_final else "false",
        }
        body, kind = _body(execution, asked, hits)
        charset = "utf-8" if kind == "text/plain" else None
        return web.Response(body=body, content_type=kind, charset=charset, headers=headers)


def _body(execution: Execution, asked: Search, hits: OutputHits) -> tuple[bytes, str]:
    match asked.form:
        case "json":
            body = b'{"executionId":"%s","from":%d,"to":%d,"end":%d,"lines":%s}' % (
                execution.id.encode(),
                asked.start,
                hits.next,
                hits.end,
                lines_json(hits.lines),
            )
            return body, "application/json"
        case "ndjson":
            lines = (msgspec.json.encode(line_view(line)) + b"\n" for line in hits.lines)
            return b"".join(lines), "application/x-ndjson"
        case _:
            text = "".join(f"{line.number}:{line.text}\n" for line in hits.lines)
            return text.encode(), "text/plain"

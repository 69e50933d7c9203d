"""Long polls: a conditional GET that would say "unchanged" waits for a change first. No tables.

`Prefer: wait=N` with `If-None-Match` (RFC 7240 §4.3): the answer is made again after each change of
the feed until it differs from what the caller holds, or the time is up.
"""

import asyncio
from collections.abc import Callable

from aiohttp import web

from bus.feed import Feed
from transports.http.access.caller import check_again, principal_of
from transports.http.settings import GatewaySettings
from transports.http.web.headers import preferred_wait_s
from transports.http.web.rate import Places

_PAUSE_S = 0.05
"""Changes that come within this time cost one look."""


class LongPoll:
    """`closing` is set when the service is about to leave: then no request waits any longer.

    A request that finds no place among `waits` is answered at once.
    """

    def __init__(
        self, feed: Feed, settings: GatewaySettings, closing: asyncio.Event, waits: Places
    ) -> None:
        self._feed = feed
        self._settings = settings
        self._closing = closing
        self._waits = waits

    async def answer(
        self, request: web.Request, respond: Callable[[], web.Response]
    ) -> web.Response:
        """What `respond` says, as soon as that is not 304 or the preferred wait is over."""
        seen = self._feed.head
        response = respond()
        wait_s = preferred_wait_s(request, self._settings.wait_s_max)
        if response.status != 304 or wait_s is None:
            return response
        with self._waits.one_for(principal_of(request).user_id) as any_place:
            if any_place:
                response = await self._changed_answer(seen, wait_s, respond)
        check_again(request)
        return response

    async def _changed_answer(
        self, seen: int, wait_s: int, respond: Callable[[], web.Response]
    ) -> web.Response:
        loop = asyncio.get_running_loop()
        until_s = loop.time() + wait_s
        closing = asyncio.create_task(self._closing.wait(), name="long poll: closing")
        try:
            while True:
                await self._change_or_end(seen, until_s - loop.time(), closing)
                is_over = loop.time() >= until_s or closing.done()
                seen = self._feed.head
                response = respond()
                if response.status != 304 or is_over:
                    response.headers["Preference-Applied"] = f"wait={wait_s}"
                    return response
                await asyncio.sleep(min(_PAUSE_S, max(until_s - loop.time(), 0)))
        finally:
            closing.cancel()
            await asyncio.wait([closing])

    async def _change_or_end(self, seen: int, wait_s: float, closing: "asyncio.Task[bool]") -> None:
        changed = asyncio.create_task(self._feed.changed(seen), name="long poll: change")
        try:
            await asyncio.wait(
                {changed, closing}, timeout=max(wait_s, 0), return_when=asyncio.FIRST_COMPLETED
            )
        finally:
            changed.cancel()
            await asyncio.wait([changed])

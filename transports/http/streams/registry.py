"""All open streams: admitted here, looked after about once a second, ended in order."""

import asyncio
from collections import Counter
from collections.abc import Callable
from typing import Protocol

from bus.model import Principal
from transports.http.access.identity import Identity
from transports.http.ports import GatewayPorts
from transports.http.settings import GatewaySettings
from transports.http.streams.outlets import End
from transports.http.web.problems import Problem


class Kept(Protocol):
    """What is looked after here: a response, or a WebSocket with all that it subscribes to."""

    credential: Identity
    checked_s: float

    @property
    def principal(self) -> Principal: ...

    @property
    def transport(self) -> str:
        """What it is sent over: `sse`, `ndjson` or `websocket`."""
        ...

    @property
    def rotate_at_s(self) -> float: ...

    @property
    def ended(self) -> End | None: ...

    @property
    def gone(self) -> bool:
        """Whether the other side has left."""
        ...

    def look(self) -> None:
        """Wakes what has sent nothing for a heartbeat."""
        ...

    def renew(self, principal: Principal) -> None:
        """From now on, what this principal may see decides."""
        ...

    def finish(self, why: End) -> None: ...

    def abort(self) -> None:
        """Breaks the connection: what its reader has not taken is lost."""
        ...


class StreamRegistry:
    """All open streams: how many there may be, whose they are, and when each must end.

    `_open` holds the streams between `add` and `remove`, which their handlers call; `_by_user` and
    `by_transport` count them, `ended` counts those that were removed, by reason. `_inhabited` and
    `_vacant` are set while there are some and none. `draining` is set once, by `shut`.

    `again` gives an identity as it is now, or None if it is none any more.
    """

    def __init__(
        self,
        ports: GatewayPorts,
        settings: GatewaySettings,
        again: Callable[[Identity], Identity | None],
    ) -> None:
        self._again = again
        self._ports = ports
        self._settings = settings
        self._open: set[Kept] = set()
        self._by_user: Counter[str] = Counter()
        self.by_transport: Counter[str] = Counter()
        self.ended: Counter[str] = Counter()
        self._inhabited = asyncio.Event()
        self._vacant = asyncio.Event()
        self._vacant.set()
        self.draining = False

    def admit(self, principal: Principal) -> None:
        """Room for one more stream of this principal.

        Raises:
            Problem: 503 or 429, with a time to come back.
        """
        if self.draining:
            raise Problem(
                503, "draining", "the service is shutting down", headers={"Retry-After": "2"}
            )
        if len(self._open) >= self._settings.streams_max and self._is_full():
            raise Problem(
                503,
                "too-many-streams",
                f"all {self._settings.streams_max} streams are taken",
                headers={"Retry-After": "5"},
            )
        own_max = self._settings.streams_per_principal
        if self._by_user[principal.user_id] >= own_max and self._is_full(principal.user_id):
            raise Problem(
                429,
                "too-many-streams",
                f"you have {self._settings.streams_per_principal} open streams; close one",
                headers={"Retry-After": "5"},
            )

    def _is_full(self, user_id: str | None = None) -> bool:
        """Whether the limit is reached by streams whose readers are still there.

        The regular look comes once a second. Without this one, a reader that lost all its streams
        at once and came back sooner would be refused because of its own dead ones.
        """
        present = 0
        for stream in self._open:
            if user_id is None or stream.principal.user_id == user_id:
                if stream.gone:
                    stream.finish(End.GONE)
                else:
                    present += 1
        most = self._settings.streams_per_principal if user_id else self._settings.streams_max
        return present >= most

    def add(self, stream: Kept) -> None:
        self._open.add(stream)
        self._by_user[stream.principal.user_id] += 1
        self.by_transport[stream.transport] += 1
        self._inhabited.set()
        self._vacant.clear()

    def remove(self, stream: Kept) -> None:
        self._open.discard(stream)
        self._by_user[stream.principal.user_id] -= 1
        self.by_transport[stream.transport] -= 1
        self.ended[stream.ended or End.GONE] += 1
        if not self._by_user[stream.principal.user_id]:
            del self._by_user[stream.principal.user_id]
        if not self._open:
            self._inhabited.clear()
            self._vacant.set()

    def counts(self) -> dict[str, object]:
        return {
            "open": len(self._open),
            "byUser": dict(self._by_user),
            "ended": {str(why): count for why, count in self.ended.items()},
        }

    async def watch(self) -> None:
        """Looks after all streams for ever, about once a second while there are any."""
        look_s = min(1.0, self._settings.heartbeat_s / 3, self._settings.recheck_s / 3)
        while True:
            await self._inhabited.wait()
            self.look()
            await asyncio.sleep(look_s)

    def look(self, *, recheck: bool = False) -> None:
        """Ends what is gone, too old or revoked; `recheck` checks every principal again."""
        now_s, now_ms = self._ports.clock.monotonic_s(), self._ports.clock.now_ms()
        for stream in list(self._open):
            if stream.ended is not None:
                continue
            if stream.gone:
                stream.finish(End.GONE)
            elif now_s >= stream.rotate_at_s:
                stream.finish(End.ROTATE)
            elif stream.credential.is_over(now_ms):
                stream.finish(End.REVOKED)
            elif recheck or now_s - stream.checked_s >= self._settings.recheck_s:
                self._recheck(stream, now_s)
            stream.look()

    async def shut(self) -> None:
        """Every stream was ended with `shutdown`, one after the other, and had a moment to end.

        Takes at most `shutdown_s`; who has not taken it by then is cut off.
        """
        self.draining = True
        streams = list(self._open)
        step_s = min(0.005, self._settings.shutdown_s / 2 / max(len(streams), 1))
        for stream in streams:
            stream.finish(End.SHUTDOWN)
            await asyncio.sleep(step_s)
        try:
            async with asyncio.timeout(self._settings.shutdown_s / 2):
                await self._vacant.wait()
        except TimeoutError:
            for stream in list(self._open):
                stream.abort()

    def _recheck(self, stream: Kept, now_s: float) -> None:
        stream.checked_s = now_s
        now = self._again(stream.credential)
        if now is None or now.principal.user_id != stream.principal.user_id:
            stream.finish(End.REVOKED)
            return
        stream.credential = now
        if now.principal != stream.principal:
            stream.renew(now.principal)

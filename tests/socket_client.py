"""A WebSocket in a test, by a client of others (`websockets`)."""

import asyncio
import json
import ssl
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed
from websockets.typing import Subprotocol

from tests.gateway_fixture import ALICE, bearer

PATH = "/api/v1/ws"
PROTOCOL = "jobbus.v1"
PATIENCE_S = 20.0


@dataclass(frozen=True)
class ReceivedFrame:
    """One frame of the service; `sub`, `ref`, `id` and `data` are None where it had none."""

    op: str
    sub: str | None
    ref: str | None
    id: str | None
    data: Any
    whole: dict[str, Any]


class SocketClient:
    def __init__(self, connection: ClientConnection) -> None:
        self.connection = connection

    async def say(self, op: str, **members: object) -> None:
        await self.connection.send(json.dumps({"op": op, **members}))

    async def next(self) -> ReceivedFrame:
        """The next frame; raises `ConnectionClosed` at the end."""
        async with asyncio.timeout(PATIENCE_S):
            text = await self.connection.recv()
        assert isinstance(text, str), "a binary frame"
        whole = json.loads(text)
        return ReceivedFrame(
            whole["op"],
            whole.get("sub"),
            whole.get("ref"),
            whole.get("id"),
            whole.get("data"),
            whole,
        )

    async def until(self, op: str, sub: str | None = None, **data: object) -> list[ReceivedFrame]:
        """Frames up to the first with this op, of this subscription, and with these data."""
        return await self.until_it(
            lambda frame: (
                frame.op == op
                and (sub is None or frame.sub == sub)
                and all(frame.data.get(name) == value for name, value in data.items())
            )
        )

    async def until_it(self, wanted: Callable[[ReceivedFrame], bool]) -> list[ReceivedFrame]:
        frames = [await self.next()]
        while not wanted(frames[-1]):
            frames.append(await self.next())
        return frames

    async def subscribe(
        self, sub: str, topic: str = "events", **members: object
    ) -> list[ReceivedFrame]:
        """Subscribed; returns the frames up to `hello`."""
        await self.say("subscribe", sub=sub, topic=topic, **members)
        return await self.until("hello", sub)

    async def rest(self) -> list[ReceivedFrame]:
        """Frames up to the end of the socket."""
        frames: list[ReceivedFrame] = []
        while True:
            try:
                frames.append(await self.next())
            except ConnectionClosed:
                return frames

    async def code(self) -> tuple[int | None, str | None]:
        """The code and the words with which the service closes; what comes before is skipped."""
        await self.rest()
        async with asyncio.timeout(PATIENCE_S):
            await self.connection.wait_closed()
        received = self.connection.protocol.close_rcvd
        return (received.code, received.reason) if received is not None else (1006, None)

    def vanish(self) -> None:
        """Breaks the connection without a word."""
        self.connection.transport.abort()


@asynccontextmanager
async def open_socket(
    url: str,
    token: str | None = ALICE,
    path: str = PATH,
    *,
    others: Sequence[str] = (),
    trust: ssl.SSLContext | None = None,
    **headers: str,
) -> AsyncIterator[SocketClient]:
    """A socket of the principal of `token`; its own `hello` was read if there is a token."""
    spelled = {name.replace("_", "-"): value for name, value in headers.items()}
    proof = bearer(token) if token is not None else {}
    async with connect(
        url.replace("http", "ws", 1) + path,
        subprotocols=[Subprotocol(name) for name in (*others, PROTOCOL)],
        additional_headers=spelled | proof,
        ping_interval=None,
        max_size=None,
        close_timeout=5,
        proxy=None,
        ssl=trust,
    ) as connection:
        client = SocketClient(connection)
        if token is not None:
            assert (await client.next()).op == "hello"
        yield client


def kinds(frames: list[ReceivedFrame]) -> list[str]:
    return [each.op for each in frames]


def ids(frames: list[ReceivedFrame], sub: str) -> list[str]:
    """The ids of the changes of one subscription."""
    return [each.id or "" for each in frames if each.op == "change" and each.sub == sub]

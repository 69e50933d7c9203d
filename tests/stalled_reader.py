"""A client that asks and then never reads, on a bare socket with the smallest buffer."""

import asyncio
import json
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from tests.gateway_fixture import ALICE
from tests.raw_socket import client_frame, handshake

RECEIVE_BUFFER = 4096


def get(host: str, target: str, accept: str = "text/event-stream", token: str = ALICE) -> bytes:
    return (
        f"GET {target} HTTP/1.1\r\nHost: {host}\r\nAccept: {accept}\r\n"
        f"Authorization: Bearer {token}\r\n\r\n"
    ).encode()


def subscribe(host: str, sub: str = "a", token: str = ALICE, **members: object) -> bytes:
    """A handshake with one subscription behind it."""
    return handshake(host, token) + subscription(sub, **members)


def subscription(sub: str, **members: object) -> bytes:
    return client_frame(json.dumps({"op": "subscribe", "sub": sub, **members}).encode())


@asynccontextmanager
async def connection(port: int, host: str = "127.0.0.1") -> AsyncIterator[socket.socket]:
    with socket.socket() as made:
        made.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVE_BUFFER)
        made.setblocking(False)
        await asyncio.get_running_loop().sock_connect(made, (host, port))
        yield made


async def ask(made: socket.socket, request: bytes) -> None:
    await asyncio.get_running_loop().sock_sendall(made, request)


async def answered(made: socket.socket) -> None:
    """The first bytes of the answer have come; they are left where they are."""
    loop = asyncio.get_running_loop()
    readable = loop.create_future()
    loop.add_reader(made, readable.cancel)
    try:
        done, _ = await asyncio.wait({readable}, timeout=30)
        assert done, "no answer"
    finally:
        loop.remove_reader(made)


def is_held(made: socket.socket) -> bool:
    """Whether the service's kernel still has its end of this connection (Linux, IPv4)."""
    mine = made.getsockname()[1]
    for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
        fields = line.split()
        remote_port = int(fields[2].rpartition(":")[2], 16)
        if remote_port == mine and fields[3] not in ("06", "07"):  # TIME_WAIT, CLOSE
            return True
    return False

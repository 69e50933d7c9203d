"""WebSocket frames on a bare connection: what no client library would let a test send."""

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from tests.gateway_fixture import ALICE
from tests.socket_client import PATH, PROTOCOL

PATIENCE_S = 20.0

CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG = 0x0, 0x1, 0x2, 0x8, 0x9, 0xA
MASK = b"\x37\xfa\x21\x3d"


def client_frame(
    payload: bytes,
    opcode: int = TEXT,
    *,
    fin: bool = True,
    masked: bool = True,
    reserved: int = 0,
    claimed: int | None = None,
) -> bytes:
    """One frame (RFC 6455 §5.2); `claimed` is the length in its head, if not the true one."""
    size = len(payload) if claimed is None else claimed
    first = (0x80 if fin else 0) | reserved << 4 | opcode
    mask_bit = 0x80 if masked else 0
    if size < 126:
        head = bytes((first, mask_bit | size))
    elif size < 65_536:
        head = bytes((first, mask_bit | 126)) + size.to_bytes(2, "big")
    else:
        head = bytes((first, mask_bit | 127)) + size.to_bytes(8, "big")
    if not masked:
        return head + payload
    return head + MASK + bytes(byte ^ MASK[at % 4] for at, byte in enumerate(payload))


def handshake(host: str, token: str = ALICE) -> bytes:
    return (
        f"GET {PATH} HTTP/1.1\r\nHost: {host}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n"
        f"Sec-WebSocket-Protocol: {PROTOCOL}\r\nAuthorization: Bearer {token}\r\n\r\n"
    ).encode()


class RawSocket:
    """Reads the service's frames as strictly as the standard has them."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    async def send(self, data: bytes) -> None:
        self._writer.write(data)
        try:
            await self._writer.drain()
        except ConnectionError:
            return  # the other side has had enough; what it said can still be read

    async def next(self) -> tuple[int, bytes]:
        """Opcode and payload; raises `IncompleteReadError` at the end."""
        async with asyncio.timeout(PATIENCE_S):
            first, second = await self._reader.readexactly(2)
            assert first & 0x70 == 0, "reserved bits"
            assert first & 0x80, "the service sends whole frames"
            assert second & 0x80 == 0, "the service does not mask"
            size = second
            if size == 126:
                size = int.from_bytes(await self._reader.readexactly(2), "big")
                assert size >= 126, "not the shortest length"
            elif size == 127:
                size = int.from_bytes(await self._reader.readexactly(8), "big")
                assert size >= 65_536, "not the shortest length"
            return first & 0x0F, await self._reader.readexactly(size)

    async def text(self) -> bytes:
        """The next message."""
        opcode, payload = await self.next()
        assert opcode == TEXT, (opcode, payload)
        return payload

    async def close_code(self) -> int | None:
        """The code of the close frame, then the end; None if the end came without one."""
        try:
            while True:
                opcode, payload = await self.next()
                if opcode == CLOSE:
                    return int.from_bytes(payload[:2], "big")
        except (asyncio.IncompleteReadError, ConnectionError):
            return None

    async def ends(self) -> None:
        """The service closes the connection."""
        async with asyncio.timeout(PATIENCE_S):
            try:
                while await self._reader.read(65_536):
                    pass
            except ConnectionError:
                return


@asynccontextmanager
async def raw_socket(
    url: str, *, behind: bytes = b"", buffer: int = 65_536
) -> AsyncIterator[RawSocket]:
    """An open socket whose `hello` was read; `behind` leaves in one write with the handshake.

    Of what is not asked for, no more than about `buffer` bytes are taken.
    """
    host, _, port = url.removeprefix("http://").rpartition(":")
    made = socket.socket()
    made.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, buffer)
    made.connect((host, int(port)))
    reader, writer = await asyncio.open_connection(sock=made, limit=buffer)
    try:
        writer.write(handshake(host) + behind)
        async with asyncio.timeout(PATIENCE_S):
            head = await reader.readuntil(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 101 "), head
        opened = RawSocket(reader, writer)
        assert b'"hello"' in await opened.text()
        yield opened
    finally:
        writer.transport.abort()

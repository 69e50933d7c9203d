"""HTTP on a bare socket: what a client really gets, byte by byte. Stricter than any real client."""

import asyncio
import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

PATIENCE_S = 30.0
HEAD_MAX = 65_536

_OPENING = re.compile(rb"retry: (\d+)\n(?::[^\n]*\n)?")
_BLOCK = re.compile(rb"(?:id: ([a-z0-9-]{1,40})\n)?event: ([a-z_]+)\ndata: ([^\r\n]*)")


@dataclass(frozen=True)
class RawEvent:
    """One event of a stream; `id` is None where the stream gave none."""

    kind: str
    data: Any
    id: str | None


@dataclass(frozen=True)
class RawAnswer:
    """An answer as it came. Header names are in lower case."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


async def request(
    port: int, method: str, target: str, headers: Mapping[str, str], body: bytes = b""
) -> RawAnswer:
    """The answer to exactly this request; `target` goes out as it is, tricks and all."""
    own = {"Host": f"127.0.0.1:{port}", "Connection": "close", "Content-Length": str(len(body))}
    async with asyncio.timeout(PATIENCE_S):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        try:
            sending = asyncio.create_task(
                _send(writer, _head(method, target, own | dict(headers)) + body), name="sending"
            )
            status, answer_headers = await _read_head(reader)
            raw = await reader.readexactly(int(answer_headers.get("content-length", "0")))
            sending.cancel()
            await asyncio.wait([sending])
        finally:
            await _close(writer)
    return RawAnswer(status, answer_headers, raw)


class RawStream:
    """One open event stream on its own socket."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        self._rest = b""
        self._opened = False
        self.status = 0
        self.headers: Mapping[str, str] = {}
        self.raw = b""
        self.last_id: str | None = None

    @classmethod
    async def open(
        cls, port: int, target: str, token: str, headers: Mapping[str, str] | None = None
    ) -> "RawStream":
        """The stream is open: its head has come."""
        async with asyncio.timeout(PATIENCE_S):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            own = {
                "Host": f"127.0.0.1:{port}",
                "Authorization": f"Bearer {token}",
                "Accept": "text/event-stream",
            }
            writer.write(_head("GET", target, own | dict(headers or {})))
            stream = cls(reader, writer)
            try:
                stream.status, stream.headers = await _read_head(reader)
            except BaseException:
                await _close(writer)
                raise
        return stream

    async def __aenter__(self) -> "RawStream":
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    async def next(self) -> RawEvent:
        """The next event.

        Raises:
            EOFError: the stream has ended, or its connection broke.
            AssertionError: the bytes are not those of the contract.
        """
        async with asyncio.timeout(PATIENCE_S):
            while b"\n\n" not in self._rest:
                piece = await self._chunk()
                self.raw += piece
                self._rest += piece
        block, _, self._rest = self._rest.partition(b"\n\n")
        if not self._opened:
            opening = _OPENING.match(block)
            assert opening is not None, block
            assert 500 <= int(opening[1]) <= 3000, block
            block, self._opened = block[opening.end() :], True
        match = _BLOCK.fullmatch(block)
        assert match is not None, block
        event = RawEvent(
            match[2].decode(), json.loads(match[3]), match[1].decode() if match[1] else None
        )
        if event.id is not None:
            self.last_id = event.id
        return event

    async def until(self, wanted: Callable[[RawEvent], bool]) -> list[RawEvent]:
        """The events up to and with the first that is wanted.

        Raises:
            EOFError: it did not come; the error says what came last.
        """
        received = [await self.next()]
        while not wanted(received[-1]):
            try:
                received.append(await self.next())
            except EOFError as exc:
                raise EOFError(f"ended after {received[-1]}") from exc
        return received

    async def until_kind(self, kind: str) -> list[RawEvent]:
        return await self.until(lambda event: event.kind == kind)

    async def until_change(self, type_: str, **fields: object) -> list[RawEvent]:
        """The events up to the first change of that type whose record has these fields."""
        return await self.until(lambda event: is_change(event, type_, **fields))

    async def rest(self) -> list[RawEvent]:
        """The events up to the end."""
        received: list[RawEvent] = []
        while True:
            try:
                received.append(await self.next())
            except EOFError:
                return received

    def abort(self) -> None:
        """The connection is gone without a word (a reset)."""
        self._writer.transport.abort()

    async def aclose(self) -> None:
        await _close(self._writer)

    async def _chunk(self) -> bytes:
        """The bytes of the next HTTP chunk (RFC 9112 §7.1)."""
        try:
            size = int(await self._reader.readuntil(b"\r\n"), 16)
            data = await self._reader.readexactly(size + 2)
        except (asyncio.IncompleteReadError, ConnectionError) as exc:
            raise EOFError from exc
        assert data[-2:] == b"\r\n", data[-20:]
        if size == 0:
            raise EOFError
        return data[:-2]


def is_change(event: RawEvent, type_: str, **fields: object) -> bool:
    if event.kind != "change" or event.data["type"] != type_:
        return False
    return all(event.data["data"].get(name) == value for name, value in fields.items())


def changes(received: list[RawEvent]) -> list[RawEvent]:
    return [each for each in received if each.kind == "change"]


def state_changes(received: list[RawEvent]) -> list[RawEvent]:
    """Changes but for progress, which is latest-value and may be left out."""
    return [each for each in changes(received) if each.data["type"] != "execution.progress"]


def _head(method: str, target: str, headers: Mapping[str, str]) -> bytes:
    lines = [f"{method} {target} HTTP/1.1", *(f"{k}: {v}" for k, v in headers.items())]
    return "\r\n".join((*lines, "", "")).encode("latin-1")


async def _read_head(reader: asyncio.StreamReader) -> tuple[int, Mapping[str, str]]:
    raw = await reader.readuntil(b"\r\n\r\n")
    first, *lines = raw.decode("latin-1").split("\r\n")[:-2]
    pairs = (line.partition(":") for line in lines)
    return int(first.split()[1]), {name.lower(): value.strip() for name, _, value in pairs}


async def _send(writer: asyncio.StreamWriter, data: bytes) -> None:
    """Sends as far as the other side takes it; one that has answered no may stop reading."""
    try:
        writer.write(data)
        await writer.drain()
    except ConnectionError:
        return


async def _close(writer: asyncio.StreamWriter) -> None:
    writer.close()
    try:
        await writer.wait_closed()
    except ConnectionError:
        return

"""Reads an event stream in a test: bytes as they came, and frames one by one."""

import asyncio
import json
from dataclasses import dataclass
from typing import Any

import aiohttp

from tests.gateway_fixture import ALICE, bearer


@dataclass(frozen=True)
class SentFrame:
    """One frame; `id` is None where the stream gave none."""

    kind: str
    data: Any
    id: str | None = None


class StreamReader:
    """One open response. Splits only at the blank lines: stricter than any real client."""

    def __init__(self, response: aiohttp.ClientResponse) -> None:
        self.response = response
        self.raw = b""
        self._rest = b""

    async def next(self) -> SentFrame:
        """The next frame; raises EOFError at the end of the stream."""
        async with asyncio.timeout(20):
            while b"\n\n" not in self._rest:
                data = await self.response.content.readany()
                if not data:
                    raise EOFError(self._rest)
                self.raw += data
                self._rest += data
        block, _, self._rest = self._rest.partition(b"\n\n")
        return _parse(block)

    async def until(self, kind: str) -> list[SentFrame]:
        """Frames up to and with the first of `kind`."""
        sent = [await self.next()]
        while sent[-1].kind != kind:
            sent.append(await self.next())
        return sent

    async def next_change(self) -> SentFrame:
        return (await self.until("change"))[-1]

    async def rest(self) -> list[SentFrame]:
        """All frames up to the end of the stream."""
        sent: list[SentFrame] = []
        while True:
            try:
                sent.append(await self.next())
            except EOFError:
                return sent

    def close(self) -> None:
        self.response.close()


async def open_stream(
    session: aiohttp.ClientSession, path: str, token: str = ALICE, **headers: str
) -> StreamReader:
    spelled = {name.replace("_", "-"): value for name, value in headers.items()}
    response = await session.get(path, headers=bearer(token) | spelled)
    return StreamReader(response)


def _parse(block: bytes) -> SentFrame:
    """Fields in exactly the contract's order; anything else fails the test."""
    lines = block.decode().split("\n")
    if lines[0].startswith("retry: "):
        assert lines[0].removeprefix("retry: ").isdigit(), lines
        assert lines[1] == ":ok", lines
        lines = lines[2:]
    id = lines.pop(0).removeprefix("id: ") if lines[0].startswith("id: ") else None
    assert len(lines) == 2, lines
    assert lines[0].startswith("event: "), lines
    assert lines[1].startswith("data: "), lines
    return SentFrame(
        lines[0].removeprefix("event: "), json.loads(lines[1].removeprefix("data: ")), id
    )

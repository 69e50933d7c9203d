"""Connections that the service makes to programs: does a port take one, what does a URL answer.

Each is closed after its use and takes no longer than its caller allows. Few are made at a time; one
that takes long keeps no other waiting: it goes on beside them, one of each program at most.
"""

import asyncio
import ipaddress
import re
import socket
import ssl
from collections.abc import AsyncIterator
from contextlib import ExitStack, asynccontextmanager, suppress

from bus.scarcity import NO_MEANS, reason_of
from bus.threads import READS
from bus.visible_text import visible
from handlers.catalog.probe_targets import HttpTarget, TcpTarget

AT_ONCE = 64
"""So many connections may be on their way; others wait for their turn."""

TURN_S = 5.0
"""A turn is over then: servers that never answer keep none from those that do."""

THIS_MACHINE = ("127.0.0.1", "::1")
"""Tried in this order where a target names no host, or `localhost`."""

HEAD_BYTES_MAX = 16_384
REST_BYTES_MAX = 65_536
REST_S = 0.5
"""So much, and so long, is read of an answer whose status is known: a server whose answer is cut
off would log an error."""

INTERIM_MAX = 8
"""Answers of 1xx before the one that counts."""

SHOWN_MAX = 100

_STATUS = re.compile(rb"HTTP/1\.[01] ([1-5][0-9]{2})(?: ([^\r\n]*))?\r?\n")


class NoAnswer(Exception):
    """A sentence: what was asked, and what came instead of the answer."""


class NotAsked(NoAnswer):
    """The service lacks what it takes to ask: that says nothing of the program."""


class Connections:
    """Asks ports and URLs. `_turns` are the connections that may still be made now, `_lookup` is
    held while a name is looked up: a slow server for names takes one thread and no more. `_trust`
    is made at the first URL with TLS."""

    def __init__(self) -> None:
        self._turns = asyncio.Semaphore(AT_ONCE)
        self._lookup = asyncio.Lock()
        self._trust: ssl.SSLContext | None = None

    async def ask(self, target: TcpTarget | HttpTarget, timeout_s: float) -> str:
        """What the answer was, in a few words.

        Raises:
            NoAnswer: there was none, or no good one.
            NotAsked: it was not asked.
        """
        name = f"{target.host or 'this machine'} port {target.port}"
        async with self._turn():
            try:
                async with asyncio.timeout(timeout_s):
                    return await self._ask(target)
            except TimeoutError:
                raise NoAnswer(f"{name} did not answer within {timeout_s:g} s") from None
            except OSError as error:
                kind = NotAsked if error.errno in NO_MEANS else NoAnswer
                raise kind(_sentence(name, error)) from None

    @asynccontextmanager
    async def _turn(self) -> AsyncIterator[None]:
        """Begins when it is this one's turn, which ends with the block or after `TURN_S`."""
        await self._turns.acquire()
        with ExitStack() as held:
            held.callback(self._turns.release)
            timer = asyncio.get_running_loop().call_later(TURN_S, held.close)
            try:
                yield
            finally:
                timer.cancel()

    async def _ask(self, target: TcpTarget | HttpTarget) -> str:
        link = await self._connected(target.host, target.port)
        if isinstance(target, TcpTarget):
            link.close()
            return f"port {target.port} takes connections"
        try:
            reader, writer = await asyncio.open_connection(
                sock=link,
                limit=HEAD_BYTES_MAX,
                ssl=await self._context() if target.is_tls else None,
                server_hostname=target.host if target.is_tls else None,
            )
        except BaseException:
            link.close()
            raise
        try:
            return await _answer(target, reader, writer)
        finally:
            writer.transport.abort()

    async def _connected(self, host: str, port: int) -> socket.socket:
        """A connection to the first address of the host that takes one.

        Raises:
            OSError: none does; why the last one did not.
        """
        loop = asyncio.get_running_loop()
        why: OSError = ConnectionRefusedError()
        for address in await self._addresses(host, port):
            family = socket.AF_INET6 if ":" in address else socket.AF_INET
            link = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
            try:
                await loop.sock_connect(link, (address, port))
            except OSError as error:
                link.close()
                why = error
            except BaseException:
                link.close()
                raise
            else:
                return link
        raise why

    async def _addresses(self, host: str, port: int) -> tuple[str, ...]:
        if host in ("", "localhost"):
            return THIS_MACHINE
        with suppress(ValueError):
            return (str(ipaddress.ip_address(host)),)
        async with self._lookup:
            found = await READS.finish(
                socket.getaddrinfo, host, port, type=socket.SOCK_STREAM, proto=socket.IPPROTO_TCP
            )
        return tuple(str(address[0]) for *_, address in found)

    async def _context(self) -> ssl.SSLContext:
        if self._trust is None:
            self._trust = await READS.run(ssl.create_default_context)  # reads some hundred files
        return self._trust


async def _answer(
    target: HttpTarget, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
) -> str:
    """The status of the answer, if it is a good one.

    Raises:
        NoAnswer: it is not.
        OSError: none came.
    """
    writer.write(
        f"GET {target.path} HTTP/1.1\r\nHost: {target.authority}\r\nAccept: */*\r\n"
        "User-Agent: jobbus\r\nConnection: close\r\n\r\n".encode("ascii")
    )
    await writer.drain()
    found = await _final_status(target, reader)
    await _rest(reader)
    words = visible((found[2] or b"").decode("latin-1").strip())[:SHOWN_MAX]
    status = found[1].decode("ascii") + (f" {words}" if words else "")
    said = f"{target.authority}{target.path[:SHOWN_MAX]} answered {status}"
    if found[1][:1] != b"2":
        raise NoAnswer(said)
    return said


async def _final_status(target: HttpTarget, reader: asyncio.StreamReader) -> re.Match[bytes]:
    """The status line behind those that only announce it (1xx, RFC 9110 §15.2).

    Raises:
        NoAnswer: there is none.
        OSError: the connection ended before it.
    """
    for _ in range(INTERIM_MAX + 1):
        line = await _line(reader)
        found = _STATUS.fullmatch(line)
        if found is None:
            if not line:
                raise ConnectionResetError
            break
        if found[1][:1] != b"1":
            return found
        while (await _line(reader)).strip(b"\r\n"):
            pass
    raise NoAnswer(f"what answers on port {target.port} does not speak HTTP")


async def _line(reader: asyncio.StreamReader) -> bytes:
    try:
        return await reader.readline()
    except ValueError:  # longer than any line of an answer's head
        return b"-\n"


async def _rest(reader: asyncio.StreamReader) -> None:
    with suppress(TimeoutError, OSError):
        async with asyncio.timeout(REST_S):
            left = REST_BYTES_MAX
            while left > 0 and (data := await reader.read(left)):
                left -= len(data)


def _sentence(name: str, error: OSError) -> str:
    match error:
        case ConnectionRefusedError():
            return f"nothing listens on {name}"
        case socket.gaierror():
            return f"the address of {name} cannot be found"
        case ssl.SSLCertVerificationError():
            return f"the certificate of {name} is not trusted: {error.verify_message}"
        case ssl.SSLError():
            return f"{name} does not speak TLS as it should"
        case ConnectionResetError() | BrokenPipeError():
            return f"{name} closed the connection without an answer"
        case _:
            return f"{name} cannot be reached: {reason_of(error)}"

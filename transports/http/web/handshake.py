"""TLS on one accepted connection, in little memory and among the counted ones from the beginning.

asyncio's own way makes a connection of it only after the handshake, and gives each 256 KiB before
that: a client that opens many and sends nothing would take all descriptors and much of the memory.
"""

import asyncio
import ssl
from asyncio.sslproto import SSLProtocol

from transports.http.web.connections import Connections

RECORD_MAX = 16 * 1024 + 512
"""The longest record of TLS (RFC 8446 §5.2), and its head."""

HANDSHAKE_S = 10
SHUTDOWN_S = 5


class Handshake(SSLProtocol):
    """One accepted connection under TLS; `held` until it is lost or its handshake is through."""

    max_size = RECORD_MAX

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        protocol: asyncio.Protocol,
        context: ssl.SSLContext,
        held: Connections,
    ) -> None:
        super().__init__(
            loop,
            protocol,
            context,
            None,  # type: ignore[arg-type]  # nothing waits for the handshake
            server_side=True,
            ssl_handshake_timeout=HANDSHAKE_S,
            ssl_shutdown_timeout=SHUTDOWN_S,
        )
        self._held = held
        self._under: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._under = transport
        self._held.add(self)
        super().connection_made(transport)

    def connection_lost(self, exc: BaseException | None) -> None:
        self._held.remove(self)
        super().connection_lost(exc)

    @property
    def is_idle(self) -> bool:
        return False

    def drop(self) -> None:
        if self._under is not None:
            self._under.abort()

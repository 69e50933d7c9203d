"""What the gateway is given: its ports and its limits. No behaviour beyond defaults."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from bus.access import RoleDefaults
from bus.audit import AuditTrail
from bus.clock import Clock
from bus.commands import SetMaintenance
from bus.feed import Feed, History
from bus.ports import CommandWaiter, Door, OutputLineReader, TableReader
from transports.http.access.proxy import ProxySettings
from transports.http.access.sessions import SessionLimits
from transports.http.access.token_store import TokenStore
from transports.http.output.shared import SharedOutput
from transports.http.streams.metrics import Told
from transports.http.web.connections import DEFAULT_MAX


@cache
def installed_version() -> str:
    """The version of the installed distribution, or `0+unknown` in a bare checkout."""
    from importlib.metadata import PackageNotFoundError, version  # here: 10 ms of each start

    try:
        return version("jobbus")
    except PackageNotFoundError:
        return "0+unknown"


@dataclass(frozen=True, kw_only=True)
class GatewayPorts:
    """The rest of the house, as far as the gateway may know it.

    `secret` is the instance's own and never leaves it. `tokens` says whom a token speaks for,
    now: it is asked again while a stream is open. `ready` is None, or why not. Without
    `sessions_file` a restart signs everybody out.
    """

    table: TableReader
    door: Door
    waiter: CommandWaiter
    feed: Feed
    history: History
    output: OutputLineReader
    clock: Clock
    instance: str
    secret: bytes
    roles: RoleDefaults
    tokens: TokenStore
    system: Callable[[], dict[str, Any]]
    maintain: Callable[[SetMaintenance], Awaitable[None]] | None = None
    ready: Callable[[], str | None]
    sessions_file: Path | None = None
    audit: AuditTrail | None = None
    told: Told = field(init=False, default_factory=Told)
    tails: SharedOutput = field(init=False)

    def __post_init__(self) -> None:
        # One for all ways to follow an execution, or they would not share.
        object.__setattr__(self, "tails", SharedOutput(self.output))


@dataclass(kw_only=True)
class GatewaySettings:
    """Limits and times; the defaults are those of the contract, tests use smaller ones.

    All parts of a gateway hold the same one and look at it when they need it; `Gateway.go_by`
    alone changes it, in one step.

    `hosts` are names beyond loopback and the address listened on that a `Host` header may carry.
    Pages of `origins` may use the API with a bearer token or a ticket. Without `proxy` the word of
    one counts for nothing. `held_proven` and `held_unproven` are bytes that all peers together may
    make the gateway hold, beside a little for each connection. A principal may send `posts_per_s`,
    `post_burst` at a time.
    """

    hosts: tuple[str, ...] = ()
    origins: tuple[str, ...] = ()
    proxy: ProxySettings | None = None
    sessions: SessionLimits = SessionLimits()  # noqa: RUF009 - frozen
    posts_per_s: float = 5_000.0
    post_burst: float = 10_000.0
    waits_max: int = 1000
    waits_per_principal: int = 200
    connections_max: int = DEFAULT_MAX
    body_max: int = 1024 * 1024
    held_proven: int = 64 * 1024 * 1024
    held_unproven: int = 4 * 1024 * 1024
    keepalive_s: float = 75.0
    lingering_s: float = 10.0
    header_line_max: int = 8190
    wait_s_max: float = 30.0
    heartbeat_s: float = 15.0
    recheck_s: float = 15.0
    age_s: float = 900.0
    write_timeout_s: float = 20.0
    user_timeout_s: float = 30.0
    send_buffer: int = 128 * 1024
    write_max: int = 64 * 1024
    flush_s_min: float = 0.002
    output_batch_s: float = 0.05
    partial_s: float = 0.25
    latest_behind: int = 4 * 1024 * 1024
    latest_keep: int = 256 * 1024
    search_s: float = 10.0
    streams_max: int = 1000
    streams_per_principal: int = 20
    sockets_unproven_max: int = 64
    socket_auth_s: float = 5.0
    socket_heartbeat_s: float = 20.0
    socket_close_s: float = 1.5
    socket_message_max: int = 64 * 1024
    socket_subscriptions_max: int = 64
    socket_frames_per_s: float = 20.0
    socket_frames_burst: float = 100.0
    snapshot_age_s: float = 900.0
    snapshot_max: int = 500
    shutdown_s: float = 3.0
    version: str = ""

    @property
    def version_shown(self) -> str:
        """The one given, else that of the installed distribution, looked up when first asked."""
        return self.version or installed_version()

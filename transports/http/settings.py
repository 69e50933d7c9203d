"""The limits and times of the gateway. No behaviour beyond defaults."""

import ipaddress
from dataclasses import dataclass
from functools import cache

import msgspec

from transports.http.web.connections import DEFAULT_MAX


@cache
def installed_version() -> str:
    """The version of the installed distribution, or `0+unknown` in a bare checkout."""
    from importlib.metadata import PackageNotFoundError, version  # here: 10 ms of each start

    try:
        return version("jobbus")
    except PackageNotFoundError:
        return "0+unknown"


Network = ipaddress.IPv4Network | ipaddress.IPv6Network


class ProxySettings(msgspec.Struct, frozen=True, kw_only=True):
    """Which peers are the proxy, and the headers in which it names the user and their roles.

    Without `user_header` the proxy vouches for no user. `default_roles` are those of a user for
    whom it names none.
    """

    trusted: tuple[Network, ...]
    user_header: str | None = None
    roles_header: str | None = None
    default_roles: tuple[str, ...] = ()


class SessionLimits(msgspec.Struct, frozen=True, kw_only=True):
    """How long a session lives, used or not, and how many there may be."""

    idle_ms: int = 12 * 3_600_000
    age_ms: int = 7 * 86_400_000
    most: int = 1000


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

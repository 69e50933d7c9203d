"""What the gateway is given by the rest of the house."""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any

from bus.access import RoleDefaults
from bus.apps import App
from bus.audit import AuditTrail
from bus.clock import Clock
from bus.commands import SetMaintenance
from bus.feed import Feed, History
from bus.model import Execution
from bus.ports import (
    ArtifactReader,
    CommandPublisher,
    CommandWaiter,
    OutputLineReader,
    ScheduleReader,
    TableReader,
)
from transports.http.access.session_store import SavedSessions
from transports.http.access.token_store import TokenStore


def _no_schema(_: str) -> bytes | None:
    return None


@dataclass(frozen=True, kw_only=True)
class GatewayPorts:
    """The rest of the house, as far as the gateway may know it.

    `secret` is the instance's own and never leaves it. `tokens` says whom a token speaks for,
    now: it is asked again while a stream is open. `apps` is what apps say of themselves; `schemas`
    gives the JSON schema of a file that people write, by the file's name. `ready` is None, or why
    not.
    """

    table: TableReader
    publisher: CommandPublisher
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
    artifacts: ArtifactReader
    apps: Callable[[], Sequence[App]] = tuple
    schemas: Callable[[str], bytes | None] = _no_schema
    maintain: Callable[[SetMaintenance], Awaitable[None]] | None = None
    believe_clock: Callable[[str], Awaitable[None]] | None = None
    ready: Callable[[], str | None]
    sessions: SavedSessions
    audit: AuditTrail | None = None
    schedules: ScheduleReader | None = None

    def waiting_for(self, execution: Execution) -> str:
        """What the execution waits for now, see `TableReader`."""
        return self.table.waiting_for(execution, self.clock.now_ms())

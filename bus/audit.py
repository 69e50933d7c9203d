"""Who did what, as it is kept and reported: the entry, the query and the port. No IO, no clock."""

from collections.abc import AsyncGenerator
from typing import Protocol

import msgspec

from bus.clock import rfc3339
from bus.model import Principal

TEXT_MAX = 256
"""Characters of any text in an entry: some texts come from clients that were refused."""


class AuditEntry(
    msgspec.Struct,
    frozen=True,
    kw_only=True,
    omit_defaults=True,
    rename={
        "submitted_at": "submittedAt",
        "processed_at": "processedAt",
        "error_code": "errorCode",
    },
):
    """One act. `n` is its number in the audit; `seq` that of the event by which it became a fact.

    Of acts without an event (`kind` is refused or note) `seq` is the last before them. `before` and
    `after` are states of what was acted on. `count` is how often it came within a minute.
    """

    n: int = 0
    seq: int = 0
    at: str
    kind: str
    actor: str
    action: str
    roles: tuple[str, ...] = ()
    via: str = ""
    job: str | None = None
    execution: str | None = None
    command: str | None = None
    submitted_at: str | None = None
    processed_at: str | None = None
    status: str | None = None
    outcome: str | None = None
    error_code: str | None = None
    cause: str | None = None
    before: str | None = None
    after: str | None = None
    detail: dict[str, str] = {}
    count: int = 1


ANONYMOUS = "anonymous"
"""The actor of what comes without a proof of who it is; `peer` says from where."""

COMMAND, AUTOMATIC, REFUSED, NOTE = "command", "automatic", "refused", "note"
"""The kinds of entries."""


class AuditQuery(msgspec.Struct, frozen=True, kw_only=True):
    """Which entries are wanted: within one field any of its values will do.

    `since_ms` counts, `until_ms` does not; `before_n` is where an earlier page ended.
    """

    actors: frozenset[str] = frozenset()
    jobs: frozenset[str] = frozenset()
    actions: frozenset[str] = frozenset()
    since_ms: int | None = None
    until_ms: int | None = None
    before_n: int | None = None


class AuditPage(msgspec.Struct, frozen=True, kw_only=True):
    """Entries, newest first, as JSON; `next` is the number to go on before, None at the end."""

    items: tuple[msgspec.Raw, ...]
    next: int | None


class AuditTrail(Protocol):
    """Where the ways in note what was done, and what answers queries."""

    def note(
        self, principal: Principal, action: str, *, error_code: str = "", **detail: str
    ) -> None:
        """Something was done, or with an `error_code` refused, that makes no event: a sign-in, a
        token. Never waits."""
        ...

    async def page(self, query: AuditQuery, limit: int) -> AuditPage:
        """Up to `limit` entries; what happened before this call is among them."""
        ...

    def export(self, query: AuditQuery) -> AsyncGenerator[bytes, None]:
        """All entries in order of their numbers, as NDJSON in pieces."""
        ...


def cut(text: str) -> str:
    """`text` as an entry may hold it."""
    return text if len(text) <= TEXT_MAX else text[: TEXT_MAX - 1] + "…"


def stamp(at_ms: int | None) -> str | None:
    return rfc3339(at_ms) if at_ms is not None else None

"""Sign-ins of browsers: which cookie stands for which token, and until when. Pure: no IO, no clock.

A session never knows more than its token: it ends with it, and has the roles that it has now. Only
hashes of the cookies are kept. Times are wall times, since sessions outlive a restart.
"""

import secrets
from collections.abc import Iterable

import msgspec

from transports.http.access.state_merge import merged
from transports.http.access.token_records import Grant, secret_hash
from transports.http.settings import SessionLimits
from transports.http.web.rate import first_of_the_many

_SEEN_STEP_MS = 300_000
"""How exactly it is kept when a session was last used: finer would write the file all the time."""


class SessionRecord(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """What is kept of a session. `key` is the hash of its cookie, `seal` that of its token."""

    key: str
    token_id: str
    seal: str
    created_ms: int
    seen_ms: int


class SessionBook:
    """All sessions by key; changed only by its owner."""

    def __init__(self, limits: SessionLimits, records: Iterable[SessionRecord] = ()) -> None:
        self.limits = limits
        self._records = {record.key: record for record in records}

    def __len__(self) -> int:
        return len(self._records)

    def records(self) -> tuple[SessionRecord, ...]:
        return tuple(self._records.values())

    def take(self, before: Iterable[SessionRecord], theirs: Iterable[SessionRecord]) -> None:
        """Others have changed `before`, which the book followed, to `theirs`: a session that either
        side ended is over."""
        found = merged(before, self.records(), theirs, lambda record: record.key, _with_last_use)
        self._records = {record.key: record for record in found}

    def open(self, grant: Grant, now_ms: int) -> tuple[str, SessionRecord]:
        """A new session and the cookie for it. If there are too many, one ends of the token that
        has the most: the one that was not used for the longest time."""
        self._forget_ended(now_ms)
        while len(self._records) >= self.limits.most:
            oldest_first = sorted(self._records.values(), key=lambda record: record.seen_ms)
            ends = first_of_the_many(oldest_first, lambda record: record.token_id)
            del self._records[ends.key]
        cookie = secrets.token_urlsafe(32)
        record = SessionRecord(
            key=secret_hash(cookie),
            token_id=grant.token_id,
            seal=grant.seal,
            created_ms=now_ms,
            seen_ms=now_ms,
        )
        self._records[record.key] = record
        return cookie, record

    def find(self, key: str, now_ms: int) -> SessionRecord | None:
        """The session, if it has not expired. The key is a hash: comparing it reveals nothing.

        One that a clock made that was ahead begins when it is seen: it would last until then.
        """
        record = self._records.get(key)
        if record is not None and max(record.created_ms, record.seen_ms) > now_ms:
            record = self._records[key] = msgspec.structs.replace(
                record,
                created_ms=min(record.created_ms, now_ms),
                seen_ms=min(record.seen_ms, now_ms),
            )
        return record if record is not None and now_ms < self.ends_ms(record) else None

    def ends_ms(self, record: SessionRecord) -> int:
        """When it ends if it is not used again."""
        return min(record.seen_ms + self.limits.idle_ms, self.last_ms(record))

    def last_ms(self, record: SessionRecord) -> int:
        """When it ends however much it is used."""
        return record.created_ms + self.limits.age_ms

    def seen(self, record: SessionRecord, now_ms: int) -> bool:
        """Notes a use; returns whether that is worth keeping."""
        if now_ms - record.seen_ms < min(_SEEN_STEP_MS, self.limits.idle_ms // 4):
            return False
        self._records[record.key] = msgspec.structs.replace(record, seen_ms=now_ms)
        return True

    def end(self, key: str) -> bool:
        return self._records.pop(key, None) is not None

    def _forget_ended(self, now_ms: int) -> None:
        ended = [r.key for r in self._records.values() if now_ms >= self.ends_ms(r)]
        for key in ended:
            del self._records[key]


def _with_last_use(theirs: SessionRecord, ours: SessionRecord) -> SessionRecord:
    return msgspec.structs.replace(theirs, seen_ms=max(theirs.seen_ms, ours.seen_ms))

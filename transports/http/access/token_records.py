"""Tokens of people and services: what one is, who it speaks for, how long. Pure: no IO, no clock.

A token is `jb_<id>_<secret>`. The secret is 256 random bits, so a plain hash of it is as good as a
slow one: there is no dictionary to try. Only the hash is ever kept.
"""

import hashlib
import hmac
import re
from collections.abc import Iterable

import msgspec

from bus.clock import rfc3339
from bus.envelope import RESERVED_USERS, USER_MAX, can_be_user
from bus.model import Principal
from bus.visible_text import hides
from transports.http.access.state_merge import merged

DAY_MS = 86_400_000
LIFETIME_MS_DEFAULT = 90 * DAY_MS
LIFETIME_MS_MAX = 3650 * DAY_MS
TOKENS_MAX = 10_000
ROLES_MAX = 32
NAME_MAX = 100
ADMIN_ID = "admin"
"""The id of the token that the first start makes; it lies in `admin.token`, not in the book."""

_TOKEN = re.compile(r"jb_([a-z0-9]{1,32})_([A-Za-z0-9_-]{1,128})\Z")
_ROLE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}\Z")
_LIFETIME = re.compile(r"([0-9]{1,6})([mhd])\Z")
_UNIT_MS = {"m": 60_000, "h": 3_600_000, "d": DAY_MS}
_NOBODY = hashlib.sha256(b"").hexdigest()


class TokenRecord(msgspec.Struct, frozen=True, kw_only=True, rename="camel", omit_defaults=True):
    """What is kept of a token. `used_ms` is coarse: the hour in which it was last seen."""

    id: str
    hash: str
    user_id: str
    roles: tuple[str, ...]
    created_ms: int
    created_by: str = ""
    expires_ms: int | None = None
    used_ms: int | None = None
    name: str = ""


class TokenView(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """A token as it is listed: everything but what would let somebody use it."""

    id: str
    user_id: str
    roles: tuple[str, ...]
    name: str
    created_at: str
    created_by: str
    expires_at: str | None
    last_used_at: str | None
    expired: bool


class NewToken(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """Sent once, to who made it: `token` is kept nowhere. `notes` are what may be a slip."""

    token: str
    id: str
    user_id: str
    roles: tuple[str, ...]
    expires_at: str | None
    notes: tuple[str, ...] = ()


class Grant(msgspec.Struct, frozen=True):
    """Whom a token speaks for. `seal` distinguishes the token from a later one with the same id."""

    principal: Principal
    token_id: str
    seal: str
    expires_ms: int | None = None

    def is_over(self, now_ms: int) -> bool:
        return self.expires_ms is not None and now_ms >= self.expires_ms


class TokenBook:
    """All tokens by id; changed only by its owner, who keeps the file equal to it."""

    def __init__(self, records: Iterable[TokenRecord] = ()) -> None:
        self._records = {record.id: record for record in records}
        self._grants = {record.id: _grant(record) for record in self._records.values()}

    def __len__(self) -> int:
        return len(self._records)

    def records(self) -> list[TokenRecord]:
        """The oldest first."""
        return sorted(self._records.values(), key=lambda record: (record.created_ms, record.id))

    def get(self, token_id: str) -> TokenRecord | None:
        return self._records.get(token_id)

    def put(self, record: TokenRecord) -> None:
        self._records[record.id] = record
        self._grants[record.id] = _grant(record)

    def remove(self, token_id: str) -> TokenRecord | None:
        self._grants.pop(token_id, None)
        return self._records.pop(token_id, None)

    def used(self, token_id: str, used_ms: int) -> None:
        """Notes a use; whom the token speaks for stays the same object."""
        record = self._records[token_id]
        self._records[token_id] = msgspec.structs.replace(record, used_ms=used_ms)

    def check(self, token: str, now_ms: int) -> Grant | None:
        """Whom `token` speaks for now. Takes as long for an unknown id as for a wrong secret."""
        match = _TOKEN.match(token)
        token_id, secret = match.groups() if match else ("", "")
        record = self._records.get(token_id)
        expected = record.hash if record is not None else _NOBODY
        fits = hmac.compare_digest(secret_hash(secret), expected)
        return self.grant(token_id, now_ms) if fits and secret else None

    def grant(self, token_id: str, now_ms: int) -> Grant | None:
        """Whom the token of this id speaks for, if there is one and it has not expired."""
        grant = self._grants.get(token_id)
        return grant if grant is not None and not grant.is_over(now_ms) else None


def merged_tokens(
    before: Iterable[TokenRecord], ours: Iterable[TokenRecord], theirs: Iterable[TokenRecord]
) -> list[TokenRecord]:
    """The tokens when both `ours` in memory and `theirs` in the file have changed since `before`:
    revoked is what either side revoked, and what memory knows is when each was last used."""
    return merged(before, ours, theirs, lambda record: record.id, _with_last_use)


def secret_hash(secret: str) -> str:
    """What is kept of a secret."""
    return hashlib.sha256(secret.encode()).hexdigest()


def token_text(token_id: str, secret: str) -> str:
    return f"jb_{token_id}_{secret}"


def split_token(token: str) -> tuple[str, str]:
    """Id and secret.

    Raises:
        ValueError: it is no token.
    """
    match = _TOKEN.match(token)
    if match is None:
        raise ValueError("not a token of the form jb_<id>_<secret>")
    return match[1], match[2]


def checked_user(text: str) -> str:
    """`text`, if a token may speak for a user of that name.

    Raises:
        ValueError: it is no name, or one that only jobbus itself gives.
    """
    if can_be_user(text):
        return text
    reserved = next((prefix for prefix in RESERVED_USERS if text.lower().startswith(prefix)), None)
    if reserved is not None:
        raise ValueError(f"users that begin with {reserved!r} are jobbus's own; choose another")
    raise ValueError(f"a user is 1 to {USER_MAX} visible characters")


def checked_roles(roles: Iterable[str]) -> tuple[str, ...]:
    """The roles without repeats, in the order given.

    Raises:
        ValueError: one is no word, or there are too many or none.
    """
    words = tuple(dict.fromkeys(roles))
    for word in words:
        if not _ROLE.match(word):
            raise ValueError(f"{word[:80]!r} is no role; a role is a word such as operator")
    if not 1 <= len(words) <= ROLES_MAX:
        raise ValueError(f"1 to {ROLES_MAX} roles are needed")
    return words


def checked_name(text: str) -> str:
    """`text`, if it can be a token's label.

    Raises:
        ValueError: it is too long or holds control characters.
    """
    if len(text) > NAME_MAX or not text.isprintable() or hides(text):
        raise ValueError(f"a name is at most {NAME_MAX} visible characters")
    return text


def checked_expiry(expires_ms: int, now_ms: int) -> int:
    """`expires_ms`, if it lies ahead and not absurdly far.

    Raises:
        ValueError: it does not.
    """
    if not now_ms < expires_ms <= now_ms + LIFETIME_MS_MAX:
        raise ValueError(f"must lie in the next {LIFETIME_MS_MAX // DAY_MS} days")
    return expires_ms


def lifetime_ms(text: str) -> int | None:
    """Milliseconds of `30m`, `12h` or `90d`; None for `never`.

    Raises:
        ValueError: it is none of them.
    """
    if text == "never":
        return None
    match = _LIFETIME.match(text)
    length_ms = int(match[1]) * _UNIT_MS[match[2]] if match else 0
    if not 0 < length_ms <= LIFETIME_MS_MAX:
        raise ValueError(f"{text!r} is no lifetime such as 30m, 12h, 90d (at most 3650d) or never")
    return length_ms


def token_view(record: TokenRecord, now_ms: int) -> TokenView:
    return TokenView(
        id=record.id,
        user_id=record.user_id,
        roles=record.roles,
        name=record.name,
        created_at=rfc3339(record.created_ms),
        created_by=record.created_by,
        expires_at=_time(record.expires_ms),
        last_used_at=_time(record.used_ms),
        expired=record.expires_ms is not None and now_ms >= record.expires_ms,
    )


def new_token_view(record: TokenRecord, token: str, notes: tuple[str, ...] = ()) -> NewToken:
    return NewToken(
        token=token,
        id=record.id,
        user_id=record.user_id,
        roles=record.roles,
        expires_at=_time(record.expires_ms),
        notes=notes,
    )


def _grant(record: TokenRecord) -> Grant:
    return Grant(
        principal=Principal(user_id=record.user_id, roles=record.roles, via="http"),
        token_id=record.id,
        seal=record.hash,
        expires_ms=record.expires_ms,
    )


def _with_last_use(theirs: TokenRecord, ours: TokenRecord) -> TokenRecord:
    used = [each.used_ms for each in (theirs, ours) if each.used_ms is not None]
    return msgspec.structs.replace(theirs, used_ms=max(used, default=None))


def _time(at_ms: int | None) -> str | None:
    return rfc3339(at_ms) if at_ms is not None else None

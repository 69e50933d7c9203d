"""The tokens of one data directory, in memory and in `tokens.json`: one owner, changes at once."""

import asyncio
import secrets
from collections.abc import Callable, Iterable, Sequence
from typing import Protocol

import structlog

from bus.clock import Clock
from bus.errors import BusError, DataDirectoryError
from bus.layout import DataLayout
from bus.scarcity import reason_of
from bus.threads import DISK
from transports.http.access.admin_token import admin_token, rotate_admin_token
from transports.http.access.state_file import StateFile
from transports.http.access.token_files import admin_record, book_of, encode_book, read_tokens
from transports.http.access.token_records import (
    ADMIN_ID,
    DAY_MS,
    TOKENS_MAX,
    Grant,
    TokenBook,
    TokenRecord,
    merged_tokens,
    secret_hash,
    token_text,
)

_HOUR_MS = DAY_MS // 24
log = structlog.get_logger("jobbus.http")


class TokenCheck(Protocol):
    """Whom a token speaks for, asked at each request and again while a stream is open."""

    def check(self, token: str) -> Grant | None:
        """Whom `token` speaks for, now."""
        ...

    def grant(self, token_id: str) -> Grant | None:
        """Whom the token of this id speaks for, now."""
        ...


class TokenRefused(BusError):
    """The tokens cannot be changed like that; the message says why."""

    code = "token_refused"


class TokenStore:
    """Implements `TokenCheck`, and makes and revokes tokens. Only for the loop's thread.

    `_book` holds the tokens in force: what is made and revoked here changes it, and what people
    write into `tokens.json`. `_admin` holds the token of `admin.token` and nothing else; who has
    `_admin_turn` reads or writes that file.
    """

    def __init__(
        self,
        clock: Clock,
        book: TokenBook,
        *,
        admin: TokenRecord | None = None,
        layout: DataLayout | None = None,
        content: bytes | None = None,
    ) -> None:
        """Without a layout nothing is kept on disk; `content` is what the book was read from."""
        self._layout = layout
        self._book = book
        self._clock = clock
        self._admin = TokenBook([admin] if admin is not None else ())
        self._admin_turn = asyncio.Lock()
        self._listeners: list[Callable[[], None]] = []
        self._file = StateFile(
            layout.tokens if layout is not None else None,
            content,
            render=lambda: encode_book(self._book),
            absorb=self._absorb,
            read=read_tokens,
        )

    @classmethod
    def load(cls, layout: DataLayout, admin: str, clock: Clock) -> "TokenStore":
        """The tokens as the disk has them. Blocking.

        Raises:
            DataDirectoryError: a file is damaged or open to others.
        """
        own, content = admin_record(admin), read_tokens(layout.tokens)
        book = book_of(layout.tokens, content)
        return cls(clock, book, admin=own, layout=layout, content=content)

    def listen(self, listener: Callable[[], None]) -> None:
        """`listener` is called whenever tokens may have ended: revoked, replaced, or by an edit of
        a file."""
        self._listeners.append(listener)

    def check(self, token: str) -> Grant | None:
        now_ms = self._clock.now_ms()
        grant = self._book.check(token, now_ms) or self._admin.check(token, now_ms)
        if grant is not None and grant.token_id != ADMIN_ID:
            self._note_use(grant.token_id, now_ms)
        return grant

    def grant(self, token_id: str) -> Grant | None:
        book = self._admin if token_id == ADMIN_ID else self._book
        return book.grant(token_id, self._clock.now_ms())

    def records(self) -> Sequence[TokenRecord]:
        return self._book.records()

    async def create(
        self,
        user_id: str,
        roles: Iterable[str],
        *,
        expires_ms: int | None,
        created_by: str,
        name: str = "",
    ) -> tuple[TokenRecord, str]:
        """A new token, durable and in force; its text is given here and nowhere else.

        Raises:
            TokenRefused: there are too many.
            StorageFailed: it could not be kept, and is not in force.
        """
        record, token = make_token(
            self._book,
            user_id,
            roles,
            now_ms=self._clock.now_ms(),
            expires_ms=expires_ms,
            created_by=created_by,
            name=name,
        )
        self._book.put(record)
        try:
            await self._file.save()
        except BusError:
            self._book.remove(record.id)
            raise
        return record, token

    async def revoke(self, token_id: str) -> TokenRecord | None:
        """The token is refused from this moment on, and durably when this returns.

        Raises:
            StorageFailed: it is refused in this run, but the next might know it again.
        """
        record = self._book.remove(token_id)
        self._notify()
        # Also for one that is not there: an earlier revocation may not have reached the disk.
        await self._file.save()
        return record

    async def look(self) -> None:
        """What people have written into the files counts, now.

        Raises:
            DataDirectoryError: a file is damaged or open to others; all stays as it was.
        """
        assert self._layout is not None, "there are no files"
        async with self._admin_turn:
            try:
                text = await DISK.finish(admin_token, self._layout)
            except OSError as exc:
                raise DataDirectoryError(f"admin.token cannot be read: {reason_of(exc)}") from exc
            admin = admin_record(text)
            await self._file.look()
            self._admin.put(admin)
        self._notify()

    async def rotate_admin(self) -> None:
        """`admin.token` holds a new token, and the old one is refused.

        Raises:
            OSError: it could not be written; the old one stays.
        """
        assert self._layout is not None, "there is no admin.token"
        async with self._admin_turn:
            token = await DISK.finish(rotate_admin_token, self._layout)
            self._admin.put(admin_record(token))
        self._notify()

    async def run(self) -> None:
        """Keeps on disk when tokens were last used."""
        await self._file.run()

    async def aclose(self) -> None:
        await self._file.aclose()

    def _absorb(self, before: bytes | None, found: bytes | None) -> None:
        """People have changed the file from `before` to `found`."""
        assert self._layout is not None, "there is no file"
        path = self._layout.tokens
        theirs, ours = book_of(path, found), self._book
        known = book_of(path, before)
        self._book = TokenBook(merged_tokens(known.records(), ours.records(), theirs.records()))
        for record in ours.records():
            if self._book.get(record.id) is None:
                log.info("credential revoked", id=record.id, user=record.user_id, by=path.name)
        for record in self._book.records():
            if ours.get(record.id) is None:
                log.info("credential added", id=record.id, user=record.user_id, by=path.name)
        self._notify()

    def _notify(self) -> None:
        for listener in self._listeners:
            listener()

    def _note_use(self, token_id: str, now_ms: int) -> None:
        hour_ms = now_ms - now_ms % _HOUR_MS
        record = self._book.get(token_id)
        if record is not None and record.used_ms != hour_ms:
            self._book.used(token_id, hour_ms)
            self._file.save_soon()


def make_token(
    book: TokenBook,
    user_id: str,
    roles: Iterable[str],
    *,
    now_ms: int,
    expires_ms: int | None,
    created_by: str,
    name: str = "",
) -> tuple[TokenRecord, str]:
    """A record that is not yet in the book, and the token it is of.

    Raises:
        TokenRefused: the book is full.
    """
    if len(book) >= TOKENS_MAX:
        raise TokenRefused(f"there are {TOKENS_MAX} tokens; revoke some first")
    token_id, secret = secrets.token_hex(6), secrets.token_urlsafe(32)
    while book.get(token_id) is not None:
        token_id = secrets.token_hex(6)
    record = TokenRecord(
        id=token_id,
        hash=secret_hash(secret),
        user_id=user_id,
        roles=tuple(roles),
        created_ms=now_ms,
        created_by=created_by,
        expires_ms=expires_ms,
        name=name,
    )
    return record, token_text(token_id, secret)

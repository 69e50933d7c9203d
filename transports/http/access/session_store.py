"""The sessions of one data directory, in memory and in `sessions.json`, so that a restart
ends no session."""

from collections.abc import Callable
from pathlib import Path

import msgspec
import structlog

from bus.clock import Clock
from bus.errors import NoSpace
from transports.http.access.identity import Identity, Way
from transports.http.access.sessions import SessionBook, SessionRecord
from transports.http.access.state_file import NotPrivate, StateFile, read_private
from transports.http.access.token_records import Grant, secret_hash
from transports.http.access.token_store import TokenCheck
from transports.http.settings import SessionLimits

FILE_SIZE_MAX = 4 * 1024 * 1024
log = structlog.get_logger("jobbus.http")


class _File(msgspec.Struct, frozen=True, kw_only=True):
    version: int = 1
    sessions: tuple[SessionRecord, ...] = ()


class SavedSessions(msgspec.Struct, frozen=True):
    """The file at `path` as the start found it; without a path a restart signs everybody out."""

    path: Path | None = None
    content: bytes | None = None

    @classmethod
    def read(cls, path: Path) -> "SavedSessions":
        """What the last service left. Blocking.

        Raises:
            DataDirectoryError: it cannot be read.
        """
        return cls(path, _read(path))


class Sessions:
    """Opens, finds and ends sessions. Only for the loop's thread.

    `ended` is called whenever sessions may have ended: by a sign-out, or by an edit of the file.
    """

    def __init__(
        self,
        saved: SavedSessions,
        tokens: TokenCheck,
        clock: Clock,
        limits: SessionLimits,
        ended: Callable[[], None] = lambda: None,
    ) -> None:
        self._tokens = tokens
        self._clock = clock
        self._ended = ended
        self._book = SessionBook(limits, _kept(saved.content))
        self._file = StateFile(
            saved.path, saved.content, render=self._encoded, absorb=self._absorb, read=_read
        )

    def go_by(self, limits: SessionLimits) -> None:
        """Sessions last, from now on, as these say; those that are open, too."""
        self._book.limits = limits

    async def open(self, grant: Grant) -> tuple[str, Identity]:
        """A session for who has `grant`, and its cookie.

        Raises:
            StorageFailed: the disk takes nothing; no session was opened.
        """
        cookie, record = self._book.open(grant, self._clock.now_ms())
        try:
            await self._file.save()
        except NoSpace as error:
            # Who signs in on a full disk comes to make room; only a restart signs them out.
            log.warning("a session is not on the disk yet", reason=str(error))
            self._file.save_soon()
        except BaseException:  # also a cancellation: the cookie was sent to no client
            self._book.end(record.key)
            raise
        return cookie, self._identity(record, grant)

    def find(self, cookie: str) -> Identity | None:
        """Whose cookie it is, now; that counts as a use."""
        return self.again(secret_hash(cookie))

    def again(self, key: str) -> Identity | None:
        """Whose session it is, if neither it nor its token has ended; that counts as a use."""
        now_ms = self._clock.now_ms()
        record = self._book.find(key, now_ms)
        grant = self._tokens.grant(record.token_id) if record is not None else None
        if record is None or grant is None or grant.seal != record.seal:
            return None
        if self._book.seen(record, now_ms):
            self._file.save_soon()
        return self._identity(record, grant)

    async def end(self, key: str) -> None:
        """The session is over from this moment on, and durably when this returns.

        Raises:
            StorageFailed: it is over in this run, but the next might know it again.
        """
        self._book.end(key)
        self._ended()
        await self._file.save()

    async def run(self) -> None:
        """Keeps on disk when sessions were last used."""
        await self._file.run()

    async def aclose(self) -> None:
        await self._file.aclose()

    def _identity(self, record: SessionRecord, grant: Grant) -> Identity:
        last_ms = self._book.last_ms(record)
        if grant.expires_ms is not None:
            last_ms = min(last_ms, grant.expires_ms)
        return Identity(grant, Way.COOKIE, session=record.key, expires_ms=last_ms)

    def _absorb(self, before: bytes | None, found: bytes | None) -> None:
        """Others have changed the file from `before` to `found`."""
        count = len(self._book)
        self._book.take(_kept(before), _kept(found))
        log.info("sessions were edited", before=count, now=len(self._book))
        self._ended()

    def _encoded(self) -> bytes:
        return msgspec.json.encode(_File(sessions=self._book.records()))


def _read(path: Path) -> bytes | None:
    """The file, or something damaged in its place if others could have written it.

    Raises:
        DataDirectoryError: it cannot be read.
    """
    try:
        return read_private(path, FILE_SIZE_MAX)
    except NotPrivate as error:
        log.warning("sessions are not believed", reason=str(error))
        return b""


def _kept(content: bytes | None) -> tuple[SessionRecord, ...]:
    """What the file holds. A damaged one only signs people out: it stops no start."""
    if content is None:
        return ()
    try:
        file = msgspec.json.decode(content, type=_File)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        log.warning("sessions are lost; everybody signs in again", reason=str(error))
        return ()
    return file.sessions if file.version == 1 else ()

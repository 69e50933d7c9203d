"""`tokens.json` and `admin.token` as they are read and written. Blocking IO."""

from pathlib import Path

import msgspec

from bus.access import ADMIN
from bus.errors import DataDirectoryError
from bus.files import replace_file
from transports.http.access.state_file import read_private
from transports.http.access.token_records import (
    ADMIN_ID,
    TokenBook,
    TokenRecord,
    secret_hash,
    split_token,
)

FILE_SIZE_MAX = 16 * 1024 * 1024


class _File(msgspec.Struct, frozen=True, kw_only=True):
    version: int = 1
    tokens: tuple[TokenRecord, ...] = ()


def load_book(path: Path) -> TokenBook:
    """The tokens in the file; none if there is no file. Blocking.

    Raises:
        DataDirectoryError: it is damaged or open to others.
    """
    return book_of(path, read_tokens(path))


def read_tokens(path: Path) -> bytes | None:
    return read_private(path, FILE_SIZE_MAX)


def book_of(path: Path, content: bytes | None) -> TokenBook:
    if content is None:
        return TokenBook()
    try:
        file = msgspec.json.decode(content, type=_File)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise DataDirectoryError(
            f"{path} is damaged: {error}; move it away and make new tokens"
        ) from error
    if file.version != 1:
        raise DataDirectoryError(f"{path} is of version {file.version}; this jobbus reads 1")
    return TokenBook(file.tokens)


def save_book(path: Path, book: TokenBook) -> None:
    """The file holds the book, durably. Blocking; only while holding the directory's lock."""
    replace_file(path, encode_book(book))


def encode_book(book: TokenBook) -> bytes:
    raw = msgspec.json.encode(_File(tokens=tuple(book.records())))
    return msgspec.json.format(raw, indent=1) + b"\n"


def admin_record(token: str) -> TokenRecord:
    """The record of `admin.token`."""
    try:
        token_id, secret = split_token(token)
    except ValueError as exc:
        raise DataDirectoryError(
            "admin.token holds no token; remove it and start again to get a new one"
        ) from exc
    if token_id != ADMIN_ID:
        raise DataDirectoryError(f"admin.token must hold a token jb_{ADMIN_ID}_…")
    return TokenRecord(
        id=ADMIN_ID,
        hash=secret_hash(secret),
        user_id="admin",
        roles=(ADMIN,),
        created_ms=0,
    )

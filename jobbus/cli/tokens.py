"""`token`: make, list and revoke the tokens by which people and services are let in.

Through the service while one runs, so that it takes effect at once; else in the data directory,
while holding its lock.
"""

import getpass
import re
import time
from collections.abc import Sequence
from typing import Annotated, TypeVar

import msgspec
from cyclopts import App, Parameter

from bus.access import ADMIN, METRICS, RoleDefaults, notes_on_roles, role_words
from bus.clock import rfc3339
from bus.layout import DataLayout
from handlers.audit.segments import note_offline
from jobbus.cli.exits import CliError, Exit
from jobbus.cli.show import Json, say, show_json, show_table
from jobbus.cli.target import HERE, Place, Target, client_of, locate
from jobbus.client.records import NewToken, Token
from jobbus.service.directory_hold import locked_data_directory
from transports.http.access.admin_token import rotate_admin_token
from transports.http.access.token_files import load_book, save_book
from transports.http.access.token_records import (
    ADMIN_ID,
    checked_name,
    checked_roles,
    checked_user,
    lifetime_ms,
    new_token_view,
    token_view,
)
from transports.http.access.token_store import make_token

app = App(name="token", help="Make, list and revoke the tokens of people and services.")

_ID = re.compile(r"[a-z0-9]{1,32}\Z")
_T = TypeVar("_T")


@app.command
async def create(
    *,
    user: Annotated[str, Parameter(help="Whom the token speaks for")],
    role: Annotated[
        tuple[str, ...],
        Parameter(negative=(), help="A role such as viewer, operator or admin; may be repeated"),
    ],
    expires: Annotated[str, Parameter(help="When it ends: 30m, 12h, 90d, or never")] = "90d",
    name: Annotated[str, Parameter(help="A word on what it is for")] = "",
    as_json: Json = False,
    target: Target = HERE,
) -> int:
    """Make a token and print it, this once: only its hash is kept."""
    place = locate(target)
    try:
        checked_user(user)
        roles = checked_roles(role)
        checked_name(name)
        length_ms = lifetime_ms(expires)
    except ValueError as exc:
        raise CliError(str(exc), Exit.USAGE) from exc
    expires_ms = _now_ms() + length_ms if length_ms is not None else None
    made = await _create(place, user, roles, expires_ms, name)
    if as_json:
        show_json(made)
        return 0
    for each in made.notes:
        say(each)
    say(f"token {made.id} of {user} with {', '.join(roles)}; ends {made.expires_at or 'never'}")
    print(made.token)
    return 0


@app.command(name="list")
async def list_(*, as_json: Json = False, target: Target = HERE) -> int:
    """List the tokens, without what would let somebody use them."""
    tokens = await _all(locate(target))
    if as_json:
        show_json({"items": tokens})
        return 0
    show_table(
        ("ID", "USER", "ROLES", "EXPIRES", "LAST USED", "NAME"),
        (
            (
                token.id,
                token.user_id,
                ",".join(token.roles),
                "expired" if token.expired else token.expires_at or "never",
                token.last_used_at or "",
                token.name,
            )
            for token in tokens
        ),
    )
    return 0


@app.command
async def revoke(id: str, /, *, target: Target = HERE) -> int:
    """Revoke a token at once, with the sessions it opened and the streams it reads.

    Parameters
    ----------
    id
        The id of the token, as `jobbus token list` shows it.
    """
    if not _ID.match(id):
        raise CliError(f"{id[:80]!r} is no id of a token; see: jobbus token list", Exit.USAGE)
    place = locate(target)
    if place.url is not None:
        async with client_of(place) as client:
            await client.tokens.revoke(id)
    else:
        _revoke_here(_layout(place), id)
    say(f"token {id} is revoked")
    return 0


@app.command(name="rotate-admin")
async def rotate_admin(*, target: Target = HERE) -> int:
    """Put a new token into admin.token; the old one and its sessions end."""
    place = locate(target)
    if place.url is not None:
        async with client_of(place) as client:
            await client.tokens.rotate_admin()
    else:
        with locked_data_directory(_layout(place).root) as layout:
            rotate_admin_token(layout)
            note_offline(layout, "token.rotate", token=ADMIN_ID)
    say("admin.token of the data directory holds a new token")
    return 0


@app.command
async def link(*, target: Target = HERE) -> int:
    """Print a link that signs one browser in as you, once, within ten minutes."""
    place = locate(target)
    if place.url is None:
        raise CliError(
            "no service runs that could take it; start one with jobbus serve", Exit.UNREACHABLE
        )
    async with client_of(place) as client:
        code = await client.tokens.sign_in_code()
    print(place.url.rstrip("/") + code.path)
    return 0


async def _create(
    place: Place, user: str, roles: tuple[str, ...], expires_ms: int | None, name: str
) -> NewToken:
    if place.url is not None:
        expires_at = rfc3339(expires_ms) if expires_ms is not None else None
        async with client_of(place) as client:
            return await client.tokens.create(user, roles, expires_at=expires_at, name=name)
    with locked_data_directory(_layout(place).root) as layout:
        book = load_book(layout.tokens)
        record, token = make_token(
            book,
            user,
            roles,
            now_ms=_now_ms(),
            expires_ms=expires_ms,
            created_by=f"cli:{getpass.getuser()}",
            name=name,
        )
        book.put(record)
        save_book(layout.tokens, book)
        note_offline(layout, "token.create", token=record.id, user=user, roles=" ".join(roles))
    # Without a service the lists of the jobs are unknown: only what looks like a slip is said.
    notes = notes_on_roles(roles, role_words(RoleDefaults(), ()) | {ADMIN, METRICS})
    slips = tuple(each for each in notes if "did you mean" in each)
    return _as_sent(new_token_view(record, token, slips), NewToken)


async def _all(place: Place) -> Sequence[Token]:
    if place.url is not None:
        async with client_of(place) as client:
            return await client.tokens.list()
    book = load_book(_layout(place).tokens)
    return [_as_sent(token_view(record, _now_ms()), Token) for record in book.records()]


def _revoke_here(layout: DataLayout, token_id: str) -> None:
    if token_id == ADMIN_ID:
        raise CliError(
            "the token admin can only be replaced: jobbus token rotate-admin", Exit.CONFLICT
        )
    with locked_data_directory(layout.root) as locked:
        book = load_book(locked.tokens)
        removed = book.remove(token_id)
        if removed is None:
            raise CliError(f"there is no token {token_id}", Exit.NOT_FOUND)
        save_book(locked.tokens, book)
        note_offline(locked, "token.revoke", token=token_id, user=removed.user_id)


def _as_sent(view: msgspec.Struct, kind: type[_T]) -> _T:
    """The record as a service would have sent it."""
    return msgspec.json.decode(msgspec.json.encode(view), type=kind)


def _layout(place: Place) -> DataLayout:
    assert place.layout is not None, "a place has a URL or a directory"
    return place.layout


def _now_ms() -> int:
    return time.time_ns() // 1_000_000

"""`/tokens`: make, list and revoke what services and people come in by; for admins."""

from collections.abc import Callable
from typing import Annotated, TypeVar

import msgspec
import structlog
from aiohttp import web

from bus.access import notes_on_roles
from bus.clock import from_rfc3339
from bus.errors import NoSpace, StorageFailed
from bus.scarcity import NO_ROOM
from transports.http.access.audit_notes import note
from transports.http.access.caller import credential_of, principal_of
from transports.http.access.token_records import (
    ADMIN_ID,
    LIFETIME_MS_DEFAULT,
    NewToken,
    checked_expiry,
    checked_name,
    checked_roles,
    checked_user,
    new_token_view,
    token_view,
)
from transports.http.access.token_store import TokenRefused
from transports.http.access.visibility import Visibility
from transports.http.api import bodies
from transports.http.ports import GatewayPorts
from transports.http.web.answers import json_response
from transports.http.web.body import decode_field, read_fields, refuse_unknown
from transports.http.web.operation import JSON, READ, WRITE, Audience, Operation
from transports.http.web.parameters import id_of
from transports.http.web.problems import Problem, invalid, not_found, not_kept
from transports.http.web.query import Query

PATH = "/api/v1/tokens"
_FIELDS = ("userId", "roles", "expiresAt", "name")
log = structlog.get_logger("jobbus.http")
_I = TypeVar("_I")
_O = TypeVar("_O")


class TokenRoutes:
    def __init__(self, ports: GatewayPorts, visibility: Visibility) -> None:
        self._store = ports.tokens
        self._clock = ports.clock
        self._audit = ports.audit
        self._visibility = visibility

    async def list(self, request: web.Request) -> web.Response:
        Query(request)
        now_ms = self._clock.now_ms()
        items = [token_view(record, now_ms) for record in self._store.records()]
        return json_response({"items": items})

    async def create(self, request: web.Request) -> web.Response:
        """201 with the token, which no later answer has."""
        Query(request)
        by = principal_of(request).user_id
        fields = await read_fields(request)
        refuse_unknown(fields, _FIELDS)
        user_id = _checked("/userId", checked_user, decode_field(fields, "userId", str) or "")
        given = decode_field(fields, "roles", tuple[str, ...]) or ()
        roles = _checked("/roles", checked_roles, given)
        name = _checked("/name", checked_name, decode_field(fields, "name", str) or "")
        expires_ms = self._expiry(fields)
        try:
            record, token = await self._store.create(
                user_id, roles, expires_ms=expires_ms, created_by=by, name=name
            )
        except TokenRefused as exc:
            raise Problem(409, "conflict", str(exc)) from exc
        except (NoSpace, StorageFailed) as exc:
            raise not_kept("no token was made", exc) from exc
        self._note(request, "token.create", token=record.id, user=user_id, roles=" ".join(roles))
        log.info("credential made", id=record.id, user=user_id, roles=roles, by=by)
        location = {"Location": f"{PATH}/{record.id}"}
        notes = notes_on_roles(roles, self._visibility.role_words())
        return json_response(new_token_view(record, token, notes), status=201, headers=location)

    async def revoke(self, request: web.Request) -> web.Response:
        """204: the token is refused, the sessions it opened are over, its streams end."""
        Query(request)
        by = principal_of(request).user_id
        token_id = request.match_info["id"]
        if token_id == ADMIN_ID:
            raise Problem(
                409,
                "conflict",
                "this account's own token can be replaced but not removed: "
                f"POST {PATH}/{ADMIN_ID}/rotate, or jobbus token rotate-admin",
            )
        try:
            record = await self._store.revoke(token_id)
        except (NoSpace, StorageFailed) as exc:
            raise not_kept("the token is refused, but a restart may know it again", exc) from exc
        if record is None:
            raise not_found("such token")
        self._note(request, "token.revoke", token=token_id, user=record.user_id)
        log.info("credential revoked", id=token_id, user=record.user_id, by=by)
        return web.Response(status=204)

    async def rotate(self, request: web.Request) -> web.Response:
        """204: `admin.token` holds a new token, which no answer ever carries."""
        Query(request)
        by = principal_of(request).user_id
        refuse_unknown(await read_fields(request, empty=True), ())
        try:
            await self._store.rotate_admin()
        except OSError as exc:
            if exc.errno in NO_ROOM:
                why = "nothing changed: there is no room on the disk of the data directory"
                raise Problem(507, "no-space", why) from exc
            raise Problem(503, "storage-failed", f"nothing changed: {exc.strerror}") from exc
        self._note(request, "token.rotate", token=ADMIN_ID)
        log.info("credential replaced", id=ADMIN_ID, by=by)
        return web.Response(status=204)

    def _note(self, request: web.Request, action: str, **detail: str) -> None:
        note(self._audit, credential_of(request).principal, action, **detail)

    def _expiry(self, fields: dict[str, msgspec.Raw]) -> int | None:
        """When it ends: as said, never for null, else after the default lifetime."""
        now_ms = self._clock.now_ms()
        if "expiresAt" not in fields:
            return now_ms + LIFETIME_MS_DEFAULT
        text = decode_field(fields, "expiresAt", str)
        if text is None:
            return None
        try:
            return checked_expiry(from_rfc3339(text), now_ms)
        except (ValueError, OverflowError) as exc:
            raise invalid(
                "/expiresAt", f"must be a time ahead such as 2027-01-26T18:00:00Z, or null ({exc})"
            ) from exc


def _checked(pointer: str, check: Callable[[_I], _O], value: _I) -> _O:
    """`value` as the check gives it back; 422 at `pointer` if it refuses."""
    try:
        return check(value)
    except ValueError as exc:
        raise invalid(pointer, str(exc)) from exc


_TokenId = Annotated[str, msgspec.Meta(pattern="^[a-z0-9]{1,32}$")]

OPERATIONS = (
    Operation(
        method="GET",
        path=PATH,
        id="listTokens",
        handler=TokenRoutes.list,
        summary="All tokens, without what would let somebody use them",
        audience=Audience.ADMIN,
        answers={200: ((JSON, bodies.TokenPage),)},
        refuses=READ,
    ),
    Operation(
        method="POST",
        path=PATH,
        id="createToken",
        handler=TokenRoutes.create,
        summary="Make a token; this answer alone holds it",
        audience=Audience.ADMIN,
        body=((JSON, bodies.TokenRequest),),
        answers={201: ((JSON, NewToken),)},
        refuses=WRITE | {409, 503, 507},
    ),
    Operation(
        method="DELETE",
        path=f"{PATH}/{{id}}",
        id="revokeToken",
        handler=TokenRoutes.revoke,
        summary="Revoke a token; its sessions and streams end at once",
        audience=Audience.ADMIN,
        parameters=(id_of("token", _TokenId),),
        answers={204: ()},
        refuses=READ | {404, 409, 503, 507},
    ),
    Operation(
        method="POST",
        path=f"{PATH}/{ADMIN_ID}/rotate",
        id="rotateAdminToken",
        handler=TokenRoutes.rotate,
        summary="`admin.token` holds a new token; no answer carries it",
        audience=Audience.ADMIN,
        body=((JSON, bodies.Empty),),
        body_required=False,
        answers={204: ()},
        refuses=WRITE | {503, 507},
    ),
)

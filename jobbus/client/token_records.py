"""Tokens over the API, for admins."""

import msgspec

from jobbus.client.http import Http, decode
from jobbus.client.records import NewToken, SignInCode, Token

_PATH = "/api/v1/tokens"
_JSON = {"Content-Type": "application/json"}


class TokenPage(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """All tokens; the service sends them in one page."""

    items: tuple[Token, ...]


class TokenCalls:
    """`client.tokens`. All methods raise as those of the client do."""

    def __init__(self, http: Http) -> None:
        self._http = http

    async def create(
        self, user_id: str, roles: tuple[str, ...], *, expires_at: str | None, name: str = ""
    ) -> NewToken:
        """A new token. Sent once: a connection that breaks may leave a token without a holder."""
        body = msgspec.json.encode(
            {"userId": user_id, "roles": roles, "expiresAt": expires_at, "name": name}
        )
        return decode(await self._http.once("POST", _PATH, body=body, headers=_JSON), NewToken)

    async def list(self) -> tuple[Token, ...]:
        """All tokens, without their secrets."""
        return decode(await self._http.repeated("GET", _PATH), TokenPage).items

    async def revoke(self, token_id: str) -> None:
        """The token is revoked, durably."""
        await self._http.once("DELETE", f"{_PATH}/{token_id}")

    async def rotate_admin(self) -> None:
        """The service's own token is replaced; this client's may be refused from now on."""
        await self._http.once("POST", f"{_PATH}/admin/rotate", headers=_JSON, body=b"{}")

    async def sign_in_code(self) -> SignInCode:
        """A code that signs one browser in as the caller, once."""
        raw = await self._http.once("POST", "/api/v1/session/code", headers=_JSON, body=b"{}")
        return decode(raw, SignInCode)

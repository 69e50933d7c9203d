"""Tokens over the API, for admins: the calls and the records they answer with."""

import msgspec

from jobbus.client.http import Http, decode
from transports.http.access.tokens import NewToken, TokenView

_PATH = "/api/v1/tokens"
_JSON = {"Content-Type": "application/json"}


class TokenPage(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    items: tuple[TokenView, ...]


class SignInCode(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """`path` is that of the page which signs in with the code."""

    code: str
    path: str
    expires_at: str


class TokenCalls:
    """`client.tokens`. All methods raise as those of the client do."""

    def __init__(self, http: Http) -> None:
        self._http = http

    async def create(
        self, user_id: str, roles: tuple[str, ...], *, expires_at: str | None, name: str = ""
    ) -> NewToken:
        """A new token, asked for once: a broken connection may leave one that nobody knows."""
        body = msgspec.json.encode(
            {"userId": user_id, "roles": roles, "expiresAt": expires_at, "name": name}
        )
        return decode(await self._http.once("POST", _PATH, body=body, headers=_JSON), NewToken)

    async def list(self) -> tuple[TokenView, ...]:
        return decode(await self._http.repeated("GET", _PATH), TokenPage).items

    async def revoke(self, token_id: str) -> None:
        """The token is void, durably."""
        await self._http.once("DELETE", f"{_PATH}/{token_id}")

    async def rotate_admin(self) -> None:
        """The service's own token is another; this client's may be void now."""
        await self._http.once("POST", f"{_PATH}/admin/rotate", headers=_JSON, body=b"{}")

    async def sign_in_code(self) -> SignInCode:
        """A code that signs one browser in as the caller, once."""
        raw = await self._http.once("POST", "/api/v1/session/code", headers=_JSON, body=b"{}")
        return decode(raw, SignInCode)

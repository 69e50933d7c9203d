"""Signs in as a browser does; the cookie is kept and sent by hand, so that tests can see it."""

from dataclasses import dataclass, field
from http.cookies import SimpleCookie

import aiohttp

SESSION = "/api/v1/session"
COOKIE = "jobbus_test"


@dataclass
class Browser:
    """What a page of the service itself sends; `page` is its origin."""

    http: aiohttp.ClientSession
    page: str
    cookie: str = ""
    set_cookie: str = field(default="", repr=False)

    async def sign_in(self, **proof: str) -> int:
        """The status; the cookie is kept if there was one."""
        async with self.http.post(SESSION, json=proof, headers=self.headers) as response:
            self.set_cookie = response.headers.get("Set-Cookie", "")
            if response.status == 204:
                self.cookie = SimpleCookie(self.set_cookie)[COOKIE].value
            return response.status

    async def who(self) -> dict[str, object] | None:
        """What the service says who this is, or None without a session."""
        async with self.http.get(SESSION, headers=self.headers) as response:
            return dict(await response.json()) if response.status == 200 else None

    async def sign_out(self) -> int:
        async with self.http.delete(SESSION, headers=self.headers) as response:
            return response.status

    @property
    def headers(self) -> dict[str, str]:
        own = {"Origin": self.page, "Sec-Fetch-Site": "same-origin"}
        return own | ({"Cookie": f"{COOKIE}={self.cookie}"} if self.cookie else {})

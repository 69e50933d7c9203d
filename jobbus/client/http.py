"""Requests of a client: bounded answers, a few tries, and library errors turned into ours."""

import asyncio
import os
import ssl
from collections.abc import AsyncGenerator, Mapping, Sequence
from pathlib import Path
from typing import TypeVar
from urllib.parse import urlsplit

import aiohttp
import msgspec

from jobbus.client.command_records import canonical_id
from jobbus.client.errors import (
    ApiProblem,
    BadAddress,
    BadToken,
    JobbusError,
    NotOpen,
    Unreachable,
    is_temporary,
    problem_of,
)

ANSWER_SIZE_MAX = 64 * 1024 * 1024
CALL_TIMEOUT_S = 60.0
CONNECT_TIMEOUT_S = 10.0
TRIES = 4

_RETRY_AFTER_S_MAX = 5.0
_EXAMPLE = "http://127.0.0.1:8765"
_T = TypeVar("_T")

Query = Mapping[str, str | Sequence[str]]


class Http:
    """One connection pool to one service."""

    def __init__(
        self,
        base_url: str,
        token: str | None,
        *,
        backoff_s: float,
        certificate: Path | None = None,
    ) -> None:
        self._certificate = certificate
        self.base_url = _checked_address(base_url)
        self._token = _checked_token(token) if token is not None else None
        self._backoff_s = backoff_s
        self.was_answered = False
        """Whether this service has ever answered, and not with trouble of its own."""
        self._session: aiohttp.ClientSession | None = None

    def open(self) -> None:
        """Requests may be made until `aclose`; needs a running loop."""
        headers = {"Accept": "application/json", "User-Agent": "jobbus-client"}
        if self._token is not None:
            headers["Authorization"] = f"Bearer {self._token}"
        pinned = _pinned(self._certificate) if self._certificate is not None else True
        # No cookies, no proxies of the environment, no redirects: the token goes here only.
        self._session = aiohttp.ClientSession(
            headers=headers,
            connector=aiohttp.TCPConnector(ssl=pinned),
            cookie_jar=aiohttp.DummyCookieJar(),
            timeout=aiohttp.ClientTimeout(total=CALL_TIMEOUT_S, sock_connect=CONNECT_TIMEOUT_S),
            trust_env=False,
        )

    async def aclose(self) -> None:
        """All connections are closed; `open` makes the next ones."""
        session, self._session = self.session, None
        await session.close()

    async def repeated(
        self,
        method: str,
        path: str,
        *,
        query: Query | None = None,
        body: bytes | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> bytes:
        """The answer to a request that may be sent more than once; a few tries if it is broken.

        A refused connection is raised at once: whether to try again is for the caller to decide.
        """
        for last in (*[False] * (TRIES - 1), True):
            pause_s = self._backoff_s
            try:
                return await self._call(method, path, query=query, body=body, headers=headers)
            except JobbusError as exc:
                refused = isinstance(exc.__cause__, aiohttp.ClientConnectorError)
                if last or refused or not is_temporary(exc):
                    raise
                pause_s = max(pause_s, min(getattr(exc, "retry_after_s", 0.0), _RETRY_AFTER_S_MAX))
            await asyncio.sleep(pause_s)
        raise AssertionError("the last try returns or raises")

    async def once(
        self,
        method: str,
        path: str,
        *,
        body: bytes | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> bytes:
        """The answer to a request that must not be sent more than once."""
        return await self._call(method, path, query=None, body=body, headers=headers)

    async def _call(
        self,
        method: str,
        path: str,
        *,
        query: Query | None,
        body: bytes | None,
        headers: Mapping[str, str] | None,
    ) -> bytes:
        try:
            async with self.session.request(
                method,
                self.base_url + path,
                params=pairs_of(query),
                data=body,
                headers=headers,
                allow_redirects=False,
            ) as response:
                raw = await _read(response)
        except (aiohttp.ClientError, TimeoutError, OSError) as exc:
            raise self._unreachable(exc) from exc
        if response.status >= 300:
            raise problem_of(
                response.status, response.reason or "", raw, response.headers.get("Retry-After")
            )
        self.was_answered = True
        return raw

    async def pieces(self, path: str, query: Query) -> AsyncGenerator[tuple[int, bytes], None]:
        """Offset and bytes, piece by piece, of one answer of the output."""
        try:
            async with self.session.get(
                self.base_url + path,
                params=pairs_of(query),
                headers={"Accept": "*/*", "Accept-Encoding": "identity"},
                timeout=aiohttp.ClientTimeout(
                    total=None, sock_connect=CONNECT_TIMEOUT_S, sock_read=60.0
                ),
                allow_redirects=False,
            ) as response:
                if response.status != 200:
                    raw = await _read(response)
                    raise problem_of(response.status, response.reason or "", raw)
                at = int(response.headers.get("Output-From", "0"))
                while data := await response.content.readany():
                    yield at, data
                    at += len(data)
        except (aiohttp.ClientError, TimeoutError, OSError) as exc:
            raise self._unreachable(exc) from exc

    @property
    def session(self) -> aiohttp.ClientSession:
        if self._session is None:
            raise NotOpen("the client is not open; use it as: async with Client(…) as client")
        return self._session

    def _unreachable(self, exc: BaseException) -> Unreachable:
        return Unreachable(f"{self.base_url} cannot be reached: {why_unreachable(exc)}")


def why_unreachable(exc: BaseException) -> str:
    """Why there is no answer, in words that help the person who gave the address."""
    match exc:
        case aiohttp.ClientConnectorDNSError():
            return f"no machine of the name {exc.host} is known here"
        case aiohttp.ClientConnectorCertificateError():
            return "its certificate is not one that this machine trusts for that name"
        case aiohttp.ClientConnectorSSLError():
            return "what listens there does not speak https; is it an address with http:// ?"
        case aiohttp.ClientConnectorError(os_error=ConnectionRefusedError()):
            return "nothing listens there; is the service running?"
        case aiohttp.ClientConnectorError(os_error=OSError(errno=int() as number)) if number > 0:
            return os.strerror(number)
        case TimeoutError():
            return "it did not answer in time"
        case aiohttp.ServerDisconnectedError() | aiohttp.ClientPayloadError():
            return "the connection was closed before the answer was whole"
        case aiohttp.ClientResponseError():
            return "what listens there does not answer in HTTP; is it an address with https:// ?"
        case OSError(errno=int() as number) if number > 0:
            return os.strerror(number)
        case _:
            return "the connection broke"


def _checked_address(base_url: str) -> str:
    """The address without a trailing slash.

    Raises:
        BadAddress: it is no address of a service.
    """
    address = base_url.strip()
    scheme, _, rest = address.rpartition("://")
    if scheme.lower() not in ("http", "https"):
        example = f"http://{rest}" if rest.strip("/") and rest[0] != ":" else _EXAMPLE
        raise BadAddress(
            f"{base_url!r} does not begin with http:// or https://; write e.g. {example}"
        )
    try:
        parts = urlsplit(address)
        _ = parts.port  # raises for what is no number, or too large
    except ValueError as exc:
        raise BadAddress(f"{base_url!r} is no address; write e.g. {_EXAMPLE}") from exc
    if not parts.hostname:
        raise BadAddress(f"{base_url!r} names no host; write e.g. {_EXAMPLE}")
    return address.rstrip("/")


def _checked_token(token: str) -> str:
    """The token without the line end of the file that it was read from.

    Raises:
        BadToken: a header cannot hold it.
    """
    word = token.strip()
    if not word or not word.isascii() or not word.isprintable() or " " in word:
        raise BadToken("the token must be one word of visible ASCII characters")
    return word


def _pinned(certificate: Path) -> ssl.SSLContext:
    """Trusts exactly this certificate, under whatever name the service is reached.

    Raises:
        BadAddress: it cannot be read.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    # The certificate itself is the anchor, no matter which authority signed it.
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    try:
        context.load_verify_locations(cafile=str(certificate))
    except (ssl.SSLError, OSError) as exc:
        raise BadAddress(f"{certificate} cannot be read as a certificate in PEM") from exc
    return context


async def _read(response: aiohttp.ClientResponse) -> bytes:
    """The whole body, if it is of a size that an answer may have."""
    raw = bytearray()
    while piece := await response.content.readany():
        raw += piece
        if len(raw) > ANSWER_SIZE_MAX:
            raise ApiProblem(
                413,
                "too-large",
                "The answer is too large",
                f"the server's answer is larger than {ANSWER_SIZE_MAX} bytes",
            )
    return bytes(raw)


def decode(raw: bytes, kind: type[_T]) -> _T:
    try:
        return msgspec.json.decode(raw, type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError) as exc:
        is_json = isinstance(exc, msgspec.ValidationError)
        why = "JSON with other fields" if is_json else "no JSON, or not all of it"
        raise ApiProblem(
            502,
            "bad-answer",
            "The answer cannot be read",
            f"the server's answer is not what jobbus sends ({why}); is this the right URL?",
        ) from exc


def query_of(**values: str | Sequence[str] | None) -> dict[str, str | list[str]]:
    """The parameters that were given; those with several values repeated."""
    given: dict[str, str | list[str]] = {}
    for name, value in values.items():
        if isinstance(value, str):
            given[name] = value
        elif value:
            given[name] = list(value)
    return given


def pairs_of(query: Query | None) -> list[tuple[str, str]]:
    return [
        (name, one)
        for name, value in (query or {}).items()
        for one in ([value] if isinstance(value, str) else value)
    ]


def id_in_path(text: str) -> str:
    """`text` as an id; what is none would be a path of its own.

    Raises:
        ApiProblem: 404, as the service would say.
    """
    try:
        return canonical_id(text)
    except ValueError as exc:
        raise ApiProblem(
            404, "not-found", "There is no such thing", f"{text[:80]!r} is no id: {exc}"
        ) from exc

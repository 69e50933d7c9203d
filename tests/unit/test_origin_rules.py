"""Which page may do what: the rules as a table, over everything a browser can send."""

import pytest
from msgspec.structs import replace

from transports.http.access.origin_rules import Asked, own_origin, refusal

OWN = "http://127.0.0.1:8765"
ALLOWED = {OWN, "https://dash.example.org"}
FOREIGN = (
    "null",
    "",
    "http://127.0.0.1:8766",
    "http://127.0.0.1:87650",
    "https://127.0.0.1:8765",
    "http://127.0.0.1:8765.evil.example",
    "http://evil.example/http://127.0.0.1:8765",
    "http://127.0.0.1:8765/",
    "HTTP://127.0.0.1:8765",
    "https://dash.example.org.evil.example",
)


def asked(
    method: str, *, upgrade: bool = False, stream: bool = False, origin: str | None = None
) -> Asked:
    origins = () if origin is None else (origin,)
    return Asked(method=method, upgrade=upgrade, stream=stream, origins=origins, sites=())


def sent_by(request: Asked, origin: str | None, site: str | None) -> Asked:
    """The request as the browser sends it for a page of `origin`."""
    return replace(
        request,
        origins=() if origin is None else (origin,),
        sites=() if site is None else (site,),
    )


GUARDED = [
    asked("POST"),
    asked("DELETE"),
    asked("PUT"),
    asked("TRACE"),
    asked("GET", stream=True),
    asked("GET", upgrade=True, stream=True),
    asked("GET", upgrade=True),
]


@pytest.mark.parametrize("request_", GUARDED)
@pytest.mark.parametrize("origin", FOREIGN)
def test_no_foreign_page_writes_or_streams_by_a_cookie(request_: Asked, origin: str) -> None:
    for site in (None, "same-origin", "none", "same-site", "cross-site"):
        assert refusal(sent_by(request_, origin, site), ALLOWED, ambient=True)


@pytest.mark.parametrize("request_", GUARDED)
@pytest.mark.parametrize("site", ["same-site", "cross-site", "", "Same-Origin"])
def test_where_the_browser_says_it_is_another_page_it_is_believed(
    request_: Asked, site: str
) -> None:
    for origin in (OWN, None):
        assert refusal(sent_by(request_, origin, site), ALLOWED, ambient=True)


@pytest.mark.parametrize("request_", GUARDED)
def test_the_own_page_may(request_: Asked) -> None:
    for site in (None, "same-origin", "none"):
        assert refusal(sent_by(request_, OWN, site), ALLOWED, ambient=True) is None


def test_a_socket_without_an_origin_may_not_use_a_cookie() -> None:
    socket = asked("GET", upgrade=True, stream=True)
    assert refusal(socket, ALLOWED, ambient=True)
    assert refusal(socket, ALLOWED, ambient=False) is None
    stream = sent_by(asked("GET", stream=True), None, "same-origin")
    assert refusal(stream, ALLOWED, ambient=True) is None


def test_reading_by_a_cookie_is_left_to_the_same_origin_policy() -> None:
    for site in ("cross-site", "same-site", None):
        assert refusal(sent_by(asked("GET"), None, site), ALLOWED, ambient=True) is None


@pytest.mark.parametrize("origin", FOREIGN)
def test_a_ticket_in_a_foreign_page_opens_nothing(origin: str) -> None:
    stream = asked("GET", stream=True, origin=origin)
    assert refusal(stream, ALLOWED, ambient=False)


def test_a_ticket_in_a_named_page_does() -> None:
    stream = sent_by(asked("GET", stream=True), "https://dash.example.org", "cross-site")
    assert refusal(stream, ALLOWED, ambient=False) is None


def test_headers_that_come_twice_are_refused() -> None:
    twice = Asked(method="POST", upgrade=False, stream=False, origins=(OWN, OWN), sites=())
    assert refusal(twice, ALLOWED, ambient=True)
    twice = Asked(
        method="GET", upgrade=False, stream=True, origins=(), sites=("same-origin", "none")
    )
    assert refusal(twice, ALLOWED, ambient=True)


@pytest.mark.parametrize(
    ("scheme", "host", "origin"),
    [
        ("http", "127.0.0.1:8765", OWN),
        ("http", "LocalHost:80", "http://localhost"),
        ("https", "jobs.example.org:443", "https://jobs.example.org"),
        ("https", "jobs.example.org:80", "https://jobs.example.org:80"),
        ("http", "[::1]:80", "http://[::1]"),
    ],
)
def test_own_origins_are_spelled_as_browsers_do(scheme: str, host: str, origin: str) -> None:
    assert own_origin(scheme, host) == origin

"""Answers in JSON, and conditional ones with their ETags (RFC 9110 §13)."""

import hashlib

import msgspec
from aiohttp import web
from aiohttp.hdrs import CONTENT_TYPE
from multidict import CIMultiDict

_encode = msgspec.json.Encoder().encode


def json_response(
    body: object, *, status: int = 200, headers: dict[str, str] | None = None
) -> web.Response:
    sent: CIMultiDict[str] = CIMultiDict(headers or ())
    sent[CONTENT_TYPE] = "application/json"
    return web.Response(status=status, body=_encode(body), headers=sent)


def conditional(request: web.Request, body: object) -> web.Response:
    """`body` with its ETag, or 304 if the caller has it."""
    raw = msgspec.json.encode(body)
    tag = _tag(raw)
    if matches(request, tag):
        return web.Response(status=304, headers={"ETag": tag})
    return web.Response(body=raw, content_type="application/json", headers={"ETag": tag})


def etag_of(body: object) -> str:
    return _tag(msgspec.json.encode(body))


def matches(request: web.Request, tag: str) -> bool:
    """Whether `If-None-Match` names `tag` (RFC 9110 §13.1.2, weak comparison)."""
    header = ",".join(request.headers.getall("If-None-Match", []))
    given = {part.strip().removeprefix("W/") for part in header.split(",")}
    return tag in given or "*" in given


def _tag(raw: bytes) -> str:
    return f'"{hashlib.blake2b(raw, digest_size=12).hexdigest()}"'

"""Bodies are read and taken apart: strict JSON, and for each fault the place and what is right."""

import asyncio
from collections.abc import Iterable, Mapping
from difflib import get_close_matches
from types import MappingProxyType
from typing import Any, TypeVar

import msgspec
from aiohttp import web

from bus.malformed import (
    NO_SUCH_WORD,
    escaped,
    why_ambiguous,
    why_no_json,
    why_no_object,
    why_unfit,
)
from transports.http.web.leases import lease_of, read_on
from transports.http.web.middleware import follow_expectation
from transports.http.web.problems import Problem, invalid
from transports.http.web.protocol import Overdrawn, no_memory

JSON_TYPE = "application/json"
BOM = b"\xef\xbb\xbf"
"""Which some writers put in front of UTF-8; a reader may ignore it (RFC 8259 §8.1)."""

BODY_TIMEOUT_S = 30.0
"""How long a body may take to arrive; a trickle would hold a connection for ever."""

SMALL_MAX = 8 * 1024
"""Bytes of the longest honest body that holds no command with its variables."""


_SAFELISTED = ("text/plain", "multipart/form-data", "application/x-www-form-urlencoded")

_T = TypeVar("_T")
Fields = dict[str, msgspec.Raw]
NULL = b"null"

_fields_decoder: msgspec.json.Decoder[Fields] = msgspec.json.Decoder(Fields)
_any_decoder: msgspec.json.Decoder[Any] = msgspec.json.Decoder()

UNREADABLE = (msgspec.DecodeError, UnicodeError, RecursionError)


async def read_fields(
    request: web.Request, *, empty: bool = False, most: int = SMALL_MAX
) -> Fields:
    """The members of the body's one JSON object, still undecoded; of at most `most` bytes.

    With `empty`, no body at all is an empty object.

    Raises:
        Problem: 415 for another type than JSON, 413 for too much, 503 if too much is on its way at
            the same time, 400 for what is no JSON, 422 for no object.
    """
    raw = await _read_json(request, most, empty=empty)
    return {} if not raw and empty else fields_of(raw)


async def read_lines(request: web.Request, kind: str, most: int) -> list[bytes]:
    """The lines of a body of type `kind`, empty ones left out; at least one.

    Raises:
        Problem: 415, 408, 413 for more than `most`, 422 for none.
    """
    if not _is_utf8(request):
        raise Problem(415, "unsupported-type", f"send Content-Type: {kind}, in UTF-8")
    raw = await _read(request, request.client_max_size)
    lines = [line for line in raw.split(b"\n") if line.strip()]
    if len(lines) > most:
        raise Problem(413, "too-large", f"{len(lines)} lines; send at most {most} at once")
    if not lines:
        raise invalid("", "there is no line; send one JSON object a line")
    return lines


def decode_field(fields: Mapping[str, msgspec.Raw], name: str, type_: type[_T]) -> _T | None:
    """The field as `type_`; None if it is absent or null.

    Raises:
        Problem: 422 with a pointer to the field.
    """
    raw = fields.get(name)
    if raw is None or bytes(raw) == NULL:
        return None
    try:
        return msgspec.json.decode(raw, type=type_)
    except msgspec.ValidationError as exc:
        steps, sentence = why_unfit(exc)
        raise invalid(pointer_of((name, *steps)), sentence) from exc
    except UNREADABLE as exc:
        raise unreadable(raw) from exc


def refuse_unknown(fields: Mapping[str, msgspec.Raw], known: tuple[str, ...]) -> None:
    """Raises 422 for the first field that is not in `known`, naming the nearest one that is."""
    for name in fields:
        if name in known:
            continue
        near = get_close_matches(name, known, n=1) or _same_letters(name, known)
        hint = f"did you mean `{near[0]}`?" if near else f"known here: {', '.join(known)}"
        raise invalid(f"/{escaped(name[:80])}", f"unknown field; {hint}")


def wrong_shape(
    error: msgspec.ValidationError, words: Mapping[str, tuple[str, ...]] = MappingProxyType({})
) -> Problem:
    """422 with the place and the sentence of a failed decoding; `words` are those that may stand at
    some places."""
    steps, sentence = why_unfit(error)
    pointer = pointer_of(steps)
    if sentence.endswith(NO_SUCH_WORD) and pointer in words:
        sentence += f": {', '.join(words[pointer])}"
    return invalid(pointer, sentence)


def decode_any(raw: msgspec.Raw) -> Any:
    """What `raw` says, as plain Python values."""
    try:
        return _any_decoder.decode(raw)
    except UNREADABLE as exc:
        raise unreadable(raw) from exc


def unreadable(raw: bytes | msgspec.Raw) -> Problem:
    """400 for bytes that are no JSON, with the place where they stop to be."""
    return Problem(400, "malformed", f"no JSON was sent: {why_no_json(bytes(raw))}")


async def _read_json(request: web.Request, most: int, *, empty: bool) -> bytes:
    is_json = request.content_type == JSON_TYPE and _is_utf8(request)
    # An empty body needs no type, but the types that a page of another origin may send without
    # being asked (Fetch, "CORS-safelisted") are refused even then.
    if not is_json and (not empty or request.content_type in _SAFELISTED):
        raise _needs_json()
    raw = await _read(request, most)
    if raw and not is_json:
        raise _needs_json()
    return raw


async def _read(request: web.Request, most: int) -> bytes:
    """All of the body. It is not kept with the request, which may wait long for its answer."""
    if request.headers.get("Content-Encoding", "identity").strip().lower() != "identity":
        raise Problem(
            415,
            "unsupported-type",
            "send the body as it is, without Content-Encoding",
            headers={"Accept-Encoding": "identity"},
        )
    most = min(most, request.client_max_size)
    announced = request.content_length or 0
    # Said before it is sent: nothing of it needs to be waited for.
    if announced > most:
        raise _too_long(most)
    to_come = announced - request.content.total_bytes
    if to_come > 0 and not lease_of(request).has_room(to_come):
        raise no_memory()
    await follow_expectation(request)
    read_on(request)
    try:
        async with asyncio.timeout(BODY_TIMEOUT_S):
            return (await _arrived(request, most)).removeprefix(BOM)
    except Overdrawn as exc:
        raise exc.problem from None
    except TimeoutError:
        raise Problem(
            408,
            "too-slow",
            f"the body did not arrive within {BODY_TIMEOUT_S:.0f} s",
            headers={"Connection": "close"},
        ) from None


async def _arrived(request: web.Request, most: int) -> bytes:
    pieces: list[bytes] = []
    size = 0
    while piece := await request.content.readany():
        size += len(piece)
        if size > most:
            raise _too_long(most)
        pieces.append(piece)
    return b"".join(pieces)


def _too_long(most: int) -> Problem:
    return Problem(413, "too-large", f"the body may be {most} bytes long here")


def fields_of(raw: bytes) -> Fields:
    try:
        fields = _fields_decoder.decode(raw)
        ambiguous = why_ambiguous(raw)
    except msgspec.ValidationError:
        raise invalid("", why_no_object(raw)) from None
    except UNREADABLE as exc:
        raise unreadable(raw) from exc
    if ambiguous is not None:
        raise Problem(400, "malformed", ambiguous)
    return fields


def _is_utf8(request: web.Request) -> bool:
    return (request.charset or "utf-8").lower() in ("utf-8", "utf8", "us-ascii")


def _needs_json() -> Problem:
    return Problem(415, "unsupported-type", f"send Content-Type: {JSON_TYPE}, in UTF-8")


def pointer_of(steps: Iterable[str]) -> str:
    return "".join(f"/{escaped(step)}" for step in steps)


def _same_letters(name: str, known: tuple[str, ...]) -> list[str]:
    folded = name.lower().replace("_", "")
    return [word for word in known if word.lower() == folded]

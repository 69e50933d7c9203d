"""What a client may send over a WebSocket: strict JSON, one record for each `op`. No IO."""

import re
from typing import Annotated, Literal, get_args

import msgspec

from bus.malformed import why_ambiguous, why_no_json
from transports.http.web.body import UNREADABLE, wrong_shape
from transports.http.web.problems import Problem, invalid

_NAME = r"^[A-Za-z0-9._:-]{1,64}$"
NAMED = re.compile(_NAME)
_NUMBER_MAX = 2**53 - 1

Name = Annotated[str, msgspec.Meta(pattern=_NAME)]
"""A word of the client's choice; it stands in every frame of its subscription or answer."""

Values = str | tuple[str, ...]


class _Request(msgspec.Struct, frozen=True, kw_only=True, tag_field="op", rename="camel"):
    """A frame of a client."""

    @property
    def about(self) -> dict[str, str]:
        """Whom an answer is addressed to."""
        return {
            name: value
            for name in ("sub", "ref")
            if (value := getattr(self, name, None)) is not None
        }


class _Strict(_Request, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Unknown fields are refused: a mistyped filter must not widen what is sent."""


class Auth(_Strict, frozen=True, kw_only=True, tag="auth"):
    token: Annotated[str, msgspec.Meta(min_length=1, max_length=512)]


class Filter(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Within one name any value will do; all names given must fit."""

    job: Values = ()
    execution: Values = ()
    user: Values = ()
    type: Values = ()


class Subscribe(_Strict, frozen=True, kw_only=True, tag="subscribe"):
    """`filter` and `start` are for `events`; `execution`, `from`, `tail`, `follow` for `output`."""

    sub: Name
    topic: Literal["events", "output"]
    after: Annotated[str, msgspec.Meta(max_length=128)] | None = None
    filter: Filter | None = None
    start: Literal["snapshot", "now", "earliest"] | None = None
    execution: Annotated[str, msgspec.Meta(max_length=64)] | None = None
    start_at: Annotated[int, msgspec.Meta(ge=0, le=_NUMBER_MAX)] | None = msgspec.field(
        name="from", default=None
    )
    tail: Annotated[int, msgspec.Meta(ge=0, le=10_000)] | None = None
    follow: Literal["all", "latest"] | None = None


class Unsubscribe(_Strict, frozen=True, kw_only=True, tag="unsubscribe"):
    sub: Name


class Publish(_Strict, frozen=True, kw_only=True, tag="publish"):
    """`command` is the body of `POST /commands`; `wait` are seconds, as in `Prefer: wait`."""

    ref: Name
    command: dict[str, msgspec.Raw]
    idempotency_key: str | None = None
    wait: Annotated[int, msgspec.Meta(ge=0)] | None = None


class Ping(_Strict, frozen=True, kw_only=True, tag="ping"):
    n: Annotated[int, msgspec.Meta(ge=-_NUMBER_MAX, le=_NUMBER_MAX)]


ClientFrame = Auth | Subscribe | Unsubscribe | Publish | Ping


_WORDS = {
    "/op": tuple(str(kind.__struct_config__.tag) for kind in get_args(ClientFrame)),
    "/topic": ("events", "output"),
    "/start": ("snapshot", "now", "earliest"),
    "/follow": ("all", "latest"),
}
"""What may stand where a word was wrong."""


class Addressed(msgspec.Struct, frozen=True):
    """What an answer to a faulty frame can be addressed to."""

    op: object = None
    sub: object = None
    ref: object = None


_decoder: msgspec.json.Decoder[ClientFrame] = msgspec.json.Decoder(ClientFrame)
_addressed = msgspec.json.Decoder(Addressed)


class BadFrame(Exception):
    """A frame that says nothing; `problem` says why, `about` what to address it to.

    Without `is_json` the client speaks another protocol: the socket is over.
    """

    def __init__(self, problem: Problem, *, is_json: bool, about: dict[str, str]) -> None:
        super().__init__(problem.detail)
        self.problem = problem
        self.is_json = is_json
        self.about = about


def decode(text: str) -> ClientFrame:
    """The record of a client's frame.

    Raises:
        BadFrame: it is none.
    """
    try:
        frame = _decoder.decode(text)
        ambiguous = why_ambiguous(text.encode())
    except msgspec.ValidationError as exc:
        about = _about(text)
        raise BadFrame(
            wrong_shape(exc, _WORDS), is_json=about is not None, about=about or {}
        ) from None
    except UNREADABLE:
        why = why_no_json(text.encode("utf-8", "surrogatepass"))
        problem = Problem(400, "malformed", f"send one JSON object a message: {why}")
        raise BadFrame(problem, is_json=False, about={}) from None
    if ambiguous is not None:
        problem = Problem(400, "malformed", ambiguous)
        raise BadFrame(problem, is_json=True, about=_about(text) or {})
    return frame


def filter_values(chosen: Filter | None) -> dict[str, frozenset[str]]:
    """The filter's values by name.

    Raises:
        Problem: 422; too many values, or an empty one.
    """
    values: dict[str, frozenset[str]] = {}
    for name in Filter.__struct_fields__ if chosen is not None else ():
        given: Values = getattr(chosen, name)
        listed = (given,) if isinstance(given, str) else tuple(given)
        if len(listed) > 32 or not all(0 < len(text) <= 256 for text in listed):
            raise invalid(f"/filter/{name}", "give at most 32 values of 1 to 256 characters")
        values[name] = frozenset(listed)
    return values


def _about(text: str) -> dict[str, str] | None:
    """The `sub` and `ref` of a frame that is a JSON object; None if it is none."""
    try:
        said = _addressed.decode(text)
    except (msgspec.DecodeError, RecursionError):
        return None
    return {
        name: value
        for name, value in (("sub", said.sub), ("ref", said.ref))
        if isinstance(value, str) and NAMED.match(value)
    }

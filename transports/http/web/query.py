"""Query parameters read strictly: an unknown, repeated or wrong one is refused by name.

What real clients add by themselves is known: cache busters mean nothing on any path, and where a
stream goes on has many spellings.
"""

import re
from difflib import get_close_matches

from aiohttp import web
from multidict import MultiDict, MultiDictProxy, MultiMapping

from transports.http.web.problems import Problem, bad_parameter

_QUERY_MAX = 4096
_VALUES_MAX = 32
_BEGINNING = re.compile(r"[0-9a-f-]{4,36}")
_NAMES = web.RequestKey("query names", tuple[str, ...])
_NO_QUERY: MultiMapping[str] = MultiDictProxy(MultiDict())


CACHE_BUSTERS = frozenset(
    {
        *("_", "_dc", "_t", "_ts", "t", "ts", "timestamp", "r", "rnd", "rand", "random", "nonce"),
        *("cb", "nocache", "no_cache", "cachebust", "cachebuster", "dojo.preventcache"),
        *("evs_preamble", "evs_buffer_size_limit", "heartbeattimeout"),
    }
)
"""In lower case, what libraries and habit add to a URL for themselves: jQuery, Ext JS, Dojo,
`Date.now()`, EventSource polyfills.
No parameter of ours has such a name."""

POSITION = "last_event_id"
_POSITIONS = frozenset({"lasteventid", "evslasteventid"})


def is_cache_buster(name: str) -> bool:
    return name.lower() in CACHE_BUSTERS


def is_position(name: str) -> bool:
    """Whether it says where a stream goes on: `last_event_id`, `lastEventId`, `Last-Event-ID`, …"""
    return name.lower().replace("_", "").replace("-", "") in _POSITIONS


def expect_query(request: web.Request, names: tuple[str, ...]) -> None:
    """These are all the names that the request's query may hold."""
    request[_NAMES] = names


class Query:
    """The query of one request.

    Raises:
        Problem: 400 for a name that `expect_query` did not name, with the nearest that it did.
    """

    def __init__(self, request: web.Request) -> None:
        self._query = _NO_QUERY
        if not request.rel_url.raw_query_string:
            return
        if len(request.query_string) > _QUERY_MAX:
            raise Problem(400, "malformed", f"the query is longer than {_QUERY_MAX} characters")
        known = request[_NAMES]
        for name in request.query:
            is_added = is_cache_buster(name) or (POSITION in known and is_position(name))
            if name not in known and not is_added:
                raise _unknown(name, known)
        self._query = request.query

    def position(self) -> str | None:
        """The position in whatever spelling; one that was added to our own name is the later one.

        A polyfill comes back with the URL that it was made with, and the position behind it.
        """
        added = [
            value
            for name, value in self._query.items()
            if value and name != POSITION and is_position(name)
        ]
        return added[-1] if added else self.text(POSITION)

    def text(self, name: str) -> str | None:
        """The one value of `name`, or None."""
        values = self._query.getall(name, [])
        if len(values) > 1:
            raise bad_parameter(name, "may be given once")
        return values[0] if values else None

    def texts(self, name: str) -> frozenset[str]:
        """All values of a repeatable parameter."""
        values = self._query.getall(name, [])
        if len(values) > _VALUES_MAX:
            raise bad_parameter(name, f"may be given {_VALUES_MAX} times at most")
        if "" in values:
            raise bad_parameter(name, "must not be empty")
        return frozenset(values)

    def beginning_of_id(self, name: str) -> str:
        """How the ids that are asked for begin, in lower case; empty for all of them."""
        text = (self.text(name) or "").lower()
        if text and not _BEGINNING.fullmatch(text):
            raise bad_parameter(name, "must be an id or its beginning: 4 to 36 of 0-9, a-f and -")
        return text

    def number(self, name: str, *, low: int, high: int) -> int | None:
        """A whole number from `low` to `high`, or None if it was not given."""
        text = self.text(name)
        if text is None:
            return None
        if not (text.isascii() and text.isdigit() and len(text) <= 19):
            raise bad_parameter(name, f"must be a whole number from {low} to {high}")
        value = int(text)
        if not low <= value <= high:
            raise bad_parameter(name, f"must be from {low} to {high}, not {value}")
        return value

    def choice(self, name: str, choices: tuple[str, ...], default: str) -> str:
        text = self.text(name)
        if text is None:
            return default
        if text not in choices:
            raise bad_parameter(name, f"must be one of {', '.join(choices)}")
        return text


def _unknown(name: str, known: tuple[str, ...]) -> Problem:
    near = get_close_matches(name, known, n=1)
    hint = f"; did you mean {near[0]!r}?" if near else ""
    have = f"; known here: {', '.join(known)}" if known else "; this path takes none"
    return Problem(400, "unknown-parameter", f"unknown query parameter {name[:80]!r}{hint or have}")

"""Which of the offered types a request wants (RFC 9110 §12.5.1). No IO."""

import re

from aiohttp import web

from transports.http.web.problems import Problem

RANGES_MAX = 100

_PART = re.compile(r'(?:[^,"]|"(?:[^"\\]|\\.)*")+')
_PARAMETER = re.compile(r';\s*([^\s;=,"]+)\s*=\s*("(?:[^"\\]|\\.)*"|[^\s;,"]*)\s*')
_RANGE = re.compile(r"\s*([!#$%&'*+.^_`|~\w-]+(?:/[!#$%&'*+.^_`|~\w-]+)?)\s*")
_WEIGHT = re.compile(r"(?:0?\.\d+|[01](?:\.\d*)?)\Z")


def preferred_type(request: web.Request, offered: tuple[str, ...]) -> str:
    """The offered type with the highest weight; of equals that which is named rather than covered
    by a range (`application/json, text/plain, */*`, as axios has it), then the first. The first
    without a header.

    Raises:
        Problem: 406; nothing offered is accepted.
    """
    header = ", ".join(request.headers.getall("Accept", []))
    if not header.strip():
        return offered[0]
    ranges = _ranges(header)
    weights = [(*_weight(ranges, kind), -index) for index, kind in enumerate(offered)]
    best, _, at = max(weights)
    if best <= 0:
        raise Problem(
            406, "not-acceptable", f"accept one of {', '.join(offered)}", extra={"accept": offered}
        )
    return offered[-at]


def _ranges(header: str) -> list[tuple[str, int, float]]:
    """The ranges that can be read, in lower case, with how exact their parameters make them and
    their weights. What can not be read accepts nothing."""
    found = []
    for part in _PART.findall(header)[:RANGES_MAX]:
        name = _RANGE.match(part)
        if name is None:
            continue
        exact, weight = 1, 1.0
        at = name.end()
        while parameter := _PARAMETER.match(part, at):
            at = parameter.end()
            word, value = parameter[1].lower(), parameter[2].strip('"').lower()
            if word == "q":
                weight = float(value) if _WEIGHT.match(value) else 0.0
                break  # what follows is about the weight
            if word == "charset":
                exact = 2 if value in ("utf-8", "utf8") else -1
            elif exact == 1:
                exact = 0  # nothing is offered in variants: such a range is the least exact
        if at < len(part) and part[at:].strip(" ;") and not part[at:].lstrip().startswith(";"):
            continue
        if exact >= 0:
            found.append((name[1].lower(), exact, min(weight, 1.0)))
    return found


def _weight(ranges: list[tuple[str, int, float]], kind: str) -> tuple[float, int]:
    """The weight of `kind`, that of the most specific range which covers it, and how specific that
    is."""
    ranks = {"*": 0, "*/*": 0, kind.partition("/")[0] + "/*": 1, kind: 2}
    best, weight = (-1, -1), 0.0
    for name, exact, given in ranges:
        if name in ranks and (ranks[name], exact) > best:
            best, weight = (ranks[name], exact), given
    return weight, best[0]
